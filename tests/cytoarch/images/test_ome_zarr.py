import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from ome_zarr.format import FormatV04, FormatV05
from zarr.storage import LocalStore

from cytoarch.errors import ScanError
from cytoarch.images import ome_zarr
from cytoarch.images.layout import Pyramid
from cytoarch.images.ngff import omero
from cytoarch.images.ome_zarr import is_ome_zarr, open_ome_zarr, store_files
from cytoarch.images.planes import Scan
from cytoarch.images.pyramids import write_group, write_pyramid
from cytoarch.records import Staging

with warnings.catch_warnings():  # the writer warns of a class of its own
    warnings.simplefilter("ignore", DeprecationWarning)
    from ome_zarr.writer import write_image

Array = NDArray[Any]
H, W = 150, 210
FORMATS = {"0.4": FormatV04(), "0.5": FormatV05()}
SIZES = {"t": 2, "c": 3, "z": 4, "y": H, "x": W}


def noise(*shape: int, dtype: str = "uint8") -> Array:
    return np.random.default_rng(11).integers(1, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def write(
    path: Path,
    pixels: Array,
    axes: str,
    version: str = "0.5",
    *,
    unit: str | None = "micrometer",
    scale: float = 0.5,
    chunk: int = 64,
    storage: Any = None,
    **metadata: Any,
) -> Path:
    """A store as ome-zarr-py writes it."""
    zarr_format = 2 if version == "0.4" else 3
    group = zarr.open_group(LocalStore(path), mode="w", zarr_format=zarr_format)
    kinds = {"t": "time", "c": "channel"}
    stated = [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes]
    write_image(
        pixels,
        group,
        axes=stated,
        fmt=FORMATS[version],
        axes_units={"y": unit, "x": unit} if unit else None,
        scale_factors=[2],
        scale={axis: scale if axis in "yx" else 1.0 for axis in axes},
        storage_options={"chunks": tuple(chunk if axis in "yx" else 1 for axis in axes), **(storage or {})},
        **metadata,
    )
    return path


def whole(path: Path, plane_index: int | None = None) -> tuple[Scan, Array]:
    scan = open_ome_zarr(path, plane_index)
    pixels = scan.read(0, 0, *scan.shape[1:])
    assert pixels.shape == scan.shape
    assert pixels.dtype == scan.dtype
    assert pixels.dtype.isnative
    return scan, pixels


def refusal(path: Path, plane_index: int | None = None) -> str:
    with pytest.raises(ScanError) as caught:
        whole(path, plane_index)
    assert str(path) in str(caught.value)
    return str(caught.value)


def metadata_of(path: Path, version: str) -> tuple[Path, Callable[[Any], Any]]:
    """The file with the attributes of a group, and how to reach them."""
    if version == "0.4":
        return path / ".zattrs", lambda content: content
    return path / "zarr.json", lambda content: content["attributes"]["ome"]


def change(path: Path, version: str, edit: Callable[[Any], None]) -> Path:
    """Edit the attributes of a group."""
    file, reach = metadata_of(path, version)
    content = json.loads(file.read_text())
    edit(reach(content))
    file.write_text(json.dumps(content))
    return path


def edit_array(path: Path, version: str, edit: Callable[[Any], None]) -> Path:
    """Edit the metadata of the array of the full resolution."""
    file = level(path) / (".zarray" if version == "0.4" else "zarr.json")
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    return path


def level(path: Path) -> Path:
    """The folder of the full resolution."""
    version = "0.5" if (path / "zarr.json").exists() else "0.4"
    file, reach = metadata_of(path, version)
    return path / str(reach(json.loads(file.read_text()))["multiscales"][0]["datasets"][0]["path"])


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
    mark = {"bioformats2raw.layout": 3}
    ome = mark if version == "0.4" else {"ome": {**mark, "version": "0.5"}}
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


# -- absent and damaged chunks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", FORMATS)
def test_absent_chunks_of_the_plane_are_counted_in_a_remark(tmp_path: Path, version: str) -> None:
    path = write(tmp_path / "a.zarr", noise(2, 2, H, W), "tcyx", version)
    chunks = [file for file in level(path).rglob("*") if file.is_file() and file.name.isdecimal()]
    assert len(chunks) == 2 * 2 * 12
    folder = level(path) / "c" if version == "0.5" else level(path)
    (folder / "1" / "0" / "2" / "3").unlink()
    (folder / "1" / "1" / "0" / "0").unlink()
    (folder / "0" / "1" / "0" / "0").rename(folder / "0" / "1" / "0" / "00")
    assert open_ome_zarr(path, 0).remarks == ("1 of 24 chunks are absent and read as 0",)
    scan, found = whole(path, 1)
    assert scan.remarks == ("2 of 24 chunks are absent and read as 0",)
    assert not found[0, 128:, 192:].any()
    for t in ("0", "1"):
        shutil.rmtree(folder / t)
    assert "none of its chunks" in refusal(path, 0)


def test_absent_shards_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", noise(H, W), "yx", "0.5", storage={"shards": (128, 128)})
    (level(path) / "c" / "1" / "1").unlink()
    assert open_ome_zarr(path, None).remarks == ("1 of 4 shards are absent and read as 0",)


@pytest.mark.parametrize("version", FORMATS)
def test_a_truncated_chunk_is_refused_when_it_is_read(tmp_path: Path, version: str) -> None:
    path = write(tmp_path / "a.zarr", noise(H, W), "yx", version)
    file = (level(path) / "c" if version == "0.5" else level(path)) / "1" / "1"
    file.write_bytes(file.read_bytes()[:-100])
    scan = open_ome_zarr(path, None)
    assert scan.read(0, 0, 64, 64).any()
    with pytest.raises(ScanError, match="cannot be read"):
        scan.read(0, 0, H, W)


# -- hostile stores ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize(
    "key", ["../b.zarr/s0", "/etc", "s0/..", "", ".", "s3://b/s0", "file:s0", "a\\b", "x::y", 7, None]
)
def test_a_dataset_path_out_of_the_store_is_refused(tmp_path: Path, version: str, key: object) -> None:
    write(tmp_path / "b.zarr", noise(H, W), "yx", version)
    path = write(tmp_path / "a.zarr", noise(H, W), "yx", version)
    change(path, version, lambda ome: ome["multiscales"][0]["datasets"][0].update(path=key))
    assert "below the store" in refusal(path)


def test_a_series_out_of_the_store_is_refused(staging: Staging, tmp_path: Path) -> None:
    write(tmp_path / "b.zarr", noise(H, W), "yx")
    write_group(staging, "", {"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
    write_group(staging, "OME", {"ome": {"version": "0.5", "series": ["../b.zarr"]}})
    assert "below the store" in refusal(staging.path)


@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize("what", ["level", "chunk", "array metadata", "group metadata"])
def test_a_link_out_of_the_store_is_refused(tmp_path: Path, version: str, what: str) -> None:
    other = write(tmp_path / "b.zarr", noise(H, W), "yx", version)
    path = write(tmp_path / "a.zarr", noise(H, W), "yx", version)
    chunk = "0/0" if version == "0.4" else "c/0/0"
    names = {
        "level": level(path),
        "chunk": level(path) / chunk,
        "array metadata": level(path) / (".zarray" if version == "0.4" else "zarr.json"),
        "group metadata": metadata_of(path, version)[0],
    }
    place = names[what]
    target = other / place.relative_to(path)
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    place.symlink_to(target)
    assert "below the store" in refusal(path) if what == "level" else "link" in refusal(path)
    with pytest.raises(ScanError, match="link"):
        list(store_files(path))


def test_links_inside_a_store_are_followed_to_files_only(tmp_path: Path) -> None:
    pixels = noise(H, W)
    path = write(tmp_path / "a.zarr", pixels, "yx")
    chunk = level(path) / "c" / "0" / "0"
    chunk.rename(path / "kept")
    chunk.symlink_to(path / "kept")
    np.testing.assert_array_equal(whole(path)[1][0], pixels)
    (path / "again").symlink_to(path)
    with pytest.raises(ScanError, match="again"):
        list(store_files(path))


def test_a_pipe_in_a_store_does_not_block(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", noise(H, W), "yx")
    chunk = level(path) / "c" / "0" / "0"
    chunk.unlink()
    os.mkfifo(chunk)
    assert "no file" in refusal(path)


def test_a_store_reached_through_a_link_is_read(tmp_path: Path) -> None:
    pixels = noise(H, W)
    write(tmp_path / "a.zarr", pixels, "yx")
    (tmp_path / "b.zarr").symlink_to(tmp_path / "a.zarr")
    np.testing.assert_array_equal(whole(tmp_path / "b.zarr")[1][0], pixels)
    assert len(list(store_files(tmp_path / "b.zarr"))) == len(list(store_files(tmp_path / "a.zarr")))


def test_every_file_of_a_store_is_listed_once_in_a_fixed_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", noise(3, H, W), "cyx")
    listed = list(store_files(path))
    assert sorted(listed) == sorted(file for file in path.rglob("*") if file.is_file())
    shutil.copytree(path, tmp_path / "b.zarr")
    again = [file.relative_to(tmp_path / "b.zarr") for file in store_files(tmp_path / "b.zarr")]
    assert again == [file.relative_to(path) for file in listed]


def test_codecs_that_could_run_code_are_refused_before_zarr_sees_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", noise(H, W), "yx", "0.4")
    edit_array(path, "0.4", lambda array: array.update(filters=[{"id": "pickle"}]))
    assert "encoded" in refusal(path)
    edit_array(path, "0.4", lambda array: array.update(filters=None, compressor={"id": "pickle"}))
    assert "encoded by pickle" in refusal(path)
    path = write(tmp_path / "b.zarr", noise(H, W), "yx", "0.5")
    edit_array(path, "0.5", lambda array: array["codecs"].append({"name": "numcodecs.pickle"}))
    assert "encoded by" in refusal(path)


@pytest.mark.parametrize("version", FORMATS)
def test_chunks_that_decode_to_too_much_or_too_little_are_refused(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.zarr", noise(H, W), "yx", version, chunk=16)
    assert "at least 1024" in refusal(path)
    monkeypatch.setattr(ome_zarr, "MIN_CHUNK_PX", 256)
    whole(path)
    monkeypatch.setattr(ome_zarr, "MAX_TILE_BYTES", 255)
    assert "chunks decode to 256 bytes" in refusal(path)


def test_the_inner_chunks_of_shards_are_what_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.zarr", noise(H, W), "yx", storage={"shards": (256, 256)})
    monkeypatch.setattr(ome_zarr, "MAX_TILE_BYTES", 64 * 64)
    whole(path)
    monkeypatch.setattr(ome_zarr, "MAX_INNER_CHUNKS", 15)
    assert "hold more than 15" in refusal(path)
    monkeypatch.setattr(ome_zarr, "MAX_INNER_CHUNKS", 16)
    monkeypatch.setattr(ome_zarr, "MAX_TILE_BYTES", 64 * 64 - 1)
    assert "chunks decode" in refusal(path)


@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize("dtype", ["int16", "float32", "uint32", "int8"])
def test_pixels_that_are_not_unsigned_and_short_are_refused(tmp_path: Path, version: str, dtype: str) -> None:
    path = write(tmp_path / "a.zarr", noise(H, W).astype(dtype), "yx", version)
    assert "8- or 16-bit" in refusal(path)


@pytest.mark.parametrize("version", FORMATS)
def test_axes_that_are_no_image_are_refused(tmp_path: Path, version: str) -> None:
    path = write(tmp_path / "a.zarr", noise(3, H, W), "cyx", version)
    for names in ("cyy", "czx", "qyx", "yx"):
        stated = [{"name": name, "type": "space"} for name in names]
        change(path, version, lambda ome, stated=stated: ome["multiscales"][0].update(axes=stated))
        assert "axes" in refusal(path)


@pytest.mark.parametrize("version", FORMATS)
def test_metadata_of_any_kind_are_refused_with_the_one_error(tmp_path: Path, version: str) -> None:
    path = write(tmp_path / "a.zarr", noise(H, W), "yx", version)
    file, _ = metadata_of(path, version)
    array_file = level(path) / (".zarray" if version == "0.4" else "zarr.json")
    good = file.read_bytes(), array_file.read_bytes()
    bodies = [b"", b"{", b"[]", b"null", b"{}", b'{"multiscales": 3}', b'{"attributes": []}', b"[" * 100_000, b"\xff"]
    bodies += [b'{"multiscales": [{"datasets": []}]}', b'{"attributes": {"ome": {"version": "0.5", "plate": {}}}}']
    for body in bodies:
        file.write_bytes(body)
        refusal(path)
    file.write_bytes(good[0])
    for body in bodies:
        array_file.write_bytes(body)
        refusal(path)
    for key, value in (("shape", [0, 5]), ("shape", [10**9, 10**9]), ("shape", ["a", 1]), ("shape", [-1, 5])):
        array_file.write_text(json.dumps({**json.loads(good[1]), key: value}))
        refusal(path)


@pytest.mark.parametrize(("version", "stated"), [("0.4", "0.1"), ("0.5", "0.6"), ("0.5", None)])
def test_other_versions_are_refused(tmp_path: Path, version: str, stated: str | None) -> None:
    path = write(tmp_path / "a.zarr", noise(H, W), "yx", version)
    if version == "0.4":
        change(path, version, lambda ome: ome["multiscales"][0].update(version=stated))
    else:
        change(path, version, lambda ome: ome.update(version=stated))
    assert "0.4 in Zarr v2 or 0.5 in Zarr v3" in refusal(path)


def test_metadata_that_are_too_long_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.zarr", noise(H, W), "yx")
    monkeypatch.setattr(ome_zarr, "MAX_METADATA_BYTES", 100)
    assert "more than 100 bytes" in refusal(path)


def test_consolidated_metadata_are_ignored(tmp_path: Path) -> None:
    pixels = noise(H, W)
    path = write(tmp_path / "a.zarr", pixels, "yx", "0.4")
    (path / ".zmetadata").write_text(json.dumps({"metadata": {".zattrs": {}}, "zarr_consolidated_format": 1}))
    np.testing.assert_array_equal(whole(path)[1][0], pixels)


def test_folders_that_are_no_stores_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        refusal(path)
        assert not is_ome_zarr(path)
