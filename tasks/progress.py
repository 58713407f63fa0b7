"""Progress of stages: as Prefect progress artifacts, and to whoever listens in this process (the terminal)."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from cytoarch.embeddings.engine import Report, Speed


class Listener(Protocol):
    """Whoever wants to hear how far a stage is."""

    def __call__(self, stage: str, done: float, total: int, note: str = "") -> None:
        """`done` of `total` sections; the note says how fast, where that is known."""


ARTIFACT_PERIOD_S = 3.0

_listeners: list[Listener] = []
_open: dict[str, "StageProgress"] = {}


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send the progress of every stage in this process to `listener` too."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


class StageProgress:
    """How far a stage is: finished sections, and the parts of those under way that report from this process."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total = title, total
        self._finished = 0
        self._parts: dict[str, float] = {}
        self._note = ""
        self._lock = threading.Lock()
        self._sent_at = time.monotonic()
        self._artifact: Any = create_progress_artifact(progress=0.0, description=title)

    def part(self, section_id: str, done: int, total: int, note: str = "") -> None:
        """Note how far a section is, and how fast; may be called from any thread."""
        with self._lock:
            self._note = note
            self._parts[section_id] = done / max(total, 1)
            due = time.monotonic() - self._sent_at > ARTIFACT_PERIOD_S
            if due:
                self._sent_at = time.monotonic()
        self._tell()
        if due:
            self._send()

    def finished(self, section_id: str) -> None:
        """Note that a section is finished; called from the flow, which also keeps the artifact up to date."""
        with self._lock:
            self._parts.pop(section_id, None)
            self._finished += 1
        self._tell()
        if time.monotonic() - self._sent_at > ARTIFACT_PERIOD_S:
            self._send()

    def close(self) -> None:
        """Bring the artifact up to date for the last time."""
        self._send()

    def _done(self) -> float:
        with self._lock:
            return self._finished + sum(self._parts.values())

    def _tell(self) -> None:
        for listener in _listeners:
            listener(self.title, self._done(), self.total, self._note)

    def _send(self) -> None:
        self._sent_at = time.monotonic()
        progress = 100.0 * self._done() / max(self.total, 1)
        description = f"{self.title}: {self._note}" if self._note else self.title
        with suppress(httpx.HTTPError):  # a server that is busy for a moment costs a figure, not the run
            update_progress_artifact(artifact_id=self._artifact, progress=min(progress, 100.0), description=description)


@contextmanager
def stage_progress(title: str, total: int) -> Iterator[StageProgress]:
    """The progress of a stage, found by its title from the tasks that run in this process."""
    stage = StageProgress(title, total)
    _open[title] = stage
    try:
        yield stage
    finally:
        _open.pop(title, None)
        stage.close()


def reporter(title: str, section_id: str) -> Callable[[int, int], None] | None:
    """What a section's work calls as it goes on; None in another process, where nobody would hear it."""
    stage = _open.get(title)
    return None if stage is None else lambda done, total: stage.part(section_id, done, total)


def engine_reporter(title: str, noun: str, per_tile: int) -> Report | None:
    """What the embedding engine calls as it goes on, with its speed in `noun` (tokens, patches) a second."""
    stage = _open.get(title)
    if stage is None:
        return None

    def report(section_id: str, done: int, total: int, speed: Speed) -> None:
        stage.part(section_id, done, total, speed_note(speed, noun, per_tile))

    return report


def speed_note(speed: Speed, noun: str, per_tile: int) -> str:
    """How fast embedding goes, and how much of that time is the model's.

    >>> speed_note(Speed(tiles=10, model_s=9.5, wall_s=10.0), "tokens", 1024)
    '1,024 tokens/s, 95 % of the time in the model'
    """
    rate = speed.tiles * per_tile / speed.wall_s if speed.wall_s else 0.0
    return f"{rate:,.0f} {noun}/s, {100 * speed.share:.0f} % of the time in the model"
