"""Nearest neighbours: those of scikit-learn, and a planted shortcut is told in numbers."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from cytoarch.discovery import neighbours as neighbours_module
from cytoarch.discovery.known import AREAS, BRAINS, SECTIONS, STAINS, KnownTokens, together
from cytoarch.discovery.neighbours import NO_TOKEN, nearest, typical
from cytoarch.discovery.quality import UNKNOWN
from tests.cytoarch.discovery.made_up_tokens import known_tokens


def test_neighbours_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours_module, "ROWS", 37)
    known = known_tokens()
    found, _ = nearest(known.tokens, known, 5, 1.0)
    oracle = NearestNeighbors(n_neighbors=6, metric="cosine").fit(known.tokens).kneighbors(known.tokens)[1][:, 1:]
    np.testing.assert_array_equal(found, oracle)


def test_tokens_whose_patches_overlap_are_no_neighbours() -> None:
    known = known_tokens(60)
    known.places_um[:] = 0
    known.tokens[:] += (
        5 * np.eye(6)[known.section][:, ::-1][:, :6]
    )  # its own section is nearest, but all of it overlaps
    found, shared = nearest(known.tokens, known, 4, 10.0)
    assert (known.section[found] != known.section[:, None]).all()
    assert shared[SECTIONS].share == 0
    assert shared[SECTIONS].chance == 0


def test_where_fewer_could_be_neighbours_the_rest_are_none_and_do_not_count() -> None:
    """A section of three tokens beside another: the other's are all that each could have, and the rest is none."""
    known = known_tokens(60).chosen(np.flatnonzero(known_tokens(60).section < 2)[:9])
    known.section[:] = np.repeat([0, 1], [3, 6])
    known.places_um[:] = 0
    found, shared = nearest(known.tokens, known, 5, 10.0)
    assert (np.sort(found[3:, :3], axis=1) == [0, 1, 2]).all()
    assert (found[3:, 3:] == NO_TOKEN).all()
    assert (found[:3] >= 3).all()
    assert shared[SECTIONS].share == 0


def test_a_shortcut_shows_as_neighbours_of_the_same_section() -> None:
    honest, bent = known_tokens(), known_tokens()
    bent.tokens[:, 2:] += 6 * np.eye(4)[bent.section]
    of_honest, of_bent = (nearest(one.tokens, one, 5, 1.0)[1] for one in (honest, bent))
    assert of_honest[AREAS].excess > 0.95
    assert abs(of_honest[SECTIONS].excess) < 0.1
    assert of_bent[SECTIONS].excess > 0.95
    assert of_bent[STAINS].excess > 0.95  # sections are of one stain
    assert of_bent[STAINS].chance == pytest.approx(0.5, abs=0.05)
    assert "hemispheres" not in of_bent  # nothing is known of them
    assert BRAINS not in of_bent  # there is one


def test_tokens_of_unknown_area_are_left_out_of_what_areas_share() -> None:
    known = known_tokens()
    known.area[::2] = UNKNOWN
    _, shared = nearest(known.tokens, known, 5, 1.0)
    assert shared[AREAS].share > 0.95
    assert shared[AREAS].values == 2


def test_typical_tokens_lie_nearest_to_the_mean_of_the_largest_groups() -> None:
    tokens = np.array([[0.0], [1.0], [2.0], [10.0], [14.0], [50.0]], dtype=np.float32)
    groups = np.array([3, 3, 3, 1, 1, UNKNOWN])
    assert typical(tokens, groups, 2).tolist() == [3, 1]
    assert typical(tokens, groups, 1).tolist() == [1]


def test_brains_are_put_together_by_the_names_of_their_areas() -> None:
    one, other = known_tokens(50), known_tokens(70, seed=1, brain="B2", areas=("b", "c"))
    other.area[0] = UNKNOWN
    both = together({"B1": one, "B2": other})
    assert (both.area_names, both.brain_ids) == (("a", "b", "c"), ("B1", "B2"))
    assert np.bincount(both.brain).tolist() == [50, 70]
    assert both.area[50] == UNKNOWN
    names = np.array(["b", "c"])[other.area[1:]]
    assert (np.array(both.area_names)[both.area[51:]] == names).all()
    assert both.section_ids[both.section[-1]] == f"B2/s{other.section[-1]}"
    assert both.stain_names == ("nissl", "silver")


def test_known_tokens_come_back_from_their_file() -> None:
    known = known_tokens(30)
    again = KnownTokens.from_bytes(known.to_bytes())
    for name, value in vars(known).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    few = known.chosen(np.array([3, 5]))
    np.testing.assert_array_equal(few.tokens, known.tokens[[3, 5]])
    assert few.section_ids == known.section_ids
