"""What is left of a run for people to find: the QC table, the summary, the MLflow row, the report."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from pydantic import BaseModel

from cytoarch.brains import Brain, Section
from cytoarch.contents import labels_product, section_product, tissue_product
from cytoarch.digests import canonical_json, content_digest
from cytoarch.store.brain_store import BrainStore
from tasks.clusters import cluster_purities
from tasks.learning import Trained, held_out_labels, training_metrics
from tasks.reports import Mapped, map_metrics, write_report
from tasks.sections import Outcome
from tasks.tracking import BrainLedger, register_head, run_url, tracking_uri

NO_MARK = {"embed": {"device", "batch_size"}, "ingest": {"rehash", "threads", "memory_gb", "stall_s"}}
"""Settings by stage that do not decide results."""


class Remembered(NamedTuple):
    """What was made of a brain so far."""

    embedding: str
    trained: Trained | None = None
    parcellation: str | None = None
    clusters: str | None = None


class Configuration(NamedTuple):
    """What tells one MLflow row from another."""

    configuration: dict[str, Any]
    tags: dict[str, str]


def artifact_key(*parts: str) -> str:
    """A key Prefect accepts: lower-case letters, digits and dashes.

    >>> artifact_key("qc", "B_07")
    'qc-b-07'
    """
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def publish_section_table(brain: Brain, outcomes: Sequence[Outcome]) -> None:
    """The QC table of a brain: every section, kept or not, with the reason."""
    by_id = {outcome.section_id: outcome for outcome in outcomes}
    rows = []
    for section in brain.sections:
        outcome = by_id.get(section.section_id)
        status = "excluded" if section.exclude else "kept" if outcome is None else outcome.status
        reason = section.reason if outcome is None else outcome.reason
        rows.append(
            {"section": section.section_id, "number": section.section_number, "status": status, "reason": reason}
        )
    create_table_artifact(rows, key=artifact_key("qc", brain.brain_id), description=f"Sections of {brain.brain_id}")


def publish_summary(brain: Brain, made: int, failed: Mapping[str, str], notes: Mapping[str, str]) -> None:
    """A markdown summary of a run, and a link to its MLflow run."""
    lines = [f"# {brain.brain_id}", "", f"{len(brain.kept) - len(failed)} of {len(brain.sections)} sections mapped."]
    lines.append(f"{made} products were made." if made else "Everything was current; nothing was made.")
    lines += [f"- **{one}** failed: {reason}" for one, reason in failed.items()]
    lines += ["", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in notes.items())]
    create_markdown_artifact("\n".join(lines), key=artifact_key("summary", brain.brain_id))
    create_link_artifact(notes["MLflow run"], link_text="MLflow run", key=artifact_key("mlflow-run", brain.brain_id))


def configuration_tags(
    store: BrainStore, brain: Brain, sections: Sequence[Section], settings: Mapping[str, Any], encoder_digest: str
) -> Configuration:
    """The settings that decide results, and the tags by which MLflow finds a brain's row again."""
    plain = {
        name: value.model_dump(mode="json", exclude=NO_MARK.get(name, set())) if isinstance(value, BaseModel) else value
        for name, value in settings.items()
    }
    other = "decoder" if settings["head"] == "probe" else "probe"
    used = {name: value for name, value in plain.items() if name != other}
    inputs = {"brain": brain.digest}
    for section in sections:
        for product in (section_product, tissue_product, labels_product):
            record = store.record(product(brain.brain_id, section.section_id))
            if record is not None:
                inputs[f"{record.step}/{section.section_id}"] = record.digest
    digest = hashlib.sha256(canonical_json(used).encode()).hexdigest()
    tags = {"config_digest": digest, "input_digest": content_digest(inputs), "encoder_digest": encoder_digest}
    return Configuration(used, tags)


def remember(
    store: BrainStore,
    brain: Brain,
    sections: tuple[Section, ...],
    failed: dict[str, str],
    found: Remembered,
    ledger: BrainLedger,
    made: int,
    train_settings: BaseModel,
) -> tuple[int, dict[str, str]]:
    """Register the model, log the figures, draw the report; returns whether the report was drawn, and what to show."""
    metrics: dict[str, float] = {
        "sections/mapped": len(sections),
        "sections/failed": len(failed),
        "sections/excluded": len(brain.sections) - len(brain.kept),
        "tissue/area_mm2": sum(_tissue_mm2(store, section) for section in sections),
    }
    model = None
    if found.trained is not None and found.parcellation is not None:
        record, _ = training_metrics(store, brain.brain_id, found.trained.name)
        metrics |= record.facts["scores"]
        metrics |= map_metrics(store, brain.brain_id, sections, found.trained.name, found.parcellation)
        scores = {
            name: value
            for name, value in metrics.items()
            if "/" in name and not name.startswith(("sections", "tissue"))
        }
        parameters = train_settings.model_dump(mode="json")
        split = held_out_labels(record)
        model = register_head(store, brain.brain_id, found.trained.digest, scores, parameters, split, ledger.open)
    if found.clusters is not None:
        metrics |= cluster_purities(store, brain.brain_id, sections, found.clusters)
    if made or not ledger.finished:
        ledger.open()
    mapped = Mapped(
        embedding=found.embedding,
        colours=found.embedding,
        training=found.trained.name if found.trained else None,
        parcellation=found.parcellation,
        clusters=found.clusters,
        model=model,
        model_digest=found.trained.digest if found.trained else None,
    )
    drawn = write_report(store.root, brain, sections, failed, mapped, metrics)
    ledger.close({name: value for name, value in metrics.items() if np.isfinite(value)})
    home = store.brain_path(brain.brain_id)
    notes = {"map": str(home / "derived" / "parcellations" / found.parcellation)} if found.parcellation else {}
    notes |= {
        "report": str((home / "report" / "index.html").resolve()),
        "store": str(home),
        "MLflow run": run_url(store, str(ledger.run_id)),
        "MLflow database": tracking_uri(store),
    }
    if model is not None:
        notes["model"] = f"{model.name} version {model.version}" + (" (champion)" if model.champion else "")
        notes["champion"] = model.reason
    shown = ("held_out/macro_f1", "held_out/top1", "map/macro_f1", "clusters/purity_labels", "clusters/purity_sections")
    notes |= {name: f"{metrics[name]:.3f}" for name in shown if name in metrics}
    return int(drawn), notes


def _tissue_mm2(store: BrainStore, section: Section) -> float:
    record = store.require(tissue_product(section.brain_id, section.section_id), "run ingest-brain first")
    return float(record.facts["area_mm2"])
