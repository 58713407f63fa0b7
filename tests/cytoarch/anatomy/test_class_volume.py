"""A ball of cortex, cut into shifted and turned sections, gives back the sphere in its middle."""

from typing import Any

import numpy as np
import pytest

from cytoarch.anatomy.class_volume import brain_midsurface, class_volume
from cytoarch.anatomy.depth import DepthSettings
from cytoarch.anatomy.depth_maps import DepthMap
from cytoarch.anatomy.matter import GREY, WHITE
from cytoarch.anatomy.midline import MidlineSettings
from cytoarch.anatomy.points import SectionMidline, section_midline
from cytoarch.anatomy.reconstruction import PlacedSection, Reconstruction
from cytoarch.anatomy.reconstruction.volume import volume_grid
from cytoarch.anatomy.surfaces import Mesh, SurfaceSettings
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.errors import SectionError
from cytoarch.geometry import Grid, Transform

WHITE_MM, PIAL_MM = 3.0, 5.0
GRID = Grid.at_corner((120, 120), 100.0, (0.0, 0.0))
SETTINGS = SurfaceSettings(voxel_um=250, edge_mm=0.4, rounds=5)


def plane_of(number: int) -> Transform:
    """Every section lies elsewhere on its slide, and is turned."""
    y, x = GRID.centre_um
    middle = Transform.shift((-y - 40.0 * (number % 5), -x + 60.0 * (number % 3)))
    return middle.then(Transform.orientation("none", 3.0 * (number % 4)))


def section(number: int) -> tuple[PlacedSection, TissueMask]:
    z_um = 250.0 * number - 5_000
    y, x = GRID.centres_um()
    place = plane_of(number)(np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1))
    radius = np.sqrt((place**2).sum(axis=-1) + z_um**2) / 1000
    classes = np.select([radius < WHITE_MM, radius < PIAL_MM], [WHITE, GREY], 0).astype(np.uint8)
    placed = PlacedSection(f"s{number}", number, GRID, plane_of(number), z_um, False, "links")
    return placed, TissueMask(classes > 0, GRID, classes)


@pytest.fixture(scope="module")
def ball() -> tuple[Reconstruction, dict[str, TissueMask], Mesh]:
    both = [section(number) for number in range(41)]
    brain = Reconstruction("B", "s20", {one.section_id: one for one, _ in both})
    tissues = {one.section_id: tissue for one, tissue in both if one.section_number != 17}  # one has no tissue
    return brain, tissues, brain_midsurface(brain, tissues, SETTINGS)[0]


def traced(ball: Any, number: int) -> SectionMidline:
    brain, tissues, mesh = ball
    one = f"s{number}"
    depth, _ = DepthMap.measure(tissues[one].classes, GRID, DepthSettings())
    settings = MidlineSettings(line="surface", patch_um=500, spacing_um=300)
    return section_midline(tissues[one].classes, depth, GRID, settings, (mesh, brain[one].to_brain))


def test_the_middle_surface_is_the_sphere_where_depth_is_one_half(ball: Any) -> None:
    radius = np.linalg.norm(ball[2].vertices_mm, axis=1)
    assert radius.mean() == pytest.approx(2 * WHITE_MM * PIAL_MM / (WHITE_MM + PIAL_MM), abs=0.05)
    assert radius.std() < 0.1


def test_a_tear_through_one_section_makes_no_hole(ball: Any) -> None:
    brain, tissues, _ = ball
    grid = volume_grid(brain, SETTINGS.voxel_um)
    torn = tissues["s22"].classes.copy()
    torn[:, 70:76] = 0
    with_tear = {**tissues, "s22": TissueMask(torn > 0, GRID, torn)}
    whole, closed = class_volume(brain, tissues, grid), class_volume(brain, with_tear, grid)
    assert (torn != tissues["s22"].classes).sum() > 300
    assert (whole != closed).mean() < 2e-4
    assert (class_volume(brain, {**tissues, "s21": with_tear["s22"], "s22": with_tear["s22"]}, grid) != whole).any()


def test_sections_cut_it_in_lines_of_their_own_frame_and_points_lie_on_them(ball: Any) -> None:
    brain, tissues, _ = ball
    for number in (20, 24):
        found = traced(ball, number)
        place = brain[f"s{number}"].to_brain(found.places_um)
        np.testing.assert_allclose(place[:, 2], 0.25 * number - 5, atol=1e-9)
        radius = np.linalg.norm(place, axis=1)
        assert (np.abs(radius - 3.8) < 0.25).all()
        assert len(found.lines_um) == 1
        rows, columns = np.rint(GRID.cells(found.places_um)).astype(int).T
        assert (tissues[f"s{number}"].classes[rows, columns] == GREY).all()
        # the normal of a sphere leans against that of the section by its height over its radius
        np.testing.assert_allclose(found.cut_angle_deg, np.degrees(np.arccos(abs(place[0, 2]) / 3.75)), atol=6)


def test_lines_of_a_surface_take_a_surface() -> None:
    _, tissue = section(20)
    depth, _ = DepthMap.measure(tissue.classes, GRID, DepthSettings())
    with pytest.raises(SectionError, match="run reconstruct-brain first"):
        section_midline(tissue.classes, depth, GRID, MidlineSettings(line="surface"))
