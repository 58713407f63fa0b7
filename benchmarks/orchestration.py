"""What Prefect and we add to the time that a section takes, and how the server's memory grows: a step that only waits.

`python -m benchmarks.orchestration SECTIONS SECONDS [DATABASE]` runs SECTIONS sections of SECONDS each on a server of
its own, with SQLite or the database of that URL, and writes the table in docs/lab.md; what was seen before stays in it.
"""

import contextvars
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import psutil

from benchmarks.cases import write_block
from benchmarks.fault_lab import ROOT, free_port, wait_until
from benchmarks.large_brains import quiet
from cytoarch.brains import Brain, Section
from cytoarch.steps.step import Facts, Inputs, Step
from cytoarch.store.staging import Staging
from flows.serving import answers, direct_loopback

DOCS = ROOT / "docs" / "lab.md"
BLOCK = "orchestration: written by python -m benchmarks.orchestration"
SEEN_PATH = ROOT / "work" / "orchestration.jsonl"
WORKERS = 2
ASKED_S = 2.0
"""The time of a section for which the share of orchestration is told."""


@dataclass(frozen=True)
class WaitingStep(Step[None]):
    """Waits, and commits a byte."""

    step: ClassVar[str] = "waiting"
    verb: ClassVar[str] = "wait"

    stage: str
    seconds: float

    @property
    def name(self) -> str:
        """One for every stage of a flow."""
        return self.stage

    def write(self, inputs: Inputs, staging: Staging) -> Facts:  # noqa: ARG002 - as steps have it
        """Wait."""
        time.sleep(self.seconds)
        staging.write("waited", b".")
        return {}

    @classmethod
    def opened(cls, folder: Path) -> None:  # noqa: ARG003 - as steps have it
        """Nothing is to be read."""
        return


class Seen(NamedTuple):
    """What a run showed."""

    database: str
    sections: int
    seconds: float
    wall_s: float
    commit_ms: float
    """What a section takes where nothing but the store is at work."""
    server_before_mb: float
    server_after_mb: float

    @property
    def added_ms(self) -> float:
        """What a section takes beside its waiting and its commit, at WORKERS at once."""
        return 1000 * (self.wall_s - self.sections * self.seconds / WORKERS) / self.sections - self.commit_ms

    def share(self, seconds: float) -> float:
        """The part of a run's time that is not its sections', where each takes so many seconds."""
        added_s = self.added_ms / 1000
        return added_s / (added_s + seconds / WORKERS)


def main(arguments: list[str]) -> int:
    """Run the sections and write the table."""
    if len(arguments) not in (2, 3):
        print(__doc__)
        return 2
    quiet()
    os.environ.update(direct_loopback(os.environ))
    count, seconds, database = int(arguments[0]), float(arguments[1]), "".join(arguments[2:])
    with tempfile.TemporaryDirectory() as scratch, served(Path(scratch), database) as server:
        before_mb = memory_mb(server)
        wall_s = run(Path(scratch), count, {"waited": seconds})
        commit_ms = 1000 * commit(Path(scratch), count) / count
        kind = database.partition("+")[0].partition(":")[0] or "sqlite"
        memory = round(before_mb, 1), round(memory_mb(server), 1)
        found = Seen(kind, count, seconds, round(wall_s, 2), round(commit_ms, 2), *memory)
    SEEN_PATH.parent.mkdir(exist_ok=True)
    with SEEN_PATH.open("a") as file:
        file.write(f"{json.dumps(found._asdict())}\n")
    known: Mapping[tuple[str, int, float], Seen] = {
        (one.database, one.sections, one.seconds): one for one in (Seen(**row) for row in map(json.loads, _lines()))
    }
    body = table(known.values())
    write_block(DOCS, BLOCK, body)
    print(body)
    return 0


def _lines() -> list[str]:
    return SEEN_PATH.read_text().splitlines()


@contextmanager
def served(folder: Path, database: str) -> Iterator[psutil.Process]:
    """A Prefect server with a database of its own, which clients of this process use."""
    url = f"http://127.0.0.1:{free_port()}"
    database = database or f"sqlite+aiosqlite:///{folder / 'prefect.db'}"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    environment = {**os.environ, "PREFECT_SERVER_DATABASE_CONNECTION_URL": database}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--port", url.rpartition(":")[2]], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: answers(f"{url}/api/health"), "Prefect's server")
        os.environ["PREFECT_API_URL"] = f"{url}/api"
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def memory_mb(server: psutil.Process) -> float:
    """What a server and its children hold in memory."""
    found = 0
    for one in (server, *server.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            found += one.memory_info().rss
    return found / 1e6


def run(folder: Path, count: int, stages: Mapping[str, float]) -> float:
    """The time in which so many sections are run through stages that wait, as a flow runs them."""
    from prefect import flow

    from cytoarch.steps.opened import open_brain
    from flows.parameters import RunSettings
    from flows.stages import run_steps, workers

    brain, conduct = brain_of("N1", count), RunSettings(workers=WORKERS)

    @flow
    def wait_for_all() -> float:
        with open_brain(folder / "store", brain) as opened, workers(conduct) as runner:
            start = time.perf_counter()
            for stage, seconds in stages.items():
                made = run_steps(stage, runner, opened, [WaitingStep(stage, seconds)], conduct)
                if made != count:
                    raise RuntimeError(f"{made} of {count} sections were made: {opened.failed}")
            return time.perf_counter() - start

    return float(wait_for_all())


def commit(folder: Path, count: int) -> float:
    """The time in which so many sections are committed by as many threads, without Prefect and without waiting."""
    from cytoarch.steps.opened import open_brain
    from cytoarch.steps.running import make_sections

    with open_brain(folder / "store", brain_of("N2", count)) as opened, ThreadPoolExecutor(WORKERS) as threads:
        start = time.perf_counter()
        parts = [opened.sections[first::WORKERS] for first in range(WORKERS)]
        step = [WaitingStep("waited", 0.0)]
        for done in [threads.submit(contextvars.copy_context().run, make_sections, step, opened, one) for one in parts]:
            done.result()
        return time.perf_counter() - start


def brain_of(brain_id: str, count: int) -> Brain:
    """A brain of so many sections that are never read."""
    rows = (Section(brain_id=brain_id, section_id=f"s{one}", section_number=one, path="x.tif") for one in range(count))
    return Brain(brain_id=brain_id, sections=tuple(rows))


def table(found: Iterable[Seen]) -> str:
    """What was seen, a line for every run."""
    lines = [
        (
            "| database | sections | seconds each | wall (s) | a section's commit (ms) | added a section (ms) "
            f"| share of the time at {ASKED_S:g} s a section | server's memory before, after (MB) |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.database} | {one.sections:,} | {one.seconds:g} | {one.wall_s:.1f} | {one.commit_ms:.1f} "
        f"| {one.added_ms:.1f} | {one.share(ASKED_S):.1%} | {one.server_before_mb:.0f}, {one.server_after_mb:.0f} |"
        for one in found
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
