"""Sound scans of every encoding, and the same cut short or with a flipped bit."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from tests.hostile import tiffs as t
from tests.hostile.plans import CHECKSUM, EITHER, READ, REFUSED, Plan, writer_of
from tests.hostile.sound import ENCODINGS, sound

SHARES = {"0": 0.0, "0.1": 0.001, "10": 0.1, "50": 0.5, "90": 0.9, "99.9": 0.999}
"""How much is left of a file that was cut, in percent."""


def sound_plans() -> Iterator[Plan]:
    for encoding in ENCODINGS:
        one = sound(encoding)
        name = f"sound-{encoding}"
        pixels = one.pixels
        yield Plan(
            name, "sound", name + one.suffix, writer_of(one.content), READ, lambda pixels=pixels: pixels, one.content
        )


def damaged(encoding: str) -> str:
    """The file of an encoding that is damaged: of a folder, a chunk in its middle."""
    names = sorted(name for name in sound(encoding).content if not name.rpartition("/")[2].startswith((".z", "zarr")))
    return names[len(names) // 2]


def cut_plans() -> Iterator[Plan]:
    for encoding in ENCODINGS:
        one = sound(encoding)
        target = damaged(encoding)
        for percent, share in SHARES.items():
            content = {**one.content, target: one.content[target][: int(len(one.content[target]) * share)]}
            name, pixels = f"cut-{encoding}-{percent}", one.pixels
            yield Plan(
                name, "cut", name + one.suffix, writer_of(content), EITHER, lambda pixels=pixels: pixels, one.content
            )
        if one.suffix == ".zarr":
            for file in one.content:
                if file.rpartition("/")[2].startswith((".z", "zarr")) and file != ".zgroup":
                    content = {**one.content, file: one.content[file][: len(one.content[file]) // 2]}
                    name = f"cut-{encoding}-{file.replace('/', '.').lstrip('.')}"
                    yield Plan(name, "cut", name + one.suffix, writer_of(content), REFUSED, None, one.content)


_SELF_CHECKED = ("png", "tif-deflate-tiles", "tif-deflate-strips", "zarr4", "zarr5-sharded")
"""Encodings with a checksum over their pixels."""


def flipped_plans() -> Iterator[Plan]:
    for encoding in ENCODINGS:
        one = sound(encoding)
        target = damaged(encoding)
        data = one.content[target]
        for part, (start, stop) in _parts(encoding, data).items():
            rng = np.random.default_rng(zlib.crc32(f"{encoding} {part}".encode()))
            changed = bytearray(data)
            changed[int(rng.integers(start, stop))] ^= 1 << int(rng.integers(8))
            name, pixels = f"flip-{encoding}-{part}", one.pixels
            checked = part == "pixels" and encoding in _SELF_CHECKED
            yield Plan(
                name, "flip", name + one.suffix, writer_of({**one.content, target: bytes(changed)}),
                EITHER if checked else CHECKSUM, lambda pixels=pixels: pixels, one.content,
            )  # fmt: skip


def _parts(encoding: str, data: bytes) -> dict[str, tuple[int, int]]:
    """Where the header, the tables and the pixels of a file lie."""
    size = len(data)
    middle = (size // 3, 2 * size // 3)
    if encoding.startswith("tif"):
        page = t.page_offset(data)
        entries = struct.unpack_from("<H", data, page)[0]
        first, last = page, page + 2 + 12 * entries
        return {
            "header": (0, 8), "tables": (first, last), "more-tables": (first, last), "pixels": (size // 2, size - 99),
        }  # fmt: skip
    if encoding == "czi":
        return {"header": (0, 100), "tables": (size - 3000, size - 10), "pixels": middle}
    if encoding.startswith("zarr"):
        return {"header": (0, 16), "pixels": middle}
    return {"header": (2, 30), "tables": (30, 160), "pixels": middle}
