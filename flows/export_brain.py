"""A brain's maps, labels, tables and points in the formats of other programs."""

from pathlib import Path

from prefect import flow

from cytoarch.exports.settings import ExportSettings
from cytoarch.steps.exporting import chosen_formats
from cytoarch.steps.taken import Taken
from flows.parameters import RunSettings, StoredBrain
from flows.places import DEFAULT_EXPORTS
from flows.stages import Summary, final_state, held_brain, home_of, run_name, run_steps, workers
from tasks.cancelling import HOOKS
from tasks.exports import export_format
from tasks.progress import stage_progress


@flow(name="export-brain", flow_run_name=run_name("export"), **HOOKS)
def export_brain(
    brain: StoredBrain,
    folder: Path = DEFAULT_EXPORTS,
    export: ExportSettings = ExportSettings(),
    run: RunSettings = RunSettings(),
) -> Summary:
    """Write a brain's maps, labels, tables and points for other programs; each format appears whole or not at all.

    Args:
        brain: The brain in the store.
        folder: Folder to write into, on the machine that runs the flow; each brain gets one of its own in it.
        export: What is exported, and how.
        run: How the work is spread.

    """
    with held_brain(brain.store_path, brain.brain_id) as opened:
        taken = Taken.of(opened, export)
        formats, notes = chosen_formats(taken)
        made = 0
        with workers(run) as runner:
            for step in taken.areas if "areas" in formats else ():
                having = [one for one in taken.sections if step.is_there(opened, one)]
                made += run_steps("measure", runner, opened, [step], run, having)
        failed: dict[str, str] = {}
        with stage_progress("export", len(formats)) as progress:
            for one in formats:
                left_out = export_format(home_of(opened), export, one, folder)
                failed |= {f"{name} ({one})": why for name, why in left_out.items()}
                notes[one] = str((folder / opened.brain_id / one).absolute())
                progress.finished(one)
        return final_state(Summary(opened.brain_id, made + len(formats), {**opened.failed, **failed}, notes))
