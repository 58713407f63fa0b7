"""What MLflow remembers, asked without Prefect: versions, champions, rows that are found again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from cytoarch.brains import Brain, LabelClass
from cytoarch.embeddings import EmbedSettings
from cytoarch.errors import ModelError
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.heads import head_files
from cytoarch.learning.probes import Probe
from cytoarch.store.brain_store import BrainStore
from tasks.tracking import BrainLedger, ModelVersion, fetch_head, register_head, tracking_uri

pytestmark = pytest.mark.xdist_group("tracking")

NAME = "areas-probe-B01"
TAGS = {"config_digest": "c0", "input_digest": "i0", "encoder_digest": "e0"}


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

    def one(number: int, score: float) -> ModelVersion:
        card = HeadCard(
            kind="probe",
            target="areas",
            classes=(LabelClass(name="V1", ids=(1,)), LabelClass(name="V2", ids=(2,))),
            dims=(3,),
            cells_per_token=1,
            embedding=EmbedSettings(),
            encoder_digest="e0",
            token_px=4,
            pixel_size_um=4.0,
        )
        probe = Probe(card, np.full((2, 3), number, dtype=np.float32), np.zeros(2, dtype=np.float32))
        return register_head(store, "B01", store.add_model(head_files(probe)), {"held_out/macro_f1": score}, {})

    return one


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
    assert client.get_model_version_by_alias(NAME, "champion").tags["held_out_macro_f1"] == "0.6"


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
    (tmp_path / "MLmodel").write_text("flavors: {python_function: {loader_module: os}}")
    client.log_artifact(version.run_id, str(tmp_path / "MLmodel"), "head")
    with pytest.raises(ModelError, match=r"holds MLmodel; only head\.json and head\.safetensors are read"):
        fetch_head(store, f"models:/{NAME}/{version.version}")


def ledger(store: BrainStore, **tags: str) -> BrainLedger:
    return BrainLedger(store, Brain(brain_id="B01", sections=()), {"embed": {"encoder": "texture"}}, TAGS | tags)


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
    assert ledger(store, encoder_digest="e1").run_id is None


def test_a_row_that_a_failed_or_killed_run_left_is_not_finished_and_goes_on(
    store: BrainStore, client: MlflowClient
) -> None:
    broken = ledger(store, config_digest="c1")
    run_id = broken.open()
    broken.close({}, failed=True)
    again = ledger(store, config_digest="c1")
    assert (again.run_id, again.finished) == (run_id, False)
    assert again.open() == run_id
    again.close({"map/macro_f1": 0.4})
    assert client.get_run(run_id).info.status == "FINISHED"
    assert client.get_run(run_id).data.metrics == {"map/macro_f1": 0.4}
