"""Volumes hold planted points where sections lie, and nothing where sections are missing."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cytoarch.errors import StoreError
from cytoarch.exports.volume import PlacedMap, lattice_of, volume_of, write_volume
from cytoarch.geometry import Grid, section_to_brain
from cytoarch.images.layout import Pyramid
from cytoarch.images.pyramids import write_pyramid
from cytoarch.images.views import StoredImage
from cytoarch.store.staging import Staging

CELL_UM = 40.0


def planted(folder: Path, at: tuple[int, int], value: int, z_um: float, flip: str, turn: float) -> PlacedMap:
    """A section of 60 x 80 cells with one block of 3 x 3 cells."""
    labels = np.ones((60, 80), dtype=np.uint16)
    labels[at[0] - 1 : at[0] + 2, at[1] - 1 : at[1] + 2] = value
    staging = Staging(folder).open()
    grid = Grid.at_corner(labels.shape, CELL_UM, (-5.0, -5.0))
    pyramid = Pyramid.on(grid, labels.dtype, "mode", levels=1)
    write_pyramid(staging, pyramid, lambda y, x, h, w: labels[y : y + h, x : x + w], name="labels")
    image = StoredImage.open(staging.path)
    scan = Grid.at_corner((240, 320), 10.0, (-5.0, -5.0))
    return PlacedMap(folder.name, image, section_to_brain(scan, flip, turn, z_um))  # type: ignore[arg-type]


@pytest.mark.parametrize("voxel_um", [40.0, 25.0])
def test_planted_points_are_found_by_the_affine_to_half_a_voxel(tmp_path: Path, voxel_um: float) -> None:
    cells = [(10, 60), (40, 20), (30, 30)]
    turns = [("none", 0.0), ("horizontal", 0.0), ("none", 90.0)]
    maps = [planted(tmp_path / f"s{i}", at, 10 + i, 500.0 * i - 700, *turns[i]) for i, at in enumerate(cells)]
    lattice = lattice_of(maps, voxel_um)
    path = tmp_path / "out" / "brain.nii.gz"
    write_volume(path, volume_of(maps, lattice, np.dtype(np.uint16)), lattice, "test")
    image = nib.load(path)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.get_data_dtype() == np.uint16
    volume = np.asarray(image.dataobj)
    for i, at in enumerate(cells):
        voxels = np.argwhere(volume == 10 + i)
        found = nib.affines.apply_affine(image.affine, voxels.mean(axis=0))
        wanted = maps[i].to_brain(maps[i].labels.grid.um(np.array(at)))
        assert np.abs(found - wanted).max() <= voxel_um / 2000 + 1e-9
        assert len(voxels) == pytest.approx((3 * CELL_UM / voxel_um) ** 2, abs=2 * 3 * CELL_UM / voxel_um + 1)


def test_planes_of_missing_sections_stay_empty(tmp_path: Path) -> None:
    maps = [planted(tmp_path / f"s{i}", (9, 9), 5, z, "none", 0.0) for i, z in enumerate((0.0, 100.0, 200.0, 700.0))]
    lattice = lattice_of(maps, 80.0)
    filled = volume_of(maps, lattice, np.dtype(np.uint8)).any(axis=(0, 1))
    assert filled.tolist() == [True, True, True, False, False, False, False, True]


def test_sections_at_one_place_make_no_volume(tmp_path: Path) -> None:
    maps = [planted(tmp_path / f"s{i}", (9, 9), 5, 30.0, "none", 0.0) for i in range(2)]
    with pytest.raises(StoreError, match="state a position_um of its own"):
        lattice_of(maps, 80.0)


def test_a_volume_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    maps = [planted(tmp_path / f"s{i}", (9, 9), 5, 30.0 * i, "none", 0.0) for i in range(2)]
    with pytest.raises(StoreError, match="ask for larger voxels"):
        lattice_of(maps, 0.01)
