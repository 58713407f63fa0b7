"""A run's row in MLflow is found again by the settings that decided on its maps, and by no others."""

from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest

from cytoarch.brains import Brain
from cytoarch.parcellation.smoothing import SmoothSettings
from cytoarch.steps.opened import OpenBrain
from cytoarch.store.brain_store import BrainStore
from flows.map_brain import _ledger
from flows.parameters import MapSettings


@pytest.mark.parametrize(("order", "is_used"), [("depth", True), ("none", False)])
def test_how_depth_is_measured_counts_where_layers_follow_it(tmp_path: Path, order: Any, is_used: bool) -> None:
    store = BrainStore(tmp_path)
    brain = OpenBrain(store, store.catalogue("B1"), "brain B1", Brain(brain_id="B1", sections=()))
    settings = MapSettings(cortex="none", smooth=SmoothSettings(order=order))
    chosen = Mock(digest="d0", version=None, card=Mock(depth="none", brains=()))
    configuration = _ledger(brain, settings, cast("Any", chosen))._configuration
    assert ("depth" in configuration) == is_used
    assert {"midline", "surface"}.isdisjoint(configuration)
