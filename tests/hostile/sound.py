"""Undamaged files of every encoding, as bytes, with the pixels that are right: what the corpus damages."""

import io
import json
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore

try:
    from pylibCZIrw import czi
except ImportError:  # an optional extra
    czi = None

Array = NDArray[Any]
Content = Mapping[str, bytes]
"""Files by their name below a folder; a single file has the name ""."""

H, W = 230, 310
PIXEL_SIZE_UM = 2.0
"""What the manifest states of every scan that is not about sizes."""


class Sound(NamedTuple):
    """An undamaged scan."""

    suffix: str
    content: Content
    pixels: Array
    """(c, y, x)"""


def tissue(*channels: int, dtype: str = "uint8") -> Array:
    """A stained blob on a pale slide (y, x, c) with the noise of a camera."""
    rng = np.random.default_rng(len(channels) + np.dtype(dtype).itemsize)
    y, x = np.mgrid[:H, :W]
    stain = np.exp(-((y - H / 2) ** 2 / 5000 + (x - W / 2) ** 2 / 9000))
    plane = 220 - 120 * stain + 8 * np.sin(y / 9) * np.cos(x / 13)
    noisy = plane[..., None] + rng.normal(0, 6, (H, W, *(channels or (1,))))
    top = np.iinfo(dtype).max
    pixels: Array = (np.clip(noisy, 0, 255) * (top / 255)).astype(dtype)
    return pixels if channels else pixels[..., 0]


def channels_first(pixels: Array) -> Array:
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def tiff_bytes(pixels: Array, **options: Any) -> bytes:
    file = io.BytesIO()
    photometric = "rgb" if pixels.ndim == 3 else "minisblack"
    tifffile.imwrite(file, pixels, **{"metadata": None, "photometric": photometric, **options})
    return file.getvalue()


def _tiff(pixels: Array, **options: Any) -> Sound:
    data = tiff_bytes(pixels, **options)
    # of lossy encodings the reference decoder says what is right
    return Sound(".tif", {"": data}, channels_first(tifffile.imread(io.BytesIO(data))))


def _pillow(pixels: Array, suffix: str, **options: Any) -> Sound:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG" if suffix == ".jpg" else "PNG", **options)
    return Sound(suffix, {"": file.getvalue()}, channels_first(np.asarray(Image.open(file))))


def _jp2(pixels: Array) -> Sound:
    return Sound(".jp2", {"": imagecodecs.jpeg2k_encode(pixels, codecformat="jp2", reversible=True)}, pixels[None])


def multiscales(scale: object = PIXEL_SIZE_UM, version: str | None = None) -> dict[str, Any]:
    """The attributes of an image with axes c, y, x; `scale` is that of y and x."""
    space = {"type": "space", "unit": "micrometer"}
    return {
        **({"version": version} if version else {}),
        "axes": [{"name": "c", "type": "channel"}, {"name": "y", **space}, {"name": "x", **space}],
        "datasets": [
            {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, scale, scale]}]},
        ],
    }


def zarr_5(pixels: Array, codecs: Any, shards: tuple[int, ...] | None = None) -> Content:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        zarr.create_array(
            LocalStore(root / "0"),
            data=pixels,
            chunks=(1, 64, 64),
            shards=shards,
            compressors=codecs,
            zarr_format=3,
            config={"write_empty_chunks": True},
        )
        ome = {"version": "0.5", "multiscales": [multiscales()]}
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
        (root / "zarr.json").write_text(json.dumps(group))
        return files_below(root)


def zarr_4(pixels: Array) -> Content:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        zarr.create_array(
            LocalStore(root / "0"),
            data=pixels,
            chunks=(1, 64, 64),
            compressors={"id": "zlib", "level": 1},
            zarr_format=2,
            chunk_key_encoding={"name": "v2", "separator": "/"},
            config={"write_empty_chunks": True},
        )
        (root / ".zgroup").write_text('{"zarr_format": 2}')
        (root / ".zattrs").write_text(json.dumps({"multiscales": [multiscales(version="0.4")]}))
        return files_below(root)


def files_below(root: Path) -> Content:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def _czi() -> Sound:
    pixels = tissue(dtype="uint16")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.czi"
        with czi.create_czi(str(path), compression_options="zstd1:ExplicitLevel=1;PreProcess=HiLoByteUnpack") as file:
            for y, x in ((0, 0), (0, 160), (120, 0), (120, 160)):
                tile = pixels[y : min(y + 120, H), x : min(x + 160, W)]
                assert file.write(np.ascontiguousarray(tile)[..., None], location=(x, y))
            file.write_metadata(scale_x=PIXEL_SIZE_UM * 1e-6, scale_y=PIXEL_SIZE_UM * 1e-6)
        return Sound(".czi", {"": path.read_bytes()}, pixels[None])


TILES: dict[str, Any] = {"tile": (64, 64)}
STRIPS: dict[str, Any] = {"rowsperstrip": 32}

_SOUND: dict[str, Callable[[], Sound]] = {
    "tif-raw-tiles": lambda: _tiff(tissue(dtype="uint16"), **TILES),
    "tif-raw-strips": lambda: _tiff(tissue(3), **STRIPS),
    "tif-deflate-tiles": lambda: _tiff(tissue(3), compression="zlib", **TILES),
    "tif-deflate-strips": lambda: _tiff(tissue(), compression="zlib", predictor=True, **STRIPS),
    "tif-lzw-tiles": lambda: _tiff(tissue(3), compression="lzw", **TILES),
    "tif-lzw-strips": lambda: _tiff(tissue(dtype="uint16"), compression="lzw", **STRIPS),
    "tif-jpeg-tiles": lambda: _tiff(tissue(3), compression="jpeg", **TILES),
    "tif-jpeg-strips": lambda: _tiff(tissue(), compression="jpeg", **STRIPS),
    "tif-jp2k-tiles": lambda: _tiff(tissue(), compression="jpeg2000", **TILES),
    "tif-zstd-tiles": lambda: _tiff(tissue(), compression="zstd", **TILES),
    "tif-zstd-strips": lambda: _tiff(tissue(3), compression="zstd", **STRIPS),
    "png": lambda: _pillow(tissue(3), ".png"),
    "jpg": lambda: _pillow(tissue(3), ".jpg", quality=92),
    "jp2": lambda: _jp2(tissue()),
    "zarr4": lambda: Sound(".zarr", zarr_4(channels_first(tissue(3))), channels_first(tissue(3))),
    "zarr5": lambda: Sound(".zarr", zarr_5(tissue()[None], BloscCodec(cname="zstd")), tissue()[None]),
    "zarr5-sharded": lambda: Sound(
        ".zarr", zarr_5(tissue()[None], [ZstdCodec(checksum=True), Crc32cCodec()], (1, 128, 192)), tissue()[None]
    ),
    **({"czi": _czi} if czi is not None else {}),
}
ENCODINGS = tuple(_SOUND)


@cache
def sound(encoding: str) -> Sound:
    """The undamaged scan of an encoding."""
    return _SOUND[encoding]()
