"""Trees for viewers: paths that napari opens as shapes, skeletons that neuroglancer reads."""

import json
import struct

import numpy as np

from cytoarch.neurons.trees import ROOT, Int64, Tree, Triple

NM_PER_UM = 1000
NEURON = "1"
"""The id of the skeleton."""


def napari_shapes(tree: Tree, voxel_um: Triple) -> str:
    """A CSV file of paths in voxels (z, y, x), one from fork to fork or end, as napari's shapes layer reads it."""
    lines = ["index,shape-type,vertex-index,axis-0,axis-1,axis-2"]
    places = tree.in_units(voxel_um)
    for number, path in enumerate(branches(tree)):
        for at, node in enumerate(path):
            z, y, x = places[node]
            lines.append(f"{number},path,{at},{z:.3f},{y:.3f},{x:.3f}")
    return "\n".join(lines) + "\n"


def neuroglancer_skeletons(tree: Tree) -> dict[str, bytes]:
    """The files of a precomputed skeleton source: `info`, and the tree as segment 1, in nm, with radii in um."""
    info = {
        "@type": "neuroglancer_skeletons",
        "transform": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
        "vertex_attributes": [{"id": "radius", "data_type": "float32", "num_components": 1}],
    }
    edges = tree.edges
    parts = [
        struct.pack("<II", len(tree), len(edges)),
        (tree.points_um[:, ::-1] * NM_PER_UM).astype("<f4").tobytes(),
        edges.astype("<u4").tobytes(),
        tree.radii_um.astype("<f4").tobytes(),
    ]
    return {"info": json.dumps(info).encode(), NEURON: b"".join(parts)}


def branches(tree: Tree) -> list[list[int]]:
    """The nodes of every unbranched way, from an end or fork up to the fork or root above it, both included."""
    children: Int64 = np.bincount(tree.parents[tree.parents != ROOT], minlength=len(tree)).astype(np.int64)
    starts = np.flatnonzero((children != 1) & (tree.parents != ROOT))
    found: list[list[int]] = []
    for start in starts:
        path = [int(start), int(tree.parents[start])]
        while children[path[-1]] == 1 and tree.parents[path[-1]] != ROOT:
            path.append(int(tree.parents[path[-1]]))
        found.append(path)
    return found
