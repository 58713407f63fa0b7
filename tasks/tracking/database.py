"""Where runs, models and their files are kept: the database inside the store, or the tracking server in use.

MLflow writes the address of its files into the database when an experiment is made. Inside the store this is
`mlflow-artifacts:/`, which names no folder: it is what a server that is given the store's artifacts puts there too, so
a store can be moved, and be served or not, without anything in it being wrong.
"""

import fcntl
import logging
import os
import re
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

from cytoarch.errors import StoreError
from cytoarch.store.brain_store import BrainStore

EXPERIMENT = "cytoarch"
"""What the names of our experiments begin with; rows of earlier versions lie in one of just this name."""
CHAMPION = "champion"
HEAD_FOLDER = "head"
"""Folder of a head among the files of its training run."""

_IN_STORE = "mlflow-artifacts:/"
_KEY = re.compile(r"mlflow-artifacts:/([A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*)")
"""An address in an artifact store that names neither a server nor anything above it, and what it names."""
_BUCKETS = ("s3://", "gs://", "wasbs://", "abfss://")
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Where MLflow's schema keeps addresses of files."""

PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
"""Where the environment does not say otherwise: MLflow's client alone would be silent for four minutes."""

VIEW = "workflowType=machine_learning"
"""What the address of a page ends with that is to open on runs and models, and not on traces of language models."""

_client_lock = threading.Lock()
_made: set[str] = set()
"""The databases of stores whose tables this process has seen made."""


def tracking_uri(store: BrainStore) -> str:
    """Where runs are tracked: MLFLOW_TRACKING_URI, or a database inside the store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or database_uri(database_path(store))


def database_path(store: BrainStore) -> Path:
    """The file of the store's own tracking database, whether or not it is there."""
    return store.tracking_path.resolve() / "mlflow.db"


def artifacts_path(store: BrainStore) -> Path:
    """The folder of the files that the store's own tracking database speaks of."""
    return store.tracking_path.resolve() / "artifacts"


def database_uri(path: Path) -> str:
    """The address of an SQLite file as SQLAlchemy takes it.

    SQLAlchemy decodes nothing in the path and ends it at a question mark; only SQLite's own URIs can name such a file.
    MLflow would make a folder named like that URI if it began with `sqlite:///`.

    >>> database_uri(Path("/data/100 %/mlflow.db"))
    'sqlite:////data/100 %/mlflow.db'
    >>> database_uri(Path("/data/which?/mlflow.db"))
    'sqlite+pysqlite:///file:///data/which%3F/mlflow.db?uri=true'
    """
    return f"sqlite+pysqlite:///{path.as_uri()}?uri=true" if "?" in str(path) else f"sqlite:///{path}"


def client(store: BrainStore) -> Any:
    """An MLflow client for the store's tracking database or server; the database is made on first use."""
    from mlflow import MlflowClient

    with _client_lock:
        for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking"):
            logging.getLogger(name).setLevel(logging.WARNING)
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        uri = tracking_uri(store)
        if is_own(store):
            store.tracking_path.mkdir(parents=True, exist_ok=True)
        if is_own(store) and uri not in _made:
            _make_tables(store, uri)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _make_tables(store: BrainStore, uri: str) -> None:
    """Have the tables of the store's own database made: of processes that come at once, by one."""
    from mlflow import MlflowClient

    folder = os.open(store.tracking_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments(max_results=1)
    finally:
        os.close(folder)
    _made.add(uri)


def is_own(store: BrainStore) -> bool:
    """Whether runs are tracked in the database inside the store, without a server."""
    return tracking_uri(store) == database_uri(database_path(store))


def location(store: BrainStore) -> str | None:
    """Where the files of a new experiment go; None: where the server keeps them."""
    return _IN_STORE if tracking_uri(store).startswith("sqlite") else None


def _local_artifacts(store: BrainStore) -> Path:
    """The folder of artifacts where no server keeps them: beside the database, be it the store's own or another."""
    from mlflow.utils.file_utils import local_file_uri_to_path
    from sqlalchemy.engine import make_url

    uri = tracking_uri(store)
    if is_own(store) or not uri.startswith("sqlite"):
        return artifacts_path(store)
    database = str(make_url(uri).database)
    path = local_file_uri_to_path(database) if database.startswith("file:") else database
    return Path(path).resolve().parent / "artifacts"


def make_relative(database: Path) -> None:
    """Rewrite the addresses in a store's tracking database that name its folder, so that they name none.

    Stores of earlier versions hold such addresses; they are wrong as soon as the store is moved.
    """
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        connection.execute("BEGIN IMMEDIATE")
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'model_versions'").fetchone():
            return  # MLflow has not come to make its tables
        known = connection.execute("SELECT artifact_location FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone()
        folder = known[0] if known else ""
        if not (folder.startswith("file:") and folder.endswith("/mlflow/artifacts")):
            return
        for table, column in _ADDRESSES:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 - names from the list above
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (_IN_STORE, len(folder) + 2, folder, len(folder) + 1, f"{folder}/"),
            )


def artifacts(store: BrainStore, uri: str) -> Any:
    """MLflow's repository of the files at an address of ours, to write to and read from.

    Raises StoreError unless the address lies in the folder of artifacts beside the tracking database, in those that
    the tracking server keeps, or in a bucket that it assigns: whatever else a registry may name is not opened.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.utils.file_utils import local_file_uri_to_path

    key, tracking = _KEY.fullmatch(uri), tracking_uri(store)
    folder = _local_artifacts(store)
    if key is not None and tracking.startswith("sqlite"):
        return get_artifact_repository(_inside(folder / key[1], folder))
    if tracking.startswith(("http://", "https://")) and (key is not None or uri.startswith(_BUCKETS)):
        return get_artifact_repository(uri, tracking_uri=tracking)
    if uri.startswith(f"{folder.as_uri()}/"):
        return get_artifact_repository(_inside(Path(local_file_uri_to_path(uri)), folder))
    raise StoreError(
        f"the files at {uri} are neither in {folder} nor kept by a tracking server; nothing else is read or written: "
        "start the server with `mlflow server --artifacts-destination FOLDER`, and give the experiments "
        f"{EXPERIMENT!r} no location of their own"
    )


def _inside(path: Path, folder: Path) -> str:
    """The address of a local path as MLflow decodes it; its file: URIs lose bytes that are no UTF-8."""
    full = path.resolve()
    if folder not in full.parents:
        raise StoreError(f"{path} leads to {full}, which is outside {folder}; remove the link")
    return str(full).replace("%", "%25")


def run_url(store: BrainStore, run_id: str) -> str:
    """The page of a run, where a tracking server is in use; else the file of the database that `mlflow ui` opens."""
    uri = tracking_uri(store)
    if uri.startswith(("http://", "https://")):
        experiment = client(store).get_run(run_id).info.experiment_id
        return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}?{VIEW}"
    return f"{database_path(store).as_uri()}#{run_id}"
