"""Slow drift is held by the slides, as far as sections were mounted alike; where they were not, nothing moves."""

import math

import numpy as np
import pytest

from cytoarch.anatomy.reconstruction.mounting import Mounted, scatter, steadied
from cytoarch.anatomy.reconstruction.rigid import Rigid
from cytoarch.anatomy.reconstruction.solving import Measured, Solution, solved

COUNT, RADIUS_UM = 60, 6000.0
HERE = (0.0, 0.0)
RNG = np.random.default_rng(4)


def mounted(turn_deg: float, shift_um: float) -> list[Rigid]:
    """From the slide to the plane of the brain: how sections truly lie, scattered about one way."""
    turns, shifts = RNG.normal(0, turn_deg, COUNT), RNG.normal(0, shift_um, (COUNT, 2))
    return [Rigid(False, float(turn), (float(y), float(x))) for turn, (y, x) in zip(turns, shifts, strict=True)]


def drifting(true: list[Rigid], step_deg: float, step_um: float) -> tuple[Solution, list[Measured]]:
    """Links with the next three sections that all see the same slow drift, and what they alone give."""
    lean = [Rigid(False, step_deg * at, (step_um * at * at / COUNT, 0.0)) for at in range(COUNT)]
    places = [one.then(bend) for one, bend in zip(true, lean, strict=True)]
    links = [
        Measured(i, j, places[i].then(places[j].inverse()), (100 / 60) ** 2, HERE, RADIUS_UM)
        for i in range(COUNT)
        for j in range(i + 1, min(COUNT, i + 4))
    ]
    return solved(places, links, [COUNT // 2]), links


def off_um(found: Solution, true: list[Rigid]) -> float:
    """Root mean square distance at the rim of the tissue, once the brain as a whole is laid onto the true one."""
    rim = RADIUS_UM * np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    ours, wanted = (np.concatenate([one(rim) for one in places]) for places in (found.places, true))
    return float(np.sqrt(((Rigid.fitted(ours, wanted)(ours) - wanted) ** 2).sum(axis=1).mean()))


def slides() -> dict[int, Mounted]:
    return {at: Mounted(Rigid.identity(), HERE) for at in range(COUNT)}


def test_slides_hold_a_drift_that_links_agree_on() -> None:
    true = mounted(3.0, 250.0)
    bent, links = drifting(true, 0.0, 25.0)
    before = off_um(bent, true)
    held = steadied(bent, links, [COUNT // 2], slides())
    assert before > 350
    assert off_um(held, true) < 0.6 * before
    assert held.places[COUNT // 2] == bent.places[COUNT // 2], "the base stays where it is"


def test_the_better_sections_are_mounted_the_more_drift_is_held() -> None:
    errors = []
    for turn_deg, shift_um in ((0.5, 100.0), (3.0, 400.0)):
        true = mounted(turn_deg, shift_um)
        bent, links = drifting(true, 0.0, 25.0)
        errors.append(off_um(steadied(bent, links, [COUNT // 2], slides()), true))
    assert errors[0] < errors[1]


def test_scans_cropped_to_their_tissue_hold_nothing() -> None:
    """Their middles wander with the shape of the brain, by much more than sections scatter."""
    wander = 3000 * np.sin(np.arange(COUNT) / 15)
    true = [Rigid(False, 0.0, (float(y), 0.0)) for y in wander]
    straight, links = drifting(true, 0.0, 0.0)
    assert scatter(true) is None
    assert steadied(straight, links, [COUNT // 2], slides()) == straight


def test_sections_mounted_any_way_up_hold_nothing() -> None:
    turned = RNG.uniform(-180, 180, COUNT)
    assert scatter([Rigid(False, float(one), (0.0, 0.0)) for one in turned]) is None


def test_few_sections_hold_nothing() -> None:
    assert scatter(mounted(3.0, 250.0)[:7]) is None


def test_scatter_is_that_of_the_mounting_whichever_way_the_brain_lies() -> None:
    found = [
        scatter([one.then(Rigid(False, turn, (500.0, 0.0))) for one in mounted(3.0, 250.0)]) for turn in (0.0, 179.0)
    ]
    for one in found:
        assert one is not None
        assert one.shift_um == pytest.approx(250, rel=0.4)
        assert one.turn_deg == pytest.approx(3, rel=0.4)


def test_what_neighbours_share_counts_once() -> None:
    """In pairs that were mounted alike there are half as many witnesses."""
    single = mounted(3.0, 250.0)
    pairs = [one for one in single[: COUNT // 2] for _ in (0, 1)]
    alone, shared = scatter(single[: COUNT // 2]), scatter(pairs)
    assert alone is not None
    assert shared is not None
    assert 1.2 < shared.shift_um / alone.shift_um < 2.5
    assert math.isfinite(shared.turn_deg)
