"""A disk that is full or read-only is named at once, costs nothing that was finished, and is gone on from."""

import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cytoarch.store.brain_store import BrainStore
from cytoarch.store.verification import verify_brain
from tests.endurance.conftest import FULL, Ingested, Measured, trials
from tests.endurance.runs import Runs, Source
from tests.endurance.traces import temporary

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("endurance 1")]

SOON_S = 5.0
ADVICE = "make room or choose another store, then run again"
WRITABLE = "make it writable or choose another store, then run again"


@pytest.fixture(scope="session")
def mounting(runs: Runs, small: Ingested, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where no file system can be mounted."""
    store = BrainStore(tmp_path_factory.mktemp("mount"))
    run = runs.start(small.source, store, work="may mount")
    if run.wait() != 0:
        pytest.skip(f"no file system can be mounted here: {run.told()[-300:]}")


@pytest.fixture(scope="session")
def brain(request: pytest.FixtureRequest) -> Ingested:
    """One of several shards where all is tried, a small one in the sample."""
    ingested: Ingested = request.getfixturevalue("medium" if FULL else "small")
    return ingested


def used_bytes(ingested: Ingested) -> int:
    return sum(path.stat().st_size for path in ingested.store.root.rglob("*") if path.is_file())


def sizes(draw: random.Random, count: int, smallest: float, largest: float) -> list[int]:
    """As many sizes, evenly spread over the orders of magnitude."""
    ratio = largest / smallest
    return [int(smallest * ratio ** ((place + draw.random()) / count)) for place in range(count)]


def growing(needed: int) -> list[int]:
    """Sizes of a disk from nothing to what is needed: page by page where all is small, then by larger steps."""
    pages = [4096 * count for count in range(1, 60, trials(1, 7))]
    while pages[-1] < 2 * needed:
        pages.append(pages[-1] * trials(11, 60) // 10)
    return pages


def faulty(store: BrainStore) -> list[str]:
    return [one.key for one in verify_brain(store, "E1").faults] if store.brain_path("E1").is_dir() else []


def unclear(report: dict[str, Any], store: BrainStore) -> str:
    """Blank where an error names the place and says what to do; else where it came from."""
    text = str(report.get("text", ""))
    if report.get("error") == "StoreError" and str(store.root) in text and ("run again" in text or "Make room" in text):
        return ""
    frames = re.findall(r'File ".*?/src/cytoarch/(\S+)", line \d+, in (\w+)', text)
    return " ".join(frames[-1]) if frames else text or "no error"


@pytest.mark.long
def test_where_files_may_not_become_so_large_the_run_says_so_and_the_next_goes_on(
    runs: Runs, brain: Ingested, tmp_path: Path, measured: Measured
) -> None:
    draw = random.Random(8)  # noqa: S311 - a schedule is no secret
    largest = max(path.stat().st_size for path in brain.store.root.rglob("*") if path.is_file())
    limits = sizes(draw, trials(50, 3), 1_500, 0.95 * largest)
    said: Counter[str] = Counter()
    store = BrainStore(tmp_path / "store")
    for limit in limits:
        report = runs.finish_somehow(brain.source, store, file_bytes=limit)
        said[unclear(report, store)] += 1
        assert [key for key in faulty(store) if (store.brain_path("E1") / key).exists()] == []
    measured("limits (bytes)", [len(limits), limits[0], limits[-1]])
    measured("errors; with the place in the code where it is not a clear one", said)
    assert runs.finish(brain.source, store)["code"] == 0
    assert store.catalogue("E1").content_digest() == brain.digest
    assert faulty(store) == []
    assert temporary(store) == []
    assert set(said) <= {""}


@pytest.mark.long
def test_on_a_disk_that_grows_every_run_says_that_it_is_full_until_one_ends(
    runs: Runs, brain: Ingested, tmp_path: Path, measured: Measured, mounting: None
) -> None:
    store = BrainStore(tmp_path / "store")
    store.root.mkdir()
    report = runs.finish(
        brain.source, store, work="growing disk", disk_bytes=growing(used_bytes(brain)), workers=2, threads=1
    )
    steps, after = report["steps"], report["after"]
    assert steps[-1]["code"] == 0, "at last there was room"
    said = Counter(unclear(one, store) for one in steps[:-1])
    measured("sizes (bytes)", [len(steps), steps[0]["disk_bytes"], steps[-1]["disk_bytes"]])
    measured("products committed", [one["records"] for one in steps])
    measured("errors; with the place in the code where it is not a clear one", said)
    assert [one["faults"] for one in steps if one["faults"]] == [], "what is committed is whole"
    assert (after["code"], after["faults"], after["left"]) == (0, [], [])
    assert after["digest"] == brain.digest
    assert set(said) <= {""}


def test_the_first_pages_of_a_disk_that_fills_are_named_too(
    runs: Runs, small: Ingested, tmp_path: Path, mounting: None
) -> None:
    store = BrainStore(tmp_path / "store")
    store.root.mkdir()
    pages = [4096 * count for count in (1, 3, 8)]
    report = runs.finish(small.source, store, work="growing disk", disk_bytes=pages)
    assert report["after"]["digest"] == small.digest
    assert [unclear(one, store) for one in report["steps"]] == ["", "", ""]


@pytest.mark.skipif(not FULL, reason="takes minutes; run with CYTOARCH_FULL=1")
def test_where_the_disk_is_full_the_run_says_so_and_the_next_goes_on(
    runs: Runs, large: Ingested, tmp_path: Path, measured: Measured, mounting: None
) -> None:
    draw = random.Random(9)  # noqa: S311 - a schedule is no secret
    disks = sizes(draw, 50, 30_000, 0.95 * used_bytes(large))
    said: Counter[str] = Counter()
    records: list[int] = []
    for number, disk in enumerate(disks):
        store = BrainStore(tmp_path / f"store-{number}")
        store.root.mkdir()
        report = runs.finish(large.source, store, work="small disk", disk_bytes=disk, workers=draw.choice((1, 2)))
        before, after = report["before"], report["after"]
        said[unclear(before, store)] += 1
        records.append(before["records"])
        assert before["faults"] == [], "what is committed is whole"
        assert (after["code"], after["faults"], after["left"]) == (0, [], []), (disk, after)
        assert after["digest"] == large.digest
    measured("disks (bytes)", [len(disks), disks[0], disks[-1]])
    measured("products committed before the disk was full", records)
    measured("errors; with the place in the code where it is not a clear one", said)
    assert set(said) <= {""}


@pytest.mark.parametrize("begun", [False, True], ids=["new", "begun"])
def test_where_nothing_may_be_written_the_run_says_so_before_it_works(
    runs: Runs, small: Ingested, tmp_path: Path, measured: Measured, mounting: None, begun: bool
) -> None:
    store = BrainStore(tmp_path / "store")
    store.root.mkdir()
    whole = small.source.brain
    part = Source.of(whole.model_copy(update={"sections": whole.sections[:1]}), small.source.scans_path)
    asked = str(part.brain_path) if begun else ""
    report = runs.finish(small.source, store, work="read-only disk", begun=asked)
    before, after = report["before"], report["after"]
    assert before.get("error"), before
    measured("says", before["text"])
    measured("seconds", round(before["took_s"], 4))
    assert before["error"] == "StoreError"
    assert str(store.root) in before["text"]
    assert "read-only" in before["text"]
    assert WRITABLE in before["text"]
    assert before["took_s"] < SOON_S
    assert before["faults"] == []
    assert begun == bool(before["records"])
    assert (after["code"], after["faults"], after["left"]) == (0, [], []), after
    assert after["digest"] == small.digest
