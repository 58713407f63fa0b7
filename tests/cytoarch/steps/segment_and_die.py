"""Segments a volume of a study in forked processes that kill themselves, one after the other; the last one lives.

`python -m tests.cytoarch.steps.segment_and_die STORE STUDY VOLUME DIGEST SEGMENTED [TILES ...]`: every tile that the
network segments is a line in the file SEGMENTED; a process dies after so many. The exit codes are printed.
"""

import os
import signal
import sys
import traceback
from pathlib import Path

import numpy as np
import torch

from cytoarch.neurons.inference import Segment
from cytoarch.neurons.network import NeuronNetwork
from cytoarch.neurons.settings import NeuronSegmentation
from cytoarch.steps import neuron_traces
from cytoarch.steps.neuron_traces import NeuronMapStep
from cytoarch.steps.opened import open_study
from cytoarch.steps.running import make

OVERLAPPING = NeuronSegmentation(tile_depth=32, tile_edge=32)


def segment(root: Path, study: str, volume: str, digest: str, segmented: Path, most: int) -> None:
    plain, count = neuron_traces.segmented_by, 0

    def counted(network: NeuronNetwork, device: str) -> Segment:
        work = plain(network, device)

        def counting(tiles: np.ndarray) -> np.ndarray:
            nonlocal count
            if count == most:
                os.kill(os.getpid(), signal.SIGKILL)
            count += len(tiles)
            with segmented.open("a") as file:
                file.writelines("tile\n" for _ in tiles)
            return work(tiles)

        return counting

    neuron_traces.segmented_by = counted  # type: ignore[assignment]
    with open_study(root, study) as opened:
        make(NeuronMapStep.of(volume, OVERLAPPING, digest), opened)


def main(root: Path, study: str, volume: str, digest: str, segmented: Path, moments: list[int]) -> None:
    torch.set_num_threads(1)
    codes = []
    for most in [*moments, -1]:
        child = os.fork()
        if not child:
            try:
                segment(root, study, volume, digest, segmented, most)
            except BaseException:  # noqa: BLE001 - nothing of the child may go on in this copy of its parent
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    sys.stdout.write(" ".join(map(str, codes)))


if __name__ == "__main__":
    store, study_name, volume_id, model, lines, *tiles = sys.argv[1:]
    main(Path(store), study_name, volume_id, model, Path(lines), list(map(int, tiles)))
