"""What MLflow remembers, asked without Prefect: versions, champions, rows that are found again."""

import json
import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

import cytoarch
from cytoarch.brains import Brain, LabelClass
from cytoarch.errors import ModelError
from cytoarch.steps.training import held_out_labels
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.records import Committed, Record
from tasks.tracking import (
    BrainLedger,
    Dataset,
    ModelVersion,
    Remains,
    compared_brains,
    experiments,
    fetch_head,
    git_revision,
    log_failed_ingestion,
    of_brains,
    register_head,
    tracking_uri,
)
from tests.heads import CLASSES, HELD_OUT, files_of_head, register_in
from tests.tracking_database import made_once

pytestmark = pytest.mark.xdist_group("tracking")

NAME = "areas-probe-B01"
TAGS = {"config_digest": "c0", "input_digest": "i0", "encoder_digest": "e0"}
AREAS = of_brains("areas")
TARGETS = ("areas", "layers")


@pytest.fixture(scope="module", autouse=True)
def tracking_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MLflow's tables are made once."""
    with made_once(tmp_path_factory.mktemp("mlflow")):
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BrainStore:
    """A store with a tracking database of its own."""
    return BrainStore(tmp_path_factory.mktemp("tracking"))


@pytest.fixture(scope="module")
def client(store: BrainStore) -> MlflowClient:
    store.tracking_path.mkdir(parents=True)
    return MlflowClient(tracking_uri(store), tracking_uri(store))


@pytest.fixture
def register(store: BrainStore) -> Callable[[int, float], ModelVersion]:
    """Registers a probe, told apart by a number, with a held-out macro-F1."""
    return lambda number, score: register_in(store, number, score)


def champion(client: MlflowClient) -> int:
    return int(client.get_model_version_by_alias(NAME, "champion").version)


def test_the_first_version_is_champion_and_a_later_one_only_if_it_is_better(
    register: Callable[[int, float], ModelVersion], client: MlflowClient
) -> None:
    assert register(1, 0.5).champion
    assert not register(2, 0.4).champion
    assert not register(3, 0.5).champion
    assert champion(client) == 1
    assert register(4, 0.6).champion
    assert champion(client) == 4
    # what is registered already is found again, and adds nothing
    again = register(2, 0.4)
    assert (again.version, again.champion) == (2, False)
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 4


def test_an_alias_that_a_killed_run_did_not_set_is_set_by_the_next(
    register: Callable[[int, float], ModelVersion], client: MlflowClient
) -> None:
    register(4, 0.6)
    client.delete_registered_model_alias(NAME, "champion")
    assert register(4, 0.6).champion
    assert client.get_model_version_by_alias(NAME, "champion").tags["headline_macro_f1"] == "0.6"


def test_a_registered_head_is_read_back_as_it_was_kept(
    register: Callable[[int, float], ModelVersion], store: BrainStore, client: MlflowClient
) -> None:
    version = register(7, 0.1)
    digest = client.get_model_version(NAME, str(version.version)).tags["model_digest"]
    assert fetch_head(store, f"models:/{NAME}/{version.version}") == digest
    with pytest.raises(ModelError, match="names no registered model"):
        fetch_head(store, "runs:/abc/head")


def test_anything_beside_a_head_in_the_registry_is_refused_and_never_opened(
    register: Callable[[int, float], ModelVersion], store: BrainStore, client: MlflowClient, tmp_path: Path
) -> None:
    version = register(8, 0.1)
    store.models.remove(client.get_model_version(NAME, str(version.version)).tags["model_digest"])
    (tmp_path / "MLmodel").write_text("flavors: {python_function: {loader_module: os}}")
    (head,) = store.tracking_path.glob(f"artifacts/{version.run_id}/artifacts/head")
    shutil.copy(tmp_path / "MLmodel", head)
    with pytest.raises(ModelError, match=r"holds MLmodel; only head\.json and head\.safetensors are read"):
        fetch_head(store, f"models:/{NAME}/{version.version}")


def test_versions_say_why_they_are_the_champion_or_not(tmp_path: Path) -> None:
    store = BrainStore(tmp_path)
    mlflow = MlflowClient(tracking_uri(store), tracking_uri(store))
    said = [register_in(store, number, score) for number, score in ((1, 0.5), (2, 0.25), (3, 0.75), (4, None))]
    assert [(one.champion, one.reason) for one in said] == [
        (True, "champion: the first of its name"),
        (False, "not the champion: headline/macro_f1 0.2500 is not above the 0.5000 of version 1"),
        (True, "champion: headline/macro_f1 0.7500 is above the 0.5000 of version 1"),
        (False, "not the champion: it has no headline/macro_f1"),
    ]
    for one in said:
        kept = mlflow.get_model_version(NAME, str(one.version))
        assert kept.tags["verdict"] == one.reason
        assert kept.description.endswith(f"{one.reason[:1].upper()}{one.reason[1:]}.")
        assert kept.description.startswith("Tells 2 areas by a probe on embeddings of texture at 4 um per pixel.")
    again = register_in(store, 1, 0.5)
    assert (again.version, again.champion, again.reason) == (1, False, "champion: the first of its name")


def test_the_best_of_those_that_are_not_the_champion_is_the_challenger(tmp_path: Path) -> None:
    store = BrainStore(tmp_path)
    mlflow = MlflowClient(tracking_uri(store), tracking_uri(store))

    def aliases() -> dict[str, int]:
        return {name: int(version) for name, version in mlflow.get_registered_model(NAME).aliases.items()}

    register_in(store, 1, 0.5)
    assert aliases() == {"champion": 1}
    register_in(store, 2, 0.25)
    register_in(store, 3, 0.2)
    register_in(store, 4, 0.9, held_out={})
    assert aliases() == {"champion": 1, "challenger": 2}, "another question is no challenge"
    register_in(store, 5, 0.75)
    assert aliases() == {"champion": 5, "challenger": 1}, "the old champion comes second"
    register_in(store, 6, 0.7)
    assert aliases() == {"champion": 5, "challenger": 6}


def test_held_out_is_what_has_labels_and_was_not_learned_from() -> None:
    inputs = {"labels/s1": "a", "labels/s2": "b", "embeddings/s2": "c", "tissue/s3": "d"}
    record = Record(
        step="training", name="x", section="all", fingerprint="f" * 64, inputs=inputs, settings={},
        facts={"train": ["s1"]}, files={},
    )  # fmt: skip
    assert held_out_labels(record.committed()) == {"s2": "b"}


def test_of_thousands_of_labels_the_record_is_unpacked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sections = [f"s{one}" for one in range(50)]
    record = Record(
        step="training", name="x", section="all", fingerprint="f" * 64, settings={}, files={},
        inputs={f"labels/{one}": "a" for one in sections}, facts={"train": sections[::2]},
    ).committed()  # fmt: skip
    whole, unpacked = Committed.unpacked, []

    def counted(one: Committed) -> bytes:
        unpacked.append(one)
        return whole.__get__(one)

    monkeypatch.setattr(Committed, "unpacked", property(counted))
    assert list(held_out_labels(record)) == sections[1::2]
    assert len(unpacked) == 1


OTHER_CLASSES = (LabelClass(name="V1", ids=(1, 3)), LabelClass(name="V2", ids=(2,)))
OTHER_COLOURS = tuple(one.model_copy(update={"colour": "#ff0000"}) for one in CLASSES)


def test_scores_of_another_question_are_not_compared(tmp_path: Path) -> None:
    store = BrainStore(tmp_path)
    register_in(store, 1, 0.5)
    merged = register_in(store, 2, 0.9, classes=OTHER_CLASSES)
    assert not merged.champion
    assert "not compared with the champion, version 1: other classes; to make" in merged.reason
    elsewhere = register_in(store, 3, 0.9, held_out={"s0030": "labels of s0030"})
    assert "version 1: other held-out sections or labels; to make" in elsewhere.reason
    relabelled = register_in(store, 4, 0.9, held_out={"s0020": "labels drawn again"})
    assert "version 1: other held-out sections or labels; to make" in relabelled.reason
    assert not elsewhere.champion
    assert not relabelled.champion
    both = register_in(store, 5, 0.9, classes=OTHER_CLASSES, held_out={})
    assert "version 1: other classes and other held-out sections or labels; to make" in both.reason


def test_encoders_and_colours_of_classes_are_no_part_of_the_question(tmp_path: Path) -> None:
    store = BrainStore(tmp_path)
    register_in(store, 1, 0.5)
    assert register_in(store, 2, 0.6, classes=OTHER_COLOURS).champion
    assert register_in(store, 3, 0.7, encoder="dinov3:vitb16").champion


def test_a_run_killed_before_the_verdict_is_judged_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BrainStore(tmp_path)
    register_in(store, 1, 0.5)
    with monkeypatch.context() as killed:
        killed.setattr(MlflowClient, "set_registered_model_alias", interrupt)
        with pytest.raises(KeyboardInterrupt):
            register_in(store, 2, 0.9)
    again = register_in(store, 2, 0.9)
    assert (again.version, again.champion) == (2, True)
    run = MlflowClient(tracking_uri(store)).get_run(again.run_id)
    assert run.info.status == "FINISHED"


def interrupt(*_arguments: object, **_named: object) -> None:
    raise KeyboardInterrupt


def test_a_champion_of_an_earlier_version_of_the_code_learns_its_question(tmp_path: Path) -> None:
    """Such versions hold no question and no verdict."""
    store = BrainStore(tmp_path)
    register_in(store, 1, 0.5)
    mlflow = MlflowClient(tracking_uri(store), tracking_uri(store))
    for tag in ("question", "question.target", "question.classes", "question.split", "verdict"):
        mlflow.delete_model_version_tag(NAME, "1", tag)
    assert "does not say on which classes" in register_in(store, 2, 0.9).reason
    assert register_in(store, 1, 0.5).champion
    assert register_in(store, 3, 0.9).champion


def ledger(store: BrainStore, **tags: str) -> BrainLedger:
    return BrainLedger(store, Brain(brain_id="B01", sections=()), {"embed": {"encoder": "texture"}}, TAGS | tags, AREAS)


def test_a_row_is_made_only_when_it_is_opened_and_found_again_by_its_tags(
    store: BrainStore, client: MlflowClient
) -> None:
    assert ledger(store).run_id is None
    first = ledger(store)
    run_id = first.open()
    first.close({"held_out/macro_f1": 0.5})
    again = ledger(store)
    assert (again.run_id, again.finished) == (run_id, True)
    assert client.get_run(run_id).data.metrics == {"held_out/macro_f1": 0.5}
    for tag in TAGS:
        assert ledger(store, **{tag: "another"}).run_id is None
    assert BrainLedger(store, Brain(brain_id="B02", sections=()), {}, TAGS, AREAS).run_id is None


def test_a_row_says_when_it_began_with_what_and_from_which_code(tmp_path: Path) -> None:
    store = BrainStore(tmp_path)
    configuration = {"embed": {"encoder": "texture", "blocks": [1, 2]}, "long": "x" * 600}
    configuration |= {f"setting{number:03d}": number for number in range(250)}
    brain = Brain(brain_id="B01", sections=())
    one = BrainLedger(store, brain, configuration, TAGS, AREAS)
    made_ms = one._started_ms
    other = BrainLedger(store, brain, configuration, TAGS | {"config_digest": "c2"}, AREAS)
    other.open()
    mlflow = MlflowClient(tracking_uri(store))
    run = mlflow.get_run(one.open())
    assert run.info.start_time == made_ms
    assert run.info.run_name == "B01-c0"
    assert run.data.params["embed.encoder"] == "texture"
    assert run.data.params["embed.blocks"] == "[1,2]"
    assert run.data.params["long"] == "x" * 500
    assert [run.data.params[f"setting{number:03d}"] for number in range(250)] == [str(number) for number in range(250)]
    assert (run.data.tags["brain"], run.data.tags["kind"]) == ("B01", "brain")
    assert run.data.tags["git_revision"] == git_revision()
    assert run.data.tags["cytoarch_version"] == cytoarch.__version__
    folder = tmp_path / "mlflow" / "artifacts" / run.info.run_id / "artifacts"
    assert json.loads((folder / "config.json").read_text()) == configuration
    assert Brain.model_validate_json((folder / "brain.json").read_text()) == brain


def test_the_revision_is_that_of_the_checkout() -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    if head.returncode:
        pytest.skip("this is no checkout")
    assert git_revision().removesuffix("-dirty") == head.stdout.strip()


def test_a_row_that_goes_on_is_running_and_names_its_new_run(tmp_path: Path) -> None:
    store = BrainStore(tmp_path)
    first = ledger(store)
    run_id = first.open()
    first.close({})
    mlflow = MlflowClient(tracking_uri(store))
    mlflow.set_tag(run_id, "git_revision", "older")
    again = ledger(store)
    again.open()
    run = mlflow.get_run(run_id)
    assert run.info.status == "RUNNING"
    assert run.data.tags["git_revision"] == git_revision()
    untouched = ledger(store)
    untouched.close({"x": 1.0})
    assert mlflow.get_run(run_id).data.metrics == {}, "a row that was not opened is left alone"


def test_a_training_is_a_run_below_the_brains_with_its_figures(tmp_path: Path) -> None:
    store = BrainStore(tmp_path)
    parent = ledger(store)
    digest = store.models.add(files_of_head(1))
    metrics = {"headline/macro_f1": math.nan, "held_out/top1": 0.5}
    version = register_head(store, "B01", digest, metrics, {"penalty": 0.1}, HELD_OUT, parent.open)
    mlflow = MlflowClient(tracking_uri(store), tracking_uri(store))
    run = mlflow.get_run(version.run_id)
    assert parent.run_id is not None
    assert run.data.tags["mlflow.parentRunId"] == parent.run_id
    assert (run.data.tags["kind"], run.data.tags["model_digest"]) == ("training", digest)
    assert run.info.run_name == f"train-{NAME}"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"encoder": "texture", "kind": "probe", "penalty": "0.1"}
    assert run.data.metrics["held_out/top1"] == 0.5
    known = mlflow.get_model_version(NAME, "1")
    assert (known.tags["brain"], known.tags["encoder_digest"]) == ("B01", "e0")
    assert "headline_macro_f1" not in known.tags, "a score that is not defined cannot be beaten"
    assert register_in(store, 2, 0.5).champion


def test_a_row_lies_in_the_experiment_of_its_question_and_is_found_in_all(tmp_path: Path) -> None:
    store = BrainStore(tmp_path)
    brain = Brain(brain_id="B01", sections=())
    rows = {one: BrainLedger(store, brain, {}, TAGS | {"config_digest": one}, of_brains(one)) for one in TARGETS}
    found = {one: row.open() for one, row in rows.items()}
    mlflow = MlflowClient(tracking_uri(store), tracking_uri(store))
    named = {one: mlflow.get_experiment(mlflow.get_run(run_id).info.experiment_id) for one, run_id in found.items()}
    assert {one: known.name for one, known in named.items()} == {one: f"cytoarch: {one} of brains" for one in TARGETS}
    assert all("`headline/macro_f1`" in known.tags["mlflow.note.content"] for known in named.values())
    assert {one.run_id for one in compared_brains(store)} == set(found.values())
    digest = store.models.add(files_of_head(1))
    version = register_head(store, "B01", digest, {}, {}, HELD_OUT, rows["layers"].open)
    training = mlflow.get_run(version.run_id)
    assert training.info.experiment_id == named["layers"].experiment_id, "below its row, whatever the head tells"


@pytest.mark.parametrize(("asked", "is_same"), [("layers", True), ("areas", False)])
def test_the_row_of_a_failed_ingestion_is_gone_on_with_where_it_answers_the_same_question(
    tmp_path: Path, asked: str, is_same: bool
) -> None:
    store = BrainStore(tmp_path)
    mlflow = MlflowClient(tracking_uri(store), tracking_uri(store))
    log_failed_ingestion(store, "B01", of_brains("layers"), "no scans", "FAILED")
    (failed,) = mlflow.search_runs(list(experiments(store)))
    one = BrainLedger(store, Brain(brain_id="B01", sections=()), {}, TAGS, of_brains(asked))
    run_id = one.open()
    one.close({})
    run = mlflow.get_run(run_id)
    assert mlflow.get_experiment(run.info.experiment_id).name == f"cytoarch: {asked} of brains"
    assert (run_id == failed.info.run_id) is is_same
    assert [row.run_id for row in compared_brains(store)] == [run_id], "the other stands for the brain no more"
    assert mlflow.get_run(failed.info.run_id).info.status == ("FINISHED" if is_same else "FAILED")


def test_rows_of_earlier_versions_are_found_and_gone_on_with(tmp_path: Path) -> None:
    """They lie in the one experiment that there was."""
    store = BrainStore(tmp_path)
    run_id = ledger(store).open()
    mlflow = MlflowClient(tracking_uri(store))
    mlflow.rename_experiment(mlflow.get_run(run_id).info.experiment_id, "cytoarch")
    other = mlflow.create_experiment("cytoarchitecture of others")
    assert ledger(store).run_id == run_id
    assert other not in experiments(store)


def test_a_row_that_a_failed_or_killed_run_left_is_not_finished_and_goes_on(
    store: BrainStore, client: MlflowClient
) -> None:
    broken = ledger(store, config_digest="c1")
    run_id = broken.open()
    broken.close({}, "FAILED")
    again = ledger(store, config_digest="c1")
    assert (again.run_id, again.finished) == (run_id, False)
    assert again.open() == run_id
    again.close({"map/macro_f1": 0.4})
    assert client.get_run(run_id).info.status == "FINISHED"
    assert client.get_run(run_id).data.metrics == {"map/macro_f1": 0.4}


def test_a_run_that_breaks_off_ends_its_row_and_leaves_one_that_finished_before(tmp_path: Path) -> None:
    store = BrainStore(tmp_path)
    mlflow = MlflowClient(tracking_uri(store))
    stopped = ledger(store)
    stopped.end_early({"duration/embed_s": 1.5}, "KILLED")
    run = mlflow.get_run(str(stopped.run_id))
    assert (run.info.status, run.data.metrics) == ("KILLED", {"duration/embed_s": 1.5})
    assert run.data.params == {"embed.encoder": "texture"}
    again = ledger(store)
    again.open()
    again.close({})
    broken = ledger(store)
    broken.end_early({"duration/embed_s": 9.0}, "FAILED")
    run = mlflow.get_run(str(stopped.run_id))
    assert (run.info.status, run.data.metrics["duration/embed_s"]) == ("FINISHED", 1.5)


def test_a_row_holds_what_is_left_of_a_run(tmp_path: Path) -> None:
    store = BrainStore(tmp_path)
    one = ledger(store)
    one.open()
    remains = Remains(
        {"map.png": b"PNG"},
        [Dataset("B01", "d" * 64, "mapped", "/data/B01")],
        {"stain": "nissl"},
        "B01: areas",
        "A brain.",
    )
    one.close({}, map_name="areas", remains=remains)
    one = ledger(store)
    one.open()
    one.close({}, remains=remains)
    run = MlflowClient(tracking_uri(store)).get_run(str(one.run_id))
    assert (run.info.run_name, run.data.tags["mlflow.note.content"]) == ("B01: areas", "A brain.")
    assert (run.data.tags["stain"], run.data.tags["map"]) == ("nissl", "areas")
    ((dataset, context),) = [(found.dataset, found.tags[0].value) for found in run.inputs.dataset_inputs]
    assert (dataset.name, dataset.digest, context) == ("B01", "d" * 36, "mapped")
    folder = tmp_path / "mlflow" / "artifacts" / run.info.run_id / "artifacts"
    assert (folder / "map.png").read_bytes() == b"PNG"


def test_a_row_that_was_killed_before_its_settings_were_written_gets_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BrainStore(tmp_path)
    with monkeypatch.context() as killed:
        killed.setattr(MlflowClient, "log_batch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ledger(store).open()
    again = ledger(store)
    run_id = again.open()
    runs = MlflowClient(tracking_uri(store)).search_runs(list(experiments(store)))
    assert [run.info.run_id for run in runs] == [run_id]
    assert runs[0].data.params == {"embed.encoder": "texture"}
