"""Workers that are jobs: what the script that submits them prints is a scheduler that runs there, and it ends them."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client

SCRIPT = Path(__file__).resolve().parent.parent.parent / "deployments" / "jobs.py"
ONE_CORE = {
    "DASK_JOBQUEUE__LOCAL__CORES": "1",
    "DASK_JOBQUEUE__LOCAL__MEMORY": "1GB",
}


def test_jobs_work_for_whoever_has_the_address_and_end_with_the_script(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue")
    command = [sys.executable, str(SCRIPT), "local", "--jobs", "2"]
    with (tmp_path / "log").open("wb") as log:
        script = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, **ONE_CORE}, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert script.stdout is not None
    try:
        said = script.stdout.readline()
        assert said.startswith("run.runner = dask, run.scheduler = tcp://127.0.0.1:"), (tmp_path / "log").read_text()
        with Client(said.rpartition(" ")[2].strip()) as client:
            client.wait_for_workers(2, timeout=120)
            jobs = list(client.run(os.getpid).values())
            assert client.submit(sum, (1, 2)).result() == 3
            assert {one.laddr.ip for one in listening(script.pid)} == {"127.0.0.1"}, "whoever reaches it runs code"
        assert len(set(jobs)) == 2
        script.send_signal(signal.SIGINT)
        assert script.wait(60) == 0, (tmp_path / "log").read_text()
        gone, alive = psutil.wait_procs([psutil.Process(one) for one in jobs if psutil.pid_exists(one)], timeout=30)
        assert not alive, gone
    finally:
        script.kill()
        script.wait()
        script.stdout.close()


def listening(pid: int) -> list[Any]:
    """The sockets at which a process and what it started listen."""
    script = psutil.Process(pid)
    opened = [one for process in (script, *script.children(recursive=True)) for one in process.net_connections("all")]
    return [one for one in opened if one.status == psutil.CONN_LISTEN]


def test_no_jobs_are_no_choice() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "local", "--jobs", "0"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--jobs is 0: at least one job does the work" in done.stderr


def test_no_scheduler_is_opened_to_other_machines_that_does_not_know_them() -> None:
    open_to_all = {**os.environ, "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "false"}
    done = subprocess.run([sys.executable, SCRIPT, "slurm"], env=open_to_all, capture_output=True, text=True)
    assert done.returncode == 2
    assert "set distributed.comm.require-encryption to true" in done.stderr
