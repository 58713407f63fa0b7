import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models.v05.image import Image as NgffImage
from ome_zarr_models.v05.image_label import ImageLabel
from PIL import Image

from cytoarch.brains import Label, LabelTable, Section, read_manifest
from cytoarch.errors import ScanError
from cytoarch.images import spooling
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


@pytest.mark.parametrize(("shape", "filling"), [((60, 80), 0), ((60, 80, 3), 255)])
def test_beyond_the_edge_chunks_hold_the_ground_of_a_slide(
    staging: Staging, tmp_path: Path, shape: tuple[int, ...], filling: int
) -> None:
    scan(tmp_path / "a.tif", *shape)
    write_section(staging, tmp_path / "a.tif", section())
    assert zarr.open_array(staging.path / "0", mode="r").fill_value == filling


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255.0), ("uint16", 65535.0)])
def test_viewers_are_shown_the_whole_range_of_a_section(
    staging: Staging, tmp_path: Path, dtype: str, top: float
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ids(60, 80).astype(dtype), metadata=None)
    write_section(staging, tmp_path / "a.tif", section())
    (channel,) = metadata(staging.path)["ome"]["omero"]["channels"]
    assert channel["window"] == {"min": 0.0, "max": top, "start": 0.0, "end": top}


@pytest.mark.parametrize("suffix", ["tif", "png"])
@pytest.mark.parametrize("labels", [False, True])
def test_progress_grows_to_the_end_once_through_all_phases(
    staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, labels: bool
) -> None:
    """A PNG is decoded into a scratch file, labels are checked, then both are written."""
    monkeypatch.setattr(spooling, "IN_MEMORY_BYTES", 0)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(ids().astype(np.uint8)).save(path)
    told: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        told.append((done, total))

    if labels:
        write_labels(staging, path, section(), TABLE, (300, 270), 2.0, tell)
    else:
        write_section(staging, path, section(), tell)
    shares = [done / total for done, total in told]
    assert shares == sorted(shares)
    assert all(share < 1 for share in shares[:-1])
    assert shares[-1] == 1
    phases = (suffix == "png") + labels + 1
    assert told[-1] == (phases * 300 * 270, phases * 300 * 270)


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


def most_frequent(four: list[int]) -> int:
    """The value that is there most often, the first of them in reading order."""
    return max(four, key=four.count)


def halved_by_vote(values: Array) -> Array:
    """Every 2 x 2 ids by their vote; a lone last row or column votes twice."""
    height, width = values.shape
    padded = np.pad(values, ((0, height % 2), (0, width % 2)), mode="edge")
    blocks = padded.reshape(len(padded) // 2, 2, -1, 2).transpose(0, 2, 1, 3).reshape(-1, 4).tolist()
    return np.array([most_frequent(four) for four in blocks]).reshape(-(-height // 2), -1)


@pytest.mark.parametrize("shape", [(301, 517), (513, 258), (1025, 3)])
def test_every_level_of_a_label_image_holds_ids_that_won_a_vote(
    staging: Staging, tmp_path: Path, shape: tuple[int, int]
) -> None:
    """A mean of ids is an id that nobody drew."""
    expected = np.random.default_rng(4).choice(np.array([0, 1, 7], np.uint8), shape)
    stored(staging, tmp_path, expected, shape)
    levels = StoredImage.open(staging.path / "labels").levels
    assert len(levels) >= 3
    for number in range(len(levels)):
        np.testing.assert_array_equal(open_level(staging.path / "labels", number), expected)
        expected = halved_by_vote(expected)


@pytest.mark.parametrize("shape", [(301, 517), (513, 258)])
def test_every_level_of_a_section_is_the_mean_of_the_one_below(
    staging: Staging, tmp_path: Path, shape: tuple[int, int]
) -> None:
    expected = scan(tmp_path / "a.tif", *shape)
    write_section(staging, tmp_path / "a.tif", section())
    levels = StoredImage.open(staging.path).levels
    assert len(levels) >= 3
    for number in range(len(levels)):
        np.testing.assert_array_equal(open_level(staging.path, number)[0], expected)
        height, width = expected.shape
        padded = np.pad(expected, ((0, height % 2), (0, width % 2)), mode="edge").astype(float)
        means = padded.reshape(len(padded) // 2, 2, -1, 2).mean(axis=(1, 3))
        expected = np.floor(means + 0.5).astype(np.uint8)


def test_ome_zarr_py_finds_sections_and_labels_as_viewers_show_them(staging: Staging, tmp_path: Path) -> None:
    pixels = scan(tmp_path / "a.tif", 301, 517, 3)
    write_section(staging, tmp_path / "a.tif", section())
    labels = Staging(tmp_path / "labels").open()
    stored(labels, tmp_path, ids(301, 517), (301, 517))
    labels.path.rename(staging.path / "labels")
    location = parse_url(staging.path)
    assert location is not None
    image, _, label = Reader(location)()
    np.testing.assert_array_equal(image.data[0].compute(), np.moveaxis(pixels, -1, 0))
    np.testing.assert_array_equal(label.data[0].compute(), ids(301, 517))
    assert [one.shape[-2:] for one in image.data] == [one.shape for one in label.data]
    assert image.metadata["channel_names"] == ["red", "green", "blue"]
    assert label.metadata["color"] == {1: [1.0, 0.0, 0.0, 1.0], 7: [0.0, 0.0, 1.0, 1.0]}
    assert label.metadata["properties"] == {1: {"name": "A"}, 7: {"name": "B"}}
    for node, axes in ((image, "cyx"), (label, "yx")):
        for number, (scale, offset) in enumerate(node.metadata["coordinateTransformations"]):
            edge_um = 2.0 * 2**number
            assert scale["scale"] == [1.0] * (len(axes) - 2) + [edge_um] * 2
            assert offset["translation"] == [0.0] * (len(axes) - 2) + [(edge_um - 2.0) / 2] * 2


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


@pytest.mark.parametrize("shape", [(45, 70), (40, 58), (60, 70)])
def test_a_label_image_too_small_for_the_region_is_refused(
    staging: Staging, tmp_path: Path, shape: tuple[int, int]
) -> None:
    with pytest.raises(ScanError, match=f"{shape[0]} x {shape[1]} pixels where the scan has 40 x 59"):
        stored(staging, tmp_path, ids(*shape), (40, 59), region_px="10:50 20:79")


@pytest.mark.parametrize(
    ("colours", "says"),
    [
        ({1: (255, 0, 0), 7: (0, 0, 255)}, None),
        ({1: (9, 9, 0), 7: (0, 9, 9)}, None),
        ({1: (0, 0, 255), 7: (255, 0, 0)}, "number 1 in #0000ff, which is the colour of id 7"),
        ({1: (9, 9, 0), 7: (255, 0, 0)}, "number 7 in #ff0000, which is the colour of id 1"),
        ({1: (255, 0, 0), 7: (0, 0, 255), 5: (0, 0, 255)}, None),  # a number that no pixel has
    ],
)
def test_a_palette_that_shows_ids_in_the_colours_of_others_is_refused(
    staging: Staging, tmp_path: Path, colours: dict[int, tuple[int, int, int]], says: str | None
) -> None:
    """Optimisers reorder palettes: what is shown stays, the numbers do not."""
    image = Image.fromarray(ids().astype(np.uint8), mode="P")
    image.putpalette([value for number in range(8) for value in colours.get(number, (0, 0, 0))])
    image.save(tmp_path / "a.png")

    def write() -> dict[str, Any]:
        return write_labels(staging, tmp_path / "a.png", section(), TABLE, (300, 270), 2.0)

    if says is None:
        write()
        np.testing.assert_array_equal(open_level(staging.path / "labels"), ids())
    else:
        with pytest.raises(ScanError, match=f"a\\.png: its palette shows {says}"):
            write()
        assert not staging.has("zarr.json")


def palette_file(path: Path, colours: dict[int, tuple[int, int, int]]) -> Path:
    """The ids with a palette, as PNG or TIFF."""
    image = Image.fromarray(ids().astype(np.uint8), mode="P")
    image.putpalette([value for number in range(8) for value in colours.get(number, (0, 0, 0))])
    image.save(path)
    return path


def test_a_palette_tiff_is_checked_like_a_png(staging: Staging, tmp_path: Path) -> None:
    path = palette_file(tmp_path / "a.tif", {1: (0, 0, 255), 7: (255, 0, 0)})
    with pytest.raises(ScanError, match=r"a\.tif: its palette shows number 1 in #0000ff, which is the colour of id 7"):
        write_labels(staging, path, section(labels="a.tif"), TABLE, (300, 270), 2.0)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(
    ("colours", "said"),
    [
        ({1: (255, 0, 0), 7: (0, 0, 255)}, ""),
        ({number: (number, number, number) for number in range(8)}, ""),
        ({1: (255, 0, 0), 7: (9, 9, 0)}, "the palette shows id 7 in colours"),
        ({1: (9, 0, 0), 7: (9, 9, 0)}, "the palette shows id 1 and 1 more in colours"),
    ],
)
def test_colours_that_the_table_does_not_give_are_remarked(
    staging: Staging, tmp_path: Path, suffix: str, colours: dict[int, tuple[int, int, int]], said: str
) -> None:
    """An optimiser reorders such a palette and nothing tells."""
    path = palette_file(tmp_path / f"a{suffix}", colours)
    facts = write_labels(staging, path, section(labels=path.name), TABLE, (300, 270), 2.0)
    remarks = facts.get("remarks", [])
    assert [remark[: len(said)] for remark in remarks] == ([said] if said else [])
    np.testing.assert_array_equal(open_level(staging.path / "labels"), ids())


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


def test_ids_of_nine_digits_are_stored_as_they_are(staging: Staging, tmp_path: Path) -> None:
    ids = np.zeros((300, 270), dtype=np.uint32)
    ids[50:200, 30:200], ids[210:, :] = 614_454_277, 7
    tifffile.imwrite(tmp_path / "a.tif", ids, metadata=None)
    table = LabelTable(labels=(Label(id=614_454_277, name="A"), Label(id=7, name="B")))
    facts = write_labels(staging, tmp_path / "a.tif", section(), table, ids.shape, 2.0)
    assert facts["labelled_px"] == np.count_nonzero(ids)
    stored_ids = open_level(staging.path / "labels")
    assert stored_ids.dtype == np.uint32
    np.testing.assert_array_equal(stored_ids, ids)
    ImageLabel.from_zarr(zarr.open_group(staging.path / "labels", mode="r"))
    with pytest.raises(ScanError, match="holds ids 614454277 that are not in the label table"):
        write_labels(staging, tmp_path / "a.tif", section(), TABLE, ids.shape, 2.0)
