"""A head trained on the labelled sections of a brain, kept with its scores."""

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from prefect import task

from cytoarch.brains import Brain, LabelTable, Section
from cytoarch.contents import (
    embedding_records,
    labels_product,
    open_embeddings,
    open_head,
    open_labels,
    open_tissue,
    tissue_product,
)
from cytoarch.digests import canonical_json
from cytoarch.embeddings import EmbedSettings, check_same_dims
from cytoarch.errors import ModelError, TrainingError
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.datasets import LabelledSection
from cytoarch.learning.evaluation import Score
from cytoarch.learning.heads import head_files
from cytoarch.learning.splits import split_sections
from cytoarch.learning.training import (
    TRAINING_VERSION,
    DecoderSettings,
    ProbeSettings,
    cells_per_token,
    train_and_score,
)
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.products import Product, Work
from cytoarch.store.records import Record
from cytoarch.store.staging import Staging
from tasks.progress import reporter
from tasks.sections import POLICY

STAGE = "train"
METRICS_FILE = "metrics.json"

Kind = Literal["probe", "decoder"]


class Trained(NamedTuple):
    """A trained head: its digest, the name of its training product, and whether it was made now."""

    digest: str
    name: str
    made: bool


def target_name(settings: ProbeSettings | DecoderSettings) -> str:
    """What the classes are: heads of groups and of single labels are never compared with each other."""
    return f"{settings.target}-groups" if settings.by_group else settings.target


def labelled_sections(brain: Brain, sections: tuple[Section, ...]) -> tuple[Section, ...]:
    """The sections that the manifest names a label image for."""
    return tuple(section for section in sections if section.labels) if brain.label_table else ()


@task(name="train-head", task_run_name="train {kind} on {embedding_name}", **POLICY)
def train(
    store_path: Path,
    brain: Brain,
    sections: tuple[Section, ...],
    embedding_name: str,
    settings: ProbeSettings | DecoderSettings,
    kind: Kind,
) -> Trained:
    """Train a head on the labelled ones of the sections and score it on those held out."""
    store = BrainStore(store_path)
    labelled = labelled_sections(brain, sections)
    if not labelled or brain.label_table is None:
        raise TrainingError(f"brain {brain.brain_id}: no section has labels; name label images in the manifest")
    table: LabelTable = brain.label_table
    work = _work(store, brain, labelled, embedding_name, settings, kind)

    def write(staging: Staging) -> dict[str, Any]:
        opened = [_open(store, brain.brain_id, section.section_id, embedding_name) for section in labelled]
        embedded = embedding_records(store, brain, embedding_name, labelled)[labelled[0].section_id]
        token_px = int(embedded.facts["token_px"])
        card = HeadCard(
            kind=kind,
            target=target_name(settings),
            classes=table.classes(settings.by_group),
            dims=check_same_dims([(one.section_id, one.embeddings) for one in opened]),
            cells_per_token=cells_per_token(kind, token_px),
            embedding=EmbedSettings.model_validate(embedded.facts["embedding"]),
            encoder_digest=embedded.inputs["encoder"],
            token_px=token_px,
            pixel_size_um=float(embedded.facts["pixel_size_um"]),
        )
        split = split_sections([section.section_id for section in labelled])
        head, fit, scores = train_and_score(card, settings, opened, split, reporter(STAGE, "head"))
        digest = store.add_model(head_files(head))
        metrics = {name: score.as_facts(card.classes) for name, score in scores.items()}
        staging.write(METRICS_FILE, canonical_json(metrics).encode())
        return {"model": digest, "fit": fit, "train": list(split.train), "scores": _headline(scores)}

    name = f"{target_name(settings)}-{kind}-{embedding_name}"[:64]
    product = Product(brain.brain_id, "training", name)
    kept = store.current(product, work)
    if kept is not None and not _is_whole(store, kept.facts["model"]):
        store.forget(product)  # the model was removed or damaged: train it again
    record, made = store.ensure(product, work, write)
    return Trained(str(record.facts["model"]), name, made)


def _is_whole(store: BrainStore, digest: str) -> bool:
    """Whether a model is in the store as it was kept; what is left of a damaged one is removed."""
    try:
        open_head(store, digest)
    except ModelError:
        store.remove_model(digest)
        return False
    return True


def training_metrics(store: BrainStore, brain_id: str, name: str) -> tuple[Record, dict[str, Any]]:
    """The record of a training and its scores by part of the split."""
    product = Product(brain_id, "training", name)
    record = store.require(product, "run train-classifier or train-decoder first")
    return record, json.loads((store.path(product) / METRICS_FILE).read_text())


def _work(
    store: BrainStore,
    brain: Brain,
    labelled: tuple[Section, ...],
    embedding_name: str,
    settings: ProbeSettings | DecoderSettings,
    kind: Kind,
) -> Work:
    hint = "run ingest-brain first"
    inputs = {
        f"embeddings/{one}": record.digest
        for one, record in embedding_records(store, brain, embedding_name, labelled).items()
    }
    for section in labelled:
        one = section.section_id
        inputs[f"labels/{one}"] = store.require(labels_product(brain.brain_id, one), hint).digest
        inputs[f"tissue/{one}"] = store.require(tissue_product(brain.brain_id, one), hint).digest
    table = brain.label_table.model_dump(mode="json") if brain.label_table else {}
    return Work(TRAINING_VERSION, inputs, {"kind": kind, "table": table, **settings.model_dump(mode="json")})


def _open(store: BrainStore, brain_id: str, section_id: str, embedding_name: str) -> LabelledSection:
    return LabelledSection(
        section_id,
        open_embeddings(store, brain_id, embedding_name, section_id),
        open_labels(store, brain_id, section_id),
        open_tissue(store, brain_id, section_id),
    )


def _headline(scores: dict[str, Score]) -> dict[str, float]:
    """`part/metric` -> value, only those that are defined."""
    values = {f"{part}/{name}": value for part, score in scores.items() for name, value in score.metrics().items()}
    return {name: round(value, 6) for name, value in values.items() if np.isfinite(value)}
