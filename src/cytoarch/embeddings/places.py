"""Where on a section embeddings are asked for: tables of regions and of points, in pixels of the scan."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cytoarch.brains import Section
from cytoarch.digests import canonical_json
from cytoarch.embeddings.dense import WindowUm
from cytoarch.errors import ManifestError
from cytoarch.paths import ID_PATTERN
from cytoarch.tables import csv_rows, gathered, row_faults

BRAIN_COLUMNS = ("x_mm", "y_mm", "z_mm")
"""Columns that place a point in the brain."""


class Region(BaseModel):
    """A window of a section, in pixels of its scan."""

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
    def identity(self) -> str:
        """Text that two tables share only if they ask for the same."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def section_ids(self) -> frozenset[str]:
        """The sections that hold a region."""
        return frozenset(region.section_id for region in self.regions)

    def windows(self, section_id: str, pixel_size_um: float) -> tuple[WindowUm, ...]:
        """The regions (y, x, height, width) um of a section whose scan has such pixels."""
        return tuple(
            (r.y_px * pixel_size_um, r.x_px * pixel_size_um, r.height_px * pixel_size_um, r.width_px * pixel_size_um)
            for r in self.regions
            if r.section_id == section_id
        )


def read_regions(path: Path, section_ids: Sequence[str]) -> RegionTable:
    """The regions in a CSV file with columns section_id, y_px, x_px, height_px, width_px.

    Raises ManifestError listing every fault with its row, sections that the brain does not have among them.
    """
    columns = tuple(Region.model_fields)
    rows, faults = csv_rows(path, columns, columns)
    regions: list[Region] = []
    for number, row in rows:
        try:
            region = Region.model_validate(row)
        except ValidationError as error:
            faults += row_faults(number, error)
            continue
        faults += _unknown(number, region.section_id, section_ids)
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
    columns: dict[str, tuple[str, ...]]
    """Every further column of the table, cells as text."""


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

    def digest(self, section_id: str) -> str:
        """sha256 of the points of a section and all that is said of them."""
        return hashlib.sha256(canonical_json(self.sections[section_id].model_dump(mode="json")).encode()).hexdigest()

    @classmethod
    def read(cls, path: Path, section_ids: Sequence[str]) -> Self:
        """The points in a CSV file with columns section_id, y_px, x_px; further columns are carried along.

        x_mm, y_mm, z_mm, where all three are there, place a point in the brain. Raises ManifestError listing every
        fault with its row, sections that the brain does not have among them.
        """
        rows, faults = csv_rows(path, None, ("section_id", "y_px", "x_px"))
        found: dict[str, list[tuple[int, _Point, dict[str, str]]]] = defaultdict(list)
        for number, row in rows:
            try:
                point = _Point.model_validate({name: row[name] for name in _Point.model_fields if name in row})
            except ValidationError as error:
                faults += row_faults(number, error)
                continue
            faults += _unknown(number, point.section_id, section_ids)
            found[point.section_id].append((number, point, row))
        _refuse(path, faults, len(found), "point")
        further = list(dict.fromkeys(name for _, row in rows for name in row if name not in _Point.model_fields))
        return cls(
            sections={
                section_id: SectionPoints(
                    rows=tuple(number for number, _, _ in points),
                    places_px=tuple((point.y_px, point.x_px) for _, point, _ in points),
                    columns={name: tuple(row.get(name, "") for _, _, row in points) for name in further},
                )
                for section_id, points in found.items()
            }
        )


class _Point(BaseModel):
    section_id: str = Field(pattern=ID_PATTERN)
    y_px: float = Field(ge=-1e7, le=1e7, allow_inf_nan=False)
    x_px: float = Field(ge=-1e7, le=1e7, allow_inf_nan=False)


def _unknown(number: int, section_id: str, section_ids: Sequence[str]) -> list[str]:
    if section_id in section_ids:
        return []
    shown = ", ".join(section_ids[:8]) + (", ..." if len(section_ids) > 8 else "")
    return [f"row {number}: section_id {section_id!r} is no ingested section of this brain; there are {shown}"]


def _refuse(path: Path, faults: Sequence[str], count: int, noun: str) -> None:
    if not count and not faults:
        faults = [f"no {noun} is named; at least one row is needed"]
    if faults:
        raise ManifestError(str(path), gathered(list(faults)))
