"""Where on a section embeddings are asked for: tables of regions and of points, in pixels of the scan."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cytoarch.brains import Section
from cytoarch.digests import canonical_json
from cytoarch.embeddings.dense import WindowUm
from cytoarch.errors import ManifestError, SectionError
from cytoarch.images.views import StoredImage
from cytoarch.paths import ID_PATTERN
from cytoarch.tables import csv_rows, gathered, row_faults

BRAIN_COLUMNS = ("x_mm", "y_mm", "z_mm")
"""Columns that place a point in the brain."""
RESERVED_COLUMNS = ("point", "draw", "index", "_index")
"""Names that the table of embeddings needs for itself."""
COLUMN_NAME = re.compile(r"[^\W\d][\w -]{0,63}")
WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]{0,14})")
"""A whole number, without leading zeros: those are names."""
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class Region(BaseModel):
    """A window of a section, in pixels of its scan; the first one of the scan begins at 0, 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    section_id: str = Field(pattern=ID_PATTERN, description="Section of the manifest.")
    y_px: float = Field(ge=0, le=1e7, allow_inf_nan=False, description="Upper edge.")
    x_px: float = Field(ge=0, le=1e7, allow_inf_nan=False, description="Left edge.")
    height_px: float = Field(gt=0, le=1e7, allow_inf_nan=False, description="Height.")
    width_px: float = Field(gt=0, le=1e7, allow_inf_nan=False, description="Width.")


class RegionTable(BaseModel):
    """The regions of a brain that are to be embedded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    regions: tuple[Region, ...]

    @property
    def section_ids(self) -> frozenset[str]:
        """The sections that hold a region."""
        return frozenset(region.section_id for region in self.regions)

    def windows(self, section: Section, pixel_size_um: float) -> tuple[WindowUm, ...]:
        """The regions (y, x, height, width) um of a section with such pixels, from its corner.

        Where the section is a part of its scan they may begin or end outside it, or lie beside it: `check_inside`.
        """
        y0, _, x0, _ = section.region_px or (0, 0, 0, 0)
        regions = [one for one in self.regions if one.section_id == section.section_id]
        in_px = [(one.y_px - y0, one.x_px - x0, one.height_px, one.width_px) for one in regions]
        return tuple(
            (y * pixel_size_um, x * pixel_size_um, height * pixel_size_um, width * pixel_size_um)
            for y, x, height, width in in_px
        )


def stated_size(section: Section, image: StoredImage) -> str:
    """The size of a section, and where on its scan it begins, in words."""
    height, width = image.grid.shape
    if section.region_px is None:
        return f"{height} x {width} px"
    return f"{height} x {width} px that begins at row {section.region_px[0]}, column {section.region_px[2]} of its scan"


def check_inside(windows: Sequence[WindowUm], section: Section, image: StoredImage) -> None:
    """Raise SectionError if a region (y, x, height, width) um from the corner of its section lies outside it."""
    whole = image.extent_um
    outside = [
        window
        for window in windows
        if any(window[axis] >= whole[axis] or window[axis] + window[axis + 2] <= 0 for axis in (0, 1))
    ]
    if outside:
        raise SectionError(
            f"{len(outside)} of its {len(windows)} regions lie outside the section of {stated_size(section, image)}; "
            "they must be in pixels of the scan, y before x"
        )


def read_regions(path: Path, section_ids: Collection[str]) -> RegionTable:
    """The regions in a CSV file with columns section_id, y_px, x_px, height_px, width_px.

    Raises ManifestError listing every fault with its row, sections that the brain does not have among them.
    """
    columns = tuple(Region.model_fields)
    rows, faults = csv_rows(path, columns, columns)
    regions: list[Region] = []
    known = frozenset(section_ids)
    for number, row in rows:
        try:
            region = Region.model_validate(row)
        except ValidationError as error:
            faults += row_faults(number, error)
            continue
        faults += _unknown(number, region.section_id, known)
        regions.append(region)
    _refuse(path, faults, len(regions), "region")
    return RegionTable(regions=tuple(regions))


class SectionPoints(BaseModel):
    """The points of one section."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: tuple[int, ...]
    """Row numbers in the table, as a spreadsheet counts them."""
    places_px: tuple[tuple[float, float], ...]
    """y, x in pixels of the scan; the centre of the first pixel is 0, 0."""
    columns: dict[str, tuple[int, ...] | tuple[float, ...] | tuple[str, ...]]
    """Every further column of the table, of the one type it has in the whole table."""

    @property
    def digest(self) -> str:
        """sha256 of the points and all that is said of them; where in the table they stand says nothing."""
        content = self.model_dump(mode="json", exclude={"rows"})
        # a cell that is not a number has no place in JSON
        content["columns"] = {name: [str(cell) for cell in cells] for name, cells in self.columns.items()}
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()


class Points(BaseModel):
    """Points on the sections of a brain, in the order of their table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sections: dict[str, SectionPoints]

    @property
    def section_ids(self) -> frozenset[str]:
        """The sections that hold a point."""
        return frozenset(self.sections)

    def of(self, sections: Iterable[Section]) -> Self:
        """The points of some sections only."""
        return self.model_copy(update={"sections": {s.section_id: self.sections[s.section_id] for s in sections}})

    @classmethod
    def read(cls, path: Path, section_ids: Collection[str]) -> Self:
        """The points in a CSV file with columns section_id, y_px, x_px; further columns are carried along.

        x_mm, y_mm, z_mm, where all three are there, place a point in the brain. A column of whole numbers, or of
        numbers and blanks, is kept as such, any other as text. Raises ManifestError listing every fault with its row,
        sections that the brain does not have among them.
        """
        rows, faults = csv_rows(path, None, ("section_id", "y_px", "x_px"))
        further = list(dict.fromkeys(name for _, row in rows for name in row if name not in _Point.model_fields))
        faults += [
            f"row 1: column {name!r} cannot be kept beside the embeddings; give it a name of letters, digits, "
            f"blanks, '_' and '-' other than {', '.join(RESERVED_COLUMNS)}"
            for name in further
            if name in RESERVED_COLUMNS or not COLUMN_NAME.fullmatch(name)
        ]
        points: dict[str, list[tuple[int, _Point]]] = defaultdict(list)
        known = frozenset(section_ids)
        for number, row in rows:
            try:
                point = _Point.model_validate({name: row[name] for name in _Point.model_fields if name in row})
            except ValidationError as error:
                faults += row_faults(number, error)
                continue
            faults += _unknown(number, point.section_id, known)
            faults += [
                f"row {number}: {name} {row.get(name, '')!r}: a number is needed"
                for name in BRAIN_COLUMNS
                if set(BRAIN_COLUMNS) <= set(further) and not NUMBER.fullmatch(row.get(name, ""))
            ]
            points[point.section_id].append((number, point))
        _refuse(path, faults, len(points), "point")
        cells = dict(rows)
        kinds = {name: _kind([row.get(name, "") for _, row in rows]) for name in further}
        return cls(
            sections={
                section_id: SectionPoints(
                    rows=tuple(number for number, _ in found),
                    places_px=tuple((point.y_px, point.x_px) for _, point in found),
                    columns={
                        name: tuple(kind(cells[number].get(name, "")) for number, _ in found)
                        for name, kind in kinds.items()
                    },
                )
                for section_id, found in points.items()
            }
        )


class _Point(BaseModel):
    section_id: str = Field(pattern=ID_PATTERN)
    y_px: float = Field(ge=-1e7, le=1e7, allow_inf_nan=False)
    x_px: float = Field(ge=-1e7, le=1e7, allow_inf_nan=False)


def _kind(cells: Sequence[str]) -> Callable[[str], Any]:
    """What turns the cells of a column into values: all whole numbers, all numbers or blank, or text."""
    if all(WHOLE.fullmatch(cell) for cell in cells):
        return int
    if all(not cell or NUMBER.fullmatch(cell) for cell in cells):
        return lambda cell: float(cell or "nan")
    return str


def _unknown(number: int, section_id: str, known: Collection[str]) -> list[str]:
    if section_id in known:
        return []
    shown = ", ".join(sorted(known)[:8]) + (", ..." if len(known) > 8 else "")
    return [f"row {number}: section_id {section_id!r} is no section of this brain; there are {shown}"]


def _refuse(path: Path, faults: Sequence[str], count: int, noun: str) -> None:
    if not count and not faults:
        faults = [f"no {noun} is named; at least one row is needed"]
    if faults:
        raise ManifestError(str(path), gathered(list(faults)))
