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
    height, width = section.size_px(pixel_size_um)
    look = LOOKS[section.phantom.settings.stain]
    colours = (len(look.cell_colour),) if len(look.cell_colour) > 1 else ()
    rendered = _rendered(section, pixel_size_um, on_block)
    if scans == "png":
        whole = np.empty((height, width, *colours), look.dtype)
        for window, block in zip(blocks(section, pixel_size_um), rendered, strict=True):
            y, x = min(TILE_PX, height - window.y), min(TILE_PX, width - window.x)
            whole[window.y : window.y + y, window.x : window.x + x] = block[:y, :x]
        per_metre = round(1e6 / pixel_size_um)
        Image.fromarray(whole).save(path, dpi=(per_metre * 0.0254, per_metre * 0.0254))
        return
    tifffile.imwrite(
        path,
        rendered,
        shape=(height, width, *colours),
        dtype=look.dtype,
        tile=(TILE_PX, TILE_PX),
        photometric="rgb" if colours else "minisblack",
        compression="zlib",
        bigtiff=height * width * max(1, *colours, 1) * np.dtype(look.dtype).itemsize > BIGTIFF_BYTES,
        resolution=(1e4 / pixel_size_um, 1e4 / pixel_size_um),
        resolutionunit="CENTIMETER",
        software=False,
        **_ome(path.name, pixel_size_um, bool(colours)) if scans == "ome-tiff" else {"metadata": None},
    )


def scan_name(name: str, scans: ScanFormat) -> str:
    """The file name of a section's scan."""
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


def write_labels(
    folder: Path,
    name: str,
    section: PhantomSection,
    label_block: Callable[[Window], NDArray[np.uint8]],
    pixel_size_um: float,
) -> Path:
    """Write a label image of the scan's size, given what a window of it holds; returns its path."""
    height, width = section.size_px(pixel_size_um)
    if height * width <= LABEL_PNG_LIMIT_PX:
        Image.fromarray(label_block(Window(0, 0, height, width))).save(folder / f"{name}.png")
        return folder / f"{name}.png"
    path = folder / f"{name}.tif"
    tifffile.imwrite(
        path,
        (label_block(window) for window in blocks(section, pixel_size_um)),
        shape=(height, width),
        dtype=np.uint8,
        tile=(TILE_PX, TILE_PX),
        compression="zlib",
        metadata=None,
        software=False,
    )
    return path
