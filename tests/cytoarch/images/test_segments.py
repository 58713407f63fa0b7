"""Windows and bands of TIFF pages hold what tifffile's own reader gives of the whole page."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cytoarch.errors import ScanError
from cytoarch.images import segments
from cytoarch.images.scans import open_scan
from cytoarch.images.segments import Page, Segments

Array = NDArray[Any]
H, W = 75, 101


def noise(*shape: int, dtype: str = "uint8") -> Array:
    return np.random.default_rng(11).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def one_page(dtype: str = "uint8", samples: int = 1, separate: bool = False, **options: Any) -> dict[str, Any]:
    """How a file of one page is written."""
    shape = (H, W) if samples == 1 else (samples, H, W) if separate else (H, W, samples)
    colours = {"photometric": "rgb", "planarconfig": "separate" if separate else "contig"}
    layout = {"photometric": "minisblack"} if samples == 1 else colours
    return {"data": noise(*shape, dtype=dtype), "metadata": None, **layout, **options}


def pages(count: int, **options: Any) -> dict[str, Any]:
    """How a file of several such pages is written."""
    page = one_page(**options)
    return {**page, "data": np.stack([np.roll(page["data"], number, axis=-1) for number in range(count)])}


TILED = {
    "grey, wide tiles": one_page(tile=(16, 48)),
    "grey, high tiles": one_page(tile=(64, 16), dtype="uint16"),
    "grey, one tile beyond the image": one_page(tile=(128, 128)),
    "grey, big-endian": one_page(tile=(32, 16), dtype="uint16", byteorder=">"),
    "grey, big-endian, zlib and predictor": one_page(
        tile=(32, 16), dtype="uint16", byteorder=">", compression="zlib", predictor=True
    ),
    "rgb": one_page(tile=(16, 32), samples=3),
    "rgb, lzw and predictor": one_page(tile=(32, 48), samples=3, compression="lzw", predictor=True),
    "rgb, jpeg": one_page(tile=(32, 48), samples=3, compression="jpeg"),
    "rgb, planar": one_page(tile=(16, 48), samples=3, separate=True, dtype="uint16"),
    "rgb, planar, zlib, big-endian": one_page(
        tile=(48, 16), samples=3, separate=True, dtype="uint16", compression="zlib", byteorder=">"
    ),
    "channels in pages": pages(4, tile=(16, 48), dtype="uint16"),
    "rgb pages": pages(2, tile=(16, 48), samples=3, compression="zlib"),
    "planar pages": pages(2, tile=(32, 16), samples=3, separate=True),
}
RAW_STRIPS = {
    "grey, one strip": one_page(rowsperstrip=H),
    "grey, a strip a row": one_page(rowsperstrip=1, dtype="uint16"),
    "grey, a last strip that is shorter": one_page(rowsperstrip=7),
    "grey, big-endian": one_page(rowsperstrip=8, dtype="uint16", byteorder=">"),
    "rgb": one_page(rowsperstrip=7, samples=3, dtype="uint16"),
    "rgb, planar": one_page(rowsperstrip=7, samples=3, separate=True),
    "rgb, planar, big-endian": one_page(rowsperstrip=10, samples=3, separate=True, dtype="uint16", byteorder=">"),
    "channels in pages": pages(3, rowsperstrip=16),
    "rgb pages": pages(2, rowsperstrip=11, samples=3),
    "planar pages": pages(2, rowsperstrip=11, samples=3, separate=True),
}
PACKED_STRIPS = {name: {**options, "compression": "zlib"} for name, options in RAW_STRIPS.items()}
KINDS = {"tiled": TILED, "raw": RAW_STRIPS, "packed": PACKED_STRIPS}
NAMES = [f"{kind}: {name}" for kind, files in KINDS.items() for name in files]


@pytest.fixture(scope="module")
def path_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes a file of a kind once."""
    folder = tmp_path_factory.mktemp("segments")

    def path(name: str) -> Path:
        file = folder / f"{NAMES.index(name)}.tif"
        if not file.exists():
            kind, _, which = name.partition(": ")
            options = dict(KINDS[kind][which])
            tifffile.imwrite(file, options.pop("data"), **options)
        return file

    return path


def opened(tiff: tifffile.TiffFile) -> Segments:
    page = tiff.pages[0]
    return Segments(
        tiff.filehandle.fileno(), page, tuple(map(Page.of, tiff.pages)), np.dtype(page.dtype).newbyteorder("=")
    )


def expected(tiff: tifffile.TiffFile) -> Array:
    """All pages (c, y, x) as tifffile reads them."""
    planes = []
    for page in tiff.pages:
        pixels = page.asarray()
        separate = pixels.ndim == 3 and pixels.shape[-2:] == (H, W)
        planes += list(pixels[None] if pixels.ndim == 2 else pixels if separate else np.moveaxis(pixels, -1, 0))
    return np.stack(planes)


windows = st.tuples(st.integers(0, H - 1), st.integers(0, W - 1)).flatmap(
    lambda at: st.tuples(st.just(at[0]), st.just(at[1]), st.integers(1, H - at[0]), st.integers(1, W - at[1]))
)
BY_WINDOW = [name for name in NAMES if not name.startswith("packed")]


@pytest.mark.parametrize("name", BY_WINDOW)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(wanted=st.lists(windows, min_size=1, max_size=4))
def test_any_window_is_the_crop_of_what_tifffile_reads(
    path_of: Callable[[str], Path], name: str, wanted: list[tuple[int, int, int, int]]
) -> None:
    with tifffile.TiffFile(path_of(name)) as tiff:
        source, whole = opened(tiff), expected(tiff)
        assert source.channels == len(whole)
        assert source.raw_rows == name.startswith("raw")
        for y, x, height, width in [*wanted, (0, 0, H, W), (H - 1, W - 1, 1, 1)]:
            found = source.window(y, x, height, width)
            assert found.dtype == whole.dtype.newbyteorder("=")
            np.testing.assert_array_equal(found, whole[:, y : y + height, x : x + width])


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("tiled")])
@pytest.mark.parametrize("band_bytes", [1, 2000, 1 << 20])
def test_bands_are_the_plane_from_top_to_bottom_each_row_once(
    path_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str, band_bytes: int
) -> None:
    monkeypatch.setattr(segments, "BAND_BYTES", band_bytes)
    with tifffile.TiffFile(path_of(name)) as tiff:
        source, whole = opened(tiff), expected(tiff)
        bands = list(source.bands())
        strip_rows = min(int(source.page.rowsperstrip), H)
    np.testing.assert_array_equal(np.concatenate(bands, axis=1), whole)
    row_bytes = whole.shape[0] * W * whole.dtype.itemsize
    assert all(band.nbytes <= max(band_bytes, strip_rows * row_bytes) for band in bands), "a strip, or what fits"
    assert all(band.shape[1] % strip_rows == 0 for band in bands[:-1])
    assert all(one.nbytes + strip_rows * row_bytes > band_bytes for one in bands[:-1]), (
        "no band is smaller than it needs to be"
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_any_plane_of_a_block_of_which_the_file_lists_one_page_is_found(tmp_path: Path, dtype: str, order: str) -> None:
    pixels = noise(3, 2, H, W, dtype=dtype)  # ImageJ: planes, channels
    path = tmp_path / "block.tif"
    tifffile.imwrite(path, pixels, imagej=True, truncate=True, byteorder=order, metadata={"axes": "ZCYX"})
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.pages) == 1
        whole = tiff.asarray()
        series = tiff.series[0]
        nbytes = H * W * pixels.itemsize
        for strip_bytes in (nbytes, W * pixels.itemsize, 7 * W * pixels.itemsize):
            found = [Page.within(series.dataoffset + at * nbytes, nbytes, strip_bytes) for at in range(6)]
            assert all(sum(one.counts) == nbytes and len(one.counts) == len(one.offsets) for one in found)
        np.testing.assert_array_equal(whole, pixels)
    for plane in range(3):
        with open_scan(path, plane) as scan:
            assert scan.shape == (2, H, W)
            for y, x, height, width in ((0, 0, H, W), (13, 40, 30, 61), (H - 1, 0, 1, W)):
                np.testing.assert_array_equal(
                    scan.read(y, x, height, width), whole[plane, :, y : y + height, x : x + width]
                )


def test_strips_of_a_plane_within_a_block_cover_it_once_in_order() -> None:
    page = Page.within(1000, 95, 10)
    assert list(page.offsets) == [*range(1000, 1095, 10)]
    assert list(page.counts) == [10] * 9 + [5]


# -- reading -----------------------------------------------------------------------------------------------------------

ONE_OF_EACH = ["tiled: rgb", "raw: rgb", "packed: rgb"]


def read_all(source: Segments) -> Array:
    if source.page.is_tiled or source.raw_rows:
        return source.window(0, 0, H, W)
    return np.concatenate(list(source.bands()), axis=1)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_file_that_ends_too_early_is_an_error_that_says_where(path_of: Callable[[str], Path], name: str) -> None:
    content = path_of(name).read_bytes()
    short = path_of(name).with_name("short.tif")
    short.write_bytes(content)
    with tifffile.TiffFile(short) as tiff:
        source = opened(tiff)
        np.testing.assert_array_equal(read_all(source), expected(tiff))
        end = max(at + count for at, count in zip(source.pages[0].offsets, source.pages[0].counts, strict=True))
        os.truncate(short, end - 3)
        with pytest.raises(ScanError, match=rf"ends at byte {end - 3} where 3 more are needed"):
            read_all(source)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_reads_that_are_cut_short_by_the_system_go_on(
    path_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pread = os.pread
    with tifffile.TiffFile(path_of(name)) as tiff:
        source, whole = opened(tiff), expected(tiff)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", lambda handle, count, at: pread(handle, min(count, 97), at))
            np.testing.assert_array_equal(read_all(source), whole)


def test_only_tiles_and_rows_of_the_window_are_read(
    path_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    pread = os.pread

    def counted(handle: int, count: int, at: int) -> bytes:
        asked.append((at, count))
        return pread(handle, count, at)

    def reads(name: str, y: int, x: int, height: int, width: int) -> Iterator[tuple[int, int]]:
        with tifffile.TiffFile(path_of(name)) as tiff:
            source = opened(tiff)
            asked.clear()
            with monkeypatch.context() as patch:
                patch.setattr(os, "pread", counted)
                source.window(y, x, height, width)
            yield from asked

    assert len(list(reads("tiled: grey, wide tiles", 20, 50, 5, 40))) == 1
    assert len(list(reads("tiled: grey, wide tiles", 15, 47, 2, 2))) == 4
    assert len(list(reads("tiled: rgb, planar", 15, 47, 2, 2))) == 12
    assert [count for _, count in reads("raw: grey, one strip", 20, 50, 5, 40)] == [40] * 5
