"""Anchorings: from places on a section to places in an atlas, as programs for registration export them.

- QuickNII, DeepSlice and ABBA's QuickNII export: JSON of slices with nine numbers, the upper left corner of the image
  in the atlas and its two edges (o, u, v). A place at the shares (y, x) of the image's height and width lies at
  o + x u + y v, in voxels counted from the corner of a volume that runs to the right, forward and up. DeepSlice also
  writes them as CSV.
- VisuAlign: the same with markers, which move places of the section before the nine numbers apply.
- ABBA's coordinate images: for every pixel x, y, z in mm.
- An affine as siibra states it: a matrix from pixels (x, y, 0, 1) to mm.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import LinearNDInterpolator

from cytoarch.errors import ManifestError
from cytoarch.geometry import HALF, Transform
from cytoarch.tables import csv_rows

Float64 = NDArray[np.float64]
Unit = Literal["voxels", "mm"]

NINE = ("ox", "oy", "oz", "ux", "uy", "uz", "vx", "vy", "vz")
REACH = 0.1
"""Share of the image beyond its corners at which markers no longer move anything (as VisuAlign does)."""


class Anchoring(Protocol):
    """Where a section lies in an atlas."""

    @property
    def unit(self) -> Unit:
        """What places in the atlas are counted in."""

    @property
    def target(self) -> tuple[int, int, int] | None:
        """(x, y, z) voxels of the volume that voxels are counted in, where that is stated."""

    def atlas(self, shares: Float64) -> Float64:
        """(..., 3) x, y, z in the atlas of places (..., 2), shares (y, x) of the section's height and width."""


@dataclass(frozen=True)
class LinearAnchoring:
    """A flat section, moved by markers where there are any."""

    to_atlas: Transform
    """(y, x) shares of height and width -> (x, y, z)."""
    unit: Unit = "voxels"
    target: tuple[int, int, int] | None = None
    markers: tuple[tuple[float, float, float, float], ...] = ()
    """(y, x) shares before and after: what the nine numbers alone put at the first is seen at the second."""

    @classmethod
    def of_nine(cls, numbers: Any, target: tuple[int, int, int] | None, markers: Any = ()) -> "LinearAnchoring":
        """QuickNII's nine numbers; markers as above. Raises ValueError if they are not nine finite numbers."""
        o, u, v = np.asarray(numbers, dtype=np.float64).reshape(3, 3)
        if not np.isfinite([o, u, v]).all() or np.linalg.norm(np.cross(u, v)) == 0:
            raise ValueError("its two edges span no plane")
        return cls(Transform.of(np.stack([v, u], axis=1), o), "voxels", target, tuple(map(tuple, markers)))

    @classmethod
    def of_affine(cls, matrix: Float64, height: int, width: int) -> "LinearAnchoring":
        """A matrix (4, 4) from pixels (x, y, 0, 1), zero at the centre of the first one, to mm."""
        pixels = Transform.scaling((float(height), float(width))).then(Transform.shift((-HALF, -HALF)))
        return cls(pixels.then(Transform.of(matrix[:3, [1, 0]], matrix[:3, 3])), "mm")

    def atlas(self, shares: Float64) -> Float64:
        """(..., 3) in the atlas of places (..., 2)."""
        moved = shares if self._moves is None else shares + self._moves(shares)
        return self.to_atlas(moved)

    @cached_property
    def _moves(self) -> Any:
        """From where a place is seen, what is added to it; linear in the triangles between markers."""
        if not self.markers:
            return None
        pairs = np.array(self.markers)
        corners = np.array([[y, x] for y in (-REACH, 1 + REACH) for x in (-REACH, 1 + REACH)])
        seen = np.concatenate([pairs[:, 2:], corners])
        moved = np.concatenate([pairs[:, :2] - pairs[:, 2:], np.zeros((4, 2))])
        return LinearNDInterpolator(seen, moved, fill_value=0.0)


@dataclass(frozen=True)
class CoordinateImage:
    """A place in the atlas for every pixel."""

    places: NDArray[np.float32]
    """(3, y, x) x, y, z mm."""
    unit: Unit = "mm"
    target: tuple[int, int, int] | None = None

    def atlas(self, shares: Float64) -> Float64:
        """(..., 3) in the atlas, linear between pixels, as at the edge beyond them."""
        at = shares * np.array(self.places.shape[1:]) - HALF
        rows = np.moveaxis(at, -1, 0)
        found = [ndimage.map_coordinates(plane, rows, order=1, mode="nearest") for plane in self.places]
        return np.stack(found, axis=-1).astype(np.float64)


def read_anchorings(path: Path) -> dict[str, Anchoring]:
    """The anchorings in a file, by the name of the image they were made on, without its suffix.

    JSON of QuickNII, DeepSlice, VisuAlign, ABBA, or of affines; CSV of DeepSlice; a TIFF of coordinates, under its own
    name. Raises ManifestError naming every slice that cannot be used.
    """
    if path.suffix.lower() == ".csv":
        return _from_csv(path)
    if path.suffix.lower() in (".tif", ".tiff"):
        return {path.stem: _coordinates(path)}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ManifestError(str(path), [f"is no JSON of anchorings ({error})"]) from None
    slices = content.get("slices") if isinstance(content, dict) else None
    if not isinstance(slices, list) or not slices:
        raise ManifestError(
            str(path), ["holds no slices; JSON as QuickNII, DeepSlice, VisuAlign or ABBA export is needed"]
        )
    resolution = content.get("target-resolution")
    found: dict[str, Anchoring] = {}
    faults: list[str] = []
    for number, one in enumerate(slices, start=1):
        name = Path(str(one.get("filename", ""))).stem if isinstance(one, dict) else ""
        try:
            if not name or name in found:
                raise ValueError("filename is missing or named twice")
            found[name] = _slice(one, tuple(map(int, resolution)) if resolution else None)
        except (KeyError, TypeError, ValueError) as error:
            faults.append(f"slice {number} {name!r}: {error}; anchoring (nine numbers), width and height are needed")
    if faults:
        raise ManifestError(str(path), faults)
    return found


def _slice(one: Mapping[str, Any], target: Any) -> LinearAnchoring:
    height, width = float(one["height"]), float(one["width"])
    if min(height, width) <= 0:
        raise ValueError(f"an image of {height} x {width} pixels")
    if "affine" in one:
        matrix = np.array(one["affine"], dtype=np.float64)
        if matrix.shape != (4, 4):
            raise ValueError(f"an affine of {matrix.shape}; 4 x 4 is needed")
        return LinearAnchoring.of_affine(matrix, int(height), int(width))
    x_y = [(m[1] / height, m[0] / width, m[3] / height, m[2] / width) for m in one.get("markers", ())]
    return LinearAnchoring.of_nine(one["anchoring"], target, x_y)


def _from_csv(path: Path) -> dict[str, Anchoring]:
    rows, faults = csv_rows(path, None, ("Filenames", *NINE))
    found: dict[str, Anchoring] = {}
    for number, row in rows:
        try:
            found[Path(row["Filenames"]).stem] = LinearAnchoring.of_nine([float(row[one]) for one in NINE], None)
        except (KeyError, ValueError) as error:
            faults.append(f"row {number}: {error}; nine numbers {', '.join(NINE)} are needed")
    if faults or not found:
        raise ManifestError(str(path), faults or ["no row"])
    return found


def _coordinates(path: Path) -> CoordinateImage:
    import tifffile

    try:
        places = tifffile.imread(path)
    except (OSError, ValueError) as error:
        raise ManifestError(str(path), [f"cannot be read ({error})"]) from None
    if places.ndim == 3 and places.shape[-1] == 3:
        places = np.moveaxis(places, -1, 0)
    if places.ndim != 3 or places.shape[0] != 3 or places.dtype.kind != "f":
        raise ManifestError(
            str(path), [f"holds {places.shape} {places.dtype}; x, y, z in mm for every pixel are needed, as floats"]
        )
    return CoordinateImage(places.astype(np.float32))
