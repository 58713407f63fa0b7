"""A head trained on the labelled sections of a brain, kept with its scores."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np

from cytoarch.anatomy.depth_maps import DEPTH_CHANNELS, DepthMap
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.annotations.drawing import DrawnLabels
from cytoarch.brains import LabelTable
from cytoarch.digests import canonical_json, files_digest
from cytoarch.embeddings import EmbedSettings, Scale, SectionEmbeddings, check_same_dims
from cytoarch.errors import TrainingError
from cytoarch.images.views import StoredImage
from cytoarch.learning.cards import CARD_FILE, WEIGHTS_FILE, HeadCard
from cytoarch.learning.datasets import LabelledSection, token_sources
from cytoarch.learning.domain import domain_of
from cytoarch.learning.evaluation import Score
from cytoarch.learning.heads import head_files
from cytoarch.learning.splits import Split, split_sections
from cytoarch.learning.targets import LabelPixels
from cytoarch.learning.training import (
    HeadSettings,
    Kind,
    cells_per_token,
    train_and_score,
)
from cytoarch.sampling import OnDemand
from cytoarch.steps.annotations import Scribbled, ScribbledLabels, ScribbledTable
from cytoarch.steps.colours import name_of
from cytoarch.steps.depth import depth_of
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.scales import scale_of
from cytoarch.steps.sections import LABELS, PixelsDigest
from cytoarch.steps.sources import Each, FactsOf, Sections, Table, sections_with
from cytoarch.steps.step import Facts, Inputs, Place, Step, Stored
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.records import Committed
from cytoarch.store.staging import Staging

METRICS_FILE = "metrics.json"


class Training(NamedTuple):
    """A training, read back."""

    metrics: Mapping[str, Any]
    """Scores by part of the split."""
    head: Mapping[str, bytes]
    """The files of the head."""


@dataclass(frozen=True)
class TrainingStep(Step[Training]):
    """A head trained on the labelled sections of a brain and scored on those held out."""

    step: ClassVar[str] = "training"
    version: ClassVar[int] = 9
    scope: ClassVar = "brain"
    verb: ClassVar[str] = "train"

    brain_id: str
    kind: Kind
    train: HeadSettings
    embeddings: Each[SectionEmbeddings]
    embedded: Each[Mapping[str, Any]]
    labels: Each[StoredImage] | Each[DrawnLabels]
    tissue: Each[TissueMask]
    pixels: Each[str]
    scale: Stored[Scale] | None = None
    table: Table | ScribbledTable = Table()
    depth: Each[DepthMap] | None = None
    scribbled: Scribbled | None = None
    """The person's scribbles that are learned from instead of the label images of the manifest."""

    @classmethod
    def of(
        cls,
        brain_id: str,
        embeddings: Stored[SectionEmbeddings],
        kind: Kind,
        train: HeadSettings,
    ) -> "TrainingStep":
        """The training of one kind of head on one way of embedding a brain, from the manifest's label images."""
        return cls._of(brain_id, embeddings, kind, train, Each(LABELS, (embeddings, LABELS)))

    @classmethod
    def on_scribbles(
        cls,
        brain: OpenBrain,
        embeddings: Stored[SectionEmbeddings],
        kind: Kind,
        train: HeadSettings,
        scribbled: Scribbled,
    ) -> "TrainingStep":
        """The training of one kind of head on one way of embedding a brain, from what a person drew."""
        sections = scribbled.open(Place(brain)).section_ids
        embedded = {one.section_id for one in sections_with(brain, embeddings)}
        left = [one for one in sections if one in brain.rows and one not in embedded]
        if left and len(left) < len(sections):
            raise TrainingError(
                f"{len(left)} of {len(sections)} sections that were drawn on ({', '.join(left[:5])}) are not embedded; "
                "run embed-brain, or leave them out with skip"
            )
        labels = Each(ScribbledLabels(scribbled), (embeddings,), sections)
        step = cls._of(brain.brain_id, embeddings, kind, train, labels)
        return replace(step, table=ScribbledTable(scribbled), scribbled=scribbled)

    @classmethod
    def _of(
        cls,
        brain_id: str,
        embeddings: Stored[SectionEmbeddings],
        kind: Kind,
        train: HeadSettings,
        labels: Each[StoredImage] | Each[DrawnLabels],
    ) -> "TrainingStep":
        having, only = labels.having, labels.only
        depth = depth_of(train.depth)
        return cls(
            brain_id,
            kind,
            train,
            Each(embeddings, having, only),
            Each(FactsOf(embeddings), having, only),
            labels,
            Each(TISSUE, having, only),
            Each(PixelsDigest(), having, only),
            depth=None if depth is None else Each(depth, having, only),
            scale=scale_of(train.standardise, embeddings),
        )

    @property
    def name(self) -> str:
        """What is learned, by what, from what."""
        told = "" if self.train.depth == "none" else f"-{self.train.depth}"
        by = "" if self.scribbled is None else f"-by-{self.scribbled.author}"
        return f"{target_name(self.train)}-{self.kind}{told}{by}-{name_of(self.embeddings)}"[:64]

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Train and score; raises TrainingError if there is too little to learn from."""
        table = inputs[self.table]
        opened, tissue = inputs[self.embeddings], inputs[self.tissue]
        labels = cast("Sections[StoredImage] | Sections[DrawnLabels]", inputs[self.labels])
        if table is None or not opened:
            raise TrainingError(
                "no embedded section has labels; name label images in the manifest, with a label table"
                if self.scribbled is None
                else f"no section that {self.scribbled.author} drew on is embedded; run embed-brain first"
            )
        ids = tuple(opened)
        dims = check_same_dims((one, opened[one]) for one in ids)
        card = self._card(table, inputs[self.embedded][ids[0]], dims)
        depths = self._depths(inputs, ids)
        scale = None if self.scale is None else inputs[self.scale]

        def labelled(one: str) -> LabelledSection:
            embeddings = opened[one].measured_in(scale)
            if depths is not None:
                embeddings = embeddings.joined_by(depths[one])
            return LabelledSection(one, embeddings, _pixels(labels[one]), tissue[one])

        sections = OnDemand(len(ids), lambda at: labelled(ids[at]))
        split = split_sections(ids, inputs[self.pixels])
        learned = ids if self.train.refit else split.train
        card = card.model_copy(
            update={"learned_from": {self.brain_id: learned}, "scores_of": scores_of(split, learned)}
        )
        trained = train_and_score(card, self.train, sections, split, inputs.on_progress)
        used = OnDemand(len(learned), lambda at: labelled(learned[at]))
        domain = domain_of(token_sources(used, card.classes), len(card.classes), self.train.seed)
        files = head_files(trained.head, domain)
        for name, content in files.items():
            staging.write(name, content)
        metrics = {name: score.as_facts(card.classes) for name, score in trained.scores.items()}
        staging.write(METRICS_FILE, canonical_json(metrics).encode())
        return {
            "model": files_digest(files),
            "fit": trained.facts,
            "train": list(split.train),
            "held_out": list(split.held_out),
            "learned": list(learned),
            "scores": headline(trained.scores),
            "smoothing": trained.smoothing.facts() if trained.smoothing else None,
            "ordering": trained.ordering.facts() if trained.ordering else None,
            "headline": hardest(trained.scores),
        }

    def _depths(self, inputs: Inputs, ids: tuple[str, ...]) -> Mapping[str, DepthMap] | None:
        """The depth of every section, where it is learned with. Raises TrainingError if one has none."""
        if self.depth is None:
            return None
        depths = inputs[self.depth]
        missing = [one for one in ids if one not in depths]
        if missing:
            raise TrainingError(
                f"{len(missing)} of {len(ids)} labelled sections ({', '.join(missing[:5])}) have no depth "
                f"{self.train.depth!r}; run trace-cortex first, or train with depth none"
            )
        return depths

    def _card(self, table: LabelTable, embedded: Facts, dims: tuple[int, ...]) -> HeadCard:
        token_px = int(embedded["token_px"])
        return HeadCard(
            kind=self.kind,
            target=target_name(self.train),
            classes=table.classes(self.train.by_group),
            dims=dims if self.depth is None else (*dims, DEPTH_CHANNELS),
            cells_per_token=cells_per_token(self.kind, token_px),
            embedding=EmbedSettings.model_validate(embedded["embedding"]),
            encoder_digest=embedded["encoder_digest"],
            token_px=token_px,
            pixel_size_um=float(embedded["pixel_size_um"]),
            depth=self.train.depth,
            standardise=self.train.standardise,
        )

    @classmethod
    def opened(cls, folder: Path) -> Training:
        """Scores and head."""
        metrics = json.loads((folder / METRICS_FILE).read_text())
        return Training(metrics, {name: (folder / name).read_bytes() for name in (CARD_FILE, WEIGHTS_FILE)})


def _pixels(labels: StoredImage | DrawnLabels) -> LabelPixels:
    return labels.levels[0] if isinstance(labels, StoredImage) else labels


class Trained(NamedTuple):
    """What a training gave."""

    digest: str
    """Of the head, which lies among the store's models."""
    name: str
    """Of the training's product."""
    made: bool


def keep_head(brain: OpenBrain, name: str) -> str:
    """Keep the head of a committed training among the store's models, where it is used from; returns its digest."""
    return brain.store.models.add(training_of(brain, name)[1].head)


def is_labelled(brain: OpenBrain, embeddings: Stored[SectionEmbeddings]) -> bool:
    """Whether there is anything to learn from: embedded sections with labels."""
    labelled = {one.section_id for one in sections_with(brain, LABELS)}
    return any(one.section_id in labelled for one in sections_with(brain, embeddings))


def training_of(brain: OpenBrain, name: str) -> tuple[Committed, Training]:
    """The record of a training, and what it gave. Raises MissingInputError if there is none."""
    stored = Stored(TrainingStep, name)
    place = Place(brain)
    return stored.record(place), stored.open(place)


def held_out_labels(record: Committed) -> dict[str, str]:
    """The sections that a head was scored on and did not learn from, each with the digest of its labels."""
    said = record.said
    labels = {key.removeprefix("labels/"): value for key, value in said.inputs.items() if key.startswith("labels/")}
    learned = frozenset(said.facts["train"])
    return {section: digest for section, digest in labels.items() if section not in learned}


def target_name(settings: HeadSettings) -> str:
    """What the classes are: heads of groups and of single labels are never compared with each other."""
    return f"{settings.target}-groups" if settings.by_group else settings.target


HARDEST = ("block", "fifth")
"""Parts of a split, the hardest to predict first: what is far from all that was learned from."""


def hardest(scores: Mapping[str, Score]) -> str:
    """The part of a split whose score stands for a head; blank where nothing is held out."""
    return next((part for part in HARDEST if part in scores), "")


def headline(scores: Mapping[str, Score]) -> dict[str, float]:
    """`part/metric` -> value, only those that are defined; `headline/` repeats those of the hardest part."""
    values = {f"{part}/{name}": value for part, score in scores.items() for name, value in score.metrics().items()}
    part = hardest(scores)
    values |= {f"headline/{name}": value for name, value in scores[part].metrics().items()} if part else {}
    return {name: round(value, 6) for name, value in values.items() if np.isfinite(value)}


def scores_of(split: Split, learned: Sequence[str]) -> str:
    """What stands on a card about its scores, where the weights are not those that were scored."""
    if not split.held_out or len(learned) == len(split.train):
        return ""
    return (
        f"Scored by an earlier fit that had not seen {len(split.held_out)} of the {len(learned)} labelled sections; "
        "then fitted again on all of them, with the same settings."
    )
