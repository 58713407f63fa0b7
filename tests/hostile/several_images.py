"""Scans that are not the first image of their file, and print densities that look like pixel sizes."""

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tifffile

from tests.hostile import bombs
from tests.hostile import tiffs as t
from tests.hostile.lying_tags import described_tiff, ome_xml
from tests.hostile.plans import (
    EITHER,
    PIXEL_SIZE_UM,
    READ,
    REFUSED,
    Plan,
    file_of,
    lying_tiff,
    renamed,
    resolution,
    store_of,
)
from tests.hostile.sound import Array, Content, multiscales, tissue, zarr_5
from tests.hostile.tiffs import ASCII, RATIONAL, Tag


def several_bytes(*images: Array, ome: bool = False, **options: Any) -> bytes:
    """A TIFF of a page for each image."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file, ome=ome) as writer:
        for image in images:
            metadata = {"axes": "YX", "PhysicalSizeX": PIXEL_SIZE_UM, "PhysicalSizeY": PIXEL_SIZE_UM} if ome else None
            writer.write(image, photometric="minisblack", metadata=metadata, **options)
    return file.getvalue()


def below_bytes(small: Array, image: Array) -> bytes:
    """A TIFF of one page, a thumbnail, with the scan as a page below it."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(small, photometric="minisblack", subifds=1, subfiletype=1, metadata=None)
        writer.write(image, photometric="minisblack", metadata=None)
    return file.getvalue()


def image_plans() -> Iterator[Plan]:
    scan = tissue()
    small, other = np.ascontiguousarray(scan[::4, ::4]), np.ascontiguousarray(scan[:-9])
    whole = scan[None]
    for name, data in {
        "pages-thumbnail-first": several_bytes(small, scan),
        "pages-thumbnail-last": several_bytes(scan, small),
        "pages-tiled-thumbnail-first": several_bytes(small, scan, tile=(64, 64)),
        "ome-thumbnail-first": several_bytes(small, scan, ome=True),
        "ome-three-largest-last": several_bytes(np.ascontiguousarray(small[::2]), small, scan, ome=True),
        "page-below-a-thumbnail": below_bytes(small, scan),
    }.items():
        yield file_of(f"lie-{name}", "lie", ".tif", data, READ, whole)
    yield file_of("lie-pages-two-sections", "lie", ".tif", several_bytes(scan, other), REFUSED)
    yield file_of("lie-ome-three-sections", "lie", ".ome.tif", several_bytes(scan, other, small, ome=True), REFUSED)
    first, second = zarr_5(small[None], None), zarr_5(whole, None)
    for name, one, more, allowed in (
        ("thumbnail-first", first, second, READ),
        ("two-sections", zarr_5(other[None], None), second, REFUSED),
    ):
        yield store_of(f"store-{name}", "store", _joined(one, more), allowed, pixels=lambda: whole)
    turned = _joined(first, second)
    group = json.loads(turned["zarr.json"])
    one, two = group["attributes"]["ome"]["multiscales"]
    group["attributes"]["ome"]["multiscales"] = [{**one, "datasets": one["datasets"] + two["datasets"]}]
    content = {**turned, "zarr.json": json.dumps(group).encode()}
    yield store_of("store-levels-turned", "store", content, READ, pixels=lambda: whole)


def _joined(one: Content, other: Content) -> Content:
    """A store with the image of another as its second multiscale."""
    group = json.loads(one["zarr.json"])
    multiscale = multiscales()
    multiscale["datasets"][0]["path"] = "other/0"
    group["attributes"]["ome"]["multiscales"].append(multiscale)
    below = {f"other/{name}": data for name, data in other.items()}
    return {**one, **below, "zarr.json": json.dumps(group).encode()}


def shape_plans() -> Iterator[Plan]:
    """Scans of odd shapes and values that are what they say: pixels stay, whatever is found in them."""
    rng = np.random.default_rng(11)
    for name, pixels in {
        "all-white": np.full((90, 110), 255, np.uint8),
        "all-black": np.zeros((90, 110), np.uint8),
        "one-pixel": np.full((1, 1), 77, np.uint8),
        "thin": rng.integers(0, 256, (3, 3000), dtype=np.uint8),
        "12-in-16": rng.integers(0, 1 << 12, (90, 110), dtype=np.uint16),
        "full-16": rng.integers(0, 1 << 16, (90, 110), dtype=np.uint16),
    }.items():
        yield file_of(f"odd-{name}", "lie", ".tif", several_bytes(pixels), EITHER, pixels[None])


def palette_plans() -> Iterator[Plan]:
    """Scans whose palette has nothing but greys, as optimisers write them, or colours."""
    numbers = (tissue() // 16).astype(np.uint8)
    y, x = numbers.shape
    greys = np.random.default_rng(6).permutation(256)[:16].astype(np.uint8)
    rows = bombs.png_rows(numbers, 4)
    shown = (b"PLTE", bytes(np.repeat(greys, 3)))
    data = bombs.png(y, x, rows, shown, colour=3, bits=4)
    yield file_of("lie-palette-of-greys", "lie", ".png", data, READ, greys[numbers][None])
    with_alpha = bombs.png(y, x, rows, shown, (b"tRNS", b"\xff\0"), colour=3, bits=4)
    yield file_of("lie-palette-of-greys-erased", "lie", ".png", with_alpha, READ, greys[numbers][None])
    colours = np.stack([greys, greys[::-1], greys], axis=-1)
    coloured = bombs.png(y, x, rows, (b"PLTE", colours.tobytes()), colour=3, bits=4)
    yield file_of("lie-palette-of-colours", "lie", ".png", coloured, READ, np.moveaxis(colours[numbers], -1, 0))
    gamma = bombs.png(y, x, bombs.png_rows(numbers), (b"gAMA", (45455).to_bytes(4, "big")))
    yield file_of("lie-gamma", "lie", ".png", gamma, READ, numbers[None])


def density_plans() -> Iterator[Plan]:
    grey = t.plane()[None]
    densities: dict[str, Mapping[int, Tag | None]] = {
        **{f"{dpi}dpi": resolution(RATIONAL, [dpi, 1]) for dpi in (96, 150, 300, 600, 1200)},
        "118-per-cm": resolution(RATIONAL, [118, 1], unit=3),
        "118.11-per-cm": resolution(RATIONAL, [11811, 100], unit=3),
        "472-per-cm": resolution(RATIONAL, [472, 1], unit=3),
    }
    for name, changes in densities.items():
        for stated in (PIXEL_SIZE_UM, None):
            allowed = REFUSED if stated is None else READ
            plan = lying_tiff(name, changes, allowed, pixels=grey, pixel_size_um=stated, kind="size")
            yield renamed(plan, f"size-{name}" + ("-stated" if stated else ""))
    for dpi in (300, 600):
        xml = ome_xml(f'PhysicalSizeX="{25400 / dpi}" PhysicalSizeY="{25400 / dpi}"')
        yield renamed(described_tiff(f"{dpi}", xml, REFUSED, pixel_size_um=None, kind="size"), f"size-ome-{dpi}dpi")
    for x_dpi, y_dpi in ((204, 98), (300, 600)):
        across, along = Tag(RATIONAL, [x_dpi, 1]), Tag(RATIONAL, [y_dpi, 1])
        changes = {**resolution(RATIONAL, [x_dpi, 1]), t.X_RESOLUTION: across, t.Y_RESOLUTION: along}
        for stated in (PIXEL_SIZE_UM, None):
            allowed = REFUSED if stated is None else READ
            plan = lying_tiff(f"{x_dpi}x{y_dpi}dpi", changes, allowed, pixels=grey, pixel_size_um=stated, kind="size")
            yield renamed(plan, f"size-{x_dpi}x{y_dpi}dpi" + ("-stated" if stated else ""))
    for unit in ("pixel", "reference frame", "furlong"):
        xml = ome_xml(f'PhysicalSizeX="1.5" PhysicalSizeXUnit="{unit}" PhysicalSizeY="1.5" PhysicalSizeYUnit="{unit}"')
        name = f"size-ome-{unit.replace(' ', '-')}"
        yield renamed(described_tiff(unit, xml, REFUSED, pixel_size_um=None, kind="size"), name)
    imagej = "ImageJ=1.54f\nunit=inch\n"
    inches = {**resolution(RATIONAL, [300, 1], unit=1), t.DESCRIPTION: Tag(ASCII, imagej.encode() + b"\0")}
    yield renamed(
        lying_tiff("imagej", inches, REFUSED, pixels=grey, pixel_size_um=None, kind="size"), "size-imagej-300dpi"
    )
    honest = resolution(RATIONAL, [5000, 1], unit=3)
    yield renamed(lying_tiff("2um", honest, READ, pixels=grey, pixel_size_um=None, kind="size"), "size-2um")
