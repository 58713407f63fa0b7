"""Kills at any moment of an ingestion: what was done stays, and the content is that of an undisturbed run."""

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from cytoarch.store.brain_store import BrainStore
from cytoarch.store.verification import verify_brain
from tests.endurance.conftest import Ingested, Measured, trials
from tests.endurance.runs import Run, Runs, freed_after_s, outliving, until
from tests.endurance.traces import SHARD, Identity, finished, stage, staging_folders, temporary

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("endurance 1")]

THREADS = 2
ARMED = ("scan", "hash", "enter", "write", "rename", "replace", "unlink", "rmtree")
"""Moments at which a process kills itself; their numbers in a run are counted by the undisturbed one."""
SAMPLE = ("lines:3", "child-lines:9", "time:1.0", "hash:30", "rename:2", "rmtree:3")


@dataclass
class Log:
    """What was seen over all kills."""

    kills: int = 0
    rounds: int = 0
    stages: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    lines: int = 0
    adopted: int = 0
    half_finished: int = 0
    slowest_free_s: float = 0.0


class Trial:
    """A store that is ingested by one killed process after the other."""

    def __init__(self, runs: Runs, ingested: Ingested, store: BrainStore, log: Log) -> None:
        self.runs, self.source, self.store, self.log = runs, ingested.source, store, log
        self.brain_id = ingested.source.brain.brain_id
        self.kept: dict[str, Identity] = {}
        self.children: list[psutil.Process] = []

    def run(self, moment: str) -> int:
        """Ingest until the moment has come; the exit code of the process."""
        kind, _, number = moment.partition(":")
        armed = {"moment": moment} if kind in ARMED else {}
        run = self.runs.start(self.source, self.store, threads=THREADS, **armed)
        killed = self._await(run, kind, float(number or 0))
        code = run.wait()
        assert code in (0, 3, -signal.SIGKILL), run.log.read_text() + run.told()
        self.log.slowest_free_s = max(self.log.slowest_free_s, freed_after_s(self.store, self.brain_id))
        failed = run.report()["failed"] if code == 3 else {}
        assert len(failed) <= killed
        assert all("was killed" in reason for reason in failed.values()), failed
        if code:
            self.log.kills += 1
            self.log.kinds[kind] += 1
            self.log.stages[stage(self.store, self.brain_id)] += 1
            self._note()
        return code

    def _await(self, run: Run, kind: str, number: float) -> int:
        """Kill it, or the child that reads for it; how many children were killed."""
        if not self._comes(run, kind, number):
            return 0
        children = run.children()
        self.children += children
        if not kind.startswith("child-"):
            run.kill()
            return 0
        for child in children:
            child.kill()
        return len(children)

    def _comes(self, run: Run, kind: str, number: float) -> bool:
        """Wait until the moment, or the end of the process, has come; says whether it was the moment."""
        if kind.endswith("time"):
            due: Callable[[], bool] = _clock(number)
        elif kind.endswith("lines"):
            due = _growth(self.store, self.brain_id, int(number), self.log)
        else:
            return False
        while not run.over:
            if due():
                return True
            time.sleep(0.001)
        return False

    def _note(self) -> None:
        """See that what was finished before is untouched, and that little is half-finished."""
        now = finished(self.store, self.brain_id)
        self.check_kept(now)
        self.kept = now
        for one in staging_folders(self.store, self.brain_id):
            half = one.half_finished()
            assert len(half) <= THREADS, half
            self.log.half_finished += len(half)

    def check_kept(self, now: dict[str, Identity]) -> None:
        """Shards that were finished are the same files still, and all else that was finished is there."""
        assert set(self.kept) <= set(now), sorted(set(self.kept) - set(now))
        rewritten = [key for key, before in self.kept.items() if SHARD in key and now[key] != before]
        assert rewritten == []
        self.log.adopted += sum(SHARD in key for key in self.kept)


def _clock(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def _growth(store: BrainStore, brain_id: str, lines: int, log: Log) -> Callable[[], bool]:
    """Says when so many lines were added to journals."""
    known: dict[Path, int] = {}
    left = lines
    staging = store.brain_path(brain_id) / "staging"

    def due() -> bool:
        nonlocal left
        for journal in staging.glob("*/journal.jsonl"):
            try:
                count = journal.read_bytes().count(b"\n")
            except FileNotFoundError:
                continue
            left -= max(0, count - known.get(journal, 0))
            known[journal] = count
        return left <= 0

    return due


def drawn(draw: random.Random, counts: dict[str, int]) -> str:
    """A moment, over all stages evenly."""
    kind = draw.choice(["lines"] * 4 + ["time"] * 3 + ["child-lines", "child-time"] + list(ARMED))
    if kind.endswith("lines"):
        return f"{kind}:{draw.randint(1, 14)}"
    if kind.endswith("time"):
        return f"{kind}:{draw.uniform(0.0, 2.0):.3f}"
    return f"{kind}:{draw.randint(1, max(1, counts[kind] // 2))}"


@pytest.mark.long
def test_an_ingestion_that_is_killed_again_and_again_is_the_undisturbed_one(
    runs: Runs, large: Ingested, tmp_path: Path, measured: Measured
) -> None:
    draw = random.Random(20)  # noqa: S311 - a schedule of kills is no secret
    wanted, log = trials(100, 6), Log()
    planned = list(SAMPLE) if wanted == len(SAMPLE) else []
    counts = large.report["counts"]
    began_at = time.monotonic()
    while log.kills < wanted:
        log.rounds += 1
        trial = Trial(runs, large, BrainStore(tmp_path / f"store-{log.rounds}"), log)
        code = -1
        while code and log.kills < wanted:
            code = trial.run(planned.pop(0) if planned else drawn(draw, counts))
        while code:
            code = trial.run("none")
        complete(trial, large)
        shutil.rmtree(trial.store.root)
    assert list(runs.temporary.iterdir()) == []
    measured("kills", log.kills)
    measured("rounds, each to the digest of an undisturbed run", log.rounds)
    measured("kinds", dict(log.kinds.most_common()))
    measured("stages", dict(log.stages.most_common()))
    measured("finished shards seen again untouched", log.adopted)
    measured("half-finished shards", log.half_finished)
    measured("slowest freeing of the lock (s)", round(log.slowest_free_s, 3))
    measured("seconds", round(time.monotonic() - began_at, 1))


def complete(trial: Trial, ingested: Ingested) -> None:
    """All is there, as an undisturbed run would have it."""
    store, brain_id = trial.store, trial.brain_id
    trial.check_kept(finished(store, brain_id))
    assert store.catalogue(brain_id).content_digest() == ingested.digest
    found = verify_brain(store, brain_id)
    assert found.faults == ()
    assert found.strays == ()
    assert temporary(store) == []
    assert outliving(trial.children) == []


@pytest.mark.parametrize("moment", ["replace:1", "replace:2"], ids=["of the brain", "of a scan's digest"])
def test_a_draft_that_a_killed_run_left_is_cleared_away(
    runs: Runs, small: Ingested, tmp_path: Path, moment: str
) -> None:
    store = BrainStore(tmp_path / "store")
    assert runs.start(small.source, store, moment=moment).wait() == -signal.SIGKILL
    assert runs.finish(small.source, store)["code"] == 0
    assert temporary(store) == []


def test_a_staging_folder_that_a_killed_run_had_published_is_cleared_away(
    runs: Runs, small: Ingested, tmp_path: Path
) -> None:
    store = BrainStore(tmp_path / "store")
    last = small.report["counts"]["rmtree"] - 1  # of the quality of the last section, before that of the page
    assert runs.start(small.source, store, moment=f"rmtree:{last}").wait() == -signal.SIGKILL
    assert stage(store, "E1") == "quality: writing"
    assert runs.finish(small.source, store)["due"] == []
    assert temporary(store) == []


def test_a_child_whose_parent_dies_with_answers_unread_ends(runs: Runs, medium: Ingested, tmp_path: Path) -> None:
    store = BrainStore(tmp_path / "store")
    run = runs.start(medium.source, store)
    until(lambda: any(one.journal for one in staging_folders(store, "E1")))  # the child is at work
    children = run.children()
    os.kill(run.pid, signal.SIGSTOP)
    until(lambda: any("zarr.json" in one.journal for one in staging_folders(store, "E1")))  # the section's last file
    until(lambda: not holding(children))
    run.kill()
    assert run.wait() == -signal.SIGKILL
    assert children != []
    assert outliving(children) == []


def holding(children: list[psutil.Process]) -> bool:
    """Whether any of them holds the lock of a brain: it gives it back before it answers."""
    return any(Path(file.path).name == "lock" for one in children for file in one.open_files())
