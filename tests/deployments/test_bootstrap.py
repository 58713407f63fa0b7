"""What bootstrap.py leaves on a server, and what it leaves as a person has set it."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.schedules import CronSchedule

from flows import HEARTBEAT_S
from tests.deployments.scripts import imported

ROOT = Path(__file__).resolve().parent.parent.parent
HEARTBEAT = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
INBOX = "watch-inbox/inbox"
pytestmark = pytest.mark.xdist_group("more flows")


@pytest.fixture(scope="module")
def bootstrap() -> ModuleType:
    return imported("bootstrap")


def of_the_inbox() -> dict[str, Any]:
    stated = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text())
    (found,) = (one for one in stated["deployments"] if one["name"] == "inbox")
    return dict(found)


def test_a_schedule_that_a_person_switched_on_is_not_deployed_again(
    bootstrap: ModuleType, client: SyncPrefectClient
) -> None:
    """Nor is one they gave other times; one that is new is."""
    fresh = of_the_inbox()
    assert fresh["schedules"][0]["active"] is False
    bootstrap.keep_schedules(client, fresh)
    assert fresh == of_the_inbox(), "nothing is on the server yet"
    flow_id = client.create_flow_from_name("watch-inbox")
    hourly = DeploymentScheduleCreate(
        schedule=CronSchedule(cron="0 * * * *"), active=True, slug=fresh["schedules"][0]["slug"]
    )
    deployment_id = client.create_deployment(flow_id, "inbox", schedules=[hourly])
    try:
        bootstrap.keep_schedules(client, fresh)
        assert "schedules" not in fresh
        other = of_the_inbox()
        other["schedules"][0] = {**other["schedules"][0], "slug": "nightly"}
        bootstrap.keep_schedules(client, other)
        assert [one["slug"] for one in other["schedules"]] == ["nightly"]
    finally:
        client.delete_deployment(deployment_id)


def test_parameters_that_a_person_gave_a_deployment_are_given_back(
    bootstrap: ModuleType, client: SyncPrefectClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """Deploying puts those of prefect.yaml there; those that a new version does not take are named."""
    given = {"settings": {"model": "auto:layers"}}
    assert bootstrap.given_parameters(client, of_the_inbox(), {}) == {}, "nothing is on the server yet"
    flow_id = client.create_flow_from_name("watch-inbox")
    deployment_id = client.create_deployment(flow_id, "inbox", parameters=given)
    try:
        assert bootstrap.given_parameters(client, of_the_inbox(), {}) == {INBOX: given}
        assert bootstrap.given_parameters(client, {**of_the_inbox(), "parameters": given}, {}) == {}
        schema = {"type": "object", "properties": {"settings": {"type": "object"}}}
        client.create_deployment(flow_id, "inbox", parameter_openapi_schema=schema, enforce_parameter_schema=True)
        bootstrap.give_parameters(client, INBOX, given)
        assert client.read_deployment(deployment_id).parameters == given
        bootstrap.give_parameters(client, INBOX, {"settings": "by hand"})
        assert client.read_deployment(deployment_id).parameters == given
        said = capsys.readouterr()
        assert said.out == f"parameters of {INBOX} stay as they are on the server: settings\n"
        assert f"parameters of {INBOX} do not fit any more and are left out: " in said.err
    finally:
        client.delete_deployment(deployment_id)


def test_parameters_that_nobody_touched_follow_prefect_yaml_and_emptied_ones_stay_empty(
    bootstrap: ModuleType, client: SyncPrefectClient
) -> None:
    flow_id = client.create_flow_from_name("watch-inbox")
    newer = {**of_the_inbox(), "parameters": {"settings": {"model": "newer"}}}
    deployment_id = client.create_deployment(flow_id, "inbox", parameters={"settings": {"model": "older"}})
    try:
        for _ in range(2):  # made, then brought up to date
            bootstrap.remember_parameters(client, [INBOX])
        deployed = bootstrap.deployed_parameters(client)
        assert bootstrap.given_parameters(client, newer, deployed) == {}
        client.update_deployment(deployment_id, DeploymentUpdate(parameters={}))
        assert bootstrap.given_parameters(client, newer, deployed) == {INBOX: {}}
    finally:
        client.delete_deployment(deployment_id)
        client.delete_variable_by_name(bootstrap.DEPLOYED)


def test_the_automation_for_lost_runs_is_renewed_where_it_differs_and_stays_off(
    bootstrap: ModuleType, client: SyncPrefectClient, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = bootstrap.zombie_automation()
    older = wanted.trigger.model_copy(update={"within": timedelta(seconds=90)})
    client.create_automation(wanted.model_copy(update={"trigger": older, "enabled": False}))
    try:
        for said in ("renewed", "is there"):
            bootstrap.create_zombie_automation(client)
            assert capsys.readouterr().out == f"automation for lost runs {said}\n"
            (found,) = client.read_automations_by_name(bootstrap.ZOMBIES)
            assert (found.trigger.within, found.enabled) == (bootstrap.SILENCE, False)
    finally:
        for one in client.read_automations_by_name(bootstrap.ZOMBIES):
            client.delete_automation(one.id)


def test_a_run_is_given_up_when_it_missed_several_signs_of_life_and_an_outage_that_runs_bear_is_no_reason(
    bootstrap: ModuleType,
) -> None:
    stated = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text())["deployments"]
    (every_s,) = {int(one["work_pool"]["job_variables"]["env"][HEARTBEAT]) for one in stated}
    assert int(HEARTBEAT_S) == every_s, "runs from the terminal are watched, too"
    retries = int(imported("serve").OUTAGE_RETRIES)
    outage_s = sum(2**one for one in range(1, retries + 1))
    assert outage_s + every_s < bootstrap.SILENCE.total_seconds() == 4 * every_s


def test_flows_that_a_program_starts_say_as_often_that_they_live() -> None:
    asked = "import flows\nfrom prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY as f\nprint(f.value())"
    without = {name: value for name, value in os.environ.items() if name != HEARTBEAT}
    for env, said in ((without, HEARTBEAT_S), ({**without, HEARTBEAT: "60"}, "60")):
        done = subprocess.run(
            [sys.executable, "-c", asked], env=env, cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == said


def test_the_end_of_a_run_is_a_sign_of_life_whatever_its_state_is_called(bootstrap: ModuleType) -> None:
    """Prefect names the event after the state: `prefect.flow-run.2 sections failed`."""
    from prefect.server.events.schemas.automations import EventTrigger

    trigger = EventTrigger.model_validate(bootstrap.zombie_automation().trigger.model_dump(mode="json"))
    for name in ("Current", "2 sections failed", "1 started, 2 waiting", "Completed", "heartbeat"):
        assert trigger.expects(f"prefect.flow-run.{name}"), name
    assert trigger.starts_after("prefect.flow-run.heartbeat")
    assert not trigger.starts_after("prefect.flow-run.Current")
    assert not trigger.expects("prefect.task-run.Completed")


def test_an_event_starts_a_run_with_what_it_says(bootstrap: ModuleType) -> None:
    """The automation's parameters, filled in as the server fills them in."""
    from uuid import uuid4

    from prefect.utilities.schema_tools.hydration import HydrationContext, hydrate

    deployment_id = uuid4()
    for event, what in (("brain.arrived", "arrived"), ("brain.annotated", "annotated")):
        automation = bootstrap.event_automation(event, deployment_id)
        (action,) = automation.actions
        assert (action.deployment_id, automation.trigger.expect) == (deployment_id, {event})
        for payload, brain_id in (({"brain_id": "B07"}, "B07"), ({}, None)):
            told = {"event": {"payload": {"manifest_path": "/data/B07/manifest.csv", **payload}}}
            context = HydrationContext(jinja_context=told, render_jinja=True)
            filled = hydrate(action.parameters, context)
            assert filled == {"manifest_path": "/data/B07/manifest.csv", "brain_id": brain_id, "what": what}
