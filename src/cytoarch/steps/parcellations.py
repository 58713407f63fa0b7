"""A head applied to sections: probabilities, then a label map drawn from them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from cytoarch.anatomy.depth_maps import DepthMap
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.brains import Section
from cytoarch.embeddings import EmbedSettings, Scale, SectionEmbeddings
from cytoarch.errors import StoreError
from cytoarch.images.layout import level_count
from cytoarch.images.views import StoredImage
from cytoarch.learning.cards import HeadCard, check_fits, check_seen
from cytoarch.learning.ordering import check_followed
from cytoarch.parcellation.inference import ParcellateSettings, write_probabilities
from cytoarch.parcellation.smoothing import SmoothSettings, label_level, map_cell_bytes, write_parcellation
from cytoarch.parcellation.sparse import Readable, SparseProbabilities, cell_bytes
from cytoarch.steps.across import Across, AcrossStep
from cytoarch.steps.depth import depth_of
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.scales import scale_of
from cytoarch.steps.sections import SECTION
from cytoarch.steps.sources import EncoderSource, FactsOf, HeadSource, sections_with
from cytoarch.steps.step import Facts, Inputs, Place, Step, Stored, conduct, is_current
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.staging import Staging


@dataclass(frozen=True)
class ProbabilitiesStep(Step[SparseProbabilities]):
    """The class probabilities of a section by a head, the most likely classes of every cell."""

    step: ClassVar[str] = "probabilities"
    version: ClassVar[int] = 3
    verb: ClassVar[str] = "parcellate"

    map_name: str
    head: HeadSource
    encoder: EncoderSource
    overlap: float
    window: str
    kept_classes: int
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
            check_seen(card, facts["embedding"]["channels"], facts["embedding"]["background"])
        return write_probabilities(
            staging,
            inputs[self.section],
            inputs[self.tissue],
            head,
            encoder,
            None if self.embeddings is None else inputs[self.embeddings],
            ParcellateSettings.model_validate(
                {"overlap": self.overlap, "window": self.window, "kept_classes": self.kept_classes}
            ),
            self.batch_size,
            inputs.on_progress,
            None if self.depth is None else inputs[self.depth],
            None if self.scale is None else inputs[self.scale],
        )

    @classmethod
    def opened(cls, folder: Path) -> SparseProbabilities:
        """The probabilities, read by window."""
        return SparseProbabilities.open(folder)


class Parcellation(NamedTuple):
    """A parcellation, read back."""

    confidence: StoredImage
    """(4, y, x) uint8: how sure it is, see `drawing.CONFIDENCE`."""
    labels: StoredImage
    """Ids of the label table; 0 is outside tissue."""


@dataclass(frozen=True)
class ParcellationStep(Step[Parcellation]):
    """The label map of a section, drawn from smoothed probabilities, and how sure it is."""

    step: ClassVar[str] = "parcellations"
    version: ClassVar[int] = 7
    verb: ClassVar[str] = "parcellate"

    probabilities: Stored[SparseProbabilities]
    head: HeadSource
    smooth: SmoothSettings
    level: int | None
    section: Stored[StoredImage] = SECTION
    across: Stored[Across] | None = None
    """What smoothing across sections changed; None: the section is smoothed by itself."""
    farthest_um: float | None = None
    """How far from a point of the cortex cells follow that."""
    depth: Stored[DepthMap] | None = None
    """What layers follow each other along, where that is asked for."""

    @classmethod
    def following(cls, alone: "ParcellationStep", across: AcrossStep) -> "ParcellationStep":
        """The same map, as it is after smoothing across sections."""
        return replace(alone, across=across.stored, farthest_um=across.farthest_um)

    @property
    def name(self) -> str:
        """That of the map."""
        return self.probabilities.name

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Smooth, and draw the label map."""
        card = inputs[self.head].card
        image, probabilities = inputs[self.section], self._probabilities(inputs)
        depth = None if self.depth is None else inputs[self.depth]
        return write_parcellation(
            staging,
            image,
            probabilities,
            card.classes,
            self.smooth.weight_for(card),
            self.level,
            card.target,
            self.smooth.order_for(card),
            depth,
            inputs.threads,
        )

    def _probabilities(self, inputs: Inputs) -> Readable:
        alone = inputs[self.probabilities]
        if self.across is None or self.farthest_um is None:
            return alone
        return inputs[self.across].on(inputs.name, alone, self.farthest_um)

    @classmethod
    def opened(cls, folder: Path) -> Parcellation:
        """Confidence and label map."""
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
        settings.kept_classes,
        embeddings if cached else None,
        FactsOf(embeddings) if cached else None,
        depth=depth_of(card.depth),
        scale=scale_of(card.standardise, embeddings),
        batch_size=encoder.settings.batch_size,
    )
    along = depth_of("laplace" if smooth.order_for(card) == "depth" else "none")
    return probabilities, ParcellationStep(probabilities.stored, head, smooth, settings.level, depth=along)


def check_order(brain: OpenBrain, sections: Sequence[Section], card: HeadCard, step: ParcellationStep) -> None:
    """Raise ModelError or StoreError, before anything is computed, if classes cannot follow each other as asked for."""
    order = step.smooth.order_for(card)
    check_followed(order, len(card.classes))
    depth = step.depth
    if depth is not None and not sections_with(brain, depth, tuple(sections)):
        raise StoreError(
            f"{brain.name}: layers are to follow each other along depth, and no section has a depth {depth.name}; run "
            "trace-cortex, or map with --smooth.order none"
        )


def estimated_bytes(
    brain: OpenBrain, sections: Sequence[Section], card: HeadCard, steps: tuple[ProbabilitiesStep, ParcellationStep]
) -> int:
    """At most how many bytes the probabilities and maps take that are not there yet, before compression.

    Told from the records of sections and of their tissue: no pixel is read. Cells outside tissue compress to nothing.
    """
    probabilities, parcellation = steps
    total = 0.0
    for section in sections:
        image, tissue = (brain.catalogue.record(one.product(section.section_id)) for one in (SECTION, TISSUE))
        missing = [one for one in steps if not is_current(one, Place(brain, section))]
        if image is None or tissue is None or not missing:
            continue
        size_um, area_um2 = float(image.facts["pixel_size_um"]), float(tissue.facts["area_mm2"]) * 1e6
        sizes_um = [size_um * 2**level for level in range(level_count(*image.facts["shape"][-2:]))]
        map_um = sizes_um[label_level(sizes_um, card.cell_um, parcellation.level)]
        if probabilities in missing:
            total += area_um2 / card.cell_um**2 * cell_bytes(len(card.classes), probabilities.kept_classes)
        total += area_um2 / map_um**2 * map_cell_bytes(card.classes)
    return int(total)


def is_smoothed_across(brain: OpenBrain, name: str) -> bool:
    """Whether the maps of this name follow what smoothing from section to section changed."""
    stored = Stored(ParcellationStep, name)
    records = (brain.catalogue.record(stored.product(one.section_id)) for one in sections_with(brain, stored))
    return any("across" in one.inputs for one in records if one is not None)


def parcellation_name(target: str, kind: str, digest: str) -> str:
    """The name under which the maps of a model are kept."""
    return f"{target}-{kind}-{digest[:8]}"
