import itertools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cytoarch.errors import ScanError
from cytoarch.images.planes import Scan
from cytoarch.images.scans import SUFFIXES, open_scan, read_labels
from cytoarch.images.tiff import ome_pixel_size_um

Array = NDArray[Any]
H, W = 75, 101


def noise(*shape: int, dtype: str = "uint8") -> Array:
    return np.random.default_rng(7).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def smooth(channels: int) -> Array:
    """What JPEG keeps to within a few grey values: (y, x) or (y, x, c) uint8."""
    y, x = np.mgrid[:H, :W]
    planes = np.stack([60 + 40 * c + 50 * np.sin((y + c) / 20) * np.cos(x / 25) for c in range(channels)], axis=-1)
    return planes.astype(np.uint8)[..., 0] if channels == 1 else planes.astype(np.uint8)


def whole(path: Path, **options: Any) -> Array:
    with open_scan(path, **options) as scan:
        c, h, w = scan.shape
        pixels = scan.read(0, 0, h, w)
        assert pixels.shape == (c, h, w)
        assert pixels.dtype == scan.dtype
        return pixels


def opened(path: Path, **options: Any) -> Scan:
    with open_scan(path, **options) as scan:
        return scan


def refusal(path: Path, **options: Any) -> str:
    """The text of the one error with which a file is refused, when it is opened or read."""
    with pytest.raises(ScanError) as caught:
        whole(path, **options)
    assert str(path) in str(caught.value)
    return str(caught.value)


def read_or_refused(path: Path) -> Array | None:
    """The pixels, or None where the file is refused with the one error that names it."""
    try:
        return whole(path)
    except ScanError as error:
        text = str(error)
    assert str(path) in text
    return None


def tiff(path: Path, pixels: Array, **options: Any) -> Path:
    tifffile.imwrite(path, pixels, **{"metadata": None, **options})
    return path


def channel_first(pixels: Array) -> Array:
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


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
    for bigtiff, byteorder in itertools.product((False, True), "<>"):
        path = tiff(tmp_path / f"a{suffix}", pixels, bigtiff=bigtiff, byteorder=byteorder, tile=(32, 32))
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

FILES: dict[str, Callable[[Path], Path]] = {
    "tiled": lambda folder: tiff(
        folder / "a.tif", noise(H, W, 3), photometric="rgb", tile=(32, 48), compression="zlib"
    ),
    "striped": lambda folder: tiff(folder / "a.tif", noise(H, W, dtype="uint16"), rowsperstrip=7),
    "jpeg": lambda folder: tiff(folder / "a.tif", smooth(3), photometric="rgb", tile=(32, 48), compression="jpeg"),
    "turned": lambda folder: tiff(
        folder / "a.tif", noise(H, W, 3), photometric="rgb", tile=(32, 48), extratags=[(274, "H", 1, 6, True)]
    ),
    "planar": lambda folder: tiff(folder / "a.tif", noise(3, H, W), photometric="rgb", planarconfig="separate"),
    "png": lambda folder: (Image.fromarray(noise(H, W, 4)).save(folder / "a.png"), folder / "a.png")[1],
}


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


# -- files that are not what they should be ----------------------------------------------------------------------------


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


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "int8", "uint32", "complex64"])
def test_pixels_that_are_not_8_or_16_bit_unsigned_are_refused(tmp_path: Path, dtype: str) -> None:
    path = tiff(tmp_path / "a.tif", np.zeros((H, W), dtype=dtype), photometric="minisblack")
    assert dtype in refusal(path)


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


# -- pixel sizes -------------------------------------------------------------------------------------------------------


def stated(path: Path) -> list[tuple[str, float]]:
    return [(one.source, pytest.approx(one.value_um)) for one in opened(path).stated_pixel_sizes]


@pytest.mark.parametrize(("unit", "per_um"), [("CENTIMETER", 1e4), ("INCH", 25400.0)])
def test_resolution_tags_in_cm_and_inches_say_the_same(tmp_path: Path, unit: str, per_um: float) -> None:
    path = tiff(tmp_path / "a.tif", noise(H, W), resolution=(per_um / 0.5, per_um / 0.5), resolutionunit=unit)
    assert stated(path) == [("tiff-tag", 0.5)]


def test_resolution_without_a_unit_or_of_zero_states_nothing(tmp_path: Path) -> None:
    for number, options in enumerate(
        (
            {"resolution": (2, 2), "resolutionunit": "NONE"},
            {"resolution": ((0, 1), (0, 1)), "resolutionunit": "INCH"},
            {},
        )
    ):
        assert stated(tiff(tmp_path / f"{number}.tif", noise(H, W), **options)) == []


@pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m"])
def test_imagej_files_state_their_unit_in_their_own_way(tmp_path: Path, unit: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(H, W), imagej=True, resolution=(2, 2), metadata={"unit": unit})
    assert stated(path) == [("tiff-tag", 0.5)]


@pytest.mark.parametrize(("unit", "value"), [("µm", 0.5), ("nm", 500.0), ("mm", 5e-4)])
def test_ome_tiff_states_its_pixel_size_in_any_unit(tmp_path: Path, unit: str, value: float) -> None:
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "YX", "PhysicalSizeX": value, "PhysicalSizeXUnit": unit}
    tifffile.imwrite(path, noise(H, W), metadata={**metadata, "PhysicalSizeY": value, "PhysicalSizeYUnit": unit})
    assert stated(path) == [("ome-xml", 0.5)]


def test_the_vendors_statement_is_read_between_ome_xml_and_the_tags(tmp_path: Path) -> None:
    path = tiff(
        tmp_path / "a.svs",
        noise(H, W, 3),
        photometric="rgb",
        description="Aperio Image|AppMag = 20|MPP = 0.4990|Left = 3",
        resolution=(2e4, 2e4),
        resolutionunit="CENTIMETER",
    )
    assert stated(path) == [("vendor", 0.499), ("tiff-tag", 0.5)]


def test_pixels_that_are_not_square_are_refused(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", noise(H, W), resolution=(2e4, 1e4), resolutionunit="CENTIMETER")
    assert "not square" in refusal(path)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, noise(H, W), metadata={"axes": "YX", "PhysicalSizeX": 1.0, "PhysicalSizeY": 2.0})
    assert "not square" in refusal(path)


OME = '<OME><Image><Pixels PhysicalSizeX="{}" PhysicalSizeXUnit="{}" {}/></Image></OME>'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OME.format("0.5", "µm", ""), 0.5),
        (OME.format("0.5", "\u03bcm", ""), 0.5),
        (OME.format("0.5", "furlong", ""), None),
        (OME.format("0", "µm", ""), None),
        (OME.format("-1", "µm", ""), None),
        (OME.format("nan", "µm", ""), None),
        (OME.format("half", "µm", ""), None),
        (OME.format("500", "nm", 'PhysicalSizeY="0.5" PhysicalSizeYUnit="µm"'), 0.5),
        ("<OME/>", None),
        ("no xml", None),
        ("", None),
    ],
)
def test_ome_xml_states_a_size_or_nothing(text: str, expected: float | None) -> None:
    assert ome_pixel_size_um(text) == (None if expected is None else pytest.approx(expected))


def test_an_entity_bomb_and_an_external_entity_in_ome_xml_do_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0.25")
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    bomb = (
        f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY l0 "0.5">{levels}]>'
        '<OME><Pixels PhysicalSizeX="1">&l11;</Pixels></OME>'
    )
    outside = (
        f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY x SYSTEM "{secret.as_uri()}">]>'
        '<OME><Image><Pixels PhysicalSizeX="1"/><Name>&x;</Name></Image></OME>'
    )
    for number, text in enumerate((bomb, outside)):
        assert ome_pixel_size_um(text) is None
        path = tiff(tmp_path / f"{number}.ome.tif", noise(H, W), description=text)
        if read_or_refused(path) is not None:
            assert "ome-xml" not in [source for source, _ in stated(path)]


# -- label images ------------------------------------------------------------------------------------------------------


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
