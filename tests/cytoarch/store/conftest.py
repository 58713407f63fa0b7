"""A store, and the catalogue of a brain in it."""

from pathlib import Path

import pytest

from cytoarch.store.brain_store import BrainStore
from cytoarch.store.catalogue import Catalogue


@pytest.fixture
def store(tmp_path: Path) -> BrainStore:
    return BrainStore(tmp_path / "store")


@pytest.fixture
def catalogue(store: BrainStore) -> Catalogue:
    """Of brain B1. It remembers what it read: whoever changes files by hand takes a `fresh` one."""
    return store.catalogue("B1")
