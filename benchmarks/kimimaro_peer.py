"""Traces a stack with kimimaro (TEASAR); run with the Python of an environment that has it.

    PYTHON benchmarks/kimimaro_peer.py STACK THRESHOLD TREE.swc

The environment needs kimimaro 5.8 and tifffile. From the farthest voxel of every piece, shortest paths that keep to the
middle are walked until balls around them cover the piece. Its parameters are those of its manual, lengths in voxels.
"""

import sys
import time
from pathlib import Path

import kimimaro
import numpy as np
import tifffile

PARAMETERS = {"scale": 1.5, "const": 5, "pdrf_scale": 100_000, "pdrf_exponent": 4}


def main(stack: str, threshold: str, tree: str) -> int:
    """Trace, write the tree in voxels (x, y, z); prints the seconds."""
    mask = np.asfortranarray((tifffile.imread(stack) > float(threshold)).T.astype(np.uint8))
    start = time.perf_counter()
    found = kimimaro.skeletonize(
        mask, teasar_params=PARAMETERS, anisotropy=(1, 1, 1), dust_threshold=0, progress=False, parallel=1
    )
    seconds = time.perf_counter() - start
    Path(tree).write_text(found[1].to_swc(), encoding="utf-8")
    print(f"{seconds:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
