import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from ome_zarr_models.v05.image import Image as NgffImage
from ome_zarr_models.v05.image_label import ImageLabel
from PIL import Image

from cytoarch.brains import Label, LabelTable, Section, read_manifest
from cytoarch.errors import ScanError
from cytoarch.images.sections import write_labels, write_section
from cytoarch.images.views import StoredImage
from cytoarch.phantoms.writing import PhantomRequest, write_phantom
from cytoarch.store.staging import Staging

Array = NDArray[Any]
TABLE = LabelTable(labels=(Label(id=1, name="A", colour="#ff0000"), Label(id=7, name="B", colour="#0000ff")))


def section(**changes: object) -> Section:
    base = {"brain_id": "B1", "section_id": "s1", "section_number": 1, "path": "a.tif", "pixel_size_um": 2.0}
    return Section.model_validate({**base, "labels": "a.png", "labels_origin": "expert", **changes})


def ids(height: int = 300, width: int = 270, top: int = 7) -> Array:
    values = np.random.default_rng(2).choice([0, 1, top], (height // 30 + 1, width // 30 + 1)).astype(np.uint16)
    return np.kron(values, np.ones((30, 30), np.uint16))[:height, :width]


def scan(path: Path, *shape: int) -> Array:
    pixels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb" if len(shape) == 3 else "minisblack", metadata=None)
    return pixels


def open_level(folder: Path, number: int = 0) -> Array:
    return np.asarray(zarr.open_array(folder / str(number), mode="r")[...])


def metadata(folder: Path) -> dict[str, Any]:
    attributes: dict[str, Any] = json.loads((folder / "zarr.json").read_bytes())["attributes"]
    return attributes


# -- sections ----------------------------------------------------------------------------------------------------------


def test_a_phantoms_section_and_labels_are_stored_as_they_were_written(staging: Staging, tmp_path: Path) -> None:
    manifest = write_phantom(tmp_path / "phantom", "P1", PhantomRequest(size="tiny", sections=1))
    (brain,) = read_manifest(manifest, manifest.parent, manifest.parent / "labels.csv")
    first = brain.sections[0]
    facts = write_section(staging, manifest.parent / first.path, first)
    scanned = tifffile.imread(manifest.parent / first.path)
    assert (facts["shape"], facts["dtype"], facts["kind"]) == ([1, *scanned.shape], "uint8", "grey")
    assert (facts["pixel_size_um"], facts["pixel_size_source"], facts["remarks"]) == (80.0, "manifest", [])
    np.testing.assert_array_equal(open_level(staging.path)[0], scanned)
    NgffImage.from_zarr(zarr.open_group(staging.path, mode="r"))
    assert first.labels is not None
    assert brain.label_table is not None
    labels = Staging(tmp_path / "labels").open()
    write_labels(labels, manifest.parent / first.labels, first, brain.label_table, scanned.shape, 80.0)
    with Image.open(manifest.parent / first.labels) as image:
        np.testing.assert_array_equal(open_level(labels.path / "labels"), np.asarray(image))


@pytest.mark.parametrize("flip", ["none", "horizontal", "vertical"])
@pytest.mark.parametrize("rotation", [0.0, 90.0])
def test_flips_and_rotations_leave_every_byte_of_a_section_as_it_is(
    staging: Staging, tmp_path: Path, flip: str, rotation: float
) -> None:
    pixels = scan(tmp_path / "a.tif", 60, 80)
    write_section(staging, tmp_path / "a.tif", section(flip=flip, rotation=rotation))
    np.testing.assert_array_equal(open_level(staging.path)[0], pixels)
    plain = Staging(tmp_path / "plain").open()
    write_section(plain, tmp_path / "a.tif", section())
    written = [
        {p.relative_to(s.path): p.read_bytes() for p in s.path.rglob("*") if p.is_file()} for s in (staging, plain)
    ]
    assert written[0] == written[1]


def test_the_region_of_a_slide_is_stored_alone(staging: Staging, tmp_path: Path) -> None:
    pixels = scan(tmp_path / "a.tif", 60, 80, 3)
    facts = write_section(staging, tmp_path / "a.tif", section(region_px="10:50 20:79"))
    np.testing.assert_array_equal(open_level(staging.path), np.moveaxis(pixels[10:50, 20:79], -1, 0))
    assert facts["shape"] == [3, 40, 59]
    assert any("region" in remark for remark in facts["remarks"])


def test_a_section_without_a_pixel_size_costs_only_itself(staging: Staging, tmp_path: Path) -> None:
    scan(tmp_path / "a.tif", 60, 80)
    with pytest.raises(ScanError, match="fill in pixel_size_um"):
        write_section(staging, tmp_path / "a.tif", section(pixel_size_um=None))


def test_the_record_says_where_the_pixel_size_comes_from(staging: Staging, tmp_path: Path) -> None:
    pixels = np.zeros((60, 80), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, resolution=(2e4, 2e4), resolutionunit="CENTIMETER", metadata=None)
    facts = write_section(staging, tmp_path / "a.tif", section(pixel_size_um=None))
    assert (facts["pixel_size_um"], facts["pixel_size_source"]) == (0.5, "tiff-tag")
    assert StoredImage.open(staging.path).pixel_size_um == 0.5


# -- labels ------------------------------------------------------------------------------------------------------------


def stored(
    staging: Staging, folder: Path, pixels: Array, shape: tuple[int, int] = (300, 270), **changes: Any
) -> dict[str, Any]:
    path = folder / "a.png"
    Image.fromarray(pixels).save(path)
    table = changes.pop("table", TABLE)
    return write_labels(staging, path, section(**changes), table, shape, 2.0)


def test_labels_are_kept_id_for_id_in_the_narrowest_type_and_counted(staging: Staging, tmp_path: Path) -> None:
    facts = stored(staging, tmp_path, ids())
    found = open_level(staging.path / "labels")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, ids())
    assert facts == {"labelled_px": int((ids() > 0).sum()), "origin": "expert"}


def test_ids_beyond_255_are_kept(staging: Staging, tmp_path: Path) -> None:
    table = LabelTable(labels=(Label(id=1, name="A"), Label(id=40_000, name="B")))
    stored(staging, tmp_path, ids(top=40_000), table=table)
    assert set(np.unique(open_level(staging.path / "labels"))) == {0, 1, 40_000}


@pytest.mark.parametrize("shape", [(100, 90), (256, 256), (300, 257), (1100, 40)])
def test_labels_have_as_many_levels_as_their_image_of_the_same_sizes_and_scales(
    staging: Staging, tmp_path: Path, shape: tuple[int, int]
) -> None:
    scan(tmp_path / "a.tif", *shape)
    write_section(staging, tmp_path / "a.tif", section())
    labels = Staging(tmp_path / "labels").open()
    stored(labels, tmp_path, ids(*shape), shape)
    image, label = StoredImage.open(staging.path), StoredImage.open(labels.path / "labels")
    assert [(one.size, one.pixel_size_um, one.origin_um) for one in image.levels] == [
        (one.size, one.pixel_size_um, one.origin_um) for one in label.levels
    ]


def test_the_label_image_states_names_colours_and_who_drew_it(staging: Staging, tmp_path: Path) -> None:
    stored(staging, tmp_path, ids())
    label = metadata(staging.path / "labels")["ome"]["image-label"]
    assert label["properties"] == [{"label-value": 1, "name": "A"}, {"label-value": 7, "name": "B"}]
    assert [entry["rgba"] for entry in label["colors"]] == [[255, 0, 0, 255], [0, 0, 255, 255]]
    assert metadata(staging.path)["ome"] == {"version": "0.5", "labels": ["labels"]}
    assert StoredImage.open(staging.path / "labels").attributes["origin"] == "expert"
    ImageLabel.from_zarr(zarr.open_group(staging.path / "labels", mode="r"))


@pytest.mark.parametrize("shape", [(299, 270), (300, 271), (270, 300), (150, 135)])
def test_a_label_image_of_another_size_is_refused(staging: Staging, tmp_path: Path, shape: tuple[int, int]) -> None:
    with pytest.raises(ScanError, match=r"a\.png.*300 x 270.*") as caught:
        stored(staging, tmp_path, ids(), shape)
    assert f"{shape[0]} x {shape[1]}" in str(caught.value)


def test_a_label_image_of_the_whole_slide_is_cut_to_the_region(staging: Staging, tmp_path: Path) -> None:
    stored(staging, tmp_path, ids(), (40, 59), region_px="10:50 20:79")
    np.testing.assert_array_equal(open_level(staging.path / "labels"), ids()[10:50, 20:79])


def test_a_label_image_of_the_region_is_taken_as_it_is(staging: Staging, tmp_path: Path) -> None:
    stored(staging, tmp_path, ids(40, 59), (40, 59), region_px="10:50 20:79")
    np.testing.assert_array_equal(open_level(staging.path / "labels"), ids(40, 59))


def test_ids_that_are_not_in_the_table_are_refused_and_named(staging: Staging, tmp_path: Path) -> None:
    pixels = ids()
    pixels[5, 5], pixels[6, 6] = 3, 9
    with pytest.raises(ScanError, match=r"a\.png: holds ids 3, 9 "):
        stored(staging, tmp_path, pixels)
    assert not staging.has("zarr.json")


@pytest.mark.parametrize("shape", [(300, 270, 3), (300, 270, 4)])
def test_a_colour_picture_is_no_label_image(staging: Staging, tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ScanError, match=r"a\.png"):
        stored(staging, tmp_path, np.ones(shape, np.uint8))


def test_an_image_of_nothing_but_unlabelled_pixels_is_stored(staging: Staging, tmp_path: Path) -> None:
    assert stored(staging, tmp_path, np.zeros((300, 270), np.uint8))["labelled_px"] == 0
