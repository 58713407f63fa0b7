"""Laws of the middle of the cortex and of points along it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cytoarch.anatomy.depth import DepthSettings
from cytoarch.anatomy.depth_maps import DepthMap
from cytoarch.anatomy.matter import GREY, WHITE
from cytoarch.anatomy.midline import (
    Line,
    MidlineKind,
    MidlineSettings,
    depth_lines,
    moved_to_middle,
    points_along,
    skeleton_lines,
    tissue_shares,
)
from cytoarch.anatomy.points import SCHEMA, Placed, points_table, section_midline
from cytoarch.embeddings.places import Points
from cytoarch.geometry import Grid, Transform

Array = NDArray[Any]
LINES: tuple[MidlineKind, ...] = ("depth", "skeleton")


def ring(white: float = 40, pial: float = 60, size: int = 141) -> Array:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    radius = np.hypot(y, x)
    return np.select([radius < white, radius < pial], [WHITE, GREY], 0).astype(np.uint8)


def measured(classes: Array, cell_um: float = 50.0) -> DepthMap:
    return DepthMap.measure(classes, Grid.at_corner(classes.shape, cell_um, (0.0, 0.0)), DepthSettings())[0]


# -- lines -------------------------------------------------------------------------------------------------------------


def test_the_line_of_a_ring_is_the_circle_where_the_field_is_one_half() -> None:
    depth = measured(ring())
    (line,) = depth_lines(depth.depth, depth.cortex, depth.ribbon == 2, shortest=10)
    assert line.closed
    radius = np.linalg.norm(line.places - 70, axis=1)
    np.testing.assert_allclose(radius, np.sqrt(40 * 60), atol=0.5)
    assert line.length() == pytest.approx(2 * np.pi * np.sqrt(40 * 60), rel=0.03)


def test_the_skeleton_of_a_bar_is_its_middle_without_spurs() -> None:
    bar = np.zeros((40, 160), dtype=bool)
    bar[12:28, 10:150] = True
    bar[11, 60:63] = bar[28, 90:92] = True  # a ragged edge grows spurs
    (line,) = skeleton_lines(bar, shortest=20)
    inner = line.places[(line.places[:, 1] > 25) & (line.places[:, 1] < 135)]
    assert np.abs(inner[:, 0] - 19.5).max() < 1.6
    assert len(inner) >= 108


def test_branches_that_are_long_stay_and_meet() -> None:
    cross = np.zeros((121, 121), dtype=bool)
    cross[55:66, 5:116] = True
    cross[5:60, 55:66] = True
    lines = skeleton_lines(cross, shortest=15)
    assert len(lines) == 3
    ends = np.concatenate([line.places[[0, -1]] for line in lines])
    assert (np.linalg.norm(ends - 60, axis=1) < 6).sum() == 3


def test_nothing_has_no_middle() -> None:
    assert skeleton_lines(np.zeros((9, 9), dtype=bool), shortest=1) == []
    empty = np.zeros((9, 9), dtype=np.float32)
    assert depth_lines(empty, empty > 0, empty > 0, shortest=1) == []


# -- points ------------------------------------------------------------------------------------------------------------


def test_points_are_equally_far_apart_and_begin_half_a_spacing_from_the_end() -> None:
    corner = Line(np.array([[0.0, 0.0], [0.0, 10.0], [10.0, 10.0]]), closed=False)
    places, number = points_along([corner, Line(np.array([[5.0, 0.0], [5.0, 1.0]]), closed=False)], spacing=4.0)
    assert places.tolist() == [[0, 2], [0, 6], [0, 10], [4, 10], [8, 10], [5, 0.5]]
    assert number.tolist() == [0, 0, 0, 0, 0, 1]


def test_the_share_of_tissue_is_that_of_the_square_however_it_lies() -> None:
    rng = np.random.default_rng(1)
    tissue = rng.random((30, 40)) < 0.6
    grid = Grid.at_corner((30, 40), 10.0, (-5.0, -5.0))
    places = rng.uniform(-20, 400, (50, 2)) * [0.75, 1]
    found = tissue_shares(tissue, grid, places, 70.0)
    fine = np.repeat(np.repeat(tissue, 10, 0), 10, 1)  # cells of 1 um
    padded = np.pad(fine, 200)
    for place, share in zip(places, found, strict=True):
        top, left = np.rint(place + 5 - 35).astype(int) + 200
        window = padded[top : top + 70, left : left + 70]
        assert share == pytest.approx(window.mean(), abs=0.02)


@pytest.mark.parametrize("line", LINES)
def test_points_lie_in_cortex_and_their_patches_in_tissue(line: MidlineKind) -> None:
    classes = ring()
    classes[:, :70] = 0  # half a ring: its ends were cut
    grid = Grid.at_corner(classes.shape, 50.0, (0.0, 0.0))
    settings = MidlineSettings(line=line, patch_um=500, spacing_um=400, tissue_share=0.9)
    found = section_midline(classes, measured(classes), grid, settings)
    strict = section_midline(classes, measured(classes), grid, settings.model_copy(update={"tissue_share": 1.0}))
    assert 0 < len(strict.line) <= len(found.line)
    rows, columns = np.rint(grid.cells(found.places_um)).astype(int).T
    assert (classes[rows, columns] == GREY).all()
    assert (found.tissue_share >= 0.9).all()
    apart = np.linalg.norm(np.diff(found.places_um, axis=0), axis=1)[np.diff(found.line) == 0]
    assert np.median(apart) == pytest.approx(400, rel=0.03)
    middle = np.abs(found.depth - 0.5)[np.abs(rows - 70) < 30]
    assert middle.max() < (0.06 if line == "depth" else 0.15)


# -- moving to the middle ----------------------------------------------------------------------------------------------


def slab(rows: int = 40) -> DepthMap:
    return measured(np.repeat([0, GREY, WHITE], [5, rows, 5])[:, None].repeat(30, axis=1).astype(np.uint8))


def test_points_of_a_slab_move_to_its_middle_and_none_further_than_the_limit() -> None:
    depth = slab()
    start = np.array([[8.3, 10.0], [30.0, 12.5], [24.5, 5.0], [2.0, 3.0]])
    arguments = (depth.depth, depth.cortex, depth.ribbon == 2)
    found, gone = moved_to_middle(start, *arguments, limit=100.0)
    np.testing.assert_allclose(found, [[24.5, 10], [24.5, 12.5], [24.5, 5], [2, 3]], atol=0.01)
    np.testing.assert_allclose(gone, [16.2, 5.5, 0, 0], atol=0.01)
    held, short = moved_to_middle(start, *arguments, limit=6.0)
    np.testing.assert_allclose(short, [6, 5.5, 0, 0], atol=0.01)
    np.testing.assert_allclose(held[0], [14.3, 10], atol=0.01)


def test_points_of_a_ring_move_along_its_radii() -> None:
    depth = measured(ring())
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    out = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    found, _ = moved_to_middle(70 + 57 * out, depth.depth, depth.cortex, depth.ribbon == 2, limit=40.0)
    np.testing.assert_allclose(found, 70 + np.sqrt(2400) * out, atol=0.9)


# -- the table ---------------------------------------------------------------------------------------------------------


def placed(z_mm: float | None) -> Placed:
    third = [] if z_mm is None else [[0.0, 0.0]]
    linear = np.array([[0, 1e-3], [-1e-3, 0], *third])
    to_brain = Transform.of(linear, np.array([-3.5, 2.0, *([] if z_mm is None else [z_mm])]))
    return Placed(Transform.of(np.eye(2) / 50, np.array([100.0, 7.0])), to_brain, "both")


def test_the_table_is_taken_by_embed_points_as_it_is_and_keeps_its_columns(tmp_path: Path) -> None:
    grid = Grid.at_corner((141, 141), 50.0, (0.0, 0.0))
    settings = MidlineSettings(patch_um=500)
    midlines = {one: section_midline(ring(), measured(ring()), grid, settings) for one in ("s1", "s2")}
    table = points_table(midlines, {"s1": placed(1.0), "s2": placed(1.2)})
    assert list(table.columns) == [column.name for column in SCHEMA]
    for column in SCHEMA:
        assert (table[column.name].dtype == column.kind) or column.kind == "text"
    table.to_csv(tmp_path / "points.csv", index=False)
    read = Points.read(tmp_path / "points.csv", ["s1", "s2"])
    own = midlines["s2"]
    np.testing.assert_allclose(read.sections["s2"].places_px, own.places_um / 50 + [100, 7], atol=1e-3)
    assert set(read.sections["s2"].columns["hemisphere"]) == {"left", "right"}
    assert read.sections["s2"].columns["z_mm"][0] == pytest.approx(1.2)
    left = table["x_mm"] < 0
    assert (table["hemisphere"] == np.where(left, "left", "right")).all()
    table.to_parquet(tmp_path / "points.parquet", index=False)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "points.parquet"), table, check_dtype=False)


def test_without_a_place_along_the_axis_no_place_in_the_brain_is_said(tmp_path: Path) -> None:
    grid = Grid.at_corner((141, 141), 50.0, (0.0, 0.0))
    midlines = {"s1": section_midline(ring(), measured(ring()), grid, MidlineSettings(patch_um=500))}
    table = points_table(midlines, {"s1": placed(None)})
    assert not {"x_mm", "y_mm", "z_mm"} & set(table.columns)
    table.to_csv(tmp_path / "points.csv", index=False)
    assert Points.read(tmp_path / "points.csv", ["s1"]).section_ids == {"s1"}


# -- phantoms ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_points_of_a_phantom_lie_in_its_cortex_and_cover_its_middle() -> None:
    from cytoarch.phantoms.points import midline_points
    from cytoarch.phantoms.sections import PhantomSettings, Window, cut, make_phantom, section_count
    from cytoarch.phantoms.truth import truth, truth_at

    phantom = make_phantom(PhantomSettings(seed=0, resolution=60))
    section = cut(phantom, section_count(phantom) // 2)
    known = truth(section, Window(0, 0, *section.size_px(64.0)), 64.0)
    classes = np.select([known.tissue == 0, known.tissue == 2], [0, WHITE], GREY).astype(np.uint8)
    grid = Grid.at_corner(classes.shape, 64.0, (0.0, 0.0))
    found = section_midline(classes, measured(classes, 64.0), grid, MidlineSettings())
    assert (truth_at(section, found.places_um / 1000).tissue == 1).mean() > 0.99
    true = midline_points(section, 1.0).slide_mm * 1000
    assert (cKDTree(found.places_um).query(true)[0] < 1000).mean() > 0.9
