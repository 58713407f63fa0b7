"""Shards that are written whole are those of the specification, as zarr-python reads and writes them."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from cytoarch.images.shards import ABSENT, CLEVELS, CRC_BYTES, encode_shard

Array = NDArray[Any]


class Layout(NamedTuple):
    """An array in shards of `shard` made of chunks of `chunk`, all axes from the left."""

    shape: tuple[int, ...]
    shard: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: str
    fill: float
    codec: Any


def created(folder: Path, layout: Layout) -> "zarr.Array[Any]":
    """The array as `pyramids` makes it."""
    return zarr.create_array(
        store=folder,
        shape=layout.shape,
        dtype=layout.dtype,
        chunks=layout.chunk,
        shards=layout.shard,
        compressors=(BloscCodec(cname=layout.codec, clevel=CLEVELS[layout.codec], shuffle="bitshuffle"), Crc32cCodec()),
        fill_value=layout.fill,
        config={"write_empty_chunks": True},
    )


def grid(layout: Layout) -> list[tuple[int, ...]]:
    return list(np.ndindex(*(-(-size // edge) for size, edge in zip(layout.shape, layout.shard, strict=True))))


def file_of(folder: Path, place: tuple[int, ...]) -> Path:
    return folder.joinpath("c", *map(str, place))


def written(folder: Path, layout: Layout, pixels: Array) -> "zarr.Array[Any]":
    """The array with all its shards written by us."""
    array = created(folder, layout)
    for place in grid(layout):
        starts = [at * edge for at, edge in zip(place, layout.shard, strict=True)]
        block = pixels[tuple(slice(start, start + e) for start, e in zip(starts, layout.shard, strict=True))]
        parts = encode_shard(block, layout.shard, layout.chunk, layout.codec, layout.fill)
        file = file_of(folder, place)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"".join(parts))
    return array


def payloads(file: Path, layout: Layout) -> list[bytes | None]:
    """What lies in every chunk of a shard, in C order, as its index says; None where there is none."""
    content = file.read_bytes()
    count = int(np.prod([a // b for a, b in zip(layout.shard, layout.chunk, strict=True)]))
    index = np.frombuffer(content[-16 * count - CRC_BYTES : -CRC_BYTES], dtype="<u8").reshape(count, 2)
    return [None if at == ABSENT else content[at : at + length] for at, length in index.tolist()]


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Layout, Array]:
    """A layout, and pixels of which some chunks hold nothing but the fill value."""
    dtype = draw(st.sampled_from(["uint8", "uint16", "float16", "float32"]))
    fill = draw(st.sampled_from([0, 1, 255] if dtype.startswith("u") else [0.0, -1.5, float("nan")]))
    lead = draw(st.integers(1, 3))
    edge = draw(st.integers(1, 5))
    chunks = draw(st.integers(1, 3))
    height, width = (draw(st.integers(1, 2 * edge * chunks + 1)) for _ in range(2))
    chunk, shard = (lead, edge, edge), (lead, edge * chunks, edge * chunks)
    layout = Layout((lead, height, width), shard, chunk, dtype, fill, draw(st.sampled_from(["zstd", "lz4"])))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    pixels = (rng.normal(100, 50, layout.shape)).astype(np.float32).clip(0, 255).astype(dtype)
    pixels[:, rng.random((height, width)) < draw(st.sampled_from([0.0, 0.5, 1.0]))] = fill
    pixels[:, : edge + 1, : edge + 1] = fill
    return layout, pixels


@settings(max_examples=40, deadline=None)
@given(layouts())
def test_what_is_written_is_what_zarr_reads(drawn: tuple[Layout, Array]) -> None:
    layout, pixels = drawn
    with TemporaryDirectory() as folder:
        written(Path(folder), layout, pixels)
        np.testing.assert_array_equal(zarr.open_array(folder, mode="r")[...], pixels)


@settings(max_examples=40, deadline=None)
@given(layouts())
def test_chunks_are_byte_for_byte_those_that_zarr_writes(drawn: tuple[Layout, Array]) -> None:
    layout, pixels = drawn
    with TemporaryDirectory() as ours, TemporaryDirectory() as theirs:
        written(Path(ours), layout, pixels)
        created(Path(theirs), layout)[...] = pixels
        for place in grid(layout):
            our, their = (payloads(file_of(Path(one), place), layout) for one in (ours, theirs))
            for mine, its in zip(our, their, strict=True):
                assert mine == its or mine is None, "only chunks that lie beyond the array may be left out"


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("dtype", ["uint8", "float16"])
def test_a_flipped_bit_anywhere_in_a_shard_is_an_error_when_it_is_read(tmp_path: Path, dtype: str, codec: str) -> None:
    layout = Layout((2, 20, 24), (2, 24, 24), (2, 8, 8), dtype, 0, codec)
    pixels = np.random.default_rng(0).integers(0, 255, layout.shape).astype(dtype)
    pixels[:, :8] = 0
    array = written(tmp_path, layout, pixels)
    file = file_of(tmp_path, (0, 0, 0))
    content = file.read_bytes()
    for place in [*range(0, len(content), 23), *range(len(content) - 160, len(content), 3)]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        with pytest.raises((ValueError, RuntimeError)):
            array[...]
    file.write_bytes(content)
    np.testing.assert_array_equal(array[...], pixels)


def test_chunks_lie_one_behind_the_other_and_the_index_at_the_end() -> None:
    block = np.arange(2 * 10 * 12, dtype=np.uint16).reshape(2, 10, 12)
    parts = encode_shard(block, (2, 16, 16), (2, 4, 4), "zstd", 0)
    content = b"".join(parts)
    index = np.frombuffer(content[-16 * 16 - CRC_BYTES : -CRC_BYTES], dtype="<u8").reshape(16, 2)
    present = index[index[:, 0] != ABSENT]
    assert len(present) == 9, "3 x 3 chunks begin inside the block"
    assert present[0, 0] == 0
    np.testing.assert_array_equal(present[1:, 0], present[:-1].sum(axis=1))
    assert present[-1].sum() == len(content) - 16 * 16 - CRC_BYTES
    assert (index[3::4] == ABSENT).all()


@pytest.mark.parametrize("dtype", [">u2", ">f4", ">f2"])
def test_the_order_of_bytes_in_memory_does_not_matter(dtype: str) -> None:
    block = np.random.default_rng(0).integers(0, 99, (1, 8, 8)).astype(dtype)
    block[:, :4] = 0
    little = block.astype(np.dtype(dtype).newbyteorder("<"))
    one, other = (list(encode_shard(each, (1, 8, 8), (1, 4, 4), "lz4", 0)) for each in (block, little))
    assert one == other


def test_a_block_that_is_a_view_of_a_larger_one_is_written_as_its_copy() -> None:
    large = np.random.default_rng(0).normal(size=(4, 30, 30)).astype(np.float32)
    view = large[1:3, 5:21:2, 20:4:-2]
    one, other = (list(encode_shard(each, (2, 8, 8), (2, 4, 4), "zstd", 0)) for each in (view, view.copy()))
    assert one == other


def test_negative_zeros_and_numbers_that_are_none_keep_their_bits(tmp_path: Path) -> None:
    layout = Layout((1, 8, 8), (1, 8, 8), (1, 4, 4), "float32", 0.0, "zstd")
    pixels = np.zeros(layout.shape, dtype=np.float32)
    pixels[0, 0, 0], pixels[0, 5, 5] = -0.0, np.nan
    found = np.asarray(written(tmp_path, layout, pixels)[...])
    np.testing.assert_array_equal(found.view(np.uint32), pixels.view(np.uint32))
