"""From labelled sections of a brain to a head, and how that is asked for."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cytoarch.anatomy.depth_maps import DepthInput
from cytoarch.annotations.drawing import DrawnLabels
from cytoarch.brains import LabelClass
from cytoarch.errors import TrainingError
from cytoarch.learning.cards import HeadCard, Standardise
from cytoarch.learning.context import fit_context
from cytoarch.learning.datasets import LabelledSection, cut_crops, token_sources
from cytoarch.learning.decoder import Fit, fit_decoder
from cytoarch.learning.evaluation import Score, score_split
from cytoarch.learning.heads import Head, head_kind
from cytoarch.learning.ordering import Ordering, Trial
from cytoarch.learning.penalties import DEFAULT_PENALTY, Penalty, choose_penalty
from cytoarch.learning.probes import fit_bytes_per_token, fit_probe
from cytoarch.learning.smoothing import Smoothing, choose_smoothing
from cytoarch.learning.splits import Split
from cytoarch.learning.targets import UNLABELLED
from cytoarch.progress import Progress
from cytoarch.sampling import OnDemand, TokenSample, draw_tokens
from cytoarch.settings import Settings

_CONTEXT_FIT = {"components", "width", "blocks", "steps", "batch_size", "learning_rate", "weight_decay", "seed"}
DENSE_EPOCHS, SCRIBBLE_EPOCHS = 50, 15
"""Passes over crops of dense labels and of scribbles (Zhang, Xu and Zhou)."""
CELL_PX = 4
"""Edge of a decoder's output cell in working pixels (Zhang, Xu and Zhou upsample to this grid)."""


class TrainSettings(Settings):
    """How a head is trained."""

    target: str = Field(
        title="What the labels are",
        examples=["layers"],
        default="areas",
        pattern=r"^[a-z][a-z0-9-]{0,15}$",
        description="What the labels are: areas, layers, ...",
    )
    by_group: bool = Field(
        title="Learn the coarser groups",
        default=False,
        description="Train on the coarser areas in the label table's group column.",
    )
    depth: DepthInput = Field(
        title="Cortical depth as an input",
        default="none",
        description="Depth in the cortex as a further input, where layers are learned: laplace or none.",
    )
    refit: bool = Field(
        title="Fit again on all labels after scoring",
        default=True,
        description="After scoring, fit again on all labelled sections, those held out for the scores included.",
    )
    standardise: Standardise = Field(
        title="Embeddings are measured in",
        default="brain",
        description="brain: embeddings are measured in the mean and spread of their own brain, found without labels, "
        "so that a model can read brains that were stained otherwise; head: in those of the labelled tokens.",
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of sampling, initialisation and order.")


class ProbeSettings(TrainSettings):
    """How a linear probe is trained."""

    tokens_per_class: int = Field(default=400, ge=10, le=100_000, description="Most tokens of a class per section.")
    regularisation: float | None = Field(
        examples=[1.0],
        default=None,
        gt=0,
        le=1e6,
        description="Strength of the L2 penalty (1/C); blank: chosen by leaving out, in turn, brains, or of one every "
        "fourth section, of those that are learned from.",
    )


class DecoderSettings(TrainSettings):
    """How a fusion decoder is trained."""

    width: int = Field(default=64, ge=8, le=512, description="Channels of a branch and of the hidden layer.")
    epochs: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Passes over the crops; blank: 50 over those of label images, 15 over those of scribbles.",
    )
    least_steps: int = Field(
        default=300,
        ge=0,
        le=100_000,
        description="Steps that are taken at least: where sections are few, their crops are passed over more often.",
    )
    overlapping: bool = Field(
        default=True, description="Where fewer than 64 crops hold labels, cut overlapping ones, too."
    )
    dihedral: bool = Field(default=True, description="Mirror and turn the crops, differently in every step.")
    balance: bool = Field(
        default=True, description="Cells of thin layers count more, by the root of their rarity and at most 8 times."
    )
    batch_size: int = Field(default=16, ge=1, le=256, description="Crops in a step.")
    learning_rate: float = Field(default=5e-4, gt=0, le=1, description="Rate of AdamW, constant.")
    weight_decay: float = Field(default=1e-4, ge=0, le=1, description="Decay of AdamW, on all parameters.")


class ContextSettings(TrainSettings):
    """How a context head is trained."""

    components: int = Field(
        default=64, ge=2, le=512, description="Principal components of the embeddings that it starts from."
    )
    width: int = Field(default=32, ge=4, le=512, description="Channels of every block.")
    blocks: int = Field(
        default=4, ge=1, le=6, description="Blocks, each seeing twice as far: n reach 2^n - 1 tokens around."
    )
    steps: int = Field(default=300, ge=10, le=100_000, description="Steps of training.")
    batch_size: int = Field(default=2, ge=1, le=64, description="Crops in a step.")
    crop_tokens: int = Field(default=80, ge=16, le=512, description="Edge of a crop in tokens.")
    learning_rate: float = Field(default=3e-3, gt=0, le=1, description="Highest rate of AdamW.")
    weight_decay: float = Field(default=1e-2, ge=0, le=1, description="Decay of AdamW.")


Kind = Literal["probe", "decoder", "context"]
HeadSettings = ProbeSettings | DecoderSettings | ContextSettings


def cells_per_token(kind: Kind, token_px: int) -> int:
    """Output cells along a token: those of a decoder are of 4 px, or the next that divides it.

    >>> [cells_per_token("decoder", token_px) for token_px in (4, 14, 16, 64)]
    [1, 2, 4, 16]
    """
    if kind != "decoder":
        return 1
    return next(cells for cells in range(max(1, token_px // CELL_PX), 0, -1) if token_px % cells == 0)


def train_head(
    card: HeadCard,
    settings: HeadSettings,
    sections: Sequence[LabelledSection],
    on_progress: Progress | None = None,
    groups: Sequence[int] = (),
) -> tuple[Head, dict[str, Any]]:
    """Train a head on all of `sections`; returns it and facts about the training.

    `groups` says how many of them, one after the other, are of each brain; none: all are of one.
    Raises TrainingError if fewer than two classes have labels in tissue there.
    """
    if isinstance(settings, ProbeSettings):
        sample = sample_tokens(sections, card.classes, settings.tokens_per_class, settings.seed)
        _check_classes(sample.strata, card.classes, sections)
        chosen = None
        if settings.regularisation is None:
            chosen = choose_penalty(card.dims, sample.tokens, sample.strata, sample.sections, groups)
        chosen = chosen or Penalty(settings.regularisation or DEFAULT_PENALTY, 1.0, ())
        probe, fit = fit_probe(card, sample.tokens, sample.strata, chosen.regularisation, chosen.sharpness)
        tried = chosen.facts()
        return probe, {**sample.facts(), **tried, **fit, "untrained": untrained(sample.strata, card.classes)}
    if isinstance(settings, ContextSettings):
        crops = cut_crops(sections, card, settings.seed, settings.crop_tokens)
    else:
        crops = cut_crops(sections, card, settings.seed, overlapping=settings.overlapping)
    _check_classes(crops.targets, card.classes, sections)
    if isinstance(settings, ContextSettings):
        context, loss = fit_context(
            card,
            crops,
            **settings.model_dump(include=_CONTEXT_FIT),
            on_progress=on_progress,
        )
        return context, {**crops.facts(), **loss, "untrained": untrained(crops.targets, card.classes)}
    epochs = settings.epochs or (SCRIBBLE_EPOCHS if _is_scribbled(sections) else DENSE_EPOCHS)
    how = Fit(epochs=epochs, **settings.model_dump(include=set(Fit._fields) - {"epochs"}))
    decoder, history = fit_decoder(card, crops, how, on_progress=on_progress)
    return decoder, {**crops.facts(), **history, "untrained": untrained(crops.targets, card.classes)}


def _is_scribbled(sections: Sequence[LabelledSection]) -> bool:
    """Whether labels are strokes of a pen; all sections have the same kind."""
    return len(sections) > 0 and isinstance(sections[0].labels, DrawnLabels)


def untrained(targets: NDArray[Any], classes: Sequence[LabelClass]) -> list[str]:
    """The names of the classes that no target has: a head never predicts them."""
    present = set(np.unique(targets).tolist())
    return [one.name for index, one in enumerate(classes) if index not in present]


class Trained(NamedTuple):
    """What a training gave."""

    head: Head
    facts: dict[str, Any]
    """About the training."""
    scores: dict[str, Score]
    """By part of the split, of a head that did not see what it was scored on."""
    smoothing: Smoothing | None
    """How strongly its maps are smoothed, by what it had not seen; None: nothing was held out."""
    ordering: Ordering | None
    """Whether classes follow each other on its maps, likewise."""


def train_and_score(
    card: HeadCard,
    settings: HeadSettings,
    sections: Sequence[LabelledSection],
    split: Split,
    on_progress: Progress | None = None,
) -> Trained:
    """Train a head on the sections the split trains on, score it on those held out, then fit it again on all.

    Those held out also tell how strongly its maps are smoothed and whether classes follow each other on them, which its
    card says.
    Where nothing is held out, or the settings ask for no refit, the head is the one that was scored. Raises as
    `train_head`.
    """
    places = [index for index, section in enumerate(sections) if section.section_id in split.train]
    head, facts = train_head(card, settings, OnDemand(len(places), lambda at: sections[places[at]]), on_progress)
    scores = score_split(head, sections, split)
    held_out = [index for index, section in enumerate(sections) if section.section_id in split.held_out]
    unseen = OnDemand(len(held_out), lambda at: sections[held_out[at]])
    smoothing, ordering = choose_smoothing(head, unseen), Trial.of(head, unseen).chosen()
    card = card.model_copy(
        update={
            "smooth_weight": smoothing.weight if smoothing else None,
            "order": ordering.order if ordering else "none",
        }
    )
    if split.held_out and settings.refit:
        head, facts = train_head(card, settings, sections, on_progress)
    return Trained(head_kind(card.kind).from_tensors(card, head.tensors()), facts, scores, smoothing, ordering)


def sample_tokens(
    sections: Sequence[LabelledSection], classes: Sequence[LabelClass], per_class: int, seed: int
) -> TokenSample:
    """Labelled tokens (n, c) and their classes (n,): at most `per_class` of each class from each section.

    Fewer where they and the fit would take more than `sampling.SAMPLE_BYTES`.
    """
    width = sum(sections[0].embeddings.dims) if sections else 0
    extra = fit_bytes_per_token(width, len(classes))
    return draw_tokens(token_sources(sections, classes), len(classes), per_class, seed, extra_bytes=extra)


def _check_classes(targets: NDArray[Any], classes: Sequence[LabelClass], sections: Sequence[LabelledSection]) -> None:
    present = sorted({int(one) for one in np.unique(targets)} - {UNLABELLED})
    if len(present) < 2:
        names = ", ".join(classes[one].name for one in present) or "none"
        raise TrainingError(
            f"the {len(sections)} sections to learn from hold labels of {len(present)} class(es) inside tissue "
            f"({names}); at least two are needed. Label more sections, or check that the ids in the label images "
            "are those of the label table"
        )
