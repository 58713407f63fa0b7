"""Segments a volume of a study in a process that kills itself, or lives where it is given no number.

`python -m tests.cytoarch.steps.segment_and_die STORE STUDY VOLUME DIGEST SEGMENTED [TILES]`: every tile that the
network segments is a line in the file SEGMENTED, and after so many the process dies.
"""

import os
import signal
import sys
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

SEGMENT = NeuronSegmentation(tile_depth=16, tile_edge=16)


def main(root: Path, study: str, volume: str, digest: str, segmented: Path, most: int) -> None:
    torch.set_num_threads(1)
    plain, count = neuron_traces.segmented_by, 0

    def counted(network: NeuronNetwork, device: str) -> Segment:
        segment = plain(network, device)

        def work(tiles: np.ndarray) -> np.ndarray:
            nonlocal count
            if count == most:
                os.kill(os.getpid(), signal.SIGKILL)
            count += len(tiles)
            with segmented.open("a") as file:
                file.writelines("tile\n" for _ in tiles)
            return segment(tiles)

        return work

    neuron_traces.segmented_by = counted  # type: ignore[assignment]
    with open_study(root, study) as opened:
        make(NeuronMapStep.of(volume, SEGMENT, digest), opened)


if __name__ == "__main__":
    store, study_name, volume_id, model, lines, *tiles = sys.argv[1:]
    main(Path(store), study_name, volume_id, model, Path(lines), int(tiles[0]) if tiles else -1)
