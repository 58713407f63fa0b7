"""OME-Zarr stores that are damaged or hostile."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from known_scans import noise
from known_stores import FORMATS, H, W, change, edit_array, level, metadata_of, refusal, whole, write

from cytoarch.errors import ScanError
from cytoarch.images import store_folders, zarr_arrays
from cytoarch.images.ome_zarr import is_ome_zarr, open_ome_zarr
from cytoarch.images.pyramids import write_group
from cytoarch.images.store_folders import store_files
from cytoarch.store.staging import Staging

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


@pytest.mark.parametrize("version", FORMATS)
def test_absent_chunks_of_several_planes_are_counted_for_each_of_them(tmp_path: Path, version: str) -> None:
    path = write(tmp_path / "a.zarr", noise(4, H, W), "zyx", version, storage={"chunks": (2, 64, 64)})
    folder = level(path) / "c" if version == "0.5" else level(path)
    (folder / "1" / "0" / "0").unlink()
    remarks = [open_ome_zarr(path, index).remarks for index in range(4)]
    assert remarks == [(), (), *[("1 of 12 chunks are absent and read as 0",)] * 2]


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


@pytest.mark.parametrize("version", FORMATS)
def test_what_a_desktop_leaves_in_a_store_is_no_part_of_it(tmp_path: Path, version: str) -> None:
    """Its digest would change whenever somebody looks into its folders, and with it all that was made of it."""
    pixels = noise(3, H, W)
    path = write(tmp_path / "a.zarr", pixels, "cyx", version)
    listed = list(store_files(path))
    for folder in [path, *(one for one in path.rglob("*") if one.is_dir())]:
        for name in (".DS_Store", "._zarr.json", "Thumbs.db"):
            (folder / name).write_bytes(b"\0\0\0\1Bud1")
    assert list(store_files(path)) == listed
    scan, found = whole(path)
    np.testing.assert_array_equal(found, pixels)
    assert scan.remarks == ()


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
    monkeypatch.setattr(zarr_arrays, "MIN_CHUNK_PX", 256)
    whole(path)
    monkeypatch.setattr(zarr_arrays, "MAX_TILE_BYTES", 255)
    assert "chunks decode to 256 bytes" in refusal(path)


def test_the_inner_chunks_of_shards_are_what_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.zarr", noise(H, W), "yx", storage={"shards": (256, 256)})
    monkeypatch.setattr(zarr_arrays, "MAX_TILE_BYTES", 64 * 64)
    whole(path)
    monkeypatch.setattr(zarr_arrays, "MAX_INNER_CHUNKS", 15)
    assert "hold more than 15" in refusal(path)
    monkeypatch.setattr(zarr_arrays, "MAX_INNER_CHUNKS", 16)
    monkeypatch.setattr(zarr_arrays, "MAX_TILE_BYTES", 64 * 64 - 1)
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
    monkeypatch.setattr(store_folders, "MAX_METADATA_BYTES", 100)
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
