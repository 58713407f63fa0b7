"""Traces a stack with Rivulet2 (Liu et al. 2018); run with the Python of an environment that has it.

    PYTHON benchmarks/rivulet_peer.py STACK THRESHOLD TREE.swc

The environment needs rivuletpy 0.2.0 with scikit-fmm, SimpleITK, tifffile and a SciPy before 1.14. Fast marching from
the cell body, paths walked back and erased until the mask is covered, short leaves pruned: of the family of Vaa3D's
all-path pruning (Xiao and Peng 2013), which no package has. Prints the seconds. Paths that meet nothing begin a tree.
"""

import sys
import time
from types import ModuleType

import numpy as np
import tifffile

# imported by rivuletpy for settings that are not used here
for _missing in ("filtering", "filtering.morphology", "msfm"):
    sys.modules[_missing] = ModuleType(_missing)
sys.modules["filtering.morphology"].ssm = None  # type: ignore[attr-defined]  # a stand-in

from rivuletpy.trace import R2Tracer  # noqa: E402 - after the stand-ins


def main(stack: str, threshold: str, tree: str) -> int:
    """Trace, prune, write the tree in voxels (x, y, z)."""
    pixels = np.ascontiguousarray(tifffile.imread(stack).T)
    start = time.perf_counter()
    swc, _ = R2Tracer(silent=True).trace(pixels, float(threshold))
    swc.prune()
    seconds = time.perf_counter() - start
    rows = swc._data[:, :7]
    rows[:, 1] = 3
    rows[~np.isin(rows[:, 6], rows[:, 0]), 6] = -1
    rows[:, 5] = np.maximum(rows[:, 5], 0.5)
    np.savetxt(tree, rows, fmt="%d %d %.3f %.3f %.3f %.3f %d")
    print(f"{seconds:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
