"""The same bytes whatever the number of threads; and an unchanged brain is left as it is."""

import shutil
import time
from pathlib import Path

import pytest

from cytoarch.store.brain_store import BrainStore
from tests.endurance.conftest import Ingested, Measured, trials
from tests.endurance.runs import Runs, Source
from tests.endurance.small_brain import write_long_brain
from tests.endurance.traces import identities

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("endurance 1")]


@pytest.mark.long
def test_the_number_of_threads_and_workers_changes_nothing(
    runs: Runs, large: Ingested, tmp_path: Path, measured: Measured
) -> None:
    took_s = {}
    for threads, workers in ((1, 1), (4, 2), (4, 1), (1, 2), (2, 2))[: trials(5, 2)]:
        store = BrainStore(tmp_path / f"store-{threads}-{workers}")
        report = runs.finish(large.source, store, threads=threads, workers=workers)
        assert report["code"] == 0, report
        assert store.catalogue("E1").content_digest() == large.digest, "made by two threads"
        shutil.rmtree(store.root)
        took_s[f"{threads} threads, {workers} workers"] = round(report["took_s"], 2)
    measured("seconds", took_s)


@pytest.mark.long
def test_an_unchanged_brain_is_neither_read_nor_written(runs: Runs, tmp_path: Path, measured: Measured) -> None:
    brain = write_long_brain(tmp_path / "scans", 20)
    source = Source.of(brain, tmp_path / "scans")
    store = BrainStore(tmp_path / "store")
    first = runs.finish(source, store, workers=2)
    assert first["due"] == [one.section_id for one in brain.kept]
    before = identities(store.root)
    again = runs.finish(source, store, workers=2)
    assert again["code"] == 0, again
    assert again["due"] == [], "all are known to be ingested"
    lock = "brains/E1/lock"  # who holds the brain is noted in it
    after = identities(store.root)
    assert before.pop(lock)[0] == after.pop(lock)[0]
    assert after == before
    measured("sections, files", [len(brain.kept), len(after)])
    measured("seconds of the first run", round(first["took_s"], 2))
    measured("seconds of the second run", round(again["took_s"], 4))
    measured("seconds of asking whether they are ingested", round(again["asking_s"], 4))


def test_asking_again_with_the_scans_read_again_writes_nothing(runs: Runs, small: Ingested) -> None:
    before = identities(small.store.root)
    began_at = time.monotonic()
    report = runs.finish(small.source, small.store, rehash=True)
    assert report["due"] == ["s1", "s2"]
    assert time.monotonic() - began_at < 60
    after = identities(small.store.root)
    lock = "brains/E1/lock"
    assert before.pop(lock)[0] == after.pop(lock)[0]
    assert after == before
