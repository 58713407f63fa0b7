"""How far the sections of a brain lie from what the model that mapped them was trained on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.depth_maps import DepthMap
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.embeddings import Scale, SectionEmbeddings
from cytoarch.errors import ModelError
from cytoarch.images.views import StoredImage
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.domain import Domain
from cytoarch.learning.heads import load_domain
from cytoarch.parcellation.familiarity import NAME, write_familiarity
from cytoarch.steps.parcellations import Parcellation, ParcellationStep, ProbabilitiesStep
from cytoarch.steps.sources import HeadSource
from cytoarch.steps.step import Facts, Inputs, Place, Source, Step, Stored
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.staging import Staging


@dataclass(frozen=True)
class DomainSource(Source[Domain]):
    """What a head in the store was trained on looks like, by the head's digest."""

    digest: str

    def digests(self, place: Place) -> Mapping[str, str]:  # noqa: ARG002 - it is a part of the head
        """That of the head."""
        return {"": self.digest}

    def open(self, place: Place) -> Domain:
        """The domain. Raises ModelError if the head does not hold one."""
        domain = load_domain(place.home.store.models.path(self.digest))
        if domain is None:
            raise ModelError(
                f"head {self.digest[:12]} does not say what it was trained on looks like; train it again to be told "
                "how far a brain lies from that"
            )
        return domain


@dataclass(frozen=True)
class FamiliarityStep(Step[StoredImage]):
    """How unlike the class it was taken for every token of a section is, by the model that mapped it."""

    step: ClassVar[str] = "familiarity"
    verb: ClassVar[str] = "compare"

    parcellation: Stored[Parcellation]
    head: HeadSource
    domain: DomainSource
    embeddings: Stored[SectionEmbeddings]
    scale: Stored[Scale] | None = None
    depth: Stored[DepthMap] | None = None
    tissue: Stored[TissueMask] = TISSUE

    @classmethod
    def of(
        cls, mapped: ParcellationStep, read: ProbabilitiesStep, embeddings: Stored[SectionEmbeddings]
    ) -> "FamiliarityStep":
        """The familiarity of what a head has mapped, from stored embeddings of its kind in the scale it needs."""
        return cls(mapped.stored, mapped.head, DomainSource(mapped.head.digest), embeddings, read.scale, read.depth)

    @property
    def name(self) -> str:
        """That of the map."""
        return self.parcellation.name

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Draw the label image and count its grades by class."""
        embeddings = inputs[self.embeddings].measured_in(None if self.scale is None else inputs[self.scale])
        return write_familiarity(
            staging,
            embeddings if self.depth is None else embeddings.joined_by(inputs[self.depth]),
            inputs[self.tissue],
            inputs[self.parcellation].labels,
            inputs[self.head].card,
            inputs[self.domain],
        )

    @classmethod
    def opened(cls, folder: Path) -> StoredImage:
        """The label image: 0 no tissue, 1 like what was learned from, 2 unlike, 3 far from it."""
        return StoredImage.open(folder / "labels" / NAME)


class Verdict(NamedTuple):
    """What is said of a share of tokens that lie outside the 95 % reach; 5 % do where nothing is unlike."""

    above: float
    words: str
    advice: str


VERDICTS = (
    Verdict(0.5, "far from", "do not trust the map without a look at every section"),
    Verdict(0.2, "in part unlike", "trust the map only where it is not hatched"),
    Verdict(0.0, "like", "the map can be read like those of the brains that the model was scored on"),
)


def verdict(outside: float) -> Verdict:
    """What is said where a share of the tokens lies outside the reach of 95 % of what was learned from."""
    return next(one for one in VERDICTS if outside >= one.above)


class Familiarity(NamedTuple):
    """How far a brain lies from what a model was trained on."""

    counts: NDArray[np.int64]
    """(k, 3) tokens by class of the map and by grade."""

    @classmethod
    def of(cls, facts: Iterable[Facts]) -> "Familiarity | None":
        """The sum over sections; None where there are none, or no token was mapped."""
        counts = [np.array(one["grades"], dtype=np.int64) for one in facts]
        return cls(np.sum(counts, axis=0)) if counts and np.sum(counts) else None

    @property
    def outside(self) -> float:
        """Share of tokens outside the reach of 95 % of what was learned from."""
        return float(self.counts[:, 1:].sum() / self.counts.sum())

    @property
    def far(self) -> float:
        """Share of tokens outside the reach of 99 %."""
        return float(self.counts[:, 2].sum() / self.counts.sum())

    def metrics(self) -> dict[str, float]:
        """Its figures by name."""
        return {"familiarity/outside95": self.outside, "familiarity/outside99": self.far}

    def sentence(self) -> str:
        """What a person is told."""
        found = verdict(self.outside)
        return (
            f"In all, this brain looks {found.words} what the model learned from: {100 * self.outside:.0f} % of its "
            "tokens lie outside the range that holds 95 % of the labelled tokens of their class (5 % would, were it "
            f"just like them), {100 * self.far:.0f} % outside that of 99 %, which is hatched in the "
            f"pictures: {found.advice}."
        )

    def rows(self, card: HeadCard) -> Sequence[Mapping[str, Any]]:
        """A row per class of the map."""
        rows = []
        for one, (like, unlike, far) in zip(card.classes, self.counts.tolist(), strict=True):
            count = like + unlike + far
            share = (unlike + far) / count if count else float("nan")
            rows.append(
                {
                    "name": one.name,
                    "tokens": count,
                    "outside95": share,
                    "outside99": far / count if count else float("nan"),
                    "words": verdict(share).words if count else "not on the map",
                }
            )
        return rows
