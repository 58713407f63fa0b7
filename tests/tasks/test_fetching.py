"""What a registry may say, and what is read all the same: a head of one of our training runs, and nothing else."""

import hashlib
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cytoarch.embeddings import EmbedSettings
from cytoarch.encoders.registry import EncoderSettings
from cytoarch.errors import ModelError, StoreError
from cytoarch.learning.cards import CARD_FILE, WEIGHTS_FILE
from cytoarch.store.brain_store import BrainStore
from tasks.tracking import ModelVersion, fetch_head, fetching, tracking_uri
from tasks.tracking.database import artifacts
from tests.heads import files_of_head, register_in

pytestmark = pytest.mark.xdist_group("tracking")

MODEL = "models:/areas-probe-B01/1"


class Registered:
    """A head that the registry of a store knows, and the store no longer keeps: it must be fetched."""

    def __init__(self, store: BrainStore, version: ModelVersion) -> None:
        self.store, self.version = store, version
        self.client = MlflowClient(tracking_uri(store), tracking_uri(store))
        known = self.client.get_model_version(version.name, str(version.version))
        self.digest, self.source = known.tags["model_digest"], str(known.source)
        store.models.remove(self.digest)

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.store.tracking_path / "artifacts" / self.version.run_id / "artifacts" / "head"

    def again(self, source: str, run_id: str | None) -> str:
        """Register a version whose files are said to be elsewhere; its address."""
        made = self.client.create_model_version(self.version.name, source, run_id)
        return f"models:/{made.name}/{made.version}"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Registered:
    store = BrainStore(tmp_path_factory.mktemp("fetching"))
    return Registered(store, register_in(store, 1, 0.5))


@pytest.fixture
def registered(shared: Registered, tmp_path: Path) -> Registered:
    """One of its own, which tests may spoil."""
    shutil.copytree(shared.store.root, tmp_path / "store")
    store = BrainStore(tmp_path / "store")
    store.models.add(_files(shared.folder))
    return Registered(store, shared.version)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A web server with a good head, and what was asked of it."""
    asked: list[str] = []
    files = files_of_head(7)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(files.get(self.path.rpartition("/")[2], b"[]"))

        def log_message(self, *arguments: object) -> None:
            """Keeps it silent."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"127.0.0.1:{running.server_port}", asked
        running.shutdown()
        thread.join()


def test_a_head_that_only_the_registry_has_is_fetched(registered: Registered) -> None:
    assert fetch_head(registered.store, MODEL) == registered.digest
    assert _files(registered.store.models.path(registered.digest)) == _files(registered.folder)


@pytest.mark.parametrize(
    "source",
    [
        "file:///etc",
        "/etc",
        "../../etc",
        "s3://bucket/head",
        "http://{server}/head",
        "mlflow-artifacts://{server}/head",
        "{ours}/../../../../../etc",
        "mlflow-artifacts:/../../../etc",
        "mlflow-artifacts:/%2e%2e/%2e%2e/etc",
        "dbfs:/head",
        "file://{head}",
        "{head}",
        "{ours}/head/../head",
        "{ours}",
    ],
)
def test_files_elsewhere_are_never_opened(
    source: str,
    registered: Registered,
    tmp_path: Path,
    server: tuple[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though a head that is good in itself lies there."""
    monkeypatch.chdir(tmp_path)
    good = tmp_path / "elsewhere" / "head"
    good.mkdir(parents=True)
    for name, content in files_of_head(7).items():
        (good / name).write_bytes(content)
    address, asked = server
    text = source.format(server=address, head=good, ours=registered.source.removesuffix("/head"))
    wanted = registered.again(text, registered.version.run_id)
    with pytest.raises(ModelError, match=r"only \S+/head, what its training run has kept, is read"):
        fetch_head(registered.store, wanted)
    assert not asked
    assert not list((registered.store.root / "models").iterdir())


@pytest.mark.parametrize("run_id", [None, "", "0" * 32])
def test_a_version_without_a_training_run_is_not_read(run_id: str | None, registered: Registered) -> None:
    with pytest.raises(ModelError, match="was not registered by a training run of the experiments 'cytoarch'"):
        fetch_head(registered.store, registered.again(registered.source, run_id))


def test_a_run_of_another_experiment_is_no_training_run(registered: Registered, tmp_path: Path) -> None:
    """Its files may lie wherever who made it has said."""
    other = registered.client.create_experiment("other", artifact_location=(tmp_path / "other").as_uri())
    run = registered.client.create_run(other)
    for name, content in files_of_head(7).items():
        (tmp_path / name).write_bytes(content)
        registered.client.log_artifact(run.info.run_id, str(tmp_path / name), "head")
    wanted = registered.again(f"{run.info.artifact_uri}/head", run.info.run_id)
    with pytest.raises(ModelError, match="was not registered by a training run of the experiments 'cytoarch'"):
        fetch_head(registered.store, wanted)


def test_an_experiment_with_files_elsewhere_is_not_read(tmp_path: Path) -> None:
    """Who comes first may say where all files go; then nothing is written or read there."""
    store = BrainStore(tmp_path / "store")
    store.tracking_path.mkdir(parents=True)
    client = MlflowClient(tracking_uri(store), tracking_uri(store))
    client.create_experiment("cytoarch: areas of brains", artifact_location=(tmp_path / "elsewhere").as_uri())
    with pytest.raises(StoreError, match="are neither in"):
        register_in(store, 1, 0.5)
    assert not (tmp_path / "elsewhere").exists()


REPOSITORY = "mlflow.store.artifact.artifact_repository_registry.get_artifact_repository"


@pytest.mark.parametrize("uri", ["mlflow-artifacts:/1/r1/artifacts", "s3://bucket/1/r1/artifacts", "gs://bucket/1"])
def test_what_a_tracking_server_keeps_or_assigns_is_opened_through_it(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(REPOSITORY, lambda *given, **named: (given, named))
    opened = artifacts(BrainStore(tmp_path), uri)
    assert opened == ((uri,), {"tracking_uri": "http://127.0.0.1:9"})


@pytest.mark.parametrize("tracking", ["http://127.0.0.1:9", "", "sqlite:////tmp/other.db"])
@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc", "/etc", "etc", "../etc", "http://127.0.0.1:9/x", "ftp://127.0.0.1/x", "dbfs:/x", "runs:/r1/head",
        "models:/x/1", "mlflow-artifacts://127.0.0.1:9/x", "mlflow-artifacts:/../x", "mlflow-artifacts:/x/../../y",
        "mlflow-artifacts:/%2e%2e/x", "mlflow-artifacts:/x?y=z", "mlflow-artifacts:/x#y", "mlflow-artifacts:/", "",
        "file://127.0.0.1/x",
    ],
)  # fmt: skip
def test_nothing_else_is_opened(uri: str, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    monkeypatch.setattr(REPOSITORY, lambda *_given, **_named: pytest.fail("it was opened"))
    with pytest.raises(StoreError, match=r"nothing else is read or written: start the server with"):
        artifacts(BrainStore(tmp_path), uri)


def test_buckets_are_opened_only_where_a_server_assigns_them(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing else is read or written"):
        artifacts(BrainStore(tmp_path), "s3://bucket/1")


def test_a_link_out_of_the_stores_artifacts_is_not_followed(registered: Registered, tmp_path: Path) -> None:
    shutil.move(registered.folder, tmp_path / "head")
    registered.folder.symlink_to(tmp_path / "head")
    with pytest.raises(ModelError, match="which is outside"):
        fetch_head(registered.store, MODEL)


def test_more_than_a_head_is_not_fetched(registered: Registered) -> None:
    (registered.folder / "more").mkdir()
    (registered.folder / "more" / "conda.yaml").write_text("dependencies: [evil]")
    (registered.folder / "MLmodel").write_text("flavors: {}")
    with pytest.raises(ModelError, match=r"holds MLmodel, more; only head\.json and head\.safetensors are read"):
        fetch_head(registered.store, MODEL)


@pytest.mark.parametrize("name", [CARD_FILE, WEIGHTS_FILE])
def test_giants_are_refused_by_their_listing(registered: Registered, name: str) -> None:
    with (registered.folder / name).open("r+b") as file:
        file.truncate(fetching.LIMITS_BYTES[name] + 1)  # a hole: no byte of it is on the disk
    with pytest.raises(ModelError, match=rf"{name} has \d+ bytes; at most [\d,]+ are fetched"):
        fetch_head(registered.store, MODEL)


@pytest.mark.parametrize("name", [CARD_FILE, WEIGHTS_FILE])
def test_a_head_without_one_of_its_files_cannot_be_had(registered: Registered, name: str) -> None:
    (registered.folder / name).unlink()
    with pytest.raises(ModelError, match="cannot be had from"):
        fetch_head(registered.store, MODEL)


def test_files_that_were_changed_since_are_not_the_head(registered: Registered) -> None:
    for name, content in files_of_head(7).items():
        (registered.folder / name).write_bytes(content)
    with pytest.raises(ModelError, match="its files have changed since"):
        fetch_head(registered.store, MODEL)
    assert not list((registered.store.root / "models").iterdir())


def test_a_damaged_copy_in_the_store_is_replaced(registered: Registered) -> None:
    assert fetch_head(registered.store, MODEL) == registered.digest
    kept = registered.store.models.path(registered.digest) / WEIGHTS_FILE
    sound = kept.read_bytes()
    kept.write_bytes(sound[:-1] + b"\xff")
    assert fetch_head(registered.store, MODEL) == registered.digest
    assert kept.read_bytes() == sound


HOSTILE = "dinov3:evil/weights"


@pytest.fixture
def foreign(tmp_path: Path) -> Registered:
    """A head from elsewhere whose card names an encoder of its own."""
    store = BrainStore(tmp_path / "store")
    return Registered(store, register_in(store, 1, 0.5, encoder=HOSTILE))


def test_an_encoder_that_nobody_chose_is_not_loaded_for_a_head(foreign: Registered) -> None:
    with pytest.raises(ModelError, match=rf"needs the encoder {HOSTILE}, .* --allow\.encoder {HOSTILE}"):
        fetch_head(foreign.store, MODEL)
    assert not list((foreign.store.root / "models").iterdir())
    others = [
        EncoderSettings(),
        EncoderSettings(encoder="dinov3:evil"),
        EncoderSettings(encoder=HOSTILE, revision="0" * 40),
    ]
    with pytest.raises(ModelError, match=f"encoders chosen here: dinov3:evil, {HOSTILE}@0000"):
        fetch_head(foreign.store, MODEL, others)


@pytest.mark.parametrize("encoder", [f"texture+{HOSTILE}", f"lite0:3,4+{HOSTILE}", f"{HOSTILE}+lite0"])
def test_no_encoder_is_smuggled_in_beside_others(tmp_path: Path, encoder: str) -> None:
    store = BrainStore(tmp_path / "store")
    Registered(store, register_in(store, 1, 0.5, encoder=encoder))
    with pytest.raises(ModelError, match="which it names itself and which would be read"):
        fetch_head(store, MODEL)


def test_encoders_that_come_along_need_not_be_allowed(tmp_path: Path) -> None:
    store = BrainStore(tmp_path / "store")
    known = Registered(store, register_in(store, 1, 0.5, encoder="texture+lite0:3,4"))
    assert fetch_head(store, MODEL) == known.digest


def test_an_encoder_that_is_allowed_may_be_named(foreign: Registered) -> None:
    assert fetch_head(foreign.store, MODEL, [EmbedSettings(encoder=HOSTILE, batch_size=7)]) == foreign.digest


def test_the_encoder_of_a_head_in_the_store_may_be_named(foreign: Registered) -> None:
    foreign.store.models.add(files_of_head(2, encoder=HOSTILE))
    assert fetch_head(foreign.store, MODEL) == foreign.digest


def test_what_is_allowed_may_stand_beside_what_comes_along(tmp_path: Path) -> None:
    store = BrainStore(tmp_path / "store")
    known = Registered(store, register_in(store, 1, 0.5, encoder=f"texture+{HOSTILE}"))
    with pytest.raises(ModelError, match="which it names itself"):
        fetch_head(store, MODEL, [EncoderSettings(encoder=HOSTILE, revision="0" * 40)])
    assert fetch_head(store, MODEL, [EncoderSettings(encoder=HOSTILE)]) == known.digest


def test_each_part_must_be_allowed(tmp_path: Path) -> None:
    store = BrainStore(tmp_path / "store")
    Registered(store, register_in(store, 1, 0.5, encoder=f"compact:/evil+{HOSTILE}"))
    with pytest.raises(ModelError, match="which it names itself"):
        fetch_head(store, MODEL, [EncoderSettings(encoder=HOSTILE)])


def test_damaged_heads_in_the_store_allow_nothing(foreign: Registered) -> None:
    card = json.loads(files_of_head(2, encoder=HOSTILE)[CARD_FILE])
    digest = hashlib.sha256(b"damaged").hexdigest()
    folder = foreign.store.models.path(digest)
    folder.mkdir(parents=True)
    (folder / CARD_FILE).write_text(json.dumps({**card, "kind": "unknown"}))
    with pytest.raises(ModelError, match="needs the encoder"):
        fetch_head(foreign.store, MODEL)
