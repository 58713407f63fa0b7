"""A tiny phantom brain, written once and mapped once per worker process."""

from pathlib import Path
from typing import NamedTuple

import pytest

from cytoarch.brains import Brain
from cytoarch.phantoms.writing import PhantomRequest, write_phantom
from cytoarch.store.brain_store import BrainStore


class MappedBrain(NamedTuple):
    """A phantom and the store it was mapped into."""

    manifest_path: Path
    store_path: Path
    summary: object

    @property
    def store(self) -> BrainStore:
        return BrainStore(self.store_path)

    @property
    def brain(self) -> Brain:
        return self.store.read_brain("P01")


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a tiny phantom brain; tests that change files copy its folder."""
    return write_phantom(tmp_path_factory.mktemp("phantom") / "P01", "P01", PhantomRequest(size="tiny"))


@pytest.fixture(scope="session")
def mapped(phantom: Path, tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> MappedBrain:
    """The phantom, mapped with the default settings. Not to be changed by tests."""
    from flows.map_brain import map_brain
    from flows.parameters import BrainSource

    store_path = tmp_path_factory.mktemp("mapped") / "store"
    summary = map_brain(source=BrainSource(manifest_path=phantom, store_path=store_path))
    return MappedBrain(phantom, store_path, summary)
