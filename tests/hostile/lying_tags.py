"""TIFFs whose tags, tiles and descriptions do not tell what is there."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from tests.hostile import bombs
from tests.hostile import tiffs as t
from tests.hostile.plans import CHECKSUM, EITHER, READ, REFUSED, Fate, Plan, file_of, lying_tiff
from tests.hostile.tiffs import ASCII, LONG, SHORT, SLONG, Tag


def tag_plans() -> Iterator[Plan]:
    plane = t.plane()
    grey = plane[None]
    yield lying_tiff("nothing", {}, READ, pixels=grey)
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
        yield lying_tiff(name, {**sizes, **bits, **photometric}, EITHER if samples == 0 else REFUSED, pixels=grey)
    for missing in (t.WIDTH, t.HEIGHT, t.OFFSETS, t.COUNTS):
        yield lying_tiff(f"without-{missing}", {missing: None}, EITHER, pixels=grey)
    for bits in (1, 12, 32, 64):
        yield lying_tiff(f"bits-{bits}", {t.BITS: Tag(SHORT, [bits])})
    nibbles = np.stack([plane >> 4, plane & 15], axis=-1).ravel()[: plane.size].reshape(grey.shape)
    yield lying_tiff("bits-4", {t.BITS: Tag(SHORT, [4])}, EITHER, pixels=nibbles)
    wide = grey.astype(np.uint16) << 4
    high, low = wide.ravel()[0::2].astype(np.uint32), wide.ravel()[1::2].astype(np.uint32)
    packed = np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], axis=-1).astype(np.uint8).tobytes()
    yield lying_tiff("bits-12-whole", {t.BITS: Tag(SHORT, [12])}, EITHER, data=packed, pixels=wide)
    yield lying_tiff("one-grey", {}, EITHER, data=bytes([200]) * plane.size, pixels=np.full_like(grey, 200))
    line = np.tile(grey[:, :1], (1, 1, 100))
    for name, strange in (("row", line), ("column", line.transpose(0, 2, 1)), ("channels", np.repeat(grey, 64, 0))):
        c, y, x = strange.shape
        shape = {t.HEIGHT: Tag(LONG, [y]), t.WIDTH: Tag(LONG, [x]), t.ROWS: Tag(LONG, [y])}
        samples = {t.SAMPLES: Tag(SHORT, [c]), t.BITS: Tag(SHORT, [8] * c)}
        data = np.moveaxis(strange, 0, -1).tobytes()
        yield lying_tiff(f"strange-{name}", {**shape, **samples}, READ, data=data, pixels=strange)
    yield lying_tiff("bits-mixed", {t.BITS: Tag(SHORT, [8, 16, 8]), t.SAMPLES: Tag(SHORT, [3])})
    yield lying_tiff("bits-16-half-the-data", {t.BITS: Tag(SHORT, [16])})
    half = plane >> 1
    for name, kind in (("int8", 2), ("float16", 3), ("float32", 3), ("complex64", 6)):
        tags = {t.SAMPLE_FORMAT: Tag(SHORT, [kind]), t.BITS: Tag(SHORT, [8 * np.dtype(name).itemsize])}
        fate = REFUSED if name == "complex64" else READ
        right = half.astype(np.uint16).reshape(grey.shape)
        yield lying_tiff(name, tags, fate, data=half.astype(name).tobytes(), pixels=right)
        broken = b"\xff" * half.astype(name).nbytes  # -1, or not a number
        yield lying_tiff(f"{name}-broken", tags, data=broken)
    for name, photometric in (("cmyk", 5), ("lab", 8), ("mask", 4), ("nonsense", 4711)):
        yield lying_tiff(f"photometric-{name}", {t.PHOTOMETRIC: Tag(SHORT, [photometric])})
    yield lying_tiff("photometric-rgb", {t.PHOTOMETRIC: Tag(SHORT, [2])}, EITHER, pixels=grey)
    yield lying_tiff("photometric-white-is-0", {t.PHOTOMETRIC: Tag(SHORT, [0])}, READ, pixels=255 - grey)
    palette = {t.PHOTOMETRIC: Tag(SHORT, [3]), t.COLOUR_MAP: Tag(SHORT, list(range(768)))}
    yield lying_tiff("palette", palette)
    yield lying_tiff("ycbcr", {t.PHOTOMETRIC: Tag(SHORT, [6]), t.SAMPLES: Tag(SHORT, [3])}, data=bytes(3 * plane.size))
    for value in (0, 9, 65535):
        yield lying_tiff(f"orientation-{value}", {t.ORIENTATION: Tag(SHORT, [value])})
    yield lying_tiff("orientation-text", {t.ORIENTATION: Tag(ASCII, b"up\0")})
    yield lying_tiff("orientation-3", {t.ORIENTATION: Tag(SHORT, [3])}, READ, pixels=grey[:, ::-1, ::-1])
    compressions = {"ccitt": 4, "lzw": 5, "jpeg": 7, "deflate": 8, "packbits": 32773, "jp2k": 34712, "zstd": 50000}
    for name, number in {**compressions, "webp": 50001, "unknown": 65000}.items():
        yield lying_tiff(f"compression-{name}", {t.COMPRESSION: Tag(SHORT, [number])})
    for value, right in ((2, np.cumsum(grey, axis=2, dtype=np.uint8)), (3, grey), (99, grey)):
        yield lying_tiff(f"predictor-{value}", {t.PREDICTOR: Tag(SHORT, [value])}, EITHER, pixels=right)
    three = {t.SAMPLES: Tag(SHORT, [3]), t.BITS: Tag(SHORT, [8, 8, 8]), t.PHOTOMETRIC: Tag(SHORT, [2])}
    yield lying_tiff("planes-missing", {**three, t.PLANAR: Tag(SHORT, [2])})
    yield lying_tiff("planar-9", {t.PLANAR: Tag(SHORT, [9])}, EITHER, pixels=grey)


def segment_plans() -> Iterator[Plan]:
    plane = t.plane()
    grey, size = plane[None], plane.size
    for name, kind, value in (
        ("0", LONG, 0), ("beyond-the-end", LONG, size + 10_000), ("2e32", LONG, 2**32 - 1), ("negative", SLONG, -1),
        ("half", LONG, size // 2),
    ):  # fmt: skip
        yield lying_tiff(f"count-{name}", {t.COUNTS: Tag(kind, [value])})
    each = size // 4
    yield lying_tiff("strips", {}, READ, strips=4, pixels=grey)
    yield lying_tiff("count-of-one-strip-0", {t.COUNTS: Tag(LONG, [each, 0, each, each])}, strips=4)
    yield lying_tiff(
        "counts-uneven", {t.COUNTS: Tag(LONG, [2 * each, 1, each - 1, each])}, EITHER, strips=4, pixels=grey
    )
    overlapping = {t.OFFSETS: Tag(LONG, [t.PIXELS_AT] * 4)}
    yield lying_tiff("overlap", overlapping, EITHER, strips=4, pixels=np.tile(grey[:, :6], (1, 4, 1)))
    everything = {t.OFFSETS: Tag(LONG, [t.PIXELS_AT] * 4), t.COUNTS: Tag(LONG, [size] * 4)}
    yield lying_tiff("overlap-whole", everything, strips=4)
    yield lying_tiff("offset-beyond-the-end", {t.OFFSETS: Tag(LONG, [2**31])})
    yield lying_tiff("offset-negative", {t.OFFSETS: Tag(SLONG, [-8])})
    itself = t.tiff(plane.tobytes(), {**t.honest(size), t.OFFSETS: Tag(LONG, [1])})
    start = np.frombuffer(itself[1 : 1 + size], np.uint8).reshape(1, t.Y, t.X)
    yield file_of("lie-offset-to-the-header", "lie", ".tif", itself, EITHER, start)
    yield lying_tiff("rows-0", {t.ROWS: Tag(LONG, [0])}, EITHER, pixels=grey)
    yield lying_tiff("rows-2e32", {t.ROWS: Tag(LONG, [2**32 - 1])}, READ, pixels=grey)
    yield lying_tiff("rows-1-of-24-strips", {t.ROWS: Tag(LONG, [1])})
    for name, tag in (("offsets", t.OFFSETS), ("description", t.DESCRIPTION), ("profile", t.ICC_PROFILE)):
        allowed = REFUSED if tag == t.OFFSETS else EITHER
        lie = Tag(LONG if tag == t.OFFSETS else ASCII, b"abcd", count=0x3FFFFFFF, at=8)
        yield lying_tiff("tag-count" if tag == t.OFFSETS else f"tag-count-{name}", {tag: lie}, allowed, pixels=grey)
    yield lying_tiff("tag-kind-99", {t.WIDTH: Tag(99, b"\1\0\0\0", count=1)})
    yield lying_tiff("width-of-two-values", {t.WIDTH: Tag(SHORT, [t.X, t.X])}, EITHER, pixels=grey)
    no_strips: dict[int, Tag | None] = {t.OFFSETS: None, t.COUNTS: None, t.ROWS: None}
    padded = np.zeros((64, 64), np.uint8)
    padded[: t.Y, : t.X] = plane
    tile = {**no_strips, **t.tiled(4096)}
    yield lying_tiff("tile", tile, READ, data=padded.tobytes(), pixels=grey)
    for name, width, height in (("2e31", 2**31, 2**31), ("thin", 2**31, 16), ("0", 0, 64), ("00", 0, 0), ("1", 1, 1)):
        edges = {t.TILE_WIDTH: Tag(LONG, [width]), t.TILE_HEIGHT: Tag(LONG, [height])}
        yield lying_tiff(f"tile-{name}", {**tile, **edges}, data=padded.tobytes())
    none = {t.TILE_OFFSETS: Tag(LONG, b"", count=0), t.TILE_COUNTS: Tag(LONG, b"", count=0)}
    yield lying_tiff("no-tiles", {**tile, **none}, data=padded.tobytes())
    both = {**tile, t.OFFSETS: Tag(LONG, [8]), t.COUNTS: Tag(LONG, [4096]), t.ROWS: Tag(LONG, [t.Y])}
    yield lying_tiff("tiles-and-strips", both, CHECKSUM, data=padded.tobytes(), pixels=grey)
    honest = t.tiff(plane.tobytes(), t.honest(size))
    page = t.page_offset(honest)
    loop = t.tiff(plane.tobytes(), t.honest(size), next_page=page)
    yield file_of("lie-page-loop", "lie", ".tif", loop, EITHER, grey)
    yield lying_tiff("sub-page-loop", {t.SUB_IFDS: Tag(LONG, [page, page])}, EITHER, pixels=grey)
    yield lying_tiff("next-page-beyond-the-end", {}, EITHER, pixels=grey)
    yield file_of("lie-many-pages", "lie", ".tif", t.chain(30_000), REFUSED)
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
        yield file_of(f"lie-{name}", "lie", ".tif", data, REFUSED)
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
        yield lying_tiff(f"jpeg-tile-{name}", changes, data=bytes(data))
    claims = bombs.jp2_that_claims(30_000, 30_000, padded)
    claims = claims[claims.index(b"\xff\x4f\xff\x51") :]
    jp2k = {**no_strips, **t.tiled(len(claims)), t.COMPRESSION: Tag(SHORT, [34712])}
    yield lying_tiff("jp2k-tile-claims-30000", jp2k, data=claims)


OME = '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" {}>{}</OME>'


PIXELS = (
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="{x}" SizeY="{y}" SizeZ="{z}"'
    ' SizeC="{c}" SizeT="1" {more}><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image>'
)


def ome_xml(more: str = "", data: str = "<TiffData/>", **sizes: int) -> str:
    return OME.format("", PIXELS.format(**{"x": t.X, "y": t.Y, "z": 1, "c": 1, **sizes}, more=more, data=data))


def described_tiff(name: str, description: str, allowed: frozenset[Fate] = REFUSED, **more: Any) -> Plan:
    description_tag = Tag(ASCII, description.encode() + b"\0")
    return lying_tiff(name, {t.DESCRIPTION: description_tag}, allowed, **{"pixels": t.plane()[None], **more})


def text_plans() -> Iterator[Plan]:
    yield described_tiff("ome", ome_xml(), READ)
    yield described_tiff("ome-larger", ome_xml(x=100_000, y=100_000), EITHER)
    yield described_tiff("ome-deeper", ome_xml(z=1_000_000), EITHER)
    yield described_tiff("ome-without-sizes", OME.format("", '<Image><Pixels DimensionOrder="XYZCT"/></Image>'), EITHER)
    yield described_tiff("ome-nested", OME.format("", "<a>" * 50_000 + "</a>" * 50_000), EITHER)
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
    yield described_tiff("imagej-many", "ImageJ=1.53\nimages=100000000\nslices=100000000\n", EITHER)
    yield described_tiff("shaped-larger", json.dumps({"shape": [100_000, 100_000]}), EITHER)
    yield described_tiff("shaped-negative", json.dumps({"shape": [-1, t.Y, t.X]}), EITHER)
    yield described_tiff("mpp-of-two-dots", "Aperio Image Library v1\n|AppMag = 20|MPP = 0.5.1|", EITHER)
    yield described_tiff(
        "text-of-no-encoding", "\udcff".encode("utf-8", "surrogateescape").decode("latin-1") * 9, EITHER
    )
