"""Borders along the cortex of a brain."""

from prefect import flow

from cytoarch.steps.borders import BorderSettings, BordersStep
from cytoarch.steps.points import PointsStep
from cytoarch.steps.sources import require_stored, sections_with
from cytoarch.steps.step import Place, Stored
from flows.parameters import RunSettings, StoredBrain
from flows.stages import Summary, final_state, held_brain, run_name, run_steps, skipping, workers
from tasks.cancelling import HOOKS


@flow(name="find-borders", flow_run_name=run_name("borders"), **HOOKS)
def find_borders(
    brain: StoredBrain,
    points: str = "",
    find: BorderSettings = BorderSettings(),
    skip: tuple[str, ...] = (),
    run: RunSettings = RunSettings(),
) -> Summary:
    """Find borders along the cortex of every section: where the embeddings of points along its lines change.

    Args:
        brain: The brain in the store.
        points: Name of the embedded points (trace-cortex, then embed-points); blank where there is only one.
        find: How borders are told from chance.
        skip: Sections to leave out.
        run: How the work is spread.

    """
    with held_brain(brain.store_path, brain.brain_id) as opened, skipping(opened, skip), workers(run) as runner:
        hint = "Run trace-cortex and embed-points, or name one of them"
        chosen = require_stored(PointsStep, Place(opened), points, hint)
        step = BordersStep.of(chosen, find)
        sections = sections_with(opened, Stored(PointsStep, chosen))
        made = run_steps("borders", runner, opened, [step], run, sections)
        facts = [step.stored.record(Place(opened, one)).facts for one in sections_with(opened, step.stored)]
        folder = opened.catalogue.folder / "derived" / step.step / step.name
        notes = {
            "borders": str(folder),
            "found": f"{sum(one['borders'] for one in facts)} on {sum(one['lines'] for one in facts)} stretches",
        }
        return final_state(Summary(opened.brain_id, made, dict(opened.failed), notes))
