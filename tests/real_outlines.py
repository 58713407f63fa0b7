"""Sections with the outlines that neuroanatomists drew around them, and how tissue is held against these."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.draw import polygon

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.geometry import Grid

Mask = NDArray[np.bool_]


class OutlinedSection(NamedTuple):
    """A picture (c, y, x) uint8 and what the experts' outlines enclose of it (y, x)."""

    name: str
    pixels: NDArray[np.uint8]
    pixel_size_um: float
    outlined: Mask


class Agreement(NamedTuple):
    """How tissue, with its holes filled, agrees with outlines."""

    dice: float
    outside: float
    """Share of the tissue beyond the outlines."""
    not_drawn: float
    """Share of the tissue in pieces that the expert left out, of which less than half lies within outlines."""
    dice_of_drawn: float
    outside_of_drawn: float
    """The same of the pieces that were outlined."""


def outlined_sections(folder: Path) -> Iterator[OutlinedSection]:
    """The species of `mammals_nissl`, by name."""
    with (folder / "sections.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        image = np.asarray(Image.open(folder / "images" / f"{row['name']}.png").convert("RGB"))
        drawn = json.loads((folder / "contours" / f"{row['name']}.json").read_text())
        yield OutlinedSection(
            row["name"], np.moveaxis(image, -1, 0), float(row["pixel_size_um"]), _enclosed(drawn, image.shape[:2])
        )


def _enclosed(drawn: dict[str, Any], shape: tuple[int, ...]) -> Mask:
    inside = np.zeros(shape, dtype=np.bool_)
    rings = [ring for one in drawn["slice_polygons"] for polygons in one for ring in polygons]
    for ring in rings:
        x, y = (np.array(ring) / drawn["scale"] * shape[1] / 1000).T
        inside[polygon(y, x, shape)] = True
    return inside


def agreement(tissue: TissueMask, section: OutlinedSection) -> Agreement:
    """How a section's tissue agrees with its outlines, on the pixels of the picture."""
    mask = tissue.on_grid(Grid(section.outlined.shape, section.pixel_size_um, (0.0, 0.0)))
    filled = ndimage.binary_fill_holes(mask)
    labels, count = ndimage.label(filled)
    within = ndimage.mean(section.outlined, labels, np.arange(count + 1)) > 0.5
    within[0] = False
    drawn = within[labels]
    return Agreement(
        *_scores(filled, section.outlined),
        1 - float(drawn.sum() / max(1, filled.sum())),
        *_scores(drawn, section.outlined),
    )


def _scores(mask: Mask, outlined: Mask) -> tuple[float, float]:
    area = max(1, int(mask.sum()))
    return float(2 * (mask & outlined).sum() / (area + outlined.sum())), float((mask & ~outlined).sum() / area)
