"""Brings up a Dask scheduler whose workers are jobs of a batch system, and prints its address for `run.scheduler`.

`python deployments/jobs.py slurm --jobs 20`, where jobs are submitted; Ctrl-C ends them all. Queue, cores, memory and
time of a job are those of Dask's configuration (jobqueue.slurm in ~/.config/dask/jobqueue.yaml). Needs
`pip install dask-jobqueue`.

Whoever reaches a scheduler runs code there: one that other machines reach has to know them by their certificates, which
Dask's configuration names, too (distributed.comm.tls).
"""

import argparse
import importlib
import signal
import sys
import threading

import dask
from distributed.security import Security

KINDS = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "oar": "OARCluster",
    "htcondor": "HTCondorCluster",
    "local": "LocalCluster",
}
"""Batch system -> its class in dask-jobqueue; local: jobs are processes of this machine, to try it."""

LOOPBACK = "127.0.0.1"


def main() -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("kind", choices=KINDS, help="batch system; local: processes of this machine, to try it")
    parser.add_argument("--jobs", type=int, default=2, help="jobs that are kept at work: one that ends is replaced")
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error(f"--jobs is {options.jobs}: at least one job does the work")
    encrypted = bool(dask.config.get("distributed.comm.require-encryption", None))
    if options.kind != "local" and not encrypted:
        print(
            "Dask's configuration has no certificates, and whoever reaches the scheduler could run code there: set "
            "distributed.comm.require-encryption to true, and distributed.comm.tls to files that jobs see, too",
            file=sys.stderr,
        )
        return 2
    try:
        made_of = getattr(importlib.import_module(f"dask_jobqueue.{options.kind}"), KINDS[options.kind])
    except ModuleNotFoundError:
        print("dask-jobqueue is not installed; run `pip install dask-jobqueue`", file=sys.stderr)
        return 2
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stopping.set())
    is_local = options.kind == "local"
    scheduler = {"dashboard": False, "dashboard_address": f"{LOOPBACK}:0"} | ({"host": LOOPBACK} if is_local else {})
    only_here = ["--host", LOOPBACK, "--no-dashboard", "--dashboard-address", f"{LOOPBACK}:0"]
    # whoever reaches a worker runs code there, too; an interface that Dask's configuration names would open it again
    workers = {"interface": "", "worker_extra_args": only_here} if is_local else {}
    with made_of(security=Security() if encrypted else None, scheduler_options=scheduler, **workers) as cluster:
        cluster.adapt(minimum_jobs=options.jobs, maximum_jobs=options.jobs)
        print(f"run.runner = dask, run.scheduler = {cluster.scheduler_address}", flush=True)
        stopping.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
