"""Label images keep their ids."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from known_scans import Array, H, W, noise, png, png_chunk, png_rows, refusal_of, smooth, tiff
from PIL import Image

from cytoarch.errors import ScanError
from cytoarch.images.scans import open_labels, read_labels


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("suffix", ["png", "tif", "tiff"])
def test_label_images_keep_every_id(tmp_path: Path, dtype: str, suffix: str) -> None:
    ids = noise(H, W, dtype=dtype)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(ids).save(path)
    found = read_labels(path)
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, ids)


def test_a_palette_label_image_gives_its_indices_not_its_colours(tmp_path: Path) -> None:
    ids = noise(H, W) % 5
    image = Image.fromarray(ids, mode="P")
    image.putpalette(list(range(15)))
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), ids)


def test_a_bilevel_label_image_has_ids_0_and_1(tmp_path: Path) -> None:
    ids = noise(H, W) > 100
    Image.fromarray(ids).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), ids)


@pytest.mark.parametrize("name", ["rgb.png", "rgb.tif", "rgba.png", "grey.jpg", "missing.png", "text.png", "cut.png"])
def test_what_cannot_hold_ids_is_refused_as_a_label_image(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    kind = name.partition(".")[0]
    if kind in ("rgb", "rgba", "grey"):
        pixels = noise(H, W, len(kind) if kind != "grey" else 1)
        Image.fromarray(pixels[..., 0] if kind == "grey" else pixels).save(path)
    elif kind == "text":
        path.write_bytes(b"text")
    elif kind == "cut":
        Image.fromarray(noise(H, W)).save(path)
        path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ScanError, match=name):
        read_labels(path)


# -- programs that keep the picture and change the numbers -------------------------------------------------------------


def written(path: Path, ids: Array, bits: int, colour: int, *chunks: bytes) -> Path:
    """A PNG of so many bits as a lossless optimiser writes it, which neither Pillow nor libvips does."""
    path.write_bytes(png(ids.shape[1], ids.shape[0], bits, colour, png_rows(ids, bits), *chunks))
    return path


def palette(*greys: int) -> bytes:
    return png_chunk(b"PLTE", bytes(np.repeat(np.array(greys, np.uint8), 3)))


@pytest.mark.parametrize(
    "greys",
    [
        (6, 5, 4, 3, 2, 1, 0),  # sorted the other way round: ids 1..5 were read as 5..1
        (0, 3, 7, 12, 13, 14, 15),  # entries that are not used left out: 3, 7, 12 were read as 1, 2, 3
        (0, 2, 1, 3, 4, 5, 6),
        (0, 1, 2, 3, 4, 5, 255),
    ],
)
@pytest.mark.parametrize("bits", [4, 8])
def test_a_palette_of_greys_that_are_not_their_numbers_is_refused(
    tmp_path: Path, greys: tuple[int, ...], bits: int
) -> None:
    path = written(tmp_path / "a.png", noise(H, W) % 7, bits, 3, palette(*greys))
    text = refusal_of(path, lambda: read_labels(path))
    assert "palette of greys" in text
    assert "without a palette" in text


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_palette_of_greys_that_are_their_numbers_leaves_no_doubt(tmp_path: Path, bits: int) -> None:
    ids = noise(H, W) % 4
    greys = range(2**bits)
    path = written(tmp_path / "a.png", ids, bits, 3, palette(*greys))
    np.testing.assert_array_equal(read_labels(path), ids)


def test_greys_of_a_palette_that_no_pixel_uses_raise_no_doubt(tmp_path: Path) -> None:
    ids = noise(H, W) % 3
    path = written(tmp_path / "a.png", ids, 8, 3, palette(0, 1, 2, 0, 0, 0))
    np.testing.assert_array_equal(read_labels(path), ids)


def test_one_colour_makes_a_palette_one_of_colours_whose_numbers_are_the_ids(tmp_path: Path) -> None:
    """As the classes of PASCAL VOC, of which number 7 is a grey."""
    colours = png_chunk(b"PLTE", bytes([0, 0, 0, 128, 0, 0, 128, 128, 128]))
    ids = (noise(H, W) % 2) * np.uint8(2)
    np.testing.assert_array_equal(read_labels(written(tmp_path / "a.png", ids, 8, 3, colours)), ids)


@pytest.mark.parametrize("scaled", [257, 256])
@pytest.mark.parametrize("order", ["kept", "turned", "colours"])
def test_a_palette_tiff_gives_its_numbers_unless_its_greys_are_others(tmp_path: Path, order: str, scaled: int) -> None:
    ids = noise(H, W) % 7
    greys = np.arange(256) if order == "kept" else np.arange(256)[::-1]
    colours = np.stack([greys, greys, np.zeros(256) if order == "colours" else greys]) * scaled
    path = tiff(tmp_path / "a.tif", ids, photometric="palette", colormap=colours.astype(np.uint16))
    if order == "turned":
        assert "palette of greys" in refusal_of(path, lambda: read_labels(path))
    else:
        np.testing.assert_array_equal(read_labels(path), ids)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_greys_of_few_bits_are_the_ids(tmp_path: Path, bits: int) -> None:
    ids = noise(H, W) % 2**bits
    np.testing.assert_array_equal(read_labels(written(tmp_path / "a.png", ids, bits, 0)), ids)


def remarks(path: Path) -> tuple[str, ...]:
    with open_labels(path) as scan:
        return scan.remarks


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_erased_pixels_are_unlabelled_and_that_is_said(tmp_path: Path, dtype: str) -> None:
    import imagecodecs

    ids = noise(H, W, dtype=dtype)
    opacity = np.full_like(ids, np.iinfo(dtype).max)
    opacity[10:30, 20:50], opacity[40:50, 3:9] = 0, 1  # erased, and the rim of a soft brush
    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(np.stack([ids, opacity], axis=-1)))
    expected = ids.copy()
    expected[10:30, 20:50] = 0
    found = read_labels(path)
    assert found.dtype == ids.dtype
    np.testing.assert_array_equal(found, expected)
    assert remarks(path) == ("what is fully transparent is read as unlabelled",)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("alpha", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("tile", [None, (32, 48)])
def test_erased_pixels_of_a_tiff_are_unlabelled_as_those_of_a_png(
    tmp_path: Path, dtype: str, planes: str, alpha: str, tile: tuple[int, int] | None
) -> None:
    ids = noise(H, W, dtype=dtype)
    opacity = np.full_like(ids, np.iinfo(dtype).max)
    opacity[10:30, 20:50] = 0
    path = tiff(
        tmp_path / "a.tif",
        np.stack([ids, opacity], axis=-1 if planes == "contig" else 0),
        photometric="minisblack",
        planarconfig=planes,
        extrasamples=[alpha],
        tile=tile,
    )
    found = read_labels(path)
    assert found.dtype == ids.dtype
    np.testing.assert_array_equal(found, np.where(opacity == 0, 0, ids))
    assert remarks(path) == ("what is fully transparent is read as unlabelled",)


@pytest.mark.parametrize(("alpha", "kept"), [("unassalpha", True), ("assocalpha", False)])
def test_ids_that_were_multiplied_with_a_half_opacity_are_lost(tmp_path: Path, alpha: str, kept: bool) -> None:
    ids = noise(H, W)
    opacity = np.full_like(ids, 255)
    opacity[40:50, 3:9] = 128  # the rim of a soft brush
    pixels = np.stack([ids, opacity], axis=-1)
    path = tiff(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig", extrasamples=[alpha])
    if kept:
        np.testing.assert_array_equal(read_labels(path), ids)
    else:
        assert "multiplied with their opacity" in refusal_of(path, lambda: read_labels(path))


def test_a_second_channel_that_is_no_opacity_is_refused(tmp_path: Path) -> None:
    pixels = noise(H, W, 2)
    path = tiff(
        tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig", extrasamples=["unspecified"]
    )
    assert "2 channels" in refusal_of(path, lambda: read_labels(path))


@pytest.mark.parametrize(("bits", "colour"), [(1, 0), (2, 0), (4, 0), (8, 0), (2, 3), (4, 3), (8, 3)])
def test_erased_ids_may_be_one_number_that_is_transparent(tmp_path: Path, bits: int, colour: int) -> None:
    """An optimiser's shorter way to write the opacity."""
    ids = noise(H, W) % min(2**bits, 7)
    transparent = png_chunk(b"tRNS", b"\xff\x00" if colour == 3 else b"\x00\x01")
    chunks = (palette(0, 200, *range(2, min(2**bits, 7))), transparent) if colour == 3 else (transparent,)
    path = written(tmp_path / "a.png", ids, bits, colour, *chunks)
    np.testing.assert_array_equal(read_labels(path), np.where(ids == 1, 0, ids))
    assert remarks(path) == ("what is fully transparent is read as unlabelled",)


def test_a_label_image_without_transparency_has_no_remarks(tmp_path: Path) -> None:
    for number, image in enumerate((Image.fromarray(noise(H, W)), Image.fromarray(noise(H, W) > 9))):
        image.save(tmp_path / f"{number}.png")
        assert remarks(tmp_path / f"{number}.png") == ()


@pytest.mark.parametrize("name", ["jpeg.png", "jpeg.tif"])
def test_ids_that_went_through_jpeg_are_refused_whatever_the_file_is_called(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("png"):
        Image.fromarray(smooth(1)).save(path, "JPEG")
    else:
        tiff(path, smooth(1), compression="jpeg", tile=(32, 48))
    assert "JPEG" in refusal_of(path, lambda: read_labels(path))


@pytest.mark.parametrize("compression", ["jpeg2000", "jpegxl", "jpegxr", "lerc"])
@pytest.mark.parametrize("level", [1, 90])
def test_ids_under_a_compression_that_may_change_them_are_refused(tmp_path: Path, compression: str, level: int) -> None:
    """A lossy one gives ids that nobody drew, and no tag says which it was."""
    settings = {"level": level / 100 if compression == "jpegxr" else level}
    path = tiff(tmp_path / "a.tif", noise(H, W), compression=compression, compressionargs=settings, tile=(32, 48))
    text = refusal_of(path, lambda: read_labels(path))
    assert compression.upper() in text
    assert "without loss" in text


@pytest.mark.parametrize("compression", ["lzw", "deflate", "adobe_deflate", "packbits", "lzma", "zstd", "png"])
def test_ids_under_a_compression_that_never_changes_numbers_are_read(tmp_path: Path, compression: str) -> None:
    ids = noise(H, W)
    path = tiff(tmp_path / "a.tif", ids, compression=compression, tile=(32, 48))
    np.testing.assert_array_equal(read_labels(path), ids)


def test_white_is_zero_leaves_the_ids_of_a_tiff_as_they_are_stored(tmp_path: Path) -> None:
    ids = noise(H, W)
    np.testing.assert_array_equal(read_labels(tiff(tmp_path / "a.tif", ids, photometric="miniswhite")), ids)


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint32", "int64", "float32"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_whole_numbers_of_any_type_are_ids(tmp_path: Path, dtype: str, compression: str | None) -> None:
    path, ids = tmp_path / "a.tif", noise(H, W) % 5
    tifffile.imwrite(path, ids.astype(dtype), metadata=None, compression=compression)
    np.testing.assert_array_equal(read_labels(path), ids)


def test_ids_of_nine_digits_are_kept_as_atlases_have_them(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    ids = np.where(noise(H, W) % 2 == 0, 614454277, 315).astype(np.uint32)
    tifffile.imwrite(path, ids, metadata=None)
    np.testing.assert_array_equal(read_labels(path), ids)


@pytest.mark.parametrize("wrong", [-1.0, 2.5, float("nan"), 2.0**32])
def test_numbers_that_are_no_ids_are_refused(tmp_path: Path, wrong: float) -> None:
    path = tmp_path / "a.tif"
    ids = np.ones((H, W))
    ids[H // 2, 3] = wrong
    tifffile.imwrite(path, ids, metadata=None)
    text = refusal_of(path, lambda: read_labels(path))
    assert "whole numbers from 0 to 4294967295 are needed" in text
    assert "label table" in text


def test_pixels_of_two_parts_are_no_ids(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((H, W), dtype=np.complex64), metadata=None)
    assert "8- or 16-bit" in refusal_of(path, lambda: read_labels(path))
