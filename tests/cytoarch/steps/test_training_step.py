"""A head learns from the sections that are trained on, and maps are scored on those held out."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from cytoarch.brains import Label, LabelTable
from cytoarch.embeddings import EmbedSettings
from cytoarch.learning import training
from cytoarch.learning.cards import WEIGHTS_FILE, HeadCard
from cytoarch.learning.label_tables import named_alike
from cytoarch.learning.training import ProbeSettings
from cytoarch.measures.class_boundaries import ClassBoundaries
from cytoarch.steps.agreement import MapScore, parted
from cytoarch.steps.brain_metrics import brain_metrics
from cytoarch.steps.pictures import Shown
from cytoarch.steps.report import ReportStep, drawn_steps
from cytoarch.steps.running import make
from cytoarch.steps.sources import open_head
from cytoarch.steps.training import training_of
from tests.cytoarch.steps.small_brain import (
    CORTEX,
    HELD_OUT,
    IDS,
    TABLE,
    TRAIN,
    WHITE_MATTER,
    Chain,
    SmallBrain,
    Steps,
    labels_of,
    scan_of,
)

pytestmark = pytest.mark.xdist_group("steps")


def relabelled(small: SmallBrain, *section_ids: str) -> tuple[bytes, dict[str, float]]:
    """The weights and scores after the labels of some sections were swapped."""
    swapped = np.choose(labels_of() // 3, [0, WHITE_MATTER, CORTEX]).astype(np.uint8)
    for one in section_ids:
        Image.fromarray(swapped).save(small.scans / f"{one}.png")
    with small.opened() as opened:
        steps = Steps(small, opened)
        steps.each(*small.ingestion())
        assert make(steps.training, opened)[1]
        record, found = training_of(opened, steps.training.name)
    return found.head[WEIGHTS_FILE], record.facts["scores"]


def test_only_sections_that_are_trained_on_are_learned_from(small: SmallBrain, monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[str] = []
    train_head = training.train_head

    def heard(card: Any, settings: Any, sections: Any, *rest: Any) -> Any:
        learned.extend(one.section_id for one in sections)
        return train_head(card, settings, sections, *rest)

    monkeypatch.setattr(training, "train_head", heard)
    only_scored = replace(small, chain=Chain(train=ProbeSettings(refit=False)))
    with only_scored.opened() as opened:
        steps = Steps(only_scored, opened)
        make(steps.training, opened)
        record, found = training_of(opened, steps.training.name)
    learned.clear()
    weights, scores = relabelled(only_scored, *HELD_OUT)
    assert tuple(learned) == TRAIN
    assert weights == found.head[WEIGHTS_FILE], "labels of held-out sections decide no weight"
    assert record.facts["scores"]["held_out/macro_f1"] > 0.9
    assert scores["held_out/macro_f1"] < 0.1


def test_labels_of_a_section_that_is_trained_on_decide_the_head(small: SmallBrain) -> None:
    with small.opened() as opened:
        before = training_of(opened, Steps(small, opened).training.name)[1].head[WEIGHTS_FILE]
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
        steps.ingest()
        steps.embed()
        make(steps.scale, opened)
        facts = make(steps.training, opened)[0].facts
        shown = Shown(steps.embeddings.name)  # no maps: what the page says of pixels comes before them
        steps.each(*drawn_steps(shown))
        make(ReportStep.of(steps.embeddings.name, shown, steps.training.name), opened)
        report = opened.catalogue.folder / "report" / "index.html"
    assert {"s2", "s5"} <= set(facts["held_out"])
    assert not {"s2", "s5"} & set(facts["train"])
    assert "Sections s2, s5 show the very same pixels" in report.read_text()


def test_the_head_that_is_kept_has_learned_from_all_labels_and_is_scored_as_if_it_had_not(small: SmallBrain) -> None:
    with small.opened() as opened:
        steps = Steps(small, opened)
        record, training = training_of(opened, steps.training.name)
        card = open_head(opened.store, steps.model).card
        only_scored = steps.training.of(
            "B1", steps.embeddings.stored, "probe", small.chain.train.model_copy(update={"refit": False})
        )
        scored = make(only_scored, opened)[0].facts
    assert card.learned_from == {"B1": IDS}
    assert "had not seen 2 of the 6 labelled sections" in card.scores_of
    assert record.facts["scores"] == scored["scores"], "scores come from the split"
    assert record.facts["model"] != scored["model"], "the weights from all labels"
    assert record.facts["headline"] == "block"
    assert record.facts["scores"]["headline/macro_f1"] == pytest.approx(training.metrics["block"]["macro_f1"], abs=1e-6)


def test_labels_of_held_out_sections_decide_the_head_that_is_kept(small: SmallBrain) -> None:
    with small.opened() as opened:
        before = training_of(opened, Steps(small, opened).training.name)[1].head[WEIGHTS_FILE]
    assert relabelled(small, *HELD_OUT)[0] != before


# -- scores of maps ----------------------------------------------------------------------------------------------------


def confusion(truth: list[int], found: list[int]) -> list[list[int]]:
    """By row the known class, by column the one on the map; 0 is outside tissue."""
    table = np.zeros((3, 3), dtype=int)
    np.add.at(table, (truth, found), 1)
    return table.tolist()


TRUTH = [1, 1, 1, 1, 1, 2, 2, 2, 2, 2]
FOUND = [1, 1, 1, 2, 0, 2, 2, 0, 0, 1]


def card_of(learned: tuple[str, ...]) -> HeadCard:
    """A head that learned from some sections of B1."""
    classes = TABLE.classes(by_group=False)
    return HeadCard(
        kind="probe", target="areas", classes=classes, dims=(3,), cells_per_token=1, embedding=EmbedSettings(),
        encoder_digest="e0", token_px=4, pixel_size_um=4.0, learned_from={"B1": learned},
    )  # fmt: skip


def counted(truth: list[int], found: list[int], **unknown: int) -> dict[str, Any]:
    far = ClassBoundaries({0: 1, 90: 1}, 6.0 * len(truth), (6.0,), (3.0,))
    return {"confusion": confusion(truth, found), "unknown": unknown, "boundaries": {"0": far.facts()}}


MAPPED = {
    "s1": counted(TRUTH, [3 - one for one in TRUTH]),
    "s2": counted(TRUTH[:5], FOUND[:5], fringe=3),
    "s3": counted(TRUTH, TRUTH),
    "s4": counted(TRUTH[5:], FOUND[5:], fringe=4),
}


def test_maps_are_scored_on_sections_that_were_not_learned_from_and_outside_is_no_class() -> None:
    unseen, learned = parted(card_of(("s1", "s3")), "B1", MAPPED)
    assert unseen is not None
    assert learned is not None
    assert (unseen.sections, learned.sections) == (("s2", "s4"), ("s1", "s3"))
    scores = unseen.metrics("map")
    assert scores["map/macro_f1"] == pytest.approx(f1_score(TRUTH, FOUND, labels=[1, 2], average="macro"))
    assert scores["map/top1"] == pytest.approx(accuracy_score(TRUTH, FOUND))
    assert scores["map/iou"] == pytest.approx(jaccard_score(TRUTH, FOUND, labels=[1, 2], average="macro"))
    halves = [(TRUTH[:5], FOUND[:5]), (TRUTH[5:], FOUND[5:])]
    by_image = [f1_score(*half, labels=sorted({*half[0], *half[1]} - {0}), average="macro") for half in halves]
    assert scores["map/dsc_by_image"] == pytest.approx(np.mean(by_image))
    assert (scores["map/assd_um"], scores["map/hd95_by_image_um"]) == (60 / 4, 6.0)
    assert unseen.unknown == {"fringe": 7}


def test_a_section_of_the_same_name_in_another_brain_is_no_section_learned_from() -> None:
    unseen, learned = parted(card_of(("s1", "s3")), "B2", MAPPED)
    assert unseen is not None
    assert unseen.sections == ("s1", "s2", "s3", "s4")
    assert learned is None


def test_a_class_with_labels_that_no_map_shows_is_named() -> None:
    score = MapScore.of({"s1": counted(TRUTH, [1] * 10)}, ["s1"])
    assert score is not None
    assert score.never_predicted(TABLE.classes(by_group=False)) == ["white matter"]
    assert MapScore.of({}, ["s1"]) is None


def test_classes_are_compared_by_their_names_whatever_their_ids() -> None:
    other = LabelTable(labels=(Label(id=9, name="white matter"), Label(id=3, name="fringe")))
    known, strange = named_alike(card_of(()).classes, other, by_group=False)
    assert [(one.name, one.ids) for one in known] == [("cortex", ()), ("white matter", (9,))]
    assert [(one.name, one.ids) for one in strange] == [("fringe", (3,))]


def test_the_figures_of_a_brain_are_those_of_its_sections_that_were_not_learned_from(small: SmallBrain) -> None:
    only_scored = replace(small, chain=Chain(train=ProbeSettings(refit=False)))
    with only_scored.opened() as opened:
        steps = Steps(only_scored, opened)
        steps.make_all()
        metrics = brain_metrics(opened, steps.shown, steps.training.name)
        counts = {
            one: np.array(opened.catalogue.require(steps.agreement.product(one), "").facts["confusion"]) for one in IDS
        }

    def hits(section_ids: tuple[str, ...]) -> float:
        table = sum(counts[one] for one in section_ids)
        return float(np.trace(table) / table.sum())

    assert hits(HELD_OUT) != hits(IDS), "else this could not tell"
    assert metrics["map/top1"] == pytest.approx(hits(HELD_OUT))


def test_maps_of_sections_that_were_all_learned_from_have_no_score(mapped: SmallBrain) -> None:
    with mapped.opened() as opened:
        steps = Steps(mapped, opened)
        metrics = brain_metrics(opened, steps.shown, steps.training.name)
    assert not [name for name in metrics if name.startswith("map/")]
    assert metrics["familiarity/outside95"] < 0.3
