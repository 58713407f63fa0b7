"""What a brain's row in MLflow says beside its figures: files to look at, data, tags, a title and a sentence."""

import hashlib
import posixpath
import re
from collections.abc import Iterable, Mapping

from prefect.exceptions import CancelledRun, PrefectSignal

from cytoarch.digests import canonical_json
from cytoarch.steps.embeddings import EmbeddingsStep
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.report_files import report_files, scored_classes
from cytoarch.steps.sections import SECTION
from cytoarch.steps.sources import open_head, sections_with
from cytoarch.steps.step import Place, Stored
from cytoarch.steps.training import held_out_labels, training_of
from tasks.summaries import Remembered
from tasks.tracking import Context, Dataset, Remains, Status

MOST_CLASSES = 60
"""Scores of single classes are figures of a row where there are no more: MLflow draws a chart for each."""
_STATED = ("species", "stain", "plane")


def remains_of(brain: OpenBrain, found: Remembered, input_digest: str) -> Remains:
    """What is left of a mapped brain beside its figures."""
    facts = brain_tags(brain)
    training = found.trained.name if found.trained else None
    title, said = _told(brain, found, facts)
    datasets = [Dataset(brain.brain_id, input_digest, "mapped", f"brains/{brain.brain_id}"), *_labels(brain, found)]
    return Remains(report_files(brain, found.shown(brain), training), datasets, facts, title, said)


def class_metrics(brain: OpenBrain, found: Remembered) -> dict[str, float]:
    """`f1/CLASS` of every class that has one, as the report's table of classes has it."""
    rows = scored_classes(brain, found.shown(brain), found.trained.name if found.trained else None)
    if len(rows) > MOST_CLASSES:
        return {}
    return {f"f1/{metric_name(str(row['name']))}": float(row["f1"]) for row in rows if row["f1"] != "-"}


def duration_metrics(seconds: Mapping[str, float]) -> dict[str, float]:
    """The seconds of each stage as figures.

    >>> duration_metrics({"measure depth": 1.5})
    {'duration/measure_depth_s': 1.5}
    """
    return {f"duration/{title.replace(' ', '_')}_s": round(value, 3) for title, value in seconds.items()}


def metric_name(text: str) -> str:
    """A name as MLflow takes it in that of a figure; names that differ stay different.

    >>> metric_name("Layer 2/3"), metric_name("hOc1 [V1]"), metric_name("a/../b")
    ('Layer 2/3', 'hOc1 _V1_-4cf3b4', 'a_.._b-900ea8')
    """
    name = re.sub(r"[^A-Za-z0-9_\-. /]", "_", text)
    if posixpath.normpath(f"f1/{name}") != f"f1/{name}":  # MLflow takes names for paths
        name = name.replace("/", "_").strip("._ ") or "_"
    return name if name == text else f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def brain_tags(brain: OpenBrain) -> dict[str, str]:
    """What a brain is, as far as its manifest and scans say: species, stain, plane, pixel size, how many sections."""
    stated = {name: _values(getattr(one, name) for one in brain.sections) for name in _STATED}
    images = [SECTION.open(Place(brain, one)) for one in sections_with(brain, SECTION)[:1]]
    sizes = {"pixel_size_um": f"{images[0].attributes['pixel_size_um']:g}"} if images else {}
    tags = {**stated, **sizes, "sections": str(len(brain.sections))}
    return {name: value for name, value in tags.items() if value}


def ended_by(error: BaseException) -> Status:
    """How MLflow calls the end of a run: a run that somebody stopped did not fail."""
    stopped = isinstance(error, PrefectSignal | CancelledRun | KeyboardInterrupt | SystemExit)
    return "KILLED" if stopped else "FAILED"


def _told(brain: OpenBrain, found: Remembered, facts: Mapping[str, str]) -> tuple[str, str]:
    """The title of a row, and what it is in two sentences."""
    encoder = found.embedding
    embedded = sections_with(brain, Stored(EmbeddingsStep, found.embedding))
    if embedded:
        record = Stored(EmbeddingsStep, found.embedding).record(Place(brain, embedded[0]))
        encoder = str(record.facts["embedding"]["encoder"])
    what = f"clusters on {encoder}"
    mapped = f"Nobody labelled it and no model was asked for: clusters of {encoder} embeddings only."
    if found.model_digest is not None:
        card = open_head(brain.store, found.model_digest).card
        what = f"{card.target} by {card.kind} on {card.embedding.encoder}"
        by = "trained on its own labels" if found.trained else f"of {', '.join(card.brains[:12]) or 'unstated brains'}"
        mapped = f"Mapped {what} at {card.pixel_size_um:g} um, {by}."
    stated = ", ".join(facts[name] for name in _STATED if name in facts)
    size = f" of {facts['pixel_size_um']} um" if "pixel_size_um" in facts else ""
    count = f"{facts['sections']} sections{size}"
    return f"{brain.brain_id}: {what}", f"Brain {brain.brain_id}{f' ({stated})' if stated else ''}, {count}. {mapped}"


def _labels(brain: OpenBrain, found: Remembered) -> list[Dataset]:
    """The labels that were learned from and those that were held out, each with a digest of all of them."""
    if found.trained is None:
        return []
    record, _ = training_of(brain, found.trained.name)
    held_out = held_out_labels(record)
    labels = {key.removeprefix("labels/"): value for key, value in record.inputs.items() if key.startswith("labels/")}
    learned = {one: value for one, value in labels.items() if one not in held_out}
    source = f"brains/{brain.brain_id}/sections.ome.zarr"
    name = f"labels of {brain.brain_id}"
    parts: tuple[tuple[Context, dict[str, str]], ...] = (("training", learned), ("held_out", held_out))
    return [
        Dataset(name, hashlib.sha256(canonical_json(chosen).encode()).hexdigest(), context, source)
        for context, chosen in parts
        if chosen
    ]


def _values(column: Iterable[str]) -> str:
    """The values of a column that are stated."""
    return "/".join(sorted({value for value in column if value != "unstated"}))
