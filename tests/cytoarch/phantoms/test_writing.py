import csv
import hashlib
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from cytoarch.brains import read_label_table, read_manifest
from cytoarch.errors import CytoarchError
from cytoarch.images.pixel_size import resolve_pixel_size
from cytoarch.images.scans import open_scan, read_labels
from cytoarch.phantoms.anatomy import AREA_COUNT, HEMISPHERES, Variation, area_names
from cytoarch.phantoms.cortex import SURFACE_DEPTHS, surfaces
from cytoarch.phantoms.files import ScanFormat
from cytoarch.phantoms.nuisances import Nuisances
from cytoarch.phantoms.rendering import render
from cytoarch.phantoms.scribbles import Target, label_image
from cytoarch.phantoms.sections import Stain, Window, section_count
from cytoarch.phantoms.surfaces import adjacency
from cytoarch.phantoms.truth import truth_at
from cytoarch.phantoms.writing import PhantomRequest, WrittenPhantom, write_phantom

PIXEL_UM = 100.0


def request(**changes: object) -> PhantomRequest:
    return PhantomRequest.model_validate({"size": "tiny", "sections": 1, "pixel_size_um": PIXEL_UM, **changes})


def tree(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom of two sections, for tests that only look."""
    folder = tmp_path_factory.mktemp("written") / "p"
    write_phantom(folder, "P1", request(sections=2))
    return folder


# -- what is written ---------------------------------------------------------------------------------------------------


def test_a_phantom_is_a_valid_manifest_whose_scans_and_labels_can_be_read(written: Path) -> None:
    (brain,) = read_manifest(written / "manifest.csv", written, written / "labels.csv")
    phantom = WrittenPhantom(written)
    assert brain.brain_id == "P1"
    assert tuple(section.section_id for section in brain.kept) == phantom.section_ids
    assert len(brain.kept) == 2
    for section in brain.sections:
        assert section.labels is not None
        shape = phantom.section(section.section_id).size_px(PIXEL_UM)
        with open_scan(written / section.path) as scan:
            assert scan.shape == (1, *shape)
            size = resolve_pixel_size(section, scan.stated_pixel_sizes)
            assert size.value_um == PIXEL_UM
            assert [one.source for one in scan.stated_pixel_sizes] == ["tiff-tag"]
            assert scan.stated_pixel_sizes[0].value_um == pytest.approx(PIXEL_UM, rel=1e-6)
        assert read_labels(written / section.labels).shape == shape


def test_a_size_says_how_many_sections_there_are_and_how_fine(tmp_path: Path) -> None:
    write_phantom(tmp_path / "p", "P1", PhantomRequest(size="tiny", nuisances=Nuisances.none()))
    rows = table(tmp_path / "p" / "manifest.csv")
    assert len(rows) == 5
    assert {row["pixel_size_um"] for row in rows} == {"80.0"}
    assert {row["thickness_um"] for row in rows} == {"25.0"}
    assert [int(row["section_number"]) for row in rows] == [0, 10, 20, 30, 40]
    gaps = np.diff([float(row["position_um"]) for row in rows])
    np.testing.assert_allclose(gaps, 250, atol=1)


@pytest.mark.parametrize("target", ["areas", "layers"])
def test_every_value_of_the_label_images_is_in_the_label_table(tmp_path: Path, target: Target) -> None:
    write_phantom(tmp_path / "p", "P1", request(sections=5, target=target))
    known = {label.id: label.name for label in read_label_table(tmp_path / "p" / "labels.csv").labels}
    found: set[int] = set()
    for path in (tmp_path / "p" / "labels").iterdir():
        found |= set(np.unique(read_labels(path)).tolist())
    assert found - {0} <= set(known)
    assert len(found) > 8
    assert list(known) == list(range(1, (AREA_COUNT if target == "areas" else 6) + 3))
    assert list(known.values())[-2:] == ["white matter", "nucleus"]


def test_areas_and_layers_of_one_seed_are_drawn_on_the_same_scans(written: Path, tmp_path: Path) -> None:
    write_phantom(tmp_path / "l", "P1", request(sections=2, target="layers"))
    assert tree(written / "scans") == tree(tmp_path / "l" / "scans")
    assert tree(written / "truth") == tree(tmp_path / "l" / "truth")
    for path in (written / "labels").iterdir():
        areas, layers = read_labels(path), read_labels(tmp_path / "l" / "labels" / path.name)
        np.testing.assert_array_equal(areas == 0, layers == 0)
        np.testing.assert_array_equal(areas == AREA_COUNT + 1, layers == 7)
        np.testing.assert_array_equal(areas == AREA_COUNT + 2, layers == 8)


@pytest.mark.parametrize("scans", ["tiff", "ome-tiff"])
def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path: Path, scans: ScanFormat) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_phantom(tmp_path / name, "P1", request(seed=seed, scans=scans))
    same, again, other = (tree(tmp_path / name) for name in "abc")
    assert same == again
    changing = [key for key in same if key.startswith(("scans/", "labels/", "truth/")) and key in other]
    assert {key.split("/")[0] for key in changing} == {"scans", "labels", "truth"}
    alike = {key for key in changing if same[key] == other[key]}
    assert not alike - {"truth/neighbours.csv"}


# -- formats and stains ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scans", "stain"),
    [
        ("tiff", "nissl"),
        ("tiff", "dapi"),
        ("ome-tiff", "nissl"),
        ("ome-tiff", "dapi"),
        ("png", "nissl"),
        ("png", "dapi"),
    ],
)
def test_every_format_holds_the_pixels_of_colour_and_16_bit_stains(
    tmp_path: Path, scans: ScanFormat, stain: Stain
) -> None:
    write_phantom(tmp_path / "p", "P1", request(scans=scans, stain=stain))
    phantom = WrittenPhantom(tmp_path / "p")
    (row,) = table(tmp_path / "p" / "manifest.csv")
    path = tmp_path / "p" / row["path"]
    assert path.name == f"s0000.{ {'tiff': 'tif', 'ome-tiff': 'ome.tif', 'png': 'png'}[scans] }"
    section = phantom.section("s0000")
    height, width = section.size_px(PIXEL_UM)
    wanted = render(section, Window(0, 0, height, width), PIXEL_UM)
    stored = np.asarray(Image.open(path)) if scans == "png" else tifffile.imread(path)
    assert stored.dtype == wanted.dtype
    np.testing.assert_array_equal(stored, wanted)
    with open_scan(path) as scan:
        assert scan.shape == (3 if stain == "nissl" else 1, height, width)
        planes = scan.read(0, 0, height, width)
        np.testing.assert_array_equal(np.moveaxis(planes, 0, -1).squeeze(), wanted)
        assert scan.stated_pixel_sizes[0].value_um == pytest.approx(PIXEL_UM, rel=1e-3) if scans != "png" else True


def test_a_scan_is_a_compressed_tiled_tiff_without_a_date(written: Path) -> None:
    with tifffile.TiffFile(written / "scans" / "s0000.tif") as file:
        page = file.pages[0]
        assert page.is_tiled
        assert page.compression != 1
        assert {"DateTime", "Software", "ImageDescription"}.isdisjoint(tag.name for tag in page.tags)


def test_an_ome_tiff_states_its_pixel_size_and_nothing_that_changes(tmp_path: Path) -> None:
    write_phantom(tmp_path / "p", "P1", request(scans="ome-tiff", pixel_size_um=81.5))
    path = tmp_path / "p" / "scans" / "s0000.ome.tif"
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        assert file.pages[0].is_tiled
        text = file.ome_metadata
        assert 'PhysicalSizeX="81.5"' in text
        assert 'PhysicalSizeY="81.5"' in text
        assert {"DateTime", "Software"}.isdisjoint(tag.name for tag in file.pages[0].tags)
    with open_scan(path) as scan:
        stated = {one.source: one.value_um for one in scan.stated_pixel_sizes}
        assert any("ome" in source for source in stated)
        assert all(size == pytest.approx(81.5, rel=1e-4) for size in stated.values())


def test_a_png_too_large_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(CytoarchError, match="too large for a PNG"):
        write_phantom(tmp_path / "p", "P1", request(scans="png", pixel_size_um=1.0))
    assert not (tmp_path / "p").exists()


# -- truth -------------------------------------------------------------------------------------------------------------


def test_a_written_phantom_gives_the_pixels_and_labels_of_its_files(written: Path) -> None:
    phantom = WrittenPhantom(written)
    assert phantom.pixel_size_um == PIXEL_UM
    for name in phantom.section_ids:
        section = phantom.section(name)
        window = Window(0, 0, *section.size_px(PIXEL_UM))
        pixels = tifffile.imread(written / "scans" / f"{name}.tif")
        np.testing.assert_array_equal(render(section, window, PIXEL_UM), pixels)
        labels = read_labels(written / "labels" / f"{name}.png")
        np.testing.assert_array_equal(label_image(section, "areas", window, PIXEL_UM), labels)


def test_a_section_that_was_not_written_is_unknown(written: Path) -> None:
    with pytest.raises(CytoarchError, match=r"s9999.*s0000"):
        WrittenPhantom(written).section("s9999")


def test_a_folder_without_a_recipe_is_no_phantom(tmp_path: Path) -> None:
    with pytest.raises(CytoarchError, match=r"phantom\.json"):
        WrittenPhantom(tmp_path)


def test_the_transform_of_a_section_maps_its_pixels_to_the_brain(written: Path) -> None:
    phantom = WrittenPhantom(written)
    rows = table(written / "truth" / "sections.csv")
    assert [row["section_id"] for row in rows] == list(phantom.section_ids)
    pixels = np.array([[0, 0], [10, 200], [123, 45.5]])
    for row in rows:
        section = phantom.section(row["section_id"])
        found = np.stack(
            [
                float(row[f"{axis}_mm_of_first_pixel"]) + pixels @ [float(row[f"{axis}_mm_per_{of}_px"]) for of in "yx"]
                for axis in "xyz"
            ],
            axis=1,
        )
        np.testing.assert_allclose(found, section.brain_mm((pixels + 0.5) * PIXEL_UM / 1000), atol=1e-6)
        assert row["mirrored"] == ("yes" if section.mounting.mirrored else "no")
        assert int(row["tears"]) == len(section.mounting.tears)
        assert float(row["shrinkage"]) == pytest.approx(section.mounting.shrinkage, abs=1e-5)


def test_points_lie_in_the_area_that_the_label_image_shows_there(written: Path) -> None:
    rows = table(written / "truth" / "points.csv")
    assert len(rows) > 60
    phantom = WrittenPhantom(written)
    agree = []
    for row in rows:
        section = phantom.section(row["section_id"])
        labels = read_labels(written / "labels" / f"{row['section_id']}.png")
        y, x = float(row["y_px"]), float(row["x_px"])
        agree.append(labels[round(y), round(x)] == int(row["area_id"]))
        assert row["area"] == area_names()[int(row["area_id"]) - 1]
        # the very place, not the pixel's middle; coordinates are rounded to a hundredth of a pixel
        true = truth_at(section, (np.array([[y, x]]) + 0.5) * PIXEL_UM / 1000)
        assert row["hemisphere"] == HEMISPHERES[int(true.hemisphere[0]) - 1]
        assert float(row["depth"]) == pytest.approx(float(true.depth[0]), abs=0.02)
        assert [float(row[f"{axis}_mm"]) for axis in "xyz"] == pytest.approx(true.position_mm[0].tolist(), abs=0.01)
    # a pixel of 100 um in the middle of the cortex is of another area only where it straddles a border
    assert np.mean(agree) > 0.93


def test_areas_are_listed_with_the_figures_of_the_brain(written: Path) -> None:
    rows = table(written / "truth" / "areas.csv")
    brain = WrittenPhantom(written).phantom.brain
    assert [row["name"] for row in rows] == list(area_names())
    for row, profile in zip(rows, brain.profiles, strict=True):
        shares = [float(row[f"L{layer}_share"]) for layer in range(1, 7)]
        np.testing.assert_allclose(shares, profile.thickness, atol=1e-4)
        densities = [float(row[f"L{layer}_per_mm3"]) for layer in range(1, 7)]
        np.testing.assert_allclose(densities, profile.density_per_mm3, atol=1)
        assert float(row["left_mm2"]) > 0
        assert float(row["right_mm2"]) > 0


def test_neighbours_are_those_of_the_mid_surface(written: Path) -> None:
    rows = table(written / "truth" / "neighbours.csv")
    pairs = {frozenset((row["area"], row["neighbour"])) for row in rows}
    assert len(pairs) == len(rows)
    touching = adjacency(surfaces(WrittenPhantom(written).phantom.brain, 0.5), AREA_COUNT)
    names = area_names()
    assert pairs == {frozenset((names[a], names[b])) for a, b in np.argwhere(touching)}


def test_surfaces_are_gifti_files_with_areas(written: Path) -> None:
    brain = WrittenPhantom(written).phantom.brain
    for name, depth in SURFACE_DEPTHS.items():
        for side, surface in zip(HEMISPHERES, surfaces(brain, depth), strict=True):
            mesh = nibabel.load(written / "truth" / f"{side}.{name}.surf.gii")
            points, triangles = mesh.agg_data("pointset"), mesh.agg_data("triangle")
            np.testing.assert_allclose(points, surface.vertices_mm, atol=1e-5)
            np.testing.assert_array_equal(triangles, surface.triangles)
            if name != "mid":
                continue
            labels = nibabel.load(written / "truth" / f"{side}.areas.label.gii")
            np.testing.assert_array_equal(labels.agg_data(), surface.area)
            known = labels.labeltable.get_labels_as_dict()
            assert [known[key] for key in range(1, AREA_COUNT + 1)] == list(area_names())


def test_lost_sections_are_gaps_and_are_listed(tmp_path: Path) -> None:
    write_phantom(tmp_path / "p", "P1", request(sections=6, nuisances=Nuisances(missing=0.5)))
    rows, kept = table(tmp_path / "p" / "truth" / "sections.csv"), table(tmp_path / "p" / "manifest.csv")
    there = [row["section_id"] for row in rows if row["missing"] == "no"]
    assert len(rows) == 6
    assert 0 < len(there) < 6
    assert [row["section_id"] for row in kept] == there == list(WrittenPhantom(tmp_path / "p").section_ids)
    numbers = {row["section_id"]: row["section_number"] for row in rows}
    assert all(row["section_number"] == numbers[row["section_id"]] for row in kept)
    assert sorted(path.stem for path in (tmp_path / "p" / "scans").iterdir()) == there
    assert {row["section_id"] for row in table(tmp_path / "p" / "truth" / "points.csv")} <= set(there)


def test_a_mirrored_section_is_said_to_be_flipped(tmp_path: Path) -> None:
    write_phantom(tmp_path / "p", "P1", request(nuisances=Nuisances.none().but(mirrored=1)))
    assert [row["flip"] for row in table(tmp_path / "p" / "manifest.csv")] == ["horizontal"]


def test_scribbles_are_sparse_labels_and_lines_within_the_budget(written: Path, tmp_path: Path) -> None:
    write_phantom(tmp_path / "p", "P1", request(sections=2, annotation="scribbles", strokes=15))
    assert tree(written / "scans") == tree(tmp_path / "p" / "scans")
    names = {label.name for label in read_label_table(tmp_path / "p" / "labels.csv").labels}
    drawn = 0
    for path in sorted((tmp_path / "p" / "scribbles").iterdir()):
        dense, sparse = (read_labels(folder / "labels" / f"{path.stem}.png") for folder in (written, tmp_path / "p"))
        assert 0 < (sparse > 0).mean() < 0.05
        np.testing.assert_array_equal(sparse[sparse > 0], dense[sparse > 0])
        for feature in json.loads(path.read_text(encoding="utf-8"))["features"]:
            drawn += 1
            line = np.array(feature["geometry"]["coordinates"])
            assert feature["geometry"]["type"] == "LineString"
            assert feature["properties"]["classification"]["name"] in names
            assert (line >= 0).all()
            assert (line <= [sparse.shape[1], sparse.shape[0]]).all()
    assert drawn == 15


# -- where it is written -----------------------------------------------------------------------------------------------


def test_a_phantom_may_be_written_again_over_itself(tmp_path: Path) -> None:
    write_phantom(tmp_path, "P1", request())
    before = tree(tmp_path)
    write_phantom(tmp_path, "P1", request())
    assert tree(tmp_path) == before


def test_a_phantom_written_over_another_leaves_nothing_of_it(tmp_path: Path) -> None:
    write_phantom(tmp_path / "a", "P1", request(sections=3, seed=1, annotation="scribbles", scans="png"))
    for name in ("a", "b"):
        write_phantom(tmp_path / name, "P1", request())
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_folder_that_holds_anything_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "work.txt").write_text("work", encoding="utf-8")
    with pytest.raises(CytoarchError, match="not empty"):
        write_phantom(tmp_path, "P1", request())
    assert [path.name for path in tmp_path.iterdir()] == ["work.txt"]


def test_the_manifest_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("brain_id,section_id\n", encoding="utf-8")
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "s0000.tif").write_bytes(b"a real scan")
    before = tree(tmp_path)
    with pytest.raises(CytoarchError):
        write_phantom(tmp_path, "P1", request())
    assert tree(tmp_path) == before


@pytest.mark.parametrize("brain_id", ["", "..", "a/b", "a b"])
def test_a_phantom_needs_a_valid_name_and_writes_nothing_otherwise(tmp_path: Path, brain_id: str) -> None:
    with pytest.raises(CytoarchError):
        write_phantom(tmp_path / "p", brain_id, request())
    assert not (tmp_path / "p").exists()


def test_more_sections_than_the_brain_has_are_refused(written: Path, tmp_path: Path) -> None:
    count = section_count(WrittenPhantom(written).phantom)
    with pytest.raises(CytoarchError, match="sections were asked for"):
        write_phantom(tmp_path / "p", "P1", request(sections=count))
    assert not (tmp_path / "p").exists()


def test_the_manifest_is_written_last_and_progress_reaches_its_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def look(done: int, total: int) -> None:
        assert not (tmp_path / "p" / "manifest.csv").exists()
        seen.append((done, total))

    manifest = write_phantom(tmp_path / "p", "P1", request(sections=2), on_progress=look)
    assert manifest == tmp_path / "p" / "manifest.csv"
    assert manifest.exists()
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert {total for _, total in seen} == {len(seen)}


def test_a_phantom_whose_writing_was_cut_short_has_no_manifest_and_can_be_written_again(tmp_path: Path) -> None:
    write_phantom(tmp_path / "whole", "P1", request(sections=2))
    write_phantom(tmp_path / "p", "P1", request(seed=1))

    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "p", "P1", request(sections=2), on_progress=stop)
    assert not (tmp_path / "p" / "manifest.csv").exists()
    write_phantom(tmp_path / "p", "P1", request(sections=2))
    assert tree(tmp_path / "p") == tree(tmp_path / "whole")


def test_a_rewriting_that_was_cut_short_leaves_no_recipe_of_the_older_phantom(tmp_path: Path) -> None:
    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    write_phantom(tmp_path / "p", "P1", request())
    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "p", "P1", request(seed=9), stop)
    with pytest.raises(CytoarchError, match=r"holds no phantom\.json"):
        WrittenPhantom(tmp_path / "p")


def test_what_somebody_put_beside_a_phantoms_files_stays(tmp_path: Path) -> None:
    write_phantom(tmp_path / "p", "P1", request())
    (tmp_path / "p" / "pictures").mkdir()
    notes = [tmp_path / "p" / place for place in ("notes.txt", "scans/s0000.qpdata", "pictures/mine.png")]
    for path in notes:
        path.write_text("mine", encoding="utf-8")
    write_phantom(tmp_path / "p", "P1", request(seed=4))
    assert [path.read_text(encoding="utf-8") for path in notes] == ["mine"] * 3


def test_links_and_files_are_no_folders_to_write_a_phantom_into(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("work", encoding="utf-8")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CytoarchError, match="file"):
            write_phantom(folder, "P1", request())
    write_phantom(tmp_path / "p", "P1", request())
    (tmp_path / "p" / "scribbles").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(CytoarchError, match="is a link"):
        write_phantom(tmp_path / "p", "P1", request())


def test_a_recipe_of_another_version_is_refused(tmp_path: Path) -> None:
    write_phantom(tmp_path / "p", "P1", request())
    recipe = tmp_path / "p" / "phantom.json"
    recipe.write_text(recipe.read_text().replace('"version": 1', '"version": 0'), encoding="utf-8")
    with pytest.raises(CytoarchError, match="no recipe of version 1"):
        WrittenPhantom(tmp_path / "p")


@pytest.mark.parametrize("model", [Nuisances, Variation])
def test_the_documentation_lists_every_knob_with_its_default(model: type[Nuisances | Variation]) -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "phantoms.md").read_text(encoding="utf-8")
    for name, field in model.model_fields.items():
        assert f"| `{name}` | {field.default:g} | {field.description} |" in text
