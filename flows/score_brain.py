"""Maps that were made before, scored when labels arrive."""

from pathlib import Path

from prefect import flow

from cytoarch.brains import Brain
from cytoarch.errors import ManifestError, StoreError
from cytoarch.images.sections import IngestSettings
from cytoarch.steps.agreement import AgreementStep
from cytoarch.steps.opened import OpenBrain, open_brain
from cytoarch.steps.parcellations import ParcellationStep
from cytoarch.steps.report import ReportStep, drawn_steps, map_metrics, shown_before
from cytoarch.steps.sections import LABELS, LabelsStep, ManifestFile
from cytoarch.steps.sources import HeadSource, sections_with
from cytoarch.steps.step import Stored
from flows.parameters import BrainSource, RunSettings, StoredBrain
from flows.stages import Summary, final_state, run_name, run_steps, run_whole, workers
from tasks.tracking import log_later, run_url


@flow(name="score-brain", flow_run_name=run_name("score"))
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
    with open_brain(brain.store_path, brain.brain_id) as opened:
        maps = opened.catalogue.names(ParcellationStep.step)
    if not maps:
        raise StoreError(f"brain {brain.brain_id} has no map to score; run map-brain or parcellate-brain first")
    with open_brain(brain.store_path, stated) as opened, workers(run) as runner:
        made = 0
        if manifest_path is not None:
            labels = LabelsStep(ManifestFile(scans, "labels"), ingest=IngestSettings())
            made += run_steps("labels", runner, opened, [labels], run)
        if not sections_with(opened, LABELS):
            raise StoreError(
                f"{opened.name} has no labels in the store; name the manifest with label images: --manifest-path"
            )
        notes: dict[str, str] = {}
        for name in maps:
            stored = Stored(ParcellationStep, name)
            mapped = sections_with(opened, stored)
            if not mapped:
                continue
            digest = opened.catalogue.require(stored.product(mapped[0].section_id), "map it").inputs["head"]
            made += run_steps("score", runner, opened, [AgreementStep(stored, HeadSource(digest))], run, mapped)
            metrics = map_metrics(opened, name, digest)
            runs = log_later(opened.store, opened.brain_id, name, metrics)
            notes |= {f"{name} {key}": f"{value:.3f}" for key, value in metrics.items()}
            notes |= {f"{name} MLflow run": run_url(opened.store, one) for one in runs}
            if not any(key.startswith("map/") for key in metrics):
                notes[name] = "no section with labels that it has not learned from, or no class of the same name"
        made += _drawn_again(opened, run)
        return final_state(Summary(opened.brain_id, made, dict(opened.failed), notes))


def _drawn_again(brain: OpenBrain, run: RunSettings) -> int:
    """Draw the report again, where there is one, with what it showed before and the labels beside it."""
    before = shown_before(brain)
    if before is None:
        return 0
    with workers(run) as runner:
        run_steps("draw", runner, brain, drawn_steps(before.shown), run)
    step = ReportStep.of(before.shown.colours, before.shown, before.training, before.model, before.reconstructed)
    return run_whole("report", brain, step)
