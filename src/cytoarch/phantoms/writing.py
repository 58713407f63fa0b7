"""A phantom brain written as a scanner and an annotator would leave it, with its truth beside it."""

import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cytoarch.errors import CytoarchError
from cytoarch.palette import distinct_colours
from cytoarch.paths import is_id
from cytoarch.phantoms import tables
from cytoarch.phantoms.anatomy import Variation, area_names, area_regions
from cytoarch.phantoms.files import PNG_LIMIT_PX, ScanFormat, blocks, scan_name, write_labels, write_scan
from cytoarch.phantoms.nuisances import Nuisances
from cytoarch.phantoms.profiles import LAYERS
from cytoarch.phantoms.rendering import LOOKS
from cytoarch.phantoms.scribbles import Stroke, Target, draw_scribbles, label_image, scribble_image
from cytoarch.phantoms.sections import (
    Phantom,
    PhantomSection,
    PhantomSettings,
    Stain,
    Window,
    cut,
    make_phantom,
    section_count,
)
from cytoarch.progress import Progress

Size = Literal["tiny", "small", "bench"]
MARKER_FILE = "PHANTOM.txt"
"""Written first: a folder without it is somebody's work and is left alone."""
RECIPE_FILE = "phantom.json"
"""What the brain was made from: enough to make it, and the truth of any of its pixels, again."""
PHANTOM_VERSION: Literal[1] = 1
"""Raised whenever the same request gives other pixels or another truth."""
_ID = "s[0-9][0-9][0-9][0-9]"
OWN_FILES = {
    ".": ("manifest.csv", RECIPE_FILE, "labels.csv"),
    "scans": (f"{_ID}.tif", f"{_ID}.ome.tif", f"{_ID}.png"),
    "labels": (f"{_ID}.tif", f"{_ID}.png"),
    "scribbles": (f"{_ID}.geojson",),
    "truth": ("*.csv", "*.gii"),
    "pictures": ("sections.png", "closeup.png", "surface.png"),
}
"""What a phantom is made of, by folder; everything else in its folders is somebody's."""
WHITE_MATTER_COLOUR, NUCLEUS_COLOUR = "#d8d4cc", "#8d8577"
_END_SHARE = 0.06
"""Sections nearer than this share to the ends of the brain show hardly any cortex."""


@dataclass(frozen=True)
class PhantomSize:
    """How many sections a phantom is written with, and how finely."""

    sections: int
    step: int | None
    """Every how manieth section is stained; None spreads them over the brain."""
    pixel_size_um: float
    thickness_um: float
    resolution: int


SIZES: dict[Size, PhantomSize] = {
    "tiny": PhantomSize(sections=5, step=10, pixel_size_um=80.0, thickness_um=25.0, resolution=48),
    "small": PhantomSize(sections=12, step=None, pixel_size_um=20.0, thickness_um=20.0, resolution=120),
    "bench": PhantomSize(sections=3, step=None, pixel_size_um=1.0, thickness_um=20.0, resolution=120),
}


class PhantomRequest(BaseModel):
    """What to write."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Size = Field(
        default="small",
        description="tiny: 5 neighbouring sections at 80 um per pixel, for tests; small: 12 over the brain at 20 um, "
        "for trying things; bench: 3 at 1 um, 20,000 x 27,000 px each, for measuring.",
    )
    seed: int = Field(default=0, ge=0, description="The individual; the same seed gives the same files.")
    stain: Stain = Field(default="silver", description="silver: grey; nissl: colour; dapi: fluorescence, 12 bit.")
    target: Target = Field(default="areas", description="What the label images show.")
    annotation: Literal["dense", "scribbles"] = Field(default="dense", description="Every pixel, or strokes of a pen.")
    strokes: int = Field(default=80, ge=1, le=10_000, description="Budget of strokes for scribbles, all sections.")
    scans: ScanFormat = Field(default="tiff", description="tiff and ome-tiff are tiled; png is for small sections.")
    sections: int | None = Field(default=None, ge=1, le=5000, description="Number of sections; blank: the size's.")
    pixel_size_um: float | None = Field(default=None, ge=0.1, le=100, description="Blank: the size's.")
    variation: Variation = Field(default=Variation(), description="How individuals differ from the reference.")
    nuisances: Nuisances = Field(default=Nuisances(), description="What stands between a brain and its scans.")

    @property
    def settings(self) -> PhantomSettings:
        """What the brain is made from."""
        size = SIZES[self.size]
        return PhantomSettings(
            seed=self.seed, stain=self.stain, thickness_um=size.thickness_um, variation=self.variation,
            nuisances=self.nuisances, resolution=size.resolution,
        )  # fmt: skip


@dataclass(frozen=True)
class _Series:
    """The sections of a phantom that a request asks for."""

    request: PhantomRequest
    phantom: Phantom
    pixel_size_um: float
    all: tuple[PhantomSection, ...]
    """Also those that were lost."""
    first: int
    """The number that the series counts from."""

    @property
    def sections(self) -> dict[str, PhantomSection]:
        """The sections to write, by id."""
        return {f"s{one.number - self.first:04d}": one for one in self.all if not one.mounting.missing}


class Recipe(BaseModel):
    """What a written phantom was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = Field(description="PHANTOM_VERSION of the code that wrote it.")
    brain_id: str
    request: PhantomRequest
    pixel_size_um: float
    sections: dict[str, int] = Field(description="Section number in the brain by section id.")


class WrittenPhantom:
    """A phantom in a folder, ready to be asked for the truth of its pixels."""

    def __init__(self, folder: Path) -> None:
        """Raises CytoarchError where the folder holds no phantom."""
        path = folder / RECIPE_FILE
        if not path.is_file():
            raise CytoarchError(f"{folder} holds no {RECIPE_FILE}: a folder written by the phantom command is needed")
        try:
            recipe = Recipe.model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError as error:
            raise CytoarchError(f"{path} is no recipe of version {PHANTOM_VERSION}; write the phantom again") from error
        self.pixel_size_um = recipe.pixel_size_um
        self.phantom = make_phantom(recipe.request.settings)
        self._numbers = recipe.sections

    @property
    def section_ids(self) -> tuple[str, ...]:
        """The sections that were written, in cutting order."""
        return tuple(self._numbers)

    def section(self, section_id: str) -> PhantomSection:
        """The section, for `render`, `truth` and `midline_points`; raises CytoarchError for an unknown id."""
        if section_id not in self._numbers:
            raise CytoarchError(f"no section {section_id!r}; the phantom has {', '.join(self._numbers)}")
        return cut(self.phantom, self._numbers[section_id])


def write_phantom(
    folder: Path,
    brain_id: str,
    request: PhantomRequest | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Write a phantom brain into a new or empty folder, or over another phantom; returns the path of its manifest.

    `on_progress` counts blocks of pixels, of scans and label images. Sections that the nuisances lost are gaps in the
    section numbers. Raises CytoarchError if the folder holds anything else already, if a section is too large for its
    format, or all of them for the disk.
    """
    request = PhantomRequest() if request is None else request
    if not is_id(brain_id):
        raise CytoarchError(f"brain {brain_id!r} is not a valid name; letters, digits, '.', '_' and '-' are needed")
    series = _series(request)
    _check_room(folder, series)
    try:
        _clear(folder)
        return _write(folder, brain_id, series, on_progress)
    except OSError as error:
        raise CytoarchError(f"{folder} could not be written: {error}; mend this and write the phantom again") from error


def _write(folder: Path, brain_id: str, series: _Series, on_progress: Progress | None) -> Path:
    """Write everything into a cleared folder; returns the path of the manifest."""
    request = series.request
    strokes = None
    if request.annotation == "scribbles":
        strokes = draw_scribbles(list(series.sections.values()), request.target, request.strokes)
        _write_strokes(folder / "scribbles", series, strokes)
    rows = _write_images(folder, brain_id, series, strokes, on_progress)
    numbers = {name: section.number for name, section in series.sections.items()}
    recipe = Recipe(
        version=PHANTOM_VERSION,
        brain_id=brain_id,
        request=request,
        pixel_size_um=series.pixel_size_um,
        sections=numbers,
    )
    tables.write_truth(
        folder / "truth", series.phantom, series.sections, series.all, series.first, series.pixel_size_um
    )
    tables.write_csv(folder / "labels.csv", label_rows(request.target))
    (folder / RECIPE_FILE).write_text(recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")
    tables.write_csv(folder / "manifest.csv", rows)  # last: a manifest that is there means that all it names is there
    return folder / "manifest.csv"


def label_rows(target: Target) -> list[dict[str, object]]:
    """The label table of areas or layers: id, name, colour, and for areas the region as group."""
    names = [*(area_names() if target == "areas" else LAYERS), "white matter", "nucleus"]
    groups = [*area_regions(), "white matter", "nucleus"] if target == "areas" else [""] * len(names)
    chosen = distinct_colours(len(names) - 2)
    colours = [*("#{:02x}{:02x}{:02x}".format(*rgb) for rgb in chosen), WHITE_MATTER_COLOUR, NUCLEUS_COLOUR]
    return [
        {"id": value, "name": name, "colour": colour, "group": group}
        for value, (name, colour, group) in enumerate(zip(names, colours, groups, strict=True), start=1)
    ]


def _series(request: PhantomRequest) -> _Series:
    size = SIZES[request.size]
    count = request.sections or size.sections
    phantom = make_phantom(request.settings)
    whole = section_count(phantom)
    ends = int(_END_SHARE * whole)
    room = whole - 2 * ends
    if count > room:
        raise CytoarchError(f"{count} sections were asked for, the brain has {room} of {size.thickness_um} um")
    step = min(size.step, room // count) if size.step else room // count
    first = ends + (room - step * (count - 1)) // 2
    sections = tuple(cut(phantom, first + index * step) for index in range(count))
    if all(section.mounting.missing for section in sections):
        raise CytoarchError(f"all {count} sections were lost: nuisances.missing is too high")
    return _Series(request, phantom, request.pixel_size_um or size.pixel_size_um, sections, first)


def _check_room(folder: Path, series: _Series) -> None:
    """Raise CytoarchError where a section is too large for its format or all of them for the disk."""
    request = series.request
    height, width = series.all[0].size_px(series.pixel_size_um)
    if request.scans == "png" and height * width > PNG_LIMIT_PX:
        raise CytoarchError(
            f"a section of {height} x {width} px is too large for a PNG (at most {PNG_LIMIT_PX:,} px); use --scans tiff"
        )
    look = LOOKS[request.stain]
    needed = len(series.sections) * height * width * len(look.cell_colour) * np.dtype(look.dtype).itemsize
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise CytoarchError(
            f"{len(series.sections)} sections of {height} x {width} px take up to {needed / 1e9:.1f} GB, {there} has "
            f"{free / 1e9:.1f} GB free; write fewer sections or larger pixels"
        )


def _clear(folder: Path) -> None:
    """A folder to write in: new, empty, or holding an older phantom, of which only our own files are taken away.

    The manifest and the recipe go first, so that no folder names what it does not hold.
    """
    if folder.exists() and not folder.is_dir():
        raise CytoarchError(f"{folder} is a file; give a new folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER_FILE).exists():
        raise CytoarchError(f"{folder} is not empty and was not written as a phantom; give a new folder")
    for name in OWN_FILES:
        if (folder / name).is_symlink():
            raise CytoarchError(f"{folder / name} is a link; a phantom is written into real folders only")
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / MARKER_FILE
    marker.write_text("This folder holds a phantom brain: synthetic, and free to be written again.\n", encoding="utf-8")
    for name, patterns in OWN_FILES.items():
        for path in (path for pattern in patterns for path in (folder / name).glob(pattern)):
            path.unlink()
    for name in ("scans", "labels"):
        (folder / name).mkdir(exist_ok=True)


def _write_images(
    folder: Path,
    brain_id: str,
    series: _Series,
    strokes: list[Stroke] | None,
    on_progress: Progress | None,
) -> list[dict[str, object]]:
    """Write the scan and the label image of every section; returns the rows of the manifest."""
    request, pixel_size_um = series.request, series.pixel_size_um
    total = 2 * sum(len(blocks(section, pixel_size_um)) for section in series.sections.values())
    done = itertools.count(1)

    def on_block() -> None:
        if on_progress is not None:
            on_progress(next(done), total)

    rows = []
    for name, section in series.sections.items():
        scan = folder / "scans" / scan_name(name, request.scans)
        write_scan(scan, section, request.scans, pixel_size_um, on_block)
        shown = _labels_of(section, series, strokes)
        labels = write_labels(folder / "labels", name, section, shown, pixel_size_um, on_block)
        rows.append(
            {
                "brain_id": brain_id,
                "section_id": name,
                "section_number": section.number - series.first,
                "path": f"scans/{scan.name}",
                "pixel_size_um": pixel_size_um,
                "stain": request.stain,
                "thickness_um": section.phantom.settings.thickness_um,
                "species": "phantom",
                "plane": "coronal",
                "flip": "horizontal" if section.mounting.mirrored else "none",
                "labels": f"labels/{labels.name}",
                "labels_origin": "phantom",
                "position_um": round(1000 * float(section.origin_mm[1])),
            }
        )
    return rows


def _labels_of(
    section: PhantomSection, series: _Series, strokes: list[Stroke] | None
) -> Callable[[Window], NDArray[np.uint8]]:
    """What a window of the section's label image holds."""
    target, pixel_size_um = series.request.target, series.pixel_size_um
    if strokes is None:
        return lambda window: label_image(section, target, window, pixel_size_um)
    return lambda window: scribble_image(section, strokes, target, window, pixel_size_um)


def _write_strokes(folder: Path, series: _Series, strokes: Sequence[Stroke]) -> None:
    """Strokes as GeoJSON lines in pixels of the scan, (x, y), as QuPath and napari read them."""
    folder.mkdir(exist_ok=True)
    table = {row["id"]: row for row in label_rows(series.request.target)}
    for name, section in series.sections.items():
        own = [stroke for stroke in strokes if stroke.number == section.number]
        features = [_feature(stroke, table[stroke.label], series.pixel_size_um) for stroke in own]
        text = json.dumps({"type": "FeatureCollection", "features": features}, indent=1)
        (folder / f"{name}.geojson").write_text(text + "\n", encoding="utf-8")


def _feature(stroke: Stroke, label: dict[str, object], pixel_size_um: float) -> dict[str, object]:
    path = np.round(stroke.path_mm[:, ::-1] * 1000 / pixel_size_um, 2)
    colour = str(label["colour"])
    rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return {
        "type": "Feature",
        "geometry": {"type": "LineString", "coordinates": path.tolist()},
        "properties": {"objectType": "annotation", "classification": {"name": label["name"], "color": rgb}},
    }
