"""Laws of the middle surface and of distances along it."""

import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cytoarch.anatomy.depth import measure_depth
from cytoarch.anatomy.matter import GREY, WHITE
from cytoarch.anatomy.ribbons import Ribbon
from cytoarch.anatomy.surfaces import Geodesics, Mesh, SurfaceSettings, cleaned, cut, cut_angles, evened, midsurface
from cytoarch.errors import CytoarchError
from cytoarch.geometry import Transform
from cytoarch.phantoms.sphere import icosphere

Array = NDArray[Any]
SETTINGS = SurfaceSettings(edge_mm=0.4, rounds=6)


@pytest.fixture(scope="module")
def shell() -> Mesh:
    """The middle of a shell of cortex from 3 to 6 mm around (7, 8, 9) mm, in cells of 0.25 mm; and a speck."""
    z, y, x = (np.mgrid[:56, :56, :56] - 27.5) * 0.25
    radius = np.sqrt(z**2 + y**2 + x**2)
    classes = np.select([radius < 3, radius < 6], [WHITE, GREY], 0).astype(np.uint8)
    classes[2:6, 2:6, 2:6], classes[3:5, 3:5, 3:5] = GREY, WHITE
    found = measure_depth(Ribbon.of(classes, 250.0), "laplace")
    flipped = np.array([[0, 0, 0.25], [0, 0.25, 0], [0.25, 0, 0]])
    to_mm = Transform.of(flipped, np.array([7.0, 8.0, 9.0]) - 27.5 * 0.25)
    return midsurface(found.depth, found.cortex, classes == WHITE, to_mm, SETTINGS)


def test_the_middle_of_a_shell_is_a_sphere_of_even_triangles(shell: Mesh) -> None:
    radius = np.linalg.norm(shell.vertices_mm - [7, 8, 9], axis=1)
    np.testing.assert_allclose(radius, 2 * 3 * 6 / (3 + 6), atol=0.08)
    assert shell.area_mm2 == pytest.approx(4 * np.pi * 16, rel=0.02)
    edges = shell.edges_mm()
    assert np.median(edges) == pytest.approx(0.4, rel=0.15)
    assert np.percentile(edges, 95) < 1.6 * np.median(edges)
    used, counts = np.unique(
        np.sort(np.concatenate([shell.triangles[:, p] for p in ([0, 1], [1, 2], [2, 0])])), axis=0, return_counts=True
    )
    assert (counts == 2).all(), "it is closed: two triangles meet at every edge"
    assert len(shell.vertices_mm) - len(used) + len(shell.triangles) == 2, "and has no handle"


def test_a_section_cuts_the_sphere_in_a_circle_of_its_own_frame(shell: Mesh) -> None:
    # a section at z = 10 mm: y runs down, x to the right, turned by 30 degrees
    turn = np.deg2rad(30)
    linear = 1e-3 * np.array([[np.sin(turn), np.cos(turn)], [-np.cos(turn), np.sin(turn)], [0, 0]])
    to_brain = Transform.of(linear, np.array([5.0, 8.0, 10.0]))
    (line,) = cut(shell, to_brain)
    np.testing.assert_allclose(line[0], line[-1], atol=1e-6)
    brain = to_brain(line)
    np.testing.assert_allclose(brain[:, 2], 10.0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(brain[:, :2] - [7, 8], axis=1), np.sqrt(16 - 1), atol=0.1)
    # where the sphere's normal lies in the plane it was cut straight across; here it leans by asin(1 / 4)
    angles = cut_angles(shell, to_brain, line)
    np.testing.assert_allclose(angles, np.degrees(np.arccos(1 / 4)), atol=4)
    beside = Transform.of(linear, np.array([5.0, 8.0, 20.0]))
    assert cut(shell, beside) == []


def test_small_pieces_and_empty_faces_are_dropped() -> None:
    vertices, triangles = icosphere(2)
    both = np.concatenate([vertices * 5, vertices * 0.2 + 20])
    faces = np.concatenate([triangles, triangles + len(vertices), [[0, 0, 1]], triangles[:3]])
    found = cleaned(Mesh.of(both, faces), 0.01)
    assert len(found.triangles) == len(triangles)
    assert len(found.vertices_mm) == len(vertices)


def test_a_section_without_a_plane_and_a_volume_without_cortex_are_named(shell: Mesh) -> None:
    with pytest.raises(CytoarchError, match="state positions"):
        cut(shell, Transform.of(np.eye(2), np.zeros(2)))
    empty = np.zeros((4, 4, 4), dtype=np.float32)
    with pytest.raises(CytoarchError, match="no cortex whose depth passes one half"):
        midsurface(empty, empty > 0, empty > 0, Transform.scaling((1.0, 1.0, 1.0)), SETTINGS)


def test_without_its_library_triangles_are_not_evened_in_silence(shell: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpytoolbox", None)
    with pytest.raises(CytoarchError, match=r"pip install 'cytoarch\[surfaces\]'"):
        evened(shell, SETTINGS)
    assert evened(shell, SurfaceSettings(rounds=0)) is shell


# -- distances ---------------------------------------------------------------------------------------------------------


def plane(size: int = 31, step: float = 0.3) -> Mesh:
    y, x = np.mgrid[:size, :size] * step
    vertices = np.stack([x.ravel(), y.ravel(), np.zeros(size**2)], axis=1)
    a = (np.arange(size - 1)[:, None] * size + np.arange(size - 1)).ravel()
    return Mesh.of(
        vertices, np.concatenate([np.stack(t, axis=1) for t in ((a, a + 1, a + size + 1), (a, a + size + 1, a + size))])
    )


def rolled(mesh: Mesh, radius: float) -> Mesh:
    """The plane, bent about an axis along y."""
    x, y, _ = mesh.vertices_mm.T
    return Mesh.of(np.stack([radius * np.sin(x / radius), y, radius * np.cos(x / radius)], axis=1), mesh.triangles)


def exact(mesh: Mesh, vertex: int) -> Array:
    """The exact distances along the triangles (Mitchell, Mount and Papadimitriou)."""
    geodesic = pytest.importorskip("pygeodesic.geodesic")
    solver = geodesic.PyGeodesicAlgorithmExact(mesh.vertices_mm, mesh.triangles.astype(np.int32))
    return np.asarray(solver.geodesicDistances(np.array([vertex]), None)[0])


def test_distances_on_a_sphere_are_arcs() -> None:
    vertices, triangles = icosphere(4)
    mesh = Mesh.of(5 * vertices, triangles)
    found = Geodesics(mesh).from_vertex(7)
    known = 5 * np.arccos(np.clip(vertices @ vertices[7], -1, 1))
    far = known > 0.5
    assert np.abs(found / np.where(far, known, 1) - 1)[far].mean() < 0.02
    assert found[7] == 0
    np.testing.assert_allclose(exact(mesh, 7)[far], known[far], rtol=0.01)
    twice = Geodesics(Mesh.of(10 * vertices, triangles)).from_vertex(7)
    np.testing.assert_allclose(twice, 2 * found, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("radius", [0.0, 2.5])
def test_distances_on_a_plane_and_a_cylinder_are_straight(radius: float) -> None:
    flat = plane()
    mesh = rolled(flat, radius) if radius else flat
    middle = len(flat.vertices_mm) // 2
    known = np.linalg.norm(flat.vertices_mm - flat.vertices_mm[middle], axis=1)
    found = Geodesics(mesh).from_vertex(middle)
    near = (known > 0.5) & (known < 3.5)
    assert np.abs(found[near] / known[near] - 1).mean() < 0.03
    np.testing.assert_allclose(exact(mesh, middle)[near], known[near], rtol=0.01)


def test_distances_are_a_metric_and_other_pieces_are_out_of_reach() -> None:
    vertices, triangles = icosphere(3)
    two = Mesh.of(np.concatenate([vertices, vertices + 5]), np.concatenate([triangles, triangles + len(vertices)]))
    geodesics = Geodesics(two)
    assert np.isnan(geodesics.from_vertex(0)[len(vertices) :]).all()
    between = geodesics.between([0, 9, 33, 120, 200])
    np.testing.assert_array_equal(between, between.T)
    assert (np.diag(between) == 0).all()
    sums = between[:, :, None] + between[None, :, :]
    assert (between[:, None, :] <= sums * 1.03 + 1e-9).all()


def test_no_surface_is_made_of_depth_that_passes_one_half_outside_the_cortex() -> None:
    cortex, white = np.zeros((2, 9, 9, 9), dtype=bool)
    cortex[1:3], white[5:8, 2:7, 2:7] = True, True
    depth = np.where(cortex, np.float32(0.2), np.float32(0))
    with pytest.raises(CytoarchError, match="nowhere within the cortex"):
        midsurface(depth, cortex, white, Transform.scaling((1.0, 1.0, 1.0)), SETTINGS)
