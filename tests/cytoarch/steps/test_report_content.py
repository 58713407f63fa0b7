"""What the report says: its figures, notices, scores, legends and where all of it comes from."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from cytoarch.brains import Brain, LabelClass, Section
from cytoarch.embeddings import EmbedSettings
from cytoarch.learning.cards import HeadCard
from cytoarch.measures.class_boundaries import ClassBoundaries
from cytoarch.palette import class_colours, distinct_colours
from cytoarch.reporting.page import SectionEntry
from cytoarch.steps import report_head, report_scores
from cytoarch.steps.agreement import MapScore
from cytoarch.steps.brain_metrics import brain_metrics
from cytoarch.steps.pictures import PicturesStep
from cytoarch.steps.report import RegisteredModel, ReportStep
from cytoarch.steps.running import make
from cytoarch.steps.sources import open_head
from cytoarch.steps.training import Training, training_of
from tests.cytoarch.reporting.html_elements import parsed
from tests.cytoarch.steps.small_brain import IDS, SmallBrain, Steps

pytestmark = pytest.mark.xdist_group("steps")


def brain_of(*rows: dict[str, Any]) -> Brain:
    sections = (
        {"brain_id": "B1", "section_id": f"s{number}", "section_number": number, "path": "a.tif", **row}
        for number, row in enumerate(rows)
    )
    return Brain(brain_id="B1", sections=tuple(Section.model_validate(one) for one in sections))


def notices(
    *rows: dict[str, Any],
    labelled: tuple[str, ...] = ("s0",),
    upsampled: tuple[str, ...] = (),
    scans: dict[str, str] | None = None,
) -> list[str]:
    brain = brain_of(*rows)
    ids = [one.section_id for one in brain.sections]
    embedded = {one: {"upsampled": one in upsampled} for one in ids}
    labels = dict.fromkeys(labelled, "")
    pixels = {one: (scans or {}).get(one, one) for one in ids}
    return report_head.notices(brain, embedded, labels, pixels)


# -- notices -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ("automatic", "made automatically (by registration to an atlas), not drawn by an expert"),
        ("molecular", "derived from gene expression, not from cytoarchitecture"),
        ("phantom", "those of a phantom"),
        ("unstated", "of unstated origin (column labels_origin of the manifest)"),
    ],
)
def test_who_drew_the_labels_stands_beside_the_scores(origin: str, said: str) -> None:
    (notice,) = notices({"labels_origin": origin}, {"labels_origin": "expert"}, labelled=("s0", "s1"))
    assert notice == f"The labels are {said}: scores say how well the map agrees with them, no more."


def test_origins_are_those_of_the_labels_that_are_there_each_said_once() -> None:
    rows = [{"labels_origin": one} for one in ("phantom", "automatic", "phantom", "molecular")]
    said = notices(*rows, labelled=("s0", "s1", "s2"))
    assert [next(word for word in ("phantom", "automatically") if word in one) for one in said] == [
        "automatically",
        "phantom",
    ]
    assert notices({"labels_origin": "expert"}) == []


@pytest.mark.parametrize(("count", "named", "more"), [(1, 1, ""), (8, 8, ""), (9, 8, ", ...")])
def test_sections_that_are_coarser_than_the_encoder_sees_are_named(count: int, named: int, more: str) -> None:
    rows = [{"labels_origin": "expert"}] * 10
    (notice,) = notices(*rows, upsampled=tuple(f"s{number}" for number in range(count)))
    ids = ", ".join(f"s{number}" for number in range(named))
    assert notice == (
        f"{count} section(s) are coarser than the pixel size the encoder sees and were upsampled for it: {ids}{more}"
    )


def test_sections_that_show_the_same_scan_are_named_together() -> None:
    rows = [{"labels_origin": "expert"}] * 5
    said = notices(*rows, scans={"s0": "one", "s3": "one", "s1": "two", "s2": "two"})
    ends = " show the very same pixels: check the manifest. No score compares them."
    assert said == [f"Sections s0, s3{ends}", f"Sections s1, s2{ends}"]


def test_a_brain_without_labels_is_told_what_it_has() -> None:
    said = notices({"labels_origin": "phantom"}, labelled=())
    assert said == ["No section has labels: nothing was trained on this brain."]


# -- figures -----------------------------------------------------------------------------------------------------------


def test_the_subtitle_is_what_the_manifest_states_of_the_sections() -> None:
    rows = ({"species": "human", "stain": "silver"}, {"species": "human", "stain": "nissl", "plane": "coronal"})
    assert report_head.subtitle(brain_of(*rows)) == "human, nissl/silver, coronal"
    assert report_head.subtitle(brain_of({}, {})) == ""


def test_the_figures_at_the_top_are_counted_from_the_sections() -> None:
    brain = brain_of({}, {}, {}, {"exclude": "yes", "reason": "torn"})
    statuses = ("kept", "kept", "failed", "excluded")
    entries = [SectionEntry(one.section_id, 0, status) for one, status in zip(brain.sections, statuses, strict=True)]
    drawn: Any = {"s0": {"area_mm2": 1.23}, "s1": {"area_mm2": 2.5}}
    figures = report_head.headline(brain, entries, drawn, {}, "")
    assert figures == [("sections mapped", "2 of 4"), ("sections failed", "1"), ("mm2 of tissue", "3.7")]
    metrics = {
        "headline/macro_f1": 0.12345,
        "map/macro_f1": 0.5,
        "clusters/purity_labels": 0.75,
        "clusters/purity_sections": 0.2,
        "held_out/top1": 0.9,
    }
    assert report_head.headline(brain, entries, drawn, metrics, "block")[3:] == [
        ("macro-F1, held-out block", "0.123"),
        ("macro-F1 of the map, sections not learned from", "0.500"),
        ("cluster purity against labels", "0.750"),
        ("cluster purity against sections", "0.200"),
    ]


CLASSES = [
    {"name": "cortex", "support": 9, "precision": 0.5, "recall": None, "f1": 0.25, "hd95_um": 1234.4},
    {"name": "white matter", "support": 0, "precision": None, "recall": None, "f1": None, "hd95_um": None},
]
TRUTH, FOUND = [1, 1, 1, 2, 2, 2, 2, 2], [1, 0, 2, 2, 2, 1, 2, 2]


def training() -> Training:
    scores = {"macro_f1": 0.5, "top1": 0.75, "top3": 1.0}
    parts = {
        "fifth": {"sections": ["s1", "s6"], **scores},
        "block": {"sections": ["s2"], **scores, "macro_f1": None},
        "held_out": {"sections": ["s1", "s2", "s6"], **scores, "classes": CLASSES},
    }
    return Training(parts, {})


def mapped_score(times: int = 1) -> MapScore:
    table = np.zeros((3, 3), dtype=int)
    np.add.at(table, (TRUTH, FOUND), times)
    return MapScore(("s1", "s2"), table, {})


def test_the_table_of_scores_has_a_row_for_every_part_and_one_for_maps_seen_and_unseen() -> None:
    rows = report_scores.score_rows(training(), mapped_score(), mapped_score(3))
    macro = f1_score(TRUTH, FOUND, labels=[1, 2], average="macro")
    of_maps = {
        "sections": 2, "macro_f1": f"{macro:.3f}", "top1": f"{accuracy_score(TRUTH, FOUND):.3f}", "top3": "-",
    }  # fmt: skip
    assert rows == [
        {"name": "every fifth section", "sections": 2, "macro_f1": "0.500", "top1": "0.750", "top3": "1.000"},
        {"name": "held-out block", "sections": 1, "macro_f1": "-", "top1": "0.750", "top3": "1.000"},
        {"name": "both, held out", "sections": 3, "macro_f1": "0.500", "top1": "0.750", "top3": "1.000"},
        {"name": "the map, sections not learned from", **of_maps},
        {"name": "the map, sections it learned from: no test", **of_maps},
    ]


def test_the_row_of_unseen_sections_says_what_was_chosen_on_them() -> None:
    (row,) = report_scores.score_rows(None, mapped_score(), None, is_chosen_on=True)
    assert row["name"] == (
        "the map, sections not learned from (but how strongly it is smoothed across sections was chosen on them)"
    )


def test_classes_have_a_row_from_held_out_embeddings_or_else_from_the_map(mapped: SmallBrain) -> None:
    with mapped.opened() as opened:
        card = open_head(opened.store, Steps(mapped, opened).model).card
    held_out = training().metrics["held_out"]
    assert report_scores.class_rows(card, held_out, mapped_score()) == [
        {"name": "cortex", "support": "9", "precision": "0.500", "recall": "-", "f1": "0.250", "hd95_um": "1,234"},
        {"name": "white matter", "support": "0", "precision": "-", "recall": "-", "f1": "-", "hd95_um": "-"},
    ]
    far = {0: ClassBoundaries({0: 8, 150: 2}, 40.0, (19.0,), (4.0,))}
    of_map = report_scores.class_rows(card, None, mapped_score()._replace(boundaries=far))
    assert [(row["hd95_um"], row["assd_um"], row["missing"]) for row in of_map] == [("19", "4", "0"), ("-", "-", "0")]
    values = f1_score(TRUTH, FOUND, labels=[1, 2], average=None)
    assert [(row["name"], row["f1"]) for row in of_map] == [
        ("cortex", f"{values[0]:.3f}"),
        ("white matter", f"{values[1]:.3f}"),
    ]


def test_classes_of_the_table_that_are_neither_labelled_nor_mapped_are_left_out_and_counted() -> None:
    rows = [
        {"name": "there", "support": "9", "f1": "-"},
        {"name": "found", "support": "0", "f1": "0.000"},
        {"name": "nowhere", "support": "0", "f1": "-"},
    ]
    assert [row["name"] for row in report_scores.there_or_found(rows)] == ["there", "found"]
    assert report_scores.said_of_nowhere(140)[0].startswith("140 classes of the label table are neither")


def test_without_a_training_or_a_map_there_are_no_such_rows() -> None:
    assert report_scores.score_rows(None, None, None) == []
    assert report_scores.class_rows(None, None, mapped_score()) == []
    assert len(report_scores.score_rows(training(), None, None)) == 3, "no map, no row for it"
    nothing = MapScore(("s1",), np.zeros((3, 3), dtype=int), {})
    assert report_scores.score_rows(None, nothing, None) == [], "no labelled cell of a known class, no score"


def test_it_is_said_what_a_model_was_trained_on_and_whether_it_has_seen_the_brain(mapped: SmallBrain) -> None:
    with mapped.opened() as opened:
        card = open_head(opened.store, Steps(mapped, opened).model).card
    assert report_scores.origin(card, "B1", "M") == ("Mapped by M, trained on 6 sections of this brain.")
    assert (
        report_scores.origin(card, "B2", "M") == "Mapped by M, trained on brain B1 (6 sections), never seen this brain."
    )
    silent = card.model_copy(update={"learned_from": {}})
    assert report_scores.origin(silent, "B1", "M") == "Mapped by M, which does not say what it was trained on."


def test_a_legend_of_clusters_needs_no_head() -> None:
    legends = report_head.legends(None, None, 3)
    assert {name: [(one.name, one.colour) for one in entries] for name, entries in legends.items()} == {
        "Clusters": [(f"{number}", rgb) for number, rgb in enumerate(distinct_colours(3), start=1)]
    }
    assert report_head.legends(None, None, 0) == {}


def test_a_legend_names_the_classes_that_pictures_show_in_the_colours_of_all_of_them() -> None:
    classes = tuple(LabelClass(name=f"c{one}", ids=(one + 1,)) for one in range(300))
    card = HeadCard(
        kind="probe", target="areas", classes=classes, dims=(1,), cells_per_token=1, embedding=EmbedSettings(),
        encoder_digest="0", token_px=16, pixel_size_um=1.0,
    )  # fmt: skip
    (shown,) = report_head.legends(card, None, 0, [{"classes": [7, 3]}, {}, {"classes": [7, 299]}]).values()
    assert [one.name for one in shown] == ["c3", "c7", "c299"]
    every = class_colours(card.classes)
    assert [one.colour for one in shown] == [every[3], every[7], every[299]]


# -- a whole brain -----------------------------------------------------------------------------------------------------


def test_a_brain_is_compared_by_its_sections_tissue_scores_and_purities(mapped: SmallBrain) -> None:
    with mapped.opened() as opened:
        steps = Steps(mapped, opened)
        metrics = brain_metrics(opened, steps.shown, steps.training.name)
        facts = [opened.catalogue.require(steps.clusters.product(one), "").facts for one in IDS]
        tissue = [one.facts["area_mm2"] for one in opened.catalogue.records() if one.step == "tissue"]
        scores = training_of(opened, steps.training.name)[0].facts["scores"]
        opened.failed["s5"] = "it is gone"
        without = brain_metrics(opened, replace(steps.shown, clusters=None, parcellation=None), None)
    sizes, labels = (np.sum([one[key] for one in facts], axis=0) for key in ("sizes", "by_label"))
    by_section = np.array([one["sizes"] for one in facts]).T
    filled = sizes > 0
    assert len(tissue) == len(IDS)
    assert 0 <= metrics.pop("familiarity/outside99") <= metrics.pop("familiarity/outside95") < 0.5
    assert metrics == {
        "sections/mapped": 6,
        "sections/failed": 0,
        "sections/excluded": 0,
        "tissue/area_mm2": pytest.approx(sum(tissue)),
        "clusters/purity_sections": pytest.approx((by_section.max(axis=1) / sizes)[filled].mean()),
        "clusters/purity_labels": pytest.approx(np.mean([row.max() / row.sum() for row in labels if row.sum()])),
        **scores,
    }
    assert without == {
        "sections/mapped": 5,
        "sections/failed": 1,
        "sections/excluded": 0,
        "tissue/area_mm2": pytest.approx(sum(tissue) * 5 / 6, rel=0.1),
    }


def test_the_page_says_what_failed_and_where_everything_comes_from(small: SmallBrain) -> None:
    torn = small.sections[5].model_copy(update={"exclude": True, "reason": "torn in half"})
    other = replace(small, sections=(*small.sections[:5], torn))
    with other.opened() as opened:
        steps = Steps(small, opened)
        opened.failed["s1"] = "it cannot be read"
        model = RegisteredModel("areas-probe-B1", 7, True, "run-of-it", "first of its name")
        step = ReportStep.of(steps.embeddings.name, steps.shown, steps.training.name, model)
        record, made = make(step, opened)
        page = (opened.catalogue.path(step.product()) / "index.html").read_bytes()
        encoder = steps.embeddings.encoder.encoder.digest
        head = open_head(opened.store, steps.model)
        drawn = opened.catalogue.require(PicturesStep.of(steps.shown).product("s0"), "").facts
        scan = opened.catalogue.require(small.ingestion()[0].product("s0"), "").inputs["scan"]
        labels = opened.catalogue.require(small.ingestion()[1].product("s0"), "").inputs["labels"]
    words = [one.strip() for one in parsed(page).text if one.strip()]
    assert made
    assert record.facts["shown"]["model_digest"] == steps.model
    assert any(
        "Mapped by areas-probe-B1 version 7, champion, trained on 6 sections of this brain." in one for one in words
    )
    table = words[words.index("Where this comes from") + 1 :]
    assert dict(zip(table[::2], table[1::2], strict=True)) == {
        "brain": "B1",
        "manifest and label table": opened.brain.digest,
        "embeddings": steps.embeddings.name,
        "encoder digest": encoder,
        "model version": "areas-probe-B1 version 7, champion",
        "MLflow run of the training": "run-of-it",
        "model digest": steps.model,
    }
    kept = words[words.index("Kept and dropped") + 1 : words.index("Where this comes from")]
    at = {one: kept[kept.index(one) + 1 : kept.index(one) + 4] for one in ("s0", "s1", "s5")}
    assert at["s0"][:2] == ["0", "kept"]
    assert at["s1"] == ["1", "failed", "it cannot be read"]
    assert at["s5"] == ["5", "excluded", "torn in half"]
    shown = words[words.index("Sections") :]
    for text in (drawn["details"]["tissue"], "16 um (manifest)", "128 x 96 px", scan[:12], labels[:12]):
        assert any(text in one for one in shown), text
    assert all(f'title="{one}"'.encode() in page for one in (scan, labels))
    assert [one.name for one in head.card.classes] == ["cortex", "white matter"]
    assert "4 of 6" in words


def test_the_order_of_classes_is_told_in_words() -> None:
    tried = {"order": "bands", "macro_f1": {"none": 0.4123, "bands": 0.4567}}
    (bands,) = report_scores.said_of_order([{"order": "bands"}] * 2, tried)
    assert bands == (
        "Classes are drawn as bands that lie one below the other, in the order of the label table (--smooth.order "
        "bands). On held-out sections cells on their own had macro-F1 0.412, ordered bands 0.457; bands are drawn "
        "where they are better by 0.01, unless --smooth.order says otherwise."
    )
    (alone,) = report_scores.said_of_order([{"order": "none"}], {"macro_f1": {"none": 0.5, "bands": 0.4}})
    assert alone.startswith(
        "Every cell is drawn on its own. On held-out sections cells on their own had macro-F1 0.500"
    )
    (mixed,) = report_scores.said_of_order([{"order": "depth"}, {"order": "none"}, {}], None)
    assert mixed.endswith("in the order of the label table (in 1 of 3 sections) (--smooth.order depth).")
    assert report_scores.said_of_order([{}, {"order": "none"}], None) == [], "nothing was tried and nothing is ordered"
