"""Patches at points: where they are taken, how they are drawn, and the tables they are kept in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import zarr
from known_sections import MeanEncoder, contents, noise, stored_section

from cytoarch.augmentation import Augmentation, window_px
from cytoarch.brains import Section
from cytoarch.embeddings import EmbedSettings, SectionReader, sampled
from cytoarch.embeddings.engine import run_engine
from cytoarch.embeddings.places import SectionPoints
from cytoarch.embeddings.sampled import (
    Rows,
    SampleJob,
    SamplePlan,
    SampleSettings,
    brain_places_mm,
    open_points,
    points_per_lot,
    write_table,
)
from cytoarch.errors import SectionError
from cytoarch.images.views import StoredImage
from cytoarch.store.staging import Staging


def section(section_id: str = "s1", **stated: Any) -> Section:
    return Section(brain_id="B", section_id=section_id, section_number=1, path="a.tif", **stated)


def points_at(places: Sequence[tuple[float, float]], rows: Sequence[int] | None = None, **columns: Sequence[Any]):
    chosen = tuple(range(2, 2 + len(places))) if rows is None else tuple(rows)
    return SectionPoints(
        rows=chosen, places_px=tuple(places), columns={name: tuple(cells) for name, cells in columns.items()}
    )


def plan_of(
    image: StoredImage,
    points: SectionPoints,
    patch_px: int = 16,
    size_um: float = 4.0,
    encoder: MeanEncoder | None = None,
    stated: Section | None = None,
    **sample: Any,
) -> SamplePlan:
    encoder = encoder or MeanEncoder(tile_px=patch_px)
    reader = SectionReader.open(image, encoder, EmbedSettings(), size_um)
    return SamplePlan.of(stated or section(), image, reader, patch_px, points, SampleSettings(**sample))


def patches_of(plan: SamplePlan, point: int) -> list[np.ndarray]:
    """All patches of a point."""
    return plan.patches(point, range(plan.draws))


@dataclass
class Sampled:
    """What was made of a section's points."""

    path: Path
    facts: dict[str, Any]
    failed: dict[str, str]
    batches: list[np.ndarray]

    @property
    def table(self) -> anndata.AnnData:
        return anndata.io.read_zarr(self.path)


def sample(
    folder: Path,
    image: StoredImage,
    points: SectionPoints,
    batch_size: int = 3,
    stated: Section | None = None,
    encoder: MeanEncoder | None = None,
    journal: Staging | None = None,
    **options: Any,
) -> Sampled:
    """The table of a section's points, a patch's pixels being its embedding."""
    encoder, stated = encoder or MeanEncoder(tile_px=16), stated or section()
    plan = plan_of(image, points, encoder.tile_px, encoder=encoder, stated=stated, **options)
    journal = journal or Staging(folder).open()
    dims = encoder.patch_dims(plan.reader.depth)
    rows = Rows.create(journal, len(plan.rows) * plan.draws, dims, points_per_lot(plan) * plan.draws)
    facts: dict[str, Any] = {}
    job = SampleJob(plan, rows, lambda path: write_table(path, stated, image, points, plan, encoder), facts.update)
    batches: list[np.ndarray] = []

    def compute(patches: np.ndarray) -> list[np.ndarray]:
        batches.append(patches.copy())
        return [encoder.embed(patches)]

    failed, _ = run_engine([job], compute, batch_size)
    return Sampled(journal.path, facts, failed, batches)


# -- places ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["grey", "rgb"])
@pytest.mark.parametrize("draws", [0, 1])
@pytest.mark.parametrize("working_um", [1.0, 1.7, 2.0, 4.0, 6.5, 8.0])
def test_what_lies_at_a_point_is_in_the_middle_of_its_patch(tmp_path: Path, monkeypatch, working_um, draws, kind):
    """A bright square around the point, at every level of the pyramid and between them."""
    pixels = np.zeros((3 if kind == "rgb" else 1, 600, 800), dtype=np.uint8)
    pixels[:, 180:261, 480:561] = 255  # its centre is the centre of pixel 220, 520
    image = stored_section(tmp_path / "section", pixels, 1.0, kind)
    still = Augmentation(0.0, (0.0, 0.0), False, 1.0, 0.0, 1.0, None, None)
    monkeypatch.setattr(Augmentation, "draw", lambda _rng, _size: still)
    encoder = MeanEncoder(channels=1)
    edge = 2 * round(60 / working_um + 2)
    plan = plan_of(image, points_at([(220.0, 520.0)]), edge, working_um, encoder, draws=draws)
    (patch,) = patches_of(plan, 0)
    assert patch.shape == (1, edge, edge)
    assert patch.dtype == np.float32
    values = patch[0].astype(np.float64)
    at = np.arange(edge) + 0.5 - edge / 2
    place = [(values.sum(axis=1 - axis) * at).sum() / values.sum() for axis in (0, 1)]
    # without draws a patch begins at a whole pixel
    assert np.abs(place).max() < (0.15 if draws else 0.65)
    assert values.sum() * working_um**2 == pytest.approx(81**2, rel=0.1)


def test_a_patch_at_a_border_sees_the_section_mirrored(tmp_path: Path):
    pixels = noise(60, 70)
    image = stored_section(tmp_path / "section", pixels, 4.0)
    whole = SectionReader.open(image, MeanEncoder(), EmbedSettings(), 4.0).read(0, 0, 60, 70)
    mirrored = np.pad(whole, ((0, 0), (20, 20), (20, 20)), mode="reflect")
    corners = [(0.0, 0.0), (0.0, 69.0), (59.0, 0.0), (59.0, 69.0), (-0.5, -0.5), (59.5, 69.5), (30.0, 69.2)]
    plan = plan_of(image, points_at(corners))
    for point, (y, x) in enumerate(corners):
        top, left = (math.floor(at + 0.5 - 8 + 0.5) + 20 for at in (y, x))
        np.testing.assert_array_equal(patches_of(plan, point)[0], mirrored[:, top : top + 16, left : left + 16])


def test_a_patch_larger_than_the_section_is_mirrored_again_and_again(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(7, 9), 4.0)
    for draws in (0, 2):
        patches = patches_of(plan_of(image, points_at([(3.0, 4.0)]), 64, draws=draws), 0)
        assert all(patch.shape == (1, 64, 64) and np.isfinite(patch).all() for patch in patches)


def test_points_on_a_part_of_a_scan_are_counted_from_that_part(tmp_path: Path):
    """The same place, stated on the whole scan and on a section cut from it."""
    pixels = noise(200, 300)
    whole = stored_section(tmp_path / "whole", pixels, 4.0)
    part = stored_section(tmp_path / "part", pixels[:, 40:160, 110:290], 4.0)
    cut = section(region_px=(40, 160, 110, 290), flip="horizontal", rotation=30.0, position_um=500.0)
    places = points_at([(80.0, 200.0), (119.0, 150.25)])
    one, other = plan_of(whole, places), plan_of(part, places, stated=cut)
    ranges = ((0.0, 255.0),)
    one, other = (replace(plan, reader=replace(plan.reader, ranges=ranges)) for plan in (one, other))
    for point in range(2):
        np.testing.assert_array_equal(patches_of(other, point), patches_of(one, point))
    table = sample(tmp_path / "table", part, places, stated=cut).table
    np.testing.assert_array_equal(table.obs["y_px"], [80.0, 119.0])
    np.testing.assert_allclose(table.obsm["section_mm"], (np.array([[40.5, 90.5], [79.5, 40.75]]) * 0.004))
    centre = points_at([(99.5, 199.5)])  # the middle of the part
    table = sample(tmp_path / "centre", part, centre, stated=cut).table
    np.testing.assert_allclose(table.obsm["brain_mm"], [[0.0, 0.0, 0.5]], atol=1e-9)


def test_points_beside_the_part_of_a_scan_are_refused_with_their_rows(tmp_path: Path):
    part = stored_section(tmp_path / "part", noise(120, 180), 4.0)
    cut = section(region_px=(40, 160, 110, 290))
    message = (
        r"3 points lie outside the section of 120 x 180 px that begins at row 40, column 110 of its scan "
        r"\(row 3, 4, 6 of the table\)"
    )
    places = [(40.0, 110.0), (39.0, 110.0), (40.0, 109.0), (159.0, 289.0), (160.0, 289.0)]
    with pytest.raises(SectionError, match=message):
        plan_of(part, points_at(places), stated=cut)


@pytest.mark.parametrize("place", [(-0.6, 5.0), (5.0, -0.6), (59.6, 5.0), (5.0, 69.6), (69.0, 59.0 + 20)])
def test_points_outside_are_refused_with_their_rows(tmp_path: Path, place: tuple[float, float]):
    image = stored_section(tmp_path / "section", noise(60, 70), 4.0)
    with pytest.raises(SectionError, match=r"1 points lie outside the section of 60 x 70 px \(row 11 of the table\)"):
        plan_of(image, points_at([(1.0, 1.0), place, (2.0, 2.0)], rows=(4, 11, 12)))
    with pytest.raises(SectionError, match=r"10 points .* \(row 2, 3, 4, 5, 6, 7, 8, 9, ... of the table\)"):
        plan_of(image, points_at([place] * 10))


# -- draws -------------------------------------------------------------------------------------------------------------

PLACES = [(10.0, 12.0), (30.5, 40.25), (59.0, 0.0), (0.0, 0.0), (44.4, 55.5), (20.0, 20.0), (21.0, 20.0)]


def test_draws_are_decided_by_seed_section_place_in_the_section_and_number_alone(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(60, 70), 4.0)
    whole = plan_of(image, points_at(PLACES), draws=3)
    expected = [patches_of(whole, point) for point in range(len(PLACES))]
    moved = plan_of(image, points_at([*PLACES, *PLACES], rows=range(90, 104)), draws=5)
    for point, patches in enumerate(expected):
        np.testing.assert_array_equal(moved.patches(point, range(3)), patches)
        np.testing.assert_array_equal(moved.patches(point, range(1, 3)), patches[1:])
    for change in ({"seed": 1}, {"stated": section("s2")}):
        other = plan_of(image, points_at(PLACES), draws=3, **change)
        assert not any(np.array_equal(a, b) for a, b in zip(patches_of(other, 1), expected[1], strict=True))
    assert len({patch.tobytes() for patches in expected for patch in patches}) == 3 * len(PLACES)


def test_points_at_the_same_place_in_different_rows_are_drawn_differently(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(60, 70), 4.0)
    plan = plan_of(image, points_at([(30.0, 30.0), (30.0, 30.0)]), draws=1)
    assert not np.array_equal(patches_of(plan, 0), patches_of(plan, 1))
    plain = plan_of(image, points_at([(30.0, 30.0), (30.0, 30.0)]))
    np.testing.assert_array_equal(patches_of(plain, 0), patches_of(plain, 1))


@pytest.mark.parametrize("place", [(0.0, 0.0), (30.3, 40.9), (59.49, 69.49), (-0.5, 3.0)])
def test_draws_see_the_same_section_as_a_window_of_any_size(tmp_path: Path, monkeypatch, place):
    """The window that is read holds all that a draw sees: with a larger one the patches are the same."""
    image = stored_section(tmp_path / "section", noise(60, 70), 100.0)
    small = plan_of(image, points_at([place] * 4), size_um=100.0, draws=4)
    patches = [patch for point in range(4) for patch in patches_of(small, point)]
    monkeypatch.setattr(sampled, "window_px", lambda patch_px, size_um: window_px(patch_px, size_um) + 50)
    wide = plan_of(image, points_at([place] * 4), size_um=100.0, draws=4)
    np.testing.assert_allclose(patches, [patch for point in range(4) for patch in patches_of(wide, point)], atol=1e-3)


def test_lots_windows_and_batches_change_no_draw(tmp_path: Path, monkeypatch):
    image = stored_section(tmp_path / "section", noise(60, 70), 4.0)
    one = sample(tmp_path / "one", image, points_at(PLACES), batch_size=1, draws=4)
    monkeypatch.setattr(sampled, "LOT_ROWS", 8)
    monkeypatch.setattr(sampled, "WINDOW_BYTES", 3 * 4 * 16**2)
    other = sample(tmp_path / "other", image, points_at(PLACES), batch_size=11, draws=4)
    assert one.failed == other.failed == {}
    assert len(list((other.path / "X" / "c").iterdir())) == 4
    np.testing.assert_array_equal(one.table.X, other.table.X)
    patches = [p for point in range(len(PLACES)) for p in patches_of(plan_of(image, points_at(PLACES), draws=4), point)]
    np.testing.assert_array_equal(one.table.X, np.reshape(patches, (28, -1)))


# -- tables ------------------------------------------------------------------------------------------------------------


def test_a_table_says_all_that_is_known_of_every_row(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(60, 70), 4.0)
    points = points_at(
        PLACES[:3], rows=(2, 5, 6), area=("V1", "", "V2"), depth=(0.5, np.nan, 0.01), area_id=(4, 7, 2**40)
    )  # fmt: skip
    made = sample(tmp_path / "made", image, points, stated=section(position_um=1500.0), draws=2, seed=7)
    table = made.table
    assert table.shape == (6, 256)
    assert table.X.dtype == np.float32
    assert list(table.obs_names) == ["s1-0-0", "s1-0-1", "s1-1-0", "s1-1-1", "s1-2-0", "s1-2-1"]
    assert list(table.obs["section_id"]) == ["s1"] * 6
    assert list(table.obs["point"]) == [0, 0, 1, 1, 2, 2]
    assert list(table.obs["draw"]) == [0, 1] * 3
    np.testing.assert_array_equal(table.obs[["y_px", "x_px"]], np.repeat(PLACES[:3], 2, axis=0))
    assert table.obs["depth"].dtype == np.float64
    np.testing.assert_array_equal(table.obs["depth"], [0.5, 0.5, np.nan, np.nan, 0.01, 0.01])
    assert table.obs["area_id"].dtype == np.int64
    assert list(table.obs["area_id"][::2]) == [4, 7, 2**40]
    assert list(table.obs["area"].astype(str)[::2]) == ["V1", "", "V2"]
    np.testing.assert_allclose(table.obsm["section_mm"], (np.repeat(PLACES[:3], 2, axis=0) + 0.5) * 4.0 / 1000)
    assert table.obsm["brain_mm"].shape == (6, 3)
    assert (table.obsm["brain_mm"][:, 2] == 1.5).all()
    uns = {name: table.uns[name] for name in ("encoder_digest", "pixel_size_um", "patch_px", "draws", "seed")}
    assert uns == {
        "encoder_digest": "00" * 32, "pixel_size_um": 4.0, "patch_px": 16, "draws": 2, "seed": 7,
    }  # fmt: skip
    assert made.facts == {
        "points": 3, "draws": 2, "patch_px": 16, "pixel_size_um": 4.0, "dims": 256, "upsampled": False,
    }  # fmt: skip


def test_without_draws_rows_are_named_after_the_table(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(60, 70), 8.0)
    made = sample(tmp_path / "made", image, points_at(PLACES))
    assert list(made.table.obs_names) == [f"s1-{point}" for point in range(7)]
    assert list(made.table.obs["draw"]) == [0] * 7
    assert made.facts["upsampled"]


def test_every_chunk_of_rows_is_there_and_a_flipped_bit_is_found(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(sampled, "LOT_ROWS", 2)
    image = stored_section(tmp_path / "section", np.full((1, 60, 70), 7, dtype=np.uint8), 4.0)
    made = sample(tmp_path / "made", image, points_at(PLACES))
    assert not made.table.X.any(), "zeros are written too"
    files = sorted((made.path / "X" / "c").rglob("0"))
    files = [path for path in files if path.is_file()]
    assert len(files) == 4
    for file in files:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        with pytest.raises((ValueError, RuntimeError)):
            zarr.open_array(made.path / "X", mode="r")[...]
        content[len(content) // 2] ^= 1
        file.write_bytes(content)


def test_tables_of_several_sections_are_one(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(60, 70), 4.0)
    one = sample(tmp_path / "one", image, points_at(PLACES[:3], area=("a", "b", "c")), stated=section("s1"))
    other = sample(tmp_path / "two", image, points_at(PLACES[2:], area=("c", "d", "e", "f", "g")), stated=section("s2"))
    both = open_points([one.path, other.path])
    assert both.shape == (8, 256)
    np.testing.assert_array_equal(both.X, np.concatenate([one.table.X, other.table.X]))
    assert list(both.obs["section_id"].astype(str)) == ["s1"] * 3 + ["s2"] * 5
    assert both.obs_names.is_unique
    assert both.obsm["section_mm"].shape == (8, 2)
    assert both.uns["encoder_digest"] == "00" * 32
    assert list(both.obs["area"].astype(str)) == ["a", "b", "c", "c", "d", "e", "f", "g"]


def test_an_embedding_that_is_no_number_is_refused_with_its_row(tmp_path: Path):
    @dataclass(frozen=True)
    class Odd(MeanEncoder):
        def embed(self, patches: np.ndarray) -> np.ndarray:
            found = super().embed(patches).copy()
            found[patches[:, 0, 8, 8] == 1, 3] = np.inf
            return found

    pixels = np.zeros((1, 60, 70), dtype=np.uint8)
    pixels[:, 40:50, 40:50] = 255
    image = stored_section(tmp_path / "section", pixels, 4.0)
    points = points_at([(5.0, 5.0), (45.0, 45.0)], rows=(3, 9))
    made = sample(tmp_path / "made", image, points, encoder=Odd(tile_px=16))
    assert made.failed == {"s1": "the embedding of the point in row 9 of the table is not finite"}
    assert made.facts == {}
    assert not (made.path / "obs").exists()


@pytest.mark.parametrize(("lost", "draws"), [(0, 0), (3, 0), (1, 2), (3, 2)])
def test_a_table_that_was_begun_is_finished_to_the_same_bytes(tmp_path: Path, monkeypatch, lost: int, draws: int):
    """A lot that was never finished, and leftovers of a table that was being written."""
    monkeypatch.setattr(sampled, "LOT_ROWS", 4)
    image = stored_section(tmp_path / "section", noise(60, 70), 4.0)
    points = points_at([*PLACES, *PLACES], area=["V1"] * 14)
    whole = sample(tmp_path / "whole", image, points, draws=draws)
    begun = sample(tmp_path / "begun", image, points, draws=draws)
    (begun.path / f"X/c/{lost}/0").write_bytes(b"half")
    (begun.path / "obs" / "zarr.json").write_bytes(b"{")
    (begun.path / "X" / "c" / f"{lost}" / ".0.partial").write_bytes(b"half")
    resumed = sample(tmp_path / "begun", image, points, draws=draws)
    assert contents(resumed.path) == contents(whole.path)
    kept = [patch for batch in resumed.batches for patch in batch if patch.any()]
    per_lot = 4 if not draws else 2 * draws
    assert len(kept) == min(per_lot, 14 * max(draws, 1) - lost * per_lot), "only the lost lot is computed again"
    assert resumed.facts == whole.facts


def test_the_same_points_give_the_same_bytes(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(60, 70), 4.0)
    points = points_at(PLACES, area=["V1"] * 7)
    one, other = (sample(tmp_path / name, image, points, draws=2) for name in ("one", "other"))
    assert contents(one.path) == contents(other.path)


# -- places in the brain -----------------------------------------------------------------------------------------------


def brain_mm(tmp_path: Path, place: tuple[float, float], columns: dict[str, tuple[float, ...]] | None = None, **stated):
    image = stored_section(tmp_path / "section", noise(100, 200), 10.0)
    found, source = brain_places_mm(section(**stated), image, image.grid.um(np.array([place])), columns or {})
    return found[0], source


@pytest.mark.parametrize(
    ("stated", "expected"),
    [  # the point lies 0.2 mm above and 0.5 mm to the right of the centre of a section of 1 x 2 mm
        ({}, (0.5, -0.2)),
        ({"flip": "horizontal"}, (-0.5, -0.2)),
        ({"flip": "vertical"}, (0.5, 0.2)),
        ({"rotation": 90.0}, (-0.2, -0.5)),
        ({"rotation": -90.0}, (0.2, 0.5)),
        ({"rotation": 180.0}, (-0.5, 0.2)),
        ({"flip": "horizontal", "rotation": 90.0}, (-0.2, 0.5)),
        ({"flip": "vertical", "rotation": 90.0}, (0.2, -0.5)),
        ({"rotation": 45.0}, (0.3 / 2**0.5, -0.7 / 2**0.5)),
    ],
)
def test_a_stacked_point_is_flipped_then_turned_counter_clockwise_about_the_centre(tmp_path, stated, expected):
    found, source = brain_mm(tmp_path, (29.5, 149.5), **stated, position_um=-2500.0)
    np.testing.assert_allclose(found, (*expected, -2.5), atol=1e-9)
    assert "centre after flip and rotation" in source


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("flip", ["none", "horizontal", "vertical"])
def test_stacking_moves_points_as_numpy_flips_and_turns_the_image(tmp_path: Path, flip: str, turns: int):
    pixels = np.zeros((100, 200))
    pixels[20, 170] = 1
    turned = {"none": pixels, "horizontal": np.fliplr(pixels), "vertical": np.flipud(pixels)}[flip]
    turned = np.rot90(turned, turns)
    (y, x), (height, width) = np.argwhere(turned)[0], turned.shape
    found, _ = brain_mm(tmp_path, (20.0, 170.0), flip=flip, rotation=90.0 * turns)
    expected = ((x + 0.5 - width / 2) * 0.01, (y + 0.5 - height / 2) * 0.01)
    np.testing.assert_allclose(found[:2], expected, atol=1e-9)


def test_a_section_without_a_position_has_points_without_one(tmp_path: Path):
    found, _ = brain_mm(tmp_path, (50.0, 50.0))
    assert np.isnan(found[2])


def test_the_table_places_points_where_it_states_all_three_coordinates(tmp_path: Path):
    stated = {"x_mm": (1.5,), "y_mm": (-2,), "z_mm": (3.25,)}
    found, source = brain_mm(tmp_path, (50.0, 50.0), stated, rotation=90.0, position_um=7.0)
    np.testing.assert_array_equal(found, (1.5, -2.0, 3.25))
    assert source == "x, y, z as the table of points states them"
    found, source = brain_mm(tmp_path / "other", (49.5, 99.5), {"x_mm": (1.5,), "y_mm": (-2,)}, position_um=7.0)
    np.testing.assert_allclose(found, (0.0, 0.0, 0.007), atol=1e-9)
    assert "flip" in source
