"""What embeddings know of the structure of cortex, and of where they lie."""

from collections.abc import Mapping
from pathlib import Path

from prefect import flow, get_run_logger
from pydantic import Field, field_validator, model_validator

from cytoarch.embeddings.attention import AttentionSettings, attentive
from cytoarch.errors import CytoarchError, TrainingError
from cytoarch.learning.structure import AXES, StructureSettings
from cytoarch.paths import ID_PATTERN
from cytoarch.settings import Settings
from cytoarch.steps.attention import AttentionStep
from cytoarch.steps.columns import CellTable, ColumnSettings, ColumnsStep
from cytoarch.steps.depth import DepthStep
from cytoarch.steps.opened import OpenBrain, open_study, read_only
from cytoarch.steps.points import PointsStep
from cytoarch.steps.sources import OfBrains, require_stored, sections_with
from cytoarch.steps.step import Place
from cytoarch.steps.structure import EMBEDDING, PROFILE, BrainPlacesStep, StructureStep
from cytoarch.steps.structure_page import StructurePageStep
from cytoarch.store.brain_store import BrainStore
from flows.parameters import RunSettings, split_names
from flows.places import DEFAULT_STORE
from flows.stages import Summary, final_state, held_brain, run_in_study, run_steps, run_whole, workers
from tasks.cancelling import HOOKS
from tasks.tracking import TrackingLine, log_figures, run_url


class JudgedChoice(Settings):
    """Which embedded points are judged. Several brains are given one after the other or with commas between them."""

    name: str = Field(pattern=ID_PATTERN, description="Name of what is made: its folder below studies/.")
    brains: tuple[str, ...] = Field(min_length=1, max_length=1000, description="Brains whose points are embedded.")
    points: str = Field(
        default="",
        max_length=200,
        description="Name of the embedded points (trace-cortex, then embed-points); blank where there is only one.",
    )
    depth: str = Field(default="", max_length=64, description="Kind of depth; blank where there is only one.")
    cells_path: Path | None = Field(
        title="Table of cells",
        default=None,
        examples=["/data/B07/cells.csv"],
        description="CSV file with columns section_id, y_px, x_px of the middles of cells, of one brain; blank: the "
        "density of cells is not judged.",
    )
    store_path: Path = Field(default=DEFAULT_STORE, description="Folder of the store that holds the brains.")

    _split = field_validator("brains", mode="before")(split_names)

    @field_validator("brains")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))

    @model_validator(mode="after")
    def _cells_of_one(self) -> "JudgedChoice":
        if self.cells_path is not None and len(self.brains) > 1:
            raise ValueError(
                f"a table of cells is of one brain, {len(self.brains)} are named; judge that one by itself"
            )
        return self


@flow(name="evaluate-structure", flow_run_name="structure-{judged.name}", **HOOKS)
def evaluate_structure(
    judged: JudgedChoice,
    evaluate: StructureSettings = StructureSettings(),
    columns: ColumnSettings = ColumnSettings(),
    attention: AttentionSettings = AttentionSettings(),
    run: RunSettings = RunSettings(),
) -> Summary:
    """Tell thickness, curvature, layers and places from the embeddings of points along the cortex, and score that.

    Linear regression from principal components, on points held out, beside profiles of the stain; places are told in
    every other brain, too.

    Args:
        judged: The brains, and which of their points.
        evaluate: How measures are told and scored.
        columns: How the cortex is measured at a point.
        attention: The vision transformer whose attention is drawn, where there is one.
        run: How the work is spread.

    """
    measured = _measured(judged, columns)
    names = {brain_id: one.points.name for brain_id, one in measured.items()}
    attending = _attending(judged.store_path, names, attention)
    steps = {brain_id: StructureStep.of(one, evaluate) for brain_id, one in measured.items()}
    made, failed, broken = _judge_all(judged.store_path, measured, steps, run)
    there = [one for one in judged.brains if one not in broken]
    structure, store = steps[there[0]].stored, BrainStore(judged.store_path)
    best = {
        f"{one}/{name}": value
        for one in there
        for name, value in structure.record(Place(read_only(judged.store_path, one))).facts["best"].items()
    }
    drawn, unseen = _attend_all(judged.store_path, {one: step for one, step in attending.items() if one in there})
    made += sum(drawn.values())
    sheets = attending[there[0]].stored if attending else None
    places = BrainPlacesStep(structure.name, evaluate, OfBrains(tuple(there), structure))
    page = StructurePageStep.of(judged.name, places, structure, sheets, tuple(drawn))
    with open_study(judged.store_path, judged.name) as study:
        for title, one in (("tell places", places), ("draw the page", page)):
            made += run_in_study(title, study, one)
        record, page_path = places.stored.record(Place(study)), page.stored.open(Place(study))
    errors = {
        f"places/{one['learned_from']}/{one['told']}/{axis}": one[axis]
        for one in record.facts["errors"]
        for axis in (*AXES, "beside_mm")
    }

    def told() -> dict[str, str]:
        stages = {"evaluate": evaluate, "columns": columns, "attention": attention}
        settings = {name: one.model_dump(mode="json") for name, one in stages.items()}
        parameters = {**settings, "brains": there, "points": structure.name}
        pages = {"page": page_path.parent}
        run_id = log_figures(store, "structure", judged.name, record.fingerprint, best | errors, parameters, pages)
        return {"MLflow run": run_url(store, run_id)}

    line = TrackingLine(store, get_run_logger())
    told_notes = line.tell("the embeddings' structure", told)
    notes = {"page": str(page_path), "points": structure.name, **_told_best(best)}
    notes |= {f"no attention of {one}": reason for one, reason in unseen.items()}
    notes |= told_notes or {"MLflow does not know": line.left}
    return final_state(
        Summary(judged.name, made, failed | broken, notes), "brain or section" if broken else "section", of="study"
    )


def _measured(judged: JudgedChoice, columns: ColumnSettings) -> dict[str, ColumnsStep]:
    """The step that measures the columns of every brain.

    Raises MissingInputError if a brain lacks points or depth, TrainingError if points have other names in other brains.
    """
    cells, found = None if judged.cells_path is None else CellTable.of(judged.cells_path), {}
    for brain_id in judged.brains:
        place = Place(read_only(judged.store_path, brain_id))
        points = require_stored(PointsStep, place, judged.points, "Run trace-cortex and embed-points, or name one")
        depth = require_stored(DepthStep, place, judged.depth, "Run trace-cortex, or name one")
        found[brain_id] = ColumnsStep.of(points, depth, columns, cells)
    if len({one.name for one in found.values()}) > 1:
        listed = ", ".join(f"{brain}: {one.name}" for brain, one in found.items())
        raise TrainingError(f"the brains' points are embedded in different ways ({listed}); name one that all have")
    return found


def _judge_all(
    store_path: Path, measured: Mapping[str, ColumnsStep], steps: Mapping[str, StructureStep], run: RunSettings
) -> tuple[int, dict[str, str], dict[str, str]]:
    """Measure and score in every brain: how many products were made, the sections that failed, the brains that did.

    A brain with too few points costs the others nothing; TrainingError if all have.
    """
    made, failed, broken = 0, dict[str, str](), dict[str, str]()
    for brain_id, step in steps.items():
        with held_brain(store_path, brain_id) as opened:
            try:
                made += _judge(opened, measured[brain_id], step, run)
            except TrainingError as error:
                broken[brain_id] = str(error)
            failed |= {f"{brain_id}/{one}": reason for one, reason in opened.failed.items()}
    if len(broken) == len(steps):
        raise TrainingError("\n".join(f"brain {one}: {reason}" for one, reason in broken.items()))
    return made, failed, broken


def _judge(opened: OpenBrain, measured: ColumnsStep, step: StructureStep, run: RunSettings) -> int:
    """Measure and score in one brain; returns how many products were made. Raises TrainingError if it has too few."""
    with workers(run) as runner:
        sections = sections_with(opened, measured.points)
        made = run_steps("measure columns", runner, opened, [measured], run, sections)
    return made + run_whole("regress", opened, step)


def _attending(store_path: Path, points: Mapping[str, str], attend: AttentionSettings) -> dict[str, AttentionStep]:
    """The step that draws the attention in every brain, by the name of its points; none where no encoder is named.

    Raises ModelError if the encoder cannot be had, or has no attention: before anything is measured.
    """
    if not attend.encoder:
        return {}
    steps = {one: AttentionStep.of(name, attend, read_only(store_path, one)) for one, name in points.items()}
    for step in steps.values():
        attentive(step.encoder.encoder)
    return steps


def _attend_all(store_path: Path, steps: Mapping[str, AttentionStep]) -> tuple[dict[str, int], dict[str, str]]:
    """Draw the attention in brains: what was made by brain, and why there is no sheet of others."""
    drawn, unseen = dict[str, int](), dict[str, str]()
    for brain_id, step in steps.items():
        try:
            with held_brain(store_path, brain_id) as opened:
                drawn[brain_id] = run_whole("draw attention", opened, step)
        except CytoarchError as error:  # the measures of a brain are told without its sheet
            unseen[brain_id] = str(error)
    return drawn, unseen


def _told_best(best: Mapping[str, float]) -> dict[str, str]:
    """The best R2 of every measure on sections held out, of embeddings beside profiles."""
    way = f"{EMBEDDING}/sections"
    found = {}
    for name, value in best.items():
        if name.endswith(way):
            measure = name.removesuffix(f"/{way}")
            other = best.get(f"{measure}/{PROFILE}/sections")
            found[measure] = f"R2 {_spoken(value)}" + (
                "" if other is None else f" (profiles of the stain {_spoken(other)})"
            )
    return found


def _spoken(r2: float) -> str:
    return f"{r2:.2f}" if r2 >= 0 else "below 0"
