"""doctor, status, gc and compare, as one types them."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cytoarch.brains import Brain, Section
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.drafts import ensure
from cytoarch.store.durations import Duration, note_duration
from cytoarch.store.products import Product
from flows.comparing import latest
from tasks import checks
from tasks.checks import Finding
from tasks.tracking import BrainLedger, ComparedBrain, Remains, of_brains
from tests.heads import files_of_head, register_in
from tests.products import WORK, writes
from tests.tracking_database import made_once

pytestmark = pytest.mark.xdist_group("tracking")


@pytest.fixture(scope="module", autouse=True)
def tracking_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MLflow's tables are made once."""
    with made_once(tmp_path_factory.mktemp("mlflow")):
        yield


@pytest.fixture
def store(tmp_path: Path) -> BrainStore:
    """A brain of two sections, of which one is in the store."""
    store = BrainStore(tmp_path / "store")
    rows = [Section(brain_id="B1", section_id=f"s{at}", section_number=at, path="x") for at in (1, 2)]
    store.write_brain(Brain(brain_id="B1", sections=tuple(rows)))
    ensure(store.catalogue("B1"), Product("sections", "scan", "s1"), WORK, writes({"zarr.json": bytes(2_000_000)}))
    return store


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    from flows.terminal import run

    code = run(arguments)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_status_says_what_is_due_and_what_it_would_cost(store: BrainStore, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(capsys, "status", "--store-path", str(store.root))
    assert code == 0
    assert "unknown time" in out
    note_duration(store.root, Duration("B1", ("sections",), 1, 90.0))
    code, out, _ = told(capsys, "status", "B1", "--store-path", str(store.root))
    assert "B1: a run would cost 2 min, 0.00 GB" in out
    code, out, _ = told(capsys, "status", "--json", "--store-path", str(store.root))
    (row,) = json.loads(out)["B1"]
    assert (row["step"], row["current"], row["missing"], row["nbytes"]) == ("sections", 1, 1, 2_000_000)
    code, _, err = told(capsys, "status", "B2", "--store-path", str(store.root))
    assert code == 2
    assert "brains there: B1" in err
    (store.root / "brains" / "B3" / "staging").mkdir(parents=True)
    code, out, err = told(capsys, "status", "--store-path", str(store.root))
    assert code == 0
    assert "B1" in out
    assert "brain B3 was never taken in whole; run ingest-brain again" in " ".join(err.split())
    assert "damaged" not in err, "it may be taken in just now"
    (store.root / "brains" / "B4").mkdir()
    (store.root / "brains" / "B4" / "brain.json").write_text("torn")
    assert "brain.json is damaged" in " ".join(told(capsys, "status", "--store-path", str(store.root))[2].split())


def test_a_brain_that_was_only_ingested_is_not_called_done(
    store: BrainStore, capsys: pytest.CaptureFixture[str]
) -> None:
    ensure(store.catalogue("B1"), Product("sections", "scan", "s2"), WORK, writes({"zarr.json": b"2"}))
    _, out, _ = told(capsys, "status", "--store-path", str(store.root))
    assert "not mapped" in " ".join(out.split())
    ensure(store.catalogue("B1"), Product("clusters", "k", "s1"), WORK, writes({"a": b"1"}))
    ensure(store.catalogue("B1"), Product("clusters", "k", "s2"), WORK, writes({"a": b"2"}))
    _, out, _ = told(capsys, "status", "--store-path", str(store.root))
    assert "not mapped" not in " ".join(out.split())


def test_gc_touches_nothing_unless_it_is_told_to(store: BrainStore, capsys: pytest.CaptureFixture[str]) -> None:
    kept, unused = store.models.add(files_of_head(1)), store.models.add(files_of_head(2))
    register_in(store, 1, 0.5)
    arguments = ("gc", "--older-than-h", "0", "--store-path", str(store.root))
    code, out, _ = told(capsys, *arguments)
    assert code == 0
    assert unused in out
    assert kept not in out
    assert "1 leftover, 0.00 GB; nothing was deleted, add --delete to delete them" in out
    assert store.models.is_whole(unused)
    assert "deleted: 0.00 GB" in told(capsys, *arguments, "--delete")[1]
    assert not store.models.path(unused).exists()
    assert store.models.is_whole(kept)
    assert told(capsys, *arguments)[1] == "0 leftovers, 0.00 GB\n"


def row(
    store: BrainStore, brain_id: str, metrics: dict[str, float], configuration: str = "c0", target: str = "layers"
) -> None:
    tags = {"config_digest": configuration, "input_digest": "i0", "encoder_digest": "e0"}
    ledger = BrainLedger(
        store, Brain(brain_id=brain_id, sections=()), {"embed": {"encoder": "texture"}}, tags, of_brains(target)
    )
    ledger.open()
    remains = Remains(tags={"stain": "nissl", "sections": "5"}, title=f"{brain_id}: {target} by probe on texture")
    ledger.close(metrics, remains=remains)


def test_compare_puts_brains_and_models_side_by_side(
    store: BrainStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("compare", "--store-path", str(store.root), "--out", str(tmp_path / "out"))
    code, _, err = told(capsys, *arguments)
    assert code == 2
    assert "MLflow has no row (brains there: none)" in err
    row(store, "B1", {"headline/macro_f1": 0.25, "f1/L1": 0.5, "duration/embed_s": 3600.0})
    row(store, "B1", {"headline/macro_f1": 0.75, "f1/L1": 0.5, "duration/embed_s": 3600.0}, "c1")
    row(store, "B2", {"headline/macro_f1": 0.5, "f1/L4": 0.25})
    register_in(store, 1, 0.5)
    code, out, _ = told(capsys, *arguments)
    assert code == 0
    assert "0.750" in out
    assert "0.250" not in out, "the latest row of a brain stands for it"
    assert "champion" in out
    with (tmp_path / "out" / "brains.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["brain"], first["stated"], first["hours"]) == ("B1", "nissl, 5 sections", "1.0000")
    assert (first["mapped"], first["f1/L1"], first["f1/L4"]) == ("layers by probe on texture", "0.5", "-")
    assert (second["brain"], second["headline/macro_f1"], second["f1/L4"]) == ("B2", "0.5", "0.25")
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert "0.250" in told(capsys, *arguments, "--every")[1]
    row(store, "B1", {"headline/macro_f1": 0.125}, "c2", "areas")
    out = told(capsys, *arguments)[1]
    assert "0.125" in out
    assert "0.750" in out, "areas and layers are two questions"
    assert "question" in out
    assert "areas of" in out
    assert "B1 " not in told(capsys, *arguments, "--brains", "B2")[1]


def test_a_row_without_a_question_stands_for_a_brain_until_another_follows_it() -> None:
    def one(brain: str, question: str, run_id: str) -> ComparedBrain:
        return ComparedBrain(brain, question, "", "", "", {}, {}, 0.0, "FINISHED", run_id)

    newest_first = [
        one("B1", "layers of brains", "3"),
        one("B1", "", "2"),
        one("B1", "areas of brains", "1"),
        one("B2", "", "5"),
        one("B2", "", "4"),
    ]
    assert [row.run_id for row in latest(newest_first)] == ["3", "1", "5"]


def test_the_doctor_says_what_is_wrong_and_what_to_do(
    store: BrainStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    none = Finding("Prefect", "note", "no server is named")  # other tests may have one, without limits and pools
    monkeypatch.setattr(checks, "_prefect", lambda: iter([none]))
    code, out, _ = told(capsys, "doctor", "--json", "--store-path", str(store.root))
    found = {one["what"]: one for one in json.loads(out)}
    assert code == 3
    assert found["MLflow"]["verdict"] == "wrong"
    assert "the connection is refused" in found["MLflow"]["found"]
    assert "start it" in found["MLflow"]["remedy"]
    assert found["encoder texture"]["verdict"] == found["locks"]["verdict"] == "well"
    assert "1 brain," in found["store"]["found"]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setattr(checks, "_memory", lambda: iter([Finding("machine", "well", "enough")]))
    code, out, _ = told(capsys, "doctor", "--store-path", str(store.root))
    assert code == 0
    assert out.rstrip().endswith("all is well")


def test_a_check_that_breaks_is_a_finding(store: BrainStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def breaks() -> Iterator[Finding]:
        raise PermissionError("no way in")

    monkeypatch.setattr(checks, "_encoders", breaks)
    found = list(checks.examine(store, tmp_path / "none.txt"))
    assert Finding("encoders", "wrong", "could not be looked at: PermissionError: no way in") in found
    assert found[-1].what == "MLflow"


def test_other_versions_than_those_tested_are_noted(tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text("torch==0.1\nzarr==0.2\nunknown==1\n")
    (_, noted) = checks._versions(tmp_path / "constraints.txt")
    assert noted.found == "tested with torch 0.1, zarr 0.2"
