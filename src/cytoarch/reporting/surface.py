"""The picture of a surface in 3D: four views, lit from the eye, on one scale in mm."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cytoarch.anatomy.surfaces import Mesh
from cytoarch.reporting.rendered import figure_png

MOST_TRIANGLES = 60_000
"""Finer meshes are drawn coarser: more cannot be seen."""
VIEWS = (
    ("along the cutting axis", (0, 1, 2), 1),
    ("against it", (0, 1, 2), -1),
    ("from the side", (2, 1, 0), 1),
    ("from above", (0, 2, 1), 1),
)
"""Of x, y, z: what runs to the right, what downwards, what away from the eye, and from which end the eye looks."""
COLOUR = np.array([0.90, 0.78, 0.66])
AMBIENT = 0.3
"""Share of the light that comes from everywhere."""


def surface_picture(mesh: Mesh, title: str) -> bytes:
    """Four views of a mesh as PNG; the nearer triangle hides the farther."""
    drawn = coarser(mesh, MOST_TRIANGLES)
    figure = Figure(figsize=(11, 9), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    places = drawn.vertices_mm[np.unique(drawn.triangles)]
    lowest, highest = places.min(axis=0), places.max(axis=0)
    for at, (name, axes, end) in enumerate(VIEWS, start=1):
        _view(figure.add_subplot(2, 2, at), drawn, axes, end)
        panel = figure.axes[-1]
        for bounds, axis in ((panel.set_xlim, axes[0]), (panel.set_ylim, axes[1])):
            margin = 0.03 * (highest[axis] - lowest[axis])
            bounds(lowest[axis] - margin, highest[axis] + margin)
        panel.invert_yaxis()
        if end < 0:
            panel.invert_xaxis()
        panel.set_aspect("equal")
        panel.set_title(name, fontsize=10)
        panel.set_xlabel(f"{'xyz'[axes[0]]} (mm)", fontsize=8)
        panel.set_ylabel(f"{'xyz'[axes[1]]} (mm)", fontsize=8)
        panel.tick_params(labelsize=8)
    figure.suptitle(title, fontsize=12)
    return figure_png(figure)


def coarser(mesh: Mesh, most: int) -> Mesh:
    """A mesh of at most `most` triangles: vertices within a cube are joined in their middle."""
    edge_mm = float(np.median(mesh.edges_mm())) if len(mesh.triangles) else 1.0
    while len(mesh.triangles) > most:
        edge_mm *= max(1.2, math.sqrt(len(mesh.triangles) / most))
        cubes = np.floor(mesh.vertices_mm / edge_mm).astype(np.int64)
        _, joined = np.unique(cubes, axis=0, return_inverse=True)
        joined = joined.ravel()
        counts = np.bincount(joined)
        middles = np.stack([np.bincount(joined, mesh.vertices_mm[:, axis]) / counts for axis in range(3)], axis=1)
        triangles = joined[mesh.triangles]
        flat = (triangles == np.roll(triangles, 1, axis=1)).any(axis=1)
        mesh = Mesh.of(middles, triangles[~flat])
    return mesh


def _view(panel: Axes, mesh: Mesh, axes: tuple[int, int, int], end: int) -> None:
    corners = mesh.vertices_mm[mesh.triangles]
    away = end * corners[:, :, axes[2]].mean(axis=1)
    order = np.argsort(-away, kind="stable")
    flat = corners[order][:, :, [axes[0], axes[1]]]
    panel.add_collection(PolyCollection(list(flat), facecolors=_lit(mesh, axes[2])[order], edgecolors="none", aa=False))


def _lit(mesh: Mesh, axis: int) -> NDArray[np.float64]:
    """(t, 3) colours: the more a triangle faces the eye, the lighter; either side of it is lit."""
    normals = mesh.crosses
    facing = np.abs(normals[:, axis]) / np.maximum(np.linalg.norm(normals, axis=1), 1e-12)
    return np.asarray(COLOUR * (AMBIENT + (1 - AMBIENT) * facing)[:, None])
