"""MLflow away while a brain is mapped: the map and its report are there all the same, and the next run tells it."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cytoarch.errors import CytoarchError, ManifestError
from cytoarch.store.brain_store import BrainStore
from flows.map_brain import map_brain
from flows.parameters import BrainSource, MapSettings
from flows.stages import Summary
from tasks.tracking import TrackingLine, database
from tasks.tracking.experiments import search_rows
from tests.flows.conftest import MappedBrain

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flows")]

CALLS = (
    "get_experiment_by_name",
    "search_experiments",
    "get_model_version_by_alias",
    "search_runs",
    "create_run",
    "log_batch",
    "create_model_version",
    "set_terminated",
)


class Outage:
    """Refuses MLflow's calls from the n-th of one kind on, or all of them, until it is over."""

    def __init__(self) -> None:
        self.kind, self.left, self.refused = "", 0, 0

    def begins(self, kind: str = "all", after: int = 0) -> None:
        self.kind, self.left, self.refused = kind, after, 0

    def ends(self) -> None:
        self.kind = ""

    def asked(self, name: str) -> None:
        if not self.kind or (self.left >= 0 and self.kind not in (name, "all")):
            return
        self.left -= 1
        if self.left < 0:
            self.refused += 1
            raise MlflowException("[Errno 111] Connection refused")


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Outage]:
    """MLflow, which can go away; it is told again once, at once."""
    fault = Outage()
    monkeypatch.setattr("flows.map_brain.TrackingLine", partial(TrackingLine, waits_s=(0.0,)))
    for name in CALLS:
        real = getattr(MlflowClient, name)

        def call(self: MlflowClient, *args: Any, _real: Any = real, _name: str = name, **kwargs: Any) -> Any:
            fault.asked(_name)
            return _real(self, *args, **kwargs)

        monkeypatch.setattr(MlflowClient, name, call)
    yield fault
    fault.ends()


@pytest.fixture
def untold(mapped: MappedBrain, tmp_path: Path) -> BrainStore:
    """A store with the map of a brain, of which MLflow was told nothing and no report is drawn."""
    store = BrainStore(tmp_path / "store")
    shutil.copytree(mapped.store_path, store.root, ignore=shutil.ignore_patterns("mlflow", "lock*", "report"))
    return store


def run(mapped: MappedBrain, store: BrainStore) -> Summary:
    summary: Summary = map_brain(source=BrainSource(manifest_path=mapped.manifest_path, store_path=store.root))
    return summary


def rows(store: BrainStore) -> list[Any]:
    return list(search_rows(store, "tags.kind = 'brain'", max_results=10))


@pytest.mark.parametrize(
    ("kind", "after"),
    [
        pytest.param("all", 0, id="all the time"),
        pytest.param("create_model_version", 0, id="from the middle on", marks=pytest.mark.long),
        pytest.param("set_terminated", 1, id="at the end", marks=pytest.mark.long),
    ],
)
def test_the_map_is_reported_and_the_next_run_tells_mlflow(
    mapped: MappedBrain, untold: BrainStore, outage: Outage, kind: str, after: int
) -> None:
    outage.begins(kind, after)
    first = run(mapped, untold)
    assert outage.refused
    assert not first.failed
    assert "the connection is refused" in first.notes["MLflow does not know"]
    page = untold.brain_path("P01") / "report" / "index.html"
    assert "Cytoarchitecture report" in page.read_text()
    outage.ends()
    second = run(mapped, untold)
    assert "MLflow does not know" not in second.notes
    (row,) = rows(untold)
    assert row.info.status == "FINISHED"
    assert row.data.metrics["headline/macro_f1"] > 0
    (model,) = database.client(untold).search_registered_models()
    assert "champion" in model.aliases
    assert f"{model.name} version 1, champion" in page.read_text()
    kept = {path.name for path in (untold.tracking_path / "artifacts" / row.info.run_id / "artifacts").iterdir()}
    assert {"report.html", "map.png", "classes.csv"} <= kept


def test_a_model_that_is_looked_up_there_cannot_be_had_and_that_is_said(
    mapped: MappedBrain, untold: BrainStore, outage: Outage
) -> None:
    outage.begins()
    source = BrainSource(manifest_path=mapped.manifest_path, store_path=untold.root)
    with pytest.raises(CytoarchError, match=r"cannot be had from .*refused"):
        map_brain(source=source, settings=MapSettings(model="models:/areas-probe-P09@champion"))


@pytest.mark.long
def test_a_brain_that_cannot_be_ingested_leaves_a_row_that_is_gone_on_with(mapped: MappedBrain, tmp_path: Path) -> None:
    manifest = shutil.copytree(mapped.manifest_path.parent, tmp_path / "brain") / "manifest.csv"
    scans = sorted((manifest.parent / "scans").iterdir())
    whole = {path: path.read_bytes() for path in scans}
    for path in scans:
        path.write_bytes(b"no image")
    store = BrainStore(tmp_path / "store")
    source = BrainSource(manifest_path=manifest, store_path=store.root)
    with pytest.raises(CytoarchError, match="no section could be ingested"):
        map_brain(source=source)
    (row,) = rows(store)
    assert (row.info.status, row.data.tags["failed_in"]) == ("FAILED", "ingestion")
    assert "no section could be ingested" in row.data.tags["mlflow.note.content"]
    for path, content in whole.items():
        path.write_bytes(content)
    map_brain(source=source)
    (again,) = rows(store)
    assert (again.info.run_id, again.info.status) == (row.info.run_id, "FINISHED")
    assert "failed_in" not in again.data.tags
    assert again.data.params["embed.encoder"] == "texture"
    assert {one.dataset.name for one in again.inputs.dataset_inputs} == {"P01", "labels of P01"}


def test_a_manifest_at_fault_is_none_of_mlflows_business(mapped: MappedBrain, tmp_path: Path) -> None:
    with pytest.raises(ManifestError):
        map_brain(source=BrainSource(manifest_path=tmp_path / "nothing.csv", store_path=tmp_path / "store"))
    assert not (tmp_path / "store" / "mlflow").exists()
