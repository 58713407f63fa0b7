"""A head applied to every section of a brain."""

from typing import Annotated, Literal

from prefect import flow
from pydantic import Field

from cytoarch.contents import open_head, ready_sections
from cytoarch.encoders.registry import EncoderSettings
from cytoarch.parcellation.inference import ParcellateSettings
from cytoarch.parcellation.smoothing import SmoothSettings
from cytoarch.store.brain_store import BrainStore
from flows.parameters import RunSettings, StoredBrain
from flows.stages import Summary, failures, final_state, made_count, run_name, run_stage, workers
from tasks.encoders import encoder_for
from tasks.parcellation import STAGE, parcellate_section, parcellation_name
from tasks.tracking import fetch_head


@flow(name="parcellate-brain", flow_run_name=run_name("parcellate"))
def parcellate_brain(
    brain: StoredBrain,
    model: str = "",
    embedding: str = "",
    parcellate: ParcellateSettings = ParcellateSettings(),
    smooth: SmoothSettings = SmoothSettings(),
    device: Literal["cpu", "cuda"] = "cpu",
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 2,
    skip: tuple[str, ...] = (),
    run: RunSettings = RunSettings(),
    allow: EncoderSettings = EncoderSettings(),
) -> Summary:
    """Map every section with a head: probabilities by overlapping tiles, smoothed, and label maps.

    Args:
        brain: The brain in the store.
        model: models:/NAME@champion, models:/NAME/VERSION or a model digest; blank: areas-probe-BRAIN@champion.
        embedding: Name of the stored embedding, where parcellation starts from the cache.
        parcellate: How tiles overlap and which level the maps are drawn on.
        smooth: How strongly maps are smoothed.
        device: Where the encoder runs.
        batch_size: Tiles computed at once.
        skip: Sections to leave out.
        run: How the work is spread.
        allow: Encoder and revision that a registered head made elsewhere may load; those of heads here may be.

    """
    store = BrainStore(brain.store_path)
    known = store.read_brain(brain.brain_id)
    wanted = model or f"models:/areas-probe-{brain.brain_id}@champion"
    digest = fetch_head(store, wanted, (allow,)) if wanted.startswith("models:/") else wanted
    card = open_head(store, digest).card
    encoder_for(card.embedding.model_copy(update={"device": device}))
    sections = tuple(one for one in ready_sections(store, known) if one.section_id not in skip)
    with store.lock(brain.brain_id), workers(run) as runner:
        outcomes = run_stage(
            STAGE,
            runner,
            parcellate_section,
            sections,
            lambda section: {
                "store_path": brain.store_path,
                "section": section,
                "model_digest": digest,
                "embedding_name": embedding,
                "settings": parcellate,
                "smooth": smooth,
                "device": device,
                "batch_size": batch_size,
            },
        )
    name = parcellation_name(card.target, card.kind, digest)
    maps = store.brain_path(brain.brain_id) / "derived" / "parcellations" / name
    return final_state(
        Summary(brain.brain_id, made_count(outcomes), failures(outcomes), {"parcellation": name, "maps": str(maps)})
    )
