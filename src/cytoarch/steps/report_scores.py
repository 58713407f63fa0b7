"""What the report says of a model: where it comes from, how far a brain lies from it, how good its maps are."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoarch.learning.cards import HeadCard
from cytoarch.learning.evaluation import class_figures
from cytoarch.learning.ordering import LEAST_GAIN
from cytoarch.steps.agreement import MapScore
from cytoarch.steps.familiarity import Familiarity
from cytoarch.steps.training import Training

PART_NAMES = {
    "fifth": "every fifth section",
    "block": "held-out block",
    "held_out": "both, held out",
    "brains": "each brain by a model of the others",
}
UNTESTED = (
    "Nothing was held out, as fewer than three sections have labels: the model learned from every section that it is "
    "scored on here, and no figure says how good it is on others."
)
NAMED = 12
"""Names that a sentence lists at most."""

Int64 = NDArray[np.int64]
Rows = list[Mapping[str, Any]]


def said_of_model(
    label: str,
    brain_id: str,
    card: HeadCard,
    compared: Familiarity | None,
    scores: tuple[MapScore | None, MapScore | None],
) -> list[str]:
    """Where a model comes from, how far the brain is from what it learned from, and what its scores are of.

    `scores` are those of the maps of sections that it did not learn from, and of those that it did.
    """
    said = [origin(card, brain_id, label or "a model of this store")]
    said += [compared.sentence()] if compared is not None else []
    said += [card.scores_of] if card.scores_of else []
    counted = scores[0] or scores[1]
    if counted is None:
        return said
    if not counted.confusion.sum():
        names = listed([one.name for one in card.classes])
        said.append(
            f"No label has the name of a class of the model ({names}): the map has no score. Give the classes in "
            "labels.csv the names that they have in the model."
        )
    if missing := counted.never_predicted(card.classes):
        said.append(f"Never drawn on the maps although there are labels of it: {listed(missing)}.")
    if counted.unknown:
        said.append(
            f"The labels know classes that the model does not: {listed(list(counted.unknown))}; their cells are in no "
            "score."
        )
    return said


IN_ORDER = {
    "bands": "Classes are drawn as bands that lie one below the other, in the order of the label table",
    "depth": "Classes follow each other along the depth of the cortex, in the order of the label table",
}
"""How a map is ordered -> how that is said."""


def said_of_order(maps: Iterable[Mapping[str, Any]], tried: Mapping[str, Any] | None) -> list[str]:
    """Whether classes follow each other on the maps, and what that was worth where it was tried.

    `maps` are the facts of the maps, `tried` what a training says of held-out sections.
    """
    counts = Counter(one.get("order", "none") for one in maps)
    said = []
    for order, sentence in IN_ORDER.items():
        where = f" (in {counts[order]} of {counts.total()} sections)" if counts[order] < counts.total() else ""
        said += [f"{sentence}{where} (--smooth.order {order})."] if counts[order] else []
    if tried is not None:
        plain, bands = tried["macro_f1"]["none"], tried["macro_f1"]["bands"]
        said += [] if said else ["Every cell is drawn on its own."]
        said.append(
            f"On held-out sections cells on their own had macro-F1 {plain:.3f}, ordered bands {bands:.3f}; bands are "
            f"drawn where they are better by {LEAST_GAIN:g}, unless --smooth.order says otherwise."
        )
    return [" ".join(said)] if said else []


def origin(card: HeadCard, brain_id: str, label: str) -> str:
    """Which model made a map, what it was trained on, and whether it has seen the brain."""
    if not card.brains:
        return f"Mapped by {label}, which does not say what it was trained on."
    sections = sum(map(len, card.learned_from.values()))
    trained = f"trained on brain{'s' if len(card.brains) > 1 else ''} {listed(card.brains)} ({sections} sections)"
    own = len(card.learned(brain_id))
    if own == sections:
        return f"Mapped by {label}, trained on {own} section{'s' if own > 1 else ''} of this brain."
    seen = f"{own} of them of this brain" if own else "never seen this brain"
    return f"Mapped by {label}, {trained}, {seen}."


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: the first few, and how many more there are."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def percent(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table of familiarity with its shares as text."""
    shares = {key: "-" if np.isnan(row[key]) else f"{100 * row[key]:.0f} %" for key in ("outside95", "outside99")}
    return {**row, **shares}


def confused(held_out: Mapping[str, Any] | None, scored: MapScore | None) -> tuple[str, Int64 | None]:
    """What classes were taken for (k, k), and of what that was counted: of held-out embeddings where there are any."""
    if held_out:
        return "Held-out sections, from embeddings", np.array(held_out["confusion"], dtype=np.int64)
    if scored is None or not scored.confusion.sum():
        return "", None
    return "The map", scored.confusion[1:, 1:]


def score_rows(
    training: Training | None, unseen: MapScore | None, learned: MapScore | None, is_chosen_on: bool = False
) -> Rows:
    """The rows of the table of scores; `is_chosen_on`: smoothing across sections was chosen on the unseen ones."""
    rows: Rows = [_score_row(PART_NAMES[part], facts) for part, facts in training.metrics.items()] if training else []
    but_for = " (but how strongly it is smoothed across sections was chosen on them)" if is_chosen_on else ""
    maps = (
        (f"the map, sections not learned from{but_for}", unseen),
        ("the map, sections it learned from: no test", learned),
    )
    for name, score in maps:
        if score is not None and score.confusion.sum():
            figures = score.metrics("map")
            shown = {key: _shown(figures.get(f"map/{key}")) for key in ("macro_f1", "top1", "top3")}
            rows.append({"name": name, "sections": len(score.sections), **shown})
    return rows


def class_rows(card: HeadCard | None, held_out: Mapping[str, Any] | None, scored: MapScore | None) -> Rows:
    """A row per class: of held-out embeddings where there are any, else of the map."""
    if held_out:
        return [_class_row(row) for row in held_out["classes"]]
    if card is None or scored is None or not scored.confusion.sum():
        return []
    rows = class_figures(card.classes, scored.confusion, scored.boundaries, first=1)
    return [_class_row(row) for row in rows]


def there_or_found(rows: Rows) -> Rows:
    """The rows of classes that the labels or the map show; a label table may name many more."""
    return [row for row in rows if row["support"] != "0" or row["f1"] != "-"]


def said_of_nowhere(count: int) -> list[str]:
    """That classes are left out of the table of classes, where some are.

    >>> said_of_nowhere(0), said_of_nowhere(1)[0][:40]
    ([], '1 class of the label table is neither in')
    """
    if not count:
        return []
    which = "1 class of the label table is" if count == 1 else f"{count} classes of the label table are"
    return [f"{which} neither in the labels scored here nor on the maps: the table of classes leaves them out."]


def _class_row(row: Mapping[str, Any]) -> dict[str, str]:
    return {key: _um(value) if key.endswith("_um") else _shown(value) for key, value in row.items()}


def _score_row(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    shown = {key: _shown(facts[key]) for key in ("macro_f1", "top1", "top3")}
    return {"name": name, "sections": len(facts["sections"]), **shown}


def _um(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return "-" if np.isnan(value) else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
