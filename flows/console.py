"""What every command of the terminal shares: exit codes, the console, progress bars."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from tasks.progress import Listener

EXIT_OK, EXIT_BROKEN, EXIT_USAGE, EXIT_SECTIONS_FAILED = 0, 1, 2, 3


def stderr_console() -> Console:
    """Where bars, remarks and errors go; results are printed to stdout."""
    return Console(stderr=True)


@contextmanager
def bars(console: Console) -> Iterator["Listener"]:
    """A bar per stage on a terminal; elsewhere a line per finished stage."""
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    shown: dict[str, TaskID] = {}
    finished: set[str] = set()
    adding = threading.Lock()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def listen(stage: str, done: float, total: int, note: str = "") -> None:
            with adding:  # tasks report from several threads
                if stage not in shown:
                    shown[stage] = progress.add_task(stage, total=total, note="")
            progress.update(shown[stage], completed=done, total=total, note=note)
            if not console.is_terminal and done >= total and stage not in finished:
                finished.add(stage)
                console.print(f"{stage}: {total}/{total} {note}".rstrip(), highlight=False)

        yield listen


def say(console: Console, label: str, text: str, style: str = "yellow") -> None:
    """Print a labelled line; the text is shown as it is, whatever it holds."""
    console.print(f"[{style}]{label}[/]: {escape(text)}", highlight=False, soft_wrap=True)


def counted(count: int, noun: str) -> str:
    """A number of things: `1 fault`, `2 faults`."""
    return f"{count} {noun}{'s' if count != 1 else ''}"
