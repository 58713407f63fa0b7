"""Phantoms traced, gaps closed, spurs cut; blocks and the whole give the same."""

import numpy as np
import pytest

from cytoarch.neurons import tracing
from cytoarch.neurons.phantoms import NeuronPhantom, anisotropic, make_phantom
from cytoarch.neurons.scoring import score_trees
from cytoarch.neurons.tracing import TraceRules, trace_mask
from cytoarch.neurons.trees import ROOT, Tree
from cytoarch.neurons.tubes import Tubes

UM = (1.0, 1.0, 1.0)
AS_IT_IS = TraceRules(gap_um=0, spur_um=0, piece_um=0)


def tubes(*lines: tuple[tuple[float, float, float], tuple[float, float, float]], radius: float = 1.5) -> np.ndarray:
    """A mask (24, 40, 80) of straight tubes."""
    mask = np.zeros((24, 40, 80), dtype=bool)
    for start, end in lines:
        tree = Tree.of(np.array([start, end]), np.full(2, radius), np.array([ROOT, 0]))
        mask |= Tubes.of(tree, UM).mask((0, 0, 0), mask.shape)  # type: ignore[arg-type]
    return mask


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_mask_of_a_phantom_is_traced_to_its_tree(seed: int) -> None:
    made = make_phantom(NeuronPhantom(shape=(40, 64, 64), neurons=1, seed=seed))
    traced = trace_mask(made.mask, made.voxel_um, TraceRules())
    score = score_trees(traced, made.tree, UM)
    assert score.esa < 1
    assert score.recall > 0.9
    assert score.precision > 0.95


def test_planes_that_are_far_apart_are_traced_in_um() -> None:
    phantom = anisotropic(NeuronPhantom(shape=(60, 64, 64), neurons=1, seed=4), 3.0)
    made = make_phantom(phantom)
    assert made.pixels.shape == (20, 64, 64)
    traced = trace_mask(made.mask, made.voxel_um, TraceRules())
    score = score_trees(traced, made.tree, UM)
    assert score.esa < 2
    assert traced.length_um == pytest.approx(made.tree.length_um, rel=0.35)


def test_radii_are_those_of_the_tube() -> None:
    traced = trace_mask(tubes(((12, 20, 8), (12, 20, 72)), radius=3.0), UM, TraceRules())
    assert np.median(traced.radii_um) == pytest.approx(3.5, abs=0.6)
    assert traced.length_um == pytest.approx(64, abs=5)


@pytest.mark.parametrize(("gap", "pieces"), [(0.0, 2), (4.0, 2), (8.0, 1)])
def test_a_gap_is_closed_where_it_is_shorter_than_asked(gap: float, pieces: int) -> None:
    mask = tubes(((12, 20, 8), (12, 20, 36)), ((12, 20, 45), (12, 20, 72)))
    assert trace_mask(mask, UM, TraceRules(gap_um=gap)).roots == pieces


def test_specks_are_no_stepping_stones() -> None:
    far = ((12, 20, 8), (12, 20, 30)), ((12, 20, 50), (12, 20, 72))
    specks = [((12, 20, x), (12, 20, x + 1)) for x in (36, 43)]
    assert trace_mask(tubes(*far, *specks, radius=1.0), UM, TraceRules(gap_um=6)).roots == 2
    assert trace_mask(tubes(*far, radius=1.0), UM, TraceRules(gap_um=20)).roots == 1


def test_neurites_that_pass_at_a_distance_are_not_joined() -> None:
    mask = tubes(((12, 8, 8), (12, 8, 72)), ((12, 30, 8), (12, 30, 72)))
    assert trace_mask(mask, UM, TraceRules(gap_um=8)).roots == 2


def test_short_side_branches_and_pieces_are_left_out() -> None:
    mask = tubes(((12, 20, 8), (12, 20, 72)), ((12, 20, 40), (12, 26, 40)), ((4, 4, 4), (4, 4, 9)))
    kept = trace_mask(mask, UM, TraceRules(gap_um=0, spur_um=10, piece_um=10))
    assert (kept.roots, kept.branchings) == (1, 0)
    everything = trace_mask(mask, UM, AS_IT_IS)
    assert everything.roots == 2
    assert everything.branchings > 0


def test_there_are_no_circles_in_a_trace_of_a_ring() -> None:
    y, x = np.indices((40, 80))
    ring = np.abs(np.hypot(y - 20, x - 40) - 14) < 2
    mask = np.zeros((24, 40, 80), dtype=bool)
    mask[10:14] = ring
    traced = trace_mask(mask, UM, TraceRules())
    assert traced.roots == 1
    assert traced.length_um == pytest.approx(2 * np.pi * 14, rel=0.2)


def test_an_empty_mask_is_an_empty_tree() -> None:
    assert trace_mask(np.zeros((8, 8, 8), dtype=bool), UM, TraceRules()).is_empty
    speck = np.zeros((8, 8, 8), dtype=bool)
    speck[4, 4, 4] = True
    assert len(trace_mask(speck, UM, TraceRules())) == 0


def test_blocks_give_the_tree_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_phantom(NeuronPhantom(shape=(40, 64, 64), neurons=2, seed=6))
    whole = trace_mask(made.mask, made.voxel_um, TraceRules())
    monkeypatch.setattr(tracing, "BLOCK", 24)
    monkeypatch.setattr(tracing, "HALO", 12)
    score = score_trees(trace_mask(made.mask, made.voxel_um, TraceRules()), whole, UM)
    assert score.pds < 0.02
    assert score.esa < 0.5
