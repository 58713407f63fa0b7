"""Two runs on one brain: one works, the other leaves at once; and a run that was killed keeps nobody waiting."""

import functools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cytoarch.store.brain_store import BrainStore
from cytoarch.store.verification import verify_brain
from tests.endurance.conftest import FULL, Ingested, Measured, trials
from tests.endurance.runs import LONGEST_S, ROOT, Run, Runs, freed_after_s, outliving, until
from tests.endurance.traces import temporary

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("endurance 2")]

SOON_S = 5.0
"""A run that cannot have the brain says so within this time."""
FREE_S = 1.0
"""The brain is free so soon after its holder was killed."""


def test_of_two_runs_at_once_one_ingests_and_the_other_leaves(
    runs: Runs, small: Ingested, tmp_path: Path, measured: Measured
) -> None:
    draw = random.Random(3)  # noqa: S311 - a schedule is no secret
    left_s = []
    count = trials(25, 3)
    for number in range(count):
        store = BrainStore(tmp_path / f"store-{number}")
        both = [runs.start(small.source, store, workers=draw.choice((1, 2))) for _ in (0, 1)]
        codes = [run.wait() for run in both]
        assert sorted(codes) == [0, 2], [run.told() for run in both]
        loser, winner = both[codes.index(2)].report(), both[codes.index(0)]
        assert loser["error"] == "BrainBusyError"
        assert re.search(rf"is being written by process ({winner.pid}|unknown);", loser["text"])
        assert winner.report()["due"] == ["s1", "s2"], "the winner did all of the work"
        assert loser["took_s"] < SOON_S
        left_s.append(loser["took_s"])
        assert store.catalogue("E1").content_digest() == small.digest
        assert temporary(store) == []
        shutil.rmtree(store.root)
    measured("double starts, one winner each", count)
    measured("slowest loser (s)", round(max(left_s), 4))


def reads_with(run: Run, count: int) -> bool:
    assert not run.over, run.told()
    return len(run.children()) == count


def test_a_run_that_is_killed_in_the_middle_of_a_section_frees_the_brain_at_once(
    runs: Runs, medium: Ingested, tmp_path: Path, measured: Measured
) -> None:
    draw = random.Random(4)  # noqa: S311 - a schedule is no secret
    freed_s = []
    count = trials(25, 3)
    for number in range(count):
        store = BrainStore(tmp_path / f"store-{number}")
        holder = runs.start(medium.source, store, workers=2)
        until(functools.partial(reads_with, holder, 2))  # both sections are being read
        time.sleep(draw.uniform(0.2, 0.9))
        children = holder.children()
        busy = runs.finish(medium.source, store)
        assert busy["error"] == "BrainBusyError", busy
        holder.kill()
        freed_s.append(freed_after_s(store, "E1"))
        assert holder.wait() == -signal.SIGKILL
        assert outliving(children) == []
        if number == count - 1 or FULL:
            after = runs.finish(medium.source, store, workers=2)
            assert after["code"] == 0, after
            assert store.catalogue("E1").content_digest() == medium.digest
            assert verify_brain(store, "E1").faults == ()
            assert temporary(store) == []
        shutil.rmtree(store.root)
    measured("holders killed with two children at work", count)
    measured("slowest freeing of the lock (s)", round(max(freed_s), 4))
    assert max(freed_s) < FREE_S


@pytest.mark.skipif(not FULL, reason="starts Prefect several times; run with CYTOARCH_FULL=1")
def test_the_command_that_finds_the_brain_busy_says_who_has_it(
    small: Ingested, tmp_path: Path, measured: Measured
) -> None:
    store = BrainStore(tmp_path / "store")
    manifest = small.source.scans_path / "manifest.csv"
    lines = [f"E1,{one.section_id},{one.section_number},{one.path},4.0" for one in small.source.brain.sections]
    manifest.write_text("\n".join(["brain_id,section_id,section_number,path,pixel_size_um", *lines]) + "\n")
    command = [sys.executable, "-m", "flows", "ingest-brain", "--manifest-path", str(manifest)]
    command += ["--store-path", str(store.root)]
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "prefect")}
    took_s = []
    with store.lock("E1"):
        for number in range(3):
            said = tmp_path / f"said-{number}.log"
            began_at = time.monotonic()
            with said.open("wb") as file:
                done = subprocess.run(
                    command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                    timeout=LONGEST_S,
                )  # fmt: skip
            took_s.append(round(time.monotonic() - began_at, 2))
            assert done.returncode == 2, said.read_text()
            assert f"is being written by process {os.getpid()}" in said.read_text()
    measured("seconds until the command line gives up, the first with a new Prefect home", took_s)
