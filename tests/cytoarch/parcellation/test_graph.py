"""Smoothing over a graph: the laws of each method, and the numbers that the fact sheet of the field has."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from cytoarch.parcellation.graph import (
    Points,
    point_graph,
    potts,
    potts_energy,
    propagated,
    screened_poisson,
    symmetric,
    without_small,
)

EDGE = 40


def grid_graph(height: int = EDGE, width: int = EDGE) -> csr_matrix:
    """Cells of a grid joined to their four neighbours."""
    numbers = np.arange(height * width).reshape(height, width)
    down = np.stack([numbers[:-1].ravel(), numbers[1:].ravel()], axis=1)
    right = np.stack([numbers[:, :-1].ravel(), numbers[:, 1:].ravel()], axis=1)
    edges = np.concatenate([down, right])
    return symmetric(edges, np.ones(len(edges)), height * width)


def halves(flips: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two halves of a grid, and what is said of them: one-hot (n, 2), wrong in a share of the cells."""
    truth = (np.arange(EDGE**2) % EDGE >= EDGE // 2).astype(int)
    said = np.where(np.random.default_rng(seed).random(EDGE**2) < flips, 1 - truth, truth)
    return truth, np.eye(2)[said]


@pytest.mark.parametrize(("lam", "accuracy"), [(0.5, 0.887), (1, 0.970), (2, 0.990), (5, 0.993)])
def test_noise_is_smoothed_as_far_as_the_fact_sheet_says(lam: float, accuracy: float):
    truth, said = halves(0.2)
    found = screened_poisson(said, grid_graph(), lam).argmax(axis=1)
    assert (found == truth).mean() == pytest.approx(accuracy, abs=0.02)


@pytest.mark.parametrize(("lam", "survives"), [(1, True), (2, True), (5, False)])
def test_a_strip_two_nodes_wide_survives_the_default(lam: float, survives: bool):
    column = np.arange(EDGE**2) % EDGE
    truth = ((column == 20) | (column == 21)).astype(int)
    found = screened_poisson(np.eye(2)[truth], grid_graph(), lam).argmax(axis=1)
    assert (found == truth).all() == survives


def test_probabilities_stay_on_the_simplex_and_classes_keep_their_mass():
    p = np.random.default_rng(0).dirichlet(np.ones(4), EDGE**2)
    found = screened_poisson(p, grid_graph(), 3.0)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(found.sum(axis=0), p.sum(axis=0))
    assert found.max() <= p.max()
    assert found.min() >= p.min()
    np.testing.assert_allclose(screened_poisson(p, grid_graph(), 0.0), p)
    np.testing.assert_allclose(screened_poisson(p, grid_graph(), 1e7), np.tile(p.mean(axis=0), (EDGE**2, 1)), atol=1e-3)


def test_energy_never_rises_and_noise_goes():
    truth, said = halves(0.2)
    p = np.where(said == 1, 0.8, 0.2)
    found = potts(p, grid_graph(), 1.0)
    assert potts_energy(found, p, grid_graph()) < potts_energy(p.argmax(axis=1), p, grid_graph())
    assert (found == truth).mean() == pytest.approx(0.968, abs=0.02)


def test_a_border_that_cannot_be_is_avoided():
    """Of three classes in a row, the first and last are no neighbours: a lone wrong node between them is corrected."""
    chain = symmetric(np.array([[0, 1], [1, 2], [2, 3]]), np.ones(3), 4)
    p = np.array([[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.0, 0.48, 0.52], [0.0, 0.9, 0.1]])
    cost = np.array([[0, 1, 3], [1, 0, 1], [3, 1, 0]], dtype=float)
    assert potts(p, chain, 0.2, cost).tolist() == [0, 0, 1, 1]
    assert potts(p, chain, 0.01).tolist() == [0, 0, 2, 1]


def test_labels_spread_as_a_ramp_along_a_path_and_not_where_no_way_leads():
    path = symmetric(np.array([[0, 1], [1, 2], [2, 3], [3, 4]]), np.ones(4), 6)
    labels = np.array([0, -1, -1, -1, 1, -1])
    found = propagated(labels, path, 2)
    np.testing.assert_allclose(found[:5, 1], [0, 0.25, 0.5, 0.75, 1])
    assert np.isnan(found[5]).all()


def test_small_components_take_the_label_around_them_and_the_largest_of_a_label_stays():
    labels = np.zeros((20, 20), dtype=int)
    labels[2:4, 2:4] = 1  # four cells
    labels[10:18, 10:18] = 1  # the largest of its label
    labels[5, 15] = 2  # the only one of its label
    areas = np.full(400, 0.25)
    found = without_small(labels.ravel(), grid_graph(20, 20), areas, 2.0)
    expected = labels.copy()
    expected[2:4, 2:4] = 0
    np.testing.assert_array_equal(found.labels.reshape(20, 20), expected)
    assert (found.components, found.mm2) == (1, 1.0)
    again = without_small(found.labels, grid_graph(20, 20), areas, 2.0)
    np.testing.assert_array_equal(again.labels, found.labels)
    assert again.components == 0


def one_by_one(labels: np.ndarray, graph: csr_matrix, areas: np.ndarray, smallest: float) -> tuple[np.ndarray, int]:
    """Small pieces merged one at a time, the smallest first."""
    found, count = labels.copy(), 0
    while True:
        same = csr_matrix(graph.toarray() * (found[:, None] == found[None]))
        component = connected_components(same, directed=False)[1]
        sizes = np.bincount(component, weights=areas)
        order = np.argsort(sizes, kind="stable")
        largest = {int(found[component == one][0]): one for one in order}
        small = [one for one in order if sizes[one] < smallest and one not in largest.values()]
        if not small:
            return found, count
        inside = component == small[0]
        weights = np.asarray(graph[inside].sum(axis=0)).ravel() * ~inside
        found[inside] = np.bincount(found, weights=weights).argmax()
        count += 1


@pytest.mark.parametrize("seed", range(6))
def test_pieces_merged_in_sweeps_are_those_merged_one_by_one(seed: int):
    rng = np.random.default_rng(seed)
    graph, labels = grid_graph(14, 14), rng.integers(0, 3, 196)
    areas = rng.random(196)
    expected, count = one_by_one(labels, graph, areas, 2.5)
    found = without_small(labels, graph, areas, 2.5)
    np.testing.assert_array_equal(found.labels, expected)
    assert found.components == count > 5


def test_a_piece_without_neighbours_stays_and_without_a_smallest_size_all_do():
    pair = symmetric(np.array([[0, 1]]), np.ones(1), 4)
    labels = np.array([0, 0, 0, 1])
    for smallest in (9.0, 0.0):
        found = without_small(labels, pair, np.ones(4), smallest)
        assert (found.labels.tolist(), found.components) == (labels.tolist(), 0)


def test_points_in_another_order_than_their_sections_are_no_graph():
    points = Points(*(one[::-1] for one in series()[:5]))
    with pytest.raises(ValueError, match="sort them by section"):
        point_graph(points, 0.3)


def test_smoothing_in_place_in_single_precision_is_the_same():
    p = np.random.default_rng(0).dirichlet(np.ones(4), EDGE**2)
    own, trust = p.astype(np.float32), np.random.default_rng(1).random(EDGE**2) + 0.1
    expected = screened_poisson(p, grid_graph(), 3.0, trust)
    assert screened_poisson(own, grid_graph(), 3.0, trust, out=own) is own
    np.testing.assert_allclose(own, expected, atol=1e-6)


def series(sections: int = 4, count: int = 30) -> Points:
    """Straight lines of points, one a hemisphere, in sections 0.5 mm apart."""
    section = np.repeat(np.arange(sections), 2 * count)
    side = np.tile(np.repeat([0, 1], count), sections)
    along = np.tile(np.arange(count) * 0.3, 2 * sections)
    places = np.stack([along, side * 1.0, section * 0.5], axis=1)
    return Points(places, section, side, side, along)


def test_hemispheres_stay_apart_and_sections_hang_together():
    points = series()
    count, component = connected_components(point_graph(points, 0.3), directed=False)
    assert count == 2
    np.testing.assert_array_equal(component, points.hemisphere)


def test_nothing_is_smoothed_across_a_section_that_is_flagged_or_missing():
    points = series()
    count, component = connected_components(point_graph(points, 0.3, broken=[(1, 2)]), directed=False)
    assert count == 4
    assert len({*component[points.section <= 1]} & {*component[points.section > 1]}) == 0
    gone = points.section != 1
    left = Points(*(one[gone] for one in points[:5]))
    assert connected_components(point_graph(left, 0.3), directed=False)[0] == 4


def test_banks_of_a_sulcus_stay_apart_by_their_normals():
    """Two banks, 0.4 mm from each other, in one hemisphere of two sections."""
    points = series(2)
    places = points.places_mm.copy()
    places[:, 1] *= 0.4
    bank = points.line
    normals = np.stack([np.zeros(len(bank)), np.where(bank == 0, 1.0, -1.0), np.zeros(len(bank))], axis=1)
    one_side = points._replace(places_mm=places, hemisphere=np.zeros_like(bank))
    count, component = connected_components(
        point_graph(one_side._replace(normals=normals), 0.3, nearest=40), directed=False
    )
    assert count == 2
    np.testing.assert_array_equal(component, bank)
    assert connected_components(point_graph(one_side, 0.3, nearest=40), directed=False)[0] == 1
