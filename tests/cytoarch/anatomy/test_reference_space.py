"""Laws of anchorings and cuts: what is read goes where QuickNII says, however the atlas is stored."""

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import nrrd
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cytoarch.anatomy.reference import (
    AtlasVolume,
    CoordinateImage,
    LinearAnchoring,
    cut_section,
    prior_maps,
    read_anchorings,
    read_ontology,
)
from cytoarch.anatomy.reference.cutting import atlas_mm, atlas_places
from cytoarch.errors import ManifestError
from cytoarch.geometry import Grid, Transform

Array = NDArray[Any]
SHAPE = (14, 10, 8)
"""Of a small atlas: x to the right, y forward, z up."""


def blocks() -> Array:
    """Every voxel has an id of its own."""
    return np.arange(1, np.prod(SHAPE) + 1, dtype=np.uint16).reshape(SHAPE)


def write_nifti(path: Path, labels: Array, axes: str, size_mm: float = 0.025) -> Path:
    """A volume whose file runs along `axes`."""
    from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes))
    affine = np.diag([size_mm, size_mm, size_mm, 1.0]) @ inv_ornt_aff(turn, labels.shape)
    nibabel.save(nibabel.Nifti1Image(apply_orientation(labels, turn), affine), path)
    return path


def write_json(path: Path, *slices: dict[str, Any], target: tuple[int, ...] | None = SHAPE) -> Path:
    content: dict[str, Any] = {"name": "test", "slices": list(slices)}
    if target:
        content["target-resolution"] = list(target)
    path.write_text(json.dumps(content))
    return path


def coronal(y: float) -> list[float]:
    """Nine numbers of the whole coronal plane through y voxels: its upper left corner is left and up."""
    return [0, y, SHAPE[2], SHAPE[0], 0, 0, 0, 0, -SHAPE[2]]


def section(pixels: int = 1) -> Grid:
    """An image of the whole coronal plane, so many pixels a voxel."""
    return Grid.at_corner((SHAPE[2] * pixels, SHAPE[0] * pixels), 25.0 / pixels, (0.0, 0.0))


# -- cutting -----------------------------------------------------------------------------------------------------------


def test_a_coronal_anchoring_gives_the_slice_of_the_volume(tmp_path: Path) -> None:
    volume = AtlasVolume.read(write_nifti(tmp_path / "a.nii.gz", blocks(), "RAS"))
    anchoring = read_anchorings(
        write_json(tmp_path / "a.json", {"filename": "s1.png", "width": 140, "height": 80, "anchoring": coronal(3.5)})
    )["s1"]
    cut = cut_section(anchoring, volume, section(), section())
    np.testing.assert_array_equal(cut.labels, blocks()[:, 3, ::-1].T)
    assert (cut.hemisphere[:, :7] == 1).all()
    assert (cut.hemisphere[:, 7:] == 2).all()
    fine = cut_section(anchoring, volume, section(), section(4))
    np.testing.assert_array_equal(fine.labels, np.kron(cut.labels, np.ones((4, 4), dtype=np.uint16)))


@pytest.mark.parametrize("axes", ["RAS", "LPI", "PIR", "ASL", "SRA"])
def test_the_cut_does_not_depend_on_how_the_file_of_the_atlas_runs(tmp_path: Path, axes: str) -> None:
    anchoring = LinearAnchoring.of_nine([1, 2, 7, 11, 3, 1, 0.5, 2, -6], SHAPE)
    plain = AtlasVolume.read(write_nifti(tmp_path / "plain.nii", blocks(), "RAS"))
    turned = AtlasVolume.read(write_nifti(tmp_path / "turned.nii", blocks(), axes))
    grid = Grid((31, 37), 9.0, (4.0, 4.0))
    np.testing.assert_array_equal(*(cut_section(anchoring, one, grid, grid).labels for one in (plain, turned)))
    data = np.asanyarray(nibabel.load(tmp_path / "turned.nii").dataobj)
    nrrd.write(str(tmp_path / "t.nrrd"), data, {"space directions": np.eye(3) * 25})  # as Allen's, no word of its axes
    stated = AtlasVolume.read(tmp_path / "t.nrrd", axes)
    np.testing.assert_array_equal(stated.labels, plain.labels)


def test_an_anchoring_holds_at_any_size_of_atlas_and_image() -> None:
    fine = np.kron(blocks(), np.ones((3, 3, 3), dtype=np.uint16))
    mm = Transform.scaling((0.025, 0.025, 0.025))
    anchoring = LinearAnchoring.of_nine(coronal(4.5), SHAPE)
    wanted = cut_section(anchoring, AtlasVolume(blocks(), mm), section(), section(2)).labels
    found = cut_section(anchoring, AtlasVolume(fine, mm), section(5), section(2)).labels
    np.testing.assert_array_equal(found, wanted)


def test_outside_the_atlas_there_is_nothing() -> None:
    volume = AtlasVolume(blocks(), Transform.scaling((1.0, 1.0, 1.0)))
    cut = cut_section(LinearAnchoring.of_nine(coronal(-1.0), SHAPE), volume, section(), section())
    assert not cut.labels.any()
    assert not cut.hemisphere.any()


def test_a_coordinate_image_and_an_affine_in_mm_say_the_same_as_nine_numbers() -> None:
    size = 0.05
    volume = AtlasVolume(blocks(), Transform.of(np.eye(3) * size, np.array([-0.3, 0.1, 0.2])))
    nine = LinearAnchoring.of_nine([1.2, 2.3, 7.1, 11, 3, 1, 0.5, 2, -6], SHAPE)
    grid = Grid((24, 30), 10.0, (0.0, 0.0))
    y, x = grid.centres_um()
    um = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)
    places = atlas_mm(nine, volume, grid, um)
    image = CoordinateImage(np.moveaxis(places, -1, 0).astype(np.float32))
    step_x, step_y, origin = places[0, 1] - places[0, 0], places[1, 0] - places[0, 0], places[0, 0]
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 3] = step_x, step_y, origin
    affine = LinearAnchoring.of_affine(matrix, 24, 30)
    inner = um[2:-2, 2:-2] + 3.0
    wanted = atlas_places(nine, volume, grid, inner)
    np.testing.assert_allclose(atlas_places(affine, volume, grid, inner), wanted, atol=1e-9)
    np.testing.assert_allclose(atlas_places(image, volume, grid, inner), wanted, atol=1e-4)


# -- markers -----------------------------------------------------------------------------------------------------------


def test_markers_move_the_section_where_they_were_set_and_nothing_at_the_rim(tmp_path: Path) -> None:
    slices = {"filename": "s1.png", "width": 200, "height": 100, "anchoring": coronal(5.0)}
    moved = {**slices, "markers": [[60, 40, 70, 50], [140, 60, 140, 60]]}
    linear = read_anchorings(write_json(tmp_path / "a.json", slices))["s1"]
    bent = read_anchorings(write_json(tmp_path / "b.json", moved))["s1"]
    places = np.array([[50 / 100, 70 / 200], [60 / 100, 140 / 200], [-0.1, -0.1], [1.1, 1.1]])
    before = np.array([[40 / 100, 60 / 200], [60 / 100, 140 / 200], [-0.1, -0.1], [1.1, 1.1]])
    np.testing.assert_allclose(bent.atlas(places), linear.atlas(before), atol=1e-9)
    between = bent.atlas(np.array([[0.55, 0.6]]))
    assert not np.allclose(between, linear.atlas(np.array([[0.55, 0.6]])))


# -- files -------------------------------------------------------------------------------------------------------------


def test_the_table_of_deepslice_says_the_same_as_its_json(tmp_path: Path) -> None:
    names = ["Filenames", "ox", "oy", "oz", "ux", "uy", "uz", "vx", "vy", "vz"]
    with (tmp_path / "d.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, ["s1.png", *coronal(2.0)]])
    found = read_anchorings(tmp_path / "d.csv")["s1"]
    places = np.random.default_rng(0).random((9, 2))
    np.testing.assert_allclose(found.atlas(places), LinearAnchoring.of_nine(coronal(2.0), None).atlas(places))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no json", "is no JSON of anchorings"),
        ("{}", "holds no slices"),
        ('{"slices": [{"filename": "a.png", "width": 9, "height": 9}]}', "slice 1 'a': 'anchoring'"),
        ('{"slices": [{"filename": "a.png", "width": 9, "height": 9, "anchoring": [1, 2]}]}', "slice 1 'a'"),
        (
            '{"slices": [{"filename": "a.png", "width": 9, "height": 9, "anchoring": [0,0,0,1,0,0,2,0,0]}]}',
            "two edges span no plane",
        ),
        ('{"slices": [{"width": 9, "height": 9, "anchoring": [0,0,0,1,0,0,0,1,0]}]}', "filename is missing"),
    ],
)
def test_what_is_no_anchoring_is_named(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ManifestError, match=said):
        read_anchorings(tmp_path / "a.json")


def test_what_is_no_volume_of_labels_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"nothing")
    with pytest.raises(ManifestError, match="cannot be read as NIfTI"):
        AtlasVolume.read(tmp_path / "a.nii")
    (tmp_path / "a.nrrd").write_bytes(b"nothing")
    with pytest.raises(ManifestError, match="cannot be read as NRRD"):
        AtlasVolume.read(tmp_path / "a.nrrd")
    nibabel.save(nibabel.Nifti1Image(np.full(SHAPE, 0.5), np.eye(4)), tmp_path / "half.nii")
    with pytest.raises(ManifestError, match="not whole"):
        AtlasVolume.read(tmp_path / "half.nii")
    with pytest.raises(ManifestError, match="such as PIR"):
        AtlasVolume.read(write_nifti(tmp_path / "b.nii", blocks(), "RAS"), "RRA")
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((5, 9), np.uint8))
    with pytest.raises(ManifestError, match="x, y, z in mm"):
        read_anchorings(tmp_path / "c.tif")


# -- priors and levels -------------------------------------------------------------------------------------------------


def test_priors_are_probabilities_that_a_border_spreads_over() -> None:
    volume = AtlasVolume(np.repeat([1, 2], 7)[:, None, None] * np.ones(SHAPE, np.uint8), Transform.scaling((1.0,) * 3))
    cut = cut_section(LinearAnchoring.of_nine(coronal(5.0), SHAPE), volume, section(), section(8))
    priors = prior_maps(cut, (1, 2), uncertainty_um=25.0)
    np.testing.assert_allclose(priors.sum(axis=0), 1, atol=1e-6)
    middle = priors[:, 32, 56 - 8 : 56 + 8]
    np.testing.assert_allclose(middle[1], middle[2][::-1], atol=1e-6)
    from scipy.stats import norm

    away_um = (np.arange(-8, 8) + 0.5) * 25 / 8
    np.testing.assert_allclose(middle[2], norm.cdf(away_um / 25.0), atol=0.01)


def test_a_level_of_the_ontology_holds_its_parts(tmp_path: Path) -> None:
    tree = {"id": 1, "name": "root", "children": [{"id": 2, "name": "grey", "children": [{"id": 5, "name": "A"}]}]}
    (tmp_path / "o.json").write_text(json.dumps({"msg": [tree]}))
    (tmp_path / "o.csv").write_text("id,name,structure_id_path\n1,root,/1/\n2,grey,/1/2/\n5,A,/1/2/5/\n")
    for name in ("o.json", "o.csv"):
        ontology = read_ontology(tmp_path / name)
        assert ontology.lineage(5) == (1, 2, 5)
        ids = np.array([[0, 5], [2, 77]])
        assert ontology.at_level(ids, 1).tolist() == [[0, 2], [2, 77]]
        assert ontology.at_level(ids, 9).tolist() == ids.tolist()
        assert ontology.at_level(ids, 0).tolist() == [[0, 1], [1, 77]]


def test_label_descriptions_of_itk_snap_are_an_ontology_without_levels(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    rows = [
        "# ITK-SnAP Label Description File",
        '    0 0 0 0 0 0 0 "Clear Label"',
        '1\t189\t233\t59\t1\t1\t1\t"areas 1 and 2"',
    ]
    path.write_text("\n".join([*rows, '27 0 9 255 0.5 1 1 "V1"', ""]))
    ontology = read_ontology(path)
    assert {one.id: (one.name, one.colour) for one in ontology.structures.values()} == {
        1: ("areas 1 and 2", "#bde93b"),
        27: ("V1", "#0009ff"),
    }
    assert ontology.at_level(np.array([0, 1, 27]), 2).tolist() == [0, 1, 27]


def test_a_text_that_is_no_label_description_is_refused_as_a_table(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text('1 189 233 59 1 1 1 "V1"\nV2\n')
    with pytest.raises(ManifestError, match="column id is missing"):
        read_ontology(path)


# -- real brains -------------------------------------------------------------------------------------------------------


@pytest.mark.real
def test_the_anchoring_of_the_mouse_series_halves_its_regions(real_data: Path) -> None:
    """Its labels come from a symmetric atlas: the two sides that the anchoring tells apart hold as much of each."""
    folder = real_data / "mouse_dapi_series"
    with (folder / "registration_auto.csv").open() as file:
        rows = list(csv.DictReader(file))[2:17]
    volume = AtlasVolume(np.ones((228, 264, 160), np.uint8), Transform.scaling((0.05, 0.05, 0.05)))
    uneven = []
    for row in rows:
        labels = np.asarray(Image.open(folder / "labels_auto" / f"{Path(row['file']).stem}.png")).astype(np.int64)
        image = Grid(labels.shape, 20.0, (0.0, 0.0))
        sides = cut_section(mouse_anchoring(row, image), volume, image, image).hemisphere
        whole, right = (np.bincount(one.ravel(), minlength=labels.max() + 1) for one in (labels, labels[sides == 2]))
        large = np.flatnonzero(whole > 400)[1:]
        uneven.append(np.abs(2 * right[large] - whole[large]).sum() / whole[large].sum())
    assert np.mean(uneven) < 0.08


def mouse_anchoring(row: dict[str, str], image: Grid) -> LinearAnchoring:
    """Nine numbers from what the registration of the series states, in voxels of 50 um; tilts are left out."""
    value = {name: float(number) for name, number in row.items() if name != "file"}
    turn = np.array([[np.cos(value["rot"]), -np.sin(value["rot"])], [np.sin(value["rot"]), np.cos(value["rot"])]])
    in_plane = np.diag(np.exp([value["log_sx"], value["log_sz"]])) @ turn  # of (right, down)
    height, width = (edge / 50 for edge in image.extent_um)
    lift = np.array([[1, 0], [0, 0], [0, -1]])
    u, v = lift @ in_plane @ [width, 0], lift @ in_plane @ [0, height]
    middle = np.array([value["cx"], value["ap_50um_from_posterior"], value["cz"]])
    return LinearAnchoring.of_nine([*(middle - (u + v) / 2), *u, *v], (228, 264, 160))


@pytest.mark.real
def test_a_cut_of_the_marmoset_atlas_is_its_plane_and_its_table_names_what_is_in_it(
    real_data: Path, tmp_path: Path
) -> None:
    folder = real_data / "marmoset_cortex"
    volume = AtlasVolume.read(folder / "NM_50um_labels.nii.gz")
    width, depth, height = volume.labels.shape
    at = depth // 2
    nine = [0, at + 0.5, height, width, 0, 0, 0, 0, -height]
    path = write_json(
        tmp_path / "a.json",
        {"filename": "s1.png", "width": 2 * width, "height": 2 * height, "anchoring": nine},
        target=(width, depth, height),
    )
    grid = Grid.at_corner((height, width), 49.0, (0.0, 0.0))
    cut = cut_section(read_anchorings(path)["s1"], volume, grid, grid).labels
    np.testing.assert_array_equal(cut, volume.labels[:, at, ::-1].T)
    named = read_ontology(folder / "NM_50um_labels.txt").structures
    assert set(np.unique(cut).tolist()) - {0} <= set(named)
    assert all(one.colour and "cortex" in one.name for one in list(named.values())[:20])
