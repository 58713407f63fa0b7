"""How strongly maps are smoothed: as sections ask for that were not learned from."""

from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.metrics import f1_score

from cytoarch.brains import LabelClass
from cytoarch.learning import smoothing
from cytoarch.learning.smoothing import (
    DEFAULT_WEIGHT,
    LARGEST_LOSS,
    NEAR,
    WEIGHTS,
    best_strength,
    cells_by_block,
    choose_smoothing,
    smooth_probabilities,
)

CLASSES = tuple(LabelClass(name=f"c{one}", ids=(one + 1,)) for one in range(3))


@dataclass(frozen=True)
class Card:
    classes: tuple[LabelClass, ...] = CLASSES
    cells_per_token: int = 1


class Given:
    """A head that says what it is shown."""

    card = Card()
    reach_tokens = 0

    def probabilities(self, embeddings: np.ndarray) -> np.ndarray:
        return embeddings


class Shown:
    """A section whose embeddings are probabilities, all of it tissue."""

    def __init__(self, truth: np.ndarray, probabilities: np.ndarray) -> None:
        self.truth, self.probabilities, self.section_id = truth, probabilities, "s1"
        self.grid, self.layers, self.levels = truth.shape, [self], [self]
        self.embeddings = self.tissue = self

    def targets(self, _classes: object, _cells: int, window: tuple[int, int, int, int]) -> np.ndarray:
        y, x, height, width = window
        return self.truth[y : y + height, x : x + width]

    def read(self, y: int, x: int, height: int, width: int) -> np.ndarray:
        return self.probabilities[:, y : y + height, x : x + width]

    def on_grid(self, shape: tuple[int, int]) -> np.ndarray:
        return np.ones(shape, dtype=bool)


class Cells:
    """Stands for the grid of the section's tokens."""

    def window(self, _y: int, _x: int, height: int, width: int) -> "Cells":
        self.shape = (height, width)
        return self

    def split(self, _cells: int) -> tuple[int, int]:
        return self.shape


def shown(truth: np.ndarray, faith: float, noise: float, seed: int = 0) -> Shown:
    """A section whose classes lead by `faith` where they are right, and are wrong in a share of single cells."""
    rng = np.random.default_rng(seed)
    said = np.where(rng.random(truth.shape) < noise, rng.integers(0, 3, truth.shape), truth)
    rest = (1 - faith) / 3
    p = np.where(np.arange(3)[:, None, None] == said, faith + rest, rest).astype(np.float32)
    section = Shown(truth, p)
    cells = Cells()
    section.layers = [type("Layer", (), {"grid": cells})()]
    return section


def wide(size: int = 120) -> np.ndarray:
    truth = np.zeros((size, size), dtype=np.int64)
    truth[:, size // 2 :] = 1
    truth[size // 2 :, : size // 2] = 2
    return truth


def thin(size: int = 120) -> np.ndarray:
    """Two large areas with a strip two cells wide between them."""
    truth = wide(size)
    truth[:, size // 2 - 1 : size // 2 + 1] = 2
    truth[size // 2 :, : size // 2 - 1] = 0
    return truth


def test_noise_in_large_areas_is_smoothed():
    chosen = choose_smoothing(Given(), [shown(wide(), faith=0.25, noise=0.2)])
    assert chosen is not None
    assert chosen.weight >= 0.05
    assert chosen.macro_f1[chosen.weight] >= max(chosen.macro_f1.values()) - NEAR
    assert chosen.macro_f1[chosen.weight] > chosen.macro_f1[0.0] + 0.1


def test_a_thin_strip_that_much_smoothing_would_take_is_kept():
    section = shown(thin(), faith=0.12, noise=0.02)
    chosen = choose_smoothing(Given(), [section])
    assert chosen is not None
    assert chosen.macro_f1[chosen.weight] >= chosen.macro_f1[0.0]
    kept, before = (
        f1_score(
            section.truth.ravel(), smooth_probabilities(section.probabilities, one).argmax(axis=0).ravel(), average=None
        )
        for one in (chosen.weight, 0.0)
    )
    assert (kept >= before - 2 * LARGEST_LOSS).all()
    lost = smooth_probabilities(section.probabilities, max(WEIGHTS)).argmax(axis=0)
    assert (lost[:, 59:61] == 2).mean() < 0.5


def test_what_a_class_loses_by_chance_rules_no_strength_out_and_what_it_loses_everywhere_does():
    """Two large classes grow better; a thin one is lost in one block of sixteen, or a tenth of it in every block."""
    truth = np.tile([0] * 20 + [1] * 20 + [2] * 10, (16, 1))
    before, by_chance, everywhere = (truth.copy() for _ in range(3))
    before[:, :8], before[:, 20:28] = 1, 0
    by_chance[0, 40:], everywhere[:, 40] = 0, 0

    def counted(drawn: np.ndarray) -> list[np.ndarray]:
        return [cells_by_block(one[None], two[None] + 1, 4) for one, two in zip(truth, drawn, strict=True)]

    chosen = best_strength({0.0: counted(before), 0.1: counted(by_chance)}, [0] * 16)
    assert chosen is not None
    assert chosen.weight == 0.1
    kept = best_strength({0.0: counted(before), 0.1: counted(everywhere)}, [0] * 16)
    assert kept is not None
    assert kept.weight == 0.0
    assert kept.macro_f1[0.1] == pytest.approx(f1_score(truth.ravel(), everywhere.ravel(), average="macro"))
    assert kept.macro_f1[0.1] > kept.macro_f1[0.0]


@pytest.mark.parametrize("sections", [[0] * 6, [0, 0, 1, 1, 2, 2], list(range(6))])
@pytest.mark.parametrize("lost", [1, 3, 4, 6])
def test_a_thin_class_among_many_is_not_lost_because_its_loss_is_unproven(lost: int, sections: list[int]):
    """Eleven large classes grow better; a thin one is lost in some of six windows."""
    truth = np.tile([*np.repeat(np.arange(11), 20), 11, 11], (6, 1))
    before = truth.copy()
    before[:, :220:4] = (before[:, :220:4] + 1) % 11
    after = truth.copy()
    after[:lost, 220:] = 10

    def counted(drawn: np.ndarray) -> list[np.ndarray]:
        return [cells_by_block(one[None], two[None] + 1, 13) for one, two in zip(truth, drawn, strict=True)]

    chosen = best_strength({0.0: counted(before), 0.1: counted(after)}, sections)
    assert chosen is not None
    assert chosen.macro_f1[0.1] > chosen.macro_f1[0.0]
    assert chosen.weight == 0.0


def test_what_a_class_loses_all_over_one_of_two_sections_is_chance_and_over_half_of_one_is_not():
    """Two large classes grow better; a tenth of a third is lost in the first half of the windows."""
    truth = np.tile([0] * 20 + [1] * 20 + [2] * 10, (64, 1))
    before, after = truth.copy(), truth.copy()
    before[:, :8], before[:, 20:28] = 1, 0
    after[:32, 40] = 0
    counted = {
        strength: [cells_by_block(one[None], two[None] + 1, 4) for one, two in zip(truth, drawn, strict=True)]
        for strength, drawn in ((0.0, before), (0.1, after))
    }
    of_two, of_one = (best_strength(counted, one) for one in ([0] * 32 + [1] * 32, [0] * 64))
    assert of_two is not None
    assert of_one is not None
    assert (of_two.weight, of_one.weight) == (0.1, 0.0)


def test_without_labels_nothing_is_chosen_and_a_strip_two_cells_wide_survives_the_default():
    truth = thin()
    assert choose_smoothing(Given(), [shown(np.full_like(truth, -1), 0.5, 0.0)]) is None
    assert choose_smoothing(Given(), []) is None
    section = shown(truth, faith=0.2, noise=0.0)
    drawn = smooth_probabilities(section.probabilities, DEFAULT_WEIGHT).argmax(axis=0)
    np.testing.assert_array_equal(drawn[20:100, 59:61], 2)


def test_scores_are_those_of_scikit_learn_however_the_section_is_cut(monkeypatch: pytest.MonkeyPatch):
    section = shown(wide(), faith=0.25, noise=0.2)
    monkeypatch.setattr(smoothing, "WINDOW_CELLS", 50)
    monkeypatch.setattr(smoothing, "HALO_CELLS", 100)
    chosen = choose_smoothing(Given(), [section])
    assert chosen is not None
    for weight, score in chosen.macro_f1.items():
        drawn = smooth_probabilities(section.probabilities, weight).argmax(axis=0)
        assert score == pytest.approx(f1_score(section.truth.ravel(), drawn.ravel(), average="macro"), abs=1e-3)
