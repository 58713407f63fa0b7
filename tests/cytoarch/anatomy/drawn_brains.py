"""Brains drawn from formulas: noise-free pictures of sections that lie as they are told to, and are nothing else."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.reconstruction import Overview, Rigid, Stated
from cytoarch.geometry import Grid, Transform

CELL_UM = 64.0
GRID = Grid((130, 150), CELL_UM, (0.0, 0.0))
SPACING_UM = 300.0


def stained(place_um: NDArray[np.float64], z: float, symmetric: bool = False) -> NDArray[np.float64]:
    """How strongly a brain is stained at (..., 2) um in its plane: a lobed outline, a pale core, four nuclei."""
    y, x = place_um[..., 0] / 1000, place_um[..., 1] / 1000
    left = 0.0 if symmetric else 1.0
    angle, far = np.arctan2(y, x if not symmetric else np.abs(x)), np.hypot(y, x * 0.85)
    edge = 3.0 + 0.5 * z + 0.25 * np.cos(5 * angle + 2 * z) + 0.3 * left * np.sin(3 * angle + 0.5)
    value = _soft(edge - far) * (1.0 - 0.35 * _soft(edge - 0.8 - far))
    for at, (v, u, size) in enumerate(((-1.0, 0.9, 0.5), (0.4, 1.2, 0.4), (1.2, 0.5, 0.35), (-0.4, -1.1, 0.6))):
        for side in (1.0, -1.0) if symmetric else (1.0,):
            value += 0.25 * _soft(size + 0.1 * z * (-1) ** at - np.hypot(y - v, side * x - u - 0.3 * z))
    return np.asarray(value)


def _soft(distance_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 0 to 1 over a few tenths of a millimetre, so that cells sample it well."""
    return np.asarray(0.5 + 0.5 * np.tanh(distance_mm / 0.08))


def overview(lies: Rigid | Transform, z: float = 0.0, symmetric: bool = False, bright: bool = False) -> Overview:
    """The picture of a section whose (y, x) um come to the brain's plane by `lies`."""
    y, x = GRID.centres_um()
    value = stained(lies(np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)), z, symmetric)
    grey = 20 + 150 * value if bright else 230 - 120 * value
    return Overview(grey.astype(np.float32), value > 0.5, GRID, "bright" if bright else "dark")


def lying(angles_deg: Sequence[float], mirrored: Sequence[int] = (), seed: int = 0) -> list[Rigid]:
    """Sections near the middle of their slides, turned, some of them mirrored."""
    shifts = np.random.default_rng(seed).uniform(-400, 400, (len(angles_deg), 2))
    return [
        Rigid(at in mirrored, angle, (0.0, 0.0)).about(GRID.centre_um, (float(y), float(x)))
        for at, (angle, (y, x)) in enumerate(zip(angles_deg, shifts, strict=True))
    ]


def series(overviews: Sequence[Overview]) -> tuple[list[Stated], Mapping[str, Overview]]:
    """What the manifest states of such sections, and their pictures."""
    names = [f"s{at}" for at in range(len(overviews))]
    stated = [Stated(name, at, z_um=at * SPACING_UM) for at, name in enumerate(names)]
    return stated, dict(zip(names, overviews, strict=True))


def farthest_um(found: Mapping[str, Rigid], true: Mapping[str, Rigid], base: str) -> float:
    """How far places in the tissue of sections lie from where they belong, in the frame of the base."""
    to_base = true[base].inverse().then(found[base])
    corners = GRID.um(np.array([[30, 40], [30, 110], [100, 40], [100, 110]]))
    return max(float(np.linalg.norm(found[one](corners) - to_base(true[one](corners)), axis=1).max()) for one in found)
