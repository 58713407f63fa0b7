"""A reconstructed brain as a volume and in viewers: a place of a section is found in each of them."""

from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from cytoarch.anatomy.reconstruction import Reconstruction, ReconstructionSettings, Rigid, reconstruct
from cytoarch.anatomy.reconstruction.viewers import napari_affine, napari_affine_2d, neuroglancer_transform
from cytoarch.anatomy.reconstruction.volume import slabs, volume_grid
from cytoarch.errors import StoreError
from cytoarch.images.conformance import conformance_faults
from cytoarch.images.volumes import CHUNK, joined, write_volume
from cytoarch.reporting import alignment
from cytoarch.store.staging import Staging
from tests.cytoarch.anatomy.drawn_brains import GRID, SPACING_UM, lying, overview, series, stained

VOXEL_UM = 150.0
TRUE = lying((0.0, 5.0, -7.0, 3.0), mirrored=(2,))
STATED, PICTURES = series([overview(one) for one in TRUE])


@pytest.fixture(scope="module")
def brain() -> Reconstruction:
    return reconstruct("B", STATED, PICTURES, ReconstructionSettings(reach=1))


@pytest.fixture(scope="module")
def written(brain: Reconstruction, tmp_path_factory: pytest.TempPathFactory) -> Path:
    staging = Staging(tmp_path_factory.mktemp("volume")).open()
    grid = volume_grid(brain, VOXEL_UM)
    write_volume(staging, grid.voxels, slabs(brain, PICTURES, grid), "B")
    return staging.path


def test_every_plane_shows_the_brain_where_it_is(brain: Reconstruction) -> None:
    """Sections that were turned, moved and mirrored: seen from the base's frame, all planes show the same brain."""
    grid = volume_grid(brain, VOXEL_UM)
    voxels = np.concatenate(list(slabs(brain, PICTURES, grid)))
    y, x = (at + VOXEL_UM * np.arange(n) for at, n in zip(grid.origin_um[1:], grid.shape[1:], strict=True))
    places = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)
    base = TRUE[list(brain.sections).index(brain.base)]
    expected = stained(base(brain[brain.base].rigid.inverse()(places)), 0.0)
    assert len(voxels) == pytest.approx((3 + 1.5) * SPACING_UM / VOXEL_UM, abs=1)
    for plane in voxels:
        assert np.corrcoef(plane.ravel(), expected.ravel())[0, 1] > 0.99


def test_planes_between_lost_sections_are_empty(brain: Reconstruction) -> None:
    far = [one if at < 2 else one.__class__(**{**vars(one), "z_um": one.z_um + 3000}) for at, one in enumerate(brain)]
    apart = Reconstruction("B", brain.base, {one.section_id: one for one in far})
    grid = volume_grid(apart, VOXEL_UM)
    filled = np.concatenate(list(slabs(apart, PICTURES, grid))).any(axis=(1, 2))
    between = (grid.origin_um[0] + VOXEL_UM * np.arange(grid.shape[0]) - 300.0) / 1000
    assert not filled[(between > 0.5) & (between < 2.5)].any()
    assert filled[0]
    assert filled[-1]


def test_the_volume_is_an_ngff_image_with_all_its_levels(written: Path, brain: Reconstruction) -> None:
    image: Any = ome_zarr_models.open_ome_zarr(zarr.open_group(written, mode="r"))
    assert [axis.name for axis in image.ome_attributes.multiscales[0].axes] == ["z", "y", "x"]
    assert not conformance_faults(written)
    assert zarr.open_array(written / "0", mode="r").shape == volume_grid(brain, VOXEL_UM).shape


def test_napari_and_ome_zarr_open_the_volume(written: Path) -> None:
    reading = pytest.importorskip("ome_zarr.reader", reason="ome-zarr-py is a reader of its own")
    node = next(iter(reading.Reader(__import__("ome_zarr.io", fromlist=["io"]).parse_url(written))()))
    np.testing.assert_array_equal(np.asarray(node.data[0]), zarr.open_array(written / "0", mode="r")[:])
    napari_ome_zarr = pytest.importorskip("napari_ome_zarr", reason="napari's reader")
    layers = napari_ome_zarr.napari_get_reader(str(written))(str(written))
    np.testing.assert_allclose(layers[0][1]["scale"], [VOXEL_UM] * 3)


def test_a_brain_without_places_along_the_axis_has_no_volume() -> None:
    flat = reconstruct(
        "B",
        [one.__class__(**{**vars(one), "z_um": None}) for one in STATED[:2]],
        PICTURES,
        ReconstructionSettings(reach=1),
    )
    with pytest.raises(StoreError, match="state position_um or thickness_um"):
        volume_grid(flat, VOXEL_UM)


@given(arrays.arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3)))
def test_halving_keeps_the_mean_of_even_blocks_and_the_range(block: NDArray[np.uint8]) -> None:
    small = joined(block)
    assert small.shape == tuple(-(-edge // 2) for edge in block.shape)
    assert block.min() <= small.min()
    assert small.max() <= block.max()
    z, y, x = (edge // 2 * 2 for edge in block.shape)
    if min(z, y, x) > 0:
        means = block[:z, :y, :x].reshape(z // 2, 2, y // 2, 2, x // 2, 2).mean(axis=(1, 3, 5))
        assert np.abs(small[: z // 2, : y // 2, : x // 2] - means).max() <= 0.5


def test_slabs_are_as_deep_as_a_chunk(brain: Reconstruction) -> None:
    grid = volume_grid(brain, 20.0)
    assert [len(slab) for slab in slabs(brain, PICTURES, grid)][:-1] == [CHUNK[0]] * (grid.shape[0] // CHUNK[0])


# -- viewers


def test_viewers_put_a_place_where_the_reconstruction_puts_it(brain: Reconstruction) -> None:
    cell = np.array([17.0, 31.0])
    for one in brain:
        y, x = GRID.um(cell)
        z_um, expected = one.z_um, one.plane(np.array([y, x]))
        np.testing.assert_allclose(napari_affine(one) @ [0.0, y, x, 1.0], [z_um, *expected, 1.0])
        np.testing.assert_allclose(napari_affine_2d(one) @ [y, x, 1.0], [*expected, 1.0])
        transform = neuroglancer_transform(one)
        metres = transform["outputDimensions"]["y"][0]
        corner = np.array(transform["matrix"]) @ [0.0, *(cell + 0.5), 1.0]  # it counts from the corner of a pixel
        np.testing.assert_allclose(corner * metres * 1e6, [z_um, *expected], rtol=1e-9)


def test_pictures_show_a_section_over_its_neighbour(brain: Reconstruction) -> None:
    grid = alignment.plane_grid(brain, 120)
    one, other = (alignment.shown(brain[name], PICTURES[name], grid) for name in ("s1", "s2"))
    apart = np.ptp(alignment.over_neighbour(one, other).astype(int), axis=-1)
    assert (apart > 60).mean() < 0.01  # they agree: hardly any red or cyan
    assert (np.ptp(alignment.over_neighbour(one, None).astype(int), axis=-1) > 60).mean() > 0.1
    for picture in (
        alignment.section_picture(one, other),
        alignment.contact_sheet(brain, [(brain["s1"], alignment.outlined(one))]),
    ):
        assert picture.startswith(b"\x89PNG")


def test_a_contact_sheet_of_thousands_shows_what_is_flagged() -> None:
    rigid = Rigid.identity().transform
    from cytoarch.anatomy.reconstruction import PlacedSection

    sections = {
        f"s{at}": PlacedSection(f"s{at}", at, GRID, rigid, None, False, "links", flags=("x",) if at == 1777 else ())
        for at in range(3000)
    }
    chosen = alignment.chosen_for_sheet(Reconstruction("B", "s0", sections))
    assert "s1777" in chosen
    assert len(chosen) <= alignment.MOST_ON_SHEET
    assert chosen == sorted(chosen, key=lambda name: int(name[1:]))
