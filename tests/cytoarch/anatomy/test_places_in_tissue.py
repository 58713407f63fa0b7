"""Where in the tissue a place lies, on a tissue whose distances are known."""

import numpy as np
import pytest

from cytoarch.anatomy.places import FARTHEST_MM, TissuePlaces
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.geometry import Grid

CELL_UM = 50.0


def tissue(white: bool = True) -> TissueMask:
    """Outside, 20 cells of grey matter, then white matter, as bands along y."""
    classes = np.ones((40, 30), dtype=np.uint8)
    classes[:10] = 0
    classes[30:] = 2 if white else 1
    return TissueMask(classes > 0, Grid.at_corner(classes.shape, CELL_UM, (100.0, -60.0)), classes)


def test_distances_and_the_share_of_the_way_are_those_of_the_bands() -> None:
    places = TissuePlaces.of(tissue())
    share, outside, white = places.channels(places.grid)
    rows = np.arange(10, 30)
    np.testing.assert_allclose(outside[rows, 7], (rows - 9) * CELL_UM / 1000, rtol=1e-5)
    np.testing.assert_allclose(white[rows, 7], (30 - rows) * CELL_UM / 1000, rtol=1e-5)
    np.testing.assert_allclose(share[rows, 7], (rows - 9) / 21, rtol=1e-5)
    assert (share[30:] == 1).all()
    assert (share[:10] == 0).all()


def test_finer_cells_lie_between_and_what_is_planted_is_found_at_its_place() -> None:
    places = TissuePlaces.of(tissue())
    fine = places.grid.split(4)
    share = places.channels(fine)[0]
    steps = np.diff(share[44:116, 60])
    np.testing.assert_allclose(steps, 1 / 84, rtol=1e-3)
    part = places.channels(fine.window(50, 8, 9, 12))
    np.testing.assert_allclose(part, places.channels(fine)[:, 50:59, 8:20], rtol=1e-6)
    beyond = places.channels(fine.window(-8, -8, 4, 4))
    assert (beyond[1] == 0).all()


@pytest.mark.parametrize("value", [0, 1, 2])
def test_where_a_side_is_missing_it_is_as_far_as_can_be(value: int) -> None:
    classes = np.full((6, 6), value, dtype=np.uint8)
    grid = Grid.at_corner(classes.shape, CELL_UM, (0.0, 0.0))
    values = TissuePlaces.of(TissueMask(classes > 0, grid, classes)).values
    assert np.isfinite(values).all()
    assert values[1].max() == (0 if value == 0 else FARTHEST_MM)
    assert values[2].max() == (0 if value == 2 else FARTHEST_MM)
    assert (values[0] == (1 if value == 2 else 0)).all()
    assert (TissuePlaces.of(tissue(white=False)).values[0] == 0).all()
