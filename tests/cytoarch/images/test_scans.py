"""TIFF, PNG and JPEG are read as they are, whole or by window, as their tags ask for it."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from known_scans import FILES, H, W, channel_first, noise, opened, read_or_refused, refusal, smooth, tiff, whole
from PIL import Image, ImageOps

from cytoarch.errors import ScanError
from cytoarch.images.scans import SUFFIXES, open_scan

# -- the matrix of TIFFs -----------------------------------------------------------------------------------------------

LAYOUTS = {"tiled": {"tile": (32, 48)}, "striped": {"rowsperstrip": 16}, "one strip": {}}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_lossless_tiff_of_any_kind_is_read_bit_for_bit(
    tmp_path: Path, layout: str, compression: str | None, dtype: str, channels: int
) -> None:
    pixels = noise(H, W, channels, dtype=dtype)[..., 0 if channels == 1 else slice(None)]
    photometric = "minisblack" if channels == 1 else "rgb"
    extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    path = tiff(
        tmp_path / "a.tif", pixels, compression=compression, photometric=photometric, **LAYOUTS[layout], **extra
    )
    scan = opened(path)
    assert scan.kind == ("grey" if channels == 1 else "rgb")
    assert scan.shape == (min(channels, 3), H, W)
    assert scan.remarks == (("alpha channel left out",) if channels == 4 else ())
    np.testing.assert_array_equal(whole(path), channel_first(pixels)[:3])


@pytest.mark.parametrize("layout", ["tiled", "striped"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_tiff_is_read_as_the_reference_reads_it(tmp_path: Path, layout: str, channels: int) -> None:
    pixels = smooth(channels)
    photometric = "minisblack" if channels == 1 else "rgb"
    options = {"tile": (32, 48)} if layout == "tiled" else {"rowsperstrip": 16}
    path = tiff(tmp_path / "a.tif", pixels, compression="jpeg", photometric=photometric, **options)
    found = whole(path)
    np.testing.assert_array_equal(found, channel_first(tifffile.imread(path)))
    assert np.abs(found.astype(int) - channel_first(pixels)).mean() < 4


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix.startswith(".t") or suffix == ".btf"])
def test_bigtiff_and_big_endian_files_are_read_like_any_other(tmp_path: Path, suffix: str) -> None:
    pixels = noise(H, W, dtype="uint16")
    for bigtiff, byteorder, layout in itertools.product((False, True), "<>", LAYOUTS.values()):
        path = tiff(tmp_path / f"a{suffix}", pixels, bigtiff=bigtiff, byteorder=byteorder, **layout)
        found = whole(path)
        assert found.dtype == np.dtype("uint16")
        assert found.dtype.isnative
        np.testing.assert_array_equal(found[0], pixels)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_planar_rgb_is_read_like_interleaved_rgb(tmp_path: Path, layout: str) -> None:
    planes = noise(3, H, W)
    path = tiff(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate", **LAYOUTS[layout])
    assert opened(path).kind == "rgb"
    np.testing.assert_array_equal(whole(path), planes)


@pytest.mark.parametrize(
    "options", [{"metadata": {"axes": "CYX"}, "ome": True}, {"metadata": {"axes": "CYX"}, "imagej": True}]
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_channels_in_pages_are_channels(tmp_path: Path, options: dict[str, Any], dtype: str) -> None:
    planes = noise(5, H, W, dtype=dtype)
    path = tiff(tmp_path / "a.tif", planes, photometric="minisblack", **options)
    assert opened(path).kind == "multichannel"
    np.testing.assert_array_equal(whole(path), planes)


def test_two_channels_of_one_page_are_channels(tmp_path: Path) -> None:
    planes = noise(2, H, W)
    path = tiff(tmp_path / "a.tif", planes, photometric="minisblack", planarconfig="separate")
    assert opened(path).shape == (2, H, W)
    np.testing.assert_array_equal(whole(path), planes)


def test_a_bilevel_tiff_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bilevel.tif"
    Image.fromarray(noise(H, W) > 100).save(path)
    refusal(path)


def test_interleaved_channels_that_are_no_colours_all_stay(tmp_path: Path) -> None:
    pixels = noise(H, W, 4)
    path = tiff(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig")
    np.testing.assert_array_equal(whole(path), channel_first(pixels))


def test_the_alpha_of_a_grey_tiff_is_no_stain(tmp_path: Path) -> None:
    pixels = noise(H, W, 2)
    path = tiff(
        tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"]
    )
    np.testing.assert_array_equal(whole(path), pixels[None, ..., 0])


@pytest.mark.parametrize("photometric", ["palette", "miniswhite", "cmyk", "cielab"])
def test_pixels_whose_numbers_are_not_grey_or_rgb_are_refused_or_read_as_they_look(
    tmp_path: Path, photometric: str
) -> None:
    path = tmp_path / "a.tif"
    if photometric == "palette":
        image = Image.fromarray(noise(H, W), mode="P")
        image.putpalette([255 - value // 3 for value in range(768)])
        image.save(path)
    elif photometric == "miniswhite":
        tiff(path, noise(H, W), photometric="miniswhite")
    else:
        count = {"cmyk": 4, "cielab": 3}[photometric]
        number = {"cmyk": "separated", "cielab": "cielab"}[photometric]
        tiff(path, noise(H, W, count), photometric=number, planarconfig="contig")
    with Image.open(path) as image:
        shown = image.convert("RGB" if photometric == "palette" else "L" if photometric == "miniswhite" else "RGB")
    found = read_or_refused(path)
    if found is not None:
        np.testing.assert_array_equal(found, channel_first(np.asarray(shown)))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_where_zero_is_white_the_whole_range_is_turned(tmp_path: Path, dtype: str) -> None:
    pixels = noise(H, W, dtype=dtype)
    path = tiff(tmp_path / "a.tif", pixels, photometric="miniswhite")
    np.testing.assert_array_equal(whole(path)[0], np.iinfo(dtype).max - pixels)
    assert opened(path).remarks == ("zero meant white: inverted",)


def test_the_full_resolution_level_of_a_pyramid_is_read(tmp_path: Path) -> None:
    pixels = noise(4 * H, 4 * W, 3)
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path) as writer:
        common = {"photometric": "rgb", "tile": (64, 64)}
        writer.write(pixels, subifds=1, metadata={"axes": "YXS"}, **common)
        writer.write(pixels[::2, ::2], subfiletype=1, **common)
    np.testing.assert_array_equal(whole(path), channel_first(pixels))


# -- stacks ------------------------------------------------------------------------------------------------------------


def test_a_plane_of_a_stack_is_picked_by_its_index_and_a_stack_without_one_is_refused(tmp_path: Path) -> None:
    stack = noise(4, H, W)
    path = tiff(tmp_path / "a.tif", stack, photometric="minisblack")
    for index in range(4):
        np.testing.assert_array_equal(whole(path, plane_index=index)[0], stack[index])
    assert "plane_index" in refusal(path)
    assert "4 plane" in refusal(path, plane_index=4)


def test_planes_of_several_axes_are_counted_in_the_order_of_the_file(tmp_path: Path) -> None:
    stack = noise(2, 3, 2, H, W)
    path = tiff(tmp_path / "a.ome.tif", stack, photometric="minisblack", ome=True, metadata={"axes": "TZCYX"})
    for index, (t, z) in enumerate(itertools.product(range(2), range(3))):
        np.testing.assert_array_equal(whole(path, plane_index=index), stack[t, z])


def test_an_rgb_stack_keeps_its_colours_together(tmp_path: Path) -> None:
    stack = noise(3, H, W, 3)
    path = tiff(tmp_path / "a.tif", stack, photometric="rgb")
    np.testing.assert_array_equal(whole(path, plane_index=1), channel_first(stack[1]))


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_a_file_of_one_plane_has_plane_0_only(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise(H, W)).save(path)
    np.testing.assert_array_equal(whole(path, plane_index=0), whole(path))
    assert "plane_index" in refusal(path, plane_index=1)


# -- PNG and JPEG ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_an_8_bit_png_is_read_bit_for_bit_without_alpha(tmp_path: Path, mode: str) -> None:
    pixels = noise(H, W, len(mode))[..., 0 if mode == "L" else slice(None)]
    path = tmp_path / "a.png"
    Image.fromarray(pixels, mode=None).save(path)
    np.testing.assert_array_equal(whole(path), channel_first(pixels)[:3])
    assert opened(path).kind == ("grey" if mode == "L" else "rgb")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_16_bit_png_keeps_all_its_bits(tmp_path: Path, channels: int) -> None:
    import imagecodecs

    pixels = noise(H, W, channels, dtype="uint16")[..., 0 if channels == 1 else slice(None)]
    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(pixels))
    colours = {1: 1, 2: 1, 3: 3, 4: 3}[channels]  # an even count ends in alpha, which is no stain
    found = whole(path)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, channel_first(pixels)[:colours])


def test_a_palette_png_is_read_in_the_colours_it_shows(tmp_path: Path) -> None:
    image = Image.fromarray(noise(H, W) % 5, mode="P")
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(whole(tmp_path / "a.png"), channel_first(np.asarray(image.convert("RGB"))))


@pytest.mark.parametrize("erased", [False, True])
def test_a_palette_of_nothing_but_greys_is_a_grey_scan(tmp_path: Path, erased: bool) -> None:
    """As optimisers write grey scans of few greys: it was read in three channels among grey ones."""
    numbers = noise(H, W) % 5
    greys = np.array([200, 3, 90, 255, 17], np.uint8)
    image = Image.fromarray(numbers, mode="P")
    image.putpalette(np.repeat(greys, 3).tolist())
    image.save(tmp_path / "a.png", **({"transparency": 2} if erased else {}))
    scan = opened(tmp_path / "a.png")
    assert (scan.kind, scan.shape) == ("grey", (1, H, W))
    assert scan.remarks == (("alpha channel left out",) if erased else ())
    np.testing.assert_array_equal(whole(tmp_path / "a.png")[0], greys[numbers])


@pytest.mark.parametrize("mode", ["LA", "1", "PA"])
def test_rarer_png_modes_are_read_as_pillow_converts_them(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(noise(H, W)).convert("LA" if mode == "PA" else mode)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(whole(tmp_path / "a.png")[0], np.asarray(image.convert("L")))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG"])
def test_a_jpeg_is_read_as_pillow_reads_it(tmp_path: Path, channels: int, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(smooth(channels)).save(path, format="JPEG")
    with Image.open(path) as image:
        np.testing.assert_array_equal(whole(path), channel_first(np.asarray(image)))


def test_reading_leaves_pillows_own_limit_as_it_was(tmp_path: Path) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    (tmp_path / "a.png").write_bytes(b"no png")
    refusal(tmp_path / "a.png")
    assert limit == Image.MAX_IMAGE_PIXELS


# -- windows and regions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FILES)
def test_a_window_holds_what_the_whole_holds_there(tmp_path: Path, kind: str) -> None:
    path = FILES[kind](tmp_path)
    rng = np.random.default_rng(3)
    truth = whole(path)
    _, h, w = truth.shape
    with open_scan(path) as scan:
        for _ in range(20):
            y, x = int(rng.integers(h)), int(rng.integers(w))
            height, width = int(rng.integers(1, h - y + 1)), int(rng.integers(1, w - x + 1))
            np.testing.assert_array_equal(scan.read(y, x, height, width), truth[:, y : y + height, x : x + width])


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("window", [(-1, 0, 2, 2), (0, -1, 2, 2), (0, 0, 999, 2), (0, 0, 2, 999), (5, 5, -1, 2)])
def test_a_window_that_leaves_the_plane_is_never_read(
    tmp_path: Path, kind: str, window: tuple[int, int, int, int]
) -> None:
    with open_scan(FILES[kind](tmp_path)) as scan, pytest.raises((ValueError, ScanError), match="leaves the plane"):
        scan.read(*window)


@pytest.mark.parametrize("kind", FILES)
def test_a_region_is_a_part_of_the_plane_as_it_is_shown(tmp_path: Path, kind: str) -> None:
    path = FILES[kind](tmp_path)
    found = whole(path, region_px=(10, 60, 20, 70))
    np.testing.assert_array_equal(found, whole(path)[:, 10:60, 20:70])
    assert any("region" in remark for remark in opened(path, region_px=(10, 60, 20, 70)).remarks)
    with open_scan(path, region_px=(10, 60, 20, 70)) as scan:
        np.testing.assert_array_equal(scan.read(5, 6, 7, 8), found[:, 5:12, 6:14])
        with pytest.raises((ValueError, ScanError), match="leaves the plane"):
            scan.read(45, 0, 10, 10)


@pytest.mark.parametrize("region", [(0, H + 1, 0, 5), (0, 5, 0, W + 1), (900, 901, 0, 5)])
def test_a_region_beyond_the_plane_is_refused(tmp_path: Path, region: tuple[int, int, int, int]) -> None:
    assert "region_px" in refusal(FILES["tiled"](tmp_path), region_px=region)


# -- orientation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3])
def test_a_tiff_is_shown_as_its_orientation_tag_asks(tmp_path: Path, orientation: int, channels: int) -> None:
    pixels = noise(H, W, channels)[..., 0 if channels == 1 else slice(None)]
    path = tiff(
        tmp_path / "a.tif",
        pixels,
        photometric="minisblack" if channels == 1 else "rgb",
        tile=(32, 48),
        extratags=[(274, "H", 1, orientation, True)],
    )
    image = Image.fromarray(pixels)
    image.getexif()[274] = orientation
    np.testing.assert_array_equal(whole(path), channel_first(np.asarray(ImageOps.exif_transpose(image))))
    assert bool(opened(path).remarks) == (orientation != 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_shown_as_its_orientation_tag_asks(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(smooth(3)).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        np.testing.assert_array_equal(
            whole(tmp_path / "a.jpg"), channel_first(np.asarray(ImageOps.exif_transpose(image)))
        )


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_not_defined_is_refused(tmp_path: Path, orientation: int) -> None:
    path = tiff(tmp_path / "a.tif", noise(H, W), extratags=[(274, "H", 1, orientation, True)])
    assert "orientation" in refusal(path)
