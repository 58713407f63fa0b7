import io
import itertools
import logging
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from known_scans import Array, channel_first, noise, png_chunk, refusal_of, smooth
from known_scans import png as png_bytes
from PIL import Image

from cytoarch.errors import ScanError
from cytoarch.images import decoded
from cytoarch.images.decoded import open_jp2, open_rows
from cytoarch.images.planes import Rows

H, W = 301, 173


def whole(rows: Rows) -> Array:
    """The plane its bands make, which are checked to be as announced."""
    bands = list(rows.bands())
    assert all(band.dtype == rows.dtype and band.flags.c_contiguous for band in bands)
    plane = np.concatenate(bands, axis=1)
    assert plane.shape == rows.shape
    return plane


def refusal(path: Path, opener: Any = open_rows) -> str:
    return refusal_of(path, lambda: whole(opener(path)))


def png(path: Path, *header: Any, interlace: int = 0) -> Path:
    path.write_bytes(png_bytes(*header, interlace=interlace))
    return path


# -- PNG ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_of_any_kind_is_decoded_bit_for_bit(tmp_path: Path, dtype: str, channels: int) -> None:
    pixels = noise(H, W, channels, dtype=dtype)
    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(pixels[..., 0] if channels == 1 else pixels))
    rows = open_rows(path)
    assert (rows.shape, rows.dtype) == ((channels, H, W), np.dtype(dtype))
    assert (rows.kind, rows.alpha) == ("grey" if channels <= 2 else "rgb", channels in (2, 4))
    assert (rows.orientation, rows.stated_pixel_sizes, rows.remarks) == (1, (), ())
    np.testing.assert_array_equal(whole(rows), channel_first(pixels))
    np.testing.assert_array_equal(whole(rows), channel_first(pixels), "bands can be asked for again")


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
def test_a_png_is_decoded_as_pillow_decodes_it(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(noise(H, W, 3)).convert(mode).save(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert({"P": "RGB", "1": "L"}.get(mode, mode)))
    np.testing.assert_array_equal(whole(open_rows(path)), channel_first(expected))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_greys_of_few_bits_span_the_whole_range(tmp_path: Path, bits: int) -> None:
    path = png(tmp_path / "a.png", 8 // bits, 1, bits, 0, b"\0" + bytes([0b00011011]))
    with Image.open(path) as image:
        expected = np.asarray(image.convert("L"))
    found = whole(open_rows(path))
    assert found.max() == (255 if bits < 4 else 187)
    np.testing.assert_array_equal(found[0], expected)


@pytest.mark.parametrize("interlaced", [False, True])
def test_transparency_in_a_chunk_is_alpha_and_leaves_the_colours(tmp_path: Path, interlaced: bool) -> None:
    path = tmp_path / "a.png"
    image = Image.fromarray(noise(H, W, 3)).quantize(16)
    image.save(path, transparency=3)
    rows = open_rows(path)
    assert (rows.shape[0], rows.alpha, rows.kind) == (4, True, "rgb")
    np.testing.assert_array_equal(whole(rows)[:3], channel_first(np.asarray(image.convert("RGB"))))


def test_gamma_profile_and_density_change_no_pixel_and_state_no_size(tmp_path: Path) -> None:
    pixels = noise(H, W, 3)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", dpi=(72, 72), icc_profile=b"no profile at all")
    body = stream.getvalue()
    at = 33  # behind IHDR
    path = tmp_path / "a.png"
    path.write_bytes(body[:at] + png_chunk(b"gAMA", struct.pack(">I", 30000)) + body[at:])
    rows = open_rows(path)
    assert rows.stated_pixel_sizes == ()
    np.testing.assert_array_equal(whole(rows), channel_first(pixels))


def adam7(pixels: Array) -> bytes:
    """The seven passes of an interlaced 8-bit grey image, unfiltered (PNG specification, 8.2)."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    parts = [pixels[y::dy, x::dx] for y, x, dy, dx in passes]
    return b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)


def test_an_interlaced_png_is_decoded_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = noise(H, W)
    path = png(tmp_path / "a.png", W, H, 8, 0, adam7(pixels), interlace=1)
    np.testing.assert_array_equal(whole(open_rows(path))[0], pixels)
    monkeypatch.setattr(decoded, "MAX_WHOLE_PIXELS", H * W - 1)
    assert "interlac" in refusal(path)
    path.write_bytes(imagecodecs.png_encode(pixels))
    assert open_rows(path).shape == (1, H, W)


# -- JPEG --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_decoded_as_pillow_decodes_it(
    tmp_path: Path, channels: int, subsampling: str, progressive: bool
) -> None:
    path = tmp_path / "a.jpg"
    plain = smooth(channels, H, W)
    image = Image.fromarray(noise(*plain.shape) // 2 + plain // 2)
    options = {"subsampling": subsampling} if channels == 3 else {}
    image.save(path, quality=85, progressive=progressive, **options)
    rows = open_rows(path)
    assert (rows.shape, rows.dtype, rows.alpha) == ((channels, H, W), np.uint8, False)
    assert (rows.kind, rows.orientation, rows.stated_pixel_sizes) == ("grey" if channels == 1 else "rgb", 1, ())
    with Image.open(path) as again:
        np.testing.assert_array_equal(whole(rows), channel_first(np.asarray(again)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_of_a_jpeg_is_reported_and_not_applied(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(smooth(3, H, W)).save(path, exif=exif)
    rows = open_rows(path)
    assert rows.orientation == orientation
    assert whole(rows).shape == rows.shape == (3, H, W)


def test_a_jpeg_with_a_profile_keeps_its_pixels(tmp_path: Path) -> None:
    path, bare = tmp_path / "a.jpg", tmp_path / "b.jpg"
    Image.fromarray(smooth(3, H, W)).save(path, icc_profile=b"\0" * 200, dpi=(72, 72))
    Image.fromarray(smooth(3, H, W)).save(bare)
    np.testing.assert_array_equal(whole(open_rows(path)), whole(open_rows(bare)))


def test_a_progressive_jpeg_above_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "MAX_WHOLE_PIXELS", H * W - 1)
    Image.fromarray(smooth(3, H, W)).save(tmp_path / "a.jpg", progressive=True)
    assert "progressive" in refusal(tmp_path / "a.jpg")
    Image.fromarray(smooth(3, H, W)).save(tmp_path / "b.jpg")
    assert open_rows(tmp_path / "b.jpg").shape == (3, H, W)


def test_a_cmyk_jpeg_is_refused(tmp_path: Path) -> None:
    Image.fromarray(smooth(3, H, W)).convert("CMYK").save(tmp_path / "a.jpg")
    assert "cmyk" in refusal(tmp_path / "a.jpg")


# -- bands and damage --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_bands_have_the_rows_that_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(smooth(3, H, W)).save(path)
    monkeypatch.setattr(decoded, "FETCH_ROWS", 3)
    plane = whole(open_rows(path))
    for limit, expected in ((3 * W * 100, 100), (1, 1), (3 * W * 10**6, 150)):
        monkeypatch.setattr(decoded, "BAND_BYTES", limit)
        monkeypatch.setattr(decoded, "BAND_ROWS", 150)
        heights = [band.shape[1] for band in open_rows(path).bands()]
        assert set(heights[:-1]) == {expected}
        assert sum(heights) == H
        np.testing.assert_array_equal(whole(open_rows(path)), plane)


@pytest.mark.parametrize("suffix", ["png", "jpg", "progressive.jpg"])
@pytest.mark.parametrize("kept", [0, 1, 7, 20, 0.1, 0.5, 0.9, 0.98])
def test_a_truncated_file_is_never_read_as_rows_of_grey(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"a.{suffix}"
    pixels = noise(H, W, 3) // 2 + smooth(3, H, W) // 2
    Image.fromarray(pixels).save(path, **({"progressive": True} if "progressive" in suffix else {}))
    body = path.read_bytes()
    path.write_bytes(body[: kept if isinstance(kept, int) else int(len(body) * kept)])
    refusal(path)


@pytest.mark.parametrize("cut", [1, 2, 5, 12, 13, 20])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_file_cut_by_a_few_bytes_is_refused_or_whole(tmp_path: Path, suffix: str, cut: int) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise(H, W, 3) // 2 + smooth(3, H, W) // 2).save(path)
    plane = whole(open_rows(path))
    path.write_bytes(path.read_bytes()[:-cut])
    try:
        found = whole(open_rows(path))
    except ScanError:
        return
    np.testing.assert_array_equal(found, plane)


def test_a_flipped_bit_in_the_pixels_of_a_png_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(noise(H, W, 3)).save(path)
    body = path.read_bytes()
    for at in range(60, len(body) - 20, len(body) // 40):
        path.write_bytes(body[:at] + bytes([body[at] ^ 16]) + body[at + 1 :])
        refusal(path)


def test_a_jpeg_with_a_hole_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(noise(H, W, 3) // 2 + smooth(3, H, W) // 2).save(path)
    body = path.read_bytes()
    half = len(body) // 2
    path.write_bytes(body[:half] + b"\xff\xd9" + body[half + 2 :])
    refusal(path)


@pytest.mark.parametrize("body", [b"", b"text", b"GIF89a" + b"\0" * 20, b"II*\0" + b"\0" * 20, b"\x89PNG\r\n\x1a\n"])
def test_what_is_neither_png_nor_jpeg_is_refused(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(body)
    refusal(path)


def test_sizes_nobody_believes_are_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    for number, (width, height) in enumerate(itertools.product((1, 2**31 - 1), (2**31 - 1, 10**7))):
        refusal(png(tmp_path / f"{number}.png", width, height, 8, 2, b""))


def test_a_name_is_never_taken_for_options_of_the_decoder(tmp_path: Path) -> None:
    path = tmp_path / "a[shrink=2].png"
    Image.fromarray(noise(H, W)).save(path)
    assert whole(open_rows(path)).shape == (1, H, W)


@pytest.mark.parametrize("orientation", [1, 6])
def test_nothing_is_logged_above_debug(
    tmp_path: Path, orientation: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(smooth(3, H, W)).save(tmp_path / "a.jpg", exif=exif, icc_profile=b"none")
    Image.fromarray(smooth(3, H, W)).save(tmp_path / "a.png", icc_profile=b"none")
    for path in (tmp_path / "a.jpg", tmp_path / "a.png"):
        whole(open_rows(path))
        path.write_bytes(path.read_bytes()[:1000])
        refusal(path)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_memory_that_runs_out_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyvips

    def exhausted(*_: Any) -> None:
        raise pyvips.Error("unable to fetch from region", "vips_tracked: out of memory -- size == 9MB")

    Image.fromarray(smooth(3, H, W)).save(tmp_path / "a.png")
    rows = open_rows(tmp_path / "a.png")
    monkeypatch.setattr(pyvips.Region, "fetch", exhausted)
    with pytest.raises(MemoryError):
        whole(rows)


def test_importing_the_module_loads_no_decoder() -> None:
    program = "import sys, cytoarch.images.decoded; print(sorted({'pyvips', 'imagecodecs'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]"


# -- JPEG 2000 ---------------------------------------------------------------------------------------------------------


def jp2(path: Path, pixels: Array, **options: Any) -> Path:
    codec = "j2k" if path.suffix == ".j2k" else "jp2"
    path.write_bytes(imagecodecs.jpeg2k_encode(pixels, codecformat=codec, reversible=True, **options))
    return path


@pytest.mark.parametrize("suffix", [".jp2", ".j2k"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_lossless_jpeg_2000_is_decoded_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, dtype: str, channels: int
) -> None:
    monkeypatch.setattr(decoded, "BAND_ROWS", 100)
    pixels = noise(H, W, channels, dtype=dtype)
    rows = open_jp2(jp2(tmp_path / f"a{suffix}", pixels[..., 0] if channels == 1 else pixels, level=0))
    assert (rows.shape, rows.dtype, rows.alpha) == ((channels, H, W), np.dtype(dtype), False)
    assert (rows.kind, rows.orientation, rows.stated_pixel_sizes) == ("grey" if channels == 1 else "rgb", 1, ())
    np.testing.assert_array_equal(whole(rows), channel_first(pixels))


def test_a_jpeg_2000_of_12_bits_keeps_its_numbers(tmp_path: Path) -> None:
    pixels = noise(H, W, dtype="uint16") >> 4
    rows = open_jp2(jp2(tmp_path / "a.jp2", pixels, level=0, bitspersample=12))
    assert rows.dtype == np.uint16
    np.testing.assert_array_equal(whole(rows)[0], pixels)


@pytest.mark.parametrize("tile_px", [(37, 53), (300, 7)])
def test_a_jpeg_2000_of_tiles_that_do_not_divide_it_is_decoded_bit_for_bit(
    tmp_path: Path, tile_px: tuple[int, int]
) -> None:
    pixels = noise(H, W, 3)
    Image.fromarray(pixels).save(tmp_path / "a.jp2", irreversible=False, tile_size=tile_px)
    np.testing.assert_array_equal(whole(open_jp2(tmp_path / "a.jp2")), channel_first(pixels))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_opacity_that_a_jpeg_2000_declares_is_alpha(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.jp2"
    pixels = noise(H, W, len(mode))
    Image.fromarray(pixels, mode).save(path, irreversible=False)
    rows = open_jp2(path)
    assert (rows.shape[0], rows.alpha, rows.kind) == (len(mode), True, "grey" if mode == "LA" else "rgb")
    np.testing.assert_array_equal(whole(rows), channel_first(pixels))


@pytest.mark.parametrize("suffix", [".jp2", ".j2k"])
@pytest.mark.parametrize("kept", [0, 3, 20, 60, 0.5, 0.9, 0.999])
def test_a_truncated_jpeg_2000_is_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    path = jp2(tmp_path / f"a{suffix}", noise(H, W, 3), level=0)
    body = path.read_bytes()
    path.write_bytes(body[: kept if isinstance(kept, int) else int(len(body) * kept)])
    refusal(path, open_jp2)


def test_a_jpeg_2000_above_the_limit_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jp2(tmp_path / "a.jp2", noise(H, W, 3), level=0)
    monkeypatch.setattr(decoded, "MAX_JP2_SAMPLES", 3 * H * W - 1)
    assert "tiled TIFF" in refusal(path, open_jp2)


def test_a_jpeg_2000_with_a_palette_or_signed_pixels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jp2"
    Image.fromarray(noise(H, W)).save(path, irreversible=False)
    body = path.read_bytes()
    path.write_bytes(body.replace(b"colr", b"pclr", 1))
    assert "palette" in refusal(path, open_jp2)
    at = body.index(b"\xff\x4f\xff\x51") + 42
    path.write_bytes(body[:at] + bytes([body[at] | 0x80]) + body[at + 1 :])
    assert "signed" in refusal(path, open_jp2)
