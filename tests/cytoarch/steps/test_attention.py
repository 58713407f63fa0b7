"""Patches that attention is drawn in are spread over all points, and only tables that one lies in are read."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cytoarch.steps import attention
from cytoarch.steps.step import MissingInputError

COUNTS: dict[str, dict[str, Any]] = {one: {"points": count} for one, count in (("a", 3), ("b", 0), ("c", 1), ("d", 3))}
FOLDERS = {one: Path(one) for one in COUNTS}


def test_patches_are_spread_over_the_points_of_all_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def table(folders: list[Path]) -> Any:
        """Two draws of every point; the y of a point is its number."""
        opened.extend(folders)
        count = COUNTS[folders[0].name]["points"]
        places = np.repeat(np.stack([np.arange(count), np.zeros(count)], axis=1), 2, axis=0)
        return SimpleNamespace(obsm={"section_mm": places}, obs=pd.DataFrame({"draw": np.tile([0, 1], count)}))

    monkeypatch.setattr(attention, "open_points", table)
    found = [(one, place[0]) for one, place in attention._spread(COUNTS, FOLDERS, 2)]
    assert found == [("a", 0.0), ("d", 2.0)]
    assert opened == [FOLDERS["a"], FOLDERS["d"]]
    assert len(list(attention._spread(COUNTS, FOLDERS, 50))) == 7


def test_tables_without_a_point_say_what_to_run() -> None:
    with pytest.raises(MissingInputError, match="run embed-points"):
        list(attention._spread({"b": {"points": 0}}, FOLDERS, 6))
