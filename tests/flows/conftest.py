"""A tiny phantom brain, written once a worker and mapped once a run."""

from collections.abc import Iterator
from contextvars import Context
from pathlib import Path
from typing import NamedTuple

import pytest

from cytoarch.brains import Brain
from cytoarch.errors import BrainBusyError
from cytoarch.phantoms.writing import PhantomRequest, write_phantom
from cytoarch.steps.opened import open_brain
from cytoarch.store.brain_store import BrainStore
from tests.conftest import made_here
from tests.tracking_database import made_once


class MappedBrain(NamedTuple):
    """A phantom and the store it was mapped into."""

    manifest_path: Path
    store_path: Path
    summary: object
    second_run: dict[str, str]
    """What another run was told that wanted the brain too, by the stage that was under way."""

    @property
    def store(self) -> BrainStore:
        return BrainStore(self.store_path)

    @property
    def brain(self) -> Brain:
        return self.store.read_brain("P01")


@pytest.fixture(scope="session", autouse=True)
def tracking_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MLflow's tables are made once."""
    with made_once(tmp_path_factory.mktemp("mlflow")):
        yield


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a tiny phantom brain; tests that change files copy its folder."""
    return write_phantom(tmp_path_factory.mktemp("phantom") / "P01", "P01", PhantomRequest(size="tiny"))


@pytest.fixture(scope="session")
def mapped(phantom: Path, tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> MappedBrain:
    """The phantom, mapped with the default settings, once a run: its tests are of one group. Not to be changed."""
    made_here(tmp_path_factory, "the mapped phantom")
    from flows.map_brain import map_brain
    from flows.parameters import BrainSource
    from tasks.progress import listening

    store_path = tmp_path_factory.mktemp("mapped") / "store"
    told: dict[str, str] = {}

    def try_too(stage: str, *_: object) -> None:
        if stage not in told:
            told[stage] = Context().run(second_run, store_path)

    with listening(try_too):
        summary = map_brain(source=BrainSource(manifest_path=phantom, store_path=store_path))
    return MappedBrain(phantom, store_path, summary, told)


def second_run(store_path: Path) -> str:
    """What a run is told that shares nothing with this one."""
    try:
        with open_brain(store_path, "P01"):
            return "it was let in"
    except BrainBusyError as error:
        return str(error)
