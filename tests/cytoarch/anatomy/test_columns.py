"""Columns of cortex on rings and slabs, whose thickness and curvature are known."""

import numpy as np
import pytest
from scipy import ndimage

from cytoarch.anatomy import columns
from cytoarch.anatomy.columns import along, bending, cell_density, layer_lengths, layer_means, part_lengths
from cytoarch.anatomy.traverses import traverses

OUTER, INNER, MIDDLE = 70.0, 40.0, 80.0


def ring(pial_outside: bool) -> np.ndarray:
    """Depth of a ring of cortex, 0 at its pial and 1 at its white side, by the harmonic field of an annulus."""
    y, x = np.mgrid[:161, :161]
    radius = np.maximum(np.hypot(y - MIDDLE, x - MIDDLE), 1e-6)
    depth = np.clip(np.log(OUTER / radius) / np.log(OUTER / INNER), 0, 1)
    return depth if pial_outside else 1 - depth


def places() -> np.ndarray:
    """Points where depth is one half."""
    angle, radius = np.linspace(0.1, 6.2, 12), np.sqrt(OUTER * INNER)
    return MIDDLE + radius * np.stack([np.sin(angle), np.cos(angle)], axis=1)


def test_a_ring_is_as_thick_as_its_radii_are_apart() -> None:
    ways = traverses(places(), ring(pial_outside=True), 60, 100.0)
    np.testing.assert_allclose(part_lengths(ways).sum(axis=1), OUTER - INNER, rtol=0.03)


@pytest.mark.parametrize(("pial_outside", "sign"), [(True, 1.0), (False, -1.0)])
def test_crowns_bend_by_one_over_their_radius_and_the_floor_of_a_sulcus_the_other_way(
    pial_outside: bool, sign: float
) -> None:
    bent = bending(ring(pial_outside), places(), 3.0)
    np.testing.assert_allclose(bent, sign / np.sqrt(OUTER * INNER), rtol=0.06)


def test_a_flat_slab_does_not_bend() -> None:
    depth = np.tile(np.clip((np.arange(60) - 10) / 40, 0, 1)[:, None], (1, 50))
    np.testing.assert_allclose(bending(depth, np.array([[30.0, 20.0], [25.0, 30.0]]), 3.0), 0, atol=1e-12)


@pytest.mark.parametrize("order", [0, 1])
def test_bands_of_rows_do_not_show(order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 9, (40, 30)).astype(np.uint8)
    at = rng.uniform(-1, 41, (50, 4, 2)) * [1.0, 0.75]
    at[3, 2] = np.nan
    monkeypatch.setattr(columns, "BAND_ROWS", 7)
    found = along(lambda top, rows: image[top : top + rows], image.shape, at, order)
    inside = np.clip(at, 0, [39, 29]).reshape(-1, 2)
    wanted = ndimage.map_coordinates(image.astype(float), np.nan_to_num(inside).T, order=order).reshape(50, 4)
    wanted[3, 2] = np.nan
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_layers_share_the_length_of_a_column() -> None:
    layers = np.array([[1, 1, 2, 3], [1, 2, 2, 2]], dtype=float)
    parts = np.array([[0.5, 0.5, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    ids = np.array([1, 2, 3])
    np.testing.assert_array_equal(layer_lengths(layers, parts, ids), [[1.0, 1.0, 2.0], [1.0, 3.0, 0.0]])
    values = np.array([[4.0, 8.0, 5.0, np.nan], [1.0, 1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(layer_means(values, layers, parts, ids), [[6.0, 5.0, np.nan], [1.0, 2.0, np.nan]])
    assert layer_lengths(layers, parts, ids[:0]).shape == (2, 0)


def test_even_cells_are_as_dense_at_the_edge_of_tissue_as_within() -> None:
    tissue = np.zeros((40, 40), dtype=bool)
    tissue[10:30, 8:32] = True
    cells = np.repeat(np.argwhere(tissue).astype(float), 3, axis=0)
    outside = np.array([[2.0, 2.0], [-5.0, 90.0]])
    found = cell_density(np.concatenate([cells, outside]), tissue, 2.0)
    np.testing.assert_allclose(found[tissue], 3.0)
    assert np.isnan(found[~tissue]).all()
