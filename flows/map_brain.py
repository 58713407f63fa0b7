"""The chain: from a manifest to maps and a report."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from prefect import flow, get_run_logger

from cytoarch.anatomy.depth import DepthSettings
from cytoarch.anatomy.depth_maps import DepthInput
from cytoarch.brains import Brain
from cytoarch.errors import CytoarchError, ModelError, StoreError
from cytoarch.steps.across import cannot_smooth, notes_across
from cytoarch.steps.depth import DepthStep
from cytoarch.steps.embeddings import EmbeddingsStep
from cytoarch.steps.encoders import encoder_for
from cytoarch.steps.midline import MidlineStep
from cytoarch.steps.models import check_model, misfit, settings_for
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.reconstruction import has_stated_places
from cytoarch.steps.report import RegisteredModel, ReportStep, drawn_steps
from cytoarch.steps.sections import LABELS, ready_sections
from cytoarch.steps.sources import open_head, sections_with
from cytoarch.steps.step import Stored
from cytoarch.steps.training import is_labelled, target_name
from flows.cluster_brain import cluster_brain
from flows.embed_brain import embed_brain
from flows.ingest_brain import ingest_brain
from flows.parameters import BrainSource, MapSettings, RunSettings, StoredBrain
from flows.parcellate_brain import parcellate_brain
from flows.reconstruct_brain import reconstruct_brain
from flows.stages import (
    Summary,
    Traced,
    final_state,
    for_each_brain,
    held_brain,
    run_name,
    run_steps,
    run_whole,
    workers,
)
from flows.trace_cortex import trace_cortex
from flows.training import train_on_brain
from tasks.cancelling import HOOKS
from tasks.progress import Stages, watched
from tasks.rows import class_metrics, duration_metrics, ended_by, remains_of
from tasks.summaries import (
    Remembered,
    configuration_of,
    configuration_tags,
    metrics_of,
    model_tags,
    notes_of,
    publish_section_table,
    publish_summary,
    remember_model,
)
from tasks.tracking import (
    CLUSTERS,
    BrainLedger,
    Chosen,
    Question,
    TrackingLine,
    choose_model,
    log_failed_ingestion,
    needed,
    of_brains,
    run_url,
)


@flow(name="map-brain", flow_run_name=run_name("map"), **HOOKS)
def map_brain(source: BrainSource, settings: MapSettings = MapSettings(), run: RunSettings = RunSettings()) -> Summary:
    """Map a whole brain: ingest, tissue, embed, reconstruct, trace, train, parcellate, smooth, cluster, report.

    A brain without labels is mapped by a model of other brains, where one is asked for. A step whose result is current
    is not done again.

    Args:
        source: The manifest, the scans and the store.
        settings: How the brain is mapped, stage by stage.
        run: How the work is spread.

    """
    brains = source.brains()
    if not settings.model:
        encoder_for(settings.embed)  # an encoder that cannot be loaded is found before any section is read
    if len(brains) > 1:
        return for_each_brain(map_brain, source, brains, {"settings": settings, "run": run})
    _check_places(brains[0], settings)
    with held_brain(source.store_path, brains[0]) as brain, watched() as stages:
        line = TrackingLine(brain.store, get_run_logger())
        made = _ingested(source, settings, run, brain, line)
        chosen = _chosen(brain, settings)
        if chosen is not None:
            settings = settings.model_copy(update={"embed": settings_for(chosen.card, settings.embed)})
        kept = Kept(line, _ledger(brain, settings, chosen), stages)
        kept.echo()
        if made:
            line.try_once("this run", kept.ledger.open)
        try:
            return final_state(_map(brain, settings, run, kept, made, chosen))
        except BaseException as error:
            status, spent = ended_by(error), duration_metrics(stages.seconds)
            line.try_once("how this run ended", lambda: kept.ledger.end_early(spent, status))
            raise


def _check_places(brain: Brain, settings: MapSettings) -> None:
    """Raise StoreError where a map is to be smoothed across sections that have no places: before any is read."""
    is_mapped = bool(settings.model) or any(one.labels is not None for one in brain.kept)
    if settings.across.method == "none" or not is_mapped or has_stated_places(brain, settings.align.spacing_um):
        return
    raise StoreError(
        f"brain {brain.brain_id}: maps cannot be smoothed from section to section, since nothing says "
        "where sections lie along the cutting axis; state position_um of every section or one thickness_um in the "
        "manifest, or align.spacing_um, or set across.method to none"
    )


class Kept(NamedTuple):
    """What MLflow keeps of a run."""

    line: TrackingLine
    ledger: BrainLedger
    stages: Stages
    """What each stage did and took so far."""

    def echo(self) -> None:
        """Log what the stages of flows that were called have logged in theirs."""
        self.stages.log(get_run_logger())


def _ingested(
    source: BrainSource, settings: MapSettings, run: RunSettings, brain: OpenBrain, line: TrackingLine
) -> int:
    """Ingest; returns how much was made. A brain that cannot be ingested leaves a row in MLflow."""
    try:
        one = source.model_copy(update={"brain_id": brain.brain_id})
        made: int = ingest_brain(one, settings.ingest, settings.tissue, run).made
        check_left(brain, len(ready_sections(brain)), "ingested")
    except BaseException as error:
        reason, status = str(error) or type(error).__name__, ended_by(error)
        asked = _question(brain.brain, settings, None)
        line.try_once(
            "that ingestion failed", lambda: log_failed_ingestion(brain.store, brain.brain_id, asked, reason, status)
        )
        raise
    return made


def measured_depth(brain: OpenBrain, kind: DepthInput, settings: DepthSettings, run: RunSettings) -> int:
    """Measure the depth that the head is told of, where it is told of any; returns for how many sections."""
    if kind == "none":
        return 0
    with workers(run) as runner:
        step = DepthStep(settings.model_copy(update={"kind": kind}))
        return run_steps("measure depth", runner, brain, [step], run, ready_sections(brain))


def _chosen(brain: OpenBrain, settings: MapSettings) -> Chosen | None:
    """The head that was asked for, once it is known to read this brain; None: the brain's own labels are learned."""
    if not settings.model:
        return None
    target = target_name(settings.train)
    chosen = needed(
        brain.store,
        f"the model {settings.model}",
        lambda: choose_model(brain.store, settings.model, target, lambda card: misfit(card, brain), (settings.embed,)),
    )
    try:
        check_model(chosen.card, brain)
    except ModelError as error:
        raise ModelError(f"{settings.model} cannot map {brain.name}: {error}") from None
    return chosen


def _map(
    brain: OpenBrain, settings: MapSettings, run: RunSettings, kept: Kept, made: int, chosen: Chosen | None
) -> Summary:
    """Everything after ingestion."""
    stored = StoredBrain(brain_id=brain.brain_id, store_path=brain.store.root)
    embedded = embed_brain(stored, settings.embed, run=run)  # first: it finds what cannot be embedded at once
    kept.echo()
    if settings.reconstruct != "none":
        made += reconstruct_brain(stored, settings.align, settings.volume, cortex="none").made
        kept.echo()
    notes: dict[str, str] = {}
    embeddings = Stored(EmbeddingsStep, embedded.embedding)
    across, is_mapped = settings.across, chosen is not None or is_labelled(brain, embeddings)
    if settings.is_traced(is_mapped):
        traced = _traced(stored, settings, run)
        made, notes = made + traced.made, dict(traced.notes)
        across = across.model_copy(update={"midline": across.midline or traced.midline})
        kept.echo()
        reason = "" if across.method == "none" else cannot_smooth(brain, Stored(MidlineStep, across.midline))
        if reason and is_mapped:  # the map is drawn nevertheless
            across = across.model_copy(update={"method": "none"})
            notes["across sections"] = f"nothing is smoothed: {reason}"
    check_left(brain, len(sections_with(brain, embeddings)), "embedded")
    made += embedded.made
    found = Remembered(embedded.embedding, chosen=chosen)
    if chosen is not None:
        made += measured_depth(brain, chosen.card.depth, settings.depth, run)
    elif is_labelled(brain, embeddings):
        made += measured_depth(brain, settings.train.depth, settings.depth, run)
        trained = train_on_brain(brain, embedded.embedding, settings.train, settings.head)
        made += trained.made
        found = found._replace(trained=trained)
    digest = found.model_digest
    if digest is not None:
        along: DepthInput = "laplace" if settings.smooth.order == "depth" else "none"
        made += measured_depth(brain, along, settings.depth, run)
        mapped = parcellate_brain(
            stored,
            digest,
            embedded.embedding,
            settings.parcellate,
            settings.smooth,
            settings.embed.device,
            settings.embed.batch_size,
            across=across,
            run=run,
        )
        made += mapped.made
        kept.echo()
        found = found._replace(parcellation=mapped.parcellation)
        if across.method != "none":
            notes |= notes_across(brain, mapped.parcellation, open_head(brain.store, digest).card)
    clustered = cluster_brain(stored, embedded.embedding, settings.cluster, run=run)
    made += clustered.made
    kept.echo()
    return _remembered(brain, found._replace(clusters=clustered.clusters), settings, run, kept, made, notes)


def _traced(brain: StoredBrain, settings: MapSettings, run: RunSettings) -> Traced:
    """Trace the cortex; where its middle cannot be made a surface, as every section has it, which is noted."""
    reason = ""
    try:
        traced = trace_cortex(brain, settings.depth, settings.midline, settings.surface, run=run)
    except CytoarchError as error:
        if settings.midline.line != "surface":
            raise
        reason = f"none: {error}. Lines are those that every section has by its own depth"
        get_run_logger().warning("surface: %s", reason)
        traced = trace_cortex(brain, settings.depth, settings.midline.model_copy(update={"line": "depth"}), run=run)
    return replace(traced, notes={**traced.notes, **({"surface": reason} if reason else {})})


def _remembered(
    brain: OpenBrain,
    found: Remembered,
    settings: MapSettings,
    run: RunSettings,
    kept: Kept,
    made: int,
    noted: Mapping[str, str],
) -> Summary:
    """Register the model, draw the report, log the figures, and leave a summary, with what was noted on the way.

    Where MLflow does not answer, the report is drawn without the model's version before MLflow is waited for.
    """
    line, ledger = kept.line, kept.ledger
    metrics = metrics_of(brain, found)

    def registered() -> RegisteredModel | None:
        return remember_model(brain, found, metrics, settings.train, ledger)

    model = line.try_once("the model", registered)
    is_known = line.try_once("this run", lambda: ledger.finished)
    drawn = _drawn(brain, found, settings, run, model)
    if line.left:
        model = line.tell("the model", registered) or model
        drawn += _drawn(brain, found, settings, run, model)
    made += drawn
    if made or not is_known:
        line.tell("this run", ledger.open)
    page = line.tell("this run", lambda: _told(brain, found, kept, metrics))
    notes = {**notes_of(brain, found, model, metrics, page), **noted}
    notes |= {"MLflow does not know": line.left} if line.left else {}
    publish_section_table(brain)
    publish_summary(brain, made, notes)
    return Summary(brain.brain_id, made, dict(brain.failed), notes)


def _drawn(
    brain: OpenBrain, found: Remembered, settings: MapSettings, run: RunSettings, model: RegisteredModel | None
) -> int:
    """Draw the report; returns 1 if it was drawn, 0 if it was current."""
    shown = found.shown(brain)
    with workers(run) as runner:
        run_steps("draw", runner, brain, drawn_steps(shown), run)
    training = found.trained.name if found.trained else None
    step = ReportStep.of(found.embedding, shown, training, model, settings.reconstruct != "none")
    return run_whole("report", brain, step)


def _told(brain: OpenBrain, found: Remembered, kept: Kept, metrics: Mapping[str, float]) -> str:
    """Log what is left of a run and end its row, where it was opened; returns the address of its page."""
    ledger = kept.ledger
    if ledger.opened:
        figures = {**metrics, **class_metrics(brain, found), **duration_metrics(kept.stages.seconds)}
        remains = remains_of(brain, found, ledger.tags["input_digest"])
        ledger.close(figures, map_name=found.parcellation, remains=remains)
    return run_url(brain.store, str(ledger.run_id))


def check_left(brain: OpenBrain, count: int, done: str) -> None:
    """Raise StoreError, with all reasons, if no section got so far."""
    if not count:
        reasons = "; ".join(f"{one}: {reason}" for one, reason in brain.failed.items())
        raise StoreError(f"{brain.name}: no section could be {done} ({reasons})")


def _ledger(brain: OpenBrain, settings: MapSettings, chosen: Chosen | None) -> BrainLedger:
    """The MLflow row of this brain, configuration and input."""
    others = [one for one in ("probe", "decoder", "context") if one != settings.head]
    labelled = bool(sections_with(brain, LABELS))
    unused = [*others, "model"] if chosen is None and labelled else [*others, settings.head, "head"]
    if chosen is None and not labelled:  # nothing is mapped
        unused += ["model", "parcellate", "smooth"]
    unused += ["across"] if settings.across.method == "none" or "parcellate" in unused else []
    unused += ["align", "volume"] if settings.reconstruct == "none" else []
    if not settings.is_traced(chosen is not None or labelled):
        is_told = settings.train.depth != "none" if chosen is None else chosen.card.depth != "none"
        is_followed = settings.smooth.order == "depth" and "smooth" not in unused
        unused += ["midline", "surface", *([] if is_told or is_followed else ["depth"])]
    elif settings.midline.line != "surface":
        unused.append("surface")
    configuration = configuration_of(settings, unused=unused)
    if chosen is not None:
        configuration["model"] = chosen.digest
    tags = configuration_tags(brain, configuration, encoder_for(settings.embed).digest)
    question = _question(brain.brain, settings, chosen)
    return BrainLedger(brain.store, brain.brain, tags.configuration, tags.tags | model_tags(chosen), question)


def _question(brain: Brain, settings: MapSettings, chosen: Chosen | None) -> Question:
    """What the row of a brain answers: how well the classes are told that it is mapped in, where it is."""
    if chosen is not None:
        return of_brains(chosen.card.target)
    is_mapped = bool(settings.model) or any(one.labels is not None for one in brain.kept)
    return of_brains(target_name(settings.train)) if is_mapped else CLUSTERS
