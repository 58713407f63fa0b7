"""The chain: from a manifest to maps and a report."""

from prefect import flow

from cytoarch.anatomy.depth import DepthSettings
from cytoarch.anatomy.depth_maps import DepthInput
from cytoarch.errors import ModelError, StoreError
from cytoarch.steps.depth import DepthStep
from cytoarch.steps.embeddings import EmbeddingsStep
from cytoarch.steps.encoders import encoder_for
from cytoarch.steps.models import check_model, misfit, settings_for
from cytoarch.steps.opened import OpenBrain, open_brain
from cytoarch.steps.report import ReportStep, drawn_steps
from cytoarch.steps.running import Outcome
from cytoarch.steps.sections import ready_sections
from cytoarch.steps.sources import sections_with
from cytoarch.steps.step import Stored
from cytoarch.steps.training import is_labelled, target_name
from flows.cluster_brain import cluster_brain
from flows.embed_brain import embed_brain
from flows.ingest_brain import ingest_brain
from flows.parameters import BrainSource, MapSettings, RunSettings, StoredBrain
from flows.parcellate_brain import parcellate_brain
from flows.reconstruct_brain import reconstruct_brain
from flows.stages import Summary, final_state, for_each_brain, run_name, run_steps, run_whole, workers
from flows.training import train_on_brain
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
from tasks.tracking import BrainLedger, Chosen, choose_model


@flow(name="map-brain", flow_run_name=run_name("map"))
def map_brain(
    source: BrainSource = BrainSource(), settings: MapSettings = MapSettings(), run: RunSettings = RunSettings()
) -> Summary:
    """Map a whole brain: ingest, tissue, embed, reconstruct, train, parcellate, smooth, cluster, report.

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
    with open_brain(source.store_path, brains[0]) as brain:
        ingested: Summary = ingest_brain(
            source.model_copy(update={"brain_id": brain.brain_id}), settings.ingest, settings.tissue, run
        )
        check_left(brain, len(ready_sections(brain)), "ingested")
        chosen = _chosen(brain, settings)
        if chosen is not None:
            settings = settings.model_copy(update={"embed": settings_for(chosen.card, settings.embed)})
        ledger = _ledger(brain, settings, chosen)
        if ingested.made:
            ledger.open()
        try:
            return final_state(_map(brain, settings, run, ledger, ingested.made, chosen))
        except BaseException:
            ledger.close({}, failed=True)
            raise


def measured_depth(brain: OpenBrain, kind: DepthInput, run: RunSettings) -> int:
    """Measure the depth that the head is told of, where it is told of any; returns for how many sections."""
    if kind == "none":
        return 0
    with workers(run) as runner:
        step = DepthStep(DepthSettings(kind=kind))
        return run_steps("measure depth", runner, brain, [step], run, ready_sections(brain))


def _chosen(brain: OpenBrain, settings: MapSettings) -> Chosen | None:
    """The head that was asked for, once it is known to read this brain; None: the brain's own labels are learned."""
    if not settings.model:
        return None
    target = target_name(settings.train)
    chosen = choose_model(brain.store, settings.model, target, lambda card: misfit(card, brain), (settings.embed,))
    try:
        check_model(chosen.card, brain)
    except ModelError as error:
        raise ModelError(f"{settings.model} cannot map {brain.name}: {error}") from None
    return chosen


def _map(
    brain: OpenBrain, settings: MapSettings, run: RunSettings, ledger: BrainLedger, made: int, chosen: Chosen | None
) -> Summary:
    """Everything after ingestion."""
    stored = StoredBrain(brain_id=brain.brain_id, store_path=brain.store.root)
    embedded = embed_brain(stored, settings.embed, run=run)  # first: it finds what cannot be embedded at once
    if settings.reconstruct != "none":
        made += reconstruct_brain(stored, settings.align, settings.volume).made
    embeddings = Stored(EmbeddingsStep, embedded.embedding)
    check_left(brain, len(sections_with(brain, embeddings)), "embedded")
    made += embedded.made
    found = Remembered(embedded.embedding, chosen=chosen)
    if chosen is not None:
        made += measured_depth(brain, chosen.card.depth, run)
    elif is_labelled(brain, embeddings):
        made += measured_depth(brain, settings.train.depth, run)
        trained = train_on_brain(brain, embedded.embedding, settings.train, settings.head)
        made += trained.made
        found = found._replace(trained=trained)
    if found.model_digest is not None:
        mapped = parcellate_brain(
            stored,
            found.model_digest,
            embedded.embedding,
            settings.parcellate,
            settings.smooth,
            settings.embed.device,
            settings.embed.batch_size,
            run=run,
        )
        made += mapped.made
        found = found._replace(parcellation=mapped.parcellation)
    clustered = cluster_brain(stored, embedded.embedding, settings.cluster, run=run)
    made += clustered.made
    return _remembered(brain, found._replace(clusters=clustered.clusters), settings, run, ledger, made)


def _remembered(
    brain: OpenBrain, found: Remembered, settings: MapSettings, run: RunSettings, ledger: BrainLedger, made: int
) -> Summary:
    """Register the model, draw the report, log the figures, and leave a summary."""
    metrics = metrics_of(brain, found)
    model = remember_model(brain, found, metrics, settings.train, ledger)
    if made or not ledger.finished:
        ledger.open()
    shown = found.shown(brain)
    with workers(run) as runner:
        run_steps("draw", runner, brain, drawn_steps(shown), run)
    training = found.trained.name if found.trained else None
    made += run_whole(
        "report", brain, ReportStep.of(found.embedding, shown, training, model, settings.reconstruct != "none")
    )
    ledger.close(metrics, map_name=found.parcellation)
    notes = notes_of(brain, found, model, metrics, str(ledger.run_id))
    publish_section_table(brain.brain, [Outcome(one, "failed", why) for one, why in brain.failed.items()])
    publish_summary(brain, made, notes)
    return Summary(brain.brain_id, made, dict(brain.failed), notes)


def check_left(brain: OpenBrain, count: int, done: str) -> None:
    """Raise StoreError, with all reasons, if no section got so far."""
    if not count:
        reasons = "; ".join(f"{one}: {reason}" for one, reason in brain.failed.items())
        raise StoreError(f"{brain.name}: no section could be {done} ({reasons})")


def _ledger(brain: OpenBrain, settings: MapSettings, chosen: Chosen | None) -> BrainLedger:
    """The MLflow row of this brain, configuration and input."""
    others = [one for one in ("probe", "decoder", "context") if one != settings.head]
    unused = [*others, "model"] if chosen is None else [*others, settings.head, "head"]
    unused += ["align", "volume"] if settings.reconstruct == "none" else []
    configuration = configuration_of(settings, unused=unused)
    if chosen is not None:
        configuration["model"] = chosen.digest
    tags = configuration_tags(brain, configuration, encoder_for(settings.embed).digest)
    return BrainLedger(brain.store, brain.brain, tags.configuration, tags.tags | model_tags(chosen))
