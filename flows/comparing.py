"""The command that puts brains and models side by side, as MLflow remembers them."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cytoarch.errors import StoreError
from cytoarch.reporting.comparison import ComparedRow, comparison_chart
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.disk import write_atomically
from flows.console import EXIT_OK
from flows.places import DEFAULT_STORE
from tasks.tracking import NAMES, SCORES, ComparedBrain, ComparedModel, compared_brains, compared_models, needed

DEFAULT_OUT = Path("work/comparison")


def compare(
    *,
    brains: tuple[str, ...] = (),
    every: bool = False,
    out: Path = DEFAULT_OUT,
    store_path: Path = DEFAULT_STORE,
) -> int:
    """Compare brains and models by their scores: a table, a CSV file of all figures, and one figure.

    Parameters
    ----------
    brains
        Brains to compare; none named: all.
    every
        Show every configuration of a brain, and not only the latest that answers each question (areas, layers, ...).
    out
        Folder that brains.csv, models.csv and comparison.png are written into.
    store_path
        Folder of the store.

    """
    store = BrainStore(store_path)
    rows, models = needed(store, "what is compared", lambda: (compared_brains(store, brains), compared_models(store)))
    if not rows:
        named = f" of {', '.join(brains)}" if brains else ""
        known = sorted({one.brain for one in compared_brains(store)})
        raise StoreError(
            f"MLflow has no row{named} (brains there: {', '.join(known) or 'none'}); map one with map-brain"
        )
    shown = rows if every else latest(rows)
    _print(shown, models)
    is_told = every or len({one.brain for one in shown}) < len(shown)
    names = [f"{one.brain}: {one.title}" if is_told else one.brain for one in shown]
    chart = comparison_chart(
        [
            ComparedRow(name, {NAMES[score]: value for score, value in one.scores.items()}, one.classes)
            for name, one in zip(names, shown, strict=True)
        ],
        "Brains side by side",
    )
    write_atomically(out / "comparison.png", chart)
    _write_brains(out / "brains.csv", shown)
    _write_models(out / "models.csv", models)
    print(f"\nfigure  {out / 'comparison.png'}\ntables  {out / 'brains.csv'}, {out / 'models.csv'}")
    return EXIT_OK


def latest(rows: Sequence[ComparedBrain]) -> list[ComparedBrain]:
    """Of rows, the newest of a brain first, the latest that answers each question.

    Rows of versions that knew no questions stand for a brain only until one that has a question follows them.
    """
    kept: dict[tuple[str, str], ComparedBrain] = {}
    for one in rows:
        if one.question or not any(brain == one.brain for brain, _ in kept):
            kept.setdefault((one.brain, one.question), one)
    return list(kept.values())


def _print(rows: Sequence[ComparedBrain], models: Sequence[ComparedModel]) -> None:
    console = Console(highlight=False)
    told = [score for score in SCORES if any(score in one.scores for one in rows)]
    table = Table("brain", "question", "what it is", "mapped", *(NAMES[one] for one in told), "hours", box=None)
    for one in rows:
        figures = (f"{one.scores[score]:.3f}" if score in one.scores else "-" for score in told)
        mapped = one.title if one.status == "FINISHED" else f"{one.title} ({one.status.lower()})"
        table.add_row(
            one.brain, escape(one.question), escape(one.stated), escape(mapped), *figures, _number(one.hours, ".2f")
        )
    console.print(table)
    if models:
        console.print()
        listed = Table("model", "version", "of brains", "encoder", "headline", "", box=None)
        for model in models:
            star = "champion" if model.is_champion else ""
            listed.add_row(
                model.name, str(model.version), escape(model.brains), model.encoder, _number(model.score, ".3f"), star
            )
        console.print(listed)


def _write_brains(path: Path, rows: Sequence[ComparedBrain]) -> None:
    classes = sorted({name for one in rows for name in one.classes})
    header = [
        "brain",
        "question",
        "stated",
        "mapped",
        "encoder",
        "status",
        *SCORES,
        *(f"f1/{one}" for one in classes),
        "hours",
        "run_id",
    ]
    lines = [
        [one.brain, one.question, one.stated, one.title, one.encoder, one.status]
        + [_number(one.scores.get(name, math.nan), ".6g") for name in SCORES]
        + [_number(one.classes.get(name, math.nan), ".6g") for name in classes]
        + [_number(one.hours, ".4f"), one.run_id]
        for one in rows
    ]
    _write(path, header, lines)


def _write_models(path: Path, models: Sequence[ComparedModel]) -> None:
    _write(path, list(ComparedModel._fields), [[str(value) for value in one] for one in models])


def _write(path: Path, header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "-"
