"""Depth, the middle of the cortex and points along it."""

from prefect import flow

from cytoarch.anatomy.depth import DepthSettings
from cytoarch.anatomy.midline import MidlineSettings
from cytoarch.anatomy.surfaces import SurfaceSettings
from cytoarch.errors import StoreError
from cytoarch.steps.depth import DepthStep
from cytoarch.steps.midline import CortexPictureStep, CortexPointsStep, MidlineStep, MidsurfaceStep, SurfacePictureStep
from cytoarch.steps.sources import sections_with
from cytoarch.steps.tissue import TISSUE
from flows.parameters import RunSettings, StoredBrain
from flows.stages import Traced, final_state, held_brain, run_name, run_steps, run_whole, skipping, workers
from tasks.cancelling import HOOKS


@flow(name="trace-cortex", flow_run_name=run_name("trace"), **HOOKS)
def trace_cortex(
    brain: StoredBrain,
    depth: DepthSettings = DepthSettings(),
    midline: MidlineSettings = MidlineSettings(),
    surface: SurfaceSettings = SurfaceSettings(),
    skip: tuple[str, ...] = (),
    run: RunSettings = RunSettings(),
) -> Traced:
    """Measure depth in the cortex, trace its middle, and put points along it into one table.

    The table lies in the store as CSV, which embed-points takes as it is, and as Parquet.

    Args:
        brain: The brain in the store.
        depth: How depth is measured.
        midline: Where points are taken.
        surface: How the middle is made a surface, where its lines are those of a surface.
        skip: Sections to leave out.
        run: How the work is spread.

    """
    with held_brain(brain.store_path, brain.brain_id) as opened, skipping(opened, skip), workers(run) as runner:
        sections = sections_with(opened, TISSUE)
        if not sections:
            raise StoreError(f"{opened.name}: no section has tissue; run ingest-brain first")
        depths = DepthStep(depth)
        made, mesh = 0, None
        if midline.line == "surface":
            mesh = MidsurfaceStep(surface)
            made += run_whole("make the surface", opened, mesh)
            made += run_whole("draw the surface", opened, SurfacePictureStep(mesh.stored))
        middle = MidlineStep.of(depths, midline, mesh)
        picture = CortexPictureStep(depths.stored, middle.stored)
        made += run_steps("trace", runner, opened, [depths, middle, picture], run, sections)
        points = CortexPointsStep.of(middle.stored)
        made += run_whole("gather points", opened, points)
        facts = opened.catalogue.require(points.product(), "trace first").facts
        table = points.opened(opened.catalogue.path(points.product()))
        notes = {"points": f"{facts['points']} on {facts['sections']} sections", "table": str(table.csv_path)}
        notes["pictures"] = str(opened.catalogue.folder / "derived" / picture.step / picture.name)
        if mesh is not None:
            drawn = SurfacePictureStep(mesh.stored)
            notes["surface"] = str(drawn.opened(opened.catalogue.path(drawn.product())))
        without = [
            one.section_id
            for one in sections_with(opened, depths.stored)
            if opened.catalogue.require(depths.product(one.section_id), "trace first").facts.get("doubts")
        ]
        if without:
            notes["no cortex"] = ", ".join(without[:8]) + (f" and {len(without) - 8} more" if len(without) > 8 else "")
        return final_state(Traced(opened.brain_id, made, dict(opened.failed), notes, middle.name))
