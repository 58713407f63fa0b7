"""A head learns from the sections that are trained on, and maps are scored on those held out."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score

from cytoarch.learning import training
from cytoarch.steps.report import brain_metrics, map_metrics
from cytoarch.steps.running import make
from cytoarch.steps.training import Training, training_of
from tests.cytoarch.steps.small_brain import (
    CORTEX,
    HELD_OUT,
    IDS,
    TRAIN,
    WHITE_MATTER,
    SmallBrain,
    Steps,
    labels_of,
    scan_of,
)

pytestmark = pytest.mark.xdist_group("steps")


def relabelled(small: SmallBrain, *section_ids: str) -> tuple[str, dict[str, float]]:
    """The model and scores after the labels of some sections were swapped."""
    swapped = np.choose(labels_of() // 3, [0, WHITE_MATTER, CORTEX]).astype(np.uint8)
    for one in section_ids:
        Image.fromarray(swapped).save(small.scans / f"{one}.png")
    with small.opened() as opened:
        steps = Steps(small, opened)
        steps.each(*small.ingestion())
        assert make(steps.training, opened)[1]
        facts = training_of(opened, steps.training.name)[0].facts
    return facts["model"], facts["scores"]


def test_only_sections_that_are_trained_on_are_learned_from(small: SmallBrain, monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[str] = []
    train_head = training.train_head

    def heard(card: Any, settings: Any, sections: Any, *rest: Any) -> Any:
        learned.extend(one.section_id for one in sections)
        return train_head(card, settings, sections, *rest)

    monkeypatch.setattr(training, "train_head", heard)
    with small.opened() as opened:
        steps = Steps(small, opened)
        before = training_of(opened, steps.training.name)[0].facts
    model, scores = relabelled(small, *HELD_OUT)
    assert tuple(learned) == TRAIN
    assert model == before["model"], "labels of held-out sections decide no weight"
    assert before["scores"]["held_out/macro_f1"] > 0.9
    assert scores["held_out/macro_f1"] < 0.1


def test_labels_of_a_section_that_is_trained_on_decide_the_head(small: SmallBrain) -> None:
    with small.opened() as opened:
        before = training_of(opened, Steps(small, opened).training.name)[0].facts["model"]
    assert relabelled(small, TRAIN[0])[0] != before


@pytest.mark.parametrize("saved", ["again.png", "again.tif", "s2-copy.tif"])
def test_the_same_pixels_are_never_learned_from_and_tested_on(small: SmallBrain, saved: str) -> None:
    """A scan that was saved once more, in another format or compression, or whose row states more than the other."""
    scans = small.scans
    if saved == "again.png":
        Image.fromarray(scan_of("s2")).save(scans / saved)
    elif saved == "again.tif":
        tifffile.imwrite(scans / saved, scan_of("s2"), tile=(32, 32), compression="zlib", metadata=None)
    else:
        (scans / saved).write_bytes((scans / "s2.tif").read_bytes())
    sections = tuple(
        one.model_copy(update={"path": saved, "plane_index": 0, "pixel_size_source": "manifest"})
        if one.section_id == "s5"
        else one
        for one in small.sections
    )
    changed = replace(small, sections=sections)
    with changed.opened() as opened:
        steps = Steps(changed, opened)
        steps.make_all()
        facts = training_of(opened, steps.training.name)[0].facts
        report = opened.catalogue.folder / "report" / "index.html"
    assert {"s2", "s5"} <= set(facts["held_out"])
    assert not {"s2", "s5"} & set(facts["train"])
    assert "Sections s2, s5 show the very same pixels" in report.read_text()


# -- scores of maps ----------------------------------------------------------------------------------------------------


def confusion(truth: list[int], found: list[int]) -> list[list[int]]:
    """By row the known class, by column the one on the map; 0 is outside tissue."""
    table = np.zeros((3, 3), dtype=int)
    np.add.at(table, (truth, found), 1)
    return table.tolist()


TRUTH = [1, 1, 1, 1, 1, 2, 2, 2, 2, 2]
FOUND = [1, 1, 1, 2, 0, 2, 2, 0, 0, 1]


def test_maps_are_scored_on_held_out_sections_only_and_outside_is_no_class() -> None:
    known = Training({"held_out": {"sections": ["s2", "s4"]}}, {})
    mapped = {
        "s1": {"confusion": confusion(TRUTH, [3 - one for one in TRUTH])},
        "s2": {"confusion": confusion(TRUTH[:5], FOUND[:5])},
        "s3": {"confusion": confusion(TRUTH, TRUTH)},
        "s4": {"confusion": confusion(TRUTH[5:], FOUND[5:])},
    }
    scores = map_metrics(known, mapped)
    assert scores["map/macro_f1"] == pytest.approx(f1_score(TRUTH, FOUND, labels=[1, 2], average="macro"))
    assert scores["map/top1"] == pytest.approx(accuracy_score(TRUTH, FOUND))


@pytest.mark.parametrize("held_out", [{}, {"held_out": {"sections": ["s9"]}}])
def test_a_brain_of_which_nothing_is_held_out_has_no_score_of_its_map(held_out: dict[str, Any]) -> None:
    assert map_metrics(Training(held_out, {}), {"s1": {"confusion": confusion(TRUTH, FOUND)}}) == {}


def test_the_figures_of_a_brain_are_those_of_its_held_out_sections(mapped: SmallBrain) -> None:
    with mapped.opened() as opened:
        steps = Steps(mapped, opened)
        metrics = brain_metrics(opened, steps.shown, steps.training.name)
        counts = {
            one: np.array(opened.catalogue.require(steps.parcellation[1].product(one), "").facts["confusion"])
            for one in IDS
        }

    def hits(section_ids: tuple[str, ...]) -> float:
        table = sum(counts[one] for one in section_ids)
        return float(np.trace(table) / table.sum())

    assert hits(HELD_OUT) != hits(IDS), "else this could not tell"
    assert metrics["map/top1"] == pytest.approx(hits(HELD_OUT))
