"""Brains that ingest in seconds and take every path: tiled, spooled, small; with labels and without."""

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cytoarch.brains import Brain, Label, LabelTable, Section

BRAIN_ID = "E1"
SIZE_UM = 4.0
TABLE = LabelTable(labels=(Label(id=1, name="cortex"), Label(id=2, name="white matter"), Label(id=300, name="rim")))


def tissue(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """A dark round of tissue with a little noise on a bright slide."""
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    noise = np.random.default_rng(seed).integers(0, 12, (256, 256), dtype=np.uint8)
    tiled = np.tile(noise, (-(-height // 256), -(-width // 256)))[:height, :width]
    inside = (y * y + x * x < 0.6).astype(np.uint8)
    shade = (20 * np.abs(y) + 20 * np.abs(x)).astype(np.uint8)
    return (230 - 110 * inside - shade + tiled).astype(np.uint8)


def areas(height: int, width: int) -> NDArray[np.uint16]:
    """Label ids drawn on such tissue."""
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    radius = y * y + x * x
    return np.select([radius < 0.2, radius < 0.5, radius < 0.6], [2, 1, 300], 0).astype(np.uint16)


def _tiled(path: Path, pixels: NDArray[np.generic]) -> None:
    tifffile.imwrite(path, pixels, tile=(512, 512), metadata=None)


def _section(number: int, path: str, labels: str | None = None) -> Section:
    return Section(
        brain_id=BRAIN_ID, section_id=f"s{number}", section_number=number, path=path, labels=labels,
        pixel_size_um=SIZE_UM,
    )  # fmt: skip


def write_large_brain(folder: Path) -> Brain:
    """A tiled section of several shards, one in compressed strips that is spooled, a small one with labels."""
    folder.mkdir(parents=True)
    _tiled(folder / "tiled.tif", tissue(4200, 8300, 1))
    strips = tissue(8300, 8192, 2)
    tifffile.imwrite(folder / "strips.tif", strips, compression="zlib", rowsperstrip=256, metadata=None)
    _write_coloured(folder / "small.png", 600, 800, 3)
    Image.fromarray(areas(600, 800)).save(folder / "small-labels.png")
    sections = (_section(1, "tiled.tif"), _section(2, "strips.tif"), _section(3, "small.png", "small-labels.png"))
    return Brain(brain_id=BRAIN_ID, sections=sections, label_table=TABLE)


def write_medium_brain(folder: Path) -> Brain:
    """A tiled section of a few shards, with labels of as many, and two small ones, one with labels."""
    folder.mkdir(parents=True)
    _tiled(folder / "tiled.tif", tissue(4300, 4200, 4))
    _tiled(folder / "tiled-labels.tif", areas(4300, 4200))
    _write_coloured(folder / "small.png", 500, 700, 5)
    Image.fromarray(areas(500, 700)).save(folder / "small-labels.png")
    _write_coloured(folder / "smaller.png", 300, 200, 6)
    sections = (
        _section(1, "tiled.tif", "tiled-labels.tif"),
        _section(2, "small.png", "small-labels.png"),
        _section(3, "smaller.png"),
    )
    return Brain(brain_id=BRAIN_ID, sections=sections, label_table=TABLE)


def write_small_brain(folder: Path) -> Brain:
    """Two sections of a shard a level, one with labels."""
    folder.mkdir(parents=True)
    _write_coloured(folder / "small.png", 500, 700, 7)
    Image.fromarray(areas(500, 700)).save(folder / "small-labels.png")
    _write_coloured(folder / "smaller.png", 300, 200, 8)
    sections = (_section(1, "small.png", "small-labels.png"), _section(2, "smaller.png"))
    return Brain(brain_id=BRAIN_ID, sections=sections, label_table=TABLE)


def write_long_brain(folder: Path, count: int) -> Brain:
    """Many small sections."""
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        _write_coloured(folder / f"{number}.png", 200 + 10 * number, 300, number)
    return Brain(brain_id=BRAIN_ID, sections=tuple(_section(n, f"{n}.png") for n in range(1, count + 1)))


def _write_coloured(path: Path, height: int, width: int, seed: int) -> None:
    channels = [tissue(height, width, seed + 100 * channel) for channel in range(3)]
    Image.fromarray(np.stack(channels, axis=-1)).save(path)
