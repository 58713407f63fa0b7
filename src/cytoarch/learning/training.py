"""From labelled sections of a brain to a head, and how that is asked for."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cytoarch.anatomy.depth_maps import DepthInput
from cytoarch.brains import LabelClass
from cytoarch.errors import TrainingError
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.datasets import LabelledSection, cut_crops, token_sources
from cytoarch.learning.decoder import fit_decoder
from cytoarch.learning.evaluation import Score, score_split
from cytoarch.learning.heads import Head
from cytoarch.learning.probes import fit_bytes_per_token, fit_probe
from cytoarch.learning.splits import Split
from cytoarch.learning.targets import UNLABELLED
from cytoarch.progress import Progress
from cytoarch.sampling import OnDemand, TokenSample, draw_tokens

CELL_PX = 4
"""Edge of a decoder's output cell in working pixels (Zhang, Xu and Zhou upsample to this grid)."""


class TrainSettings(BaseModel):
    """How a head is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str = Field(
        default="areas", pattern=r"^[a-z][a-z0-9-]{0,15}$", description="What the labels are: areas, layers, ..."
    )
    by_group: bool = Field(default=False, description="Train on the coarser areas in the label table's group column.")
    depth: DepthInput = Field(
        default="none", description="Depth in the cortex as a further input, where layers are learned: laplace or none."
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of sampling, initialisation and order.")


class ProbeSettings(TrainSettings):
    """How a linear probe is trained."""

    tokens_per_class: int = Field(default=400, ge=10, le=100_000, description="Most tokens of a class per section.")
    regularisation: float = Field(default=1.0, gt=0, le=1e6, description="Strength of the L2 penalty (1/C).")


class DecoderSettings(TrainSettings):
    """How a fusion decoder is trained."""

    width: int = Field(default=64, ge=8, le=512, description="Channels of a branch and of the hidden layer.")
    epochs: int = Field(default=50, ge=1, le=1000, description="Passes over the crops; 15 suit scribbles.")
    batch_size: int = Field(default=16, ge=1, le=256, description="Crops in a step.")
    learning_rate: float = Field(default=5e-4, gt=0, le=1, description="Rate of AdamW, constant.")
    weight_decay: float = Field(default=1e-4, ge=0, le=1, description="Decay of AdamW, on all parameters.")


Kind = Literal["probe", "decoder"]


def cells_per_token(kind: Kind, token_px: int) -> int:
    """Output cells along a token: a probe's is the token itself, a decoder's is 4 px, or the next that divides it.

    >>> [cells_per_token("decoder", token_px) for token_px in (4, 14, 16, 64)]
    [1, 2, 4, 16]
    """
    if kind == "probe":
        return 1
    return next(cells for cells in range(max(1, token_px // CELL_PX), 0, -1) if token_px % cells == 0)


def train_head(
    card: HeadCard,
    settings: ProbeSettings | DecoderSettings,
    sections: Sequence[LabelledSection],
    on_progress: Progress | None = None,
) -> tuple[Head, dict[str, Any]]:
    """Train a head on all of `sections`; returns it and facts about the training.

    Raises TrainingError if fewer than two classes have labels in tissue there.
    """
    if isinstance(settings, ProbeSettings):
        sample = sample_tokens(sections, card.classes, settings.tokens_per_class, settings.seed)
        _check_classes(sample.strata, card.classes, sections)
        probe, fit = fit_probe(card, sample.tokens, sample.strata, settings.regularisation)
        return probe, {**sample.facts(), **fit}
    crops = cut_crops(sections, card, settings.seed)
    _check_classes(crops.targets, card.classes, sections)
    decoder, history = fit_decoder(
        card,
        crops,
        width=settings.width,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        on_progress=on_progress,
    )
    return decoder, {**crops.facts(), **history}


def train_and_score(
    card: HeadCard,
    settings: ProbeSettings | DecoderSettings,
    sections: Sequence[LabelledSection],
    split: Split,
    on_progress: Progress | None = None,
) -> tuple[Head, dict[str, Any], dict[str, Score]]:
    """Train a head on the sections the split trains on, and score it on those it holds out.

    Returns the head, facts about its training, and its scores by part of the split. Raises as `train_head`.
    """
    places = [index for index, section in enumerate(sections) if section.section_id in split.train]
    head, facts = train_head(card, settings, OnDemand(len(places), lambda at: sections[places[at]]), on_progress)
    return head, facts, score_split(head, sections, split)


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
