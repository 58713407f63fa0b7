import numpy as np
import pytest

from cytoarch.phantoms.cells import (
    LARGEST,
    NUCLEUS_CELLS,
    SIZE_SPREAD,
    WHITE_CELLS,
    Cells,
    cell_table,
    cells_in,
    drawn_cells,
)
from cytoarch.phantoms.kernels import GREY, NUCLEUS, WHITE
from cytoarch.phantoms.nuisances import Nuisances
from cytoarch.phantoms.sections import Phantom, PhantomSection, PhantomSettings, Window, cut, make_phantom
from cytoarch.phantoms.truth import Truth, truth, truth_at

NUISANCES = Nuisances.none().but(shrinkage=0.15, rotation=15, tilt=8, translation=0.5)
NUMBERS = (260, 480, 640)
PIXEL_UM = 20.0
BOX = (3.0, 3.0, 19.0, 24.0)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(PhantomSettings(seed=3, resolution=48, nuisances=NUISANCES))


@pytest.fixture(scope="module")
def found(phantom: Phantom) -> list[tuple[PhantomSection, Cells, Truth]]:
    """Some sections, their cells in a box, and the truth of the box's pixels."""
    sections = [cut(phantom, number) for number in NUMBERS]
    window = Window(150, 150, 800, 1050)
    return [(one, cells_in(one, BOX), truth(one, window, PIXEL_UM)) for one in sections]


def tissue_mm3(section: PhantomSection, pixels: np.ndarray | int) -> np.ndarray:
    """The tissue of the brain that so many pixels of the slide show: what shrank is that much more."""
    shown = np.asarray(pixels) * (PIXEL_UM / 1000) ** 2 / (1 - section.mounting.shrinkage) ** 2
    return shown * section.phantom.settings.thickness_um / 1000


def rows_of(cells: Cells) -> np.ndarray:
    rows = np.column_stack(
        [cells.slide_mm, cells.radius_um, cells.layer, cells.area, np.nan_to_num(cells.depth, nan=-1)]
    )
    return rows[np.lexsort(rows.T)]


def test_every_layer_has_as_many_cells_as_its_density_says(found: list[tuple[PhantomSection, Cells, Truth]]) -> None:
    for layer in range(1, 7):
        count, expected = 0, 0.0
        for section, cells, true in found:
            here = true.layer == layer
            count += int((cells.layer == layer).sum())
            expected += float(tissue_mm3(section, 1) * true.density_per_mm3[here, layer - 1].sum(dtype=np.float64))
        assert expected > 3000
        assert abs(count - expected) < 4 * np.sqrt(expected)
        assert count == pytest.approx(expected, rel=0.03)


def test_every_layer_of_every_area_has_the_cells_of_its_own_profile(
    phantom: Phantom, found: list[tuple[PhantomSection, Cells, Truth]]
) -> None:
    seen = 0
    for area in range(1, 25):
        for layer in range(1, 7):
            volume = sum(tissue_mm3(s, ((t.area == area) & (t.layer == layer)).sum()) for s, _, t in found)
            count = sum(int(((c.area == area) & (c.layer == layer)).sum()) for _, c, _ in found)
            expected = float(volume * phantom.brain.profiles[area - 1].density_per_mm3[layer - 1])
            if expected > 500:
                seen += 1
                # borders are counted in whole pixels, which adds to the error of sampling
                assert abs(count - expected) < 4.5 * np.sqrt(expected) + 0.02 * expected
    assert seen > 40


def test_white_matter_and_nucleus_have_cells_of_their_own(found: list[tuple[PhantomSection, Cells, Truth]]) -> None:
    for tissue, area, (density, radius, _, _) in ((WHITE, 0, WHITE_CELLS), (NUCLEUS, 25, NUCLEUS_CELLS)):
        expected = float(sum(tissue_mm3(s, (t.tissue == tissue).sum()) * density for s, _, t in found))
        count = sum(int(((c.area == area) & (c.layer == 0)).sum()) for _, c, _ in found)
        assert count == pytest.approx(expected, rel=0.03)
        shrunk = np.concatenate([c.radius_um[c.area == area] / (1 - s.mounting.shrinkage) for s, c, _ in found])
        assert shrunk.mean() == pytest.approx(radius * np.exp(SIZE_SPREAD**2 / 2), rel=0.02)


def test_cells_lie_in_tissue_and_know_where(found: list[tuple[PhantomSection, Cells, Truth]]) -> None:
    for section, cells, _ in found:
        true = truth_at(section, cells.slide_mm)
        assert (true.tissue > 0).mean() > 0.9999
        cortex = true.tissue == GREY
        assert (cells.layer[cortex] == true.layer[cortex]).mean() > 0.9999
        assert (cells.area[cortex] == true.area[cortex]).mean() > 0.9999
        np.testing.assert_array_equal(np.isfinite(cells.depth), cells.layer > 0)
        np.testing.assert_allclose(cells.depth[cortex], true.depth[cortex], atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1])
def test_no_cell_is_lost_or_doubled_where_two_boxes_meet(phantom: Phantom, axis: int) -> None:
    section = cut(phantom, 480)
    y, x = section.middle_mm
    y0, x0, y1, x1 = y - 2.27, x - 8.13, y + 2.27, x - 2.82
    at = (y0 + y1) / 2 if axis == 0 else (x0 + x1) / 2
    parts = [(y0, x0, at, x1), (at, x0, y1, x1)] if axis == 0 else [(y0, x0, y1, at), (y0, at, y1, x1)]
    halves = np.concatenate([rows_of(cells_in(section, part)) for part in parts])
    joint = rows_of(cells_in(section, (y0, x0, y1, x1)))
    assert len(joint) > 5000
    np.testing.assert_array_equal(halves[np.lexsort(halves.T)], joint)


def test_cells_of_a_box_lie_in_it(phantom: Phantom) -> None:
    cells = cells_in(cut(phantom, 480), (12.0, 6.0, 15.0, 10.0))
    assert len(cells.layer)
    assert (cells.slide_mm >= [12.0, 6.0]).all()
    assert (cells.slide_mm < [15.0, 10.0]).all()


def test_there_are_no_cells_on_the_bare_slide(phantom: Phantom) -> None:
    assert not len(cells_in(cut(phantom, 480), (-3.0, -3.0, 0.5, 0.5)).layer)


def test_cells_of_layer_4_are_smaller_and_rounder_than_those_of_layer_5(
    phantom: Phantom, found: list[tuple[PhantomSection, Cells, Truth]]
) -> None:
    table = cell_table(phantom.brain)
    section = found[0][0]
    drawn = drawn_cells(section, table, BOX)
    layer, elongation, taper = drawn[:, 7], drawn[:, 5], drawn[:, 6]
    four, five = layer == 4, layer == 5
    assert drawn[four, 2].mean() < 0.8 * drawn[five, 2].mean()
    assert elongation[four].mean() < elongation[five].mean() - 0.2
    assert taper[four].mean() < taper[five].mean() - 0.3
    assert elongation.min() >= 1
    assert elongation.max() <= table.elongation.max() + 1e-9
    for number in range(1, 7):
        wanted = np.array([profile.radius_um[number - 1] for profile in phantom.brain.profiles])
        area = drawn[layer == number, 8].astype(int)
        ratio = drawn[layer == number, 2] / wanted[area - 1]
        assert ratio.mean() == pytest.approx(np.exp(SIZE_SPREAD**2 / 2), rel=0.02)
        assert np.log(ratio).std() == pytest.approx(SIZE_SPREAD, rel=0.05)
        assert ratio.max() <= LARGEST


def test_the_size_of_cells_follows_shrinkage() -> None:
    sizes = []
    for shrinkage in (0.0, 0.2):
        nuisances = Nuisances.none().but(shrinkage=shrinkage)
        section = cut(make_phantom(PhantomSettings(seed=3, resolution=48, nuisances=nuisances)), 480)
        cells = cells_in(section, BOX)
        sizes.append(np.sqrt((cells.radius_um**2).mean()) / (1 - section.mounting.shrinkage))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)


def test_sections_have_cells_of_their_own(phantom: Phantom) -> None:
    one, two = (cells_in(cut(phantom, number), (12.0, 6.0, 15.0, 10.0)) for number in (480, 481))
    assert len(one.layer)
    assert len(two.layer)
    assert not set(map(tuple, one.slide_mm.tolist())) & set(map(tuple, two.slide_mm.tolist()))
