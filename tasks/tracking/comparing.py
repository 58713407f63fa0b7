"""Rows of brains and models side by side, as MLflow has them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cytoarch.store.brain_store import BrainStore
from tasks.tracking.choosing import all_models
from tasks.tracking.database import CHAMPION, client
from tasks.tracking.experiments import experiments, search_rows
from tasks.tracking.runs import PARENT_KIND

SCORES = ("headline/macro_f1", "held_out/macro_f1", "map/macro_f1", "clusters/purity_labels", "familiarity/outside95")
"""The figures that brains are compared by."""
NAMES = {
    "headline/macro_f1": "macro-F1, hardest",
    "held_out/macro_f1": "macro-F1, held out",
    "map/macro_f1": "macro-F1 of the map",
    "clusters/purity_labels": "cluster purity",
    "familiarity/outside95": "unlike the model's",
}
_PAGE = 1000


class ComparedBrain(NamedTuple):
    """The row of a brain and configuration."""

    brain: str
    question: str
    """What is asked of it: `layers of brains`."""
    title: str
    """How it was mapped."""
    encoder: str
    stated: str
    """Species, stain, pixel size, sections."""
    scores: Mapping[str, float]
    classes: Mapping[str, float]
    """F1 of single classes."""
    hours: float
    """Over all stages of its last run; NaN: not timed."""
    status: str
    run_id: str


class ComparedModel(NamedTuple):
    """A version of a registered model."""

    name: str
    version: int
    is_champion: bool
    brains: str
    encoder: str
    score: float
    verdict: str


def compared_brains(store: BrainStore, brains: Sequence[str] = ()) -> list[ComparedBrain]:
    """The rows of brains, by brain and then the newest first; of the named ones where there are any."""
    found: list[ComparedBrain] = []
    asked, token = experiments(store), None
    while True:
        how = {"max_results": _PAGE, "order_by": ["attributes.start_time DESC"], "page_token": token}
        page = search_rows(store, f"tags.kind = '{PARENT_KIND}'", **how)
        found += [_brain(run, asked.get(str(run.info.experiment_id), "")) for run in page]
        token = getattr(page, "token", None)
        if not token:
            break
    kept = [one for one in found if not brains or one.brain in brains]
    return sorted(kept, key=lambda one: one.brain)  # stable: the newest of a brain stays first


def compared_models(store: BrainStore) -> list[ComparedModel]:
    """All versions of registered models, by name, the best first."""
    found = []
    for model in all_models(store):
        champion = str((model.aliases or {}).get(CHAMPION))
        for version in client(store).search_model_versions(f"name = '{model.name}'"):
            tags = version.tags
            found.append(
                ComparedModel(
                    str(model.name),
                    int(version.version),
                    str(version.version) == champion,
                    str(tags.get("brains", tags.get("brain", ""))),
                    str(tags.get("encoder", "")),
                    float(tags.get("headline_macro_f1", math.nan)),
                    str(tags.get("verdict", "")),
                )
            )
    return sorted(found, key=lambda one: (one.name, -one.score if math.isfinite(one.score) else math.inf, one.version))


def _brain(run: Any, question: str) -> ComparedBrain:
    tags, metrics, params = run.data.tags, run.data.metrics, run.data.params
    stated = [tags[name] for name in ("species", "stain") if name in tags]
    stated += [f"{tags['pixel_size_um']} um"] if "pixel_size_um" in tags else []
    stated += [f"{tags['sections']} sections"] if "sections" in tags else []
    seconds = [value for name, value in metrics.items() if name.startswith("duration/")]
    return ComparedBrain(
        str(tags["brain"]),
        question,
        str(run.info.run_name).removeprefix(f"{tags['brain']}: "),
        str(params.get("embed.encoder", "")),
        ", ".join(stated),
        {name: metrics[name] for name in SCORES if name in metrics},
        {name.removeprefix("f1/"): value for name, value in metrics.items() if name.startswith("f1/")},
        sum(seconds) / 3600 if seconds else math.nan,
        str(run.info.status),
        str(run.info.run_id),
    )
