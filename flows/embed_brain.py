"""Sections of a brain into embeddings."""

from prefect import flow

from cytoarch.contents import ready_sections
from cytoarch.embeddings import EmbedSettings
from cytoarch.errors import StoreError
from cytoarch.stores import BrainStore
from flows.parameters import RunSettings, StoredBrain
from flows.stages import Summary, failures, final_state, made_count, run_name, run_stage, without, workers
from tasks.embeddings import STAGE, colour_section, embed_section, fit_colours, plan_embedding
from tasks.encoders import encoder_for


@flow(name="embed-brain", flow_run_name=run_name("embed"))
def embed_brain(
    brain: StoredBrain,
    embed: EmbedSettings = EmbedSettings(),
    skip: tuple[str, ...] = (),
    run: RunSettings = RunSettings(),
) -> Summary:
    """Turn the ingested sections of a brain into embeddings, and draw these as colours.

    Args:
        brain: The brain in the store.
        embed: The encoder and how it sees the sections.
        skip: Sections to leave out.
        run: How the work is spread.

    """
    encoder_for(embed)  # an encoder that cannot be loaded is found before any section is read
    store = BrainStore(brain.store_path)
    known = store.read_brain(brain.brain_id)
    sections = tuple(one for one in ready_sections(store, known) if one.section_id not in skip)
    if not sections:
        raise StoreError(f"brain {brain.brain_id}: no section is ingested; run ingest-brain and look at its failures")
    plan = plan_embedding(store, known, sections, embed)
    with store.lock(brain.brain_id), workers(run) as runner:
        outcomes = run_stage(
            STAGE,
            runner,
            embed_section,
            sections,
            lambda section: {
                "store_path": brain.store_path,
                "section": section,
                "name": plan.name,
                "settings": embed,
                "pixel_size_um": plan.pixel_size_um,
            },
        )
        failed = failures(outcomes)
        made = made_count(outcomes)
        embedded = without(sections, failed)
        if embedded:
            made += int(fit_colours(brain.store_path, known, embedded, plan.name))
            drawn = run_stage(
                "colours",
                runner,
                colour_section,
                embedded,
                lambda section: {"store_path": brain.store_path, "section": section, "name": plan.name},
            )
            failed |= failures(drawn)
            made += made_count(drawn)
    return final_state(Summary(brain.brain_id, made, failed, {"embeddings": plan.name}))
