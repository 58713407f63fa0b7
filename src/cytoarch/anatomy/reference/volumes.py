"""Atlas volumes of labels, read from NIfTI and NRRD and turned to one orientation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.reference.anchorings import Anchoring
from cytoarch.errors import ManifestError
from cytoarch.geometry import HALF, Transform

Float64 = NDArray[np.float64]

_NAMES = ({"L", "R"}, {"A", "P"}, {"S", "I"})


@dataclass(frozen=True)
class AtlasVolume:
    """Labels of an atlas; its axes run to the right, forward and up."""

    labels: NDArray[Any]
    """(x, y, z) ids, 0 outside."""
    to_mm: Transform
    """From voxels (x, y, z), zero at the centre of the first one, to mm."""

    @classmethod
    def read(cls, path: Path, axes: str = "") -> Self:
        """A volume of NIfTI (.nii, .nii.gz) or NRRD (.nrrd).

        `axes` states where the axes of the file run, such as PIR for the Allen CCF: to posterior, inferior, right;
        blank: as the file says. Raises ManifestError if it is no volume of whole numbers.
        """
        labels, affine = _nrrd(path) if path.suffix.lower() == ".nrrd" else _nifti(path)
        if labels.ndim != 3:
            raise ManifestError(str(path), [f"has {labels.ndim} axes; a volume of three is needed"])
        if labels.dtype.kind == "f":
            whole = np.rint(labels)
            if not np.array_equal(whole, labels):
                raise ManifestError(str(path), ["holds numbers that are not whole; a volume of labels is needed"])
            labels = whole.astype(np.int64)
        return cls(*_turned(labels, affine, _codes(path, axes)))

    def voxels(self, anchoring: Anchoring, shares: Float64) -> Float64:
        """(..., 3) voxels, counted from the corner of the volume, of places (..., 2) of a section."""
        places = anchoring.atlas(shares)
        if anchoring.unit == "mm":
            return np.asarray(self.to_mm.inverse()(places) + HALF)
        if anchoring.target is None:
            return places
        return np.asarray(places * (np.array(self.labels.shape) / np.array(anchoring.target)))

    def at(self, voxels: Float64) -> NDArray[Any]:
        """The labels (...) at places (..., 3) counted from the corner; 0 outside the volume."""
        cells = np.floor(voxels).astype(np.int64)
        inside = np.asarray(((cells >= 0) & (cells < np.array(self.labels.shape))).all(axis=-1))
        held = np.where(inside[..., None], cells, 0)
        return np.where(inside, self.labels[held[..., 0], held[..., 1], held[..., 2]], 0)

    def hemisphere(self, voxels: Float64) -> NDArray[np.uint8]:
        """(...) 1 left, 2 right of the middle of the volume, which is that of the brain in symmetric atlases."""
        return np.where(voxels[..., 0] < HALF * self.labels.shape[0], np.uint8(1), np.uint8(2))


def _nifti(path: Path) -> tuple[NDArray[Any], Float64]:
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    try:
        image = nibabel.load(path)
        return np.asanyarray(image.dataobj), np.asarray(image.affine, dtype=np.float64)
    except (OSError, ValueError, ImageFileError) as error:
        raise ManifestError(str(path), [f"cannot be read as NIfTI or NRRD ({error})"]) from None


def _nrrd(path: Path) -> tuple[NDArray[Any], Float64]:
    """Data and affine of a NRRD; its sizes are taken as um where they are 1 or more, as those of atlases are."""
    import nrrd

    try:
        data, header = nrrd.read(str(path))
    except (OSError, ValueError, nrrd.NRRDError) as error:
        raise ManifestError(str(path), [f"cannot be read as NRRD ({error})"]) from None
    directions = np.asarray(header.get("space directions", np.eye(3)), dtype=np.float64)
    origin = np.asarray(header.get("space origin", np.zeros(3)), dtype=np.float64)
    space = str(header.get("space", "right-anterior-superior")).lower()
    signs = [-1.0 if wrong in space else 1.0 for wrong in ("left", "posterior", "inferior")]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions.T * np.array(signs)[:, None], origin * signs
    if np.abs(directions).max() >= 1:
        affine[:3] /= 1000
    return data, affine


def _codes(path: Path, axes: str) -> tuple[str, ...] | None:
    """The letters of `axes`; None where the file's own are taken."""
    if not axes:
        return None
    letters = tuple(axes.upper())
    if len(letters) != 3 or not all(sum(one in pair for one in letters) == 1 for pair in _NAMES):
        raise ManifestError(
            str(path), [f"axes {axes!r}: one of L R, one of A P and one of S I are needed, such as PIR"]
        )
    return letters


def _turned(labels: NDArray[Any], affine: Float64, codes: tuple[str, ...] | None) -> tuple[NDArray[Any], Transform]:
    """Labels and their affine with axes that run to the right, forward and up."""
    from nibabel.orientations import (
        aff2axcodes,
        apply_orientation,
        axcodes2ornt,
        inv_ornt_aff,
        ornt_transform,
    )

    if codes is not None:  # the file's own directions do not count then, its sizes do
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        signed = np.zeros((4, 4))
        for column, (letter, size) in enumerate(zip(codes, sizes, strict=True)):
            row = next(at for at, pair in enumerate(_NAMES) if letter in pair)
            signed[row, column] = size if letter in "RAS" else -size
        signed[3, 3] = 1.0
        affine = signed
    turn = ornt_transform(axcodes2ornt(aff2axcodes(affine)), axcodes2ornt(("R", "A", "S")))
    to_mm = affine @ inv_ornt_aff(turn, labels.shape)
    return np.ascontiguousarray(apply_orientation(labels, turn)), Transform.of(to_mm[:3, :3], to_mm[:3, 3])
