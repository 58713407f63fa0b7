"""Smoothing across sections: what points see, what they change, and what cells make of it."""

from pathlib import Path

import numpy as np
import pytest

from cytoarch.anatomy.depth_maps import CORTEX, DepthMap
from cytoarch.anatomy.points import SectionMidline
from cytoarch.brains import LabelClass
from cytoarch.geometry import Grid
from cytoarch.images.views import Level
from cytoarch.learning.smoothing import Smoothing
from cytoarch.parcellation.across import (
    AcrossSettings,
    Nodes,
    broken_pairs,
    joined,
    shape_of,
    smooth_across,
)
from cytoarch.parcellation.graph import point_graph, screened_poisson
from cytoarch.parcellation.sparse import WHOLE, Likeliest, SparseProbabilities, SparseWriter
from cytoarch.parcellation.strength import STRENGTHS, Unseen, choose_strength
from cytoarch.parcellation.weighted import Changes, Weighted
from cytoarch.store.staging import Staging

CELL_UM, SPACING_UM = 50.0, 500.0
HEIGHT, WIDTH = 40, 120


def stored(folder: Path, p: np.ndarray, kept: int = 3) -> SparseProbabilities:
    """Probabilities (k, y, x) of a section, its first rows outside tissue."""
    grid = Grid.at_corner(p.shape[1:], CELL_UM, (0.0, 0.0))
    writer = SparseWriter.create(Staging(folder).open(), grid, tuple("0123456789"[: len(p) + 1]), kept, 1)
    inside = np.ones(p.shape[1:], dtype=bool)
    inside[:4] = False
    writer.write(0, 0, Likeliest.of(p.astype(np.float32), kept).masked(inside))
    writer.close()
    return SparseProbabilities.open(writer.journal.path)


def midline() -> SectionMidline:
    """Points along the middle of the rows."""
    along = np.arange(SPACING_UM / 2, WIDTH * CELL_UM, SPACING_UM)
    places = np.stack([np.full(len(along), HEIGHT * CELL_UM / 2), along], axis=1)
    nothing = np.zeros(len(along))
    return SectionMidline((places,), places, nothing.astype(int), along, nothing, nothing, nothing)


def downwards() -> DepthMap:
    """Depth that grows down the rows."""
    grid = Grid.at_corner((HEIGHT, WIDTH), CELL_UM, (0.0, 0.0))
    depth = np.tile(np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None], (1, WIDTH))
    return DepthMap(depth, np.full(depth.shape, CORTEX, dtype=np.uint8), grid)


def two_areas(border: int, flip: bool = False) -> np.ndarray:
    """Probabilities (3, y, x): the first area left of a column, the second right of it, hardly a third."""
    left = np.arange(WIDTH) < border
    one = np.where(left != flip, 0.7, 0.2)
    return np.stack([np.tile(row, (HEIGHT, 1)) for row in (one, 0.9 - one, np.full(WIDTH, 0.1))])


def test_points_see_the_mean_around_them_and_the_way_to_white_matter(tmp_path: Path):
    p = np.random.default_rng(0).dirichlet(np.ones(3), (HEIGHT, WIDTH)).transpose(2, 0, 1)
    nodes = Nodes.of(stored(tmp_path / "p", p), midline(), downwards(), SPACING_UM / 2)
    at = np.rint(np.array(nodes.places_um) / CELL_UM - 0.5).astype(int)
    y, x = at[3]
    np.testing.assert_allclose(nodes.probabilities[3], p[:, y - 5 : y + 6, x - 5 : x + 6].mean(axis=(1, 2)), atol=1e-3)
    np.testing.assert_allclose(nodes.probabilities.sum(axis=1), 1, atol=1e-4)
    np.testing.assert_allclose(nodes.normals, np.tile([1.0, 0.0], (len(at), 1)), atol=1e-6)
    assert nodes.known.all()


def test_points_outside_tissue_know_nothing(tmp_path: Path):
    line = midline()
    line.places_um[0] = CELL_UM, CELL_UM
    nodes = Nodes.of(stored(tmp_path / "p", two_areas(60)), line, downwards(), CELL_UM)
    assert not nodes.known[0]
    assert nodes.known[1:].all()


def brain(sections: list[np.ndarray], tmp_path: Path, broken=()):
    """The graph of some sections 0.4 mm apart, and the probabilities of its points."""
    nodes = [Nodes.of(stored(tmp_path / str(at), p), midline(), downwards(), CELL_UM) for at, p in enumerate(sections)]
    placed = []
    for at, one in enumerate(nodes):
        places = np.concatenate([one.places_um[:, ::-1] / 1000, np.full((len(one.line), 1), 0.4 * at)], axis=1)
        placed.append((places, np.concatenate([one.normals, np.zeros((len(one.line), 1))], axis=1)))
    sides = [np.zeros(len(one.line), dtype=int) for one in nodes]
    points = joined(nodes, placed, range(len(nodes)), sides)
    graph = point_graph(points, SPACING_UM / 1000, broken)
    return nodes, graph, np.concatenate([one.probabilities for one in nodes]).astype(float)


@pytest.mark.parametrize("method", ["poisson", "potts"])
def test_a_section_that_is_wrong_follows_its_neighbours_unless_nothing_is_smoothed_there(tmp_path: Path, method: str):
    sections = [two_areas(60, flip=at == 2) for at in range(5)]
    nodes, graph, p = brain(sections, tmp_path / "whole")
    settings = AcrossSettings(method=method, strength=4.0)
    found = smooth_across(p.copy(), graph, np.ones(len(p)), settings, {})
    count = len(nodes[0].line)
    truth = np.tile(np.arange(count) >= count / 2, 5).astype(int)
    assert (p.argmax(axis=1) == truth).mean() == pytest.approx(0.8)
    assert (found.probabilities.argmax(axis=1) == truth).mean() > 0.95
    assert found.after.pieces < found.before.pieces
    assert found.after.borders < found.before.borders
    _, apart, p = brain(sections, tmp_path / "apart", [(1, 2), (2, 3)])
    alone = smooth_across(p, apart, np.ones(len(p)), settings, {}).probabilities.argmax(axis=1)
    assert (alone[2 * count : 3 * count] != truth[2 * count : 3 * count]).all()


def test_small_pieces_are_given_to_what_is_around_them_by_exchanging_two_probabilities(tmp_path: Path):
    p = two_areas(60)
    p[:, :, 21:29] = np.array([0.1, 0.2, 0.7])[:, None, None]  # one point of the third area, and two elsewhere
    p[:, :, 81:99] = np.array([0.1, 0.2, 0.7])[:, None, None]
    _, graph, before = brain([p], tmp_path)
    areas = np.full(len(before), 0.25)
    settings = AcrossSettings(method="poisson", strength=0.0, smallest_mm2=0.4)
    found = smooth_across(before.copy(), graph, areas, settings, {})
    labels = found.probabilities.argmax(axis=1)
    assert (found.reassigned, found.reassigned_mm2) == (1, 0.25)
    assert (before.argmax(axis=1) != labels).sum() == 1
    np.testing.assert_allclose(np.sort(found.probabilities, axis=1), np.sort(before, axis=1), atol=1e-9)
    assert (labels == 2).sum() == (before.argmax(axis=1) == 2).sum() - 1


def test_borders_that_no_labels_have_are_counted_and_can_be_discouraged(tmp_path: Path):
    labels = np.array([0, 0, 2, 2, 1])
    _, graph, _ = brain([two_areas(60)], tmp_path)
    chain = graph[:5, :5]
    far = np.array([[0, 1, 2], [1, 0, 1], [2, 1, 0]], dtype=float)
    found = shape_of(labels, chain, far)
    assert (found.borders, found.pieces) == (2, 3)
    assert [tuple(one) for one in found.violations] == [(0, 2, 1)]
    p = np.array([[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.0, 0.48, 0.52], [0.0, 0.9, 0.1], [0.0, 0.9, 0.1]])
    touch = {(0, 1): 10, (1, 2): 10}
    plain, careful = (
        smooth_across(p.copy(), chain, np.ones(5), AcrossSettings(method="potts", strength=0.2, discourage=one), touch)
        for one in (False, True)
    )
    assert sum(one.pairs for one in plain.before.violations) == 1
    assert careful.after.violations == ()


def test_a_missing_section_and_a_doubtful_one_keep_their_neighbours_apart():
    assert broken_pairs([1, 2, 3, 5, 6, 7], {5}) == {(2, 3), (4, 5)}
    assert broken_pairs([2, 4, 6, 8], ()) == set()
    assert broken_pairs([7], ()) == set()


def test_cells_follow_their_point_and_those_far_away_stay(tmp_path: Path):
    p = np.stack([np.full((HEIGHT, WIDTH), one) for one in (0.5, 0.3, 0.2)])
    alone = stored(tmp_path / "p", p)
    place = np.array([[20 * CELL_UM, 30 * CELL_UM]])
    changes = Changes.between(place, np.array([[0.5, 0.3, 0.2]]), np.array([[0.15, 0.6, 0.25]]))
    assert changes.gained.tolist() == [2]
    found = Weighted(alone, changes, 15 * CELL_UM).read(0, 0, HEIGHT, WIDTH)
    shares = found.shares / WHOLE
    near = (slice(None), 20, 30)
    np.testing.assert_array_equal(found.channels[near], [2, 3, 1])
    np.testing.assert_allclose(shares[near], [0.6, 0.25, 0.15], atol=1e-3)
    np.testing.assert_array_equal(found.channels[:, 20, 110], [1, 2, 3])
    np.testing.assert_allclose(shares[:, 20, 110], [0.5, 0.3, 0.2], atol=1e-4)
    assert (found.channels[0, :4] == 0).all()
    assert (shares[0, :4] == 1).all()


def exchanged(folder: Path, cell: list[float], point: list[float], kept: int = 3) -> tuple[Likeliest, Likeliest]:
    """A cell before and after, near a point whose first two classes were exchanged."""
    p = np.tile(np.array(cell)[:, None, None], (1, HEIGHT, WIDTH))
    alone, before = stored(folder, p, kept), np.array([point])
    after = before[:, [1, 0, *range(2, len(point))]]
    place = np.array([[20 * CELL_UM, 30 * CELL_UM]])
    found = Weighted(alone, Changes.between(place, before, after), 15 * CELL_UM)
    return alone.read(20, 30, 1, 1), found.read(20, 30, 1, 1)


def test_a_cell_that_does_not_name_the_class_of_its_point_takes_it_in_and_no_third_one(tmp_path: Path):
    """A gives way to B, which the cell does not name; C and D have no part in it."""
    point = [0.9, 0.018, 0.041, 0.041, 0, 0, 0, 0]
    before, after = exchanged(tmp_path / "p", [0.50, 0.06, 0.12, 0.08, 0.06, 0.06, 0.06, 0.06], point)
    assert before.channels.ravel().tolist() == [1, 3, 4]
    assert after.channels.ravel().tolist() == [2, 3, 1]


@pytest.mark.parametrize("cell", [[0.8, 0, 0.12, 0.08, 0, 0], [0.6, 1e-4, 0.22, 0.1799, 0, 0]])
def test_a_cell_with_no_share_for_the_class_of_its_point_stays(tmp_path: Path, cell: list[float]):
    """Nothing is left for it, or so little that a third class would win."""
    before, after = exchanged(tmp_path / "p", cell, [0.9, 0.018, 0.041, 0.041, 0, 0])
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_cell_does_not_depend_on_the_window_it_is_read_in(tmp_path: Path):
    rng = np.random.default_rng(1)
    alone = stored(tmp_path / "p", rng.dirichlet(np.ones(3), (HEIGHT, WIDTH)).transpose(2, 0, 1))
    places = rng.random((7, 2)) * np.array([HEIGHT, WIDTH]) * CELL_UM
    ratios, gained = rng.random((7, 3)).astype(np.float32) * 2, rng.integers(0, 4, 7).astype(np.uint16)
    weighted = Weighted(alone, Changes(places, ratios, gained), 20 * CELL_UM)
    whole = weighted.read(0, 0, HEIGHT, WIDTH)
    for y, x, height, width in [(3, 5, 20, 50), (11, 64, 29, 56), (39, 0, 1, 9)]:
        part = weighted.read(y, x, height, width)
        for one, other in zip(part, whole, strict=True):
            np.testing.assert_array_equal(one, other[:, y : y + height, x : x + width])


def test_without_points_nothing_changes(tmp_path: Path):
    alone = stored(tmp_path / "p", two_areas(60))
    found = Weighted(alone, Changes.none(), 1.0).read(0, 0, 9, 9)
    for one, other in zip(found, alone.read(0, 0, 9, 9), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_ratio_takes_what_a_point_said_to_what_it_says_after(tmp_path: Path):
    _, graph, p = brain([two_areas(60), two_areas(40)], tmp_path)
    after = screened_poisson(p, graph, 2.0)
    back = p * Changes.between(np.zeros((len(p), 2)), p, after).ratios
    np.testing.assert_allclose(back / back.sum(axis=1, keepdims=True), after, atol=2e-3)


# -- how strongly ------------------------------------------------------------------------------------------------------


CLASSES = tuple(LabelClass(name=f"area {one}", ids=(one,)) for one in (1, 2, 3))


def chosen_on(section: int, sections: list[np.ndarray], labels: np.ndarray, tmp_path: Path) -> Smoothing | None:
    """The strength chosen on one of some sections, whose labels are known."""
    nodes, graph, p = brain(sections, tmp_path)
    ends = np.cumsum([0, *(len(one.line) for one in nodes)])
    part = slice(*ends[section : section + 2])

    def changes_by(strength: float) -> dict[str, Changes]:
        assert strength > 0, "0 changes nothing and needs no solving"
        settings = AcrossSettings(method="poisson", strength=strength)
        after = smooth_across(p.copy(), graph, np.ones(len(p)), settings, {}).probabilities
        return {"s": Changes.between(nodes[section].places_um, p[part], after[part])}

    alone = SparseProbabilities.open(Staging(tmp_path / str(section)).path)
    level = Level(labels.astype(np.uint8), CELL_UM, CELL_UM / 2)
    return choose_strength({"s": Unseen(alone, level)}, CLASSES, changes_by, 2 * SPACING_UM, 0.0)


def true_labels(border: int, flip: bool = False) -> np.ndarray:
    labels = 1 + two_areas(border, flip).argmax(axis=0)
    labels[:4] = 0
    return labels


def test_a_strength_is_chosen_where_a_section_is_wrong_and_its_neighbours_are_right(tmp_path: Path):
    sections = [two_areas(60, flip=at == 2) for at in range(5)]
    chosen = chosen_on(2, sections, true_labels(60), tmp_path)
    assert chosen is not None
    assert set(chosen.macro_f1) == set(STRENGTHS)
    assert chosen.weight > 0
    assert chosen.macro_f1[0.0] == 0
    assert chosen.macro_f1[chosen.weight] > 0.9


def test_nothing_is_smoothed_where_a_section_differs_from_its_neighbours_in_truth(tmp_path: Path):
    sections = [two_areas(60, flip=at == 2) for at in range(5)]
    chosen = chosen_on(2, sections, true_labels(60, flip=True), tmp_path)
    assert chosen is not None
    assert chosen.weight == 0
    assert chosen.macro_f1[0.0] == 1


def test_without_labels_no_strength_is_chosen(tmp_path: Path):
    assert chosen_on(0, [two_areas(60)] * 2, np.zeros((HEIGHT, WIDTH)), tmp_path) is None
