"""TIFF files written byte by byte, so that they can say anything."""

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tests.hostile.sound import Array

ASCII, SHORT, LONG, RATIONAL, SLONG, SRATIONAL, DOUBLE = 2, 3, 4, 5, 9, 10, 12
_CODES = {SHORT: "H", LONG: "I", RATIONAL: "I", SLONG: "i", SRATIONAL: "i", DOUBLE: "d"}

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, DESCRIPTION = 256, 257, 258, 259, 262, 270
OFFSETS, ORIENTATION, SAMPLES, ROWS, COUNTS, X_RESOLUTION, Y_RESOLUTION = 273, 274, 277, 278, 279, 282, 283
PLANAR, UNIT, PREDICTOR, COLOUR_MAP, TILE_WIDTH, TILE_HEIGHT = 284, 296, 317, 320, 322, 323
TILE_OFFSETS, TILE_COUNTS, SUB_IFDS, SAMPLE_FORMAT, ICC_PROFILE = 324, 325, 330, 339, 34675

PIXELS_AT = 8
"""Pixels begin behind the header."""
Y, X = 24, 40
"""Size of the honest image."""


class Tag(NamedTuple):
    """An entry of a page; `count` and `at` are what is stated instead of the truth."""

    kind: int
    values: Sequence[float] | bytes
    count: int | None = None
    at: int | None = None
    """Where the values are said to lie."""


def plane(seed: int = 5) -> Array:
    """The pixels (y, x) of the honest image: a dark blob on a pale ground."""
    y, x = np.mgrid[:Y, :X]
    blob = 200 - 120 * np.exp(-((y - Y / 2) ** 2 / 40 + (x - X / 2) ** 2 / 90))
    noise = np.random.default_rng(seed).normal(0, 5, (Y, X))
    pixels: Array = (blob + noise).astype(np.uint8)
    return pixels


def honest(nbytes: int, strips: int = 1) -> dict[int, Tag]:
    """The tags of an 8-bit grey image in strips of equal length."""
    each = nbytes // strips
    return {
        WIDTH: Tag(LONG, [X]),
        HEIGHT: Tag(LONG, [Y]),
        BITS: Tag(SHORT, [8]),
        COMPRESSION: Tag(SHORT, [1]),
        PHOTOMETRIC: Tag(SHORT, [1]),
        OFFSETS: Tag(LONG, [PIXELS_AT + at * each for at in range(strips)]),
        SAMPLES: Tag(SHORT, [1]),
        ROWS: Tag(LONG, [Y // strips]),
        COUNTS: Tag(LONG, [each] * strips),
    }


def tiled(nbytes: int, edge: int = 64) -> dict[int, Tag]:
    """What replaces the tags of strips in an image of one tile."""
    return {
        TILE_WIDTH: Tag(LONG, [edge]),
        TILE_HEIGHT: Tag(LONG, [edge]),
        TILE_OFFSETS: Tag(LONG, [PIXELS_AT]),
        TILE_COUNTS: Tag(LONG, [nbytes]),
    }


def tiff(data: bytes, tags: Mapping[int, Tag | None], next_page: int | None = None, order: str = "<") -> bytes:
    """A TIFF of one page: header, pixel data, page, values of its tags. Tags that are None are left out."""
    start = PIXELS_AT + len(data) + len(data) % 2
    kept = sorted((number, tag) for number, tag in tags.items() if tag is not None)
    beyond = start + 2 + 12 * len(kept) + 4
    entries, extra = b"", b""
    for number, tag in kept:
        packed = tag.values if isinstance(tag.values, bytes) else _packed(order, tag)
        length = (
            len(packed)
            if isinstance(tag.values, bytes)
            else len(tag.values) // (2 if tag.kind in (RATIONAL, SRATIONAL) else 1)
        )
        if tag.at is not None:
            value = struct.pack(order + "I", tag.at)
        elif len(packed) <= 4:
            value = packed.ljust(4, b"\0")
        else:
            value = struct.pack(order + "I", beyond + len(extra))
            extra += packed + b"\0" * (len(packed) % 2)
        entries += struct.pack(order + "HHI", number, tag.kind, length if tag.count is None else tag.count) + value
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    page = struct.pack(order + "H", len(kept)) + entries + struct.pack(order + "I", next_page or 0)
    return head + data + b"\0" * (len(data) % 2) + page + extra


def _packed(order: str, tag: Tag) -> bytes:
    return struct.pack(f"{order}{len(tag.values)}{_CODES[tag.kind]}", *tag.values)


def page_offset(data: bytes) -> int:
    """Where the first page of a TIFF lies."""
    return int(struct.unpack_from("<I" if data[:2] == b"II" else ">I", data, 4)[0])


def chain(pages: int) -> bytes:
    """A TIFF of very many pages that share one strip of one pixel."""
    tags = {**honest(1), WIDTH: Tag(LONG, [1]), HEIGHT: Tag(LONG, [1]), ROWS: Tag(LONG, [1])}
    one = tiff(b"\x50", tags)
    start, size = page_offset(one), len(one) - page_offset(one)
    body = b"".join(
        one[start:-4] + struct.pack("<I", start + (number + 1) * size if number + 1 < pages else 0)
        for number in range(pages)
    )
    return one[:start] + body
