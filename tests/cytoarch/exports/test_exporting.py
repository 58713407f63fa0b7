"""What is exported of a mapped brain is read back by other programs, and comes home again."""

import csv
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import shapely
import zarr

from cytoarch.embeddings import EmbedSettings
from cytoarch.embeddings.sampled import SampleSettings
from cytoarch.errors import StoreError
from cytoarch.exports.readme import readme
from cytoarch.exports.settings import FORMATS, ExportSettings, Format
from cytoarch.images.conformance import conformance_faults
from cytoarch.images.sections import write_labels
from cytoarch.images.views import StoredImage
from cytoarch.steps.exporting import chosen_formats, export
from cytoarch.steps.opened import open_brain
from cytoarch.steps.points import PointsStep, PointTable
from cytoarch.steps.running import make_sections, make_together
from cytoarch.steps.taken import Taken
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.collection import write_collection
from cytoarch.store.drafts import remove_others
from cytoarch.store.records import Committed
from cytoarch.store.staging import Staging
from tests.cytoarch.steps.small_brain import HEIGHT, IDS, SIZE_UM, TABLE, WIDTH, SmallBrain, labels_of

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("steps")]


@pytest.fixture(scope="module")
def taken(mapped: SmallBrain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taken]:
    """A copy of the mapped brain whose sections have places, opened, its areas measured."""
    root = shutil.copytree(mapped.folder / "store", tmp_path_factory.mktemp("exported") / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        with open_brain(root, "B1") as opened:
            placed = [
                one.model_copy(update={"position_um": 200.0 * at}) for at, one in enumerate(opened.brain.sections)
            ]
            opened.brain = opened.brain.model_copy(update={"sections": tuple(placed)})
            opened.__dict__.pop("rows", None)
            write_collection(opened.catalogue, opened.brain)
            taken = Taken.of(opened, ExportSettings())
            assert all(one.status == "made" for one in make_sections(taken.areas, opened))
            yield taken


@pytest.fixture(scope="module")
def home(taken: Taken, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the brain's exports."""
    folder = tmp_path_factory.mktemp("out")
    formats, notes = chosen_formats(taken)
    assert formats == ("areas", "qupath", "ome-zarr", "nifti")
    assert set(notes) == {"points", "neuroglancer"}
    for one in formats:
        assert export(taken, one, folder) == {}
    return folder / "B1"


def labels_in(taken: Taken, section_id: str) -> dict[str, Any]:
    maps = taken.maps(taken.brain.rows[section_id])
    return {one.kind: one for one in maps}


def test_every_format_tells_what_it_holds_and_its_files_are_as_they_were_written(home: Path) -> None:
    for folder in home.iterdir():
        card = json.loads((folder / "export.json").read_text())
        on_disk = {one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()} - {"export.json"}
        assert set(card["files"]) == on_disk
        assert (card["brain"], card["format"], card["left_out"]) == ("B1", folder.name, {})
        told = (folder / "README.txt").read_text()
        assert told.startswith(f"B1: {folder.name}\n")
        assert max(map(len, told.splitlines())) <= 110


def test_the_table_of_areas_of_labels_alone_is_told_as_theirs(tmp_path: Path) -> None:
    told = readme("B1", "areas", tmp_path, {}).decode()
    assert "or of the labels where there is no map" in told


def test_what_was_left_out_is_told_beside_the_export(tmp_path: Path) -> None:
    told = readme("B1", "nifti", tmp_path, {"s3": "has no place in the brain"}).decode()
    assert "Left out:\n  s3: has no place in the brain\n" in told
    assert all(readme("B1", one, tmp_path, {}).decode().count("Left out") == 0 for one in FORMATS)


@pytest.mark.parametrize(
    ("export_format", "path", "opened"),
    [
        ("nifti", "sub-B01/micr/sub-B01_seg-layers_dseg.nii.gz", "sub-B01/micr/sub-B01_seg-layers_dseg.nii.gz"),
        ("nifti", "B01.layers.nii.gz", "B01.layers.nii.gz"),
        ("ome-zarr", "sections.ome.zarr/s0122/labels/zarr.json", "sections.ome.zarr/s0122"),
        ("points", "B01.cortex.h5ad", "B01.cortex.h5ad"),
    ],
)
def test_examples_open_files_that_are_there(tmp_path: Path, export_format: Format, path: str, opened: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("")
    (tmp_path / "sections.ome.zarr" / "OME").mkdir(parents=True)
    told = readme("B01", export_format, tmp_path, {}).decode()
    assert opened in told
    assert "BRAIN" not in told
    assert "SECTION" not in told


def test_shapely_finds_the_areas_of_the_map_in_what_qupath_reads(taken: Taken, home: Path) -> None:
    for section_id in IDS[:2]:
        for kind, one in labels_in(taken, section_id).items():
            level = one.labels.levels[0]
            counts = np.bincount(level.pixels().ravel())
            content = json.loads((home / "qupath" / f"{section_id}.{kind}.geojson").read_text())
            names = {row.value: row for row in one.legend}
            found = {feature["properties"]["measurements"]["label"]: feature for feature in content["features"]}
            assert set(found) == {int(value) for value in np.flatnonzero(counts) if value}
            for value, feature in found.items():
                shape = shapely.geometry.shape(feature["geometry"])
                area_um2 = shape.area * SIZE_UM**2
                assert shape.is_valid
                assert area_um2 == pytest.approx(counts[value] * level.pixel_size_um**2, rel=0.01)
                assert feature["properties"]["classification"]["name"] == names[value].name
                assert tuple(feature["properties"]["classification"]["color"]) == names[value].colour


def test_outlines_of_a_persons_labels_come_home_as_the_same_label_image(
    home: Path, tmp_path: Path, taken: Taken
) -> None:
    staging = Staging(tmp_path / "labels").open()
    path = home / "qupath" / "s2.labels.geojson"
    facts = write_labels(staging, path, taken.brain.rows["s2"], TABLE, (HEIGHT, WIDTH), SIZE_UM)
    read = StoredImage.open(staging.path / "labels").levels[0].pixels()
    assert (read == labels_of()).all()
    assert facts["labelled_px"] == np.count_nonzero(labels_of())


def test_the_table_of_areas_counts_the_cells_of_the_map(taken: Taken, home: Path) -> None:
    rows = list(csv.DictReader((home / "areas" / "areas.csv").read_text().splitlines()))
    one = labels_in(taken, "s0")[str(taken.map_kind)].labels.levels[0]
    counts = np.bincount(one.pixels().ravel())
    found = {int(row["id"]): row for row in rows if row["section_id"] == "s0"}
    assert {value: int(row["cells"]) for value, row in found.items()} == {
        int(value): int(counts[value]) for value in np.flatnonzero(counts) if value
    }
    total = next(row for row in rows if row["section_id"] == "all")
    assert float(total["volume_mm3"]) == pytest.approx(0.2 * float(total["mm2"]), rel=1e-4)


def layers_of(path: Path) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # napari's own
        from napari_ome_zarr._reader import napari_get_reader

        reader = napari_get_reader(str(path))
        assert reader is not None
        found: list[Any] = reader()
    return found


def place_of(layer: Any, cell: tuple[float, float]) -> np.ndarray[Any, Any]:
    """Where napari draws a pixel of a layer (um)."""
    _, metadata, _ = layer
    place = np.asarray(metadata["affine"].affine_matrix) @ [*(np.array(cell) * np.array(metadata["scale"])[-2:]), 1.0]
    return np.asarray(place[:2])


def test_napari_lays_scan_labels_and_maps_in_register(taken: Taken, home: Path) -> None:
    layers = layers_of(home / "ome-zarr" / "sections.ome.zarr" / "s1")
    scan, *maps = layers
    assert [kind for _, _, kind in layers] == ["image", *["labels"] * len(taken.legends)]
    sizes = {tuple(data[0].shape[-2:]) for data, _, _ in layers}
    assert len(sizes) == 1
    size_um = float(np.array(scan[1]["scale"])[-1])
    for cell in ((0.0, 0.0), (20.0, 31.0)):
        for layer in maps:
            assert np.abs(place_of(layer, cell) - place_of(scan, cell)).max() <= size_um / 2
    for data, metadata, _ in maps:
        kind = metadata["name"].rpartition("/")[-1]
        expected = labels_in(taken, "s1")[kind]
        assert {row.name for row in expected.legend} == set(metadata["properties"]["name"])
        assert {row.value for row in expected.legend} == set(metadata["colormap"])
        assert set(np.unique(np.asarray(data[0]))) <= {0, *(row.value for row in expected.legend)}


def test_napari_opens_all_sections_of_the_export_and_of_the_store(taken: Taken, home: Path) -> None:
    per_section = 1 + len(taken.legends)
    assert len(layers_of(home / "ome-zarr" / "sections.ome.zarr")) == len(IDS) * per_section
    assert len(layers_of(taken.brain.catalogue.folder / "sections.ome.zarr")) == 2 * len(IDS)


def test_exported_images_conform(home: Path) -> None:
    assert conformance_faults(home / "ome-zarr" / "sections.ome.zarr") == []
    group = zarr.open_group(home / "ome-zarr" / "sections.ome.zarr" / "s0" / "labels" / "clusters", mode="r")
    assert "image-label" in dict(group.attrs)["ome"]


def test_the_volume_holds_what_lies_in_the_sections(taken: Taken, home: Path) -> None:
    image = nib.load(home / "nifti" / "B1.labels.nii.gz")
    volume = np.asarray(image.dataobj)
    assert volume.shape[2] == len(IDS)
    for value in (3, 7):
        voxels = np.argwhere(volume == value)
        mm = nib.affines.apply_affine(image.affine, voxels)
        assert len(voxels) * np.prod(image.header.get_zooms()) == pytest.approx(
            np.count_nonzero(labels_of() == value) * (SIZE_UM / 1000) ** 2 * 0.2 * len(IDS), rel=0.02
        )
        assert (mm[:, 0].mean() < 0) == (value == 3)  # cortex is on the left
    table = (home / "nifti" / "B1.labels.tsv").read_text().splitlines()
    assert table[1] == "3\tcortex\t#ff0000\tn/a"


def test_sampled_points_are_read_by_anndata_with_their_places(
    taken: Taken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AnnData as scanpy takes it: finite floats in X, unique names, places in obsm, the section as a category."""
    import anndata

    rows = [("s0", 30.0, 20.0, "one"), ("s0", 60.0, 90.0, "two"), ("s4", 50.0, 40.0, "one")]
    table = tmp_path / "cells.csv"
    table.write_text("\n".join(["section_id,y_px,x_px,what", *(",".join(map(str, row)) for row in rows)]) + "\n")
    embed = EmbedSettings(pixel_size_um=SIZE_UM, tile_px=64)
    step = PointsStep.of(embed, SampleSettings(), PointTable.of(table), taken.brain)
    make_together(step, taken.brain, ["s0", "s4"])
    assert export(taken, "points", tmp_path / "out") == {}
    outdated, old = Catalogue.outdated, {"s4"}

    def changed(self: Catalogue, record: Committed) -> str:
        is_old = record.product.step == step.step and record.product.section_id in old
        return "sections/section/s4" if is_old else outdated(self, record)

    monkeypatch.setattr(Catalogue, "outdated", changed)
    (left_out,) = export(taken, "points", tmp_path / "old").items()
    assert left_out[0] == f"{step.name} of s4"
    assert "were made from an older section" in left_out[1]
    (path,) = (tmp_path / "old" / "B1" / "points").glob("*.h5ad")
    assert set(anndata.read_h5ad(path).obs["section_id"]) == {"s0"}
    old.add("s0")
    with pytest.raises(StoreError, match="no points are current"):
        export(taken, "points", tmp_path / "none")
    remove_others(taken.brain.catalogue, step.step, step.name, ())  # the brain is that of all tests here
    (path,) = (tmp_path / "out" / "B1" / "points").glob("*.h5ad")
    found = anndata.read_h5ad(path)
    assert found.n_obs == 3
    assert found.X.dtype == np.float32
    assert np.isfinite(found.X).all()
    assert found.obs_names.is_unique
    assert found.obs["section_id"].tolist() == ["s0", "s0", "s4"]
    assert found.obs["what"].tolist() == ["one", "two", "one"]
    corner_mm = (np.array([row[1:3] for row in rows]) + 0.5) * SIZE_UM / 1000
    np.testing.assert_allclose(found.obsm["section_mm"], corner_mm, atol=1e-6)
    assert found.obsm["brain_mm"][:, 2] == pytest.approx([0.0, 0.0, 0.8])
    assert found[found.obs["section_id"] == "s4"].obsm["section_mm"].shape == (1, 2)
    np.testing.assert_allclose(found.obsm["spatial"], 1000 * found.obsm["section_mm"][:, ::-1])
    assert found.obs["labels"].tolist() == ["cortex", "white matter", "cortex"]
    assert found.uns["labels_colors"].tolist() == ["#ff0000", "#0000ff"]
    for kind in taken.legends:
        names = [row.name for row in taken.legends[kind] if row.name in set(found.obs[kind])]
        assert found.obs[kind].cat.categories.tolist() == names
        assert len(found.uns[f"{kind}_colors"]) == len(names)


def test_a_half_written_export_is_never_taken_for_done(
    taken: Taken, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cytoarch.steps import exporting

    out = tmp_path / "out"
    shutil.copytree(home, out / "B1")
    before = (out / "B1" / "qupath" / "export.json").read_bytes()

    def broken(*_: object) -> dict[str, str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "WRITERS", {**exporting.WRITERS, "qupath": broken})
    with pytest.raises(KeyboardInterrupt):
        export(taken, "qupath", out)
    assert (out / "B1" / "qupath" / "export.json").read_bytes() == before
    assert [one.name for one in (out / "B1").iterdir() if one.name.startswith(".")] == []


def test_a_folder_that_is_no_export_is_left_alone(taken: Taken, tmp_path: Path) -> None:
    mine = tmp_path / "B1" / "areas" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(StoreError, match="is no export"):
        export(taken, "areas", tmp_path)
    assert mine.read_text() == "mine"


def test_bids_names_and_what_describes_them(taken: Taken, tmp_path: Path) -> None:
    bids = Taken.of(taken.brain, ExportSettings(naming="bids"))
    export(bids, "nifti", tmp_path)
    told = (tmp_path / "B1" / "nifti" / "README.txt").read_text()
    (opened,) = [line.split('"')[1] for line in told.splitlines() if "nibabel.load" in line]
    assert (tmp_path / "B1" / "nifti" / opened).is_file()
    export(bids, "qupath", tmp_path)
    folder = tmp_path / "B1" / "qupath"
    assert (folder / "sub-B1" / "micr" / "sub-B1_sample-s0_seg-labels_dseg.geojson").is_file()
    assert json.loads((folder / "dataset_description.json").read_text())["DatasetType"] == "derivative"


def test_what_there_is_nothing_for_is_said_where_it_is_asked_for(taken: Taken, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="run embed-points"):
        export(taken, "points", tmp_path)
    assert not (tmp_path / "B1" / "points").exists()


# -- what cannot be exported costs itself only ------------------------------------------------------------------------


def test_labels_of_one_section_cost_no_other_map_its_volume_and_no_section_its_name(
    taken: Taken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One section is no volume; sections that nobody labelled are not said to have failed."""
    maps = Taken.maps

    def labelled_once(self: Taken, section: Any) -> list[Any]:
        found = maps(self, section)
        return found if section.section_id == IDS[0] else [one for one in found if one.kind != "labels"]

    monkeypatch.setattr(Taken, "maps", labelled_once)
    left_out = export(taken, "nifti", tmp_path)
    assert set(left_out) == {"labels"}
    assert sorted(path.name for path in (tmp_path / "B1" / "nifti").glob("*.nii.gz")) == sorted(
        f"B1.{kind}.nii.gz" for kind in taken.legends if kind != "labels"
    )


def test_a_map_that_no_section_has_a_place_for_is_an_error_and_leaves_no_folder(
    taken: Taken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = Taken.maps
    monkeypatch.setattr(Taken, "maps", lambda self, one: maps(self, one) if one.section_id == IDS[0] else [])
    with pytest.raises(StoreError, match="no map could be put together to a volume"):
        export(taken, "nifti", tmp_path)
    assert not list((tmp_path / "B1").iterdir())
