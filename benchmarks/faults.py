"""What a fault in mid-flow costs: servers, workers and runs are ended while a brain is mapped; the next run goes on.

`python -m benchmarks.faults [FAULT ...]` (all: half an hour, most of it waiting) writes the table in docs/lab.md; what
was seen before of faults that the same sources met stays in it. It brings up servers and a worker of its own on free
ports, and a store on a small disk that only it can see, which needs the right to mount.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.cases import write_block
from benchmarks.fault_lab import BRAIN, ROOT, SETTLED, Lab, wait_until
from cytoarch.phantoms.writing import PhantomRequest, write_phantom
from flows.serving import direct_loopback

DOCS = ROOT / "docs" / "lab.md"
BLOCK = "faults: written by python -m benchmarks.faults"
SEEN_PATH = ROOT / "work" / "faults.jsonl"
GONE_S = 420.0
"""Longer than a run waits for Prefect's server."""
LOCKED_S = 20.0


class Fault(NamedTuple):
    """Something that goes wrong."""

    name: str
    after: str
    """The step whose first product the fault waits for; blank: it is there before the run is started."""
    happens: Callable[[Lab, str], object]
    mended: Callable[[Lab], object] = lambda lab: None  # noqa: ARG005 - nothing is left to mend


class Seen(NamedTuple):
    """What a fault did."""

    fault: str
    state: str
    """In which the run ended."""
    settled_s: float
    """From the end of the fault until the server said so."""
    live_tasks: int
    """Tasks of the ended run that the server still takes for running."""
    committed: int
    """Products that were there when the fault came."""
    lost: int
    """Of them, those that were not there unchanged in the end."""
    again: str
    """How the next run ended."""
    made: int
    """What it had to make that was not there when it began."""
    digest: str
    """That of all that is no view, in the end."""
    rows: str
    """The brain's rows in MLflow in the end."""


def away_for(seconds: float) -> Callable[[Lab, str], None]:
    """Prefect's server ends, and is started again after some time."""

    def happens(lab: Lab, _run: str) -> None:
        lab.away("prefect-server")
        time.sleep(seconds)
        lab.back("prefect-server")

    return happens


def gone(lab: Lab, _run: str) -> None:
    """Prefect's server ends, and the run sees to itself."""
    lab.away("prefect-server")
    print(f"  the run gave up after {wait_until(lambda: not lab.run_processes(), 'its end', GONE_S):.0f} s", flush=True)
    lab.back("prefect-server")
    lab.settle()


def locked(lab: Lab, _run: str) -> None:
    """Somebody else writes into both databases."""
    with lab.locked():
        time.sleep(LOCKED_S)


def worker_killed(lab: Lab, _run: str) -> None:
    """The worker ends; another is started, as `make serve` does."""
    lab.kill_worker_alone()
    wait_until(lambda: not lab.run_processes(), "the end of the run that it left", GONE_S)
    lab.servers.stop(["worker"])
    lab.start("worker")
    lab.settle()


def cancelled(lab: Lab, run: str) -> None:
    """Prefect's server was away; then somebody cancels."""
    away_for(30)(lab, run)
    lab.cancel(run)


FAULTS = (
    Fault("nothing", "", lambda _lab, _run: None),
    Fault("the run's process killed", "embeddings", lambda lab, _run: lab.kill_runs()),
    Fault("MLflow away from the start", "", lambda lab, _run: lab.away("mlflow"), lambda lab: lab.back("mlflow")),
    Fault(
        "MLflow away from the middle on",
        "embeddings",
        lambda lab, _run: lab.away("mlflow"),
        lambda lab: lab.back("mlflow"),
    ),
    Fault("MLflow away at the end", "pictures", lambda lab, _run: lab.away("mlflow"), lambda lab: lab.back("mlflow")),
    Fault(
        "MLflow hangs from the middle on",
        "embeddings",
        lambda lab, _run: lab.signal_all("mlflow", signal.SIGSTOP),
        lambda lab: lab.signal_all("mlflow", signal.SIGCONT),
    ),
    Fault("Prefect's server away for 30 s", "tissue", away_for(30)),
    Fault("Prefect's server away for 120 s", "tissue", away_for(120)),
    Fault("Prefect's server away for good", "tissue", gone),
    Fault("cancelled after an outage of 30 s", "tissue", cancelled),
    Fault("the worker killed", "tissue", worker_killed),
    Fault("both databases locked for 20 s", "tissue", locked),
    Fault("the disk full", "tissue", lambda lab, _run: lab.fill_disk(), lambda lab: lab.empty_disk()),
)


def main(names: list[str]) -> int:
    """See what faults do, and write the table of all that was seen."""
    known = {one.name: one for one in FAULTS}
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"no fault is called {', '.join(unknown)}; there are: {'; '.join(known)}")
        return 2
    os.environ.update(direct_loopback(os.environ))
    sources = sources_id()
    SEEN_PATH.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        manifest = write_phantom(Path(scratch) / "brain", BRAIN, PhantomRequest(size="tiny"))
        lab = Lab(Path(scratch), manifest)
        stack.callback(lab.close)
        lab.open()
        for fault in [known[name] for name in names or known]:
            print(fault.name, flush=True)
            found = seen(lab, fault)
            print(f"  {found}", flush=True)
            with SEEN_PATH.open("a") as file:
                file.write(f"{json.dumps({'sources': sources, **found._asdict()})}\n")
            write_block(DOCS, BLOCK, table(seen_before(SEEN_PATH, sources)))
    return 0


def sources_id() -> str:
    """What git calls the sources that were committed last: digests of products are told beside those of the same."""
    told = subprocess.run(["git", "rev-parse", "HEAD:src"], cwd=ROOT, check=True, capture_output=True, text=True)
    return told.stdout.strip()


def seen_before(path: Path, sources: str) -> dict[str, Seen]:
    """What is kept of faults that the same sources met, the last of each."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {
        row["fault"]: Seen(**{name: row[name] for name in Seen._fields})
        for row in rows
        if row.get("sources") == sources
    }


def seen(lab: Lab, fault: Fault) -> Seen:
    """Map a brain that nobody mapped before, have the fault happen, mend it, and map again."""
    forget(lab)
    run = lab.begin() if fault.after else ""
    if fault.after:
        wait_until(lambda: lab.reached(fault.after) or lab.state(run).kind in SETTLED, f"the step {fault.after}")
    before = lab.records()
    fault.happens(lab, run)
    run = run or lab.begin()
    start = time.monotonic()
    ended = lab.wait_end(run)
    settled_s = time.monotonic() - start
    if ended.kind != "COMPLETED":
        print(f"  {ended.name}: {ended.message[:300]}", flush=True)
    fault.mended(lab)
    there = lab.records()
    again = lab.wait_end(lab.begin())
    after = lab.records()
    rows = ", ".join(f"{row.info.status}, {len(row.data.metrics)} figures" for row in lab.rows())
    return Seen(
        fault.name,
        ended.name,
        round(settled_s, 1),
        lab.live_tasks(run),
        len(before),
        sum(after.get(name) != digest for name, digest in before.items()),
        again.name,
        sum(there.get(name) != digest for name, digest in after.items()),
        lab.digest(),
        rows,
    )


def forget(lab: Lab) -> None:
    """Take the brain, its models and its rows away."""
    from mlflow import MlflowClient

    for path in (lab.store.brain_path(BRAIN), lab.store.root / "models"):
        shutil.rmtree(path, ignore_errors=True)
    client = MlflowClient(lab.mlflow_url, lab.mlflow_url)
    for row in lab.rows():
        client.delete_run(row.info.run_id)
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)


def table(found: Mapping[str, Seen]) -> str:
    """What was seen, a line for every fault that was tried."""
    heads = ["fault", "the run", "said after (s)", "tasks left running", "products before", "lost", "the next run"]
    heads += ["had to make", "same bytes", "row in MLflow"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for fault in FAULTS:
        one = found.get(fault.name)
        if one is None:
            continue
        counts = [one.live_tasks, one.committed, one.lost]
        cells = [fault.name, one.state, f"{one.settled_s:.0f}", *map(str, counts), one.again]
        undisturbed = found.get(FAULTS[0].name)
        same = "not compared" if undisturbed is None else "yes" if one.digest == undisturbed.digest else "NO"
        cells += [str(one.made), same, one.rows or "none"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
