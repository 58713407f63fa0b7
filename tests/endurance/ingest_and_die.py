"""Ingests brains in forked processes that may be killed, or kill themselves, at any moment.

`python -m tests.endurance.ingest_and_die` imports everything once, then reads requests as JSON lines: for `start` it
forks a process that does what is asked and answers with its id, for `wait` it answers with the exit code of one. The
forked processes have no pipe: they log into a file, and what became of them they write into another.
"""

import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

from cytoarch.brains import Brain
from cytoarch.errors import CytoarchError
from cytoarch.images.sections import IngestSettings
from cytoarch.steps.opened import open_brain
from cytoarch.steps.running import due, make, make_section
from cytoarch.steps.sections import LabelsStep, ManifestFile, SectionStep, containment
from cytoarch.steps.tissue import QualityPageStep, QualityStep, TissueStep
from cytoarch.store import scan_digests, staging
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.collection import write_collection
from cytoarch.store.verification import verify_brain
from tests.endurance.mounts import mount_small_disk, private_mounts, remount

DONE, BROKEN, SECTIONS_FAILED, FAULT = 0, 2, 3, 70


# -- what is killed ----------------------------------------------------------------------------------------------------


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Moments:
    """Counts moments of every kind, threads together, and dies at the one that was chosen."""

    def __init__(self, chosen: str) -> None:
        self.kind, _, number = chosen.partition(":")
        self.number = int(number or 0)
        self.counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def due(self, kind: str) -> bool:
        with self._lock:
            self.counts[kind] = self.counts.get(kind, 0) + 1
            return kind == self.kind and self.counts[kind] == self.number

    def before(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which is not called at the chosen moment."""

        def call(*arguments: Any, **options: Any) -> Any:
            if self.due(kind):
                die()
            return function(*arguments, **options)

        return call


def watch(chosen: str) -> Moments:
    """Die before something is renamed, removed, hashed or entered, or when it is half-written or half-removed."""
    moments = Moments(chosen)
    remove, write = shutil.rmtree, staging.Staging.write

    def half_removed(folder: Path, *arguments: Any, **options: Any) -> None:
        if moments.due("rmtree"):
            for file in [path for path in sorted(Path(folder).rglob("*")) if path.is_file()][::2]:
                file.unlink()
            die()
        remove(folder, *arguments, **options)

    def half_written(self: staging.Staging, key: str, parts: Any) -> None:
        if moments.due("write"):
            path = self.path / key
            path.parent.mkdir(parents=True, exist_ok=True)
            content = parts if isinstance(parts, bytes) else b"".join(parts)
            path.write_bytes(content[: len(content) // 2])
            die()
        write(self, key, parts)

    shutil.rmtree = half_removed  # type: ignore[assignment]
    staging.Staging.write = half_written  # type: ignore[method-assign]
    staging.Staging.enter = moments.before("enter", staging.Staging.enter)  # type: ignore[method-assign]
    for name in ("rename", "replace", "unlink"):
        setattr(Path, name, moments.before(name, getattr(Path, name)))
    for name in ("checksum_file", "hash_and_checksum"):  # as folders are adopted, and as products are read back
        setattr(staging, name, moments.before("hash", getattr(staging, name)))
    scan_digests.hash_file = moments.before("scan", scan_digests.hash_file)  # type: ignore[attr-defined]
    return moments


# -- what is done ------------------------------------------------------------------------------------------------------


def ingest(request: dict[str, Any]) -> dict[str, Any]:
    """What the flow does, without Prefect; returns what became of it."""
    stated = Brain.model_validate_json(Path(request["brain"]).read_text())
    scans, rehash = Path(request["scans"]), request.get("rehash", False)
    settings = IngestSettings(threads=request.get("threads", 2))
    steps = (
        SectionStep(ManifestFile(scans, "path", rehash), ingest=settings),
        LabelsStep(ManifestFile(scans, "labels", rehash), ingest=settings),
        TissueStep(),
        QualityStep(),
    )
    with open_brain(Path(request["store"]), stated) as brain:
        asked_at = time.monotonic()
        wanted = due(steps, brain, brain.sections)
        asking_s = time.monotonic() - asked_at
        with ThreadPoolExecutor(request.get("workers", 1)) as pool:
            running = [pool.submit(copy_context().run, make_section, steps, brain, section) for section in wanted]
            outcomes = [each.result() for each in running]
        brain.failed |= {one.section_id: one.reason for one in outcomes if one.status == "failed"}
        write_collection(brain.catalogue, brain.brain)
        make(QualityPageStep(), brain)
    return {"due": [one.section_id for one in wanted], "failed": brain.failed, "asking_s": asking_s}


def attempt(request: dict[str, Any], work: Callable[[dict[str, Any]], dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    """The exit code and a report of some work, whether or not it came to its end."""
    began_at = time.monotonic()
    try:
        report = work(request)
        code = SECTIONS_FAILED if report.get("failed") else DONE
    except CytoarchError as error:
        code, report = BROKEN, {"error": type(error).__name__, "text": str(error)}
    except BaseException:  # noqa: BLE001 - it is what the test is told
        code, report = FAULT, {"error": "fault", "text": traceback.format_exc()}
    return code, {**report, "code": code, "took_s": time.monotonic() - began_at}


def state_of(request: dict[str, Any]) -> dict[str, Any]:
    """What is committed, and what is wrong with it."""
    store = BrainStore(Path(request["store"]))
    brain_id = Brain.model_validate_json(Path(request["brain"]).read_text()).brain_id
    if not store.brain_path(brain_id).is_dir():
        return {"faults": [], "records": 0, "digest": "", "left": []}
    found = verify_brain(store, brain_id)
    products = list(store.catalogue(brain_id).records())
    staging = store.brain_path(brain_id) / "staging"
    return {
        "faults": [fault.key for fault in found.faults if (store.brain_path(brain_id) / fault.key).exists()],
        "records": len(products),
        "digest": store.catalogue(brain_id).content_digest(),
        "left": sorted(path.name for path in staging.glob("*")),
    }


def on_a_small_disk(request: dict[str, Any]) -> dict[str, Any]:
    """Ingest where there is little room, and again after room was made."""
    disk = Path(request["store"])
    private_mounts()
    mount_small_disk(disk, request["disk_bytes"])
    _, before = attempt(request, ingest)
    first = state_of(request)
    remount(disk, size_bytes=4 << 30)
    _, after = attempt(request, ingest)
    return {"before": {**before, **first}, "after": {**after, **state_of(request)}}


def on_a_growing_disk(request: dict[str, Any]) -> dict[str, Any]:
    """Ingest again and again, each time with a little more room: what was said, and what was committed."""
    disk = Path(request["store"])
    private_mounts()
    mount_small_disk(disk, request["disk_bytes"][0])
    (disk / "in-the-way").write_bytes(bytes(request["disk_bytes"][0]))
    steps = []
    for size in request["disk_bytes"]:
        remount(disk, size_bytes=size)
        _, report = attempt(request, ingest)
        steps.append({**report, **state_of(request), "disk_bytes": size})
        if report["code"] == DONE:
            break
    remount(disk, size_bytes=4 << 30)
    _, after = attempt(request, ingest)
    return {"steps": steps, "after": {**after, **state_of(request)}}


def on_a_read_only_disk(request: dict[str, Any]) -> dict[str, Any]:
    """Ingest where nothing may be written, and again where it may; first of all, where asked, what is `begun`."""
    disk = Path(request["store"])
    private_mounts()
    mount_small_disk(disk, 4 << 30)
    if request["begun"]:
        attempt({**request, "brain": request["begun"]}, ingest)
    remount(disk, size_bytes=4 << 30, read_only=True)
    _, before = attempt(request, ingest)
    first = state_of(request)
    remount(disk, size_bytes=4 << 30)
    _, after = attempt(request, ingest)
    return {"before": {**before, **first}, "after": {**after, **state_of(request)}}


def may_mount(request: dict[str, Any]) -> dict[str, Any]:
    """Nothing, where a file system can be mounted."""
    private_mounts()
    mount_small_disk(Path(request["store"]), 1 << 20)
    return {}


WORKS = {
    "ingest": ingest,
    "small disk": on_a_small_disk,
    "growing disk": on_a_growing_disk,
    "read-only disk": on_a_read_only_disk,
    "may mount": may_mount,
}


def work(request: dict[str, Any]) -> int:
    moments = watch(request.get("moment", ""))
    if request.get("file_bytes"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_bytes"], request["file_bytes"]))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    code, report = attempt(request, WORKS[request.get("work", "ingest")])
    containment().close()
    if request.get("file_bytes"):
        code = _told_by_code(code, report)
    Path(request["report"]).write_text(json.dumps({**report, "counts": moments.counts}))
    return code


def _told_by_code(code: int, report: dict[str, Any]) -> int:
    """The report must fit under the limit of files too."""
    report["text"] = report.get("text", "")[-600:]
    return code


# -- the one that forks ------------------------------------------------------------------------------------------------


def forked(request: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    code = FAULT
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for handle, place in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(handle, place)
        code = work(request)
    except BaseException:  # noqa: BLE001 - nothing of the child may go on in this copy of its parent
        Path(request["log"]).write_text(traceback.format_exc())
    finally:
        os._exit(code)


def serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = forked(request["start"])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.stdout.write(f"{threading.active_count()}\n")
    sys.stdout.flush()
    serve()
