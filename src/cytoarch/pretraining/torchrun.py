"""One training by several processes: torchrun starts them, they share every batch, the first of them writes.

    python -m torch.distributed.run --standalone --nproc-per-node N -m cytoarch.pretraining.torchrun JOB PID

JOB is a folder with what is to be done; PID is who asked for it: where that is gone, the processes end, too. The first
one says on its standard output which step it has come to, and leaves the files of the encoder in JOB.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import distributed as dist

from cytoarch.errors import CytoarchError, TrainingError
from cytoarch.pretraining.patches import PatchPoints
from cytoarch.pretraining.sections import StoredSections
from cytoarch.pretraining.settings import PretrainingSettings
from cytoarch.pretraining.training import PlacedPatches, train_encoder

JOB_FILE, POINTS_FILE, MADE, FAULT_FILE = "job.json", "points.npz", "made", "fault.txt"
STEP = "step "
LAST_LINES = 12
"""Of what the processes said, where they broke."""


def train_together(
    patches: PlacedPatches, settings: PretrainingSettings, checkpoint_path: Path, on_step: Callable[[int], None]
) -> dict[str, bytes]:
    """What `train_encoder` gives, by as many processes as the settings say; by this one alone where that is one.

    Raises TrainingError with what they said where they broke, CytoarchError where one of them raised it.
    """
    patches.check(settings)
    if settings.processes == 1:
        return train_encoder(patches, settings, checkpoint_path, on_step)
    with tempfile.TemporaryDirectory(prefix="cytoarch-pretraining-") as scratch:
        job = Path(scratch)
        write_job(job, patches, settings, checkpoint_path)
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={settings.processes}",
            "-m", __name__, str(job), str(os.getpid()),
        ]  # fmt: skip
        watched(command, job, on_step)
        return {path.name: path.read_bytes() for path in sorted((job / MADE).iterdir())}


def watched(command: Sequence[str], job: Path, on_step: Callable[[int], None]) -> None:
    """Run the processes to their end, telling of their steps; they do not outlive this call."""
    with (
        (job / "said.txt").open("w+") as said,
        subprocess.Popen(  # noqa: S603 - our own Python and module
            command, stdout=subprocess.PIPE, stderr=said, stdin=subprocess.DEVNULL, text=True
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                if line.startswith(STEP):
                    on_step(int(line.removeprefix(STEP)))
            code = process.wait()
        finally:
            process.terminate()  # torchrun ends its processes
        if code:
            fault = job / FAULT_FILE
            if fault.is_file():
                raise CytoarchError(fault.read_text(encoding="utf-8"))
            said.seek(0)
            last = "\n".join(said.read().splitlines()[-LAST_LINES:])
            raise TrainingError(f"torchrun ended with {code}; its processes said at last:\n{last}")


def write_job(job: Path, patches: PlacedPatches, settings: PretrainingSettings, checkpoint_path: Path) -> None:
    """Write down what is to be done."""
    content = {
        "settings": settings.model_dump(mode="json"),
        "folders": [str(one) for one in patches.sections.folders],
        "brains": list(patches.brains),
        "held_out": sorted(patches.held_out),
        "checkpoint": str(checkpoint_path),
    }
    (job / JOB_FILE).write_text(json.dumps(content), encoding="utf-8")
    points = patches.points
    np.savez(job / POINTS_FILE, allow_pickle=False, **{one.name: getattr(points, one.name) for one in fields(points)})


def read_job(job: Path) -> tuple[PlacedPatches, PretrainingSettings, Path]:
    """What is to be done."""
    content = json.loads((job / JOB_FILE).read_text(encoding="utf-8"))
    settings = PretrainingSettings.model_validate_json(json.dumps(content["settings"]))
    with np.load(job / POINTS_FILE, allow_pickle=False) as held:
        points = PatchPoints(**{name: held[name] for name in held})
    sections = StoredSections(tuple(map(Path, content["folders"])), settings.pixel_size_um)
    patches = PlacedPatches(sections, points, tuple(content["brains"]), frozenset(content["held_out"]))
    return patches, settings, Path(content["checkpoint"])


def main(job: Path, asked_by: int) -> None:
    """What each of the processes does."""
    patches, settings, checkpoint_path = read_job(job)
    first = os.environ["RANK"] == "0"
    if settings.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if settings.device == "cuda" else "gloo")

    def on_step(step: int) -> None:
        os.kill(asked_by, 0)  # raises where nobody waits for this any more
        if first:
            sys.stdout.write(f"{STEP}{step}\n")
            sys.stdout.flush()

    try:
        files = train_encoder(patches, settings, checkpoint_path, on_step)
    except CytoarchError as error:
        (job / FAULT_FILE).write_text(str(error), encoding="utf-8")
        raise
    if first:
        (job / MADE).mkdir()
        for name, content in files.items():
            (job / MADE / name).write_bytes(content)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
