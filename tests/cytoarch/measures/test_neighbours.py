"""Which classes touch, and how many borders off errors are."""

import networkx as nx
import numpy as np

from cytoarch.measures.neighbours import adjacent, errors_by_hops, hops, together, touching, within_one


def test_meetings_are_counted_side_by_side_and_none_meets_nobody():
    classes = np.random.default_rng(0).integers(-1, 4, (13, 17))
    expected: dict[tuple[int, int], int] = {}
    for y, x in np.ndindex(classes.shape):
        for down, right in ((1, 0), (0, 1)):
            if y + down < 13 and x + right < 17:
                low, high = sorted((int(classes[y, x]), int(classes[y + down, x + right])))
                if low >= 0 and low != high:
                    expected[low, high] = expected.get((low, high), 0) + 1
    assert touching(classes) == expected


def test_hops_are_the_shortest_ways_of_a_graph():
    rng = np.random.default_rng(1)
    pairs = {(int(a), int(b)): 5 for a, b in np.sort(rng.integers(0, 12, (14, 2)), axis=1) if a != b}
    graph = nx.Graph(list(pairs))
    found = hops(pairs, 12)
    for one in range(12):
        for other in range(12):
            there = one == other or (one in graph and other in graph and nx.has_path(graph, one, other))
            expected = 0 if one == other else nx.shortest_path_length(graph, one, other) if there else np.inf
            assert found[one, other] == expected
    assert np.isinf(hops({}, 2)[0, 1])


def test_errors_are_counted_by_how_far_off_they_are_and_hits_are_none():
    confusion = np.array([[90, 3, 2, 1], [4, 80, 0, 0], [0, 0, 7, 0], [6, 0, 0, 5]])
    far = hops({(0, 1): 9, (1, 2): 9}, 4)
    assert errors_by_hops(confusion, far) == {1: 7, 2: 2, None: 7}
    assert sum(errors_by_hops(confusion, far).values()) == confusion.sum() - np.trace(confusion)


def test_classes_that_hardly_touch_are_no_neighbours_and_counts_of_images_add_up():
    images = [{(0, 1): 60, (1, 2): 20, (0, 2): 1}, {(1, 2): 30, (2, 3): 2}]
    total = together(images)
    assert total == {(0, 1): 60, (0, 2): 1, (1, 2): 50, (2, 3): 2}
    assert adjacent(total) == {(0, 1): 60, (1, 2): 50, (2, 3): 2}, "all that 3 touches is 2; 0 touches 2 in 1 of 53"
    assert adjacent({}) == {}


def test_the_share_within_one_border_is_of_wrong_cells_only():
    errors = {1: 7, 2: 2, None: 7}
    assert within_one(errors) == 7 / 16
    assert np.isnan(within_one({}))
