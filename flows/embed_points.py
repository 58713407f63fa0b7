"""Patches at points of a brain into embeddings."""

from pathlib import Path

from prefect import flow

from cytoarch.embeddings import EmbedSettings
from cytoarch.embeddings.sampled import SampleSettings
from cytoarch.steps.embeddings import check_space
from cytoarch.steps.encoders import encoder_for
from cytoarch.steps.points import PointsStep, PointTable
from cytoarch.steps.running import plan_engine
from cytoarch.steps.sections import ready_sections
from cytoarch.store.drafts import remove_others
from flows.parameters import RunSettings, StoredBrain
from flows.stages import Summary, compute_step, final_state, held_brain, not_ingested, run_name, workers
from tasks.cancelling import HOOKS
from tasks.progress import speed_note


@flow(name="embed-points", flow_run_name=run_name("sample"), **HOOKS)
def embed_points(
    brain: StoredBrain,
    points_path: Path = Path("points.csv"),
    embed: EmbedSettings = EmbedSettings(),
    sample: SampleSettings = SampleSettings(),
    run: RunSettings = RunSettings(),
) -> Summary:
    """Turn patches centred on a table of points into embeddings: an AnnData table (Zarr) per section.

    Args:
        brain: The brain in the store.
        points_path: CSV file with columns section_id, y_px, x_px (pixels of the scan, the centre of the first is 0, 0)
            and any others, which are kept beside the embeddings; x_mm, y_mm, z_mm place a point in the brain.
        embed: The encoder and how it sees the sections; a patch is one of its tiles.
        sample: Augmented draws.
        run: How the work is spread.

    """
    encoder_for(embed)  # an encoder that cannot be loaded is found before any section is read
    with held_brain(brain.store_path, brain.brain_id) as opened, workers(run) as runner:
        table = PointTable.of(points_path)
        named = table.table(opened).section_ids
        not_ready = not_ingested(opened, named)
        step = PointsStep.of(embed, sample, table, opened)
        plan = plan_engine(step, opened, [one for one in ready_sections(opened) if one.section_id in named])
        check_space(opened.store, plan.needed_bytes, f"embeddings of {plan.tiles} patches")
        made, speed = compute_step("sample", runner, opened, step, plan, "patches", 1)
        removed = remove_others(opened.catalogue, step.step, step.name, named)
        folder = opened.catalogue.folder / "derived" / step.step / step.name
        notes = {"points": step.name, "folder": str(folder)}
        if removed:
            notes["removed"] = f"{', '.join(removed)}: the table no longer names them; another --sample.name keeps both"
        if speed.tiles:
            notes["speed"] = speed_note(speed, "patches", 1)
        return final_state(Summary(opened.brain_id, made + len(removed), opened.failed | not_ready, notes))
