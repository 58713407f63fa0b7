"""What the `zarr.json` of a group or array states, as far as it is judged."""

import math
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict
from zarr.abc.codec import Codec
from zarr.codecs import Crc32cCodec, ShardingCodec, ZstdCodec
from zarr.core.metadata.v3 import ArrayV3Metadata

NUMBERS = "iuf"
"""Kinds of numpy types that pixels can have."""


class Header(BaseModel):
    """What the `zarr.json` of every group and array states."""

    model_config = ConfigDict(strict=True)

    zarr_format: Literal[3]
    node_type: Literal["group", "array"]
    attributes: dict[str, Any] = {}
    consolidated_metadata: Any = None


@dataclass(frozen=True)
class ArrayMetadata:
    """What an array states, as zarr reads it, and its files: a file is a shard, or a chunk where there are none."""

    stated: ArrayV3Metadata

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> "ArrayMetadata":
        """What a `zarr.json` states. Raises ValueError where zarr finds it to be no array."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of types that other readers may not know: they are judged as pixels
                array = cls(ArrayV3Metadata.from_dict(dict(metadata)))
                edges = *array.edges, *array.chunk
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, NotImplementedError) as error:
            raise ValueError(f"is no array that zarr opens ({short(f'{type(error).__name__}: {error}')})") from None
        if 0 in edges:
            raise ValueError(f"its chunk_shape is {[*array.edges]}, {[*array.chunk]}; positive edges are needed")
        return array

    @cached_property
    def shape(self) -> list[int]:
        """Its sizes along the axes."""
        return list(self.stated.shape)

    @cached_property
    def dimension_names(self) -> list[str | None] | None:
        """The names of its axes, if it has any."""
        return None if self.stated.dimension_names is None else list(self.stated.dimension_names)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The type of its values."""
        return np.dtype(self.stated.data_type.to_native_dtype())

    @cached_property
    def edges(self) -> tuple[int, ...]:
        """The shape of what a file holds."""
        return tuple(self.stated.shards or self.stated.chunks)

    @cached_property
    def chunk(self) -> tuple[int, ...]:
        """The shape of a chunk."""
        return tuple(self.stated.chunks)

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """How many files there are along each axis."""
        return tuple(-(-size // edge) for size, edge in zip(self.shape, self.edges, strict=True))

    @cached_property
    def size_range(self) -> tuple[int, int]:
        """Least and most bytes a file can have: no codec makes a chunk much larger than it is."""
        raw = math.prod(self.edges) * self.dtype.itemsize
        if self.stated.shards is None:
            return 1, raw + raw // 64 + 64
        chunks = math.prod(self.edges) // math.prod(self.chunk)
        index = 16 * chunks + 4  # offset and length of every chunk, and a crc32c
        return index + 1, index + raw + raw // 64 + 64 * chunks

    def key(self, place: Sequence[int]) -> str:
        """The key of the file at a place of the grid."""
        return self.stated.encode_chunk_key(tuple(place))

    def place(self, key: str) -> tuple[int, ...] | None:
        """The place in the grid of the file at a key; None if the array has no such key."""
        numbers = re.findall(r"\d+", key, re.ASCII)
        place = tuple(int(number) for number in numbers[: len(self.grid)])
        inside = len(place) == len(self.grid) and all(at < size for at, size in zip(place, self.grid, strict=True))
        return place if inside and self.key(place) == key else None

    def first_missing(self, found: Collection[tuple[int, ...]]) -> str:
        """The first key whose place was not found; at least one must be missing."""
        for number in count():  # the grid is never listed: a damaged shape can make it endless
            place: list[int] = []
            rest = number
            for size in reversed(self.grid):
                rest, at = divmod(rest, size)
                place.insert(0, at)
            if tuple(place) not in found:
                break
        return self.key(place)


def _is_checked(codecs: Sequence[Codec]) -> bool:
    """Whether a flipped bit in a file is an error on reading."""
    for codec in codecs:
        if isinstance(codec, Crc32cCodec) or (isinstance(codec, ZstdCodec) and codec.checksum):
            return True
        if isinstance(codec, ShardingCodec):
            return _is_checked(codec.codecs) and any(isinstance(one, Crc32cCodec) for one in codec.index_codecs)
    return False


def pixel_faults(key: str, array: ArrayMetadata) -> Iterator[str]:
    """What only arrays of images must be: numbers, guarded by checksums."""
    if array.dtype.kind not in NUMBERS:
        yield f"{key}: data_type is {array.dtype}; an integer or float type is needed"
        return
    if not array.shape or 0 in array.shape:
        yield f"{key}: shape is {array.shape}; an image has pixels"
    if not _is_checked(array.stated.codecs):
        names = [type(codec).__name__ for codec in array.stated.codecs]
        yield f"{key}: codecs {names} have no checksum; crc32c, or zstd with its checksum, is needed in every chunk"


def json_number(text: str) -> int:
    """An integer in a JSON text. Raises ValueError for NaN and Infinity, and for more digits than 64 bits have."""
    if len(text) > 20 or not text.lstrip("-").isdigit():  # the second: NaN and Infinity
        raise ValueError(f"{short(text)} is no number of JSON, or too large")
    return int(text)


def short(value: object) -> str:
    """A value as text of one line, cut to 160 characters."""
    text = " ".join((value if isinstance(value, str) else repr(value)).split())
    return text if len(text) <= 160 else f"{text[:157]}..."
