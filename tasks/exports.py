"""How an export is operated: one task a format."""

from pathlib import Path

from prefect import task

from cytoarch.exports.settings import ExportSettings, Format
from cytoarch.steps.exporting import export
from cytoarch.steps.opened import join_brain
from cytoarch.steps.taken import Taken
from tasks.progress import reporter
from tasks.steps import POLICY, Home


@task(name="export-format", task_run_name="export {home.brain_id} {export_format}", **POLICY)
def export_format(home: Home, settings: ExportSettings, export_format: Format, folder: Path) -> dict[str, str]:
    """Write one format of a brain; returns what was left out, and why."""
    with join_brain(home.store_path, home.brain_id, home.ticket) as brain:
        return export(Taken.of(brain, settings), export_format, folder, reporter("export", export_format))
