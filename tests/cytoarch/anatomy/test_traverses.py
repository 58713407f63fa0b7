"""Traverses across the cortex: straight through a slab, along the radius of a ring, nowhere else."""

import numpy as np

from cytoarch.anatomy.depth import measure_depth
from cytoarch.anatomy.midline import depth_field
from cytoarch.anatomy.ribbons import Ribbon
from cytoarch.anatomy.traverses import area_shares, by_area, curvatures, profiles_along, traverses
from cytoarch.geometry import centres

GREY, WHITE = 1, 2


def field_of(classes: np.ndarray) -> np.ndarray:
    """Depth of tissue classes (y, x), going on beyond its sides."""
    found = measure_depth(Ribbon.of(classes.astype(np.uint8), 1.0, sides="block"), "laplace")
    return depth_field(found.depth, found.cortex, classes == WHITE)


def slab() -> np.ndarray:
    """Cortex of 20 rows over white matter."""
    classes = np.zeros((40, 60))
    classes[6:26], classes[26:34] = GREY, WHITE
    return classes


def ring() -> tuple[np.ndarray, np.ndarray]:
    """Cortex between the radii of 20 and 36 around white matter, and the radius of every cell."""
    y, x = np.indices((91, 91)) - 45
    radius = np.hypot(y, x)
    return np.where(radius < 20, WHITE, np.where(radius < 36, GREY, 0)), radius


def test_a_slab_is_crossed_straight_at_the_depths_asked_for() -> None:
    field = field_of(slab())
    places = np.array([[15.5, 20.0], [15.5, 33.5]])
    ways = traverses(places, field, 10, 40)
    assert np.isfinite(ways).all()
    np.testing.assert_allclose(ways[..., 1], [[20.0] * 10, [33.5] * 10], atol=1e-6)
    np.testing.assert_allclose(ways[0, :, 0], 5.5 + 20 * centres(0, 1, 10), atol=0.05)


def test_a_ring_is_crossed_along_its_radius() -> None:
    classes, _ = ring()
    field = field_of(classes)
    angles = np.linspace(0.1, 6.2, 17)
    places = 45 + 27.5 * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    ways = traverses(places, field, 12, 40)
    assert np.isfinite(ways).all()
    turned = np.arctan2(ways[..., 0] - 45, ways[..., 1] - 45)
    away = np.angle(np.exp(1j * (turned - angles[:, None])))
    assert np.abs(away).max() < 0.06
    radius = np.linalg.norm(ways - 45, axis=-1)
    assert (np.diff(radius, axis=1) < 0).all()
    assert radius[:, 0].min() > 33
    assert radius[:, -1].max() < 23


def test_columns_of_a_ring_hold_more_near_the_outside_and_those_of_a_slab_as_much_everywhere() -> None:
    radii, angles = 20 + 16 * (1 - centres(0, 1, 40)), np.linspace(0, 3, 150)
    ways = radii[:, None] * np.stack([np.sin(angles), np.cos(angles)], axis=1)[:, None]
    expected = (36**2 - radii**2) / (36**2 - 20**2)  # of the ring's area, what lies outside of a radius
    shares = area_shares(ways, np.zeros(150, dtype=np.int64), sigma=1.0)
    np.testing.assert_allclose(shares[20:-20], np.broadcast_to(expected, (110, 40)), atol=1e-3)
    straight = np.stack(np.broadcast_arrays(centres(0, 20, 40), np.arange(9.0)[:, None]), axis=-1)
    np.testing.assert_allclose(area_shares(straight, np.zeros(9, dtype=np.int64)), [centres(0, 1, 40)] * 9, atol=1e-12)


def test_a_layer_of_even_volume_lies_at_one_place_of_profiles_by_area_however_cortex_bends() -> None:
    shares = np.stack([centres(0, 1, 50), centres(0, 1, 50) ** 1.5, np.full(50, np.nan)])
    seen = (np.abs(shares - 0.4) < 0.1).astype(float)
    found = by_area(seen, shares)
    assert np.abs(found[0] - found[1]).mean() < 0.02
    assert np.isnan(found[2]).all()


def test_a_way_that_is_longer_than_allowed_or_that_meets_another_bank_breaks_off() -> None:
    field = field_of(slab())
    assert np.isnan(traverses(np.array([[15.5, 20.0]]), field, 10, 4)).all()
    banks = np.minimum(np.abs(np.arange(40) - 20) / 30, 1)[:, None].repeat(9, axis=1)  # depth 0 in between only
    banks[20] = 0.2
    found = traverses(np.array([[28.0, 4.0]]), 0.2 + 0.5 * banks, 10, 60)
    assert np.isnan(found).all()


def test_values_are_read_where_the_ways_lead_and_gaps_stay() -> None:
    pixels = np.add.outer(10 * np.arange(8.0), np.arange(9.0)).astype(np.float32)
    ways = np.array([[[1.0, 2.0], [1.5, 2.0]], [[np.nan, np.nan], [3.0, 4.0]]])
    np.testing.assert_allclose(profiles_along(pixels, ways), [[12, 17], [np.nan, 34]])


def test_a_circle_bends_by_one_over_its_radius_to_either_side() -> None:
    angles = np.linspace(0, 5, 120)
    circle = 50 + 20 * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    straight = np.stack([np.arange(120.0), np.arange(120.0)], axis=1)
    line = np.repeat([0, 1, 2, 3], [120, 120, 120, 2])
    found = curvatures(np.concatenate([circle, circle[::-1], straight, straight[:2]]), line, 1.0)
    inner = np.arange(8, 112)
    np.testing.assert_allclose(np.abs(found[inner]), 1 / 20, rtol=0.02)
    np.testing.assert_allclose(found[120 + inner], -found[inner][::-1], rtol=0.02)
    np.testing.assert_allclose(found[240:], 0, atol=1e-9)
