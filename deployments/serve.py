"""Brings up the Prefect server, MLflow, the reports and a worker on this machine's loopback; Ctrl-C stops them all."""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # started as a script from the checkout

from flows.serving import SERVING_PATH, answers, direct_loopback, unusable_proxies
from tasks.reports import REPORTS_STORE, REPORTS_URL, reports_address

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
START_LIMIT_S, LOOK_EVERY_S, SAY_EVERY_S = 600, 0.5, 10


CLIENT_NAMES = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", REPORTS_URL, REPORTS_STORE)
WORKERS = (("worker", "cytoarch", "2"), ("light-worker", "orchestration", "10"))
"""Name, work pool and how many runs at once: looks into the inbox do not wait for maps."""
ENDS_WITHIN_S = 20
MOST_STARTS, STARTS_WITHIN_S = 5, 600
"""A server that ends by itself is started again; one that does so more often than this has a fault to be mended."""
OUTAGE_RETRIES = "7"
"""Prefect's client waits 2, 4, 8, ... s between tries: runs bear a server that is away for four minutes, not one."""


class Servers:
    """The processes that were started, each the leader of a session of its own so that its children end with it."""

    def __init__(self, log_path: Path) -> None:
        self._log_path = log_path
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._commands: dict[str, tuple[list[str], dict[str, str]]] = {}
        self._started_s: dict[str, list[float]] = {}
        self.stopping = threading.Event()

    def start(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        """Start a process whose output goes to a file of its name."""
        self._log_path.mkdir(parents=True, exist_ok=True)
        with (self._log_path / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._running.append((name, process))
        self._commands[name] = (command, environment)
        self._started_s.setdefault(name, []).append(time.monotonic())

    def process(self, name: str) -> "subprocess.Popen[bytes]":
        """The process of this name that was started last."""
        return next(process for one, process in reversed(self._running) if one == name)

    def wait_until(self, ready: Callable[[], bool], what: str) -> None:
        """Wait until `ready`. Raises SystemExit if that takes too long, or a process ended meanwhile."""
        for look in range(int(START_LIMIT_S / LOOK_EVERY_S)):
            if ready():
                return
            self.check_alive()
            waited_s = look * LOOK_EVERY_S
            if waited_s and waited_s % SAY_EVERY_S == 0:
                print(f"waiting for {what} ({waited_s:.0f} s); its first start takes longest", flush=True)
            if self.stopping.wait(LOOK_EVERY_S):
                raise SystemExit(130)
        raise SystemExit(f"{what} did not come up within {START_LIMIT_S} s; see {self._log_path}")

    def check_alive(self) -> None:
        """Raise SystemExit if a process has ended by itself."""
        for name, process in self._running:
            if process.poll() is not None:
                raise SystemExit(f"{name} ended with exit code {process.returncode}; see {self._log_path / name}.log")

    def restart_ended(self) -> None:
        """Start again what has ended by itself. Raises SystemExit if it does so again and again."""
        for name, process in list(self._running):
            if process.poll() is None:
                continue
            lately = [one for one in self._started_s[name] if time.monotonic() - one < STARTS_WITHIN_S]
            log = f"see {self._log_path / name}.log"
            if len(lately) >= MOST_STARTS:
                raise SystemExit(
                    f"{name} ended with exit code {process.returncode} and was started {len(lately)} times within "
                    f"{STARTS_WITHIN_S // 60} minutes; {log}"
                )
            print(f"{name} ended with exit code {process.returncode} and is started again; {log}", flush=True)
            _signal_session(process, signal.SIGKILL)  # whatever it left
            self._running.remove((name, process))
            self.start(name, *self._commands[name])

    def stop(self, names: Collection[str] = ()) -> None:
        """Stop what has these names, or everything, the last started first, by asking and then by force."""
        chosen = [one for one in reversed(self._running) if not names or one[0] in names]
        for _, process in chosen:
            _signal_session(process, signal.SIGTERM)
        for _, process in chosen:
            _wait_for_session(process, ENDS_WITHIN_S)
            _signal_session(process, signal.SIGKILL)
            process.wait()
        self._running = [one for one in self._running if one not in chosen]


def _wait_for_session(process: "subprocess.Popen[bytes]", most_s: float) -> None:
    """Wait until a process and its children are gone: a run of a worker tells MLflow how it ended."""
    deadline_s = time.monotonic() + most_s
    while time.monotonic() < deadline_s:
        process.poll()  # one that has ended is there until it is asked for
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)


def _signal_session(process: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def main() -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("work/store"), help="store whose MLflow database is served")
    parser.add_argument("--prefect-port", type=int, default=4200)
    parser.add_argument("--mlflow-port", type=int, default=5000)
    parser.add_argument("--reports-port", type=int, default=8230)
    options = parser.parse_args()
    prefect_url = f"http://{HOST}:{options.prefect_port}"
    mlflow_url = f"http://{HOST}:{options.mlflow_port}"
    reports_url = f"http://{HOST}:{options.reports_port}"
    looked_at = (f"{prefect_url}/api/health", f"{mlflow_url}/health", f"{reports_url}/health")
    taken = [url for url in looked_at if answers(url)]
    if taken:
        print(f"something already answers at {', '.join(taken)}; stop it or choose other ports", file=sys.stderr)
        return 2
    unusable = unusable_proxies(os.environ)
    if unusable:
        print(f"left aside, as Prefect cannot use proxies of their kind: {', '.join(unusable)}", file=sys.stderr)
    environment = surroundings(ROOT / options.store, prefect_url, mlflow_url, reports_url, os.environ)
    servers = Servers(ROOT / "work" / "logs")

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        servers.stopping.set()

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        _start(servers, options, environment, prefect_url, mlflow_url)
        clients = {name: environment[name] for name in CLIENT_NAMES}
        SERVING_PATH.write_text(json.dumps(clients))
        _say_where(options, environment, clients)
        while not servers.stopping.wait(2):
            servers.restart_ended()
    finally:
        print("stopping: runs that are at work are ended, and go on where they stopped when they are run again")
        SERVING_PATH.unlink(missing_ok=True)
        servers.stop([name for name, _, _ in WORKERS])
        if answers(f"{prefect_url}/api/health"):
            _settle(environment)
        servers.stop()
    return 0


def surroundings(
    store_path: Path, prefect_url: str, mlflow_url: str, reports_url: str, given: Mapping[str, str]
) -> dict[str, str]:
    """The environment that servers, workers and runs of a store are started in."""
    unusable = unusable_proxies(given)
    return {
        **{name: value for name, value in given.items() if name not in unusable},
        **direct_loopback(given),
        "DO_NOT_TRACK": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PREFECT_API_URL": f"{prefect_url}/api",
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": prefect_url.rpartition(":")[2],
        "PREFECT_CLIENT_MAX_RETRIES": given.get("PREFECT_CLIENT_MAX_RETRIES", OUTAGE_RETRIES),
        "MLFLOW_TRACKING_URI": mlflow_url,
        REPORTS_URL: reports_url,
        REPORTS_STORE: str(store_path.resolve()),
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "CYTOARCH_ROOT": str(ROOT),
        **prefect_database(store_path, given),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{given['PATH']}",
    }


def _settle(environment: Mapping[str, str]) -> None:
    """Call runs crashed whose process is gone; without it they would read Running for minutes."""
    with suppress(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "deployments/settling.py"], cwd=ROOT, env=environment, check=False, timeout=60)


def _say_where(options: argparse.Namespace, environment: Mapping[str, str], clients: Mapping[str, str]) -> None:
    """Print what there is to open, and where everything lies."""
    from tasks.tracking import VIEW

    store = ROOT / options.store
    database = environment.get("PREFECT_SERVER_DATABASE_CONNECTION_URL", "where PREFECT_HOME says")
    rows = {
        "Prefect": environment["PREFECT_API_URL"].removesuffix("/api"),
        "MLflow": f"{environment['MLFLOW_TRACKING_URI']}/#/experiments?{VIEW}",
        "reports": f"{reports_address(environment[REPORTS_URL], store)}/",
        "store": str(store),
        "histories": f"{database.partition(':///')[2] or database} (Prefect), {store / 'mlflow'} (MLflow)",
        "logs": str(ROOT / "work" / "logs"),
    }
    print("\n" + "\n".join(f"{name:<10}{text}" for name, text in rows.items()))
    print("\nRuns started with `python -m flows` in this checkout show up there. For others:")
    print("  export " + " ".join(f"{name}={url}" for name, url in clients.items()))
    print("\nCtrl-C stops it all.", flush=True)


def prefect_database(store_path: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Where Prefect's server keeps its history: with the store, unless the environment says where."""
    if "PREFECT_SERVER_DATABASE_CONNECTION_URL" in environment or "PREFECT_API_DATABASE_CONNECTION_URL" in environment:
        return {}
    folder = store_path.resolve() / "prefect"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "prefect.db"
    before = Path(environment.get("PREFECT_HOME", Path.home() / ".prefect")) / "prefect.db"
    if before.exists() and not path.exists():
        print(
            f"Prefect's history lies in {path} from now on; an earlier one in {before} is left: copy it there to go on"
        )
    url = f"sqlite+aiosqlite:///{path.as_uri()}?uri=true" if "?" in str(path) else f"sqlite+aiosqlite:///{path}"
    # several runs that write at once wait for each other for longer than Prefect's 10 s
    return {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url, "PREFECT_SERVER_DATABASE_TIMEOUT": "60"}


def _start(
    servers: Servers,
    options: argparse.Namespace,
    environment: dict[str, str],
    prefect_url: str,
    mlflow_url: str,
) -> None:
    python = sys.executable
    print("starting the Prefect server and MLflow")
    # the server itself must not take the API's address for that of another server
    own = {name: value for name, value in environment.items() if name != "PREFECT_API_URL"}
    servers.start("prefect-server", [python, "-m", "prefect", "server", "start", "--host", HOST], own)
    servers.start("mlflow", mlflow_command(ROOT / options.store, options.mlflow_port), environment)
    reports = [python, "deployments/reports.py", "--store", str(ROOT / options.store)]
    servers.start("reports", [*reports, "--port", str(options.reports_port)], environment)
    servers.wait_until(lambda: answers(f"{prefect_url}/api/health"), "the Prefect server")
    _settle(environment)
    if subprocess.run([python, "deployments/bootstrap.py"], cwd=ROOT, env=environment, check=False).returncode:
        raise SystemExit("setting up the Prefect server failed; see above")
    for name, pool, limit in WORKERS:
        command = [python, "-m", "prefect", "worker", "start", "--type", "process", "--pool", pool, "--limit", limit]
        servers.start(name, command, environment)
    servers.wait_until(lambda: answers(f"{mlflow_url}/health"), "MLflow")


def mlflow_command(store_path: Path, port: int) -> list[str]:
    """What serves the tracking database of a store, whose addresses are made to name no folder before."""
    from cytoarch.store.brain_store import BrainStore
    from tasks.tracking import artifacts_path, database_path, database_uri, make_relative

    store = BrainStore(store_path)
    database = database_path(store)
    database.parent.mkdir(parents=True, exist_ok=True)
    if database.exists():
        make_relative(database)
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database_uri(database)]
    # a URI: MLflow decodes it, a plain path with a percent sign too
    return [*command, "--artifacts-destination", artifacts_path(store).as_uri()]


if __name__ == "__main__":
    sys.exit(main())
