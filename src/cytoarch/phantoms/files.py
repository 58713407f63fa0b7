"""Sections of a phantom as image files: scans as scanners give them, label images as annotators do."""

import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cytoarch.phantoms.rendering import LOOKS, render
from cytoarch.phantoms.sections import PhantomSection, Window
from cytoarch.tiling import partition

ScanFormat = Literal["tiff", "ome-tiff", "png"]
Pixels = NDArray[np.unsignedinteger[Any]]

TILE_PX = 512
PNG_LIMIT_PX = 200_000_000
"""A PNG is written from one array."""
LABEL_PNG_LIMIT_PX = 25_000_000
"""Larger label images are tiled TIFFs."""
BIGTIFF_BYTES = 2**31
"""Scans of more bytes than this, before compression, are BigTIFFs."""


def blocks(section: PhantomSection, pixel_size_um: float) -> list[Window]:
    """Windows of whole tiles, row by row, that cover the scan and may reach past it."""
    height, width = section.size_px(pixel_size_um)
    return [Window(y, x, TILE_PX, TILE_PX) for y, x, _, _ in partition(height, width, TILE_PX)]


def _rendered(section: PhantomSection, pixel_size_um: float, on_block: Callable[[], None]) -> Iterator[Pixels]:
    """The blocks of a scan in order, rendered by two threads a few blocks ahead of the writer."""
    windows = iter(blocks(section, pixel_size_um))
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
            on_block()
            yield block


def write_scan(
    path: Path, section: PhantomSection, scans: ScanFormat, pixel_size_um: float, on_block: Callable[[], None]
) -> None:
    """Write the scan of a section; memory is bounded for the TIFF formats, whatever the section's size."""
    look = LOOKS[section.phantom.settings.stain]
    colours = (len(look.cell_colour),) if len(look.cell_colour) > 1 else ()
    shape, dtype = (*section.size_px(pixel_size_um), *colours), np.dtype(look.dtype)
    rendered = _rendered(section, pixel_size_um, on_block)
    if scans == "png":
        _write_png(path, rendered, shape, dtype, pixel_size_um)
        return
    # metadata=None: a plain TIFF without tifffile's own description
    extras = _ome(path.name, section, pixel_size_um, bool(colours)) if scans == "ome-tiff" else {"metadata": None}
    _write_tiff(path, rendered, shape, dtype, pixel_size_um, **extras)


def write_labels(
    folder: Path,
    name: str,
    section: PhantomSection,
    label_block: Callable[[Window], NDArray[np.uint8]],
    pixel_size_um: float,
    on_block: Callable[[], None],
) -> Path:
    """Write a label image of the scan's size, given what a window of it holds; returns its path."""

    def labelled() -> Iterator[NDArray[np.uint8]]:
        for window in blocks(section, pixel_size_um):
            yield label_block(window)
            on_block()

    height, width = section.size_px(pixel_size_um)
    if height * width <= LABEL_PNG_LIMIT_PX:
        path = folder / f"{name}.png"
        _write_png(path, labelled(), (height, width), np.dtype(np.uint8), pixel_size_um)
    else:
        path = folder / f"{name}.tif"
        _write_tiff(path, labelled(), (height, width), np.dtype(np.uint8), pixel_size_um, metadata=None)
    return path


def _write_png(
    path: Path, tiles: Iterator[Pixels], shape: tuple[int, ...], dtype: np.dtype[Any], pixel_size_um: float
) -> None:
    whole = np.empty(shape, dtype)
    for (y, x, height, width), tile in zip(partition(shape[0], shape[1], TILE_PX), tiles, strict=True):
        whole[y : y + height, x : x + width] = tile[:height, :width]
    per_inch = 25_400 / pixel_size_um
    Image.fromarray(whole).save(path, dpi=(per_inch, per_inch))


def _write_tiff(
    path: Path, tiles: Iterator[Pixels], shape: tuple[int, ...], dtype: np.dtype[Any], pixel_size_um: float, **more: Any
) -> None:
    tifffile.imwrite(
        path,
        tiles,
        shape=shape,
        dtype=dtype,
        tile=(TILE_PX, TILE_PX),
        photometric="rgb" if len(shape) == 3 else "minisblack",
        compression="zlib",
        bigtiff=int(np.prod(shape, dtype=np.int64)) * dtype.itemsize > BIGTIFF_BYTES,
        resolution=(1e4 / pixel_size_um, 1e4 / pixel_size_um),
        resolutionunit="CENTIMETER",
        software=False,
        **more,
    )


def scan_name(name: str, scans: ScanFormat) -> str:
    """The file name of a section's scan."""
    return f"{name}.{ {'tiff': 'tif', 'ome-tiff': 'ome.tif', 'png': 'png'}[scans] }"


def _ome(name: str, section: PhantomSection, pixel_size_um: float, coloured: bool) -> dict[str, Any]:
    """What makes a TIFF an OME-TIFF; the identifier follows from what is written, so that files stay the same."""
    identity = f"{section.phantom.settings.model_dump_json()} {section.number} {pixel_size_um}"
    return {
        "ome": True,
        "metadata": {
            "axes": "YXS" if coloured else "YX",
            "Name": name,
            "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, identity)),
            "PhysicalSizeX": pixel_size_um,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": pixel_size_um,
            "PhysicalSizeYUnit": "µm",
        },
    }
