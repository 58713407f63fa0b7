"""An atlas cut along the sections of a brain gives labels that the brain takes, marked automatic."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile

from cytoarch.brains import read_manifest
from cytoarch.errors import CytoarchError, ManifestError
from cytoarch.images.scans import read_labels
from cytoarch.steps.atlas_labels import cut_brain
from tests.cytoarch.steps.small_brain import HEIGHT, IDS, WIDTH, SmallBrain

pytestmark = pytest.mark.xdist_group("steps")


def write_inputs(folder: Path, sections: tuple[str, ...]) -> tuple[Path, Path, Path]:
    """A manifest, anchorings of coronal planes one voxel apart, and an atlas of two halves and a strip."""
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["brain_id", "section_id", "section_number", "path", "labels", "pixel_size_um"])
        writer.writerows(["B1", one, at, f"{one}.tif", f"{one}.png", 16] for at, one in enumerate(IDS))
    slices = [
        {"filename": f"{one}.tif", "width": WIDTH, "height": HEIGHT, "anchoring": [0, at + 0.5, 6, 8, 0, 0, 0, 0, -6]}
        for at, one in enumerate(sections)
    ]
    (folder / "a.json").write_text(json.dumps({"target-resolution": [8, 6, 6], "slices": slices}))
    labels = np.zeros((8, 6, 6), dtype=np.int32)
    labels[:4], labels[4:], labels[:, 2] = 900_001, 900_002, 5
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), folder / "atlas.nii.gz")
    return manifest, folder / "a.json", folder / "atlas.nii.gz"


def test_labels_are_cut_at_the_size_of_the_scans_and_named_automatic(small: SmallBrain) -> None:
    folder = small.scans
    manifest, anchorings, volume = write_inputs(folder, IDS[:4])
    (folder / "o.csv").write_text("id,name,parent_id\n1,brain,\n5,strip,1\n900001,left,1\n900002,right,1\n")
    made = cut_brain(manifest, anchorings, volume, "B1", small.folder / "store", "", folder / "o.csv", None, "atlas")
    assert (made.sections, made.structures, made.without) == (4, 3, IDS[4:])
    (brain,) = read_manifest(made.manifest_path, folder, made.table_path)
    assert [one.labels_origin for one in brain.sections] == ["automatic"] * 4 + ["unstated"] * 2
    assert brain.label_table is not None
    assert [(one.id, one.name) for one in brain.label_table.labels] == [
        (5, "strip"),
        (900_001, "left"),
        (900_002, "right"),
    ]
    image = tifffile.imread(made.folder / "s0.tif")
    assert image.shape == (HEIGHT, WIDTH)
    assert (image[:, : WIDTH // 2] == 900_001).all()
    assert (image[:, WIDTH // 2 :] == 900_002).all()
    assert (tifffile.imread(made.folder / "s2.tif") == 5).all()
    np.testing.assert_array_equal(read_labels(made.folder / "s0.tif"), image)


def test_ids_that_no_label_can_have_are_refused(small: SmallBrain) -> None:
    manifest, anchorings, volume = write_inputs(small.scans, IDS[:4])
    (small.scans / "o.csv").write_text("id,name,parent_id\n-9,brain,\n5,strip,-9\n900001,left,-9\n900002,right,-9\n")
    with pytest.raises(CytoarchError, match="ids from -9 to -9; labels have ids from 1"):
        cut_brain(manifest, anchorings, volume, "B1", small.folder / "store", "", small.scans / "o.csv", 0, "atlas")


def test_anchorings_of_other_sections_are_refused(small: SmallBrain) -> None:
    manifest, anchorings, volume = write_inputs(small.scans, ("other",))
    with pytest.raises(ManifestError, match="names other, none of which is a scan or section of B1"):
        cut_brain(manifest, anchorings, volume, "B1", small.folder / "store", "", None, None, "atlas")
