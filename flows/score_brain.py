"""Maps that were made before, scored when labels arrive."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from prefect import flow, get_run_logger

from cytoarch.brains import Brain
from cytoarch.errors import ManifestError, StoreError
from cytoarch.images.sections import IngestSettings
from cytoarch.steps.agreement import AgreementStep
from cytoarch.steps.brain_metrics import map_metrics
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.parcellations import ParcellationStep
from cytoarch.steps.report import ReportStep, drawn_steps, shown_before
from cytoarch.steps.sections import LABELS, LabelsStep, ManifestFile
from cytoarch.steps.sources import HeadSource, sections_with
from cytoarch.steps.step import Stored
from flows.parameters import BrainSource, RunSettings, StoredBrain
from flows.stages import Summary, final_state, held_brain, run_name, run_steps, run_whole, workers
from tasks.cancelling import HOOKS
from tasks.reports import report_url
from tasks.summaries import publish_notes
from tasks.tracking import TrackingLine, log_later, run_url


@flow(name="score-brain", flow_run_name=run_name("score"), **HOOKS)
def score_brain(
    brain: StoredBrain,
    manifest_path: Path | None = None,
    scans_path: Path | None = None,
    label_table_path: Path | None = None,
    run: RunSettings = RunSettings(),
) -> Summary:
    """Score the maps that were made of a brain against labels that came later, in its report and in MLflow.

    No map is made again.

    Args:
        brain: The brain in the store.
        manifest_path: The manifest that names the label images; blank: those that are in the store.
        scans_path: Folder that the paths in the manifest are relative to; blank: the manifest's own.
        label_table_path: CSV file with columns id, name, colour, group; blank: labels.csv beside the manifest.
        run: How the work is spread.

    """
    stated: str | Brain = brain.brain_id
    scans = Path()
    if manifest_path is not None:
        source = BrainSource(
            manifest_path=manifest_path,
            scans_path=scans_path,
            label_table_path=label_table_path,
            brain_id=brain.brain_id,
            store_path=brain.store_path,
        )
        (stated,), scans = source.brains(), source.scans_folder
        if not any(one.labels for one in stated.kept):
            raise ManifestError(str(manifest_path), [f"names no label image of brain {brain.brain_id}; fill in labels"])
    with held_brain(brain.store_path, brain.brain_id) as opened:
        maps = opened.catalogue.names(ParcellationStep.step)
    if not maps:
        raise StoreError(f"brain {brain.brain_id} has no map to score; run map-brain or parcellate-brain first")
    with held_brain(brain.store_path, stated) as opened, workers(run) as runner:
        made = 0
        if manifest_path is not None:
            labels = LabelsStep(ManifestFile(scans, "labels"), ingest=IngestSettings())
            made += run_steps("labels", runner, opened, [labels], run)
        if not sections_with(opened, LABELS):
            raise StoreError(
                f"{opened.name} has no labels in the store; name the manifest with label images: --manifest-path"
            )
        notes: dict[str, str] = {}
        line = TrackingLine(opened.store, get_run_logger())
        for name in maps:
            stored = Stored(ParcellationStep, name)
            mapped = sections_with(opened, stored)
            if not mapped:
                continue
            digest = opened.catalogue.require(stored.product(mapped[0].section_id), "map it").inputs["head"]
            made += run_steps("score", runner, opened, [AgreementStep(stored, HeadSource(digest))], run, mapped)
            metrics = map_metrics(opened, name, digest)
            pages = line.tell(f"the scores of {name}", partial(_logged, opened, name, metrics))
            notes |= {f"{name} {key}": f"{value:.3f}" for key, value in metrics.items()}
            notes |= {f"{name} MLflow run": one for one in pages or ()}
            if not any(key.startswith("map/") for key in metrics):
                notes[name] = "no section with labels that it has not learned from, or no class of the same name"
        made += _drawn_again(opened, run)
        notes |= {"MLflow does not know": line.left} if line.left else {}
        page = report_url(opened.store.root, opened.brain_id)
        notes |= {"report": page} if page else {}
        publish_notes(f"{opened.brain_id} scored", f"{len(maps)} maps made before, held against labels.", notes)
        return final_state(Summary(opened.brain_id, made, dict(opened.failed), notes))


def _logged(brain: OpenBrain, parcellation: str, metrics: Mapping[str, float]) -> list[str]:
    """Log the scores of maps to the row that made them; the addresses of its page."""
    return [run_url(brain.store, one) for one in log_later(brain.store, brain.brain_id, parcellation, metrics)]


def _drawn_again(brain: OpenBrain, run: RunSettings) -> int:
    """Draw the report again, where there is one, with what it showed before and the labels beside it."""
    before = shown_before(brain)
    if before is None:
        return 0
    with workers(run) as runner:
        run_steps("draw", runner, brain, drawn_steps(before.shown), run)
    step = ReportStep.of(before.shown.colours, before.shown, before.training, before.model, before.reconstructed)
    return run_whole("report", brain, step)
