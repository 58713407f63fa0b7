from itertools import pairwise

import numpy as np
import pytest

from cytoarch.phantoms.sphere import FACES, Waves, cube_directions, icosphere, locate, look_up, unit
from cytoarch.phantoms.surfaces import (
    Surface,
    adjacency,
    area_sizes_mm2,
    mean_curvature,
    neighbour_mean,
    triangle_areas,
    vertex_areas,
)


def some_directions(count: int, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(count, 3)))


@pytest.mark.parametrize("subdivisions", [0, 1, 3, 5])
def test_an_icosphere_is_a_closed_sphere_wound_outwards(subdivisions: int) -> None:
    vertices, triangles = icosphere(subdivisions)
    np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), 1, rtol=1e-12)
    directed = np.concatenate([triangles[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
    assert len(np.unique(directed, axis=0)) == len(directed)
    edges, uses = np.unique(np.sort(directed, axis=1), axis=0, return_counts=True)
    assert (uses == 2).all()
    assert len(vertices) - len(edges) + len(triangles) == 2
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    assert (np.einsum("ij,ij->i", np.cross(b - a, c - a), a + b + c) > 0).all()


def test_the_size_of_an_icosphere_tends_to_that_of_the_sphere() -> None:
    short = [4 * np.pi - triangle_areas(*icosphere(level)).sum() for level in range(6)]
    assert all(gap > 0 for gap in short)
    assert all(3.5 < coarse / fine < 4.5 for coarse, fine in pairwise(short[1:]))
    assert short[-1] < 1e-3 * 4 * np.pi


def test_the_sizes_of_vertices_sum_to_those_of_triangles() -> None:
    vertices, triangles = icosphere(3)
    bent = vertices * (1 + 0.3 * np.sin(3 * vertices[:, :1]))
    own, whole = vertex_areas(bent, triangles), triangle_areas(bent, triangles)
    assert own.sum() == pytest.approx(whole.sum(), rel=1e-12)
    around = (triangles == 17).any(axis=1)
    assert own[17] == pytest.approx(whole[around].sum() / 3, rel=1e-12)


@pytest.mark.parametrize("radius", [0.5, 1.0, 7.0])
def test_the_mean_curvature_of_a_sphere_is_one_over_its_radius(radius: float) -> None:
    vertices, triangles = icosphere(4)
    np.testing.assert_allclose(mean_curvature(radius * vertices, triangles), 1 / radius, rtol=0.02)


def test_a_sphere_seen_from_inside_is_concave() -> None:
    vertices, triangles = icosphere(3)
    np.testing.assert_allclose(mean_curvature(vertices, triangles[:, ::-1]), -1, rtol=0.03)


def test_the_mean_over_neighbours_keeps_constants_and_looks_no_further() -> None:
    vertices, triangles = icosphere(2)
    mean = neighbour_mean(triangles, len(vertices)).tocsr()
    np.testing.assert_allclose(mean @ np.ones(len(vertices)), 1, rtol=1e-12)
    near = set(triangles[(triangles == 100).any(axis=1)].ravel().tolist())
    assert set(mean[[100]].indices.tolist()) == near


def test_areas_that_share_an_edge_touch_and_no_others() -> None:
    # a strip of triangles through areas 1 1 2 2 3 3; area 4 has no vertex
    vertices = np.array([[x, y, 0.0] for x in range(3) for y in range(2)])
    triangles = np.array([[0, 2, 1], [1, 2, 3], [2, 4, 3], [3, 4, 5]])
    strip = Surface(vertices, triangles, np.array([1, 1, 2, 2, 3, 3], np.uint8))
    touching = adjacency((strip,), 4)
    assert {(int(a) + 1, int(b) + 1) for a, b in np.argwhere(touching)} == {(1, 2), (2, 1), (2, 3), (3, 2)}
    np.testing.assert_allclose(area_sizes_mm2((strip,), 4), [[0.5, 1.0, 0.5, 0.0]])


def test_every_direction_lies_in_the_cell_that_it_is_located_in() -> None:
    nodes = cube_directions(9)
    for x, y, z in some_directions(300):
        face, row, column, down, right = locate(x, y, z, 9)
        assert 0 <= face < FACES
        assert 0 <= row <= 7
        assert 0 <= column <= 7
        assert 0 <= down <= 1
        assert 0 <= right <= 1
        corners = nodes[face, row : row + 2, column : column + 2].reshape(4, 3)
        widest = max(np.linalg.norm(corners[0] - corners[3]), np.linalg.norm(corners[1] - corners[2]))
        assert np.linalg.norm(corners - [x, y, z], axis=1).max() < 1.01 * widest


def test_looking_up_the_nodes_of_a_cube_map_gives_its_values() -> None:
    nodes = cube_directions(12)
    # a function of the direction, so that both faces of an edge hold the same value there
    field = np.stack([np.sin(3 * nodes[..., 0]) + nodes[..., 1], nodes[..., 2] ** 3], axis=-1)
    np.testing.assert_allclose(look_up(field, nodes), field, atol=1e-12)
    np.testing.assert_allclose(look_up(field, 5.0 * nodes), field, atol=1e-12)


def test_a_linear_function_of_the_direction_is_looked_up_again_the_better_the_finer_the_map() -> None:
    directions, slope = some_directions(20_000), np.array([0.3, -1.2, 2.0])
    errors = []
    for resolution in (12, 24, 48):
        field = (cube_directions(resolution) @ slope)[..., None]
        errors.append(np.abs(look_up(field, directions)[:, 0] - directions @ slope).max())
    assert errors[2] < 5e-4 * np.linalg.norm(slope)
    assert errors[1] < errors[0] / 3
    assert errors[2] < errors[1] / 3


def test_a_cube_map_is_continuous_across_the_edges_of_its_faces() -> None:
    rng = np.random.default_rng(1)
    nodes = cube_directions(16)
    field = Waves(1.5, np.random.default_rng(2)).value(nodes)[..., None]
    along, sign = rng.uniform(-0.99, 0.99, 3000), rng.choice([-1.0, 1.0], (3000, 2))
    on_edge = np.stack([sign[:, 0], sign[:, 1], along], axis=1)
    turn = rng.integers(3, size=3000)
    outer, inner = on_edge.copy(), on_edge.copy()
    outer[:, 0] *= 1 + 1e-9
    inner[:, 0] *= 1 - 1e-9
    outer, inner = (np.stack([np.roll(one, k) for one, k in zip(rays, turn, strict=True)]) for rays in (outer, inner))
    faces = np.array([[locate(*one, 16)[0], locate(*two, 16)[0]] for one, two in zip(outer, inner, strict=True)])
    assert (faces[:, 0] != faces[:, 1]).all()
    np.testing.assert_allclose(look_up(field, outer), look_up(field, inner), atol=1e-7)


def test_a_random_field_has_mean_0_and_variance_1_and_its_gradient_is_its_slope() -> None:
    points = np.random.default_rng(3).uniform(-40, 40, (20_000, 3))
    waves = Waves(2.0, np.random.default_rng(4))
    value = waves.value(points)
    assert abs(value.mean()) < 0.03
    assert value.var() == pytest.approx(1, abs=0.05)
    step = 1e-5 * np.eye(3)
    slope = np.stack([(waves.value(points + one) - waves.value(points - one)) / 2e-5 for one in step], axis=1)
    np.testing.assert_allclose(waves.gradient(points), slope, atol=1e-6)
