"""A head applied to every section of a brain."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from prefect import flow, get_run_logger
from pydantic import Field

from cytoarch.brains import Section
from cytoarch.embeddings import EmbedSettings, SectionEmbeddings
from cytoarch.encoders.registry import EncoderSettings
from cytoarch.errors import StoreError
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.heads import load_domain
from cytoarch.parcellation.across import AcrossSettings
from cytoarch.parcellation.inference import ParcellateSettings
from cytoarch.parcellation.smoothing import SmoothSettings
from cytoarch.steps.across import AcrossStep, cannot_smooth, notes_across, unseen_labels
from cytoarch.steps.agreement import AgreementStep
from cytoarch.steps.embeddings import EmbeddingsStep, check_space
from cytoarch.steps.familiarity import FamiliarityStep
from cytoarch.steps.map_points import NodesStep
from cytoarch.steps.models import misfit, settings_for
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.parcellations import ParcellationStep, check_order, estimated_bytes, parcellation_steps
from cytoarch.steps.scales import ScaleStep, scale_of
from cytoarch.steps.sections import ready_sections
from cytoarch.steps.sources import open_head, require_stored, sections_with
from cytoarch.steps.step import Place, Step, Stored
from cytoarch.store.brain_store import BrainStore
from flows.parameters import RunSettings, StoredBrain
from flows.stages import Parcellated, final_state, held_brain, run_name, run_steps, run_whole, skipping, workers
from tasks.cancelling import HOOKS
from tasks.summaries import notes_of_map
from tasks.tracking import choose_model, needed

SMALLER = "fewer kept_classes, a coarser level"
"""What makes probabilities and maps smaller."""


@flow(name="parcellate-brain", flow_run_name=run_name("parcellate"), **HOOKS)
def parcellate_brain(
    brain: StoredBrain,
    model: str = "",
    embedding: str = "",
    parcellate: ParcellateSettings = ParcellateSettings(),
    smooth: SmoothSettings = SmoothSettings(),
    device: Literal["cpu", "cuda"] = "cpu",
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 2,
    skip: tuple[str, ...] = (),
    across: AcrossSettings = AcrossSettings(),
    run: RunSettings = RunSettings(),
    allow: EncoderSettings = EncoderSettings(),
) -> Parcellated:
    """Map every section with a head: probabilities by overlapping tiles, smoothed, and label maps.

    Maps are counted against labels where there are any, and compared with what the head learned from where the brain
    is embedded as the head needs it.

    Args:
        brain: The brain in the store.
        model: models:/NAME@champion, models:/NAME/VERSION, a model digest, or auto:TARGET (the champion that fits);
            blank: areas-probe-BRAIN@champion.
        embedding: Name of the stored embedding, where parcellation starts from the cache.
        parcellate: How tiles overlap and which level the maps are drawn on.
        smooth: How strongly maps are smoothed.
        device: Where the encoder runs.
        batch_size: Tiles computed at once.
        skip: Sections to leave out.
        across: How maps are smoothed along the cortex and from section to section.
        run: How the work is spread.
        allow: Encoder and revision that a registered head made elsewhere may load; those of heads here may be.

    """
    store = BrainStore(brain.store_path)
    store.check_there(brain.brain_id)  # before a model is fetched
    wanted = model or f"models:/areas-probe-{brain.brain_id}@champion"
    conducted = EmbedSettings(device=device, batch_size=batch_size)
    with held_brain(brain.store_path, brain.brain_id) as opened, skipping(opened, skip), workers(run) as runner:
        chosen = needed(
            store,
            f"the model {wanted}",
            lambda: choose_model(store, wanted, "areas", lambda card: misfit(card, opened), (allow,)),
        )
        head, card = chosen.digest, open_head(store, chosen.digest).card
        embeddings = _embeddings(opened, settings_for(card, conducted), parcellate, embedding)
        steps = parcellation_steps(
            card, head, embeddings, parcellate, smooth, conducted.model_dump(include=set(EmbedSettings.CONDUCT))
        )
        steps[0].encoder.encoder  # noqa: B018 - one that cannot be loaded is found before any section is read
        sections = ready_sections(opened)
        check_order(opened, sections, card, steps[1])
        nodes = whole = None
        mapped = steps[1]
        if across.method != "none":
            nodes = NodesStep.of(steps[0].stored, opened, across.midline)  # where none is traced this is known first
            reason = cannot_smooth(opened, nodes.midline)
            if reason:
                raise StoreError(f"{opened.name} cannot be smoothed from section to section: {reason}")
            whole = AcrossStep.of(nodes, steps[0].head, across, unseen_labels(opened, card), smooth.weight_for(card))
            mapped = ParcellationStep.following(steps[1], whole)

        def room(left: Sequence[Section]) -> None:
            needed_bytes = estimated_bytes(opened, left, card, (steps[0], mapped))
            check_space(opened.store, needed_bytes, f"probabilities and maps of {len(left)} sections", SMALLER)
            get_run_logger().info("up to %.1f GB of probabilities and maps to write", needed_bytes / 1e9)

        made = _scaled(opened, card, embeddings)
        drawn: list[Step[Any]] = [mapped, AgreementStep.of(mapped)]
        if load_domain(store.models.path(head)) is not None and sections_with(opened, embeddings):
            drawn.append(FamiliarityStep.of(mapped, steps[0], embeddings))
        if nodes is None or whole is None:
            made += run_steps("parcellate", runner, opened, [steps[0], *drawn], run, sections, check=room)
        else:
            made += run_steps("parcellate", runner, opened, [steps[0]], run, sections, check=room)
            made += run_steps("take to points", runner, opened, [nodes], run, sections_with(opened, nodes.midline))
            made += run_whole("smooth across sections", opened, whole)
            made += run_steps("draw maps", runner, opened, drawn, run, ready_sections(opened), check=room)
        maps = opened.catalogue.folder / "derived" / "parcellations" / steps[1].name
        notes = {"parcellation": steps[1].name, "maps": str(maps), "model": head} | notes_of_map(opened, steps[1].name)
        notes |= notes_across(opened, steps[1].name, card) if across.method != "none" else {}
        return final_state(Parcellated(opened.brain_id, made, dict(opened.failed), notes, steps[1].name))


def _scaled(brain: OpenBrain, card: HeadCard, embeddings: Stored[SectionEmbeddings]) -> int:
    """Fit the scale that a head measures this brain's embeddings in, where it needs one."""
    if scale_of(card.standardise, embeddings) is None:
        return 0
    if not sections_with(brain, embeddings):
        raise StoreError(
            f"{brain.name}: the model measures embeddings in the mean and spread of their own brain, and this one has "
            f"no embeddings {embeddings.name}; run embed-brain with --encoder {card.embedding.encoder} "
            f"--pixel-size-um {card.pixel_size_um:g}"
        )
    return run_whole("fit scale", brain, ScaleStep.of(embeddings))


def _embeddings(
    brain: OpenBrain, settings: EmbedSettings, parcellate: ParcellateSettings, named: str
) -> Stored[SectionEmbeddings]:
    """The stored embeddings that a head reads: those named, the only ones, or those of its own kind."""
    if parcellate.source == "cache":
        hint = "Run embed-brain, or name one of them"
        return Stored(EmbeddingsStep, require_stored(EmbeddingsStep, Place(brain), named, hint))
    return Stored(EmbeddingsStep, named or EmbeddingsStep.of(settings, brain).name)
