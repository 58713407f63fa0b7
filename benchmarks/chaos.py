"""Two workers map one brain at once, and runs and workers are killed at random: whether all that is left is the same.

`python -m benchmarks.chaos [SECONDS] [SEED]` (600, 1) brings up servers and two workers of its own, kills every few
seconds for so long, lets the last runs end, and writes what was seen into docs/lab.md. A store that was mapped whole in
spite of it is compared with one that nobody disturbed, and another is begun.
"""

import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from benchmarks.cases import write_block
from benchmarks.fault_lab import BRAIN, ROOT, RUN, SETTLED, Lab, wait_until
from cytoarch.phantoms.writing import PhantomRequest, write_phantom
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.verification import verify_brain
from flows.serving import direct_loopback

DOCS = ROOT / "docs" / "lab.md"
BLOCK = "chaos: written by python -m benchmarks.chaos"
WORKERS = ("worker", "worker-2")
SHORTEST_S, LONGEST_S = 2.0, 25.0
"""Between two kills: some come before a run has opened its brain, some in the middle of a stage."""
OF_RUNS = 0.75
"""The part of kills that is a run's; the others are a worker's with all that it runs."""


class Chaos:
    """What was begun, killed and found."""

    def __init__(self, lab: Lab, undisturbed: str, seed: int) -> None:
        self.lab, self.undisturbed = lab, undisturbed
        self.draw = random.Random(seed)  # noqa: S311 - a schedule is no secret
        self.counts: Counter[str] = Counter()
        self.runs: list[str] = []
        """Those of the store at hand."""
        self.lost: dict[str, float] = {}
        """Runs whose worker was killed with them -> when."""
        self.settled_s: list[float] = []
        """How long such runs read Running."""
        self.wrong: list[str] = []

    def go_on(self, seconds: float) -> None:
        """Keep two runs of the brain at work and kill until the time is over."""
        self._another_store()
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            while len(self._live()) < len(WORKERS):
                self.runs.append(self.lab.begin())
                self.counts["runs"] += 1
            time.sleep(self.draw.uniform(SHORTEST_S, LONGEST_S))
            self._look_after_lost()
            if any(self.lab.state(one).kind == "COMPLETED" for one in self.runs):
                self._compare()
                self._another_store()
            elif self.draw.random() < OF_RUNS:
                self._kill_run()
            else:
                self._kill_worker()

    def end(self) -> None:
        """Let what is at work end, map the last store whole, and compare it."""
        wait_until(lambda: not self._live(), "the end of the last runs")
        self._look_after_lost()
        self.lab.settle()  # as at the next start of `make serve`
        last = self.lab.wait_end(self.lab.begin())
        if last.kind != "COMPLETED":
            self.wrong.append(f"the last run ended as {last.name}: {last.message[:200]}")
        self._compare()

    def _live(self) -> set[str]:
        """Runs that wait for a worker or have a process."""
        waiting = {one for one in self.runs if self.lab.state(one).kind in ("SCHEDULED", "PENDING")}
        return waiting | set(self._processes().values())

    def _processes(self) -> dict[psutil.Process, str]:
        """Processes of the runs of the store at hand -> the run."""
        found = {}
        for one in self.lab.run_processes():
            with suppress(psutil.Error):
                found[one] = one.environ().get(RUN, "")
        return {one: run for one, run in found.items() if run in self.runs}

    def _kill_run(self) -> None:
        found = list(self._processes())
        if found:
            with suppress(psutil.NoSuchProcess):
                self.draw.choice(found).kill()
                self.counts["processes of runs killed"] += 1

    def _kill_worker(self) -> None:
        name = self.draw.choice(WORKERS)
        at_work = set(self._processes().values())
        os.killpg(self.lab.servers.process(name).pid, signal.SIGKILL)
        self.lab.servers.stop([name])
        gone = at_work - set(self._processes().values())
        self.lost |= dict.fromkeys(gone, time.monotonic())
        self.lab.start(name)
        self.counts["workers killed"] += 1

    def _look_after_lost(self) -> None:
        """Note which runs, lost with their worker, the server has called crashed since."""
        for one in [one for one in self.lost if self.lab.state(one).kind in SETTLED]:
            self.settled_s.append(time.monotonic() - self.lost.pop(one))

    def _another_store(self) -> None:
        """Begin anew where nothing is mapped; runs of the store before may still be at work there."""
        self.counts["stores"] += 1
        self.runs = []
        self.lab.store = BrainStore(self.lab.folder / "disk" / f"store-{self.counts['stores']}")

    def _compare(self) -> None:
        for one in self.runs:
            state = self.lab.state(one)
            self.counts["refused, since the other has the brain"] += "is being written by" in state.message
            self.counts["ended by themselves"] += state.kind == "COMPLETED"
        if self.lab.digest() != self.undisturbed:
            self.wrong.append(f"{self.lab.store.root.name} has other bytes")
        faults = verify_brain(self.lab.store, BRAIN).faults
        self.wrong += [f"{self.lab.store.root.name}: {one}" for one in faults]
        self.counts["compared"] += 1


def main(arguments: list[str]) -> int:
    """Kill, compare, write what was seen."""
    seconds, seed = (int(one) for one in [*arguments, *("600", "1")[len(arguments) :]])
    os.environ.update(direct_loopback(os.environ))
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        manifest = write_phantom(Path(scratch) / "brain", BRAIN, PhantomRequest(size="tiny"))
        lab = Lab(Path(scratch), manifest)
        stack.callback(lab.close)
        lab.open()
        lab.start(WORKERS[1])
        if lab.wait_end(lab.begin()).kind not in SETTLED[:1]:
            raise RuntimeError("a run that nothing disturbed did not end well")
        chaos = Chaos(lab, lab.digest(), seed)
        chaos.go_on(seconds)
        chaos.end()
    said = ", ".join(f"{count} {what}" for what, count in chaos.counts.items())
    wrong = "; ".join(chaos.wrong) or "none"
    slowest = f"within {max(chaos.settled_s):.0f} s" if chaos.settled_s else "not yet"
    body = (
        "Two workers that map one brain at once, while runs and workers are killed (`python -m benchmarks.chaos`), "
        f"{seconds} s, seed {seed}: {said}. Of runs lost with their worker the server called "
        f"{len(chaos.settled_s)} crashed {slowest} by their silence; {len(chaos.lost)} were lost too shortly before "
        f"the end, and were settled as `make serve` does when it starts. Faults found: {wrong}."
    )
    write_block(DOCS, BLOCK, body)
    print(body)
    return 1 if chaos.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
