"""What is left of a run for people to find: the QC table, the summary, the MLflow row, the report."""

import base64
import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from pydantic import BaseModel

from cytoarch.digests import canonical_json, content_digest
from cytoarch.reporting.alone import thumbnail
from cytoarch.reporting.quality.figures import shown_figures
from cytoarch.steps.brain_metrics import brain_metrics
from cytoarch.steps.familiarity import Familiarity, FamiliarityStep
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.parcellations import is_smoothed_across
from cytoarch.steps.pictures import Shown
from cytoarch.steps.report import INDEX_FILE, RegisteredModel
from cytoarch.steps.report_files import map_pictures
from cytoarch.steps.report_scores import origin
from cytoarch.steps.sections import LABELS, SECTION
from cytoarch.steps.sources import open_head, sections_with
from cytoarch.steps.step import Place, Stored
from cytoarch.steps.tissue import PAGE_FILE, PICTURE_FILE, QUALITY, TISSUE, QualityPageStep
from cytoarch.steps.training import Trained, held_out_labels, training_of
from cytoarch.store.brain_store import BrainStore
from tasks.reports import report_url
from tasks.tracking import BrainLedger, Chosen, ModelVersion, register_head, run_url, tracking_uri

SPOKEN = {
    "headline/macro_f1": "macro-F1, hardest held-out part",
    "held_out/macro_f1": "macro-F1, all held out",
    "held_out/top1": "accuracy, all held out",
    "map/macro_f1": "macro-F1 of the map, sections not learned from",
    "clusters/purity_labels": "purity of clusters against labels",
    "clusters/purity_sections": "purity of clusters against sections",
}
"""How people call the figures of a brain."""
MOST_SHOWN = 200
"""Sections whose pictures are shown on the page of a run; those of more are on the page of quality alone."""
MOST_IN_A_CELL = 55
"""Characters that the page shows of a cell; what is longer is a paragraph, which is not cut."""
_IN_A_CELL = re.compile(r"([\\`*<\[\]|])")
"""What would be markup in a cell of Prefect's older pages; the others show cells as they are, so little is escaped."""
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~])")


class Remembered(NamedTuple):
    """What was made of a brain: the names under which the store holds it."""

    embedding: str
    trained: Trained | None = None
    parcellation: str | None = None
    clusters: str | None = None
    chosen: Chosen | None = None
    """The head of other brains that mapped it, where one did."""

    @property
    def model_digest(self) -> str | None:
        """The head that maps it; None: there is none."""
        return self.trained.digest if self.trained else self.chosen.digest if self.chosen else None

    def shown(self, brain: OpenBrain) -> Shown:
        """What the report shows of it."""
        digest = self.model_digest
        compared = Stored(FamiliarityStep, self.parcellation) if self.parcellation else None
        is_compared = compared is not None and bool(sections_with(brain, compared))
        is_across = self.parcellation is not None and is_smoothed_across(brain, self.parcellation)
        return Shown(self.embedding, self.clusters, self.parcellation, digest, is_compared, is_across)


class Configuration(NamedTuple):
    """What tells one MLflow row from another."""

    configuration: dict[str, Any]
    tags: dict[str, str]


def artifact_key(*parts: str) -> str:
    """A key Prefect accepts: lower-case letters, digits and dashes; names that differ in more than case differ here.

    >>> artifact_key("qc", "B07"), artifact_key("qc", "B_07"), artifact_key("qc", "B-07")
    ('qc-b07', 'qc-b-07-f06009', 'qc-b-07')
    """
    text = "-".join(parts)
    key = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return key if key == text.lower() else f"{key}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def markdown_text(text: str) -> str:
    r"""Text from outside as markdown that shows it as it is.

    >>> markdown_text("s_1 <b>|x|")
    's\\_1 &lt;b&gt;\\|x\\|'
    """
    return _MARKDOWN.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def cell_text(text: str) -> str:
    r"""Text from outside for a cell, which some pages take for markdown and others show as it is.

    >>> cell_text("torn_left 3.5 um"), cell_text("![x](http://a) <b>")
    ('torn_left 3.5 um', '!\\[x\\](http://a) \\<b>')
    """
    return _IN_A_CELL.sub(r"\\\1", " ".join(text.split()))


def publish_section_table(brain: OpenBrain) -> None:
    """The QC table of a brain: every section, kept or not, with the reason and its figures; and small pictures."""
    stated = brain.brain
    rows = []
    for section in stated.sections:
        one = section.section_id
        status = "excluded" if section.exclude else "failed" if one in brain.failed else "kept"
        reason = cell_text(brain.failed.get(one, section.reason))
        row = {"section": one, "number": section.section_number, "status": status, "reason": reason}
        rows.append(row | _figures(brain, one))
    page = report_url(brain.store.root, stated.brain_id, f"{QualityPageStep().product().key}/{PAGE_FILE}")
    said = f"Sections of {stated.brain_id}" + (f": [all pictures and figures]({page})" if page else "")
    create_table_artifact(rows, key=artifact_key("qc", stated.brain_id), description=said)
    pictures = _pictures(brain) if len(stated.sections) <= MOST_SHOWN else ""
    if pictures:  # cells show none
        create_markdown_artifact(pictures, key=artifact_key("pictures", stated.brain_id), description=said)


def _pictures(brain: OpenBrain) -> str:
    """Small pictures of all sections, which open the large ones; blank: there are none, or none are served."""
    lines = []
    for section in brain.brain.sections:
        product = QUALITY.product(section.section_id)
        address = report_url(brain.store.root, brain.brain_id, f"{product.key}/{PICTURE_FILE}")
        if address and brain.catalogue.record(product):
            lines.append(f"[![{section.section_id}]({address}?small)]({address})")
    return "\n".join(lines)


def _figures(brain: OpenBrain, section_id: str) -> dict[str, str]:
    """What the scan of a section is like: a cell for each figure, blank where it is not in the store."""
    quality, tissue = (brain.catalogue.record(one.product(section_id)) for one in (QUALITY, TISSUE))
    shown = shown_figures(quality.facts) if quality else {}
    cells = {name: shown.get(name, "") for name in ("size", "pixel", "tissue", "finest detail", "blurred in parts")}
    return cells | {"look at": cell_text("; ".join(tissue.facts["doubts"])) if tissue else ""}


def publish_summary(brain: OpenBrain, made: int, notes: Mapping[str, str]) -> None:
    """A markdown summary of a run with the map as a small picture, and links to its report and its MLflow run."""
    stated, failed = brain.brain, brain.failed
    lines = [f"# {markdown_text(brain.brain_id)}", ""]
    lines.append(f"{len(brain.sections)} of {len(stated.sections)} sections mapped.")
    lines.append(f"{made} products were made." if made else "Everything was current; nothing was made.")
    lines += [f"- **{markdown_text(one)}** failed: {markdown_text(reason)}" for one, reason in failed.items()]
    pictures = map_pictures(brain)
    if pictures:
        small = f"data:image/jpeg;base64,{base64.b64encode(thumbnail(pictures)).decode()}"
        lines += ["", f"![The map, section by section]({small})"]
    page = report_url(brain.store.root, brain.brain_id)
    if page:
        lines += ["", f"**[Open the report]({page})**"]
        create_link_artifact(page, link_text="Report", key=artifact_key("report", brain.brain_id))
    _publish(brain.brain_id, lines, notes)


def publish_notes(name: str, said: str, notes: Mapping[str, str], table: Sequence[Mapping[str, str]] = ()) -> None:
    """A markdown summary of a run that is not of one map: what it did, a table, and what a person wants to find again.

    All rows of the table have the same columns.
    """
    lines = [f"# {markdown_text(name)}", "", markdown_text(said)]
    if table:
        rows = [
            list(table[0]),
            ["---"] * len(table[0]),
            *([markdown_text(one) for one in row.values()] for row in table),
        ]
        lines += ["", *(f"| {' | '.join(row)} |" for row in rows)]
    _publish(name, lines, notes)


def _publish(name: str, lines: Sequence[str], notes: Mapping[str, str]) -> None:
    """The summary of what has this name, with its notes below it, and a link to its row in MLflow."""
    long = {note: value for note, value in notes.items() if len(value) > MOST_IN_A_CELL and not _is_address(value)}
    told = [text for note, value in long.items() for text in ("", f"**{markdown_text(note)}**: {markdown_text(value)}")]
    rows = [f"| {markdown_text(note)} | {_linked(value)} |" for note, value in notes.items() if note not in long]
    text = "\n".join([*lines, *told, "", "| | |", "|---|---|", *rows])
    create_markdown_artifact(text, key=artifact_key("summary", name))
    if "MLflow run" in notes:
        key = artifact_key("mlflow-run", name)
        create_link_artifact(notes["MLflow run"], link_text="MLflow run", key=key)


def _linked(value: str) -> str:
    """A value as markdown; an address is a link: spelled out it would be linked once more, with what escapes it."""
    return f"[open](<{value}>)" if _is_address(value) else markdown_text(value)


def _is_address(value: str) -> bool:
    return value.startswith(("http://", "https://"))


def configuration_of(settings: BaseModel, unused: Sequence[str]) -> dict[str, Any]:
    """The settings that decide results, by stage, without those of stages that do not run."""
    plain: dict[str, Any] = {}
    for name, value in settings:
        if name in unused:
            continue
        conduct = set(getattr(type(value), "CONDUCT", ()))
        plain[name] = value.model_dump(mode="json", exclude=conduct) if isinstance(value, BaseModel) else value
    return plain


def configuration_tags(brain: OpenBrain, configuration: dict[str, Any], encoder_digest: str) -> Configuration:
    """The tags by which MLflow finds a brain's row again: its settings, what it was made from, the encoder."""
    inputs = {"brain": brain.brain.digest}
    for section in brain.sections:
        for stored in (SECTION, TISSUE, LABELS):
            record = brain.catalogue.record(stored.product(section.section_id))
            if record is not None:
                inputs[f"{record.product.step}/{section.section_id}"] = record.digest
    digest = hashlib.sha256(canonical_json(configuration).encode()).hexdigest()
    tags = {"config_digest": digest, "input_digest": content_digest(inputs), "encoder_digest": encoder_digest}
    return Configuration(configuration, tags)


def remember_model(
    brain: OpenBrain, found: Remembered, metrics: Mapping[str, float], parameters: BaseModel, ledger: BrainLedger
) -> RegisteredModel | None:
    """Make a trained head a version of its registered model, or name that of another brain's head; None: neither."""
    if found.trained is None:
        version = found.chosen.version if found.chosen else None
        return registered(version) if version else None
    record, _ = training_of(brain, found.trained.name)
    scores = {name: value for name, value in metrics.items() if name.partition("/")[0] not in ("sections", "tissue")}
    version = register_head(
        brain.store,
        brain.brain_id,
        found.trained.digest,
        {**record.facts["scores"], **scores},
        parameters.model_dump(mode="json"),
        held_out_labels(record),
        ledger.open,
    )
    return registered(version)


def registered(version: ModelVersion) -> RegisteredModel:
    """A version of a model, as the report shows it."""
    return RegisteredModel(version.name, version.version, version.champion, version.run_id, version.reason)


def notes_of_version(store: BrainStore, version: ModelVersion, run_id: str = "") -> dict[str, str]:
    """What a person wants to know of a version of a model; `run_id` is that of the row, unless it is its training's."""
    return {
        "model": f"{version.name} version {version.version}" + (" (champion)" if version.champion else ""),
        "why": version.reason,
        "MLflow run": run_url(store, run_id or version.run_id),
    }


def model_tags(chosen: Chosen | None) -> dict[str, str]:
    """The tags that say by which head of other brains a brain was mapped."""
    if chosen is None:
        return {}
    tags = {"model_digest": chosen.digest, "model_brains": ", ".join(chosen.card.brains)[:4000]}
    if chosen.version is not None:
        tags |= {"model_name": chosen.version.name, "model_version": str(chosen.version.version)}
    return tags


def notes_of_map(brain: OpenBrain, parcellation: str) -> dict[str, str]:
    """How far a brain lies from what the model that mapped it learned from, as far as that is known."""
    stored: Stored[Any] = Stored(FamiliarityStep, parcellation)
    facts = [stored.record(Place(brain, one)).facts for one in sections_with(brain, stored)]
    compared = Familiarity.of(facts)
    return {"familiarity": compared.sentence()} if compared else {}


def notes_of(
    brain: OpenBrain,
    found: Remembered,
    model: RegisteredModel | None,
    metrics: Mapping[str, float],
    run_page: str | None,
) -> dict[str, str]:
    """What a person wants to find again after a run; `run_page` is that of its row in MLflow, where it is known."""
    home = brain.catalogue.folder
    notes = {"map": str(home / "derived" / "parcellations" / found.parcellation)} if found.parcellation else {}
    notes |= {
        "report": report_url(brain.store.root, brain.brain_id) or str((home / "report" / INDEX_FILE).resolve()),
        "store": str(home),
        **({"MLflow run": run_page} if run_page else {}),
    }
    if not _is_address(tracking_uri(brain.store)):  # a server is found by its run
        notes["MLflow database"] = tracking_uri(brain.store)
    if found.parcellation is not None and found.model_digest is not None:
        card = open_head(brain.store, found.model_digest).card
        notes["mapped by"] = origin(card, brain.brain_id, model.label if model else found.model_digest[:12])
        notes |= notes_of_map(brain, found.parcellation)
    if model is not None:
        notes["model"] = f"{model.name} version {model.version}" + (" (champion)" if model.is_champion else "")
        notes["why"] = model.verdict
    return notes | {spoken: f"{metrics[name]:.3f}" for name, spoken in SPOKEN.items() if name in metrics}


def metrics_of(brain: OpenBrain, found: Remembered) -> dict[str, float]:
    """The figures of a mapped brain."""
    return brain_metrics(brain, found.shown(brain), found.trained.name if found.trained else None)
