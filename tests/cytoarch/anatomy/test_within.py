"""A picture within tissue is told from a slide by its cells, however pale it is; slides stay slides."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from cytoarch.anatomy.doubts import WITHIN
from cytoarch.anatomy.tissue import Tissue, TissueSettings, find_tissue

Array = NDArray[Any]
FINE_UM, TIMES = 4.0, 16
"""Pixels that show cells, and how many of them an overview's pixel is long."""


def specks(edge_px: int, spacing_um: float, seed: int) -> Array:
    """Nuclei (y, x) of 12 um, one in a square of so many um on average."""
    rng = np.random.default_rng(seed)
    places = rng.integers(0, edge_px, (int((edge_px * FINE_UM / spacing_um) ** 2), 2))
    mask = np.zeros((edge_px, edge_px), dtype=bool)
    mask[tuple(places.T)] = True
    return np.asarray(ndimage.binary_dilation(mask, structure=np.ones((3, 3))))


def found(fine: Array, noise: float = 2.0, polarity: float = -1.0) -> Tissue:
    """The tissue of fine pixels (y, x) of stain, as a step finds it: on an overview, with a closer look."""
    glass = 240.0 if polarity < 0 else 20.0
    grey = glass + polarity * fine + np.random.default_rng(9).normal(0, noise, fine.shape)
    pixels: NDArray[np.float32] = np.clip(np.rint(grey), 0, 255).astype(np.float32)
    edge = len(pixels) // TIMES
    coarse = pixels.reshape(edge, TIMES, edge, TIMES).mean(axis=(1, 3))

    def look(y: int, x: int, height: int, width: int) -> NDArray[np.float32]:
        return pixels[None, TIMES * y : TIMES * (y + height), TIMES * x : TIMES * (x + width)]

    return find_tissue(coarse, FINE_UM * TIMES, TissueSettings(), look=look)


def photomicrograph(spacing_um: float = 60.0) -> Array:
    """Stain of 1.5 mm of pale tissue with a band of cells across it."""
    edge = 24 * TIMES
    y, x = np.mgrid[:edge, :edge]
    band = np.abs(y - 200 - 0.2 * x) < 25
    stain = np.where(band, 45.0, 15.0)
    return np.where(specks(edge, spacing_um, seed=1), 120.0, stain)


def slide(dust_um: float, cells: int = 96, middle: float = 1.0) -> Array:
    """Stain of 6 mm of slide: tissue that reaches its lower edge, with cells, and dust everywhere."""
    edge = cells * TIMES
    y, x = np.mgrid[:edge, :edge] / edge
    tissue = (y - middle) ** 2 + (x - 0.5) ** 2 < 0.35**2
    stain = np.where(tissue, np.where(specks(edge, 50.0, seed=2), 130.0, 50.0), 0.0)
    return np.where(specks(edge, dust_um, seed=3), 150.0, stain)


@pytest.mark.parametrize("polarity", [-1.0, 1.0], ids=["dark", "bright"])
def test_a_photomicrograph_of_pale_tissue_is_tissue_up_to_its_edges(polarity: float) -> None:
    tissue = found(photomicrograph(), polarity=polarity)
    assert tissue.mask.all()
    assert tissue.doubts == (WITHIN,)


@pytest.mark.parametrize("dust_um", [1e9, 1000.0, 400.0], ids=["clean", "some dust", "much dust"])
def test_a_slide_whose_tissue_reaches_an_edge_stays_a_slide(dust_um: float) -> None:
    tissue = found(slide(dust_um))
    assert WITHIN not in tissue.doubts
    area = np.pi * (0.35 * 96) ** 2 / 2
    assert tissue.mask.sum() == pytest.approx(area, rel=0.05)


@pytest.mark.parametrize("polarity", [-1.0, 1.0], ids=["dark", "bright"])
@pytest.mark.parametrize("dust_um", [60.0, 90.0, 120.0, 130.0])
@pytest.mark.parametrize(("cells", "middle"), [(96, 0.5), (96, 1.0), (24, 0.5)], ids=["round", "cut off", "tiny"])
def test_a_slide_full_of_dust_stays_a_slide(dust_um: float, polarity: float, cells: int, middle: float) -> None:
    tissue = found(slide(dust_um, cells, middle), polarity=polarity)
    assert WITHIN not in tissue.doubts
    assert tissue.mask.sum() == pytest.approx(np.pi * (0.35 * cells) ** 2 / (2 * middle), rel=0.08)


def test_noise_is_no_cell() -> None:
    faint = np.where(slide(1e9) > 0, 25.0, 0.0)
    tissue = found(faint, noise=12.0)
    assert WITHIN not in tissue.doubts
    assert not tissue.mask.all()
