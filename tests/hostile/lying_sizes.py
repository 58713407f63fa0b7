"""Pixel sizes that lie, and label images at fault."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np

from tests.hostile import bombs
from tests.hostile import tiffs as t
from tests.hostile.lying_tags import described_tiff, ome_xml
from tests.hostile.plans import (
    EITHER,
    READ,
    REFUSED,
    Fate,
    Plan,
    file_of,
    lying_tiff,
    renamed,
    resolution,
    store_of,
    writer_of,
)
from tests.hostile.several_images import several_bytes
from tests.hostile.sound import PIXEL_SIZE_UM, Array, multiscales, sound, tiff_bytes
from tests.hostile.tiffs import ASCII, DOUBLE, RATIONAL, SRATIONAL, Tag


def size_plans() -> Iterator[Plan]:
    grey = t.plane()[None]
    tags: dict[str, dict[int, Tag | None]] = {
        "72dpi": resolution(RATIONAL, [72, 1]),
        "0": resolution(RATIONAL, [0, 1]),
        "by-0": resolution(RATIONAL, [12700, 0]),
        "1": resolution(RATIONAL, [1, 1]),
        "tiny": resolution(RATIONAL, [2**32 - 1, 1]),
        "no-unit": resolution(RATIONAL, [12700, 1], unit=1),
        "unit-77": resolution(RATIONAL, [12700, 1], unit=77),
        "negative": resolution(SRATIONAL, [-12700, 1]),
        "nan": resolution(DOUBLE, [float("nan")]),
        "1e308": resolution(DOUBLE, [1e308]),
        "text": resolution(ASCII, b"12700\0"),
    }
    for name, changes in tags.items():
        for stated in (PIXEL_SIZE_UM, None):
            plan = lying_tiff(
                name, changes, REFUSED if stated is None else EITHER, pixels=grey, pixel_size_um=stated, kind="size"
            )
            full = f"size-{name}" + ("-stated" if stated else "")
            yield renamed(plan, full)
    texts = {
        "0": "0", "negative": "-2", "nan": "NaN", "infinite": "INF", "1e308": "1e308", "1e-308": "1e-308",
        "text": "two", "352": "352.8",
    }  # fmt: skip
    for name, value in texts.items():
        xml = ome_xml(f'PhysicalSizeX="{value}" PhysicalSizeY="{value}"')
        for stated in (PIXEL_SIZE_UM, None):
            plan = described_tiff(name, xml, REFUSED if stated is None else READ, pixel_size_um=stated, kind="size")
            full = f"size-ome-{name}" + ("-stated" if stated else "")
            yield renamed(plan, full)
    for name, more, stated in (
        ("not-square", 'PhysicalSizeX="2" PhysicalSizeY="3"', PIXEL_SIZE_UM),
        ("other", 'PhysicalSizeX="3" PhysicalSizeY="3"', PIXEL_SIZE_UM),
        ("parsec", 'PhysicalSizeX="2" PhysicalSizeXUnit="parsec"', None),
    ):
        plan = described_tiff(name, ome_xml(more), REFUSED, pixel_size_um=stated, kind="size")
        yield renamed(plan, f"size-ome-{name}")
    png = bombs.png(t.Y, t.X, bombs.png_rows(t.plane()), (b"pHYs", struct.pack(">IIB", 2835, 2835, 1)))
    yield file_of("size-png-72dpi", "size", ".png", png, REFUSED, grey, pixel_size_um=None)
    five = sound("zarr5")
    for name, scale in (("0", 0), ("negative", -2.0), ("1e308", 1e308), ("nan", float("nan")), ("text", "two")):
        group = json.loads(five.content["zarr.json"])
        group["attributes"]["ome"]["multiscales"] = [multiscales(scale)]
        content = {**five.content, "zarr.json": json.dumps(group).encode()}
        yield store_of(f"size-ngff-{name}", "size", content, REFUSED, pixel_size_um=None)
    yield store_of("size-ngff", "size", five.content, READ, pixels=lambda: five.pixels, pixel_size_um=None)


Labelled = Callable[..., Plan]
"""(name, suffix, bytes, what may come of it, ids) -> a scan with that label image"""


def _erased_tiffs(labelled: Labelled, good: Array, erased: Array, opacity: Array) -> Iterator[Plan]:
    """Label TIFFs with an opacity of every pixel, or with what could be one."""
    both = np.stack([good, opacity], axis=-1)
    soft = np.stack([good, np.where(opacity == 0, 128, 255).astype(np.uint8)], axis=-1)
    for name, samples, pixels, allowed, ids in (
        ("erased", "unassalpha", both, READ, erased),
        ("erased-multiplied", "assocalpha", both, READ, erased),
        ("half-erased", "unassalpha", soft, READ, good),
        ("half-erased-multiplied", "assocalpha", soft, REFUSED, None),
        ("two-channels", "unspecified", both, REFUSED, None),
    ):
        options = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": [samples]}
        yield labelled(f"{name}-tif", ".tif", tiff_bytes(pixels, **options), allowed, ids)


def _coloured(labelled: Labelled, good: Array) -> Iterator[Plan]:
    """Label images whose palette has colours: their numbers are the ids, as far as anything can tell."""
    colours = (b"PLTE", bytes([0, 0, 0, 200, 30, 90]))
    height, width = good.shape
    data = bombs.png(height, width, bombs.png_rows(good, 1), colours, colour=3, bits=1)
    yield labelled("palette-of-colours", ".png", data, READ, good)
    table = np.zeros((3, 256), np.uint16)
    table[:, 1] = 200 << 8, 30 << 8, 90 << 8
    yield labelled(
        "palette-of-colours-tif", ".tif", tiff_bytes(good, photometric="palette", colormap=table), READ, good
    )


def label_plans() -> Iterator[Plan]:
    png = sound("png")
    height, width = png.pixels.shape[1:]
    good = np.zeros((height, width), np.uint8)
    good[20:90, 30:200] = 1
    palette = (b"PLTE", bytes(range(6)))

    def labelled(
        name: str, suffix: str, data: bytes | None, allowed: frozenset[Fate], right: Array | None = None
    ) -> Plan:
        file = f"labels/{name}{suffix}"

        def make(path: Path) -> None:
            writer_of(png.content)(path)
            labels = path.parent / file
            labels.parent.mkdir(exist_ok=True)
            if data is None:
                labels.mkdir()
            else:
                labels.write_bytes(data)

        scan, ids = f"label-{name}", None if right is None else lambda: right
        return Plan(
            scan, "label", f"{scan}.png", make, allowed, lambda: png.pixels, columns={"labels": file}, labels=ids
        )

    yield labelled("good", ".png", bombs.png(height, width, bombs.png_rows(good)), READ, good)
    yield labelled("unknown-ids", ".png", bombs.png(height, width, bombs.png_rows(good * 7)), REFUSED)
    yield labelled("other-size", ".png", bombs.png(t.Y, t.X, bombs.png_rows(good[: t.Y, : t.X])), REFUSED)
    yield labelled("rgb", ".png", png.content[""], REFUSED)
    yield labelled("jpeg", ".jpg", sound("jpg").content[""], REFUSED)
    yield labelled("text", ".png", b"id,name\n1,A\n", REFUSED)
    yield labelled("empty", ".tif", b"", REFUSED)
    yield labelled("folder", ".png", None, REFUSED)
    huge = bombs.png(24_000, 24_000, bombs.deflate(1 << 25), palette, colour=3)
    yield labelled("palette-claims-24000", ".png", huge, REFUSED)
    hugest = bombs.png(2**31 - 1, 2**31 - 1, bombs.deflate(1 << 25), palette, colour=3)
    yield labelled("palette-claims-2e31", ".png", hugest, REFUSED)
    yield labelled("cut", ".tif", tiff_bytes(good, compression="zlib")[:-20], REFUSED)
    for bits in (1, 2, 4):
        data = bombs.png(height, width, bombs.png_rows(good, bits), bits=bits)
        yield labelled(f"grey-of-{bits}-bits", ".png", data, READ, good)
    for name, greys, allowed in (("turned", (1, 0), REFUSED), ("spread", (0, 85), REFUSED), ("kept", (0, 1), READ)):
        shown = (b"PLTE", bytes(np.repeat(np.array(greys, np.uint8), 3)))
        data = bombs.png(height, width, bombs.png_rows(good, 2), shown, colour=3, bits=2)
        yield labelled(f"palette-of-greys-{name}", ".png", data, allowed, good if allowed == READ else None)
        colours = np.zeros((3, 256), np.uint16) + np.array([*greys, *range(2, 256)], np.uint16) * 257
        tif = tiff_bytes(good, photometric="palette", colormap=colours)
        yield labelled(f"palette-of-greys-{name}-tif", ".tif", tif, allowed, good if allowed == READ else None)
    erased, opacity = good.copy(), np.full_like(good, 255)
    erased[30:50, 40:80], opacity[30:50, 40:80] = 0, 0
    with_alpha = imagecodecs.png_encode(np.stack([good, opacity], axis=-1))
    yield labelled("erased", ".png", with_alpha, READ, erased)
    numbers = np.where(opacity == 0, 2, good).astype(np.uint8)
    data = bombs.png(height, width, bombs.png_rows(numbers, 2), (b"tRNS", b"\0\2"), bits=2)
    yield labelled("erased-one-grey", ".png", data, READ, erased)
    yield labelled("jpeg-named-png", ".png", sound("jpg").content[""], REFUSED)
    yield labelled("jpeg-tiles", ".tif", tiff_bytes(good, compression="jpeg", tile=(64, 64)), REFUSED)
    for name, level in (("jpeg2000", 40), ("jpegxl", 60), ("jpegxr", 0.5), ("lerc", 1)):
        lossy = tiff_bytes(good, compression=name, compressionargs={"level": level}, tile=(64, 64))
        yield labelled(f"{name}-tiles", ".tif", lossy, REFUSED)
    yield from _erased_tiffs(labelled, good, erased, opacity)
    yield from _coloured(labelled, good)
    small, other = np.ascontiguousarray(good[::4, ::4]), np.ascontiguousarray(good[:-9])
    yield labelled("thumbnail-first", ".tif", several_bytes(small, good), READ, good)
    yield labelled("ome-thumbnail-first", ".tif", several_bytes(small, good, ome=True), READ, good)
    yield labelled("several-images", ".tif", several_bytes(good, other), REFUSED)
    yield labelled("stack", ".tif", several_bytes(good, good), REFUSED)
