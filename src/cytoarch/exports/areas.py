"""How large every area is: in each section, in all, on either side, and by the sections' spacing in volume."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Literal

from cytoarch.exports.legends import Legend

Side = Literal["left", "right", "both"]
ALL = "all"
"""Stands for all sections, and for all sides."""


@dataclass(frozen=True)
class SectionArea:
    """How many cells of a section each label takes."""

    section_id: str
    section_number: int
    side: Side
    """What the section shows, as the manifest states."""
    position_um: float | None
    """Place along the cutting axis; None: unstated."""
    cell_um: float
    cells: Mapping[int, int]
    """By label value."""


@dataclass(frozen=True)
class AreaRow:
    """A row of the table of areas."""

    section_id: str
    section_number: int | None
    side: str
    id: int
    area: str
    group: str
    sections: int
    """Sections that show the area."""
    cells: int
    mm2: float
    slab_um: float | None
    """How much of the cutting axis the section stands for; None: unknown, or of several sections."""
    volume_mm3: float | None


COLUMNS = tuple(field.name for field in fields(AreaRow))


def slabs_um(sections: Sequence[SectionArea]) -> dict[str, float]:
    """How much of the cutting axis each section stands for: half-way to its neighbours, at the ends as within.

    This is Cavalieri's estimator for sections at uneven places (Gundersen and Jensen, 1987). Sections of the left, of
    the right and of both sides are series of their own. Nothing for a series in which a place is unstated or shared,
    or that has one section.

    >>> places = [SectionArea(str(at), at, "both", float(at), 1.0, {}) for at in (0, 100, 300)]
    >>> slabs_um(places)
    {'0': 100.0, '100': 150.0, '300': 200.0}
    """
    found: dict[str, float] = {}
    for side in ("left", "right", "both"):
        series = [one for one in sections if one.side == side]
        stated = sorted((one.position_um, one.section_id) for one in series if one.position_um is not None)
        gaps = [after[0] - before[0] for before, after in pairwise(stated)]
        if len(stated) != len(series) or not gaps or min(gaps) <= 0:
            continue
        around = [gaps[0], *gaps, gaps[-1]]
        found |= {one: sum(around[at : at + 2]) / 2 for at, (_, one) in enumerate(stated)}
    return found


def area_rows(sections: Sequence[SectionArea], legend: Legend) -> list[AreaRow]:
    """The table of areas: first of all sections together, side by side where there are sides, then of each section."""
    slabs = slabs_um(sections)
    single = [
        _row([one], slabs, one.section_id, one.section_number, one.side, row.value, row.name, row.group)
        for one in sections
        for row in legend
        if one.cells.get(row.value)
    ]
    sides = sorted({one.side for one in sections})
    groups = [(ALL, list(sections))]
    groups += [(side, [one for one in sections if one.side == side]) for side in sides if len(sides) > 1]
    together = [
        _row(shown, slabs, ALL, None, side if len(sides) > 1 else sides[0], row.value, row.name, row.group)
        for side, members in groups
        for row in legend
        if (shown := [one for one in members if one.cells.get(row.value)])
    ]
    return together + single


def _row(
    members: Sequence[SectionArea],
    slabs: Mapping[str, float],
    section_id: str,
    number: int | None,
    side: str,
    value: int,
    name: str,
    group: str,
) -> AreaRow:
    sizes = {one.section_id: one.cells[value] * (one.cell_um / 1000) ** 2 for one in members}
    volume = sum(size * slabs[one] / 1000 for one, size in sizes.items()) if slabs.keys() >= sizes.keys() else None
    return AreaRow(
        section_id,
        number,
        side,
        value,
        name,
        group,
        len(members),
        sum(one.cells[value] for one in members),
        sum(sizes.values()),
        slabs.get(section_id),
        volume,
    )


def areas_csv(rows: Iterable[AreaRow]) -> bytes:
    """The table as CSV; numbers that are not known are blank."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(_cell(getattr(row, column)) for column in COLUMNS)
    return buffer.getvalue().encode()


def _cell(value: object) -> object:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
