"""Heads that are told apart by a number, and their registration."""

from collections.abc import Mapping

import numpy as np

from cytoarch.brains import LabelClass
from cytoarch.embeddings import EmbedSettings
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.heads import head_files
from cytoarch.learning.probes import Probe
from cytoarch.store.brain_store import BrainStore
from tasks.tracking import ModelVersion, register_head

CLASSES = (LabelClass(name="V1", ids=(1,)), LabelClass(name="V2", ids=(2,)))
HELD_OUT = {"s0020": "labels of s0020"}


def files_of_head(number: int, classes: tuple[LabelClass, ...] = CLASSES, encoder: str = "texture") -> dict[str, bytes]:
    """The files of a probe of areas."""
    card = HeadCard(
        kind="probe",
        target="areas",
        classes=classes,
        dims=(3,),
        cells_per_token=1,
        embedding=EmbedSettings(encoder=encoder),
        encoder_digest="e0",
        token_px=4,
        pixel_size_um=4.0,
    )
    weights = np.full((len(classes), 3), number, dtype=np.float32)
    return head_files(Probe(card, weights, np.zeros(len(classes), dtype=np.float32)))


def register_in(
    store: BrainStore,
    number: int,
    score: float | None,
    classes: tuple[LabelClass, ...] = CLASSES,
    held_out: Mapping[str, str] = HELD_OUT,
    encoder: str = "texture",
) -> ModelVersion:
    """Register such a probe in a store, with a headline macro-F1."""
    metrics = {} if score is None else {"headline/macro_f1": score}
    digest = store.models.add(files_of_head(number, classes, encoder))
    return register_head(store, "B01", digest, metrics, {}, held_out)
