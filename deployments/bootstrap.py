"""Creates what the deployments need on a Prefect server, and deploys them. Safe to run again.

Work pool `cytoarch` (process workers), the global concurrency limit `gpu` (one model on the GPU at a time), an
automation that marks runs whose process died without a word as crashed, and everything in prefect.yaml.
"""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.events import AutomationCore
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_URL
from prefect.states import StateType

ROOT = Path(__file__).resolve().parent.parent
POOL = "cytoarch"
LIMITS = {"gpu": 1}
ZOMBIES = "cytoarch: runs without a sign of life are crashed"
SILENCE = timedelta(seconds=540)
"""Three heartbeats (Prefect's default is one every 180 s)."""


def main() -> int:
    """Bring the server that PREFECT_API_URL names into shape; returns the exit code."""
    if not PREFECT_API_URL.value():
        print("PREFECT_API_URL is not set; start `make serve`, or name the server to deploy to", file=sys.stderr)
        return 2
    with get_client(sync_client=True) as client:
        create_pool(client)
        create_limits(client)
        create_zombie_automation(client)
    return deploy()


def create_pool(client: SyncPrefectClient) -> None:
    """Create the work pool, unless it is there."""
    try:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        print(f"work pool {POOL} created")
    except ObjectAlreadyExists:
        print(f"work pool {POOL} is there")


def create_limits(client: SyncPrefectClient) -> None:
    """Create the global concurrency limits, or set them to their value."""
    for name, limit in LIMITS.items():
        client.upsert_global_concurrency_limit_by_name(name, limit)
        print(f"concurrency limit {name} = {limit}")


def create_zombie_automation(client: SyncPrefectClient) -> None:
    """Create the automation that ends runs whose heartbeats stop, unless it is there."""
    if client.read_automations_by_name(ZOMBIES):
        print("automation for lost runs is there")
        return
    trigger = EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={
            "prefect.flow-run.heartbeat",
            "prefect.flow-run.Completed",
            "prefect.flow-run.Failed",
            "prefect.flow-run.Cancelled",
            "prefect.flow-run.Crashed",
        },
        match={"prefect.resource.id": ["prefect.flow-run.*"]},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=SILENCE,
    )
    action = ChangeFlowRunState(state=StateType.CRASHED, message="No sign of life for nine minutes.")
    client.create_automation(AutomationCore(name=ZOMBIES, trigger=trigger, actions=[action]))
    print("automation for lost runs created")


def deploy() -> int:
    """Deploy everything in prefect.yaml from the root of the checkout."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    command += ["--prefect-file", "deployments/prefect.yaml"]
    environment = {**os.environ, "CYTOARCH_ROOT": os.environ.get("CYTOARCH_ROOT", str(ROOT))}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        return done.returncode
    print("deployed everything in deployments/prefect.yaml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
