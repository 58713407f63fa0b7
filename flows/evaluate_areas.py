"""What an encoder brings along for drawing areas."""

from prefect import flow, get_run_logger

from cytoarch.pretraining.area_training import WITH, AreaSettings
from cytoarch.steps.areas import AreasStep
from cytoarch.steps.opened import open_study
from cytoarch.steps.step import Place
from cytoarch.store.brain_store import BrainStore
from flows.parameters import LearnedBrains
from flows.stages import Summary, final_state, run_in_study
from tasks.cancelling import HOOKS
from tasks.tracking import TrackingLine, log_figures, run_url


@flow(name="evaluate-areas", flow_run_name="areas-{drawn.name}", **HOOKS)
def evaluate_areas(drawn: LearnedBrains, areas: AreaSettings = AreaSettings()) -> Summary:
    """Fine-tune a U-Net of areas from an encoder, without and then with an atlas, and score it on what was held out.

    Sections of the brains learned from are held out, and whole brains where some are named: Dice, and how far wrong
    places lie from the area they were taken for. The atlas is made of the labels of the other brains learned from.

    Args:
        drawn: The brains, whose areas are labelled, and the name of what is made.
        areas: What the U-Net begins with and sees, and how it is fine-tuned.

    """
    store = BrainStore(drawn.store_path)
    step = AreasStep.of(drawn.brains, drawn.held_out, areas)
    with open_study(drawn.store_path, drawn.name) as opened:
        made = int(run_in_study("fine-tune", opened, step))
        record, network = step.stored.record(Place(opened)), step.stored.open(Place(opened))
    scores = {
        f"{phase}/{split}": score for phase, one in network.record["scores"].items() for split, score in one.items()
    }

    def told() -> dict[str, str]:
        figures = {f"{name}/{figure}": value for name, score in scores.items() for figure, value in score.items()}
        parameters = {"areas": areas.model_dump(mode="json"), "brains": drawn.brains, "held_out": drawn.held_out}
        files = {"network": network.weights.parent}
        run_id = log_figures(store, "areas", drawn.name, record.fingerprint, figures, parameters, files)
        return {"MLflow run": run_url(store, run_id)}

    line = TrackingLine(store, get_run_logger())
    told_notes = line.tell("the scores of areas", told)
    notes = {"network": str(network.weights)}
    notes |= {
        name.replace("/", ", "): f"Dice {score['dice']:.2f}, err_seg {score['err_seg_um'] / 1000:.2f} mm"
        for name, score in scores.items()
    }
    if WITH not in network.record["scores"]:
        notes["atlas"] = "none: it takes the labels of two brains or more to learn from"
    notes |= told_notes or {"MLflow does not know": line.left}
    return final_state(Summary(drawn.name, made, {}, notes), of="study")
