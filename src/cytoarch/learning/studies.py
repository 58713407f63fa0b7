"""One model of several brains: how good it is on brains, and parts of brains, that it has not seen."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.learning.cards import HeadCard
from cytoarch.learning.datasets import LabelledSection
from cytoarch.learning.evaluation import Score, score_head
from cytoarch.learning.heads import Head
from cytoarch.learning.ordering import Trial
from cytoarch.learning.splits import Split
from cytoarch.learning.training import HeadSettings, train_head
from cytoarch.measures.neighbours import adjacent, errors_by_hops, hops, together, within_one
from cytoarch.progress import Progress
from cytoarch.sampling import OnDemand

Role = Literal["seen", "transfer", "unseen"]
"""seen: its labels are learned from; transfer: only its unlabelled embeddings were at hand; unseen: kept back."""
ALL, OTHERS = "all brains", "the other brains"
"""Models: of all brains that are learned from; of all but the one that is scored."""


@dataclass(frozen=True)
class StudyBrain:
    """A brain of a study."""

    brain_id: str
    role: Role
    sections: Sequence[LabelledSection]
    split: Split

    def chosen(self, section_ids: Sequence[str]) -> Sequence[LabelledSection]:
        """Some of its sections, opened when they are asked for."""
        wanted = frozenset(section_ids)
        places = [at for at in range(len(self.sections)) if self.sections[at].section_id in wanted]
        return OnDemand(len(places), lambda index: self.sections[places[index]])


class StudyRow(NamedTuple):
    """A score of one model on one part of one brain."""

    model: str
    """`all brains`, `the other brains`, or the brain it learned from."""
    brain_id: str
    part: str
    """fifth, block (held-out sections of a brain that was learned from), or the whole: left out, transfer, unseen."""
    seed: int
    score: Score


class _Fit(NamedTuple):
    """A model to fit, and what it is scored on: (brain, part, sections)."""

    model: str
    learned: Sequence[LabelledSection]
    groups: Sequence[int]
    """How many of those learned from are of each brain, one after the other."""
    scored: Sequence[tuple[str, str, Sequence[LabelledSection]]]
    deciding: Sequence[LabelledSection] = ()
    """What says how maps are drawn: sections that it has not seen, of brains that are learned from."""


def joined(parts: Sequence[Sequence[LabelledSection]]) -> Sequence[LabelledSection]:
    """Sections of several brains one after the other, opened when they are asked for."""
    places = [(part, at) for part in parts for at in range(len(part))]
    return OnDemand(len(places), lambda index: places[index][0][places[index][1]])


def sizes(parts: Sequence[Sequence[LabelledSection]]) -> tuple[int, ...]:
    """How many sections each part has."""
    return tuple(map(len, parts))


def run_study(
    card: HeadCard,
    settings: HeadSettings,
    brains: Sequence[StudyBrain],
    seeds: Sequence[int],
    on_progress: Progress | None = None,
) -> tuple[Head, dict[str, Any], list[StudyRow]]:
    """Score models of all brains, of all but one, and of each brain, then fit one to all labels of those to learn from.

    Whether classes follow each other on the maps of the model is told by the brains left out (of one brain alone, by
    its parts held out). Returns the head, facts about its training, and all scores. Raises as `train_head`.
    """
    seen = [one for one in brains if one.role == "seen"]
    fits = list(_fits(brains, seen))
    rows: list[StudyRow] = []
    trial: Trial | None = None
    steps = len(seeds) * len(fits) + 1
    for index, (seed, fit) in enumerate((seed, fit) for seed in seeds for fit in fits):
        head, _ = train_head(card, settings.model_copy(update={"seed": seed}), fit.learned, groups=fit.groups)
        rows += [
            StudyRow(fit.model, brain_id, part, seed, score_head(head, sections))
            for brain_id, part, sections in fit.scored
            if len(sections)
        ]
        if len(fit.deciding) and seed == seeds[0]:
            own = Trial.of(head, fit.deciding)
            trial = own if trial is None else trial.joined(own)
        if on_progress is not None:
            on_progress(index + 1, steps)
    ordering = trial.chosen() if trial else None
    card = card.model_copy(update={"order": ordering.order if ordering else "none"})
    whole = [one.sections for one in seen]
    head, facts = train_head(card, settings, joined(whole), groups=sizes(whole))
    facts["ordering"] = ordering.facts() if ordering else None
    if on_progress is not None:
        on_progress(steps, steps)
    return head, facts, rows


def _fits(brains: Sequence[StudyBrain], seen: Sequence[StudyBrain]) -> Iterator[_Fit]:
    """All models of a study with what each is scored on; none has learned from a section that it is scored on."""
    others = [(one.brain_id, one.role, one.sections) for one in brains if one.role != "seen"]
    parts = {one.brain_id: _parts(one) for one in seen}
    train = {one.brain_id: one.chosen(one.split.train) for one in seen}
    own = [row for rows in parts.values() for row in rows]
    deciding = joined([sections for _, _, sections in own]) if len(seen) == 1 else ()
    every = list(train.values())
    yield _Fit(ALL, joined(every), sizes(every), [*own, *others], deciding)
    for one in seen if len(seen) > 1 else ():
        rest = [other.sections for other in seen if other is not one]
        yield _Fit(OTHERS, joined(rest), sizes(rest), [(one.brain_id, "left out", one.sections)], one.sections)
    for one in seen if len(seen) > 1 else ():
        whole = [(other.brain_id, "left out", other.sections) for other in seen if other is not one]
        own_train = train[one.brain_id]
        yield _Fit(one.brain_id, own_train, sizes([own_train]), [*parts[one.brain_id], *whole, *others])


def _parts(brain: StudyBrain) -> list[tuple[str, str, Sequence[LabelledSection]]]:
    found = (("fifth", brain.split.fifth), ("block", brain.split.block))
    return [(brain.brain_id, part, brain.chosen(ids)) for part, ids in found if ids]


SUMMED = ("macro_f1", "top1", "iou", "hd95_um", "assd_um", "within_one_hop")
"""Figures whose mean and deviation over seeds are told of every model on every part of every brain."""


class Summed(NamedTuple):
    """Scores of one model on one part over seeds."""

    model: str
    brain_id: str
    part: str
    sections: int
    seeds: int
    figures: Mapping[str, float]
    """By name, those of `SUMMED`; with `_sd` after it the deviation."""
    hops: Mapping[int | None, int]
    """Wrong cells of all seeds by how many borders they are off."""


def summed(rows: Sequence[StudyRow]) -> list[Summed]:
    """Mean and standard deviation over seeds of every model on every part of every brain."""
    if not rows:  # nothing was held out, as of one brain of one or two sections
        return []
    distances = borders(rows)
    groups: dict[tuple[str, str, str], list[Score]] = {}
    for row in rows:
        groups.setdefault((row.model, row.brain_id, row.part), []).append(row.score)
    result = []
    for key, scores in groups.items():
        errors = [errors_by_hops(one.confusion, distances) for one in scores]
        found = [
            one.metrics() | {"within_one_hop": within_one(wrong)} for one, wrong in zip(scores, errors, strict=True)
        ]
        values = {name: [one[name] for one in found] for name in SUMMED}
        figures = {name: mean(given) for name, given in values.items()}
        figures |= {f"{name}_sd": deviation(given) for name, given in values.items()}
        total = errors_by_hops(np.sum([one.confusion for one in scores], axis=0), distances)
        result.append(Summed(*key, len(scores[0].sections), len(scores), figures, total))
    return result


def borders(rows: Sequence[StudyRow]) -> NDArray[np.float64]:
    """Borders to cross between every two classes (k, k), by which are neighbours in the labels that were scored on."""
    parts = {(row.brain_id, row.part): row.score for row in rows}
    found = adjacent(together(one.touches for one in parts.values()))
    return hops(found, len(next(iter(parts.values())).confusion))


def headline_rows(rows: Sequence[StudyRow]) -> tuple[str, list[StudyRow]]:
    """The hardest honest scores of the model of all brains, and what they are called.

    Brains left out, where there are several; else the held-out block; else every fifth section.
    """
    left_out = [one for one in rows if one.model == OTHERS]
    if left_out:
        return "brains", left_out
    for part in ("block", "fifth"):
        found = [one for one in rows if one.model == ALL and one.part == part]
        if found:
            return part, found
    return "", []


HEADLINES = ("macro_f1", "top1", "top3", "iou", "hd95_um", "assd_um")


def by_seed(rows: Sequence[StudyRow]) -> dict[int, dict[str, float]]:
    """The mean of each figure over brains, by seed."""
    found: dict[int, list[dict[str, float]]] = {}
    for row in rows:
        found.setdefault(row.seed, []).append(row.score.metrics())
    return {
        seed: {name: mean([one[name] for one in each]) for name in HEADLINES} for seed, each in sorted(found.items())
    }


def mean(values: Sequence[float]) -> float:
    """The mean of the figures that are finite; nan if none is."""
    known = [one for one in values if np.isfinite(one)]
    return float(np.mean(known)) if known else float("nan")


def deviation(values: Sequence[float]) -> float:
    """The sample deviation of the figures that are finite; 0 of fewer than two."""
    known = [one for one in values if np.isfinite(one)]
    return float(np.std(known, ddof=1)) if len(known) > 1 else 0.0
