"""k-means over many embeddings, streamed from Zarr, beside faiss with all points in memory.

`python -m benchmarks.discovery` (some five minutes on two cores; 1,000,000 x 768, three starts) writes the table into
the README, which says how `faiss-cpu` is put beside the product. faiss trains on every point and not on its default
sample, and reading and scaling its points is not in its time; ours reads float16 from Zarr in every pass.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from benchmarks.cases import write_block
from cytoarch.discovery.clusters import START_TOKENS, Clustering, ClusterSettings
from cytoarch.discovery.lloyd import lloyd

README = Path(__file__).parent / "README.md"
BLOCK = "k-means: written by python -m benchmarks.discovery"
CHUNK, KINDS, LATENT = 16_384, 24, 32
PASSES = 10
ROUNDS = 25
"""Rounds of faiss at each start, its default."""
GIB = 1 << 30


def write_points(path: Path, count: int, width: int) -> None:
    """Points (n, c) float16 in Zarr: overlapping kinds that differ in few directions, and noise in all."""
    rng = np.random.default_rng(0)
    middles = rng.normal(0, 1.6, (KINDS, LATENT)).astype(np.float32)
    outwards = rng.normal(0, 1, (LATENT, width)).astype(np.float32)
    array = zarr.create_array(path, shape=(count, width), chunks=(min(CHUNK, count), width), dtype=np.float16)
    for start in range(0, count, CHUNK):
        rows = min(CHUNK, count - start)
        latent = middles[rng.integers(0, KINDS, rows)] + rng.normal(0, 1, (rows, LATENT)).astype(np.float32)
        noise = rng.standard_normal((rows, width), dtype=np.float32)
        array[start : start + rows] = (latent @ outwards + 2 * noise).astype(np.float16)


def blocks(path: Path) -> Iterator[NDArray[Any]]:
    """The points, chunk by chunk."""
    array = zarr.open_array(path, mode="r")
    for start in range(0, array.shape[0], CHUNK):
        yield np.asarray(array[start : start + CHUNK])


def ours(path: Path, settings: ClusterSettings) -> tuple[Clustering, float, str]:
    """The clusters, the seconds they took, and what was done."""
    start = time.perf_counter()
    array = zarr.open_array(path, mode="r")
    step = max(1, array.shape[0] // START_TOKENS)
    sample = np.concatenate([block[::step] for block in blocks(path)])[:START_TOKENS]
    found, passed = Clustering.fit([sample], settings).refined(lambda: blocks(path), PASSES)
    return found, time.perf_counter() - start, f"{passed.passes} passes"


def by_faiss(path: Path, settings: ClusterSettings, scale: Clustering) -> tuple[Clustering, float, str]:
    """The same by faiss, in memory, on points that were scaled as ours are."""
    import faiss

    array = zarr.open_array(path, mode="r")
    points = np.empty(array.shape, dtype=np.float32)
    for number, block in enumerate(blocks(path)):
        part = points[number * CHUNK : number * CHUNK + len(block)]
        np.subtract(block, scale.mean, out=part)
        part /= scale.spread
    start = time.perf_counter()
    model = faiss.Kmeans(
        points.shape[1], settings.clusters, niter=ROUNDS, nredo=settings.restarts, seed=1,
        max_points_per_centroid=len(points),
    )  # fmt: skip
    model.train(points)
    seconds = time.perf_counter() - start
    return Clustering(scale.mean, scale.spread, model.centroids), seconds, f"{settings.restarts} x {ROUNDS} rounds"


class Found(NamedTuple):
    """What one of both took and found."""

    seconds: float
    peak_bytes: int
    inertia: float
    said: str


def measured(who: str, folder: Path, settings: ClusterSettings) -> Found:
    """Run one of both in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.discovery", "--here", who, "--folder", str(folder)]
    command += ["--clusters", str(settings.clusters), "--restarts", str(settings.restarts)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=dict(os.environ))
    return Found(**json.loads(done.stdout.splitlines()[-1]))


def here(who: str, folder: Path, settings: ClusterSettings) -> Found:
    """Run one of both in this process; its inertia is found by one more pass, which is not in its time."""
    path, kept = folder / "points.zarr", folder / "ours.safetensors"
    if who == "ours":
        found, seconds, said = ours(path, settings)
        kept.write_bytes(found.to_bytes())
    else:
        found, seconds, said = by_faiss(path, settings, Clustering.from_bytes(kept.read_bytes()))
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    inertia = lloyd(lambda: blocks(path), found.mean, found.spread, found.centres, 1).inertia
    return Found(seconds, peak, inertia, said)


def main() -> int:
    """Measure both, print and write the table; 1 if ours is slower, looser by 1 % or takes more than 2 GiB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--clusters", type=int, default=8)
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the points there")
    parser.add_argument("--here", choices=["ours", "faiss"], help="measure one in this process, print JSON")
    given = parser.parse_args()
    settings = ClusterSettings(clusters=given.clusters, restarts=given.restarts)
    if given.here:
        print(json.dumps(here(given.here, given.folder, settings)._asdict()))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "points.zarr").exists():
            write_points(folder / "points.zarr", given.count, given.width)
        shape = zarr.open_array(folder / "points.zarr", mode="r").shape
        found = {who: measured(who, folder, settings) for who in ("ours", "faiss")}
    lines = [
        f"{shape[0]:,} x {shape[1]} float16 in Zarr, {settings.clusters} clusters, {settings.restarts} starts.",
        "",
        "| by | seconds | peak memory (GiB) | inertia a point | |",
        "|---|---|---|---|---|",
        *(
            f"| {who} | {one.seconds:.1f} | {one.peak_bytes / GIB:.2f} | {one.inertia:.3f} | {one.said} |"
            for who, one in found.items()
        ),
    ]
    print("\n".join(lines))
    one, peer = found["ours"], found["faiss"]
    print(f"its time / ours {peer.seconds / one.seconds:.2f}, our inertia / its {one.inertia / peer.inertia:.4f}")
    if shape == (1_000_000, 768):
        write_block(README, BLOCK, "\n".join(lines))
    return int(one.seconds > peer.seconds or one.inertia > 1.01 * peer.inertia or one.peak_bytes > 2 * GIB)


if __name__ == "__main__":
    sys.exit(main())
