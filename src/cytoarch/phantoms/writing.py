"""A phantom brain written as a scanner and an annotator would leave it: TIFFs, label images, tables, a manifest."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile
from PIL import Image

from cytoarch.errors import CytoarchError
from cytoarch.palette import distinct_colours
from cytoarch.paths import is_id
from cytoarch.phantoms.anatomy import AREAS, LAYERS, WHITE_MATTER, section_truth, stain

Size = Literal["tiny", "small"]
Target = Literal["areas", "layers"]


@dataclass(frozen=True)
class PhantomSize:
    """Dimensions of a phantom brain."""

    sections: int
    height: int
    width: int
    pixel_size_um: float


SIZES: dict[Size, PhantomSize] = {
    "tiny": PhantomSize(sections=5, height=240, width=320, pixel_size_um=16.0),
    "small": PhantomSize(sections=12, height=720, width=960, pixel_size_um=10.0),
}
MARKER_FILE = "PHANTOM.txt"
"""Written first: a folder without it is somebody's work and is left alone."""
THICKNESS_UM = 50.0
WHITE_MATTER_COLOUR = "#d8d4cc"
SPACING = 10
"""Every tenth section is stained."""


def write_phantom(
    folder: Path,
    brain_id: str,
    size: Size = "small",
    target: Target = "areas",
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a phantom brain into a new or empty folder; returns the path of its manifest.

    The same seed gives the same files. Raises CytoarchError if the folder holds anything else already.
    """
    if not is_id(brain_id):
        raise CytoarchError(f"brain {brain_id!r} is not a valid name; letters, digits, '.', '_' and '-' are needed")
    manifest_path = folder / "manifest.csv"
    marker = folder / MARKER_FILE
    if folder.is_dir() and any(folder.iterdir()) and not marker.exists():
        raise CytoarchError(f"{folder} is not empty and was not written as a phantom; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text("This folder holds a phantom brain: synthetic, and free to be written again.\n")
    manifest_path.unlink(missing_ok=True)
    for name in ("scans", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shape = SIZES[size]
    rows = []
    for index in range(shape.sections):
        name = f"s{index * SPACING:04d}"
        rng = np.random.default_rng([seed, index])
        truth = section_truth(shape.height, shape.width, shape.pixel_size_um, index / max(1, shape.sections - 1), rng)
        pixels = stain(truth, shape.pixel_size_um, rng)
        _write_scan(folder / "scans" / f"{name}.tif", pixels, shape.pixel_size_um)
        Image.fromarray(truth.area if target == "areas" else truth.layer).save(folder / "labels" / f"{name}.png")
        rows.append(
            {
                "brain_id": brain_id,
                "section_id": name,
                "section_number": index * SPACING,
                "path": f"scans/{name}.tif",
                "pixel_size_um": shape.pixel_size_um,
                "stain": "nissl",
                "thickness_um": THICKNESS_UM,
                "species": "phantom",
                "plane": "coronal",
                "labels": f"labels/{name}.png",
                "labels_origin": "phantom",
            }
        )
        if on_progress is not None:
            on_progress(index + 1, shape.sections)
    _write_csv(folder / "labels.csv", _label_rows(target))
    _write_csv(manifest_path, rows)  # last: a manifest that is there means that all it names is there
    return manifest_path


def _label_rows(target: Target) -> list[dict[str, object]]:
    names = [area.name for area in AREAS] if target == "areas" else list(LAYERS)
    names.append("WM")
    values = range(1, len(names) + 1) if target == "areas" else (*range(1, len(LAYERS) + 1), WHITE_MATTER)
    colours = [*("#{:02x}{:02x}{:02x}".format(*rgb) for rgb in distinct_colours(len(names) - 1)), WHITE_MATTER_COLOUR]
    return [
        {"id": value, "name": name, "colour": colour}
        for value, name, colour in zip(values, names, colours, strict=True)
    ]


def _write_scan(path: Path, pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", pixel_size_um: float) -> None:
    tifffile.imwrite(
        path,
        pixels,
        tile=(256, 256),
        compression="zlib",
        resolution=(1e4 / pixel_size_um, 1e4 / pixel_size_um),
        resolutionunit="CENTIMETER",
        metadata=None,
        software=False,
    )


def _write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
