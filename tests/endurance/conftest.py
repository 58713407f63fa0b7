"""Brains to endure, the process that forks what is killed, and the figures that are told at the end.

The whole of the trials is done with `CYTOARCH_FULL=1 pytest tests/endurance`; otherwise a sample of them.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cytoarch.store.brain_store import BrainStore
from tests.endurance.runs import Runs, Source
from tests.endurance.small_brain import write_large_brain, write_medium_brain, write_small_brain

FULL = os.environ.get("CYTOARCH_FULL") == "1"
Measured = Callable[[str, object], None]


def trials(full: int, sample: int) -> int:
    return full if FULL else sample


class Ingested(NamedTuple):
    """A brain and the store that an undisturbed run made of it. Not to be changed by tests."""

    source: Source
    store: BrainStore
    digest: str
    report: dict[str, Any]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    started = Runs(tmp_path_factory.mktemp("runs"))
    yield started
    started.close()


def _ingested(runs: Runs, source: Source, store: BrainStore) -> Ingested:
    report = runs.finish(source, store)
    assert report["code"] == 0, report
    return Ingested(source, store, store.catalogue(source.brain.brain_id).content_digest(), report)


@pytest.fixture(scope="session")
def large(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Ingested:
    """Of several shards, tiled and spooled."""
    folder = tmp_path_factory.mktemp("large")
    brain = write_large_brain(folder / "scans")
    return _ingested(runs, Source.of(brain, folder / "scans"), BrainStore(folder / "store"))


@pytest.fixture(scope="session")
def medium(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Ingested:
    """Of a few shards, with labels."""
    folder = tmp_path_factory.mktemp("medium")
    brain = write_medium_brain(folder / "scans")
    return _ingested(runs, Source.of(brain, folder / "scans"), BrainStore(folder / "store"))


@pytest.fixture(scope="session")
def small(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Ingested:
    """Of two small sections, with labels."""
    folder = tmp_path_factory.mktemp("small")
    brain = write_small_brain(folder / "scans")
    return _ingested(runs, Source.of(brain, folder / "scans"), BrainStore(folder / "store"))


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Measured:
    """Notes a figure, which is told at the end of a run of this folder."""
    return lambda name, value: record_property(name, json.dumps(value, default=str))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [one for found in terminalreporter.stats.values() for one in found if getattr(one, "when", "") == "call"]
    told = [one for one in reports if one.user_properties and "endurance" in one.nodeid]
    if told:
        terminalreporter.section("figures")
    for report in told:
        terminalreporter.write_line(f"{Path(report.nodeid).name} ({report.duration:.1f} s)")
        for name, value in report.user_properties:
            terminalreporter.write_line(f"    {name}: {value}")
