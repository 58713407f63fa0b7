"""Files that are not what they should be are refused with one error that names them."""

import struct
from pathlib import Path

import numpy as np
import pytest
from known_scans import FILES, H, W, read_or_refused, refusal, smooth, tiff
from PIL import Image

from cytoarch.errors import ScanError
from cytoarch.images.planes import Scan, narrowed
from cytoarch.images.scans import SUFFIXES, open_scan


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "content", [b"", b"II*\0", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"a text, no image\n" * 9, bytes(500)]
)
def test_a_file_that_is_no_image_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    refusal(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.tif", "no such file"),
        ("none.png", "no such file"),
        ("none.zarr", "no such file"),
        ("folder.tif", "a file is needed"),
        ("file.zarr", "a folder, as OME-Zarr is, is needed"),
    ],
)
def test_what_is_missing_or_a_folder_where_a_file_is_needed_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "file.zarr").write_bytes(b"x")
    assert said in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["a.txt", "a", "a.mrxs", "a.tif.gz"])
def test_another_suffix_is_refused_and_the_known_ones_are_listed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    text = refusal(tmp_path / name)
    assert all(suffix in text for suffix in SUFFIXES)


@pytest.mark.parametrize("kind", ["tiled", "striped", "planar", "png", "turned"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    path = FILES[kind](tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refusal(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["jpeg tiff", "jpg"])
def test_a_truncated_jpeg_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    if kind == "jpg":
        path = tmp_path / "a.jpg"
        Image.fromarray(smooth(3)).save(path)
    else:
        path = FILES["jpeg"](tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refusal(path)


@pytest.mark.parametrize("kind", FILES)
def test_damaged_bytes_are_read_or_refused_but_nothing_else_happens(tmp_path: Path, kind: str) -> None:
    path = FILES[kind](tmp_path)
    content = path.read_bytes()
    rng = np.random.default_rng(11)
    for _ in range(25):
        damaged = bytearray(content)
        for _ in range(8):
            damaged[int(rng.integers(len(damaged)))] = int(rng.integers(256))
        path.write_bytes(damaged)
        found = read_or_refused(path)
        assert found is None or found.ndim == 3


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "int32", "uint32"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_whole_numbers_in_wider_pixels_are_kept_and_said(tmp_path: Path, dtype: str, compression: str | None) -> None:
    pixels = np.arange(H * W).reshape(H, W).astype(dtype)
    path = tiff(tmp_path / "a.tif", pixels, photometric="minisblack", compression=compression)
    with open_scan(path) as scan:
        found = scan.read(0, 0, H, W)[0]
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, pixels)
    assert f"whole numbers stored as {dtype} are kept as uint16" in scan.remarks


@pytest.mark.parametrize("wrong", [-1.0, 0.5, float("nan"), 65536.0])
def test_greys_that_16_bits_do_not_hold_are_refused_with_what_to_do(tmp_path: Path, wrong: float) -> None:
    pixels = np.zeros((H, W), dtype=np.float32)
    pixels[1, 2] = wrong
    text = refusal(tiff(tmp_path / "a.tif", pixels, photometric="minisblack"))
    assert "float32" in text
    assert "whole numbers from 0 to 65535 are needed" in text
    assert "16-bit" in text


@pytest.mark.parametrize("band_bytes", [1, 7 * 4 * W, 1 << 30])
@pytest.mark.parametrize("row", range(0, H, 11))
def test_a_part_of_a_number_is_found_in_whatever_rows_are_looked_at_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, band_bytes: int, row: int
) -> None:
    monkeypatch.setattr("cytoarch.images.planes.CHECKED_BYTES", band_bytes)
    pixels = np.arange(H * W).reshape(H, W).astype(np.float32)
    path = tiff(tmp_path / "a.tif", pixels, photometric="minisblack")
    with open_scan(path) as scan:
        np.testing.assert_array_equal(scan.read(0, 0, H, W)[0], pixels)
    pixels[row, W - 1] += 0.5
    assert "not all whole" in refusal(tiff(path, pixels, photometric="minisblack"))


def test_what_is_looked_at_for_parts_of_numbers_is_small_beside_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    rint = np.rint
    monkeypatch.setattr(np, "rint", lambda band: (looked_at.append(band.nbytes), rint(band))[1])
    pixels = np.zeros((2, 3000, 700))
    scan = Scan(pixels.shape, pixels.dtype, "multichannel", (), (), lambda *_: pixels)
    narrowed(scan, np.dtype(np.uint16), "save it so").read(0, 0, 3000, 700)
    assert sum(looked_at) == pixels.nbytes
    assert max(looked_at) <= 8 << 20


def test_pixels_of_two_parts_are_refused(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", np.zeros((H, W), dtype=np.complex64), photometric="minisblack")
    assert "complex64" in refusal(path)


def lying_tiff(
    path: Path, height: int, width: int, samples: int = 1, rows_per_strip: int | None = None, strip_bytes: int = 10
) -> Path:
    """A TIFF of some 200 bytes in one strip that claims any size."""
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, samples),
        (278, 4, 1, rows_per_strip or height),
        (279, 4, 1, strip_bytes),
    ]
    data = bytes(10)
    entries = b"".join(
        struct.pack("<HHI", tag, kind, count)
        + (struct.pack("<HH", value, 0) if kind == 3 else struct.pack("<I", value))
        for tag, kind, count, value in tags
    )
    content = struct.pack("<2sHI", b"II", 42, 18) + data + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("height", "width", "samples", "strip_bytes"),
    [
        (95_000, 136_000, 1, 10),
        (95_000, 136_000, 1, 0),
        (95_000, 136_000, 1, 4_000_000_000),
        (4_000_000_000, 4_000_000_000, 1, 10),
        (75, 101, 65_535, 10),
        (75, 101, 1, 10),
        (0, 101, 1, 10),
    ],
)
def test_a_tiny_tiff_that_claims_to_be_huge_is_refused_before_anything_is_allocated(
    tmp_path: Path, height: int, width: int, samples: int, strip_bytes: int
) -> None:
    import tracemalloc

    path = lying_tiff(tmp_path / "a.tif", height, width, samples, strip_bytes=strip_bytes)
    tracemalloc.start()
    try:
        refusal(path)
        with pytest.raises(ScanError), open_scan(path) as scan:
            scan.read(0, 0, 5, 5)
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()


def test_a_tiff_whose_pages_form_a_circle_is_refused_or_read_but_ends(tmp_path: Path) -> None:
    path = lying_tiff(tmp_path / "a.tif", 2, 5)
    content = bytearray(path.read_bytes())
    content[-4:] = struct.pack("<I", 18)
    path.write_bytes(content)
    found = read_or_refused(path)
    assert found is None or found.shape == (1, 2, 5)


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (2**31 - 1, 2**31 - 1), (0, 5)])
def test_a_tiny_png_that_claims_to_be_huge_is_refused(tmp_path: Path, width: int, height: int) -> None:
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    refusal(path)


def test_an_error_while_reading_names_the_file_once(tmp_path: Path) -> None:
    text = refusal(lying_tiff(tmp_path / "a.tif", 75, 101))
    assert text.count(str(tmp_path)) == 1
