import hashlib
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cytoarch.brains import read_label_table, read_manifest
from cytoarch.errors import CytoarchError
from cytoarch.images.pixel_size import resolve_pixel_size
from cytoarch.images.scans import open_scan, read_labels
from cytoarch.phantoms.anatomy import AREAS, LAYERS, WHITE_MATTER, section_truth, stain
from cytoarch.phantoms.writing import SIZES, Target, write_phantom


def tree(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_a_phantom_is_a_valid_manifest_whose_scans_and_labels_can_be_read(tmp_path: Path) -> None:
    manifest = write_phantom(tmp_path / "p", "P1", "tiny")
    (brain,) = read_manifest(manifest, tmp_path / "p", tmp_path / "p" / "labels.csv")
    shape = SIZES["tiny"]
    assert brain.brain_id == "P1"
    assert len(brain.kept) == shape.sections
    for section in brain.sections:
        assert section.labels is not None
        with open_scan(tmp_path / "p" / section.path) as scan:
            assert scan.shape == (1, shape.height, shape.width)
            size = resolve_pixel_size(section, scan.stated_pixel_sizes)
            assert size.value_um == shape.pixel_size_um
            assert [one.source for one in scan.stated_pixel_sizes] == ["tiff-tag"]
        assert read_labels(tmp_path / "p" / section.labels).shape == (shape.height, shape.width)


@pytest.mark.parametrize("target", ["areas", "layers"])
def test_every_value_of_the_label_images_is_in_the_label_table(tmp_path: Path, target: Target) -> None:
    write_phantom(tmp_path / "p", "P1", "tiny", target)
    known = {label.id for label in read_label_table(tmp_path / "p" / "labels.csv").labels}
    found: set[int] = set()
    for path in (tmp_path / "p" / "labels").iterdir():
        found |= set(np.unique(read_labels(path)).tolist())
    assert found - {0} == known
    assert len(known) == len(AREAS if target == "areas" else LAYERS) + 1


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_phantom(tmp_path / name, "P1", "tiny", seed=seed)
    same, again, other = (tree(tmp_path / name) for name in "abc")
    assert same == again
    scans = [key for key in same if key.startswith("scans/")]
    assert len(scans) == SIZES["tiny"].sections
    assert all(same[key] != other[key] for key in scans)


def test_areas_and_layers_of_one_seed_are_drawn_on_the_same_scans(tmp_path: Path) -> None:
    write_phantom(tmp_path / "a", "P1", "tiny", "areas")
    write_phantom(tmp_path / "l", "P1", "tiny", "layers")
    assert tree(tmp_path / "a" / "scans") == tree(tmp_path / "l" / "scans")
    for path in (tmp_path / "a" / "labels").iterdir():
        areas, layers = read_labels(path), read_labels(tmp_path / "l" / "labels" / path.name)
        np.testing.assert_array_equal(areas == 0, layers == 0)
        np.testing.assert_array_equal(areas == len(AREAS) + 1, layers == WHITE_MATTER)


def test_a_phantom_may_be_written_again_over_itself(tmp_path: Path) -> None:
    write_phantom(tmp_path, "P1", "tiny")
    before = tree(tmp_path)
    write_phantom(tmp_path, "P1", "tiny")
    assert tree(tmp_path) == before


def test_a_folder_that_holds_anything_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "work.txt").write_text("work", encoding="utf-8")
    with pytest.raises(CytoarchError, match="not empty"):
        write_phantom(tmp_path, "P1", "tiny")
    assert [path.name for path in tmp_path.iterdir()] == ["work.txt"]


def test_the_manifest_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("brain_id,section_id\n", encoding="utf-8")
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "s0000.tif").write_bytes(b"a real scan")
    with pytest.raises(CytoarchError):
        write_phantom(tmp_path, "P1", "tiny")
    assert (tmp_path / "scans" / "s0000.tif").read_bytes() == b"a real scan"


@pytest.mark.parametrize("brain_id", ["", "..", "a/b", "a b"])
def test_a_phantom_needs_a_valid_name_and_writes_nothing_otherwise(tmp_path: Path, brain_id: str) -> None:
    with pytest.raises(CytoarchError):
        write_phantom(tmp_path / "p", brain_id, "tiny")
    assert not (tmp_path / "p").exists()


def test_the_manifest_is_written_last(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert not (tmp_path / "p" / "manifest.csv").exists()
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "p", "P1", "tiny", on_progress=stop)
    assert not (tmp_path / "p" / "manifest.csv").exists()


def test_a_phantom_whose_writing_was_cut_short_can_be_written_again(tmp_path: Path) -> None:
    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "p", "P1", "tiny", on_progress=stop)
    assert write_phantom(tmp_path / "p", "P1", "tiny").exists()


# -- the truth itself --------------------------------------------------------------------------------------------------


def test_layers_follow_each_other_from_the_surface_to_the_white_matter() -> None:
    truth = section_truth(240, 320, 16.0, 0.5, np.random.default_rng(0))
    cortex = np.isfinite(truth.depth)
    assert ((truth.layer >= 1) & (truth.layer <= 6))[cortex].all()
    assert set(np.unique(truth.layer[~cortex])) <= {0, WHITE_MATTER}
    for area in range(1, len(AREAS) + 1):
        here = truth.area == area
        order = np.argsort(truth.depth[here])
        assert (np.diff(truth.layer[here][order].astype(int)) >= 0).all()
        assert set(np.unique(truth.layer[here])) == {1, 2, 3, 4, 5, 6}


def test_stained_tissue_is_darker_than_the_slide_and_dense_layers_are_the_darkest() -> None:
    rng = np.random.default_rng(0)
    truth = section_truth(240, 320, 16.0, 0.5, rng)
    pixels = stain(truth, 16.0, rng).astype(float)
    slide, tissue = pixels[truth.layer == 0].mean(), pixels[truth.layer > 0].mean()
    assert slide > tissue + 30
    first = truth.area == 1
    means = [pixels[first & (truth.layer == layer)].mean() for layer in range(1, 7)]
    assert int(np.argmin(means)) + 1 == 1 + int(np.argmax(np.multiply(AREAS[0].density, np.square(AREAS[0].radius_um))))
    assert int(np.argmax(means)) == 0  # the molecular layer holds the fewest cells


def test_a_scan_is_a_compressed_tiled_tiff_without_a_date(tmp_path: Path) -> None:
    write_phantom(tmp_path / "p", "P1", "tiny")
    with tifffile.TiffFile(tmp_path / "p" / "scans" / "s0000.tif") as file:
        page = file.pages[0]
        assert page.is_tiled
        assert {"DateTime", "Software"}.isdisjoint(tag.name for tag in page.tags)
