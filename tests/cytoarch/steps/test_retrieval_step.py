"""The sheet of nearest neighbours, where there are fewer than are asked for."""

import csv
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cytoarch.steps import retrieval
from cytoarch.steps.retrieval import NEAREST_FILE, SHEET_FILE, RetrievalSettings, write_retrieval
from tests.cytoarch.discovery.made_up_tokens import known_tokens


@pytest.mark.parametrize(("sections", "ranks"), [([0, 0, 0, 0, 1, 1], {0, 1, 2, 3, 4}), ([0] * 6, {0})])
def test_places_where_no_neighbour_could_have_been_are_left_empty(
    monkeypatch: pytest.MonkeyPatch, sections: list[int], ranks: set[int]
) -> None:
    """All tokens of a section overlap: those of the other are all the neighbours there are."""
    known, files = known_tokens(60).chosen(np.arange(6)), dict[str, bytes]()
    known.section[:], known.places_um[:] = sections, 0
    fit: Any = SimpleNamespace(mean=np.zeros(known.tokens.shape[1]), spread=np.ones(known.tokens.shape[1]))
    staging: Any = SimpleNamespace(write=files.__setitem__)
    monkeypatch.setattr(retrieval, "patch_picture", lambda *_: np.zeros((4, 4, 3), np.uint8))
    image_of: Any = str
    facts = write_retrieval(staging, known, fit, image_of, RetrievalSettings(neighbours=5))
    rows = list(csv.DictReader(files[NEAREST_FILE].decode().splitlines()))
    assert {int(one["rank"]) for one in rows} <= ranks
    for query in {one["query"] for one in rows}:
        own, *others = (one["section"] for one in rows if one["query"] == query)
        assert own not in others
    assert files[SHEET_FILE].startswith(b"\x89PNG")
    assert facts["shared"].get("sections", {}).get("share", 0) == 0
