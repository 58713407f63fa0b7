"""Rigid maps of the plane, with and without a mirror."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cytoarch.geometry import Float64, Pair, Transform


@dataclass(frozen=True)
class Rigid:
    """First mirrored left to right or not, then turned counter-clockwise as one sees it, then moved; (y, x) um."""

    mirrored: bool
    angle_deg: float
    shift_um: Pair

    @classmethod
    def identity(cls) -> Self:
        """The map that leaves all where it is."""
        return cls(False, 0.0, (0.0, 0.0))

    @classmethod
    def of(cls, matrix: NDArray[np.float64]) -> Self:
        """The rigid map nearest to an affine (2, 3).

        Its linear part is made orthogonal by singular values (orthogonal Procrustes problem, Schoenemann 1966).

        >>> Rigid.of(np.array([[0.0, 2.0, 5.0], [-2.0, 0.0, 7.0]]))
        Rigid(mirrored=False, angle_deg=-90.0, shift_um=(5.0, 7.0))
        """
        left, _, right = np.linalg.svd(matrix[:, :2])
        linear = left @ right
        mirrored = bool(np.linalg.det(linear) < 0)
        angle = math.degrees(math.atan2(linear[1, 0], linear[0, 0]))  # the mirror leaves the first column alone
        return cls(mirrored, angle, (float(matrix[0, 2]), float(matrix[1, 2])))

    @classmethod
    def fitted(cls, source: Float64, target: Float64, mirrored: bool = False) -> Self:
        """The map that brings points (n, 2) um nearest to others by least squares (Kabsch 1976, in the plane).

        Whether it mirrors is asked for, since noise must not decide that.
        """
        flipped = source * np.array([1.0, -1.0 if mirrored else 1.0])
        a, b = flipped - flipped.mean(axis=0), target - target.mean(axis=0)
        angle = math.atan2(float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()), float((a * b).sum()))
        turned = cls(mirrored, math.degrees(angle), (0.0, 0.0))
        y, x = (target.mean(axis=0) - turned(source.mean(axis=0))).tolist()
        return cls(mirrored, turned.angle_deg, (y, x))

    @property
    def transform(self) -> Transform:
        """The same as an affine of (y, x) um."""
        turned = Transform.orientation("horizontal" if self.mirrored else "none", self.angle_deg)
        return turned.then(Transform.shift(self.shift_um))

    def __call__(self, places_um: NDArray[np.float64]) -> Float64:
        """Places (..., 2) um, mapped."""
        return self.transform(places_um)

    def then(self, following: "Rigid") -> "Rigid":
        """The map that does this one first."""
        sign = -1.0 if following.mirrored else 1.0
        y, x = following(np.array(self.shift_um)).tolist()
        angle = following.angle_deg + sign * self.angle_deg
        return Rigid(self.mirrored != following.mirrored, apart_deg(0.0, angle), (y, x))

    def inverse(self) -> "Rigid":
        """The way back."""
        angle = self.angle_deg if self.mirrored else -self.angle_deg
        back = Rigid(self.mirrored, angle, (0.0, 0.0))
        y, x = (-back(np.array(self.shift_um))).tolist()
        return Rigid(self.mirrored, angle, (y, x))

    def about(self, centre_um: Pair, target_um: Pair) -> "Rigid":
        """The same mirror and turn about a place, which comes to lie on a target."""
        turned = Rigid(self.mirrored, self.angle_deg, (0.0, 0.0))
        y, x = (np.array(target_um) - turned(np.array(centre_um))).tolist()
        return Rigid(self.mirrored, self.angle_deg, (y, x))


def apart_deg(one: float, other: float) -> float:
    """The turn from one angle to another, from -180 up to 180 degrees.

    >>> apart_deg(170.0, -170.0), apart_deg(0.0, 180.0)
    (20.0, -180.0)
    """
    return (other - one + 180.0) % 360.0 - 180.0
