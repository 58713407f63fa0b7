"""One model of several brains, scored on brains and parts of brains that it has not seen."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from prefect import flow, get_run_logger
from pydantic import Field, field_validator, model_validator

from cytoarch.embeddings import AcrossBrainsSettings, EmbedSettings, working_pixel_size_um
from cytoarch.errors import StoreError
from cytoarch.learning.studies import ALL, OTHERS, Role
from cytoarch.learning.training import ContextSettings, DecoderSettings, HeadSettings, ProbeSettings
from cytoarch.paths import ID_PATTERN
from cytoarch.settings import Settings
from cytoarch.steps.embeddings import EmbeddingsStep, overlooked, section_facts
from cytoarch.steps.encoders import encoder_for
from cytoarch.steps.opened import open_study, read_only
from cytoarch.steps.scales import ScaleStep
from cytoarch.steps.sections import LABELS
from cytoarch.steps.sources import sections_with
from cytoarch.steps.step import Place, Stored
from cytoarch.steps.studies import SCORES_FILE, StudyStep
from cytoarch.steps.training import target_name
from cytoarch.store.brain_store import BrainStore
from flows.embed_brain import embed_brain
from flows.parameters import RunSettings, StoredBrain, refuse_repeated, split_names
from flows.places import DEFAULT_STORE
from flows.stages import Summary, final_state, held_brain, run_in_study, run_whole
from tasks.cancelling import HOOKS
from tasks.summaries import notes_of_version, publish_notes
from tasks.tracking import TrackingLine, log_study, register_head

SPOKEN_SCORES = {"macro_f1": "macro-F1", "top1": "accuracy"}


class StudyChoice(Settings):
    """Which brains a study is made of. Several are given one after the other or with commas between them."""

    name: str = Field(pattern=ID_PATTERN, description="Name of the study: its folder below studies/, and its model's.")
    brains: tuple[str, ...] = Field(min_length=1, max_length=1000, description="Brains whose labels are learned from.")
    transfer: tuple[str, ...] = Field(
        default=(), max_length=1000, description="Brains that are scored only, and may be used to compare settings."
    )
    unseen: tuple[str, ...] = Field(
        default=(), max_length=1000, description="Brains that are scored only, and kept back from every choice."
    )
    target: str = Field(
        default="areas", pattern=r"^[a-z][a-z0-9-]{0,15}$", description="What the labels are: areas, layers, ..."
    )
    seeds: int = Field(default=3, ge=1, le=100, description="Fits of every model, each with another seed.")
    store_path: Path = Field(default=DEFAULT_STORE, description="Folder of the store that holds the brains.")

    _split = field_validator("brains", "transfer", "unseen", mode="before")(split_names)

    @model_validator(mode="after")
    def _each_once(self) -> "StudyChoice":
        refuse_repeated([*self.brains, *self.transfer, *self.unseen], "a brain has one place in a study")
        return self

    @property
    def roles(self) -> dict[str, Role]:
        """What each brain is there for."""
        roles: dict[str, Role] = dict.fromkeys(self.brains, "seen")
        return roles | dict.fromkeys(self.transfer, "transfer") | dict.fromkeys(self.unseen, "unseen")


@flow(name="study", flow_run_name="study-{study.name}", **HOOKS)
def study(
    study: StudyChoice,
    embed: AcrossBrainsSettings = AcrossBrainsSettings(),
    head: Literal["probe", "decoder", "context"] = "probe",
    probe: ProbeSettings = ProbeSettings(),
    decoder: DecoderSettings = DecoderSettings(),
    context: ContextSettings = ContextSettings(),
    run: RunSettings = RunSettings(),
) -> Summary:
    """Train one model on several labelled brains, score it on brains and sections it has not seen, register it.

    Beside it, models of all brains but one and of each brain alone are scored, each with several seeds.

    Args:
        study: The brains, and what each is there for.
        embed: The encoder and how it sees the sections of all brains; by default two side by side, the bank of filters
            and the middle stages of EfficientNet-Lite0, which carry further to other brains than either alone.
        head: probe (linear, token by token), decoder (layers fused, cells of 4 px) or context (convolutions over the
            tokens around).
        probe: How a probe is trained.
        decoder: How a decoder is trained.
        context: How a context head is trained.
        run: How the work is spread.

    """
    store = BrainStore(study.store_path)
    of_head: dict[str, HeadSettings] = {"probe": probe, "decoder": decoder, "context": context}
    settings = of_head[head].model_copy(update={"target": study.target})
    seen = _one_pixel_size(study, EmbedSettings.model_validate(embed.model_dump()))
    made = 0
    names = set()
    for brain_id in study.roles:
        stored = StoredBrain(brain_id=brain_id, store_path=study.store_path)
        embedded = embed_brain(stored, seen, run=run)
        embeddings = Stored(EmbeddingsStep, embedded.embedding)
        names.add(embedded.embedding)
        made += embedded.made
        with held_brain(study.store_path, brain_id) as brain:
            if not sections_with(brain, LABELS):
                raise StoreError(f"{brain.name} has no labels in the store; ingest it with a manifest that names some")
            made += run_whole("fit scale", brain, ScaleStep.of(embeddings))
    if len(names) > 1:
        listed = ", ".join(sorted(names))
        raise StoreError(f"the brains are embedded in {len(names)} ways ({listed}): their sections differ in channels")
    seeds = tuple(range(settings.seed, settings.seed + study.seeds))
    step = StudyStep.of(study.roles, Stored(EmbeddingsStep, names.pop()), head, settings, seeds)
    with open_study(study.store_path, study.name) as opened:
        place = Place(opened)
        made += run_in_study("study", opened, step)
        record, training = step.stored.record(place), step.stored.open(place)
        digest = store.models.add(training.head)
        folder = opened.catalogue.path(step.product())
        parameters = {"study": study.model_dump(mode="json"), head: settings.model_dump(mode="json")}
        question = {key: value for key, value in record.inputs.items() if "/labels/" in key}
        question |= {f"role/{one}": role for one, role in study.roles.items()}

        def told() -> dict[str, str]:
            figures = record.facts["scores"]
            run_id = log_study(
                store,
                study.name,
                target_name(settings),
                record.fingerprint,
                study.roles,
                figures,
                parameters,
                folder,
                training.scores,
            )
            version = register_head(store, study.name, digest, figures, parameters[head], question, lambda: run_id)
            return notes_of_version(store, version, run_id)

        line = TrackingLine(store, get_run_logger())
        registered = line.tell("the study and its model", told)
    scores = folder / SCORES_FILE
    notes = {"model digest": digest, "scores": str(scores), **(registered or {"MLflow does not know": line.left})}
    _say(study, head, scores, notes)
    notes |= {name: f"{value:.3f}" for name, value in record.facts["scores"].items()}
    return final_state(Summary(study.name, made, {}, notes), of="study")


def _say(study: StudyChoice, head: str, scores_path: Path, notes: Mapping[str, str]) -> None:
    """What the study found, in the log and as a summary: the scores of the model of all brains, and of all but one."""
    with scores_path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] in (ALL, OTHERS)]
    shown = [{"model of": row["model"], "on": row["brain"], "part": row["part"], **_spoken(row)} for row in rows]
    for row in shown:
        get_run_logger().info(", ".join(f"{name} {value}" for name, value in row.items()))
    model = notes.get("model", "not registered yet")
    get_run_logger().info("model: %s", model)
    said = f"One {head} for {study.target} of {', '.join(study.brains)}, {study.seeds} seeds: {model}."
    publish_notes(study.name, said, notes, shown)


def _spoken(row: Mapping[str, str]) -> dict[str, str]:
    return {name: f"{float(row[key]):.3f} ± {float(row[f'{key}_sd']):.3f}" for key, name in SPOKEN_SCORES.items()}


def _one_pixel_size(study: StudyChoice, embed: EmbedSettings) -> EmbedSettings:
    """The settings with the one pixel size that all brains are read at: the coarsest one's, where none is asked for.

    Raises StoreError where a brain is not ingested, or the encoder would see one channel of several that nobody chose.
    """
    sizes, encoder = [], encoder_for(embed)
    for brain_id in study.roles:
        brain = read_only(study.store_path, brain_id)
        found = [float(facts["pixel_size_um"]) for facts in section_facts(brain).values()]
        if not found:
            raise StoreError(f"{brain.name}: no section is ingested; run ingest-brain")
        if said := overlooked(brain, embed, encoder):
            raise StoreError(said)
        sizes += found
    return embed.model_copy(update={"pixel_size_um": working_pixel_size_um(embed, encoder, sizes)})
