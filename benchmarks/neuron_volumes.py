"""A real neuron traced beside what scikit-image alone gives, memory along an axis, and a gap that is closed.

`python -m benchmarks.neuron_volumes stack [--network FOLDER] [--kimimaro PYTHON] [--rivulet PYTHON]` prints the scores
of traces of `neuron_stack` in the folder of real data against its SWC file, those of kimimaro and Rivulet2 beside them
where a Python that has them is named; `memory` prints the peak memory of ingesting, segmenting and tracing volumes that
grow along z; `gaps FILE` draws a phantom traced with and without closing gaps.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter
from skimage.filters import threshold_otsu

from cytoarch.images.stacks import write_stack
from cytoarch.images.volumes import CHUNK, StoredVolume, VoxelGrid, write_volume
from cytoarch.neurons.inference import TileShape, segment_volume, segmented_by
from cytoarch.neurons.network import Architecture, NeuronNetwork
from cytoarch.neurons.patches import Scale, scale_of
from cytoarch.neurons.phantoms import NeuronPhantom, make_phantom
from cytoarch.neurons.scoring import TreeScore, score_trees
from cytoarch.neurons.swc import read_swc
from cytoarch.neurons.tracing import TraceRules, trace, trace_mask
from cytoarch.neurons.training import new_network
from cytoarch.neurons.trees import Tree, Triple
from cytoarch.reporting.neurons import drawn_errors, projections
from cytoarch.store.staging import Staging

UM: Triple = (1.0, 1.0, 1.0)
BARE = TraceRules(gap_um=0, spur_um=0, piece_um=0)
DEPTHS = (64, 256, 512)
PEERS = {"kimimaro": "kimimaro (TEASAR)", "rivulet": "Rivulet2"}
"""What is run in an environment of its own."""


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("stack", "memory", "gaps", "one"))
    parser.add_argument("file", type=Path, nargs="?", default=Path("gaps.png"))
    parser.add_argument("--network", type=Path, help="folder of network.json and network.safetensors")
    for peer in PEERS:
        parser.add_argument(f"--{peer}", type=Path, help=f"Python of an environment that has {peer}")
    parser.add_argument("--depth", type=int, default=64)
    asked = parser.parse_args()
    if asked.what == "stack":
        print(stack(asked.network, {one: getattr(asked, one) for one in PEERS if getattr(asked, one)}))
    elif asked.what == "memory":
        print(memory())
    elif asked.what == "gaps":
        gaps(asked.file)
    else:
        print(json.dumps(one(asked.depth)))


def stack(network: Path | None, peers: Mapping[str, Path]) -> str:
    """The table of scores of the real stack; peers by the Python that has them."""
    folder = Path(os.environ.get("CYTOARCH_REAL_DATA", "../shared/data")) / "neuron_stack"
    pixels = tifffile.imread(folder / "test.tif")
    known = read_swc(folder / "test-expected_yflip.swc")
    otsu, bright = pixels > threshold_otsu(pixels), pixels > 0
    traced: dict[str, Callable[[], Tree]] = {
        "skimage skeleton of an Otsu mask": lambda: trace_mask(otsu, UM, BARE),
        "ours, on the same mask": lambda: trace_mask(otsu, UM, TraceRules()),
        "skimage skeleton of all signal": lambda: trace_mask(bright, UM, BARE),
        "ours, on all signal": lambda: trace_mask(bright, UM, TraceRules()),
    }
    if network is not None:
        traced["ours, on a network taught by phantoms alone"] = lambda: trace_mask(
            segmented(network, pixels), UM, TraceRules()
        )
    for peer, python in peers.items():
        for where, threshold in (("the Otsu mask", float(threshold_otsu(pixels))), ("all signal", 0.0)):
            traced[f"{PEERS[peer]}, on {where}"] = partial(by_peer, peer, python, folder, threshold)
    rows = [
        "| trace | ESA | DSA | PDS | precision | recall | F1 | pieces | s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, make in traced.items():
        started = time.monotonic()
        tree = make()
        rows.append(row(name, score_trees(tree, known, UM), tree.roots, time.monotonic() - started))
    return "\n".join(rows)


def row(name: str, score: TreeScore, pieces: int, seconds: float) -> str:
    """A row of the table."""
    figures = (score.esa, score.dsa, score.pds, score.precision, score.recall, score.f1)
    return f"| {name} | {' | '.join(f'{one:.3f}' for one in figures)} | {pieces} | {seconds:.1f} |"


def by_peer(peer: str, python: Path, folder: Path, threshold: float) -> Tree:
    """The tree that another program traces in the voxels above a threshold."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "tree.swc"
        script = Path(__file__).parent / f"{peer}_peer.py"
        subprocess.run([python, script, folder / "test.tif", str(threshold), path], check=True, stdout=sys.stderr)
        return read_swc(path)


def segmented(folder: Path, pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The voxels that a network of the phantom study takes for neurons."""
    network = NeuronNetwork(Architecture.from_json(json.loads((folder / "network.json").read_text())))
    network.load_state_dict({name: one.float() for name, one in load_file(folder / "network.safetensors").items()})
    scale = scale_of(np.bincount(pixels.ravel(), minlength=256))
    with tempfile.TemporaryDirectory() as scratch:
        tiles = TileShape(32, 64, 0.75)
        return np.stack(
            [plane > 0.5 for plane in segment_volume(segmented_by(network), pixels, scale, tiles, Path(scratch), 4)]
        )


def memory() -> str:
    """Peak memory of volumes that are alike but for their depth, each in a process of its own."""
    rows = ["| volume | voxels | peak, MB | above the smallest, MB |", "|---|---|---|---|"]
    first = 0.0
    for depth in DEPTHS:
        command = [sys.executable, "-m", "benchmarks.neuron_volumes", "one", "--depth", str(depth)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        first = first or found["peak_mb"]
        size = f"{depth} x 128 x 128"
        rows.append(f"| {size} | {depth * 128**2:,} | {found['peak_mb']:.0f} | {found['peak_mb'] - first:.0f} |")
    return "\n".join(rows)


def one(depth: int) -> dict[str, float]:
    """Ingest, segment and trace a volume of so many planes; gives the peak memory of this process."""
    made = make_phantom(NeuronPhantom(shape=(64, 128, 128), neurons=2, seed=1))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stack.tif"
        with tifffile.TiffWriter(path) as tiff:
            for z in range(depth):
                tiff.write(made.pixels[z % 64], contiguous=True)
        staging, maps = Staging(Path(folder) / "a").open(), Staging(Path(folder) / "b").open()
        facts = write_stack(staging, path, UM, 0, "a")
        volume = StoredVolume.open(staging.path)
        scale = Scale(facts["black"], facts["white"])
        segment = segmented_by(new_network(Architecture((4, 4, 4, 4), (1, 1, 1, 1)), 0))
        planes = segment_volume(segment, volume.pixels, scale, TileShape(32, 64), maps.scratch)
        # what an unfitted network says is noise; the truth is traced in its place
        slabs = (
            np.stack([255 * made.mask[(z + i) % 64].astype(np.uint8) + 0 * next(planes).astype(np.uint8)
                      for i in range(min(CHUNK[0], depth - z))])
            for z in range(0, depth, CHUNK[0])
        )  # fmt: skip
        write_volume(maps, VoxelGrid((depth, 128, 128), UM), slabs, "b")
        found = StoredVolume.open(maps.path)

        def read(low: tuple[int, int, int], high: tuple[int, int, int]) -> NDArray[np.bool_]:
            window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            return np.asarray(np.asarray(found.pixels[window]) > 127)

        tree = trace(read, (depth, 128, 128), UM, TraceRules())
    status = Path("/proc/self/status").read_text()  # the peak of this process, not of the one that started it
    peak = next(float(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return {"peak_mb": peak / 1024, "nodes": float(len(tree))}


def gaps(file: Path) -> None:
    """Draw a phantom, smoothed and cut at a quarter of a neurite's brightness, traced without and with closing gaps."""
    phantom = NeuronPhantom(shape=(40, 64, 80), neurons=1, seed=14, branches=6, gaps_per_um=0.02, background=6.0)
    made = make_phantom(phantom)
    scale = scale_of(np.bincount(made.pixels.ravel(), minlength=256))
    seen = projections(StoredVolume(made.pixels, VoxelGrid(made.pixels.shape, UM)), scale)[0]
    mask = gaussian_filter(made.pixels.astype(np.float32), 0.7) > 2 * (phantom.background + phantom.photons / 4)
    rules = (TraceRules(gap_um=0), TraceRules(gap_um=10))
    traced = [trace_mask(mask, UM, one) for one in rules]
    pictures = [drawn_errors(seen, one, made.tree, 1.0) for one in traced]
    space = np.full((pictures[0].shape[0], 12, 3), 255, np.uint8)
    Image.fromarray(np.concatenate([pictures[0], space, pictures[1]], axis=1)).save(file)
    for name, tree in zip(("gaps left", "gaps closed"), traced, strict=True):
        print(name, tree.roots, "pieces", score_trees(tree, made.tree, UM).as_facts())


if __name__ == "__main__":
    main()
