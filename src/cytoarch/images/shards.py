"""Whole shards as bytes: Zarr v3's sharding codec for one writer that has the whole shard in hand.

zarr-python assembles a shard chunk by chunk through its event loop, which takes longer than compressing it. What is
written here any reader of the specification decodes: chunks in C order, then an index of (offset, length) and its
crc32c.
"""

from collections.abc import Iterator
from typing import Any, Literal

import google_crc32c
import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

Array = NDArray[Any]
Codec = Literal["zstd", "lz4"]

CLEVELS: dict[str, int] = {"zstd": 1, "lz4": 5}
CRC_BYTES = 4
ABSENT = 2**64 - 1
"""Offset and length of a chunk that is not there."""


def encode_shard(
    block: Array, shard: tuple[int, ...], chunk: tuple[int, ...], codec: Codec, fill: float
) -> Iterator[bytes]:
    """The file of a shard, part by part. `block` is what it holds, smaller than a shard at the edge of the array.

    `shard` and `chunk` are shapes of as many axes as the block; chunks are compressed by Blosc with bitshuffle and
    carry a crc32c, as `pyramids` states in the arrays' metadata. Chunks that begin beyond the block are left out.
    """
    compressor = Blosc(cname=codec, clevel=CLEVELS[codec], shuffle=Blosc.BITSHUFFLE)
    little = block.dtype.newbyteorder("<")
    empty: bytes | None = None
    filled = _Filled(np.array(fill, dtype=block.dtype))
    index: list[tuple[int, int]] = []
    offset = 0
    for content in _chunks(block, shard, chunk, fill):
        if not content.size:
            index.append((ABSENT, ABSENT))
            continue
        if not filled.is_all_of(content):
            data = compressor.encode(np.asarray(content, dtype=little))
        else:
            empty = empty or compressor.encode(np.full(chunk, fill, dtype=little))
            data = empty
        yield data
        yield _crc32c(data)
        index.append((offset, len(data) + CRC_BYTES))
        offset += len(data) + CRC_BYTES
    table = np.array(index, dtype="<u8").tobytes()
    yield table
    yield _crc32c(table)


class _Filled:
    """Tells chunks that hold nothing but the fill value, eight bytes at a time."""

    def __init__(self, fill: Array) -> None:
        self._value = fill.tobytes()
        self._eight = np.frombuffer(self._value * (8 // len(self._value)), dtype=np.uint64)

    def is_all_of(self, content: Array) -> bool:
        """Whether every value of a contiguous chunk has the bits of the fill value."""
        if content.ravel()[:1].tobytes() != self._value:
            return False
        if content.nbytes % 8:
            return content.tobytes() == self._value * content.size
        return bool((content.reshape(-1).view(np.uint64) == self._eight).all())


def _crc32c(data: bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(CRC_BYTES, "little")


def _chunks(block: Array, shard: tuple[int, ...], chunk: tuple[int, ...], fill: float) -> Iterator[Array]:
    """Every chunk of a shard in C order, whole and contiguous; empty arrays for those that begin beyond the block."""
    for place in np.ndindex(*(a // b for a, b in zip(shard, chunk, strict=True))):
        starts = [at * edge for at, edge in zip(place, chunk, strict=True)]
        part = block[tuple(slice(start, start + edge) for start, edge in zip(starts, chunk, strict=True))]
        if part.size and part.shape != chunk:
            whole = np.full(chunk, fill, dtype=block.dtype)
            whole[tuple(slice(size) for size in part.shape)] = part
            part = whole
        yield np.ascontiguousarray(part)
