"""Starts, kills and awaits the processes of `ingest_and_die`."""

import fcntl
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cytoarch.brains import Brain
from cytoarch.store.brain_store import BrainStore

ROOT = Path(__file__).resolve().parent.parent.parent
LONGEST_S = 600.0


@dataclass(frozen=True)
class Source:
    """A brain that can be ingested, described in files."""

    brain: Brain
    brain_path: Path
    scans_path: Path

    @classmethod
    def of(cls, brain: Brain, scans_path: Path) -> "Source":
        path = scans_path / f"{brain.digest[:16]}.json"
        path.write_text(brain.model_dump_json())
        return cls(brain, path, scans_path)


class Runs:
    """The process that has imported everything and forks those that are killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        self._numbers = itertools.count()
        environment = {**os.environ, "TMPDIR": str(self.temporary)}
        with (folder / "server.log").open("wb") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.endurance.ingest_and_die"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
            )
        assert self._answer() == 1, "forking is safe with one thread only"

    def close(self) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait(LONGEST_S)

    def start(self, source: Source, store: BrainStore, **options: Any) -> "Run":
        """Ingest the brain into the store in a process of its own."""
        lead = self.folder / f"run-{next(self._numbers)}"
        request = {
            "brain": str(source.brain_path),
            "scans": str(source.scans_path),
            "store": str(store.root),
            "log": f"{lead}.log",
            "report": f"{lead}.json",
            **options,
        }
        return Run(self, self._ask({"start": request}), Path(f"{lead}.log"), Path(f"{lead}.json"))

    def finish(self, source: Source, store: BrainStore, **options: Any) -> dict[str, Any]:
        """Ingest the brain undisturbed; what the process reports."""
        run = self.start(source, store, **options)
        code = run.wait()
        assert code in (0, 2, 3), run.log.read_text() + run.told()
        return run.report()

    def finish_somehow(self, source: Source, store: BrainStore, **options: Any) -> dict[str, Any]:
        """What a process reports that may end in an error of any kind."""
        run = self.start(source, store, **options)
        code = run.wait()
        return run.report() if run.report_path.exists() else {"error": "none", "text": f"exit code {code}"}

    def exit_code(self, pid: int) -> int:
        return self._ask({"wait": pid})

    def _ask(self, request: dict[str, Any]) -> int:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        return self._answer()

    def _answer(self) -> int:
        assert self._server.stdout is not None
        ready, _, _ = select.select([self._server.stdout], [], [], LONGEST_S)
        if not ready:
            raise TimeoutError(f"no answer in {LONGEST_S:g} s")
        line = self._server.stdout.readline()
        assert line, (self.folder / "server.log").read_text()
        return int(line)


@dataclass(frozen=True)
class Run:
    """A process that ingests."""

    runs: Runs
    pid: int
    log: Path
    report_path: Path

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        return self.runs.exit_code(self.pid)

    def told(self) -> str:
        return self.report_path.read_text() if self.report_path.exists() else "no report"

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.report_path.read_text())
        return found

    @property
    def over(self) -> bool:
        """Whether it has ended, though nobody has asked how."""
        try:
            return psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def children(self) -> list[psutil.Process]:
        """The processes it reads scans with."""
        try:
            return [one for one in psutil.Process(self.pid).children() if one.status() != psutil.STATUS_ZOMBIE]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < deadline, f"not so in {LONGEST_S:g} s"
        time.sleep(0.001)


def freed_after_s(store: BrainStore, brain_id: str) -> float:
    """Seconds until the lock of a brain can be had."""
    began_at = time.monotonic()
    path = store.brain_path(brain_id) / "lock"
    if path.exists():
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
    return time.monotonic() - began_at


def outliving(children: list[psutil.Process]) -> list[psutil.Process]:
    """Those of these processes that do not end by themselves soon; they are ended here."""
    _, alive = psutil.wait_procs(children, timeout=5)
    left = [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    for one in left:
        one.kill()
    return left
