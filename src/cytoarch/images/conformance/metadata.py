"""What the `zarr.json` of a group or array states, as far as it is judged."""

import math
import re
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import count
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

_NUMBERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
_PositiveInt = Annotated[int, Field(gt=0)]


class _Metadata(BaseModel):
    """Part of a `zarr.json`; what is not named here is left to zarr."""

    model_config = ConfigDict(strict=True)


class Header(_Metadata):
    """What every group and array states."""

    zarr_format: Literal[3]
    node_type: Literal["group", "array"]
    attributes: dict[str, Any] = {}
    consolidated_metadata: Any = None


class _Codec(_Metadata):
    name: str
    configuration: dict[str, Any] = {}


class _Chunks(_Metadata):
    chunk_shape: list[_PositiveInt]


class _Sharding(_Chunks):
    codecs: list[_Codec]
    index_codecs: list[_Codec]


class _Grid(_Metadata):
    name: Literal["regular"]
    configuration: _Chunks


class _Keys(_Metadata):
    name: Literal["default", "v2"]
    configuration: dict[Literal["separator"], Literal["/", "."]] = {}


class ArrayMetadata(_Metadata):
    """What an array states about its shape and its files; a file is a shard, or a chunk where there are no shards."""

    shape: list[Annotated[int, Field(ge=0)]]
    data_type: Any
    chunk_grid: _Grid
    chunk_key_encoding: _Keys
    codecs: list[_Codec]
    fill_value: Any
    dimension_names: list[str | None] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        edges = self.chunk_grid.configuration.chunk_shape
        inner = self.sharding.chunk_shape if self.sharding else edges
        if not len(self.shape) == len(edges) == len(inner) or any(a % b for a, b in zip(edges, inner, strict=True)):
            raise ValueError(f"shape {self.shape}, chunk_shape {edges} and that within shards {inner} do not fit")
        return self

    @cached_property
    def sharding(self) -> _Sharding | None:
        """How a file is divided into chunks, if it is."""
        first = self.codecs[0] if self.codecs else None
        return _Sharding.model_validate(first.configuration) if first and first.name == "sharding_indexed" else None

    @cached_property
    def dtype(self) -> "np.dtype[Any] | None":
        """The type of its values, if these are numbers."""
        return np.dtype(self.data_type) if self.data_type in _NUMBERS else None

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """How many files there are along each axis."""
        edges = self.chunk_grid.configuration.chunk_shape
        return tuple(-(-size // edge) for size, edge in zip(self.shape, edges, strict=True))

    @cached_property
    def separator(self) -> str:
        """What stands between the numbers of a key."""
        keys = self.chunk_key_encoding
        return keys.configuration.get("separator", "/" if keys.name == "default" else ".")

    @property
    def size_range(self) -> tuple[int, int] | None:
        """Least and most bytes a file can have: no codec makes a chunk much larger than it is."""
        if self.dtype is None:
            return None
        edges = self.chunk_grid.configuration.chunk_shape
        raw = math.prod(edges) * self.dtype.itemsize
        if self.sharding is None:
            return 1, raw + raw // 64 + 64
        chunks = math.prod(edges) // math.prod(self.sharding.chunk_shape)
        index = 16 * chunks + 4  # offset and length of every chunk, and a crc32c
        return index + 1, index + raw + raw // 64 + 64 * chunks

    def key(self, place: Sequence[int]) -> str:
        """The key of the file at a place of the grid."""
        numbers = [str(at) for at in place]
        parts = ["c", *numbers] if self.chunk_key_encoding.name == "default" else numbers or ["0"]
        return self.separator.join(parts)

    def place(self, key: str) -> tuple[int, ...] | None:
        """The place in the grid of the file at a key; None if the array has no such key."""
        numbers = re.findall(r"\d+", key, re.ASCII)
        place = tuple(int(number) for number in numbers[: len(self.grid)])
        inside = len(place) == len(self.grid) and all(at < size for at, size in zip(place, self.grid, strict=True))
        return place if inside and self.key(place) == key else None

    def first_missing(self, found: Collection[tuple[int, ...]]) -> str:
        """The first key that is not among the places found, of which there are fewer than keys."""
        for number in count():  # the grid is never listed: a damaged shape can make it endless
            place: list[int] = []
            rest = number
            for size in reversed(self.grid):
                rest, at = divmod(rest, size)
                place.insert(0, at)
            if tuple(place) not in found:
                break
        return self.key(place)


def _is_checked(codecs: Sequence[_Codec]) -> bool:
    """Whether a flipped bit in a file is an error on reading."""
    for codec in codecs:
        if codec.name == "crc32c" or (codec.name == "zstd" and codec.configuration.get("checksum") is True):
            return True
        if codec.name == "sharding_indexed":
            inner = _Sharding.model_validate(codec.configuration)
            return _is_checked(inner.codecs) and any(one.name == "crc32c" for one in inner.index_codecs)
    return False


def pixel_faults(key: str, array: ArrayMetadata) -> Iterator[str]:
    """What only arrays of images must be: numbers, guarded by checksums."""
    dtype, fill = array.dtype, array.fill_value
    if dtype is None:
        yield f"{key}: data_type is {short(array.data_type)}; an integer or float type is needed"
        return
    if not array.shape or 0 in array.shape:
        yield f"{key}: shape is {array.shape}; an image has pixels"
    if not _is_checked(array.codecs):
        names = [codec.name for codec in array.codecs]
        yield f"{key}: codecs {names} have no checksum; crc32c, or zstd with its checksum, is needed in every chunk"
    if dtype.kind == "f":
        fits = isinstance(fill, int | float | str) and not isinstance(fill, bool)
    else:
        fits = type(fill) is int and np.iinfo(dtype).min <= fill <= np.iinfo(dtype).max
    if not fits:
        yield f"{key}: fill_value {short(fill)} is no {dtype}; a value of the array's type is needed"


def json_number(text: str) -> int:
    """An integer of JSON. Raises ValueError for what JSON has not, and for more digits than 64 bits have."""
    if len(text) > 20 or not text.lstrip("-").isdigit():  # the second: NaN and Infinity
        raise ValueError(f"{short(text)} is no number of JSON, or too large")
    return int(text)


def short(value: object) -> str:
    """A value as text of one line, cut to 160 characters."""
    text = " ".join((value if isinstance(value, str) else repr(value)).split())
    return text if len(text) <= 160 else f"{text[:157]}..."
