"""A phantom brain written as a scanner and an annotator would leave it, with its truth beside it."""

import json
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from cytoarch.errors import CytoarchError
from cytoarch.palette import distinct_colours
from cytoarch.paths import is_id
from cytoarch.phantoms import tables
from cytoarch.phantoms.anatomy import Variation, area_names, area_regions
from cytoarch.phantoms.nuisances import Nuisances
from cytoarch.phantoms.profiles import LAYERS
from cytoarch.phantoms.rendering import LOOKS, render
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

Size = Literal["tiny", "small", "bench"]
ScanFormat = Literal["tiff", "ome-tiff", "png"]
Pixels = NDArray[np.unsignedinteger[Any]]

MARKER_FILE = "PHANTOM.txt"
"""Written first: a folder without it is somebody's work and is left alone."""
RECIPE_FILE = "phantom.json"
"""What the brain was made from: enough to make it, and the truth of any of its pixels, again."""
TILE_PX = 512
PNG_LIMIT_PX = 200_000_000
"""A PNG is written from one array."""
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
    "tiny": PhantomSize(sections=5, step=10, pixel_size_um=64.0, thickness_um=25.0, resolution=48),
    "small": PhantomSize(sections=12, step=None, pixel_size_um=20.0, thickness_um=20.0, resolution=120),
    "bench": PhantomSize(sections=3, step=None, pixel_size_um=1.0, thickness_um=20.0, resolution=120),
}


class PhantomRequest(BaseModel):
    """What to write."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Size = Field(
        default="small",
        description="tiny: 5 neighbouring sections at 64 um per pixel, for tests; small: 12 over the brain at 20 um, "
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


class Recipe(BaseModel):
    """What a written phantom was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: PhantomSettings
    pixel_size_um: float
    sections: dict[str, int] = Field(description="Section number in the brain by section id.")


class WrittenPhantom:
    """A phantom in a folder, ready to be asked for the truth of its pixels."""

    def __init__(self, folder: Path) -> None:
        """Raises CytoarchError where the folder holds no phantom."""
        path = folder / RECIPE_FILE
        if not path.is_file():
            raise CytoarchError(f"{folder} holds no {RECIPE_FILE}: a folder written by the phantom command is needed")
        recipe = Recipe.model_validate_json(path.read_text(encoding="utf-8"))
        self.pixel_size_um = recipe.pixel_size_um
        self.phantom = make_phantom(recipe.settings)
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
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a phantom brain into a new or empty folder, or over another phantom; returns the path of its manifest.

    `on_progress` counts blocks of pixels. Sections that the nuisances lost are gaps in the section numbers. Raises
    CytoarchError if the folder holds anything else already, or if a section is too large for its format.
    """
    request = PhantomRequest() if request is None else request
    if not is_id(brain_id):
        raise CytoarchError(f"brain {brain_id!r} is not a valid name; letters, digits, '.', '_' and '-' are needed")
    phantom = make_phantom(request.settings)
    pixel_size_um = request.pixel_size_um or SIZES[request.size].pixel_size_um
    sections, first = _chosen_sections(phantom, request)
    _check_format(sections[0], request, pixel_size_um)
    _clear(folder)
    kept = [section for section in sections if not section.mounting.missing]
    if not kept:
        raise CytoarchError(f"all {len(sections)} sections were lost: nuisances.missing is too high")
    names = {f"s{section.number - first:04d}": section for section in kept}
    strokes = draw_scribbles(kept, request.target, request.strokes) if request.annotation == "scribbles" else None
    progress = _Progress(names.values(), pixel_size_um, on_progress)
    for name, section in names.items():
        _write_scan(folder, name, section, request.scans, pixel_size_um, progress)
        _write_labels(folder / "labels", name, section, request.target, strokes, pixel_size_um)
        progress.section_done(section)
    if strokes is not None:
        _write_strokes(folder / "scribbles", names, strokes, request.target, pixel_size_um)
    numbers = {name: section.number for name, section in names.items()}
    recipe = Recipe(settings=request.settings, pixel_size_um=pixel_size_um, sections=numbers)
    (folder / RECIPE_FILE).write_text(recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")
    tables.write_truth(folder / "truth", phantom, names, sections, first, pixel_size_um)
    tables.write_csv(folder / "labels.csv", label_rows(request.target))
    rows = [_manifest_row(brain_id, name, section, first, request, pixel_size_um) for name, section in names.items()]
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


def _chosen_sections(phantom: Phantom, request: PhantomRequest) -> tuple[list[PhantomSection], int]:
    """The sections to write, also lost ones, and the number that the series counts from."""
    size = SIZES[request.size]
    count = request.sections or size.sections
    whole = section_count(phantom)
    ends = int(_END_SHARE * whole)
    room = whole - 2 * ends
    if count > room:
        raise CytoarchError(f"{count} sections were asked for, the brain has {room} of {size.thickness_um} um")
    step = min(size.step, room // count) if size.step else room // count
    first = ends + (room - step * (count - 1)) // 2
    return [cut(phantom, first + index * step) for index in range(count)], first


def _check_format(section: PhantomSection, request: PhantomRequest, pixel_size_um: float) -> None:
    height, width = section.size_px(pixel_size_um)
    if request.scans == "png" and height * width > PNG_LIMIT_PX:
        raise CytoarchError(
            f"a section of {height} x {width} px is too large for a PNG (at most {PNG_LIMIT_PX:,} px); use --scans tiff"
        )


def _clear(folder: Path) -> None:
    """A folder to write in: new, empty, or holding an older phantom, whose manifest is taken away first."""
    marker = folder / MARKER_FILE
    if folder.is_dir() and any(folder.iterdir()) and not marker.exists():
        raise CytoarchError(f"{folder} is not empty and was not written as a phantom; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text("This folder holds a phantom brain: synthetic, and free to be written again.\n", encoding="utf-8")
    (folder / "manifest.csv").unlink(missing_ok=True)
    for name in ("scans", "labels", "scribbles", "truth"):
        for path in sorted((folder / name).rglob("*")):
            if path.is_file():
                path.unlink()
    for name in ("scans", "labels"):
        (folder / name).mkdir(exist_ok=True)


class _Progress:
    """Counts blocks over all sections; a section's labels are its last block."""

    def __init__(
        self,
        sections: "Sequence[PhantomSection] | Any",
        pixel_size_um: float,
        report: Callable[[int, int], None] | None,
    ) -> None:
        self._report, self._done = report, 0
        self._total = sum(1 + len(_blocks(section, pixel_size_um)) for section in sections)

    def block_done(self) -> None:
        self._done += 1
        if self._report is not None:
            self._report(self._done, self._total)

    def section_done(self, _section: PhantomSection) -> None:
        self.block_done()


def _blocks(section: PhantomSection, pixel_size_um: float) -> list[Window]:
    """Windows of whole tiles, row by row, that cover the scan and may reach past it."""
    height, width = section.size_px(pixel_size_um)
    return [Window(y, x, TILE_PX, TILE_PX) for y in range(0, height, TILE_PX) for x in range(0, width, TILE_PX)]


def _rendered(section: PhantomSection, pixel_size_um: float, progress: _Progress) -> Iterator[Pixels]:
    """The blocks of a scan in order, rendered by two threads a few blocks ahead of the writer."""
    windows = iter(_blocks(section, pixel_size_um))
    with ThreadPoolExecutor(2) as pool:
        ahead: deque[Future[Pixels]] = deque()
        for window in windows:
            ahead.append(pool.submit(render, section, window, pixel_size_um))
            if len(ahead) == 4:
                break
        while ahead:
            block = ahead.popleft().result()
            following = next(windows, None)
            if following is not None:
                ahead.append(pool.submit(render, section, following, pixel_size_um))
            progress.block_done()
            yield block


def _write_scan(
    folder: Path, name: str, section: PhantomSection, scans: ScanFormat, pixel_size_um: float, progress: _Progress
) -> None:
    height, width = section.size_px(pixel_size_um)
    look = LOOKS[section.phantom.settings.stain]
    colours = (len(look.cell_colour),) if len(look.cell_colour) > 1 else ()
    blocks = _rendered(section, pixel_size_um, progress)
    path = folder / "scans" / _scan_name(name, scans)
    if scans == "png":
        whole = np.empty((height, width, *colours), look.dtype)
        for window, block in zip(_blocks(section, pixel_size_um), blocks, strict=True):
            y, x = min(TILE_PX, height - window.y), min(TILE_PX, width - window.x)
            whole[window.y : window.y + y, window.x : window.x + x] = block[:y, :x]
        per_metre = round(1e6 / pixel_size_um)
        Image.fromarray(whole).save(path, dpi=(per_metre * 0.0254, per_metre * 0.0254))
        return
    tifffile.imwrite(
        path,
        blocks,
        shape=(height, width, *colours),
        dtype=look.dtype,
        tile=(TILE_PX, TILE_PX),
        photometric="rgb" if colours else "minisblack",
        compression="zlib",
        bigtiff=height * width * np.dtype(look.dtype).itemsize * max(1, *colours, 1) > 2**31,
        resolution=(1e4 / pixel_size_um, 1e4 / pixel_size_um),
        resolutionunit="CENTIMETER",
        software=False,
        **_ome(name, pixel_size_um, bool(colours)) if scans == "ome-tiff" else {"metadata": None},
    )


def _scan_name(name: str, scans: ScanFormat) -> str:
    return f"{name}.{ {'tiff': 'tif', 'ome-tiff': 'ome.tif', 'png': 'png'}[scans] }"


def _ome(name: str, pixel_size_um: float, coloured: bool) -> dict[str, Any]:
    """What makes a TIFF an OME-TIFF; the identifier follows from the name, so that files stay the same."""
    return {
        "ome": True,
        "metadata": {
            "axes": "YXS" if coloured else "YX",
            "Name": name,
            "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, f"phantom:{name}")),
            "PhysicalSizeX": pixel_size_um,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": pixel_size_um,
            "PhysicalSizeYUnit": "µm",
        },
    }


def _write_labels(
    folder: Path,
    name: str,
    section: PhantomSection,
    target: Target,
    strokes: list[Stroke] | None,
    pixel_size_um: float,
) -> None:
    def block(window: Window) -> NDArray[np.uint8]:
        if strokes is None:
            return label_image(section, target, window, pixel_size_um)
        return scribble_image(section, strokes, target, window, pixel_size_um)

    height, width = section.size_px(pixel_size_um)
    if height * width <= PNG_LIMIT_PX // 8:
        Image.fromarray(block(Window(0, 0, height, width))).save(folder / f"{name}.png")
        return
    tifffile.imwrite(
        folder / f"{name}.tif",
        (block(window) for window in _blocks(section, pixel_size_um)),
        shape=(height, width),
        dtype=np.uint8,
        tile=(TILE_PX, TILE_PX),
        compression="zlib",
        metadata=None,
        software=False,
    )


def _write_strokes(
    folder: Path,
    names: Mapping[str, PhantomSection],
    strokes: Sequence[Stroke],
    target: Target,
    pixel_size_um: float,
) -> None:
    """Strokes as GeoJSON lines in pixels of the scan, (x, y), as QuPath and napari read them."""
    folder.mkdir(exist_ok=True)
    table = {row["id"]: row for row in label_rows(target)}
    for name, section in names.items():
        features = [
            {
                "type": "Feature",
                "geometry": {
                    "type": "LineString",
                    "coordinates": np.round(stroke.path_mm[:, ::-1] * 1000 / pixel_size_um, 2).tolist(),
                },
                "properties": {
                    "objectType": "annotation",
                    "classification": {
                        "name": table[stroke.label]["name"],
                        "color": [int(str(table[stroke.label]["colour"])[k : k + 2], 16) for k in (1, 3, 5)],
                    },
                },
            }
            for stroke in strokes
            if stroke.number == section.number
        ]
        text = json.dumps({"type": "FeatureCollection", "features": features}, indent=1)
        (folder / f"{name}.geojson").write_text(text + "\n", encoding="utf-8")


def _manifest_row(
    brain_id: str, name: str, section: PhantomSection, first: int, request: PhantomRequest, pixel_size_um: float
) -> dict[str, object]:
    labels = next(f"labels/{name}{end}" for end in (".png", ".tif"))
    return {
        "brain_id": brain_id,
        "section_id": name,
        "section_number": section.number - first,
        "path": f"scans/{_scan_name(name, request.scans)}",
        "pixel_size_um": pixel_size_um,
        "stain": request.stain,
        "thickness_um": section.phantom.settings.thickness_um,
        "species": "phantom",
        "plane": "coronal",
        "flip": "horizontal" if section.mounting.mirrored else "none",
        "labels": labels,
        "labels_origin": "phantom",
        "position_um": round(1000 * float(section.origin_mm[1])),
    }
