"""A head applied to sections: probabilities, then smoothed probabilities and a label map."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from cytoarch.anatomy.depth_maps import DepthMap
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.embeddings import EmbedSettings, Scale, SectionEmbeddings
from cytoarch.images.views import StoredImage
from cytoarch.learning.cards import HeadCard, check_fits
from cytoarch.parcellation.inference import ParcellateSettings, write_probabilities
from cytoarch.parcellation.smoothing import SmoothSettings, write_parcellation
from cytoarch.steps.depth import depth_of
from cytoarch.steps.scales import scale_of
from cytoarch.steps.sections import SECTION
from cytoarch.steps.sources import EncoderSource, FactsOf, HeadSource
from cytoarch.steps.step import Facts, Inputs, Step, Stored, conduct
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.staging import Staging

PROBABILITIES = "probabilities"
"""Name of the image in its product's folder."""


@dataclass(frozen=True)
class ProbabilitiesStep(Step[StoredImage]):
    """The class probabilities of a section by a head."""

    step: ClassVar[str] = "probabilities"
    version: ClassVar[int] = 2
    verb: ClassVar[str] = "parcellate"

    map_name: str
    head: HeadSource
    encoder: EncoderSource
    overlap: float
    window: str
    embeddings: Stored[SectionEmbeddings] | None = None
    embedded: FactsOf | None = None
    section: Stored[StoredImage] = SECTION
    tissue: Stored[TissueMask] = TISSUE
    depth: Stored[DepthMap] | None = None
    scale: Stored[Scale] | None = None
    batch_size: int = conduct(2)

    @property
    def name(self) -> str:
        """That of the map."""
        return self.map_name

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Blend the head's probabilities over overlapping tiles, or take them from stored embeddings."""
        head, encoder = inputs[self.head], inputs[self.encoder]
        card = head.card
        check_fits(card, card.embedded_dims, encoder.digest, card.pixel_size_um)  # weights may have been replaced
        if self.embedded is not None:
            facts = inputs[self.embedded]
            check_fits(card, tuple(facts["dims"]), facts["encoder_digest"], float(facts["pixel_size_um"]))
        return write_probabilities(
            staging,
            inputs[self.section],
            inputs[self.tissue],
            head,
            encoder,
            None if self.embeddings is None else inputs[self.embeddings],
            ParcellateSettings.model_validate({"overlap": self.overlap, "window": self.window}),
            self.batch_size,
            inputs.on_progress,
            None if self.depth is None else inputs[self.depth],
            None if self.scale is None else inputs[self.scale],
        )

    @classmethod
    def opened(cls, folder: Path) -> StoredImage:
        """The probabilities (k + 1, y, x): outside tissue, then the classes."""
        return StoredImage.open(folder / PROBABILITIES)


class Parcellation(NamedTuple):
    """A parcellation, read back."""

    probabilities: StoredImage
    """(k + 1, y, x), smoothed: outside tissue, then the classes."""
    labels: StoredImage
    """Ids of the label table; 0 is outside tissue."""


@dataclass(frozen=True)
class ParcellationStep(Step[Parcellation]):
    """The smoothed probabilities and label map of a section."""

    step: ClassVar[str] = "parcellations"
    version: ClassVar[int] = 6
    verb: ClassVar[str] = "parcellate"

    probabilities: Stored[StoredImage]
    head: HeadSource
    smooth: SmoothSettings
    level: int | None
    section: Stored[StoredImage] = SECTION
    depth: Stored[DepthMap] | None = None

    @property
    def name(self) -> str:
        """That of the map."""
        return self.probabilities.name

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Smooth, and draw the label map."""
        card = inputs[self.head].card
        probabilities, image = inputs[self.probabilities], inputs[self.section]
        weight = self.smooth.weight_for(card)
        order, depth = self.smooth.order_for(card), None if self.depth is None else inputs[self.depth]
        return write_parcellation(
            staging, image, probabilities, card.classes, weight, self.level, card.target, order, depth
        )

    @classmethod
    def opened(cls, folder: Path) -> Parcellation:
        """Probabilities and label map."""
        labels = json.loads((folder / "labels" / "zarr.json").read_text())["attributes"]["ome"]["labels"]
        return Parcellation(StoredImage.open(folder), StoredImage.open(folder / "labels" / labels[0]))


def parcellation_steps(
    card: HeadCard,
    digest: str,
    embeddings: Stored[SectionEmbeddings],
    settings: ParcellateSettings,
    smooth: SmoothSettings,
    conducted: Mapping[str, Any],
) -> tuple[ProbabilitiesStep, ParcellationStep]:
    """The two steps that map a section with a head. `embeddings` are used where the settings ask for the cache.

    `conducted` holds the device and batch size, which do not decide results. A head that measures embeddings in the
    scale of their own brain needs that to be fitted.
    """
    head = HeadSource(digest)
    encoder = EncoderSource(EmbedSettings.model_validate({**card.embedding.model_dump(), **conducted}))
    cached = settings.source == "cache"
    probabilities = ProbabilitiesStep(
        parcellation_name(card.target, card.kind, digest),
        head,
        encoder,
        settings.overlap,
        settings.window,
        embeddings if cached else None,
        FactsOf(embeddings) if cached else None,
        depth=depth_of(card.depth),
        scale=scale_of(card.standardise, embeddings),
        batch_size=encoder.settings.batch_size,
    )
    return probabilities, ParcellationStep(
        probabilities.stored,
        head,
        smooth,
        settings.level,
        depth=depth_of("laplace" if smooth.order_for(card) == "depth" else "none"),
    )


def parcellation_name(target: str, kind: str, digest: str) -> str:
    """The name under which the maps of a model are kept."""
    return f"{target}-{kind}-{digest[:8]}"
