"""A head applied to every section of a brain."""

from typing import Annotated, Literal

from prefect import flow
from pydantic import Field

from cytoarch.encoders.registry import EncoderSettings
from cytoarch.parcellation.inference import ParcellateSettings
from cytoarch.parcellation.smoothing import SmoothSettings
from cytoarch.steps.embeddings import EmbeddingsStep
from cytoarch.steps.opened import open_brain
from cytoarch.steps.parcellations import parcellation_steps
from cytoarch.steps.sections import ready_sections
from cytoarch.steps.sources import open_head, require_stored
from cytoarch.steps.step import Place, Stored
from cytoarch.store.brain_store import BrainStore
from flows.parameters import RunSettings, StoredBrain
from flows.stages import Parcellated, final_state, run_name, run_steps, skipping, workers
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
) -> Parcellated:
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
    store.check_there(brain.brain_id)  # before a model is fetched
    wanted = model or f"models:/areas-probe-{brain.brain_id}@champion"
    digest = fetch_head(store, wanted, (allow,)) if wanted.startswith("models:/") else wanted
    card = open_head(store, digest).card
    conducted = {"device": device, "batch_size": batch_size}
    with open_brain(brain.store_path, brain.brain_id) as opened, skipping(opened, skip), workers(run) as runner:
        chosen = (
            require_stored(EmbeddingsStep, Place(opened), embedding, "Run embed-brain, or name one of them")
            if parcellate.source == "cache"
            else embedding
        )
        steps = parcellation_steps(card, digest, Stored(EmbeddingsStep, chosen), parcellate, smooth, conducted)
        steps[0].encoder.encoder  # noqa: B018 - one that cannot be loaded is found before any section is read
        made = run_steps("parcellate", runner, opened, steps, run, ready_sections(opened))
        maps = opened.catalogue.folder / "derived" / "parcellations" / steps[1].name
        notes = {"parcellation": steps[1].name, "maps": str(maps)}
        return final_state(Parcellated(opened.brain_id, made, dict(opened.failed), notes, steps[1].name))
