"""Arrays of OME-Zarr levels, opened once their metadata are known to be harmless."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.storage import LocalStore

from cytoarch.errors import ScanError
from cytoarch.images.planes import MAX_TILE_BYTES, check_dtype
from cytoarch.images.store_folders import Metadata, files_below, read_json

MAX_INNER_CHUNKS = 1 << 20
"""Most chunks of one shard: their index, 16 bytes for each, is read whole."""
MIN_CHUNK_PX = 1024
"""Fewest pixels of a chunk of a larger image: with less, one window is a million chunks."""

_V2_COMPRESSORS = ("blosc", "zstd", "zlib", "gzip", "lz4", "bz2", "lzma")
_V3_CODECS = ("bytes", "transpose", "blosc", "zstd", "gzip", "crc32c")
"""Codecs that give back what was written. Metadata can name any other, one that runs code (pickle) among them."""


def array_metadata(root: Path, level: Path) -> Metadata:
    """What the array of a level states. Raises ScanError if there is none."""
    for name in ("zarr.json", ".zarray"):
        if (level / name).is_file():
            return read_json(root, level / name)
    raise ScanError(f"{level}: holds no zarr.json and no .zarray; the array of the full resolution is missing")


def open_array(root: Path, level: Path) -> tuple[Any, Metadata]:
    """The array of a level and its metadata, once these are known to be harmless."""
    metadata = array_metadata(root, level)
    if (level / "zarr.json").is_file():
        dtype = _check_array(metadata["data_type"], metadata["shape"])
        grid = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        _check_v3_codecs(metadata["codecs"], grid, dtype.itemsize)
    else:
        dtype = _check_array(metadata["dtype"], metadata["shape"])
        compressor = metadata.get("compressor")
        name = None if compressor is None else compressor["id"]
        if metadata.get("filters") or name not in (None, *_V2_COMPRESSORS):
            raise ScanError(f"its chunks are encoded by {name} and filters; {', '.join(_V2_COMPRESSORS)} are read")
        _check_chunk_bytes(metadata["chunks"], dtype.itemsize)
    zarr_format: Literal[2, 3] = 3 if metadata["zarr_format"] == 3 else 2
    return zarr.open_array(LocalStore(level, read_only=True), mode="r", zarr_format=zarr_format), metadata


def _check_array(stated: object, shape: Sequence[int]) -> np.dtype[Any]:
    """The type of the pixels. Raises ScanError unless it is 8- or 16-bit unsigned and every axis has a length."""
    dtype: np.dtype[Any] = np.dtype(str(stated))
    check_dtype(dtype)
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise ScanError(f"its shape is {shape}; an image with pixels is needed")
    return dtype


def _check_chunk_bytes(chunk: Sequence[int], item_bytes: int) -> None:
    decoded = math.prod(chunk) * item_bytes
    if not 0 < decoded <= MAX_TILE_BYTES:
        raise ScanError(f"its chunks decode to {decoded} bytes each; at most {MAX_TILE_BYTES} can be read")


def _check_v3_codecs(codecs: Sequence[Metadata], grid: Sequence[int], item_bytes: int) -> None:
    """Refuse codecs not known, and chunks, or inner chunks of shards, that decode to too much."""
    if [codec["name"] for codec in codecs] == ["sharding_indexed"]:
        settings = codecs[0]["configuration"]
        inner = settings["chunk_shape"]
        if math.prod(-(-shard // chunk) for shard, chunk in zip(grid, inner, strict=True)) > MAX_INNER_CHUNKS:
            raise ScanError(f"its shards of {grid} hold more than {MAX_INNER_CHUNKS} chunks of {inner} each")
        grid, codecs = inner, [*settings["codecs"], *settings.get("index_codecs", [])]
    names = [codec["name"] for codec in codecs]
    if not set(names) <= set(_V3_CODECS):
        raise ScanError(f"its chunks are encoded by {', '.join(map(str, names))}; {', '.join(_V3_CODECS)} are read")
    _check_chunk_bytes(grid, item_bytes)


def check_chunk_area(chunk: Mapping[str, int], shape: tuple[int, int, int]) -> None:
    """Raise ScanError if the chunks (by axis) of a plane (c, y, x) are so small that there are millions of them."""
    _, h, w = shape
    if min(chunk["y"], h) * min(chunk["x"], w) < min(h * w, MIN_CHUNK_PX):
        raise ScanError(f"its chunks have {chunk['y']} x {chunk['x']} pixels; at least {MIN_CHUNK_PX} are needed")


def absent_chunks(
    root: Path, level: Path, metadata: Metadata, array: Any, picks: Sequence[int | None]
) -> tuple[str, ...]:
    """A remark that counts the chunks (or shards) of a plane that are absent; None in `picks` is a whole axis."""
    edges = array.shards or array.chunks
    spans = [
        range(-(-size // edge)) if pick is None else range(pick // edge, pick // edge + 1)
        for size, edge, pick in zip(array.shape, edges, picks, strict=True)
    ]
    expected = math.prod(map(len, spans))
    prefix, separator = _key_encoding(metadata)
    present = 0
    for file in files_below(level, root):
        key = file.relative_to(level).as_posix()
        at = key.removeprefix(prefix).split(separator)
        if key.startswith(prefix) and len(at) == len(spans) and all(one.isdecimal() for one in at):
            if not file.stat().st_size:
                raise ScanError(f"{key} of it is empty; the copy is incomplete, copy the store again")
            present += all(str(int(one)) == one and int(one) in span for one, span in zip(at, spans, strict=True))
    if not present:
        raise ScanError("none of its chunks are there; the copy is incomplete or nothing was ever written")
    if present == expected:
        return ()
    name = "shards" if array.shards else "chunks"
    return (f"{expected - present} of {expected} {name} are absent and read as {array.fill_value}",)


def _key_encoding(metadata: Metadata) -> tuple[str, str]:
    """What the keys of chunks begin with, and what separates their numbers."""
    if metadata["zarr_format"] == 2:
        return "", str(metadata.get("dimension_separator", "."))
    encoding = metadata["chunk_key_encoding"]
    default = encoding["name"] == "default"
    separator = str(encoding.get("configuration", {}).get("separator", "/" if default else "."))
    return (f"c{separator}" if default else ""), separator
