"""Commands that look after a lab: is all well, how do the brains stand, and what can be removed."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cytoarch.errors import BrainBusyError, StoreError
from cytoarch.store import leftovers
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.durations import DURATIONS_FILE, Duration, read_durations, usual
from cytoarch.store.leftovers import WHY, Leftover
from cytoarch.store.standing import Standing, absent, cost, megapixels_each, standings
from flows.console import EXIT_OK, EXIT_SECTIONS_FAILED, counted, say, stderr_console
from flows.places import DEFAULT_STORE
from tasks.checks import Finding, examine
from tasks.leases import brain_lease
from tasks.progress import spoken_s
from tasks.tracking import needed, registered_digests

MAPPED = "clusters"
"""The step that every map-brain runs, whether a brain has labels or not. (To import it would take seconds.)"""
CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
_STYLES = {"well": "green", "note": "yellow", "wrong": "bold red"}


def doctor(*, store_path: Path = DEFAULT_STORE, as_json: Annotated[bool, Parameter(name="--json")] = False) -> int:
    """Look whether all is well: versions, encoders, GPU, disk, servers, limits, workers, clocks; say what to do.

    Parameters
    ----------
    store_path
        Folder of the store.
    as_json
        Print the findings as JSON, for other programs.

    """
    found = list(examine(BrainStore(store_path), CONSTRAINTS))
    if as_json:
        print(json.dumps([one._asdict() for one in found], indent=1))
    else:
        _print_findings(found)
    return EXIT_SECTIONS_FAILED if any(one.verdict == "wrong" for one in found) else EXIT_OK


def status(
    brain: str = "",
    *,
    store_path: Path = DEFAULT_STORE,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Say how brains stand: what is current, missing, or older than what it was made from, and what a run would cost.

    Parameters
    ----------
    brain
        Brain in the store; blank: all, a line each.
    store_path
        Folder of the store.
    as_json
        Print it as JSON, for other programs.

    """
    store = BrainStore(store_path)
    names = (brain,) if brain else store.brain_ids()
    if not names:
        raise StoreError(f"{store_path} holds no brain; map one with map-brain, or name another store: --store-path")
    found: dict[str, list[Standing]] = {}
    steps = usual(read_durations(store.root))
    for name in names:
        try:
            rows = standings(store, name)
            found[name] = [*rows, *absent(store, name, rows, steps)]
        except StoreError as error:
            if brain:
                raise
            say(stderr_console(), "left out", str(error))
    if as_json:
        print(json.dumps({name: [one._asdict() for one in rows] for name, rows in found.items()}, indent=1))
    elif brain:
        _print_brain(store, brain, found[brain])
    elif found:
        _print_brains(store, found)
    return EXIT_OK


def gc(*, delete: bool = False, older_than_h: float = 24.0, store_path: Path = DEFAULT_STORE) -> int:
    """List what nothing speaks of any more (unfinished work, products without records, unused models), or delete it.

    Parameters
    ----------
    delete
        Delete what is listed; without it nothing is touched.
    older_than_h
        What was written to more recently (hours) is left alone.
    store_path
        Folder of the store.

    """
    store = BrainStore(store_path)
    registered = needed(store, "what is registered", lambda: registered_digests(store))
    found = leftovers.leftovers(store, older_than_h * 3600, registered)
    console, freed = stderr_console(), 0
    for one in found:
        print(_line(one, store_path))
        if delete:
            try:
                with brain_lease(store_path, one.owner) if one.owner else nullcontext():
                    leftovers.remove(store, one)
            except BrainBusyError as error:
                say(console, "left", str(error))
                continue
            freed += one.nbytes
    total = sum(one.nbytes for one in found)
    if delete:
        print(f"deleted: {freed / 1e9:.2f} GB")
    else:
        end = "; nothing was deleted, add --delete to delete them" if found else ""
        print(f"{counted(len(found), 'leftover')}, {total / 1e9:.2f} GB{end}")
    return EXIT_OK


def _line(one: Leftover, store_path: Path) -> str:
    where = one.path.relative_to(store_path) if one.path.is_relative_to(store_path) else one.path
    return f"{one.kind:<11} {one.nbytes / 1e6:10,.1f} MB  {spoken_s(one.age_s)} old  {where}  ({WHY[one.kind]})"


def _print_findings(found: list[Finding]) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for one in found:
        remedy = f"\n[dim]do:[/] {escape(one.remedy)}" if one.remedy else ""
        style = _STYLES[one.verdict]
        table.add_row(f"[{style}]{one.verdict}[/]", f"[bold]{escape(one.what)}[/]", escape(one.found) + remedy)
    _stdout().print(table)
    wrong = sum(one.verdict == "wrong" for one in found)
    print("all is well" if not wrong else f"{counted(wrong, 'thing')} to mend")


def _print_brains(store: BrainStore, found: dict[str, list[Standing]]) -> None:
    table = Table("brain", "sections", "current", "stale", "missing", "damaged", "GB", "a run would cost", box=None)
    durations = read_durations(store.root)
    for name, rows in found.items():
        sections = sum(one.current + one.stale for one in rows if one.step == "sections")
        sums = [sum(getattr(one, what) for one in rows) for what in ("current", "stale", "missing", "damaged")]
        size = sum(one.nbytes for one in rows) / 1e9
        table.add_row(name, str(sections), *map(str, sums), f"{size:.2f}", _cost(store, name, rows, durations))
    _stdout().print(table)
    print(
        "`status BRAIN` has every product; `verify BRAIN` reads every byte; times are those of "
        f"{store.root / DURATIONS_FILE}"
    )


def _print_brain(store: BrainStore, brain: str, rows: list[Standing]) -> None:
    table = Table("step", "name", "current", "stale", "missing", "damaged", "GB", box=None)
    for one in rows:
        counts = (str(getattr(one, what) or "-") for what in ("current", "stale", "missing", "damaged"))
        table.add_row(one.step, one.name, *counts, f"{one.nbytes / 1e9:.3f}")
    _stdout().print(table)
    print(f"{brain}: a run would cost {_cost(store, brain, rows, read_durations(store.root))}")


def _cost(store: BrainStore, brain: str, rows: list[Standing], durations: list[Duration]) -> str:
    if not any(one.due for one in rows):
        is_mapped = any(one.step == MAPPED for one in rows)
        return "nothing" if is_mapped else "unknown time: not mapped"
    spent = cost(rows, durations, megapixels_each(store, brain))
    hours = "unknown time (nothing was timed yet)" if spent.seconds is None else spoken_s(spent.seconds)
    return f"{hours}, {spent.nbytes / 1e9:.2f} GB"


def _stdout() -> Console:
    return Console(highlight=False, soft_wrap=False)
