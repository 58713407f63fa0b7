"""Wherever a store lies and goes, what MLflow keeps of it lies inside."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cytoarch.brains import Brain
from cytoarch.store.brain_store import BrainStore
from tasks.tracking import BrainLedger, database_uri, experiments, fetch_head, of_brains, run_url, tracking_uri
from tests.heads import register_in

pytestmark = pytest.mark.xdist_group("tracking")

NAMES = (
    "a#b", "which?", "100%", "a%20b", "a%3Fb?", "a;b", "a&b=c", "two  blanks ", "Gewebe-Größe", "名前", "a\\b",
    "[a]:b@c", "~", "a+b", "'quoted\"", "line\nbreak", "?uri=true#", os.fsdecode(b"latin-\xe4"),
)  # fmt: skip
"""Legal names of folders that mean something to one of the libraries that an address passes through."""
MODEL = "models:/areas-probe-B01@champion"
ROOT = Path(__file__).resolve().parents[2]
TAGS = {"config_digest": "c0", "input_digest": "i0", "encoder_digest": "e0"}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking database without rows: making its tables takes a second."""
    store = BrainStore(tmp_path_factory.mktemp("empty"))
    assert ledger(store).run_id is None
    return store.tracking_path


def ledger(store: BrainStore, **tags: str) -> BrainLedger:
    return BrainLedger(store, Brain(brain_id="B01", sections=()), {"head": "probe"}, TAGS | tags, of_brains("areas"))


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def rows(store: BrainStore) -> str:
    """All that the tracking database says, but for MLflow's own experiment, which holds nothing."""
    with closing(sqlite3.connect(store.tracking_path / "mlflow.db")) as connection:
        return "\n".join(line for line in connection.iterdump() if "'Default'" not in line)


def use(store: BrainStore, number: int = 1) -> str:
    """Map a brain as far as MLflow is told of it; the digest of the head."""
    one = ledger(store, config_digest=f"c{number}")
    one.open()
    one.close({"held_out/macro_f1": 0.5})
    version = register_in(store, number, number / 10)
    digest = fetch_head(store, f"models:/{version.name}/{version.version}")
    store.models.remove(digest)
    assert fetch_head(store, f"models:/{version.name}/{version.version}") == digest, "read from its training run"
    return digest


@pytest.mark.parametrize(
    ("name", "fresh"),
    [(name, fresh) for name in NAMES for fresh in (False, True) if not fresh or "%" in name],
    ids=ascii,
)
def test_all_that_mlflow_keeps_lies_in_the_store_whatever_its_name(
    name: str, fresh: bool, empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, disk = tmp_path / "here", tmp_path / "disk"
    here.mkdir()
    monkeypatch.chdir(here)
    store = BrainStore(disk / name / "store")
    if not fresh:
        shutil.copytree(empty, store.tracking_path)
    use(store)
    assert files(here) == set()
    assert names(here) == set()
    assert names(disk) == {name}
    assert names(disk / name) == {"store"}
    assert names(store.root) == {"mlflow", "models"}
    kept = files(store.tracking_path)
    assert {path.rpartition("/")[2] for path in kept} == {
        "mlflow.db", "config.json", "brain.json", "head.json", "head.safetensors"
    }  # fmt: skip
    assert run_url(store, "r1").startswith("file:///")


def test_a_relative_store_is_the_same_store(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    digest = use(BrainStore(Path("store")))
    assert fetch_head(BrainStore(tmp_path / "store"), MODEL) == digest
    assert names(tmp_path) == {"store"}


@pytest.mark.parametrize("name", ["shared", "sha red%20?"], ids=ascii)
def test_stores_that_share_a_database_keep_their_files_beside_it(
    name: str, empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / name
    shared.mkdir()
    shutil.copy(empty / "mlflow.db", shared)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database_uri(shared / "mlflow.db"))
    for number in (1, 2):
        store = BrainStore(tmp_path / f"store {number}")
        use(store, number)
        assert names(store.root) == {"models"}
    assert names(shared) == {"mlflow.db", "artifacts"}
    assert names(tmp_path) == {name, "store 1", "store 2"}


def moved(store: BrainStore, place: Path) -> BrainStore:
    place.parent.mkdir(parents=True)
    store.root.rename(place)
    return BrainStore(place)


def test_a_store_that_was_moved_goes_on_in_its_new_place(empty: Path, tmp_path: Path) -> None:
    old = BrainStore(tmp_path / "old" / "store")
    shutil.copytree(empty, old.tracking_path)
    digest = use(old)
    assert str(tmp_path) not in rows(old)
    new = moved(old, tmp_path / "new" / "disk")
    assert ledger(new, config_digest="c1").finished, "what is known is found again"
    assert fetch_head(new, MODEL) == digest
    new.models.remove(digest)
    assert fetch_head(new, MODEL) == digest, "read from where its training run's files are now"
    assert use(new, 2) != digest
    assert not old.root.exists()


def raw(folder: Path) -> str:
    """The address of artifacts as earlier versions wrote it."""
    return f"file://{folder.resolve()}/artifacts"


@pytest.mark.parametrize("is_moved", [True, False], ids=["moved", "in its place"])
def test_a_store_of_an_earlier_version_is_mended(is_moved: bool, empty: Path, tmp_path: Path) -> None:
    """Its addresses name the folder in which it was made."""
    store = BrainStore(tmp_path / "old disk" / "store")
    shutil.copytree(empty, store.tracking_path)
    digest = use(store)
    make_old(store, raw(store.tracking_path))
    assert str(tmp_path) in rows(store)
    if is_moved:
        gone = store.root
        store = moved(store, tmp_path / "new" / "disk")
        assert not gone.exists()
    store.models.remove(digest)
    assert fetch_head(store, MODEL) == digest
    assert str(tmp_path) not in rows(store)
    use(store, 2)
    if is_moved:
        assert not gone.exists(), "the old path is never made again"
    uris = {run.info.artifact_uri for run in all_runs(store)}
    assert all((store.tracking_path / "artifacts" / uri.partition(":/")[2]).is_dir() for uri in uris)
    assert len(uris) == 4


def all_runs(store: BrainStore) -> list:  # type: ignore[type-arg]
    return list(MlflowClient(tracking_uri(store)).search_runs(list(experiments(store))))


def make_old(store: BrainStore, location: str) -> None:
    """Write addresses below a folder, as earlier versions did."""
    with closing(sqlite3.connect(store.tracking_path / "mlflow.db")) as connection, connection:
        connection.execute(
            "UPDATE experiments SET name = 'cytoarch', artifact_location = ? WHERE name LIKE 'cytoarch: %'", (location,)
        )
        for column in ("runs.artifact_uri", "model_versions.source", "model_versions.storage_location"):
            table, _, name = column.partition(".")
            connection.execute(f"UPDATE {table} SET {name} = replace({name}, 'mlflow-artifacts:', ?)", (location,))  # noqa: S608


def test_a_head_in_the_store_is_found_though_its_files_in_the_registry_are_gone(empty: Path, tmp_path: Path) -> None:
    store = BrainStore(tmp_path / "store")
    shutil.copytree(empty, store.tracking_path)
    digest = use(store)
    shutil.rmtree(store.tracking_path / "artifacts")
    assert fetch_head(store, MODEL) == digest


@pytest.mark.long
@pytest.mark.slow
def test_three_processes_may_be_the_first_in_a_new_store(tmp_path: Path) -> None:
    """Each finds the database missing, half made or there."""
    program = (
        "import sys; from pathlib import Path; from cytoarch.store.brain_store import BrainStore; "
        "from tasks.tracking.experiments import CLUSTERS, experiment_id; "
        "print(experiment_id(BrainStore(Path(sys.argv[1])), CLUSTERS))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "store")]
    run = partial(subprocess.Popen, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    processes = [run(command) for _ in range(3)]
    said = [one.communicate(timeout=300) for one in processes]
    assert [one.returncode for one in processes] == [0, 0, 0], said
    assert len({out for out, _ in said}) == 1
