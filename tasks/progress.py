"""Progress of stages: as Prefect progress artifacts, and to whoever listens in this process (the terminal)."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from cytoarch.embeddings.engine import Report, Speed


class Listener(Protocol):
    """Whoever wants to hear how far a stage is."""

    def __call__(self, stage: str, done: float, total: int, note: str = "") -> None:
        """`done` of `total` sections; the note says how fast, where that is known."""


ARTIFACT_PERIOD_S = 3.0
QUICK: dict[str, Any] = {"timeout": 5.0}
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
MOST_PARTS = 3
"""Sections under way that are named beside a bar."""

_listeners: list[Listener] = []
_open: dict[str, "StageProgress"] = {}
_watched: ContextVar["Stages | None"] = ContextVar("watched", default=None)


def update_progress_artifact(artifact_id: UUID, progress: float, description: str) -> None:
    """Bring an artifact up to date, or raise an HTTPError at once where the server is away.

    The client of a run waits for its server for minutes, and would have the work wait with it; a new one does not.
    """
    with get_client(sync_client=True, httpx_settings=QUICK) as client:
        client.update_artifact(artifact_id, ArtifactUpdate(data=progress, description=description))


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send the progress of every stage in this process to `listener` too."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def hear(stage: str, done: float, total: int, note: str = "") -> None:
    """Tell whoever listens in this process."""
    for listener in _listeners:
        listener(stage, done, total, note)


class Stages(NamedTuple):
    """What the stages of a flow, and of the flows inside it, have done so far."""

    seconds: dict[str, float]
    """What each took that made something, by its title."""
    said: list[str]
    """What each logged; the flow that called them logs it again, since people read its page."""

    def log(self, logger: "logging.Logger | logging.LoggerAdapter[logging.Logger]") -> None:
        """Log what was said since this was asked before."""
        for text in self.said:
            logger.info(text)
        self.said.clear()


@contextmanager
def watched() -> Iterator[Stages]:
    """Watch the stages of a flow while it is at work; of the flows inside it, too."""
    stages = Stages({}, [])
    token = _watched.set(stages)
    try:
        yield stages
    finally:
        _watched.reset(token)


def spend(title: str, seconds: float) -> None:
    """Let the flow that watches know how long a stage took that made something."""
    stages = _watched.get()
    if stages is not None:
        stages.seconds[title] = stages.seconds.get(title, 0.0) + seconds


def say_stage(text: str, is_inside: bool) -> None:
    """Let the flow that watches know what a stage of a flow inside it did; its own stages it has logged itself."""
    stages = _watched.get()
    if stages is not None and is_inside:
        stages.said.append(text)


class StageProgress:
    """How far a stage is: finished sections, and the parts of those under way that report from this process.

    Where the bytes of the sections' scans are known, it also tells bytes, rate and time left.
    """

    def __init__(self, title: str, total: int, sizes: Mapping[str, int] | None = None) -> None:
        self.title, self.total = title, total
        self._sizes = dict(sizes or {})
        self._finished = 0
        self._finished_bytes = 0
        self._worked_bytes = 0.0
        self._parts: dict[str, float] = {}
        self._note = ""
        self._lock = threading.Lock()
        self._started_at = self._sent_at = time.monotonic()
        self._artifact: Any = create_progress_artifact(progress=0.0, description=title)
        self._tell()  # a bar is seen before the first of its sections is heard of

    def part(self, section_id: str, done: int, total: int, note: str = "") -> None:
        """Note how far a section is, and how fast; may be called from any thread."""
        with self._lock:
            share = done / max(total, 1)
            known = self._parts.get(section_id)
            if known is not None:  # what was there at the first word of a section, an earlier run has done
                self._worked_bytes += (share - known) * self._sizes.get(section_id, 0)
            self._parts[section_id] = share
            self._note = note or self._bytes_note()
            due = time.monotonic() - self._sent_at > ARTIFACT_PERIOD_S
            if due:
                self._sent_at = time.monotonic()
        self._tell()
        if due:
            self._send()

    def finished(self, *section_ids: str) -> None:
        """Note that sections are finished; called from the flow, which also keeps the artifact up to date."""
        with self._lock:
            for section_id in section_ids:
                self._parts.pop(section_id, None)
                self._finished += 1
                self._finished_bytes += self._sizes.get(section_id, 0)
            if self._sizes:
                self._note = self._bytes_note()
        self._tell()
        if time.monotonic() - self._sent_at > ARTIFACT_PERIOD_S:
            self._send()

    def close(self) -> None:
        """Bring the artifact up to date for the last time."""
        self._send()

    @property
    def seconds(self) -> float:
        """How long the stage has been at work."""
        return time.monotonic() - self._started_at

    def _done(self) -> float:
        with self._lock:
            return self._finished + sum(self._parts.values())

    def _bytes_note(self) -> str:
        if not self._sizes:
            return ""
        done = self._finished_bytes + sum(share * self._sizes.get(one, 0) for one, share in self._parts.items())
        seconds = time.monotonic() - self._started_at
        return bytes_note(done, sum(self._sizes.values()), self._worked_bytes / max(seconds, 1e-9), self._parts)

    def _tell(self) -> None:
        hear(self.title, self._done(), self.total, self._note)

    def _send(self) -> None:
        self._sent_at = time.monotonic()
        progress = 100.0 * self._done() / max(self.total, 1)
        description = f"{self.title}: {self._note}" if self._note else self.title
        with suppress(httpx.HTTPError):  # a server that is busy for a moment costs a figure, not the run
            update_progress_artifact(artifact_id=self._artifact, progress=min(progress, 100.0), description=description)


def bytes_note(done: float, total: float, rate: float, parts: Mapping[str, float]) -> str:
    """Bytes, rate and time left, and the sections under way.

    >>> bytes_note(3e9, 12e9, 1.5e8, {"s0007": 0.25})
    '3.0 of 12.0 GB, 150 MB/s, 1 min left, s0007 25 %'
    """
    unit, name = next((one for one in _UNITS if total >= one[0]), _UNITS[-1])
    words = [f"{done / unit:.1f} of {total / unit:.1f} {name}"]
    if rate > 0:
        speed, name = next((one for one in _UNITS[1:] if rate >= one[0]), _UNITS[-1])
        words.append(f"{rate / speed:.0f} {name}/s")
        words += [f"{spoken_s((total - done) / rate)} left"] if done < total else []
    under_way = [(one, share) for one, share in parts.items() if share < 1]
    words += [f"{section_id} {100 * share:.0f} %" for section_id, share in under_way[:MOST_PARTS]]
    return ", ".join(words)


def spoken_s(seconds: float) -> str:
    """A time as one says it.

    >>> [spoken_s(one) for one in (0.04, 31, 90, 5400, 9000)]
    ['less than 1 s', '31 s', '2 min', '90 min', '2.5 h']
    """
    if seconds < 1:
        return "less than 1 s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@contextmanager
def stage_progress(title: str, total: int, sizes: Mapping[str, int] | None = None) -> Iterator[StageProgress]:
    """The progress of a stage, found by its title from the tasks that run in this process."""
    stage = StageProgress(title, total, sizes)
    _open[title] = stage
    try:
        yield stage
    finally:
        _open.pop(title, None)
        stage.close()


class SectionProgress:
    """How far one section is, as an artifact of its task run; short work gets none."""

    def __init__(self, title: str, section_id: str) -> None:
        self._title, self._section_id = title, section_id
        self._sent_at = time.monotonic()
        self._artifact: Any = None

    def __call__(self, done: int, total: int) -> None:
        """Note how far it is."""
        stage = _open.get(self._title)
        if stage is not None:  # in another process nobody would hear it
            stage.part(self._section_id, done, total)
        if time.monotonic() - self._sent_at > ARTIFACT_PERIOD_S or (self._artifact is not None and done == total):
            self._sent_at = time.monotonic()
            self._send(
                100.0 * done / max(total, 1),
                f"{self._title} {self._section_id}: {100.0 * done / max(total, 1):.0f} %",
            )

    def _send(self, progress: float, description: str) -> None:
        with suppress(httpx.HTTPError):
            if self._artifact is None:
                self._artifact = create_progress_artifact(progress=progress, description=description)
            else:
                update_progress_artifact(artifact_id=self._artifact, progress=progress, description=description)


def reporter(title: str, section_id: str) -> Callable[[int, int], None]:
    """What a section's work calls as it goes on: (done, total)."""
    return SectionProgress(title, section_id)


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
