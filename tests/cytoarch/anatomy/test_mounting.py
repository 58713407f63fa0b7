"""Slow drift is told by the slides, as far as sections were mounted alike; where they were not, nothing moves."""

import numpy as np
import pytest

from cytoarch.anatomy.reconstruction.mounting import Mounted, slow, smooth, steadied
from cytoarch.anatomy.reconstruction.rigid import Rigid

COUNT, RADIUS_UM = 60, 6000.0
BASE = COUNT // 2
RIM = RADIUS_UM * np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


def lying(turn_deg: float, shift_um: float, seed: int = 4) -> list[Rigid]:
    """From the slide to the plane of the brain: how sections truly lie, scattered about one way."""
    rng = np.random.default_rng(seed)
    turns, shifts = rng.normal(0, turn_deg, COUNT), rng.normal(0, shift_um, (COUNT, 2))
    return [Rigid(False, float(turn), (float(y), float(x))) for turn, (y, x) in zip(turns, shifts, strict=True)]


def drifted(true: list[Rigid]) -> list[Rigid]:
    """The same with a bend that no comparison of neighbours can see: 1 mm and 4 degrees from end to end."""
    along = np.linspace(-1, 1, COUNT)
    bends = [Rigid(False, 2.0 * float(z), (1000 * float(z**2), -500 * float(z))) for z in along]
    return [one.then(bend) for one, bend in zip(true, bends, strict=True)]


def off_um(found: list[Rigid], true: list[Rigid]) -> float:
    """Root mean square distance at the rim of the tissue, once the brain as a whole is laid onto the true one."""
    ours, wanted = (np.concatenate([one(RIM) for one in places]) for places in (found, true))
    return float(np.sqrt(((Rigid.fitted(ours, wanted)(ours) - wanted) ** 2).sum(axis=1).mean()))


def slides(middle_um: tuple[float, float] = (0.0, 0.0)) -> dict[int, Mounted]:
    return {at: Mounted(Rigid.identity().about(middle_um, (0.0, 0.0)), middle_um) for at in range(COUNT)}


@pytest.mark.parametrize("seed", range(4))
def test_a_drift_that_links_agree_on_is_told_by_slides(seed: int) -> None:
    true = lying(3.0, 250.0, seed)
    bent = drifted(true)
    held = steadied(bent, slides(), BASE)
    assert off_um(held, true) < 0.55 * off_um(bent, true)
    np.testing.assert_allclose(held[BASE](RIM), bent[BASE](RIM), atol=1e-6)


def test_neighbours_keep_to_each_other() -> None:
    """What is taken away is slow: how a section lies to the next one hardly changes."""
    bent = drifted(lying(3.0, 250.0))
    held = steadied(bent, slides(), BASE)
    for one, other, now, then in zip(bent, bent[1:], held, held[1:], strict=False):
        there, here = one.then(other.inverse())(RIM), now.then(then.inverse())(RIM)
        assert np.linalg.norm(there - here, axis=1).max() < 120


def test_a_brain_that_does_not_drift_hardly_moves() -> None:
    for seed in range(4):
        true = lying(3.0, 250.0, seed)
        assert off_um(steadied(true, slides(), BASE), true) < 130, "of 250 um and some 310 by turns, of each section"


def test_the_frame_of_scans_does_not_matter() -> None:
    bent = drifted(lying(3.0, 250.0))
    middle = (7000.0, 9000.0)
    moved = [Rigid.identity().about(middle, (0.0, 0.0)).then(one) for one in bent]
    here, there = steadied(bent, slides(), BASE), steadied(moved, slides(middle), BASE)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(other(RIM + np.array(middle)), one(RIM), atol=1e-5)


def test_scans_cropped_to_their_tissue_tell_nothing() -> None:
    """Their middles wander with the shape of the brain, all together."""
    wander = 3000 * np.sin(np.arange(COUNT) / 8) + np.random.default_rng(0).normal(0, 100, COUNT)
    true = [Rigid(False, float(turn), (float(y), 0.0)) for turn, y in zip(lying_turns(), wander, strict=True)]
    assert slow(true) == []
    assert steadied(true, slides(), BASE) == true


def lying_turns() -> list[float]:
    return [one.angle_deg for one in lying(3.0, 0.0)]


def test_sections_mounted_any_way_up_or_few_of_them_tell_nothing() -> None:
    turned = np.random.default_rng(0).uniform(-180, 180, COUNT)
    assert slow([Rigid(False, float(one), (0.0, 0.0)) for one in turned]) == []
    assert slow(lying(3.0, 250.0)[:11]) == []


def test_one_section_upside_down_moves_no_other() -> None:
    bent = drifted(lying(3.0, 250.0))
    turned = list(bent)
    turned[20] = Rigid(False, 180.0, (4000.0, 4000.0)).then(turned[20])
    plain, other = steadied(bent, slides(), BASE), steadied(turned, slides(), BASE)
    apart = [float(np.linalg.norm(a(RIM) - b(RIM), axis=1).max()) for a, b in zip(plain, other, strict=True)]
    assert max(apart[:20] + apart[21:]) < 200


def test_smoothing_keeps_lines_and_constants_and_takes_noise() -> None:
    rng = np.random.default_rng(3)
    np.testing.assert_allclose(smooth(np.full(40, 7.0)), 7.0, atol=1e-9)
    wave = 5 * np.cos(np.pi * (np.arange(200) + 0.5) * 4 / 200)
    noise = rng.normal(size=200)
    assert np.abs(smooth(wave + noise) - wave).mean() < 0.35 * np.abs(noise).mean()
    assert smooth(noise).std() < 0.35
