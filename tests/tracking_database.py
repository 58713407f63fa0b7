"""The tables that MLflow makes in a new database take seconds: made once per process, and copied for every store."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def made_once(folder: Path) -> Iterator[None]:
    """New databases inside stores are copies of one, as long as this is entered."""
    import mlflow

    original, template = mlflow.MlflowClient, folder / "mlflow.db"

    def client(tracking_uri: str | None = None, registry_uri: str | None = None) -> Any:
        kind, _, path = (tracking_uri or "").partition(":///")
        if kind == "sqlite" and path.startswith("/") and not Path(path).exists():
            if not template.exists():
                original(
                    tracking_uri=f"sqlite:///{template}", registry_uri=f"sqlite:///{template}"
                ).search_experiments()
            shutil.copyfile(template, path)
        return original(tracking_uri=tracking_uri, registry_uri=registry_uri)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow, "MlflowClient", client)
        yield
