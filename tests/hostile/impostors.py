"""Bombs, files that are not what their names say, and paths that lead elsewhere."""

import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from tests.hostile import bombs
from tests.hostile import tiffs as t
from tests.hostile.lying_tags import described_tiff
from tests.hostile.plans import EITHER, READ, REFUSED, Fate, Plan, file_of, lying_tiff, renamed, store_of, writer_of
from tests.hostile.sound import sound, tissue, zarr_5
from tests.hostile.tiffs import SHORT, Tag


def bomb_plans() -> Iterator[Plan]:
    gib = bombs.GIB
    no_strips: dict[int, Tag | None] = {t.OFFSETS: None, t.COUNTS: None, t.ROWS: None}
    plane = t.plane()[None]
    padded = np.zeros((64, 64), np.uint8)
    padded[: t.Y, : t.X] = plane[0]
    layouts: dict[str, tuple[bytes, Callable[[int], dict[int, Tag | None]]]] = {
        "strip": (plane.tobytes(), lambda _: {}),
        "tile": (padded.tobytes(), lambda size: {**no_strips, **t.tiled(size)}),
    }
    for layout, (first, changes) in layouts.items():
        for name, number, data in (
            ("deflate", 8, bombs.deflate(2 * gib, first)),
            ("zstd", 50000, bombs.zstd(2 * gib, None, first)),
            ("zstd-stated", 50000, bombs.zstd(gib, 2**50, first)),
            ("lzw", 5, bombs.lzw(gib // 32, first)),
        ):
            tags = {t.COMPRESSION: Tag(SHORT, [number]), **changes(len(data))}
            plan = lying_tiff(f"{name}-{layout}", tags, EITHER, data=data, pixels=plane, kind="bomb")
            yield renamed(plan, f"bomb-{name}-{layout}")
    rows = bombs.png_rows(plane[0])
    text = b"Comment\0\0" + bombs.deflate(2 * gib)
    profile = b"icc\0\0" + bombs.deflate(2 * gib)
    yield file_of(
        "bomb-png-rows",
        "bomb",
        ".png",
        bombs.png(t.Y, t.X, bombs.deflate(2 * gib, bombs.filtered(plane[0]))),
        EITHER,
        plane,
    )
    yield file_of("bomb-png-text", "bomb", ".png", bombs.png(t.Y, t.X, rows, (b"zTXt", text)), EITHER, plane)
    yield file_of("bomb-png-profile", "bomb", ".png", bombs.png(t.Y, t.X, rows, (b"iCCP", profile)), EITHER, plane)
    many = [(b"tEXt", b"a\0" + b"b" * 10)] * 50_000
    yield file_of("bomb-png-chunks", "bomb", ".png", bombs.png(t.Y, t.X, rows, *many), EITHER, plane)
    claims = bombs.png(60_000, 60_000, bombs.deflate(gib), colour=2)
    yield file_of("bomb-png-claims-10-gb", "bomb", ".png", claims, REFUSED)
    # one row of the blob and its ground, then black: with the byte before each row a square of 16,384
    side = 16 * 1024
    whole = np.zeros((1, side, side - 1), np.uint8)
    whole[0, :1024] = np.tile(np.repeat(t.plane()[0], side)[: side - 1], (1024, 1))
    first = bombs.filtered(whole[0, :1024])
    blank = bombs.deflated_image(side * (side - 1024), first)
    yield file_of("bomb-png-blank", "bomb", ".png", bombs.png(side, side - 1, blank), EITHER, whole)
    yield file_of("bomb-png-short", "bomb", ".png", bombs.png(side + 1, side - 1, blank), REFUSED)
    jp2 = bombs.jp2_that_claims(14_000, 14_000, t.plane())
    yield file_of("bomb-jp2-claims-14000", "bomb", ".jp2", jp2, REFUSED)
    jpeg = imagecodecs.jpeg_encode(np.ascontiguousarray(tissue(3)), level=90)
    yield file_of("bomb-jpg-claims-65500", "bomb", ".jpg", bombs.jpeg_that_claims(65500, 65500, jpeg), REFUSED)
    for name, xml in (("entities", bombs.entities()), ("entities-flat", bombs.entities_flat())):
        plan = described_tiff(name, xml, EITHER, kind="bomb")
        yield renamed(plan, f"bomb-{name}")
    chunks = {"gzip": bombs.gzipped(2 * gib), "zstd": bombs.zstd(2 * gib, None), "zstd-stated": bombs.zstd(gib, 2**50)}
    blosc = bytearray(imagecodecs.blosc_encode(bytes(4096), compressor="zstd"))
    struct.pack_into("<I", blosc, 4, 2**31 - 17)
    chunks["blosc"] = bytes(blosc)
    for name, data in chunks.items():
        codec: dict[str, Any] = {"name": name.partition("-")[0], "configuration": {}}
        settings: dict[str, Any] = {
            "gzip": {"level": 1}, "zstd": {"level": 1, "checksum": False},
            "blosc": {"cname": "zstd", "clevel": 1, "shuffle": "noshuffle", "typesize": 1, "blocksize": 0},
        }[codec["name"]]  # fmt: skip
        codec["configuration"] = settings
        content = dict(zarr_5(tissue()[None], None))
        metadata = json.loads(content["0/zarr.json"])
        metadata["codecs"] = [{"name": "bytes", "configuration": {"endian": "little"}}, codec]
        content |= {key: data for key in content if "/c/" in key}
        content["0/zarr.json"] = json.dumps(metadata).encode()
        yield store_of(f"bomb-chunk-{name}", "bomb", content, REFUSED)


MARKER = "executed"
"""A file that would be written beside the folder of scans if a payload were executed."""


def impostor_plans() -> Iterator[Plan]:
    honest = sound("png").content[""]

    def write(content: Callable[[Path], bytes]) -> Callable[[Path], None]:
        return lambda path: path.write_bytes(content(path.parent.parent / MARKER)) and None

    for suffix in (".tif", ".png", ".jp2", ".czi"):
        name = f"bomb-pickle-{suffix[1:]}"
        yield Plan(name, "bomb", name + suffix, write(bombs.pickled), REFUSED)
    yield Plan("bomb-npy-tif", "bomb", "bomb-npy-tif.tif", write(bombs.npy_of_objects), REFUSED)
    for name, data in (("svg", bombs.SVG), ("html", bombs.HTML), ("zip", bombs.zipped("../../a.tif", honest))):
        for suffix in (".tif", ".png", ".jpg"):
            yield file_of(f"bomb-{name}-{suffix[1:]}", "bomb", suffix, data, REFUSED)
    png = sound("png")
    yield file_of("bomb-png-tif", "bomb", ".tif", honest, REFUSED)
    yield file_of("bomb-png-jpg", "bomb", ".jpg", honest, EITHER, png.pixels)
    yield file_of("bomb-tif-png", "bomb", ".png", sound("tif-raw-strips").content[""], REFUSED)
    yield file_of("bomb-czi-header", "bomb", ".czi", b"ZISRAWFILE" + bytes(1000), REFUSED)


NAMES = {
    "nfc": "sch\u00e4del.png",
    "nfd": "scha\u0308del.png",
    "emoji": "\U0001f9e0 \u8133.png",
    "right-to-left": "\u202egnp.\u05de\u05d5\u05d7.png",
    "spaces": "a  b c.png",
    "newline": "a\nb.png",
    "tab": "a\tb.png",
    "quotes": "a'b\"c.png",
    "comma": "a,b;c.png",
    "dash": "-rf.png",
    "options": "--help[page=1,access=random].png",
    "percent": "%s%n{0}$(id)`id`.png",
    "backslash": "..\\..\\a.png",
    "dots": "...a..b...png",
    "question": "a?b*c[d].png",
    "capitals": "CASE.PNG",
    "case": "case.png",
    "250": "x" * 246 + ".png",
    "folders": "/".join(["d" * 100] * 5) + "/a.png",
    "inner-dots": "d/../d/./a.png",
}
"""Odd names that are names of files like any other."""


def name_plans() -> Iterator[Plan]:
    png = sound("png")
    content = writer_of(png.content)
    for name, file in NAMES.items():

        def make(path: Path, content: Callable[[Path], None] = content) -> None:
            (path.parent.parent / "d").mkdir(exist_ok=True)
            content(path)

        yield Plan(f"name-{name}", "name", f"names/{file}", make, READ, lambda: png.pixels)

    def nothing(path: Path) -> None:
        """The path names no file."""

    def link(target: str) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            content(path.with_name("target.png"))
            path.symlink_to(target)

        return make

    def bound(path: Path) -> None:
        here = os.open(path.parent, os.O_RDONLY)
        try:  # the path of a socket may be no longer than 107 bytes
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(f"/proc/self/fd/{here}/{path.name}")
        finally:
            os.close(here)

    specials: dict[str, tuple[str, Callable[[Path], None], frozenset[Fate]]] = {
        "missing": ("missing.png", nothing, REFUSED),
        "300": ("x" * 296 + ".png", nothing, REFUSED),
        "5000": ("/".join(["y" * 99] * 50) + ".png", nothing, REFUSED),
        "home": ("~/a.png", nothing, REFUSED),
        "below-a-file": ("CASE.PNG/a.png", lambda path: None, REFUSED),
        "folder": ("folder.tif", lambda path: path.mkdir(), REFUSED),
        "folder-png": ("folder.png", lambda path: path.mkdir(), REFUSED),
        "slash": ("slash.png/", content, EITHER),
        "link": ("link.png", link("target.png"), READ),
        "link-dangling": ("dangling.png", lambda path: path.symlink_to("nowhere.png"), REFUSED),
        "pipe": ("pipe.tif", os.mkfifo, REFUSED),
        "socket": ("socket.tif", bound, REFUSED),
        "no-suffix": ("scan", content, REFUSED),
        "dot-only": (".png", content, EITHER),
        "text": ("scan.txt", content, REFUSED),
    }
    for name, (file, make, allowed) in specials.items():
        yield Plan(f"name-{name}", "name", f"names/{file}", make, allowed, lambda: png.pixels)


def refused_paths(scans: Path) -> dict[str, str]:
    """Paths that no manifest may name: they lead out of the folder of scans, or are no paths. Makes the links."""
    folder = scans / "links"
    folder.mkdir(parents=True, exist_ok=True)
    outside = scans.parent / "outside"
    outside.mkdir(exist_ok=True)
    writer_of(sound("png").content)(outside / "secret.png")
    links = {
        "zero": Path("/dev/zero"), "file": outside / "secret.png", "folder": outside, "root": Path("/"),
        "proc": Path("/proc/self/root"), "step": Path("zero.png"), "up": Path("../../outside"),
    }  # fmt: skip
    for name, target in links.items():
        (folder / f"{name}.png").symlink_to(target)
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "loop-a.png").symlink_to("loop-b.png")
    (folder / "loop-b.png").symlink_to("loop-a.png")
    return {
        "up": "../outside/secret.png",
        "up-and-down": "links/../../outside/secret.png",
        "up-only": "..",
        "absolute": str(outside / "secret.png"),
        "absolute-system": "/etc/passwd",
        "device": "/dev/zero",
        "link-device": "links/zero.png",
        "link-file": "links/file.png",
        "link-folder": "links/folder.png/secret.png",
        "link-root": "links/root.png/etc/passwd",
        "link-proc": "links/proc.png/etc/passwd",
        "link-link": "links/step.png",
        "link-up": "links/up.png/secret.png",
        "link-and-up": "links/folder.png/../secret.png",
        "loop": "links/loop.png",
        "loop-of-two": "links/loop-a.png",
        "below-a-loop": "links/loop.png/a.png",
        "file-url": "file:links/a.png",
        "file-url-slashes": "file:///etc/passwd",
        "http": "http://127.0.0.1:9/a.tif",
        "https": "https://example.org/a.tif",
        "s3": "s3://bucket/a.zarr",
        "gs": "GS://bucket/a.zarr",
        "ftp": "ftp://127.0.0.1/a.tif",
        "data": "data:image/png;base64,AAAA",
        "javascript": "javascript:alert(1)",
        "chained": "zip://a.tif::http://127.0.0.1:9/a.zip",
        "chained-short": "simplecache::a.tif",
        "memory": "memory:a.tif",
        "windows-share": "smb://host/a.tif",
    }
