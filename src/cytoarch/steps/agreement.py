"""How well maps agree with labels: counted section by section, whenever the labels come."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.brains import LabelClass, Section
from cytoarch.digests import canonical_json
from cytoarch.images.views import StoredImage
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.evaluation import map_figures
from cytoarch.learning.label_tables import named_alike
from cytoarch.measures.class_boundaries import ClassBoundaries, joined_boundaries
from cytoarch.measures.overlap import accuracy, class_scores, map_macro_f1
from cytoarch.parcellation.smoothing import score_label_map
from cytoarch.steps.parcellations import Parcellation, ParcellationStep
from cytoarch.steps.sections import LABELS
from cytoarch.steps.sources import HeadSource, Table
from cytoarch.steps.step import Facts, Inputs, Step, Stored
from cytoarch.store.staging import Staging

COUNTS_FILE = "agreement.json"
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class AgreementStep(Step[Path]):
    """The label map of a section counted against its labels; classes are the same where they have the same name."""

    step: ClassVar[str] = "agreement"
    version: ClassVar[int] = 2
    verb: ClassVar[str] = "score"

    parcellation: Stored[Parcellation]
    head: HeadSource
    labels: Stored[StoredImage] = LABELS
    table: Table = Table()

    @classmethod
    def of(cls, mapped: ParcellationStep) -> "AgreementStep":
        """The agreement of what a head has mapped."""
        return cls(mapped.stored, mapped.head)

    @property
    def name(self) -> str:
        """That of the map."""
        return self.parcellation.name

    def applies(self, section: Section) -> bool:
        """Only where the manifest names a label image."""
        return section.labels is not None

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Count; the facts hold the confusion (k + 1, k + 1), outside tissue first, and cells of unknown classes.

        And by class how far its boundaries lie apart.
        """
        card, table = inputs[self.head].card, inputs[self.table]
        known, strange = named_alike(card.classes, table, by_group=card.target.endswith("-groups"))
        drawn, labels = inputs[self.parcellation].labels, inputs[self.labels].levels[0]
        counts, pair = score_label_map(drawn, labels, card.classes, (*known, *strange))
        size = len(card.classes) + 1
        unknown = {one.name: int(row.sum()) for one, row in zip(strange, counts[size:], strict=True) if row.any()}
        far = {str(one): found.facts() for one, found in pair.boundaries(drawn.pixel_size_um).items()}
        facts = {"confusion": counts[:size].tolist(), "unknown": unknown, "boundaries": far}
        staging.write(COUNTS_FILE, canonical_json(facts).encode())
        return facts

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """The file of the counts."""
        return folder / COUNTS_FILE


class MapScore(NamedTuple):
    """How well the maps of some sections agree with their labels."""

    sections: tuple[str, ...]
    confusion: NDArray[np.int64]
    """(k + 1, k + 1), outside tissue first."""
    unknown: Mapping[str, int]
    """Labelled cells of classes that the model does not know, by their names."""
    dice: tuple[Float64, ...] = ()
    """(k,) of every section on its own."""
    boundaries: Mapping[int, ClassBoundaries] = {}
    """By class that is in any section."""

    @classmethod
    def of(cls, facts: Mapping[str, Facts], sections: Iterable[str]) -> "MapScore | None":
        """The sum over those of the sections that were counted; None where there are none."""
        chosen = tuple(one for one in sections if one in facts)
        if not chosen:
            return None
        unknown: dict[str, int] = {}
        for one in chosen:
            for name, count in facts[one]["unknown"].items():
                unknown[name] = unknown.get(name, 0) + count
        counts = [np.array(facts[one]["confusion"], dtype=np.int64) for one in chosen]
        far = [
            {int(place): ClassBoundaries.from_facts(found) for place, found in facts[one].get("boundaries", {}).items()}
            for one in chosen
        ]  # records of earlier versions hold none
        dice = tuple(class_scores(one).f1[1:] for one in counts if one.sum())
        return cls(chosen, np.sum(counts, axis=0), unknown, dice, joined_boundaries(far))

    def metrics(self, prefix: str) -> dict[str, float]:
        """Its figures by name; none where no labelled cell is of a class that the model knows."""
        if not self.confusion.sum():
            return {}
        figures = {
            "macro_f1": map_macro_f1(self.confusion),
            "top1": accuracy(self.confusion),
            **map_figures(class_scores(self.confusion).iou[1:], self.dice, self.boundaries),
        }
        return {f"{prefix}/{name}": value for name, value in figures.items() if np.isfinite(value)}

    def never_predicted(self, classes: Sequence[LabelClass]) -> list[str]:
        """Classes that have labels but no cell on the maps."""
        counts = self.confusion[1:, 1:]
        return [one.name for i, one in enumerate(classes) if counts[i].sum() and not self.confusion[:, i + 1].sum()]


def parted(card: HeadCard, brain_id: str, facts: Mapping[str, Facts]) -> tuple[MapScore | None, MapScore | None]:
    """The scores of the maps of sections that a head has not learned from, and of those that it has.

    Of a head whose card does not say what it learned from, all may be the latter.
    """
    learned = card.learned(brain_id) if card.brains else facts.keys()
    unseen = [one for one in facts if one not in learned]
    return MapScore.of(facts, unseen), MapScore.of(facts, [one for one in facts if one in learned])
