"""Creates what the deployments need on a Prefect server, and deploys them. Safe to run again.

The work pools `cytoarch`, `orchestration` and `gpu` (process workers), the global concurrency limit `gpu` (one model on
the GPU at a time), an automation that marks runs whose process died without a word as crashed, two by which the events
`brain.arrived` and `brain.annotated` start runs, and everything in prefect.yaml. What a person has set on the server
stays: a schedule that is there keeps its times and stays on or off, an automation that was switched off stays off, and
a deployment keeps the parameters it was given. Which parameters were deployed is kept in a variable of the server, so
that those that nobody touched follow prefect.yaml.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, VariableCreate, VariableUpdate, WorkPoolCreate
from prefect.events import AutomationCore
from prefect.events.actions import ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL
from prefect.states import StateType

from cytoarch.digests import values_digest

ROOT = Path(__file__).resolve().parent.parent
PREFECT_FILE = "deployments/prefect.yaml"
POOLS: dict[str, int | None] = {"cytoarch": None, "orchestration": None, "gpu": 1}
"""Work pools -> how many runs at once: cytoarch maps; orchestration looks and starts; gpu is one GPU."""
LIMITS = {"gpu": 1}
ZOMBIES = "cytoarch: runs without a sign of life are crashed"
EVENTS = ("brain.arrived", "brain.annotated")
TAKES_EVENTS = "take-arrival/take-arrival"
DEPLOYED = "cytoarch_deployed_parameters"
"""Variable of the server: digests of parameters by deployment."""
_BRAIN_OR_NULL = {
    "__prefect_kind": "jinja",
    "template": '{% if event.payload.brain_id %}"{{ event.payload.brain_id }}"{% else %}null{% endif %}',
}
SILENCE = timedelta(seconds=360)
"""Four heartbeats of our runs: a run bears a server that is away for four minutes, and then has 90 s to say so."""


def main() -> int:
    """Bring the server that PREFECT_API_URL names into shape; returns the exit code."""
    if not PREFECT_API_URL.value():
        print("PREFECT_API_URL is not set; start `make serve`, or name the server to deploy to", file=sys.stderr)
        return 2
    with get_client(sync_client=True) as client:
        create_pools(client)
        create_limits(client)
        create_zombie_automation(client)
        code = deploy(client)
        if not code:
            create_event_automations(client)
        return code


def create_pools(client: SyncPrefectClient) -> None:
    """Create the work pools, unless they are there; a limit that a person has set stays."""
    for name, limit in POOLS.items():
        try:
            client.create_work_pool(WorkPoolCreate(name=name, type="process", concurrency_limit=limit))
            print(f"work pool {name} created")
        except ObjectAlreadyExists:
            print(f"work pool {name} is there")


def create_limits(client: SyncPrefectClient) -> None:
    """Create the global concurrency limits, or set them to their value."""
    for name, limit in LIMITS.items():
        client.upsert_global_concurrency_limit_by_name(name, limit)
        print(f"concurrency limit {name} = {limit}")


def create_zombie_automation(client: SyncPrefectClient) -> None:
    """Create the automation that ends runs whose heartbeats stop, or bring it up to date."""
    wanted = zombie_automation()
    found = client.read_automations_by_name(ZOMBIES)
    if len(found) == 1 and found[0].trigger == wanted.trigger and found[0].actions == wanted.actions:
        print("automation for lost runs is there")
        return
    for one in found:
        client.delete_automation(one.id)
    client.create_automation(wanted.model_copy(update={"enabled": all(one.enabled for one in found)}))
    print(f"automation for lost runs {'renewed' if found else 'created'}")


def create_event_automations(client: SyncPrefectClient) -> None:
    """Create the automations by which events start runs, or renew them: their deployment may be another one now."""
    deployment = client.read_deployment_by_name(TAKES_EVENTS)
    for event in EVENTS:
        wanted = event_automation(event, deployment.id)
        found = client.read_automations_by_name(wanted.name)
        wanted = wanted.model_copy(update={"enabled": all(one.enabled for one in found)})  # a person's off stays
        for one in found:
            client.delete_automation(one.id)
        client.create_automation(wanted)
        print(f"automation for {event} {'renewed' if found else 'created'}")


def event_automation(event: str, deployment_id: UUID) -> AutomationCore:
    """Starts take-arrival with what the event's payload says: manifest_path, and brain_id where it names one."""
    trigger = EventTrigger(expect={event}, posture=Posture.Reactive, threshold=1, within=timedelta(0))
    parameters = {
        "manifest_path": {"__prefect_kind": "jinja", "template": "{{ event.payload.manifest_path }}"},
        "brain_id": {"__prefect_kind": "json", "value": _BRAIN_OR_NULL},
        "what": event.partition(".")[2],
    }
    action = RunDeployment(deployment_id=deployment_id, parameters=parameters)
    return AutomationCore(name=f"cytoarch: {event} starts a run", trigger=trigger, actions=[action])


def zombie_automation() -> AutomationCore:
    """Crashes a run of which nothing is heard any more after a heartbeat.

    Whatever a run says is a sign of life, its end above all: final states have names of their own here, such as
    "2 sections failed".
    """
    trigger = EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.*"},
        match={"prefect.resource.id": ["prefect.flow-run.*"]},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=SILENCE,
    )
    action = ChangeFlowRunState(state=StateType.CRASHED, message="No sign of life for six minutes.")
    return AutomationCore(name=ZOMBIES, trigger=trigger, actions=[action])


def deploy(client: SyncPrefectClient) -> int:
    """Deploy everything in prefect.yaml from the root of the checkout."""
    stated = yaml.safe_load((ROOT / PREFECT_FILE).read_text())
    kept: dict[str, dict[str, Any]] = {}
    deployed = deployed_parameters(client)
    for deployment in stated["deployments"]:
        keep_schedules(client, deployment)
        kept |= given_parameters(client, deployment, deployed)
    environment = {**os.environ, "CYTOARCH_ROOT": os.environ.get("CYTOARCH_ROOT", str(ROOT))}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(stated, file, sort_keys=False)
        file.flush()
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", file.name]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        return done.returncode
    print(f"deployed everything in {PREFECT_FILE}")
    remember_parameters(client, map(_full_name, stated["deployments"]))
    for name, parameters in kept.items():
        give_parameters(client, name, parameters)
    return 0


def deployed_parameters(client: SyncPrefectClient) -> dict[str, str]:
    """The digests of the parameters that were deployed last, by the name of the deployment."""
    found = client.read_variable_by_name(DEPLOYED)
    return dict(found.value) if found is not None and isinstance(found.value, dict) else {}


def remember_parameters(client: SyncPrefectClient, names: Iterable[str]) -> None:
    """Keep the digests of the parameters that deployments have now, straight after they were deployed."""
    digests = {name: parameters_digest(client.read_deployment_by_name(name).parameters) for name in names}
    if client.read_variable_by_name(DEPLOYED) is None:
        client.create_variable(VariableCreate(name=DEPLOYED, value=digests))
    else:
        client.update_variable(VariableUpdate(name=DEPLOYED, value=digests))


def parameters_digest(parameters: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits, the same for the same parameters."""
    return values_digest(parameters)[:16]


def given_parameters(
    client: SyncPrefectClient, deployment: Mapping[str, Any], deployed: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """The parameters of a deployment on the server, by its name, where a person gave it others than were deployed.

    Where it is not known what was `deployed` (by an earlier version), whatever differs from prefect.yaml was given.
    """
    name = _full_name(deployment)
    try:
        there = client.read_deployment_by_name(name).parameters
    except ObjectNotFound:
        return {}
    if name in deployed:
        return {name: there} if parameters_digest(there) != deployed[name] else {}
    return {name: there} if there and there != deployment.get("parameters", {}) else {}


def give_parameters(client: SyncPrefectClient, name: str, parameters: dict[str, Any]) -> None:
    """Give a deployment its parameters back; those that a new version does not know are named, and left."""
    try:
        deployment = client.read_deployment_by_name(name)
        client.update_deployment(deployment.id, DeploymentUpdate(parameters=parameters))
    except PrefectHTTPStatusError as error:
        print(f"parameters of {name} do not fit any more and are left out: {parameters} ({error})", file=sys.stderr)
        return
    print(f"parameters of {name} stay as they are on the server: {', '.join(parameters) or 'none'}")


def keep_schedules(client: SyncPrefectClient, deployment: dict[str, Any]) -> None:
    """Leave out the schedules that the server has already: deploying them again would switch them off."""
    name = _full_name(deployment)
    try:
        there = {one.slug: one for one in client.read_deployment_by_name(name).schedules}
    except ObjectNotFound:
        return
    for schedule in deployment.get("schedules", []):
        kept = there.get(schedule["slug"])
        if kept is not None:
            print(f"schedule {kept.slug} of {name} stays as it is on the server ({'on' if kept.active else 'off'})")
    left = [one for one in deployment.pop("schedules", []) if one["slug"] not in there]
    if left:
        deployment["schedules"] = left


def _full_name(deployment: Mapping[str, Any]) -> str:
    """As Prefect calls it: `watch-inbox/inbox`."""
    flow_name = Path(deployment["entrypoint"]).name.partition(".")[0].replace("_", "-")
    return f"{flow_name}/{deployment['name']}"


if __name__ == "__main__":
    sys.exit(main())
