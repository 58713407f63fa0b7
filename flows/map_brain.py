"""The chain: from a manifest to maps and a report."""

from typing import Any, Literal

from prefect import flow

from cytoarch.anatomy.tissue import TissueSettings
from cytoarch.brains import Brain
from cytoarch.contents import ready_sections
from cytoarch.discovery.clusters import ClusterSettings
from cytoarch.embeddings import EmbedSettings
from cytoarch.errors import StoreError
from cytoarch.images.sections import IngestSettings
from cytoarch.learning.training import DecoderSettings, ProbeSettings
from cytoarch.parcellation.inference import ParcellateSettings
from cytoarch.parcellation.smoothing import SmoothSettings
from cytoarch.store.brain_store import BrainStore
from flows.cluster_brain import cluster_brain
from flows.embed_brain import embed_brain
from flows.ingest_brain import ingest_brain
from flows.parameters import BrainSource, RunSettings, StoredBrain
from flows.parcellate_brain import parcellate_brain
from flows.stages import Summary, final_state, for_each_brain, run_name, without
from flows.training import train_on_brain
from tasks.encoders import encoder_for
from tasks.learning import labelled_sections
from tasks.sections import Outcome
from tasks.summaries import Remembered, configuration_tags, publish_section_table, publish_summary, remember
from tasks.tracking import BrainLedger


@flow(name="map-brain", flow_run_name=run_name("map"))
def map_brain(
    source: BrainSource = BrainSource(),
    ingest: IngestSettings = IngestSettings(),
    tissue: TissueSettings = TissueSettings(),
    embed: EmbedSettings = EmbedSettings(),
    head: Literal["probe", "decoder"] = "probe",
    probe: ProbeSettings = ProbeSettings(),
    decoder: DecoderSettings = DecoderSettings(),
    parcellate: ParcellateSettings = ParcellateSettings(),
    smooth: SmoothSettings = SmoothSettings(),
    cluster: ClusterSettings = ClusterSettings(),
    run: RunSettings = RunSettings(),
) -> Summary:
    """Map a whole brain: ingest, tissue, embed, train, parcellate, smooth, cluster, report.

    A step whose result is current is not done again.

    Args:
        source: The manifest, the scans and the store.
        ingest: How scans are read.
        tissue: How tissue is told from the slide.
        embed: The encoder and how it sees the sections.
        head: probe (linear, token by token) or decoder (layers fused, cells of 4 px).
        probe: How a probe is trained.
        decoder: How a decoder is trained.
        parcellate: How tiles overlap and which level the maps are drawn on.
        smooth: How strongly maps are smoothed.
        cluster: How many clusters, from how many tokens.
        run: How the work is spread.

    """
    settings: dict[str, Any] = {
        "ingest": ingest,
        "tissue": tissue,
        "embed": embed,
        "head": head,
        "probe": probe,
        "decoder": decoder,
        "parcellate": parcellate,
        "smooth": smooth,
        "cluster": cluster,
    }
    brains = source.brains()
    encoder_for(embed)  # an encoder that cannot be loaded is found before any section is read
    if len(brains) > 1:
        return for_each_brain(map_brain, source, brains, {**settings, "run": run})
    store = BrainStore(source.store_path)
    with store.lock(brains[0].brain_id):
        return final_state(_map(source, brains[0], settings, run))


def _map(source: BrainSource, brain: Brain, settings: dict[str, Any], run: RunSettings) -> Summary:
    store = BrainStore(source.store_path)
    stored = StoredBrain(brain_id=brain.brain_id, store_path=source.store_path)
    only = source.model_copy(update={"brain_id": brain.brain_id})
    head = settings["head"]
    ingested: Summary = ingest_brain(only, settings["ingest"], settings["tissue"], run)
    failed, made = dict(ingested.failed), ingested.made
    sections = tuple(one for one in ready_sections(store, brain) if one.section_id not in failed)
    if not sections:
        reasons = "; ".join(f"{one}: {reason}" for one, reason in failed.items())
        raise StoreError(f"brain {brain.brain_id}: no section could be ingested ({reasons})")
    tags = configuration_tags(store, brain, sections, settings, encoder_for(settings["embed"]).digest)
    ledger = BrainLedger(store, brain, tags.configuration, tags.tags)
    if made:
        ledger.open()
    try:
        skip = tuple(sorted(failed))
        embedded: Summary = embed_brain(stored, settings["embed"], skip=skip, run=run)
        failed |= embedded.failed
        skip = tuple(sorted(failed))
        made += embedded.made
        embedded_sections = without(sections, failed)
        if not embedded_sections:
            reasons = "; ".join(f"{one}: {reason}" for one, reason in failed.items())
            raise StoreError(f"brain {brain.brain_id}: no section could be embedded ({reasons})")
        embedding = embedded.notes["embeddings"]
        remembered = Remembered(embedding=embedding)
        if labelled_sections(brain, embedded_sections):
            trained = train_on_brain(stored, embedding, settings[head], head, skip)
            mapped: Summary = parcellate_brain(
                stored,
                trained.digest,
                embedding,
                settings["parcellate"],
                settings["smooth"],
                settings["embed"].device,
                settings["embed"].batch_size,
                skip,
                run,
            )
            failed |= mapped.failed
            skip = tuple(sorted(failed))
            made += int(trained.made) + mapped.made
            remembered = remembered._replace(trained=trained, parcellation=mapped.notes["parcellation"])
        clustered: Summary = cluster_brain(stored, embedding, settings["cluster"], skip, run)
        failed |= clustered.failed
        made += clustered.made
        remembered = remembered._replace(clusters=clustered.notes["clusters"])
        kept = tuple(one for one in sections if one.section_id not in failed)
        made_report, notes = remember(store, brain, kept, failed, remembered, ledger, made, settings[head])
    except BaseException:
        ledger.close({}, failed=True)
        raise
    summary = Summary(brain.brain_id, made + made_report, failed, notes)
    publish_section_table(brain, [Outcome(one, "failed", reason) for one, reason in failed.items()])
    publish_summary(brain, summary.made, failed, notes)
    return summary
