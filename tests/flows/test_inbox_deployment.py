"""A brain that arrives is started once, by a deployment on a Prefect server, however often the inbox is looked into."""

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelled, Completed, Crashed, Failed, Late, Pending, Running, Scheduled
from prefect.types._datetime import now

from flows import watch_inbox as module
from flows.map_brain import map_brain
from flows.parameters import MapSettings
from flows.stages import Summary
from flows.watch_inbox import InboxSettings, watch_inbox
from tasks.inbox import Arrival, Earlier, Ticket, arrivals, earlier_runs, tagged, ticket

pytestmark = pytest.mark.xdist_group("more flows")

NAME = "B1/manifest.csv: B1"


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """An inbox in which a brain of one section arrived an hour ago; nobody opens its scan."""
    folder = tmp_path / "inbox" / "B1"
    folder.mkdir(parents=True)
    (folder / "manifest.csv").write_text("brain_id,section_id,section_number,path\nB1,s1,1,s1.tif\n")
    (folder / "s1.tif").write_bytes(b"pixels")
    (folder / "s2.tif").write_bytes(b"others")
    for path in folder.iterdir():
        aged(path)
    return tmp_path / "inbox"


def aged(path: Path) -> None:
    stat = path.stat()
    os.utime(path, (stat.st_atime - 3600, stat.st_mtime - 3600))


@pytest.fixture
def deployment(client: SyncPrefectClient) -> Iterator[UUID]:
    """The deployment that the inbox starts unless told otherwise; no worker takes its runs."""
    deployed = map_brain.to_deployment(name="map-brain").apply()
    assert isinstance(deployed, UUID)
    yield deployed
    client.delete_deployment(deployed)


def look(inbox: Path) -> Summary:
    settings = InboxSettings(inbox_path=inbox, store_path=inbox.parent / "store")
    summary = watch_inbox(inbox=settings)
    assert isinstance(summary, Summary)
    return summary


def runs(client: SyncPrefectClient, deployment: UUID) -> list[FlowRun]:
    found = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
    )
    return list(found)


def test_two_looks_start_one_run(inbox: Path, client: SyncPrefectClient, deployment: UUID) -> None:
    first, second = look(inbox), look(inbox)
    (run,) = runs(client, deployment)
    assert (first.made, first.notes) == (1, {NAME: f"started: {run.name}"})
    assert (second.made, second.notes) == (0, {NAME: f"running: {run.name}"})
    assert run.name == "map-B1"
    assert run.state_type is StateType.SCHEDULED, "it is left to a worker"
    source = run.parameters["source"]
    assert (source["manifest_path"], source["brain_id"]) == (str(inbox / "B1" / "manifest.csv"), "B1")
    assert source["store_path"] == str(inbox.parent / "store")
    assert "brain:B1" in run.tags


def test_two_looks_at_once_start_one_run(
    inbox: Path, client: SyncPrefectClient, deployment: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither sees the run that the other is about to start."""
    monkeypatch.setattr(module, "earlier_runs", lambda _one: Earlier(0, 0, 0, ""))
    look(inbox)
    look(inbox)
    assert len(runs(client, deployment)) == 1


def end(client: SyncPrefectClient, run: FlowRun, state: State) -> None:  # type: ignore[type-arg]
    client.set_flow_run_state(run.id, state, force=True)


def test_what_failed_is_started_again_until_it_has_failed_three_times(
    inbox: Path, client: SyncPrefectClient, deployment: UUID
) -> None:
    for number in range(1, 4):
        assert look(inbox).made == 1
        found = runs(client, deployment)
        assert len(found) == number, "each attempt is a run of its own"
        for run in found:
            end(client, run, Failed())
    last = look(inbox)
    assert (last.made, len(runs(client, deployment))) == (0, 3)
    assert last.notes[NAME] == "failed: 3 times, not started again: map-B1"


@pytest.mark.parametrize("state", [Completed(), Cancelled()])
def test_what_is_done_or_was_stopped_by_a_person_is_not_started_again(
    state: State,
    inbox: Path,
    client: SyncPrefectClient,
    deployment: UUID,  # type: ignore[type-arg]
) -> None:
    look(inbox)
    (run,) = runs(client, deployment)
    end(client, run, state)
    assert look(inbox).notes == {NAME: "done: map-B1"}
    assert len(runs(client, deployment)) == 1


def test_a_changed_manifest_and_a_second_brain_are_runs_of_their_own(
    inbox: Path, client: SyncPrefectClient, deployment: UUID
) -> None:
    look(inbox)
    manifest = inbox / "B1" / "manifest.csv"
    manifest.write_text(manifest.read_text() + "B1,s2,2,s2.tif\nB2,s1,1,s1.tif\n")
    aged(manifest)
    again = look(inbox)
    assert again.made == 2
    assert sorted(run.parameters["source"]["brain_id"] for run in runs(client, deployment)) == ["B1", "B1", "B2"]
    assert look(inbox).made == 0


PROBE = MapSettings(head="probe")


def arrival(inbox: Path) -> Arrival:
    (one,) = arrivals(inbox, 60, 3600)
    return one


def test_tickets_tell_manifests_brains_contents_and_settings(inbox: Path) -> None:
    one = arrival(inbox)
    same = ticket(one, {"settings": PROBE})
    others = [
        ticket(one, {"settings": MapSettings(head="decoder")}),
        ticket(one, {}),
        ticket(one._replace(brain_id="B2"), {"settings": PROBE}),
        ticket(one._replace(brain_digest="0"), {"settings": PROBE}),
        ticket(one._replace(missing=("s1.tif",)), {"settings": PROBE}),
        ticket(one._replace(manifest_path=inbox / "manifest.csv"), {"settings": PROBE}),
    ]
    assert len({each.digest for each in (same, *others)}) == 7
    assert ticket(one._replace(name="other", wait="soon"), {"settings": PROBE}) == same
    relative = one._replace(manifest_path=Path(os.path.relpath(one.manifest_path)))
    assert ticket(relative, {"settings": PROBE}) == same
    assert same.tags == ("brain:B1", f"inbox:{same.digest}")


@flow(name="map-brain")
def mapping() -> None:
    """Stands for the flow that the inbox asks about."""


@flow(name="other-flow")
def other() -> None:
    """Carries the tag as well, as subflows do."""


def test_runs_are_counted_by_what_became_of_them(client: SyncPrefectClient, inbox: Path) -> None:
    one = Ticket("c0ffee", ("brain:B1", "inbox:c0ffee"))
    assert earlier_runs(one) == Earlier(0, 0, 0, "")
    states = {
        "live": (Scheduled(), Late(), Pending(), Running()),
        "done": (Completed(), Cancelled()),
        "failed": (Failed(), Crashed()),
    }
    for kinds in states.values():
        for state in kinds:
            client.create_flow_run(mapping, tags=one.tags, state=state)
    client.create_flow_run(
        mapping, name="latest", tags=one.tags, state=Scheduled(scheduled_time=now() + timedelta(hours=1))
    )
    client.create_flow_run(other, tags=one.tags, state=Running())
    client.create_flow_run(mapping, tags=["brain:B1", "inbox:other"], state=Running())
    assert earlier_runs(one) == Earlier(5, 2, 2, "latest")


def test_runs_started_here_carry_the_ticket(client: SyncPrefectClient) -> None:
    one = Ticket("decaf", ("brain:B1", "inbox:decaf"))
    with tagged(one):
        mapping()
    mapping()
    assert earlier_runs(one)._replace(latest="") == Earlier(0, 1, 0, "")
