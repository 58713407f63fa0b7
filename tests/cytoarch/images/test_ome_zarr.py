"""OME-Zarr stores as scans: what others and we write is read bit for bit."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from known_scans import noise
from known_stores import FORMATS, SIZES, H, W, change, level, metadata, refusal, whole, write
from zarr.storage import LocalStore

from cytoarch.images.layout import Pyramid
from cytoarch.images.ngff import omero
from cytoarch.images.ome_zarr import is_ome_zarr, open_ome_zarr
from cytoarch.images.pyramids import write_group, write_pyramid
from cytoarch.images.scans import is_scan, open_scan, scan_files
from cytoarch.store.staging import Staging

# -- what others write -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("axes", ["yx", "cyx", "zyx", "czyx", "tyx", "tczyx"])
def test_every_plane_of_any_axes_is_read_bit_for_bit(tmp_path: Path, version: str, dtype: str, axes: str) -> None:
    pixels = noise(*(SIZES[axis] for axis in axes), dtype=dtype)
    path = write(tmp_path / "a.zarr", pixels, axes, version)
    others = [axis for axis in axes if axis in "tz"]
    planes = np.moveaxis(pixels, axes.index("c"), -3) if "c" in axes else pixels[..., None, :, :]
    planes = planes.reshape(-1, *planes.shape[-3:])
    if others:
        assert f"stack of {len(planes)} planes" in refusal(path)
    for index, expected in enumerate(planes):
        scan, found = whole(path, index if others else None)
        np.testing.assert_array_equal(found, expected)
        assert scan.kind == ("multichannel" if "c" in axes else "grey")
        assert scan.remarks == ()
        assert [(one.source, one.value_um) for one in scan.stated_pixel_sizes] == [("ngff", 0.5)]
    assert f"plane_index is {len(planes)}" in refusal(path, len(planes))


@pytest.mark.parametrize("version", FORMATS)
def test_any_window_is_that_part_of_the_plane(tmp_path: Path, version: str) -> None:
    pixels = noise(3, H, W)
    scan = open_ome_zarr(write(tmp_path / "a.zarr", pixels, "cyx", version), None)
    for y, x, h, w in ((0, 0, 1, 1), (H - 1, W - 1, 1, 1), (60, 60, 10, 100), (0, 0, H, W)):
        np.testing.assert_array_equal(scan.read(y, x, h, w), pixels[:, y : y + h, x : x + w])


@pytest.mark.parametrize("storage", [{"shards": (1, 128, 128)}, {"compressors": None}])
def test_shards_and_plain_chunks_are_read(tmp_path: Path, storage: Any) -> None:
    pixels = noise(3, H, W, dtype="uint16")
    path = write(tmp_path / "a.zarr", pixels, "cyx", "0.5", storage=storage)
    np.testing.assert_array_equal(whole(path)[1], pixels)


def test_a_flat_store_and_big_endian_pixels_are_read(tmp_path: Path) -> None:
    pixels = noise(H, W, dtype="uint16")
    path = write(tmp_path / "a.zarr", pixels, "yx", "0.4")
    key = level(path).name
    shutil.rmtree(level(path))
    array = zarr.create_array(
        LocalStore(path),
        name=key,
        shape=pixels.shape,
        chunks=(64, 64),
        dtype=">u2",
        zarr_format=2,
        chunk_key_encoding={"name": "v2", "separator": "."},
    )
    array[:] = pixels
    scan, found = whole(path)
    assert scan.remarks == ()
    np.testing.assert_array_equal(found[0], pixels)
    (level(path) / "1.1").unlink()
    assert open_ome_zarr(path, None).remarks == ("1 of 12 chunks are absent and read as 0",)


COLOURS = [{"color": colour} for colour in ("FF0000", "00FF00", "0000FF")]


@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize(
    ("model", "dtype", "colours", "kind"),
    [
        ("color", "uint8", COLOURS, "rgb"),
        ("color", "uint16", COLOURS, "multichannel"),
        ("greyscale", "uint8", COLOURS, "multichannel"),
        ("color", "uint8", COLOURS[::-1], "multichannel"),
    ],
)
def test_three_channels_are_rgb_where_omero_says_so(
    tmp_path: Path, version: str, model: str, dtype: str, colours: Any, kind: str
) -> None:
    path = write(tmp_path / "a.zarr", noise(3, H, W, dtype=dtype), "cyx", version)
    change(path, version, lambda ome: ome.update(omero={"rdefs": {"model": model}, "channels": colours}))
    assert open_ome_zarr(path, None).kind == kind


# -- what we write -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_our_own_images_are_read(staging: Staging, dtype: str, channels: int) -> None:
    pixels = noise(channels, H, W, dtype=dtype)
    pyramid = Pyramid(pixels.shape, pixels.dtype, 1.25, "mean", levels=2, chunk=32, shard=64)
    rgb = channels == 3 and dtype == "uint8"
    attributes = {"omero": omero(channels, rgb, (0.0, 255.0))}
    for folder in ("", "image"):
        write_pyramid(
            staging,
            pyramid,
            lambda y, x, h, w: pixels[:, y : y + h, x : x + w],
            name="a",
            folder=folder,
            attributes=attributes,
        )
        scan, found = whole(staging.path / folder)
        assert scan.kind == ("rgb" if rgb else "grey" if channels == 1 else "multichannel")
        assert [one.value_um for one in scan.stated_pixel_sizes] == [1.25]
        assert scan.remarks == ()
        np.testing.assert_array_equal(found, pixels)


# -- pixel sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize(
    ("unit", "scale", "sizes"),
    [
        ("micrometer", 0.5, [0.5]),
        ("nanometer", 500.0, [0.5]),
        ("millimeter", 5e-4, [0.5]),
        ("meter", 5e-7, [0.5]),
        (None, 0.5, []),
        ("parsec", 0.5, []),
        ("micrometer", 0.0, []),
        ("micrometer", -1.0, []),
    ],
)
def test_a_pixel_size_is_stated_with_a_unit_or_not_at_all(
    tmp_path: Path, version: str, unit: str | None, scale: float, sizes: list[float]
) -> None:
    path = write(tmp_path / "a.zarr", noise(H, W), "yx", version, unit=unit, scale=1.0)

    def rescale(ome: Any) -> None:
        ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] = [scale, scale]

    change(path, version, rescale)
    assert [one.value_um for one in open_ome_zarr(path, None).stated_pixel_sizes] == pytest.approx(sizes)


@pytest.mark.parametrize("version", FORMATS)
def test_levels_of_any_factor_that_lie_anywhere_are_read_in_millimetres(tmp_path: Path, version: str) -> None:
    """Levels a third of each other's edges, each with a translation; the largest is the scan wherever it lies."""
    pixels = noise(H, W)
    path = write(tmp_path / "a.zarr", pixels, "yx", version, scale=0.0021, unit="millimeter")
    write(tmp_path / "b.zarr", np.ascontiguousarray(pixels[1::3, 1::3]), "yx", version)
    first = metadata(path, version)["multiscales"][0]["datasets"][0]["path"]
    shutil.copytree(tmp_path / "b.zarr" / first, path / "third")

    def add_level(ome: Any) -> None:
        datasets = ome["multiscales"][0]["datasets"][:1]
        place = [{"type": "scale", "scale": [0.0063] * 2}, {"type": "translation", "translation": [0.0021] * 2}]
        datasets[0]["coordinateTransformations"].append({"type": "translation", "translation": [5.0, 7.0]})
        ome["multiscales"][0]["datasets"] = [*datasets, {"path": "third", "coordinateTransformations": place}]

    change(path, version, add_level)
    (path / first / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    scan, found = whole(path)
    np.testing.assert_array_equal(found[0], pixels)
    assert scan.remarks == ()
    assert [one.value_um for one in scan.stated_pixel_sizes] == [pytest.approx(2.1)]


@pytest.mark.parametrize("version", FORMATS)
def test_scales_of_the_multiscale_and_its_level_multiply(tmp_path: Path, version: str) -> None:
    path = write(tmp_path / "a.zarr", noise(3, H, W), "cyx", version, scale=2.0)
    outer = [{"type": "scale", "scale": [1.0, 0.25, 0.25]}, {"type": "translation", "translation": [0.0, 7.0, 7.0]}]
    change(path, version, lambda ome: ome["multiscales"][0].update(coordinateTransformations=outer))
    assert [one.value_um for one in open_ome_zarr(path, None).stated_pixel_sizes] == [0.5]
    outer[0]["scale"] = [1.0, 0.25, 0.5]
    change(path, version, lambda ome: ome["multiscales"][0].update(coordinateTransformations=outer))
    assert "not square" in refusal(path)


# -- collections -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize("series", [False, True])
def test_a_collection_of_one_image_is_that_image_and_of_several_is_refused(
    tmp_path: Path, version: str, series: bool
) -> None:
    root = tmp_path / "a.zarr"
    zarr_format = 2 if version == "0.4" else 3
    collection = {"bioformats2raw.layout": 3}
    ome = collection if version == "0.4" else {"ome": {**collection, "version": "0.5"}}
    zarr.open_group(LocalStore(root), mode="w", zarr_format=zarr_format, attributes=ome)
    pixels = noise(H, W)
    write(root / "0", pixels, "yx", version)
    names = ["0"]

    def state() -> None:
        stated = {"series": names} if version == "0.4" else {"ome": {"version": "0.5", "series": names}}
        zarr.open_group(LocalStore(root / "OME"), mode="w", zarr_format=zarr_format, attributes=stated)

    if series:
        state()
    np.testing.assert_array_equal(whole(root)[1][0], pixels)
    write(root / "1", noise(H, W), "yx", version)
    names = ["0", "1"]
    if series:
        state()
    assert "2 images; name the folder of one of them as path: 0, 1" in refusal(root)
    assert is_ome_zarr(root / "1")
    np.testing.assert_array_equal(whole(root / "0")[1][0], pixels)


@pytest.mark.parametrize("version", FORMATS)
def test_an_image_of_a_collection_is_a_scan_as_the_refusal_advises(tmp_path: Path, version: str) -> None:
    """Its folder has no suffix; folders below it, or outside of any store, are no scans."""
    pixels = noise(H, W)
    write(tmp_path / "a.zarr" / "1", pixels, "yx", version)
    write(tmp_path / "elsewhere", pixels, "yx", version)
    image = tmp_path / "a.zarr" / "1"
    assert is_scan(image)
    assert scan_files(image) == sorted(one for one in image.rglob("*") if one.is_file())
    with open_scan(image) as scan:
        np.testing.assert_array_equal(scan.read(0, 0, H, W)[0], pixels)
    for other in (tmp_path / "elsewhere", tmp_path / "a.zarr" / "2", tmp_path / "a.zarr" / "1" / "zarr.json"):
        assert not is_scan(other)


def test_a_collection_as_our_stores_have_is_followed(staging: Staging) -> None:
    write_group(staging, "", {"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
    write_group(staging, "OME", {"ome": {"version": "0.5", "series": ["s-001"]}})
    pixels = noise(3, H, W)
    pyramid = Pyramid(pixels.shape, pixels.dtype, 1.0, "mean")
    write_pyramid(staging, pyramid, lambda y, x, h, w: pixels[:, y : y + h, x : x + w], name="a", folder="s-001")
    np.testing.assert_array_equal(whole(staging.path)[1], pixels)


@pytest.mark.parametrize("version", FORMATS)
def test_the_first_of_several_multiscales_is_taken(tmp_path: Path, version: str) -> None:
    pixels = noise(H, W)
    path = write(tmp_path / "a.zarr", pixels, "yx", version)
    change(path, version, lambda ome: ome["multiscales"].append({"axes": [], "datasets": []}))
    scan, found = whole(path)
    assert scan.remarks == ("first of 2 multiscales",)
    np.testing.assert_array_equal(found[0], pixels)


def two_multiscales(path: Path, version: str, first: Any, second: Any) -> Path:
    """A store whose second multiscale is an image of its own, with pixels of half the size (um)."""
    write(path, first, "yx", version, scale=1.0)
    write(path / "other", second, "yx", version, scale=0.5)
    multiscale = metadata(path / "other", version)["multiscales"][0]
    for dataset in multiscale["datasets"]:
        dataset["path"] = f"other/{dataset['path']}"
    return change(path, version, lambda ome: ome["multiscales"].append(multiscale))


@pytest.mark.parametrize("version", FORMATS)
def test_the_largest_multiscale_is_taken_where_the_first_can_only_be_its_thumbnail(
    tmp_path: Path, version: str
) -> None:
    pixels, small = noise(H, W), noise(H // 2, W // 2, seed=1)
    scan, found = whole(two_multiscales(tmp_path / "a.zarr", version, small, pixels))
    np.testing.assert_array_equal(found[0], pixels)
    assert [one.value_um for one in scan.stated_pixel_sizes] == [0.5]
    assert scan.remarks == ("largest (number 1, from 0) of 2 multiscales",)


@pytest.mark.parametrize("version", FORMATS)
def test_a_first_multiscale_that_is_a_little_smaller_is_refused_and_both_are_listed(
    tmp_path: Path, version: str
) -> None:
    text = refusal(two_multiscales(tmp_path / "a.zarr", version, noise(H - 9, W), noise(H, W)))
    assert "2 multiscales of 141 x 210, 150 x 210 pixels" in text
    assert "first in its metadata" in text


@pytest.mark.parametrize("version", FORMATS)
def test_of_multiscales_of_one_size_the_first_is_taken(tmp_path: Path, version: str) -> None:
    pixels = noise(H, W)
    scan, found = whole(two_multiscales(tmp_path / "a.zarr", version, pixels, noise(H, W, seed=1)))
    np.testing.assert_array_equal(found[0], pixels)
    assert scan.remarks == ("first of 2 multiscales",)


@pytest.mark.parametrize("version", FORMATS)
def test_levels_in_the_wrong_order_are_read_at_full_resolution(tmp_path: Path, version: str) -> None:
    pixels = noise(H, W)
    path = write(tmp_path / "a.zarr", pixels, "yx", version, scale=0.5)
    change(path, version, lambda ome: ome["multiscales"][0]["datasets"].reverse())
    scan, found = whole(path)
    np.testing.assert_array_equal(found[0], pixels)
    assert [one.value_um for one in scan.stated_pixel_sizes] == [0.5]
    assert scan.remarks == ("its levels are not in order: level 1 is the full resolution",)


@pytest.mark.parametrize("version", FORMATS)
def test_a_smaller_level_never_stands_in_for_one_that_is_missing(tmp_path: Path, version: str) -> None:
    path = write(tmp_path / "a.zarr", noise(H, W), "yx", version)
    shutil.rmtree(level(path))
    assert "full resolution is missing" in refusal(path)


@pytest.mark.parametrize("version", FORMATS)
def test_a_store_copied_without_its_smaller_levels_is_read(tmp_path: Path, version: str) -> None:
    pixels = noise(H, W)
    path = write(tmp_path / "a.zarr", pixels, "yx", version)
    shutil.rmtree(path / metadata(path, version)["multiscales"][0]["datasets"][1]["path"])
    np.testing.assert_array_equal(whole(path)[1][0], pixels)
