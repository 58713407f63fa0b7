"""Volumes from outside: what is stored is what was in the file, at the size that was stated."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from ome_zarr_models.v05 import Image

from cytoarch.errors import ScanError
from cytoarch.images.stacks import open_stack, volume_files, write_stack
from cytoarch.images.volumes import StoredVolume, VoxelGrid, joined
from cytoarch.store.staging import Staging

SHAPE = (37, 50, 70)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4000, SHAPE).astype(np.uint16)


def ome_zarr_of(path: Path, pixels: np.ndarray) -> Path:
    """An image with a channel axis, in nm."""
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": one, "type": "space", "unit": "nanometer"} for one in "zyx"]
    scale = [{"type": "scale", "scale": [1, 2000, 500, 400]}]
    stated = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}],
    }
    zarr.create_group(path, attributes={"ome": stated})
    zarr.create_array(path / "0", shape=(2, *SHAPE), dtype=np.uint16, chunks=(1, 16, 50, 70))[...] = np.stack(
        [pixels * 0, pixels]
    )
    return path


def test_a_tiff_stack_is_stored_plane_by_plane(pixels: np.ndarray, tmp_path: Path, staging: Staging) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression="zlib")
    facts = write_stack(staging, tmp_path / "a.tif", (2.0, 0.5, 0.4), 0, "a")
    stored = StoredVolume.open(staging.path)
    assert np.array_equal(stored.pixels[...], pixels)
    assert stored.grid == VoxelGrid(SHAPE, (2.0, 0.5, 0.4))
    assert facts["shape"] == list(SHAPE)
    assert facts["black"] == pytest.approx(np.median(pixels), abs=1)
    Image.from_zarr(zarr.open_group(staging.path, mode="r"))


def test_levels_join_voxels_until_they_are_as_long_as_wide(
    pixels: np.ndarray, tmp_path: Path, staging: Staging
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    write_stack(staging, tmp_path / "a.tif", (2.0, 0.5, 0.4), 0, "a")
    level = zarr.open_group(staging.path, mode="r")["1"]
    assert level.shape == (37, 25, 35)
    assert np.array_equal(level[...], joined(pixels, (1, 2, 2)))
    coarser = VoxelGrid(SHAPE, (2.0, 0.5, 0.4)).coarser
    assert coarser.edges_um == (2.0, 1.0, 0.8)
    assert coarser.origin_um == (0.0, 0.25, 0.2)


def test_a_folder_of_planes_is_read_by_the_numbers_in_their_names(pixels: np.ndarray, tmp_path: Path) -> None:
    for z in range(12):
        tifffile.imwrite(tmp_path / f"plane_{z}.tif", pixels[z])
    with open_stack(tmp_path) as stack:
        assert stack.shape == (12, 50, 70)
        assert all(np.array_equal(stack.plane(z), pixels[z]) for z in range(12))
    assert [one.name for one in volume_files(tmp_path)][-1] == "plane_11.tif"


def test_a_channel_of_an_ome_zarr_is_read_at_its_own_size(pixels: np.ndarray, tmp_path: Path, staging: Staging) -> None:
    path = ome_zarr_of(tmp_path / "a.ome.zarr", pixels)
    facts = write_stack(staging, path, None, 1, "a")
    assert np.array_equal(StoredVolume.open(staging.path).pixels[...], pixels)
    assert facts["voxel_um"] == pytest.approx([2.0, 0.5, 0.4])


def test_imagej_and_ome_stacks_with_channels_are_read(pixels: np.ndarray, tmp_path: Path) -> None:
    both = np.stack([pixels, pixels + 1], axis=1)
    tifffile.imwrite(tmp_path / "ij.tif", both, imagej=True, metadata={"axes": "ZCYX"})
    tifffile.imwrite(tmp_path / "ome.ome.tif", both.swapaxes(0, 1), metadata={"axes": "CZYX"})
    for name in ("ij.tif", "ome.ome.tif"):
        with open_stack(tmp_path / name, 1) as stack:
            assert stack.shape == SHAPE
            assert np.array_equal(stack.plane(30), pixels[30] + 1), name


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("float", "8- or 16-bit"),
        ("channel", "channel is 3, and it has 1"),
        ("size", "voxel_z_um"),
        ("text", "neither a TIFF stack"),
        ("damaged", "damaged"),
        ("none", "holds no TIFF file"),
    ],
)
def test_what_is_no_volume_says_so(what: str, told: str, tmp_path: Path, staging: Staging) -> None:
    path = tmp_path / ("a.txt" if what == "text" else "a.tif")
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((3, 8, 8), np.float32 if what == "float" else np.uint8), photometric="minisblack"
    )
    if what == "damaged":
        path.write_bytes(path.read_bytes()[:300])
    if what == "text":
        path.write_text("no volume")
    if what == "none":
        path = tmp_path / "empty"
        path.mkdir()
    size = None if what == "size" else (1.0, 1.0, 1.0)
    with pytest.raises(ScanError, match=told):
        write_stack(staging, path, size, 3 if what == "channel" else 0, "a")


IMAGEJ = {"imagej": True, "resolution": (1 / 0.4, 1 / 0.5)}


@pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m"])
def test_what_imagej_says_of_voxels_is_taken(pixels: np.ndarray, tmp_path: Path, staging: Staging, unit: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels, metadata={"axes": "ZYX", "spacing": 2.0, "unit": unit}, **IMAGEJ)
    facts = write_stack(staging, tmp_path / "a.tif", None, 0, "a")
    assert facts["voxel_um"] == pytest.approx([2.0, 0.5, 0.4], rel=1e-6)


def test_what_ome_says_of_voxels_is_taken_and_a_person_goes_before_it(
    pixels: np.ndarray, tmp_path: Path, staging: Staging
) -> None:
    sizes = {"PhysicalSizeZ": 2.0, "PhysicalSizeY": 500.0, "PhysicalSizeYUnit": "nm", "PhysicalSizeX": 0.4}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, metadata={"axes": "ZYX", **sizes})
    with open_stack(tmp_path / "a.ome.tif") as stack:
        assert stack.stated_um == (2.0, 0.5, 0.4)
    assert write_stack(staging, tmp_path / "a.ome.tif", (3.0, 1.0, 1.0), 0, "a")["voxel_um"] == [3.0, 1.0, 1.0]


@pytest.mark.parametrize("said", [{"spacing": 2.0, "unit": "pixel"}, {"unit": "um"}, {"spacing": -1.0, "unit": "um"}])
def test_half_of_a_size_is_none(pixels: np.ndarray, tmp_path: Path, said: dict[str, object]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels, metadata={"axes": "ZYX", **said}, **IMAGEJ)
    with open_stack(tmp_path / "a.tif") as stack:
        assert stack.stated_um is None
