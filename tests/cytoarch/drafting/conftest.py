"""Drafts whose children are shared."""

from collections.abc import Iterator

import pytest

from cytoarch.containment import Contained


class _Kept(Contained):
    """Children that outlive a draft: starting one takes longer than all the rest of it."""

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def children() -> Iterator[_Kept]:
    kept = _Kept()
    yield kept
    Contained.close(kept)


@pytest.fixture(autouse=True)
def _quickly(children: _Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cytoarch.drafting.draft.Contained", lambda: children)
