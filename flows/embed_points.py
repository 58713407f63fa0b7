"""Patches at points of a brain into embeddings."""

import re
from pathlib import Path

from prefect import flow
from prefect.utilities.annotations import quote

from cytoarch.contents import ready_sections
from cytoarch.embeddings import EmbedSettings
from cytoarch.embeddings.places import Points
from cytoarch.embeddings.sampled import SampleSettings
from cytoarch.store.brain_store import BrainStore
from flows.parameters import RunSettings, StoredBrain
from flows.stages import Summary, failures, final_state, made_count, not_ingested, run_groups, run_name, workers
from tasks.encoders import encoder_for
from tasks.points import STAGE, plan_sampling, sample_sections
from tasks.progress import speed_note


@flow(name="embed-points", flow_run_name=run_name("sample"))
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
    store = BrainStore(brain.store_path)
    known = store.read_brain(brain.brain_id)
    ready = ready_sections(store, known)
    points = Points.read(points_path, [one.section_id for one in known.kept])
    sections = tuple(one for one in ready if one.section_id in points.section_ids)
    not_ready = not_ingested(known, sections, points.section_ids)
    table = sample.name or re.sub(r"[^A-Za-z0-9_-]+", "-", points_path.stem).strip("-_")[:32] or "points"
    plan = plan_sampling(store, known, sections, points, table, embed, sample)
    with store.lock(brain.brain_id), workers(run) as runner:
        outcomes, speed = run_groups(
            STAGE,
            runner,
            sample_sections,
            plan.groups,
            lambda group: {
                "store_path": brain.store_path,
                "sections": group,
                "name": plan.name,
                "points": quote(points.of(group)),  # millions of cells that Prefect need not look through
                "settings": embed,
                "sample": sample,
                "pixel_size_um": plan.pixel_size_um,
            },
        )
        removed = store.remove_others(brain.brain_id, "points", plan.name, points.section_ids)
    notes = {"points": plan.name, "folder": str(store.brain_path(brain.brain_id) / "derived" / "points" / plan.name)}
    if removed:
        notes["removed"] = f"{', '.join(removed)}: the table no longer names them; another --sample.name keeps both"
    if speed.tiles:
        notes["speed"] = speed_note(speed, "patches", 1)
    return final_state(
        Summary(brain.brain_id, made_count(outcomes) + len(removed), failures(outcomes) | not_ready, notes)
    )
