"""Hostile and damaged scans: what each of them is, and what may come of it. The same files every time."""

import hashlib
import json
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np

from cytoarch.digests import content_digest
from tests.hostile import bombs
from tests.hostile import tiffs as t
from tests.hostile.sound import ENCODINGS, PIXEL_SIZE_UM, Array, Content, multiscales, sound, tiff_bytes, tissue, zarr_5
from tests.hostile.tiffs import ASCII, DOUBLE, LONG, RATIONAL, SHORT, SLONG, SRATIONAL, Tag

Kind = Literal["sound", "cut", "flip", "lie", "store", "bomb", "name", "size", "label"]
Fate = Literal["refused", "read", "wrong"]
"""Refused with one clear error; its pixels right; or read with pixels nobody can know to be wrong."""

REFUSED: frozenset[Fate] = frozenset({"refused"})
READ: frozenset[Fate] = frozenset({"read"})
EITHER: frozenset[Fate] = REFUSED | READ
CHECKSUM: frozenset[Fate] = frozenset({"refused", "read", "wrong"})
"""Where a format has no checksum of its own only the manifest's catches every fault."""

SHARES = {"0": 0.0, "0.1": 0.001, "10": 0.1, "50": 0.5, "90": 0.9, "99.9": 0.999}
"""How much is left of a file that was cut, in percent."""


@dataclass(frozen=True)
class Plan:
    """A case that is not written yet."""

    name: str
    kind: Kind
    file: str
    """Path relative to the folder of scans."""
    make: Callable[[Path], None]
    allowed: frozenset[Fate]
    pixels: Callable[[], Array] | None = None
    """The right pixels (c, y, x); None: there are none."""
    sound: Content | None = None
    """The undamaged files, where there were such."""
    pixel_size_um: float | None = PIXEL_SIZE_UM
    """What the manifest states."""
    found_um: float | None = PIXEL_SIZE_UM
    """What is to be found."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """What else the manifest states."""


@dataclass(frozen=True)
class Case:
    """A file of the corpus, and what may come of it."""

    plan: Plan
    path: Path
    sha256: str | None
    """Checksum of the undamaged file or folder, where there was one."""

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def row(self) -> dict[str, str]:
        """Its row of the manifest, but for brain and number."""
        size = self.plan.pixel_size_um
        stated = {"pixel_size_um": str(size)} if size is not None else {}
        return {"section_id": self.name, "path": self.plan.file, **stated, **self.plan.columns}


def make_corpus(folder: Path, names: Sequence[str] | None = None) -> list[Case]:
    """Write the corpus, or the cases of these names, into a folder."""
    return [_made(plan, folder) for plan in plans() if names is None or plan.name in names]


_NO_FOLDER = ("name-below-a-file", "name-5000", "name-home")
"""Cases whose path cannot be made."""


def _made(plan: Plan, folder: Path) -> Case:
    path = folder / plan.file
    if plan.name not in _NO_FOLDER:
        path.parent.mkdir(parents=True, exist_ok=True)
    plan.make(path)
    return Case(plan, path, None if plan.sound is None else digest(plan.sound))


def digest(content: Content) -> str:
    """The checksum a manifest states of a scan, a file or a folder."""
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    return hashes.get("") or content_digest(hashes)


@cache
def plans() -> tuple[Plan, ...]:
    """Every case, in a fixed order."""
    found = [
        *_sound(), *_cut(), *_flipped(), *_lies(), *_lying_segments(), *_lying_texts(), *_stores(),
        *_bombs(), *_impostors(), *_names(), *_sizes(), *_labels(),
    ]  # fmt: skip
    assert len({plan.name for plan in found}) == len(found)
    return tuple(found)


SAMPLE = (
    "sound-tif-raw-tiles", "sound-png", "sound-zarr5-sharded", "cut-tif-jpeg-tiles-99.9", "cut-tif-deflate-strips-50",
    "cut-jp2-90", "cut-zarr4-50", "flip-tif-lzw-tiles-pixels", "flip-png-pixels", "lie-huge", "lie-tile-2e31",
    "lie-tag-count", "lie-page-loop", "lie-orientation-9", "lie-ome-files-outside", "store-pickle-filter",
    "store-lost-chunk", "bomb-zstd-tile", "bomb-png-text", "bomb-entities", "bomb-pickle-tif", "bomb-svg-png",
    "name-newline", "name-250", "name-socket", "size-72dpi", "size-ome-nan-stated", "label-unknown-ids",
)  # fmt: skip
"""A few cases of every kind, which run in the normal suite."""


# -- building blocks ---------------------------------------------------------------------------------------------------


def _writer(content: Content) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        for name, data in content.items():
            file = path / name if name else path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)

    return write


def _file(
    name: str, kind: Kind, suffix: str, data: bytes, allowed: frozenset[Fate], pixels: Array | None = None, **more: Any
) -> Plan:
    """A case that is one file of some bytes."""
    read = None if pixels is None else lambda: pixels
    return Plan(name, kind, f"{name}{suffix}", _writer({"": data}), allowed, read, **more)


def _folder(name: str, kind: Kind, content: Content, allowed: frozenset[Fate], **more: Any) -> Plan:
    return Plan(name, kind, f"{name}.zarr", _writer(content), allowed, **more)


def _sound() -> Iterator[Plan]:
    for encoding in ENCODINGS:
        one = sound(encoding)
        name = f"sound-{encoding}"
        pixels = one.pixels
        yield Plan(
            name, "sound", name + one.suffix, _writer(one.content), READ, lambda pixels=pixels: pixels, one.content
        )


def _damaged(encoding: str) -> str:
    """The file of an encoding that is damaged: of a folder, a chunk in its middle."""
    names = sorted(name for name in sound(encoding).content if not name.rpartition("/")[2].startswith((".z", "zarr")))
    return names[len(names) // 2]


def _cut() -> Iterator[Plan]:
    for encoding in ENCODINGS:
        one = sound(encoding)
        target = _damaged(encoding)
        for percent, share in SHARES.items():
            content = {**one.content, target: one.content[target][: int(len(one.content[target]) * share)]}
            name, pixels = f"cut-{encoding}-{percent}", one.pixels
            yield Plan(
                name, "cut", name + one.suffix, _writer(content), EITHER, lambda pixels=pixels: pixels, one.content
            )
        if one.suffix == ".zarr":
            for file in one.content:
                if file.rpartition("/")[2].startswith((".z", "zarr")) and file != ".zgroup":
                    content = {**one.content, file: one.content[file][: len(one.content[file]) // 2]}
                    name = f"cut-{encoding}-{file.replace('/', '.').lstrip('.')}"
                    yield Plan(name, "cut", name + one.suffix, _writer(content), REFUSED, None, one.content)


_SELF_CHECKED = ("png", "tif-deflate-tiles", "tif-deflate-strips", "zarr4", "zarr5-sharded")
"""Encodings with a checksum over their pixels."""


def _flipped() -> Iterator[Plan]:
    for encoding in ENCODINGS:
        one = sound(encoding)
        target = _damaged(encoding)
        data = one.content[target]
        for part, (start, stop) in _parts(encoding, data).items():
            rng = np.random.default_rng(zlib.crc32(f"{encoding} {part}".encode()))
            changed = bytearray(data)
            changed[int(rng.integers(start, stop))] ^= 1 << int(rng.integers(8))
            name, pixels = f"flip-{encoding}-{part}", one.pixels
            checked = part == "pixels" and encoding in _SELF_CHECKED
            yield Plan(
                name, "flip", name + one.suffix, _writer({**one.content, target: bytes(changed)}),
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


# -- lying tags --------------------------------------------------------------------------------------------------------


def _lie(name: str, changes: Mapping[int, Tag | None], allowed: frozenset[Fate] = REFUSED, **more: Any) -> Plan:
    """The honest TIFF with other tags; `more` may hold other data, pixels, and what the manifest states."""
    data: bytes = more.pop("data", None) or t.plane().tobytes()
    strips: int = more.pop("strips", 1)
    tags = {**t.honest(len(data), strips), **changes}
    return _file(f"lie-{name}", more.pop("kind", "lie"), ".tif", t.tiff(data, tags), allowed, **more)


def _renamed(plan: Plan, name: str) -> Plan:
    return replace(plan, name=name, file=f"{name}.tif")


def _lies() -> Iterator[Plan]:
    plane = t.plane()
    grey = plane[None]
    yield _lie("nothing", {}, READ, pixels=grey)
    for name, height, width, samples in (
        ("huge", 95_000, 136_000, 1),
        ("huge-rgb", 95_000, 136_000, 3),
        ("hugest", 2**32 - 1, 2**32 - 1, 1),
        ("tall", 2**32 - 1, 1, 1),
        ("flat", 0, 40, 1),
        ("samples-65535", t.Y, t.X, 65535),
        ("samples-0", t.Y, t.X, 0),
    ):
        sizes = {t.HEIGHT: Tag(LONG, [height]), t.WIDTH: Tag(LONG, [width]), t.ROWS: Tag(LONG, [height])}
        bits = {t.BITS: Tag(SHORT, [8] * max(1, min(samples, 3))), t.SAMPLES: Tag(SHORT, [samples])}
        photometric = {t.PHOTOMETRIC: Tag(SHORT, [2])} if samples == 3 else {}
        yield _lie(name, {**sizes, **bits, **photometric}, EITHER if samples == 0 else REFUSED, pixels=grey)
    for missing in (t.WIDTH, t.HEIGHT, t.OFFSETS, t.COUNTS):
        yield _lie(f"without-{missing}", {missing: None}, EITHER, pixels=grey)
    for bits in (1, 12, 32, 64):
        yield _lie(f"bits-{bits}", {t.BITS: Tag(SHORT, [bits])})
    nibbles = np.stack([plane >> 4, plane & 15], axis=-1).ravel()[: plane.size].reshape(grey.shape)
    yield _lie("bits-4", {t.BITS: Tag(SHORT, [4])}, EITHER, pixels=nibbles)
    wide = grey.astype(np.uint16) << 4
    high, low = wide.ravel()[0::2].astype(np.uint32), wide.ravel()[1::2].astype(np.uint32)
    packed = np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], axis=-1).astype(np.uint8).tobytes()
    yield _lie("bits-12-whole", {t.BITS: Tag(SHORT, [12])}, EITHER, data=packed, pixels=wide)
    yield _lie("one-grey", {}, EITHER, data=bytes([200]) * plane.size, pixels=np.full_like(grey, 200))
    line = np.tile(grey[:, :1], (1, 1, 100))
    for name, strange in (("row", line), ("column", line.transpose(0, 2, 1)), ("channels", np.repeat(grey, 64, 0))):
        c, y, x = strange.shape
        shape = {t.HEIGHT: Tag(LONG, [y]), t.WIDTH: Tag(LONG, [x]), t.ROWS: Tag(LONG, [y])}
        samples = {t.SAMPLES: Tag(SHORT, [c]), t.BITS: Tag(SHORT, [8] * c)}
        data = np.moveaxis(strange, 0, -1).tobytes()
        yield _lie(f"strange-{name}", {**shape, **samples}, READ, data=data, pixels=strange)
    yield _lie("bits-mixed", {t.BITS: Tag(SHORT, [8, 16, 8]), t.SAMPLES: Tag(SHORT, [3])})
    yield _lie("bits-16-half-the-data", {t.BITS: Tag(SHORT, [16])})
    for name, kind, bits in (("int8", 2, 8), ("float16", 3, 16), ("float32", 3, 32), ("complex", 6, 64)):
        wide = np.zeros(plane.size * bits // 8, np.uint8).tobytes()
        yield _lie(name, {t.SAMPLE_FORMAT: Tag(SHORT, [kind]), t.BITS: Tag(SHORT, [bits])}, data=wide)
    for name, photometric in (("cmyk", 5), ("lab", 8), ("mask", 4), ("nonsense", 4711)):
        yield _lie(f"photometric-{name}", {t.PHOTOMETRIC: Tag(SHORT, [photometric])})
    yield _lie("photometric-rgb", {t.PHOTOMETRIC: Tag(SHORT, [2])}, EITHER, pixels=grey)
    yield _lie("photometric-white-is-0", {t.PHOTOMETRIC: Tag(SHORT, [0])}, READ, pixels=255 - grey)
    palette = {t.PHOTOMETRIC: Tag(SHORT, [3]), t.COLOUR_MAP: Tag(SHORT, list(range(768)))}
    yield _lie("palette", palette)
    yield _lie("ycbcr", {t.PHOTOMETRIC: Tag(SHORT, [6]), t.SAMPLES: Tag(SHORT, [3])}, data=bytes(3 * plane.size))
    for value in (0, 9, 65535):
        yield _lie(f"orientation-{value}", {t.ORIENTATION: Tag(SHORT, [value])})
    yield _lie("orientation-text", {t.ORIENTATION: Tag(ASCII, b"up\0")})
    yield _lie("orientation-3", {t.ORIENTATION: Tag(SHORT, [3])}, READ, pixels=grey[:, ::-1, ::-1])
    compressions = {"ccitt": 4, "lzw": 5, "jpeg": 7, "deflate": 8, "packbits": 32773, "jp2k": 34712, "zstd": 50000}
    for name, number in {**compressions, "webp": 50001, "unknown": 65000}.items():
        yield _lie(f"compression-{name}", {t.COMPRESSION: Tag(SHORT, [number])})
    for value, right in ((2, np.cumsum(grey, axis=2, dtype=np.uint8)), (3, grey), (99, grey)):
        yield _lie(f"predictor-{value}", {t.PREDICTOR: Tag(SHORT, [value])}, EITHER, pixels=right)
    three = {t.SAMPLES: Tag(SHORT, [3]), t.BITS: Tag(SHORT, [8, 8, 8]), t.PHOTOMETRIC: Tag(SHORT, [2])}
    yield _lie("planes-missing", {**three, t.PLANAR: Tag(SHORT, [2])})
    yield _lie("planar-9", {t.PLANAR: Tag(SHORT, [9])}, EITHER, pixels=grey)


def _lying_segments() -> Iterator[Plan]:
    plane = t.plane()
    grey, size = plane[None], plane.size
    for name, kind, value in (
        ("0", LONG, 0), ("beyond-the-end", LONG, size + 10_000), ("2e32", LONG, 2**32 - 1), ("negative", SLONG, -1),
        ("half", LONG, size // 2),
    ):  # fmt: skip
        yield _lie(f"count-{name}", {t.COUNTS: Tag(kind, [value])})
    each = size // 4
    yield _lie("strips", {}, READ, strips=4, pixels=grey)
    yield _lie("count-of-one-strip-0", {t.COUNTS: Tag(LONG, [each, 0, each, each])}, strips=4)
    yield _lie("counts-uneven", {t.COUNTS: Tag(LONG, [2 * each, 1, each - 1, each])}, EITHER, strips=4, pixels=grey)
    overlapping = {t.OFFSETS: Tag(LONG, [t.PIXELS_AT] * 4)}
    yield _lie("overlap", overlapping, EITHER, strips=4, pixels=np.tile(grey[:, :6], (1, 4, 1)))
    everything = {t.OFFSETS: Tag(LONG, [t.PIXELS_AT] * 4), t.COUNTS: Tag(LONG, [size] * 4)}
    yield _lie("overlap-whole", everything, strips=4)
    yield _lie("offset-beyond-the-end", {t.OFFSETS: Tag(LONG, [2**31])})
    yield _lie("offset-negative", {t.OFFSETS: Tag(SLONG, [-8])})
    itself = t.tiff(plane.tobytes(), {**t.honest(size), t.OFFSETS: Tag(LONG, [1])})
    start = np.frombuffer(itself[1 : 1 + size], np.uint8).reshape(1, t.Y, t.X)
    yield _file("lie-offset-to-the-header", "lie", ".tif", itself, EITHER, start)
    yield _lie("rows-0", {t.ROWS: Tag(LONG, [0])}, EITHER, pixels=grey)
    yield _lie("rows-2e32", {t.ROWS: Tag(LONG, [2**32 - 1])}, READ, pixels=grey)
    yield _lie("rows-1-of-24-strips", {t.ROWS: Tag(LONG, [1])})
    for name, tag in (("offsets", t.OFFSETS), ("description", t.DESCRIPTION), ("profile", t.ICC_PROFILE)):
        allowed = REFUSED if tag == t.OFFSETS else EITHER
        lie = Tag(LONG if tag == t.OFFSETS else ASCII, b"abcd", count=0x3FFFFFFF, at=8)
        yield _lie("tag-count" if tag == t.OFFSETS else f"tag-count-{name}", {tag: lie}, allowed, pixels=grey)
    yield _lie("tag-kind-99", {t.WIDTH: Tag(99, b"\1\0\0\0", count=1)})
    yield _lie("width-of-two-values", {t.WIDTH: Tag(SHORT, [t.X, t.X])}, EITHER, pixels=grey)
    no_strips: dict[int, Tag | None] = {t.OFFSETS: None, t.COUNTS: None, t.ROWS: None}
    padded = np.zeros((64, 64), np.uint8)
    padded[: t.Y, : t.X] = plane
    tile = {**no_strips, **t.tiled(4096)}
    yield _lie("tile", tile, READ, data=padded.tobytes(), pixels=grey)
    for name, width, height in (("2e31", 2**31, 2**31), ("thin", 2**31, 16), ("0", 0, 64), ("00", 0, 0), ("1", 1, 1)):
        edges = {t.TILE_WIDTH: Tag(LONG, [width]), t.TILE_HEIGHT: Tag(LONG, [height])}
        yield _lie(f"tile-{name}", {**tile, **edges}, data=padded.tobytes())
    none = {t.TILE_OFFSETS: Tag(LONG, b"", count=0), t.TILE_COUNTS: Tag(LONG, b"", count=0)}
    yield _lie("no-tiles", {**tile, **none}, data=padded.tobytes())
    both = {**tile, t.OFFSETS: Tag(LONG, [8]), t.COUNTS: Tag(LONG, [4096]), t.ROWS: Tag(LONG, [t.Y])}
    yield _lie("tiles-and-strips", both, CHECKSUM, data=padded.tobytes(), pixels=grey)
    honest = t.tiff(plane.tobytes(), t.honest(size))
    page = t.page_offset(honest)
    loop = t.tiff(plane.tobytes(), t.honest(size), next_page=page)
    yield _file("lie-page-loop", "lie", ".tif", loop, EITHER, grey)
    yield _lie("sub-page-loop", {t.SUB_IFDS: Tag(LONG, [page, page])}, EITHER, pixels=grey)
    yield _lie("next-page-beyond-the-end", {}, EITHER, pixels=grey)
    yield _file("lie-many-pages", "lie", ".tif", t.chain(30_000), REFUSED)
    for name, data in (
        ("only-a-header", b"II*\0\x08\0\0\0"),
        ("page-beyond-the-end", b"II*\0" + struct.pack("<I", 2**31) + bytes(64)),
        ("page-of-65535-tags", b"II*\0\x08\0\0\0" + b"\xff\xff" + bytes(600)),
        ("other-byte-order", b"MM" + honest[2:]),
        ("bigtiff-far", b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**63) + bytes(64)),
        ("bigtiff-tags-2e60", b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**60) + bytes(64)),
        ("zeros", bytes(4096)),
        ("noise", np.random.default_rng(1).bytes(4096)),
    ):
        yield _file(f"lie-{name}", "lie", ".tif", data, REFUSED)
    sof = imagecodecs.jpeg_encode(np.full((64, 64), 99, np.uint8), level=90)
    other = imagecodecs.jpeg_encode(np.full((16, 64), 99, np.uint8), level=90)
    wide = imagecodecs.jpeg_encode(np.arange(64 * 64, dtype=np.uint8).reshape(16, 256), level=90)
    for name, data in (
        ("another-size", other),
        ("another-shape", wide),
        ("claims-65500", bombs.jpeg_that_claims(65500, 65500, sof)),
        ("of-jp2k", imagecodecs.jpeg2k_encode(padded, codecformat="j2k", reversible=True)),
    ):
        changes = {**no_strips, **t.tiled(len(data)), t.COMPRESSION: Tag(SHORT, [7])}
        yield _lie(f"jpeg-tile-{name}", changes, data=bytes(data))
    claims = bombs.jp2_that_claims(30_000, 30_000, padded)
    claims = claims[claims.index(b"\xff\x4f\xff\x51") :]
    jp2k = {**no_strips, **t.tiled(len(claims)), t.COMPRESSION: Tag(SHORT, [34712])}
    yield _lie("jp2k-tile-claims-30000", jp2k, data=claims)


OME = '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" {}>{}</OME>'
PIXELS = (
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="{x}" SizeY="{y}" SizeZ="{z}"'
    ' SizeC="{c}" SizeT="1" {more}><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image>'
)


def _ome(more: str = "", data: str = "<TiffData/>", **sizes: int) -> str:
    return OME.format("", PIXELS.format(**{"x": t.X, "y": t.Y, "z": 1, "c": 1, **sizes}, more=more, data=data))


def _text(name: str, description: str, allowed: frozenset[Fate] = REFUSED, **more: Any) -> Plan:
    description_tag = Tag(ASCII, description.encode() + b"\0")
    return _lie(name, {t.DESCRIPTION: description_tag}, allowed, **{"pixels": t.plane()[None], **more})


def _lying_texts() -> Iterator[Plan]:
    yield _text("ome", _ome(), READ)
    yield _text("ome-larger", _ome(x=100_000, y=100_000), EITHER)
    yield _text("ome-deeper", _ome(z=1_000_000), EITHER)
    yield _text("ome-without-sizes", OME.format("", '<Image><Pixels DimensionOrder="XYZCT"/></Image>'), EITHER)
    yield _text("ome-nested", OME.format("", "<a>" * 50_000 + "</a>" * 50_000), EITHER)
    other = 255 - t.plane(seed=6)
    honest = t.honest(other.size)
    for name, place in (("beside", "{}"), ("outside", "../../outside/{}")):
        # of two channels the second lies in another file, at the same place
        second = f"lie-ome-files-{name}-2.ome.tif"
        stated = place.format(second)
        if name == "beside":
            stated = second
        data = (
            '<TiffData FirstC="0" IFD="0" PlaneCount="1"><UUID FileName="{own}">urn:uuid:1</UUID></TiffData>'
            '<TiffData FirstC="1" IFD="0" PlaneCount="1"><UUID FileName="{other}">urn:uuid:2</UUID></TiffData>'
        )
        xml = PIXELS.format(x=t.X, y=t.Y, z=1, c=2, more="", data=data)

        def make(path: Path, xml: str = xml, stated: str = stated) -> None:
            there = path.parent / stated
            there.parent.mkdir(parents=True, exist_ok=True)
            texts = {path: 'UUID="urn:uuid:1"', there: 'UUID="urn:uuid:2"'}
            for (file, uuid), pixels in zip(texts.items(), (t.plane(), other), strict=True):
                text = OME.format(uuid, xml.format(own=path.name, other=stated))
                file.write_bytes(t.tiff(pixels.tobytes(), {**honest, t.DESCRIPTION: Tag(ASCII, text.encode() + b"\0")}))

        yield Plan(f"lie-ome-files-{name}", "lie", f"files/lie-ome-files-{name}.ome.tif", make, REFUSED)
    yield _text("imagej-many", "ImageJ=1.53\nimages=100000000\nslices=100000000\n", EITHER)
    yield _text("shaped-larger", json.dumps({"shape": [100_000, 100_000]}), EITHER)
    yield _text("shaped-negative", json.dumps({"shape": [-1, t.Y, t.X]}), EITHER)
    yield _text("mpp-of-two-dots", "Aperio Image Library v1\n|AppMag = 20|MPP = 0.5.1|", EITHER)
    yield _text("text-of-no-encoding", "\udcff".encode("utf-8", "surrogateescape").decode("latin-1") * 9, EITHER)


# -- stores that lie ---------------------------------------------------------------------------------------------------


def _stores() -> Iterator[Plan]:
    four, five = sound("zarr4"), sound("zarr5")

    def changed(content: Content, file: str, change: Callable[[Any], object]) -> Content:
        metadata = json.loads(content[file])
        change(metadata)
        return {**content, file: json.dumps(metadata).encode()}

    array, group = "0/zarr.json", "zarr.json"
    for name, change in (
        ("huge-chunks", lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=[1, 2**31, 2**31])),
        ("no-chunks", lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=[0, 0, 0])),
        ("tiny-chunks", lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=[1, 1, 1])),
        ("negative-shape", lambda m: m.update(shape=[1, -1, 310])),
        ("huge-shape", lambda m: m.update(shape=[1, 2**40, 2**40])),
        ("objects", lambda m: m.update(data_type="object")),
        ("float", lambda m: m.update(data_type="float32")),
        ("pickle-codec", lambda m: m.update(codecs=[{"name": "numcodecs.pickle", "configuration": {}}])),
        ("unknown-codec", lambda m: m["codecs"].append({"name": "os.system", "configuration": {"cmd": "true"}})),
        ("format-9", lambda m: m.update(zarr_format=9)),
        ("codecs-a-text", lambda m: m.update(codecs="none")),
    ):
        yield _folder(f"store-{name}", "store", changed(five.content, array, change), REFUSED)
    for name, path in (("dots", "../sound-zarr5.zarr/0"), ("absolute", "/etc"), ("url", "http://127.0.0.1:9/0")):
        content = changed(five.content, group, lambda m, path=path: _dataset(m).update(path=path))
        yield _folder(f"store-path-{name}", "store", content, REFUSED)
    for name, change in (
        ("no-multiscales", lambda m: m["attributes"]["ome"].update(multiscales=[])),
        ("version-9", lambda m: m["attributes"]["ome"].update(version="9")),
        ("axes-twice", lambda m: m["attributes"]["ome"]["multiscales"][0].update(axes=[{"name": "y"}] * 3)),
        ("attributes-a-list", lambda m: m.update(attributes=[])),
    ):
        yield _folder(f"store-{name}", "store", changed(five.content, group, change), REFUSED)
    pickle = changed(four.content, "0/.zarray", lambda m: m.update(filters=[{"id": "pickle", "protocol": 5}]))
    yield _folder("store-pickle-filter", "store", pickle, REFUSED)
    objects = changed(four.content, "0/.zarray", lambda m: m.update(dtype="|O"))
    yield _folder("store-objects-of-v2", "store", objects, REFUSED)
    yield _folder("store-json-deep", "store", {**five.content, group: b"[" * 200_000}, REFUSED)
    yield _folder("store-json-large", "store", {**five.content, group: b" " * (20 << 20)}, REFUSED)
    yield _folder("store-empty", "store", {"readme.txt": b""}, REFUSED)
    yield _folder("store-without-chunks", "store", {k: v for k, v in five.content.items() if "/c/" not in k}, REFUSED)

    def with_node(node: Callable[[Path], None]) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            _writer(five.content)(path)
            node(path)

        return make

    def deep(path: Path) -> None:
        for part in ["d"] * 1200:  # deeper than Python calls itself
            path = path / part
            path.mkdir()

    nodes: dict[str, Callable[[Path], None]] = {
        "link-outside": lambda path: (path / "0" / "c" / "9").symlink_to("/etc/hostname"),
        "link-to-folder": lambda path: (path / "0" / "c" / "9").symlink_to("/etc"),
        "link-loop": lambda path: (path / "0" / "c" / "9").symlink_to("9"),
        "pipe": lambda path: os.mkfifo(path / "0" / "c" / "9"),
        "deep": deep,
        "name-of-no-encoding": lambda path: Path(os.fsdecode(os.fsencode(path) + b"/0/\xff\xfe")).write_bytes(b""),
    }
    for name, node in nodes.items():
        allowed = EITHER if name in ("deep", "name-of-no-encoding") else REFUSED
        pixels = five.pixels
        yield Plan(
            f"store-{name}", "store", f"store-{name}.zarr", with_node(node), allowed, lambda pixels=pixels: pixels
        )

    def folder_for_chunk(path: Path) -> None:
        chunk = path / _damaged("zarr5")
        chunk.unlink()
        chunk.mkdir()

    file, right = "store-folder-for-a-chunk.zarr", five.pixels
    yield Plan(
        "store-folder-for-a-chunk", "store", file, with_node(folder_for_chunk), CHECKSUM, lambda: right, five.content
    )
    lost = {key: data for key, data in five.content.items() if key != _damaged("zarr5")}
    file = "store-lost-chunk.zarr"
    yield Plan("store-lost-chunk", "store", file, _writer(lost), CHECKSUM, lambda: right, five.content)
    yield _file("store-a-file", "store", ".zarr", b"PK\x03\x04", REFUSED)


def _dataset(metadata: Any) -> Any:
    return metadata["attributes"]["ome"]["multiscales"][0]["datasets"][0]


# -- bombs and impostors -----------------------------------------------------------------------------------------------


def _bombs() -> Iterator[Plan]:
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
            plan = _lie(f"{name}-{layout}", tags, EITHER, data=data, pixels=plane, kind="bomb")
            yield _renamed(plan, f"bomb-{name}-{layout}")
    rows = bombs.png_rows(plane[0])
    text = b"Comment\0\0" + bombs.deflate(2 * gib)
    profile = b"icc\0\0" + bombs.deflate(2 * gib)
    yield _file(
        "bomb-png-rows",
        "bomb",
        ".png",
        bombs.png(t.Y, t.X, bombs.deflate(2 * gib, bombs.filtered(plane[0]))),
        EITHER,
        plane,
    )
    yield _file("bomb-png-text", "bomb", ".png", bombs.png(t.Y, t.X, rows, (b"zTXt", text)), EITHER, plane)
    yield _file("bomb-png-profile", "bomb", ".png", bombs.png(t.Y, t.X, rows, (b"iCCP", profile)), EITHER, plane)
    many = [(b"tEXt", b"a\0" + b"b" * 10)] * 50_000
    yield _file("bomb-png-chunks", "bomb", ".png", bombs.png(t.Y, t.X, rows, *many), EITHER, plane)
    claims = bombs.png(60_000, 60_000, bombs.deflate(gib), colour=2)
    yield _file("bomb-png-claims-10-gb", "bomb", ".png", claims, REFUSED)
    # one row of the blob and its ground, then black: with the byte before each row a square of 16,384
    side = 16 * 1024
    whole = np.zeros((1, side, side - 1), np.uint8)
    whole[0, :1024] = np.tile(np.repeat(t.plane()[0], side)[: side - 1], (1024, 1))
    first = bombs.filtered(whole[0, :1024])
    blank = bombs.deflated_image(side * (side - 1024), first)
    yield _file("bomb-png-blank", "bomb", ".png", bombs.png(side, side - 1, blank), EITHER, whole)
    yield _file("bomb-png-short", "bomb", ".png", bombs.png(side + 1, side - 1, blank), REFUSED)
    jp2 = bombs.jp2_that_claims(14_000, 14_000, t.plane())
    yield _file("bomb-jp2-claims-14000", "bomb", ".jp2", jp2, REFUSED)
    jpeg = imagecodecs.jpeg_encode(np.ascontiguousarray(tissue(3)), level=90)
    yield _file("bomb-jpg-claims-65500", "bomb", ".jpg", bombs.jpeg_that_claims(65500, 65500, jpeg), REFUSED)
    for name, xml in (("entities", bombs.entities()), ("entities-flat", bombs.entities_flat())):
        plan = _text(name, xml, EITHER, kind="bomb")
        yield _renamed(plan, f"bomb-{name}")
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
        yield _folder(f"bomb-chunk-{name}", "bomb", content, REFUSED)


MARKER = "executed"
"""A file that would be written beside the folder of scans if a payload were executed."""


def _impostors() -> Iterator[Plan]:
    honest = sound("png").content[""]

    def write(content: Callable[[Path], bytes]) -> Callable[[Path], None]:
        return lambda path: path.write_bytes(content(path.parent.parent / MARKER)) and None

    for suffix in (".tif", ".png", ".jp2", ".czi"):
        name = f"bomb-pickle-{suffix[1:]}"
        yield Plan(name, "bomb", name + suffix, write(bombs.pickled), REFUSED)
    yield Plan("bomb-npy-tif", "bomb", "bomb-npy-tif.tif", write(bombs.npy_of_objects), REFUSED)
    for name, data in (("svg", bombs.SVG), ("html", bombs.HTML), ("zip", bombs.zipped("../../a.tif", honest))):
        for suffix in (".tif", ".png", ".jpg"):
            yield _file(f"bomb-{name}-{suffix[1:]}", "bomb", suffix, data, REFUSED)
    png = sound("png")
    yield _file("bomb-png-tif", "bomb", ".tif", honest, REFUSED)
    yield _file("bomb-png-jpg", "bomb", ".jpg", honest, EITHER, png.pixels)
    yield _file("bomb-tif-png", "bomb", ".png", sound("tif-raw-strips").content[""], REFUSED)
    yield _file("bomb-czi-header", "bomb", ".czi", b"ZISRAWFILE" + bytes(1000), REFUSED)


# -- names -------------------------------------------------------------------------------------------------------------

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


def _names() -> Iterator[Plan]:
    png = sound("png")
    content = _writer(png.content)
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
    _writer(sound("png").content)(outside / "secret.png")
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


# -- pixel sizes that lie ----------------------------------------------------------------------------------------------


def _resolution(kind: int, values: Sequence[float] | bytes, unit: int | None = 2) -> dict[int, Tag | None]:
    tag = Tag(kind, values)
    return {t.X_RESOLUTION: tag, t.Y_RESOLUTION: tag, t.UNIT: None if unit is None else Tag(SHORT, [unit])}


def _sizes() -> Iterator[Plan]:
    grey = t.plane()[None]
    tags: dict[str, dict[int, Tag | None]] = {
        "72dpi": _resolution(RATIONAL, [72, 1]),
        "0": _resolution(RATIONAL, [0, 1]),
        "by-0": _resolution(RATIONAL, [12700, 0]),
        "1": _resolution(RATIONAL, [1, 1]),
        "tiny": _resolution(RATIONAL, [2**32 - 1, 1]),
        "no-unit": _resolution(RATIONAL, [12700, 1], unit=1),
        "unit-77": _resolution(RATIONAL, [12700, 1], unit=77),
        "negative": _resolution(SRATIONAL, [-12700, 1]),
        "nan": _resolution(DOUBLE, [float("nan")]),
        "1e308": _resolution(DOUBLE, [1e308]),
        "text": _resolution(ASCII, b"12700\0"),
    }
    for name, changes in tags.items():
        for stated in (PIXEL_SIZE_UM, None):
            plan = _lie(
                name, changes, REFUSED if stated is None else EITHER, pixels=grey, pixel_size_um=stated, kind="size"
            )
            full = f"size-{name}" + ("-stated" if stated else "")
            yield _renamed(plan, full)
    texts = {
        "0": "0", "negative": "-2", "nan": "NaN", "infinite": "INF", "1e308": "1e308", "1e-308": "1e-308",
        "text": "two", "352": "352.8",
    }  # fmt: skip
    for name, value in texts.items():
        xml = _ome(f'PhysicalSizeX="{value}" PhysicalSizeY="{value}"')
        for stated in (PIXEL_SIZE_UM, None):
            plan = _text(name, xml, REFUSED if stated is None else READ, pixel_size_um=stated, kind="size")
            full = f"size-ome-{name}" + ("-stated" if stated else "")
            yield _renamed(plan, full)
    for name, more, stated in (
        ("not-square", 'PhysicalSizeX="2" PhysicalSizeY="3"', PIXEL_SIZE_UM),
        ("other", 'PhysicalSizeX="3" PhysicalSizeY="3"', PIXEL_SIZE_UM),
        ("parsec", 'PhysicalSizeX="2" PhysicalSizeXUnit="parsec"', None),
    ):
        plan = _text(name, _ome(more), REFUSED, pixel_size_um=stated, kind="size")
        yield _renamed(plan, f"size-ome-{name}")
    png = bombs.png(t.Y, t.X, bombs.png_rows(t.plane()), (b"pHYs", struct.pack(">IIB", 2835, 2835, 1)))
    yield _file("size-png-72dpi", "size", ".png", png, REFUSED, grey, pixel_size_um=None)
    five = sound("zarr5")
    for name, scale in (("0", 0), ("negative", -2.0), ("1e308", 1e308), ("nan", float("nan")), ("text", "two")):
        group = json.loads(five.content["zarr.json"])
        group["attributes"]["ome"]["multiscales"] = [multiscales(scale)]
        content = {**five.content, "zarr.json": json.dumps(group).encode()}
        yield _folder(f"size-ngff-{name}", "size", content, REFUSED, pixel_size_um=None)
    yield _folder("size-ngff", "size", five.content, READ, pixels=lambda: five.pixels, pixel_size_um=None)


# -- label images ------------------------------------------------------------------------------------------------------


def _labels() -> Iterator[Plan]:
    png = sound("png")
    height, width = png.pixels.shape[1:]
    good = np.zeros((height, width), np.uint8)
    good[20:90, 30:200] = 1
    palette = (b"PLTE", bytes(range(6)))

    def labelled(name: str, suffix: str, data: bytes | None, allowed: frozenset[Fate]) -> Plan:
        file = f"labels/{name}{suffix}"

        def make(path: Path) -> None:
            _writer(png.content)(path)
            labels = path.parent / file
            labels.parent.mkdir(exist_ok=True)
            if data is None:
                labels.mkdir()
            else:
                labels.write_bytes(data)

        scan = f"label-{name}"
        return Plan(scan, "label", f"{scan}.png", make, allowed, lambda: png.pixels, columns={"labels": file})

    yield labelled("good", ".png", bombs.png(height, width, bombs.png_rows(good)), READ)
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
