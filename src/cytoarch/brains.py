"""Brains and their sections, as a manifest states them. What a manifest states is never guessed."""

import hashlib
import math
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from cytoarch.errors import ManifestError, ScanError
from cytoarch.palette import group_colours, hex_colour, hierarchical_colours
from cytoarch.paths import ID_PATTERN, confined
from cytoarch.tables import csv_rows, gathered, row_faults

PIXEL_SIZE_LIMITS_UM = (0.05, 100.0)
"""Pixel sizes outside this range are not those of a section scan (um)."""

MOST_ID = 2**31 - 1
"""The largest id of a label: atlases such as Allen's have ids of nine digits."""

LABEL_TABLE_FILE = "labels.csv"
"""Where a label table is looked for, beside the manifest."""

RESERVED_IDS = ("ome", "zarr.json")
"""Names that a collection of sections needs for itself (in any case)."""

Region = tuple[int, int, int, int]
"""(y0, y1, x0, x1) in pixels of the whole scan."""

_YES_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_SIX_NUMBERS = "six numbers yy yx y xy xx x"
_REGION = re.compile(r"^(\d+):(\d+)\s+(\d+):(\d+)$")


def _yes_no(value: object) -> object:
    """A truth value; spreadsheets write one in their own language where they took a cell for one."""
    if isinstance(value, str) and value.lower() not in _YES_NO:
        raise ValueError("yes or no is needed")
    return _YES_NO[value.lower()] if isinstance(value, str) else value


def _lower_case(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _region(value: object) -> object:
    match = _REGION.match(value) if isinstance(value, str) else None
    return tuple(int(number) for number in match.groups()) if match else value


def _six_numbers(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = tuple(value.replace(",", " ").replace(";", " ").split())
    if len(parts) != 6:
        raise ValueError(f"{_SIX_NUMBERS} are needed, {len(parts)} were found")
    return parts


class Section(BaseModel):
    """One stained section: a row of the manifest. Paths are relative to the folder of scans."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    brain_id: str = Field(pattern=ID_PATTERN, description="Brain this section belongs to.")
    section_id: str = Field(pattern=ID_PATTERN, description="Name of the section, unique within its brain.")
    section_number: int = Field(ge=0, description="Place in cutting order, unique within its brain; gaps are legal.")
    path: str = Field(min_length=1, description="Scan, relative to the folder of scans.")
    pixel_size_um: float | None = Field(
        default=None,
        ge=PIXEL_SIZE_LIMITS_UM[0],
        le=PIXEL_SIZE_LIMITS_UM[1],
        description="Edge of a pixel (um); blank: the scan's own statement.",
    )
    stain: str = Field(default="unstated", max_length=64, description="For example nissl, silver, he, dapi.")
    thickness_um: float | None = Field(default=None, gt=0, le=1000, description="Thickness of the section (um).")
    species: str = Field(default="unstated", max_length=64, description="For example human, macaque, mouse.")
    hemisphere: Literal["left", "right", "both"] = Field(default="both", description="What the section shows.")
    flip: Literal["none", "horizontal", "vertical"] = Field(
        default="none", description="Mirroring that brings the scan into anatomical orientation, before rotation."
    )
    rotation: float = Field(default=0.0, ge=-360, le=360, description="Then degrees counter-clockwise.")
    transform: Annotated[tuple[float, float, float, float, float, float] | None, BeforeValidator(_six_numbers)] = Field(
        default=None,
        description="Where the section lies, instead of what its links say: six numbers, the rows of the affine from "
        "its (y, x, 1) um to the (y, x) um of the brain's plane, as reconstruct-brain gives them.",
    )
    exclude: Annotated[bool, BeforeValidator(_yes_no)] = Field(default=False, description="yes: leave it out.")
    reason: str = Field(default="", max_length=500, description="Why it is left out, or any remark.")
    labels: str | None = Field(
        default=None, description="Label image, or GeoJSON of outlines, in scan orientation; 0 is unlabelled."
    )
    tissue_path: str | None = Field(
        default=None,
        description="Tissue that a person drew, instead of what is found: a mask or label image (1 grey, 2 white) in "
        "scan orientation, or outlines as GeoJSON in pixels of the scan.",
    )
    labels_origin: Literal["expert", "automatic", "molecular", "phantom", "unstated"] = Field(
        default="unstated", description="Who drew the labels; reports say so beside every score."
    )
    position_um: float | None = Field(
        default=None, ge=-1e7, le=1e7, allow_inf_nan=False, description="Place along the cutting axis (um)."
    )
    plane: Literal["coronal", "sagittal", "horizontal", "unstated"] = Field(
        default="unstated", description="Cutting plane."
    )
    region_px: Annotated[Region | None, BeforeValidator(_region)] = Field(
        default=None, description="y0:y1 x0:x1 of this section on a slide that holds several (scan pixels)."
    )
    plane_index: int | None = Field(default=None, ge=0, description="Plane of a stack, from 0.")
    pixel_size_source: Literal["agree", "manifest"] = Field(
        default="agree", description="manifest: use pixel_size_um even where the scan states another size."
    )
    sha256: Annotated[str | None, BeforeValidator(_lower_case)] = Field(
        default=None, pattern=r"^[0-9a-f]{64}$", description="Checksum of the scan file."
    )

    @field_validator("section_id")
    @classmethod
    def _not_reserved(cls, section_id: str) -> str:
        if section_id.lower() in RESERVED_IDS:
            raise ValueError("this name is taken by the collection of sections; choose another")
        return section_id

    @field_validator("region_px")
    @classmethod
    def _ordered(cls, region: Region | None) -> Region | None:
        if region is not None and not (region[0] < region[1] and region[2] < region[3]):
            raise ValueError("y0:y1 x0:x1 is needed, with y0 < y1 and x0 < x1")
        return region

    @field_validator("transform")
    @classmethod
    def _has_a_way_back(cls, numbers: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if numbers is not None:
            yy, yx, _, xy, xx, _ = numbers
            if not all(map(math.isfinite, numbers)) or abs(yy * xx - yx * xy) < 1e-6:
                raise ValueError(f"it maps the section onto a line or beyond all bounds; {_SIX_NUMBERS} are needed")
        return numbers

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.exclude and not self.reason:
            raise ValueError("exclude is yes but reason is blank: say why, the report shows it")
        if self.pixel_size_source == "manifest" and self.pixel_size_um is None:
            raise ValueError("pixel_size_source is manifest but pixel_size_um is blank")
        return self


def stated_section(section_id: str, row: Mapping[str, Any]) -> Section:
    """A section of which only some columns of the manifest are stated, for science that takes a section."""
    unused = {"brain_id": "unused", "section_number": 0, "path": "unused"}
    return Section.model_validate({**unused, "section_id": section_id, **row})


REQUIRED_COLUMNS = ("brain_id", "section_id", "section_number", "path")
COLUMNS = tuple(Section.model_fields)


class Label(BaseModel):
    """One row of a label table: what a pixel value of the label images means."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    id: int = Field(ge=1, le=MOST_ID, description="Pixel value in the label images; 0 is always unlabelled.")
    name: str = Field(min_length=1, max_length=200, description="Name of the area or layer.")
    colour: str | None = Field(default=None, pattern=r"^#[0-9a-fA-F]{6}$", description="#rrggbb; blank: chosen.")
    group: str | None = Field(default=None, max_length=200, description="Coarser area to train on instead.")


class LabelTable(BaseModel):
    """The meaning of every value in a brain's label images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: tuple[Label, ...] = Field(min_length=1)

    def classes(self, by_group: bool) -> "tuple[LabelClass, ...]":
        """The classes a head is trained on: one per label, or one per group in order of first appearance.

        Labels without a group stand for themselves. Where the table states groups, every class has a colour: its own,
        its group's, or a shade of it.
        """
        shades = [hex_colour(one) for one in hierarchical_colours(self.labels)]
        own = dict(zip((label.name for label in self.labels), shades, strict=True))
        by_name = own | {name: hex_colour(rgb) for name, rgb in group_colours(self.labels).items()} if by_group else own
        is_grouped = any(label.group for label in self.labels)
        members: dict[str, list[Label]] = defaultdict(list)
        for label in self.labels:
            members[(label.group or label.name) if by_group else label.name].append(label)
        return tuple(
            LabelClass(
                name=name,
                ids=tuple(label.id for label in group),
                colour=by_name[name] if is_grouped else group[0].colour,
            )
            for name, group in members.items()
        )


class LabelClass(BaseModel):
    """A class of a head: its name, the label ids that mean it, and its colour where one was given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    ids: tuple[int, ...]
    colour: str | None = None


class Brain(BaseModel):
    """A series of sections of one brain, ordered by section number, with the table of its labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    brain_id: str
    sections: tuple[Section, ...]
    label_table: LabelTable | None = None

    @property
    def kept(self) -> tuple[Section, ...]:
        """The sections that are not excluded by the manifest."""
        return tuple(section for section in self.sections if not section.exclude)

    @property
    def digest(self) -> str:
        """sha256 of everything the manifest and label table state about this brain."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def read_manifest(manifest_path: Path, scans_path: Path, label_table_path: Path | None) -> tuple[Brain, ...]:
    """The brains a manifest names, in order of first appearance.

    No two kept rows of a brain name the same part of a scan, and no label image serves two scans. `scans_path` is the
    folder that the paths are relative to and must not leave. `label_table_path` may be None where no row names a label
    image. Raises ManifestError listing every fault of the manifest with its row number,
    as a spreadsheet counts it (the header is row 1). Whether the scans exist and can be read is not looked at here:
    a bad scan costs its section, a bad manifest stops everything.
    """
    rows, faults = csv_rows(manifest_path, COLUMNS, REQUIRED_COLUMNS, drafted=True)
    sections: list[tuple[int, Section]] = []
    places: dict[tuple[int, str], Path] = {}
    for number, row in rows:
        try:
            section = Section.model_validate(row)
        except ValidationError as error:
            faults += row_faults(number, error)
            continue
        sections.append((number, section))
        for path in filter(None, (section.path, section.labels, section.tissue_path)):
            try:
                places[number, path] = confined(path, scans_path)
            except ScanError as error:
                faults.append(f"row {number}: {error}")
    faults += _duplicates(sections) + _shared_files(sections, places, scans_path)
    if not rows and not faults:
        faults.append("no section is named; at least one row is needed")
    if label_table_path is None and any(section.labels for _, section in sections):
        faults.append("label images are named but there is no label table; give one with columns id, name")
    table = None
    if label_table_path is not None:
        try:
            table = read_label_table(label_table_path)
        except ManifestError as error:
            faults += [f"{label_table_path.name}: {fault}" for fault in error.faults]
    if faults:
        raise ManifestError(str(manifest_path), gathered(faults))
    by_brain: dict[str, list[Section]] = defaultdict(list)
    for _, section in sections:
        by_brain[section.brain_id].append(section)
    return tuple(
        Brain(brain_id=name, sections=tuple(sorted(group, key=lambda s: s.section_number)), label_table=table)
        for name, group in by_brain.items()
    )


def stated_brains(
    manifest_path: Path, scans_path: Path | None = None, label_table_path: Path | None = None, brain_id: str = ""
) -> tuple[Brain, ...]:
    """The brains of a manifest, or the one of this id, with what lies beside it where nothing else is said.

    Raises ManifestError, listing every fault, also where the folder of scans or the brain is not there.
    """
    scans_folder = scans_path or manifest_path.parent
    if not scans_folder.is_dir():
        raise ManifestError(str(manifest_path), [f"the folder of scans {scans_folder} does not exist"])
    beside = manifest_path.with_name(LABEL_TABLE_FILE)
    table = label_table_path or (beside if beside.is_file() else None)
    brains = read_manifest(manifest_path, scans_folder, table)
    chosen = tuple(brain for brain in brains if brain_id in ("", brain.brain_id))
    if not chosen:
        names = ", ".join(brain.brain_id for brain in brains)
        raise ManifestError(str(manifest_path), [f"names no brain {brain_id!r}; it names {names}"])
    return chosen


def brain_ids(manifest_path: Path) -> tuple[str, ...]:
    """The brains a manifest names, in order of first appearance; nothing else in it is checked."""
    rows, _ = csv_rows(manifest_path, COLUMNS, REQUIRED_COLUMNS, drafted=True)
    return tuple(dict.fromkeys(row.get("brain_id", "") for _, row in rows))


def read_label_table(path: Path) -> LabelTable:
    """The label table in a CSV file with columns id, name and optionally colour, group. A row with id 0 is skipped.

    Raises ManifestError listing every fault with its row.
    """
    rows, faults = csv_rows(path, tuple(Label.model_fields), ("id", "name"), drafted=True)
    labels: list[Label] = []
    seen: dict[object, int] = {}
    for number, row in rows:
        if row.get("id") == "0":  # tables often spell out that 0 means unlabelled
            continue
        try:
            label = Label.model_validate(row)
        except ValidationError as error:
            faults += row_faults(number, error)
            continue
        for key, what in ((label.id, f"id {label.id}"), (label.name, f"name {label.name!r}")):
            if key in seen:
                faults.append(f"row {number}: {what} is already used in row {seen[key]}")
            seen.setdefault(key, number)
        labels.append(label)
    if not labels and not faults:
        faults.append("no label is named; at least one row with id >= 1 is needed")
    if faults:
        raise ManifestError(str(path), gathered(faults))
    return LabelTable(labels=tuple(labels))


def _duplicates(sections: list[tuple[int, Section]]) -> list[str]:
    """Rows of one brain that share a section number, or an id that a case-blind file system cannot tell apart."""
    faults: list[str] = []
    seen: dict[tuple[str, str, object], int] = {}
    for number, section in sections:
        brain = section.brain_id.lower()
        for what, key in (
            (f"section_id {section.section_id!r}", ("id", section.section_id.lower())),
            (f"section_number {section.section_number}", ("number", section.section_number)),
        ):
            first = seen.setdefault((brain, *key), number)
            if first != number:
                faults.append(f"row {number}: {what} of brain {section.brain_id} is already used in row {first}")
    spellings: dict[str, str] = {}
    for number, section in sections:
        first_spelling = spellings.setdefault(section.brain_id.lower(), section.brain_id)
        if first_spelling != section.brain_id:
            faults.append(f"row {number}: brain_id {section.brain_id!r} differs from {first_spelling!r} only in case")
    return faults


def _share_most(one: Region | None, other: Region | None) -> bool:
    """Whether more than half of one part of a plane (None: all of it) lies in the other.

    Frames drawn around neighbours on a slide overlap a little, at their corners.

    >>> _share_most((0, 10, 0, 10), (0, 10, 4, 14)), _share_most((0, 10, 0, 10), (5, 15, 5, 15))
    (True, False)
    """
    if one is None or other is None:
        return True
    height, width = (min(one[k + 1], other[k + 1]) - max(one[k], other[k]) for k in (0, 2))
    smaller = min((region[1] - region[0]) * (region[3] - region[2]) for region in (one, other))
    return height > 0 and width > 0 and 2 * height * width > smaller


def _shared_files(
    sections: list[tuple[int, Section]], places: Mapping[tuple[int, str], Path], scans_path: Path
) -> list[str]:
    """Rows of one brain with the same part of a scan, or most of it, or with the label image of another scan.

    Of two such sections one could train a head and the other test it. Rows that are left out are not looked at.
    `places` are the files that the paths of the rows lead to, as far as they lead to any. Label images are told apart
    by name: git-annex keeps two blank ones as links to one file.
    """
    faults: list[str] = []
    scans: dict[tuple[str, Path, int], dict[int, Region | None]] = defaultdict(dict)
    labelled: dict[tuple[str, str], tuple[int, Path]] = {}
    for number, section in sections:
        scan = places.get((number, section.path))
        labels = os.path.normpath(scans_path / section.labels) if section.labels else None
        if section.exclude or scan is None:
            continue
        brain = section.brain_id.lower()
        regions = scans[brain, scan, section.plane_index or 0]
        first = next((row for row, region in regions.items() if _share_most(region, section.region_px)), None)
        regions[number] = section.region_px
        if first is not None:
            is_same = regions[first] == section.region_px
            shared = (
                "region_px and plane_index" if is_same else "plane_index, and most of one region_px is in the other"
            )
            faults.append(
                f"row {number}: {section.path!r} is already the scan of row {first}, with the same {shared}; correct "
                "one of them, or exclude it with a reason"
            )
        elif labels is not None and labelled.setdefault((brain, labels), (number, scan))[1] != scan:
            faults.append(
                f"row {number}: {section.labels!r} is already the label image of another scan, in row "
                f"{labelled[brain, labels][0]}; correct one of them"
            )
    return faults
