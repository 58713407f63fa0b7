"""Models of several brains are scored on what they have not seen, and one is fitted to all."""

import math
from dataclasses import replace

import numpy as np
import pytest

from cytoarch.brains import Label, LabelTable
from cytoarch.learning import studies
from cytoarch.learning.splits import split_sections
from cytoarch.learning.studies import ALL, OTHERS, StudyBrain, borders, by_seed, headline_rows, run_study, summed
from cytoarch.learning.training import ProbeSettings

IDS = tuple(f"s{i}" for i in range(6))
TABLE = LabelTable(labels=(Label(id=3, name="sky"), Label(id=7, name="sea"), Label(id=20, name="land")))


def brains(section) -> list[StudyBrain]:
    """Two brains to learn from, one kept back; in the second, labels have other ids."""
    made = []
    for number, (name, role) in enumerate((("A", "seen"), ("B", "seen"), ("C", "unseen"))):
        sections = [replace(section(one, 10 * number + i), table=TABLE) for i, one in enumerate(IDS)]
        made.append(StudyBrain(name, role, sections, split_sections(IDS)))
    return made


def test_no_model_is_scored_on_a_section_that_it_learned_from(section, card, monkeypatch) -> None:
    learned: list[set[int]] = []
    train, score = studies.train_head, studies.score_head

    def training(card, settings, sections, *rest, groups):
        learned.append({id(one) for one in sections})
        of_brain = {id(one): brain.brain_id for brain in given for one in brain.sections}
        names = [of_brain[id(one)] for one in sections]
        assert names == [name for name, size in zip(dict.fromkeys(names), groups, strict=True) for _ in range(size)]
        return train(card, settings, sections, *rest, groups=groups)

    def scoring(head, sections):
        assert not {id(one) for one in sections} & learned[-1]
        return score(head, sections)

    monkeypatch.setattr(studies, "train_head", training)
    monkeypatch.setattr(studies, "score_head", scoring)
    given = brains(section)
    _, _, rows = run_study(card("probe", (3, 4)), ProbeSettings(tokens_per_class=30), given, (0, 1))
    assert learned[-1] == {id(one) for brain in given[:2] for one in brain.sections}, "the last is of all labels"
    found = {(row.model, row.brain_id, row.part) for row in rows if row.seed == 0}
    parts = {(one, part) for one in "AB" for part in ("fifth", "block")}
    assert found == {
        *((ALL, *one) for one in parts), (ALL, "C", "unseen"),
        (OTHERS, "A", "left out"), (OTHERS, "B", "left out"),
        *((one[0], *one) for one in parts), ("A", "B", "left out"), ("B", "A", "left out"),
        ("A", "C", "unseen"), ("B", "C", "unseen"),
    }  # fmt: skip
    assert headline_rows(rows)[0] == "brains"


def test_figures_are_means_and_deviations_over_seeds(section, card) -> None:
    _, _, rows = run_study(
        card("probe", (3, 4)), ProbeSettings(tokens_per_class=10, regularisation=1.0), brains(section), (0, 1, 2)
    )
    one = next(row for row in summed(rows) if (row.model, row.brain_id) == (ALL, "C"))
    values = [row.score.metrics()["macro_f1"] for row in rows if (row.model, row.brain_id) == (ALL, "C")]
    assert (one.seeds, one.sections) == (3, 6)
    assert one.figures["macro_f1"] == pytest.approx(np.mean(values))
    assert one.figures["macro_f1_sd"] == pytest.approx(np.std(values, ddof=1))
    assert one.figures["hd95_um"] >= 0
    assert one.figures["assd_um"] > 0
    own = [row.score.confusion for row in rows if (row.model, row.brain_id) == (ALL, "C")]
    far = [[0, 1, 2], [1, 0, 1], [2, 1, 0]]  # three stripes
    assert borders(rows).tolist() == far
    wrong = {hops: sum(int(counts[np.array(far) == hops].sum()) for counts in own) for hops in (1, 2)}
    assert dict(one.hops) == {hops: count for hops, count in wrong.items() if count}
    left_out = headline_rows(rows)[1]
    each = [row.score.metrics()["macro_f1"] for row in left_out if row.seed == 1]
    assert by_seed(left_out)[1]["macro_f1"] == pytest.approx(sum(each) / 2)


def test_one_brain_alone_has_its_block_as_the_headline(section, card) -> None:
    _, _, rows = run_study(card("probe", (3, 4)), ProbeSettings(), brains(section)[:1], (0,))
    part, found = headline_rows(rows)
    assert part == "block"
    assert [row.brain_id for row in found] == ["A"]
    assert not math.isnan(found[0].score.metrics()["macro_f1"])


def test_where_nothing_was_held_out_nothing_is_summed_up() -> None:
    assert summed([]) == []
