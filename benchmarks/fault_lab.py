"""A lab to break: its own servers and worker on free ports, a store on a small disk, runs started as a page does."""

import importlib.util
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import httpx
import psutil

from cytoarch.digests import hash_file
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.records import read_record
from flows.serving import answers
from tests.endurance.mounts import mount_small_disk, private_mounts, remount, unmount

ROOT = Path(__file__).resolve().parent.parent
BRAIN = "P01"
RUN = "PREFECT__FLOW_RUN_ID"
DISK_BYTES = 4 << 30
SETTLED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
PATIENCE_S, LOOK_S, BUSY_S = 600.0, 0.5, 90.0


class State(NamedTuple):
    """What the server says of a run; blank where it does not answer."""

    kind: str
    name: str
    message: str


NOT_SAID = State("", "", "")


class Lab:
    """Servers, a worker and a store with one brain, which is mapped again for every fault."""

    def __init__(self, folder: Path, manifest: Path) -> None:
        self.folder, self.manifest = folder, manifest
        self.store = BrainStore(folder / "disk" / "store")
        self.serve = _script("serve")
        self.servers = self.serve.Servers(folder / "logs")
        prefect, mlflow, reports = (f"http://127.0.0.1:{free_port()}" for _ in range(3))
        self.environment: dict[str, str] = {}
        self.urls = {"prefect-server": f"{prefect}/api/health", "mlflow": f"{mlflow}/health"}
        self._at = (prefect, mlflow, reports)
        self._api = httpx.Client(base_url=f"{prefect}/api", trust_env=False, timeout=10)
        self.mlflow_url = mlflow

    # -- servers -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Mount the disk, start everything, deploy."""
        private_mounts()
        (self.folder / "disk").mkdir()
        mount_small_disk(self.folder / "disk", DISK_BYTES)
        self.store.root.mkdir()
        prefect, mlflow, reports = self._at
        self.environment = self.serve.surroundings(self.store.root, prefect, mlflow, reports, os.environ)
        for name in ("prefect-server", "mlflow"):
            self.start(name)
        for name in ("prefect-server", "mlflow"):
            self.wait_for(name)
        subprocess.run([sys.executable, "deployments/bootstrap.py"], cwd=ROOT, env=self.environment, check=True)
        self.start("worker")

    def start(self, name: str) -> None:
        """Start a server, the worker, or a second one (worker-2)."""
        python = [sys.executable, "-m", "prefect"]
        commands = {
            "prefect-server": [*python, "server", "start", "--host", "127.0.0.1"],
            "mlflow": self.serve.mlflow_command(self.store.root, int(self.mlflow_url.rpartition(":")[2])),
            "worker": [*python, "worker", "start", "--type", "process", "--pool", "cytoarch", "--limit", "2"],
        }
        own = dict(self.environment)
        if name == "prefect-server":
            own.pop("PREFECT_API_URL")
        self.servers.start(name, commands[name.removesuffix("-2")], own)

    def wait_for(self, name: str) -> None:
        """Wait until a server answers."""
        self.servers.wait_until(lambda: answers(self.urls[name]), name)

    def away(self, name: str) -> None:
        """Have a server end at once, with all that it started."""
        os.killpg(self.servers.process(name).pid, signal.SIGKILL)
        self.servers.stop([name])

    def back(self, name: str) -> None:
        """Start a server again that was away."""
        self.start(name)
        self.wait_for(name)

    def signal_all(self, name: str, number: int) -> None:
        """Send a signal to a server and all that it started."""
        os.killpg(self.servers.process(name).pid, number)

    def kill_worker_alone(self) -> None:
        """End the worker; its run goes on without it."""
        self.servers.process("worker").kill()
        self.servers.process("worker").wait()

    def kill_runs(self) -> None:
        """End the processes of runs, without a word."""
        for process in self.run_processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def run_processes(self) -> list[psutil.Process]:
        """The processes of this lab's runs, whoever is their parent now: their environment names the run."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                given = process.environ()
                if RUN in given and given.get("PREFECT_API_URL") == self.environment["PREFECT_API_URL"]:
                    found.append(process)
        return found

    def close(self) -> None:
        """Stop everything."""
        self.servers.stop()
        unmount(self.folder / "disk")

    def settle(self) -> None:
        """What `serve.py` does when it starts: call runs crashed whose process is gone."""
        subprocess.run([sys.executable, "deployments/settling.py"], cwd=ROOT, env=self.environment, check=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Both databases are held by somebody who writes."""
        paths = (self.store.root / "prefect" / "prefect.db", self.store.tracking_path / "mlflow.db")
        held = [sqlite3.connect(path, timeout=60, isolation_level=None) for path in paths]
        for one in held:
            one.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            for one in held:
                one.rollback()
                one.close()

    def fill_disk(self) -> None:
        """Leave no room on the disk of the store."""
        disk = self.folder / "disk"
        remount(disk, psutil.disk_usage(str(disk)).used + (256 << 10))

    def empty_disk(self) -> None:
        """Give the disk its room back."""
        remount(self.folder / "disk", DISK_BYTES)

    # -- runs --------------------------------------------------------------------------------------------------------

    def begin(self) -> str:
        """Start to map the brain, as the form does; returns the run's id."""
        source = {"manifest_path": str(self.manifest), "store_path": str(self.store.root)}
        deployment = self._api.get("/deployments/name/map-brain/map-brain").raise_for_status().json()
        asked = f"/deployments/{deployment['id']}/create_flow_run"
        made: list[httpx.Response] = []

        def taken() -> bool:  # as Prefect's clients do, a server that is too busy is asked again
            made.append(self._api.post(asked, json={"parameters": {"source": source}}, timeout=BUSY_S))
            return made[-1].status_code != httpx.codes.SERVICE_UNAVAILABLE

        wait_until(taken, "a server that takes a run")
        return str(made[-1].raise_for_status().json()["id"])

    def state(self, run_id: str) -> State:
        """What the server says of a run."""
        with suppress(httpx.HTTPError):
            state = self._api.get(f"/flow_runs/{run_id}").raise_for_status().json()["state"]
            return State(state["type"], state["name"], state["message"] or "")
        return NOT_SAID

    def cancel(self, run_id: str) -> None:
        """Ask for the end of a run, as the page does."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        self._api.post(f"/flow_runs/{run_id}/set_state", json={"state": state}).raise_for_status()

    def wait_end(self, run_id: str) -> State:
        """The state in which a run ends, as the server has it."""
        wait_until(lambda: self.state(run_id).kind in SETTLED, f"the end of run {run_id}")
        return self.state(run_id)

    def live_tasks(self, run_id: str) -> int:
        """How many tasks of a run the server takes for live."""
        live = {"flow_runs": {"id": {"any_": [run_id]}}, "task_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
        return int(self._api.post("/task_runs/count", json=live).raise_for_status().json())

    # -- the store ---------------------------------------------------------------------------------------------------

    def reached(self, step: str) -> bool:
        """Whether a run has committed something of a step."""
        return any((self.store.brain_path(BRAIN) / "records" / step).glob("*/*.json"))

    def records(self) -> Mapping[str, str]:
        """What is committed that is no view: address -> digest of its record."""
        found = {}
        for path in (self.store.brain_path(BRAIN) / "records").glob("*/*/*.json"):
            with suppress(OSError):
                if not read_record(path).view:
                    found[str(path.relative_to(self.store.root))] = hash_file(path).sha256
        return found

    def digest(self) -> str:
        """That of everything committed that is no view."""
        return self.store.catalogue(BRAIN).content_digest()

    def rows(self) -> list[Any]:
        """The brain's rows in MLflow."""
        from mlflow import MlflowClient

        client = MlflowClient(self.mlflow_url, self.mlflow_url)
        known = client.get_experiment_by_name("cytoarch: areas of brains")
        return list(client.search_runs([known.experiment_id], "tags.kind = 'brain'")) if known else []


def wait_until(ready: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> float:
    """Wait until something is so; returns how long it took. Raises TimeoutError."""
    start = time.monotonic()
    while not ready():
        if time.monotonic() - start > patience_s:
            raise TimeoutError(f"{what} did not come within {patience_s:g} s")
        time.sleep(LOOK_S)
    return time.monotonic() - start


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _script(name: str) -> ModuleType:
    """A script of deployments/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "deployments" / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"deployments/{name}.py is not there; run from the checkout")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
