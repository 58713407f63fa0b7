"""Where hosts share a store, one run at a time has a brain; without a server that grants it, none has."""

from contextvars import Context
from pathlib import Path

import pytest
from prefect.client.base import ServerType

from cytoarch.errors import BrainBusyError, StoreError
from tasks import leases
from tasks.leases import SHARED, brain_lease, lease_name

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("more flows")]


@pytest.fixture(autouse=True)
def shared(monkeypatch: pytest.MonkeyPatch, prefect_server: None) -> None:
    monkeypatch.setenv(SHARED, "true")
    monkeypatch.setattr(leases, "WAIT_S", 1.0)


def another(store: Path, brain_id: str) -> str:
    """What a run is told that shares nothing with this one, as on another host."""

    def enter() -> str:
        try:
            with brain_lease(store, brain_id):
                return "it was let in"
        except BrainBusyError as error:
            return str(error)

    return Context().run(enter)


def test_one_run_has_a_brain_at_a_time_and_those_it_calls_share_it(tmp_path: Path) -> None:
    with brain_lease(tmp_path, "B1"):
        assert "is being written by a run that holds its lease brain-" in another(tmp_path, "B1")
        assert another(tmp_path, "B2") == "it was let in"
        with brain_lease(tmp_path, "B1"):
            assert "B1" in another(tmp_path, "B1")
        assert "is being written" in another(tmp_path, "B1"), "it is given back by the one that took it"
    assert another(tmp_path, "B1") == "it was let in"


def test_a_run_that_breaks_gives_it_back(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), brain_lease(tmp_path, "B1"):
        raise KeyboardInterrupt
    assert another(tmp_path, "B1") == "it was let in"


def test_the_name_is_that_of_the_store_wherever_it_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert lease_name(tmp_path / "a", "B1") == lease_name(tmp_path / "b", "B1")
    assert lease_name(tmp_path / "a", "B1") != lease_name(tmp_path / "c", "B1")


def test_without_a_server_in_common_nobody_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "determine_server_type", lambda: ServerType.EPHEMERAL)
    with (
        pytest.raises(StoreError, match=r"is shared by several hosts .* set PREFECT_API_URL"),
        brain_lease(tmp_path, "B1"),
    ):
        pass
    monkeypatch.delenv(SHARED)
    with brain_lease(tmp_path, "B1"):
        assert not list(tmp_path.iterdir()), "a store of one host has no lease"
