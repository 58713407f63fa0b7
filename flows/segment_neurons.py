"""Neurons in volumes: a network learned from known trees, volumes segmented, traced and scored."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from pydantic import Field

from cytoarch.digests import values_digest
from cytoarch.errors import CytoarchError, ManifestError, SectionError
from cytoarch.neurons.settings import NeuronSegmentation, NeuronTraining, TraceSettings
from cytoarch.neurons.table import VolumeRow, read_volumes
from cytoarch.neurons.trees import Triple
from cytoarch.paths import ID_PATTERN, confined
from cytoarch.settings import Settings
from cytoarch.steps.neuron_report import NeuronReportStep, neuron_metrics
from cytoarch.steps.neuron_traces import NeuronMapStep, NeuronScoreStep, NeuronTraceStep
from cytoarch.steps.neuron_training import NeuronTrainingStep
from cytoarch.steps.neurons import TREE_FILE, KnownTreeStep, NeuronVolumeStep, SwcFile
from cytoarch.steps.opened import OpenStudy, open_study
from cytoarch.steps.step import Place, Stored
from cytoarch.store.brain_store import BrainStore
from flows.places import DEFAULT_STORE
from flows.stages import Summary, final_state, run_in_study
from tasks.cancelling import HOOKS
from tasks.tracking import TrackingLine, log_figures, run_url


class NeuronChoice(Settings):
    """Which volumes, and where what is made of them is kept."""

    name: str = Field(pattern=ID_PATTERN, description="Name of the study: its folder below studies/.")
    table_path: Path = Field(
        default=Path("volumes.csv"),
        description="CSV file with columns volume_id, path, use (learn, score, apply), swc, swc_unit (um, voxel), "
        "channel, voxel_z_um, voxel_y_um, voxel_x_um; paths are relative to it.",
    )
    model: str = Field(
        default="",
        pattern=r"^([0-9a-f]{64})?$",
        description="Digest of a network in the store. Blank: train one on the volumes whose use is learn.",
    )
    store_path: Path = Field(default=DEFAULT_STORE, description="Folder of the store; made if it is not there.")


@flow(name="segment-neurons", flow_run_name="neurons-{neurons.name}", **HOOKS)
def segment_neurons(
    neurons: NeuronChoice,
    train: NeuronTraining = NeuronTraining(),
    segment: NeuronSegmentation = NeuronSegmentation(),
    trace: TraceSettings = TraceSettings(),
) -> Summary:
    """Segment neurons in volumes and trace them to SWC: train a 3D network or take one, apply, trace, score, report.

    Args:
        neurons: The volumes, and a network where none is to be trained.
        train: How the network is made and fitted.
        segment: How volumes are cut for it.
        trace: How voxels become trees.

    """
    rows = read_volumes(neurons.table_path)
    folder = neurons.table_path.absolute().parent
    if not neurons.model and not any(row.use == "learn" for row in rows):
        raise ManifestError(
            str(neurons.table_path), ["no volume has use learn, and no model is named: name one or the other"]
        )
    with open_study(neurons.store_path, neurons.name) as opened:
        made, failed, rows = _ingested(opened, rows, folder)
        digest, trained, training = neurons.model, 0, None
        if not digest:
            training = NeuronTrainingStep.of(train, [row.volume_id for row in rows if row.use == "learn"])
            trained = run_in_study("train", opened, training)
            digest = opened.store.models.add(training.stored.open(Place(opened)).files)
        made += trained
        for row in rows:
            made += run_in_study(f"segment {row.volume_id}", opened, NeuronMapStep.of(row.volume_id, segment, digest))
            made += run_in_study(f"trace {row.volume_id}", opened, NeuronTraceStep.of(row.volume_id, trace))
            if row.use != "apply":
                made += run_in_study(
                    f"score {row.volume_id}", opened, NeuronScoreStep.of(row.volume_id, trace, train.least_radius_um)
                )
        uses = {row.volume_id: row.use for row in rows}
        report = NeuronReportStep.of(neurons.name, uses, training.stored if training else None)
        made += run_in_study("draw the report", opened, report)
        notes = _notes(opened, rows, report, digest)
        settings = {"segment": segment.model_dump(mode="json"), "trace": trace.model_dump(mode="json")}
        settings["train"] = train.model_dump(mode="json") if training else {"model": digest}
        line = TrackingLine(opened.store, get_run_logger())
        run_id = line.tell("the scores of the neurons", lambda: _logged(opened, rows, report, digest, settings))
        notes |= {"MLflow run": run_url(opened.store, run_id)} if run_id else {"MLflow does not know": line.left}
        return final_state(Summary(neurons.name, made, failed, notes), "volume", of="study")


def _ingested(
    study: OpenStudy, rows: tuple[VolumeRow, ...], folder: Path
) -> tuple[int, dict[str, str], tuple[VolumeRow, ...]]:
    """Volumes and their known trees brought into the store: how many were, those that cannot be, those that are there.

    Raises the fault of the first if none is left, or none to learn from where there should be some.
    """
    made = 0
    failed: dict[str, str] = {}
    for row in rows:
        step = NeuronVolumeStep.of(row, folder)
        try:
            made += run_in_study(f"ingest {row.volume_id}", study, step)
            if row.swc is not None:
                path = confined(row.swc, folder)
                edges: Triple = (1.0, 1.0, 1.0)
                if row.swc_unit == "voxel":
                    edges = step.stored.open(Place(study)).grid.edges_um
                made += run_in_study(
                    f"known tree {row.volume_id}",
                    study,
                    KnownTreeStep(row.volume_id, SwcFile(path, SwcFile.of(path).sha256, edges)),
                )
        except (SectionError, ManifestError) as error:
            failed[row.volume_id] = str(error)
    left = tuple(row for row in rows if row.volume_id not in failed)
    wanted = {row.use for row in rows}
    if not left or ("learn" in wanted and not any(row.use == "learn" for row in left)):
        raise CytoarchError("\n".join(f"volume {one}: {reason}" for one, reason in failed.items()))
    return made, failed, left


def _traces(study: OpenStudy, rows: tuple[VolumeRow, ...]) -> dict[str, Path]:
    """The files of the traced trees by volume."""
    products = {row.volume_id: Stored(NeuronTraceStep, row.volume_id).product("") for row in rows}
    return {one: (study.catalogue.path(product) / TREE_FILE).resolve() for one, product in products.items()}


def _scores(study: OpenStudy, rows: tuple[VolumeRow, ...], use: str) -> dict[str, Mapping[str, float]]:
    """The figures of the volumes of one use."""
    place = Place(study)
    ids = [row.volume_id for row in rows if row.use == use]
    return {one: Stored(NeuronScoreStep, one).open(place) for one in ids}


def _notes(study: OpenStudy, rows: tuple[VolumeRow, ...], report: NeuronReportStep, digest: str) -> dict[str, str]:
    """What a person wants to find again."""
    place = Place(study)
    notes = {"report": str(report.stored.open(place).resolve()), "model digest": digest}
    notes |= {f"trace of {one}": str(path) for one, path in _traces(study, rows).items()}
    for name, value in neuron_metrics(_scores(study, rows, "score")).items():
        notes[f"{name}, not learned from"] = f"{value:.3f}"
    return notes


def _logged(
    study: OpenStudy, rows: tuple[VolumeRow, ...], report: NeuronReportStep, digest: str, settings: dict[str, Any]
) -> str:
    """The id of the row in MLflow."""
    store: BrainStore = study.store
    metrics: dict[str, float] = {}
    for use in ("learn", "score"):
        scores = _scores(study, rows, use)
        metrics |= {f"{use}/{name}": value for name, value in neuron_metrics(scores).items()}
        for volume_id, figures in scores.items():
            metrics |= {f"volume/{volume_id}/{name}": value for name, value in figures.items()}
    traces = {f"traces/{one}": path for one, path in _traces(study, rows).items()}
    record = study.catalogue.require(report.product(), "segment first")
    fingerprint = values_digest([record.fingerprint, digest])
    return log_figures(store, "neurons", study.study, fingerprint, metrics, settings, traces)
