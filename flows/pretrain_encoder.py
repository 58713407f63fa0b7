"""An encoder of one's own, pretrained on the patches of several brains."""

import time

from prefect import flow, get_run_logger

from cytoarch.anatomy.depth import DepthSettings
from cytoarch.anatomy.midline import MidlineSettings
from cytoarch.anatomy.surfaces import SurfaceSettings
from cytoarch.errors import TrainingError
from cytoarch.pretraining.settings import PretrainingSettings
from cytoarch.steps.depth import DepthStep
from cytoarch.steps.midline import CortexPointsStep, MidlineStep, MidsurfaceStep
from cytoarch.steps.opened import open_study
from cytoarch.steps.pretraining import PretrainingStep
from cytoarch.steps.step import Place
from cytoarch.store.brain_store import BrainStore
from flows.parameters import LearnedBrains, RunSettings, StoredBrain
from flows.stages import Summary, final_state, run_in_study
from flows.trace_cortex import trace_cortex
from tasks.cancelling import HOOKS
from tasks.tracking import TrackingLine, log_pretraining, run_url


@flow(name="pretrain-encoder", flow_run_name="pretraining-{encoder.name}", **HOOKS)
def pretrain_encoder(
    encoder: LearnedBrains,
    train: PretrainingSettings = PretrainingSettings(),
    depth: DepthSettings = DepthSettings(),
    midline: MidlineSettings = MidlineSettings(),
    surface: SurfaceSettings = SurfaceSettings(),
    run: RunSettings = RunSettings(),
) -> Summary:
    """Pretrain an encoder on patches along the cortex of several brains, without labels: by where they lie.

    An interrupted training goes on from its last checkpoint to the weights that it would have had. The encoder is used
    by the id that the summary names, compact:FOLDER unless another network learns, and is a model in MLflow.

    Args:
        encoder: The brains, and the name of what is made.
        train: What the encoder sees, and how it learns.
        depth: How depth in the cortex is measured.
        midline: Where patches are taken along the cortex; along its surface for the Siamese task.
        surface: How the middle is made a surface, where its lines are those of a surface.
        run: How the work is spread.

    """
    if train.learning == "siamese" and midline.line != "surface":
        raise TrainingError(f"distances along the cortex need a surface, the midline's line is {midline.line}; set it")
    store, made = BrainStore(encoder.store_path), 0
    for brain_id in (*encoder.brains, *encoder.held_out):
        brain = StoredBrain(brain_id=brain_id, store_path=encoder.store_path)
        traced = trace_cortex(brain, depth, midline, surface, run=run)
        made += traced.made
    points = CortexPointsStep.of(MidlineStep.of(DepthStep(depth), midline, None).stored)
    mesh = MidsurfaceStep(surface).stored
    step = PretrainingStep.of(encoder.brains, encoder.held_out, points.stored, train, mesh)
    with open_study(encoder.store_path, encoder.name) as opened:
        place, began = Place(opened), time.monotonic()
        was_made = run_in_study("pretrain", opened, step)
        made += was_made
        cost = {"cost/seconds": time.monotonic() - began} if was_made else {}
        record, trained = step.stored.record(place), step.stored.open(place)

        def told() -> dict[str, str]:
            cost["cost/patches"] = float(train.batch_size * train.loop.steps)
            row = log_pretraining(store, encoder.name, record.fingerprint, trained.record, trained.folder, cost)
            return {"MLflow run": run_url(store, row.run_id), "MLflow model": f"models:/{row.model}/{row.version}"}

        line = TrackingLine(store, get_run_logger())
        told_notes = line.tell("the encoder", told)
    notes = {"encoder": trained.encoder_id, "loss": f"{trained.record['loss'][-1]:.3f}"}
    for brain_id, error in trained.record["place_error_mm"].items():
        kind = "held out" if brain_id in encoder.held_out else "learned from"
        notes[f"places in {brain_id}, {kind}"] = (
            f"{error['told']:.2f} mm off (by the mean place {error['by_mean']:.2f})"
        )
    notes |= told_notes or {"MLflow does not know": line.left}
    return final_state(Summary(encoder.name, made, {}, notes), of="study")
