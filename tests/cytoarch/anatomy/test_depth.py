"""Laws of depth, against fields that are known in closed form."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse.linalg import spsolve
from skimage.filters import gaussian

from cytoarch.anatomy.depth import DepthKind, laplace, measure_depth
from cytoarch.anatomy.matter import GREY, WHITE
from cytoarch.anatomy.ribbons import BACKGROUND, Ribbon
from cytoarch.errors import SectionError
from cytoarch.phantoms.sections import PhantomSettings, Window, cut, make_phantom, section_count
from cytoarch.phantoms.truth import truth

Array = NDArray[Any]
KINDS: tuple[DepthKind, ...] = ("laplace", "equidistant", "equivolumetric")


def slab(thickness: int = 7, width: int = 20) -> Array:
    """Pial surface above, white matter below; the ribbon ends at the edge of the image."""
    return np.repeat([BACKGROUND] * 3 + [GREY] * thickness + [WHITE] * 3, width).reshape(-1, width).astype(np.uint8)


def ball(shape: tuple[int, ...], cell: tuple[float, ...], white: float, pial: float) -> tuple[Array, Array]:
    """A ring or shell of cortex around white matter, and every cell's distance from its centre."""
    axes = [(np.arange(n) - (n - 1) / 2) * size for n, size in zip(shape, cell, strict=True)]
    radius = np.sqrt(sum(one**2 for one in np.meshgrid(*axes, indexing="ij")))
    return np.select([radius < white, radius < pial], [WHITE, GREY], BACKGROUND).astype(np.uint8), radius


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_flat_slab_has_the_depth_of_its_cells_centres_exactly(kind: DepthKind, turns: int) -> None:
    found = measure_depth(Ribbon.of(np.rot90(slab(), turns), 16.0), kind)
    depth = np.rot90(found.depth, -turns)
    np.testing.assert_allclose(depth[3:10], np.repeat((np.arange(7)[:, None] + 0.5) / 7, 20, axis=1), atol=1e-6)
    assert not depth[:3].any()
    assert not depth[10:].any()


@pytest.mark.parametrize(
    ("kind", "mean", "worst"), [("laplace", 0.004, 0.03), ("equidistant", 0.01, 0.03), ("equivolumetric", 0.008, 0.03)]
)
def test_a_ring_has_logarithmic_depth_or_its_share_of_length_or_area(
    kind: DepthKind, mean: float, worst: float
) -> None:
    classes, radius = ball((121, 121), (1.0, 1.0), 20, 50)
    found = measure_depth(Ribbon.of(classes, 1.0), kind)
    at = radius[found.cortex]
    known = {
        "laplace": np.log(at / 50) / np.log(20 / 50),
        "equidistant": (50 - at) / (50 - 20),
        "equivolumetric": (50**2 - at**2) / (50**2 - 20**2),
    }[kind]
    error = np.abs(found.depth[found.cortex] - known)
    assert error.mean() < mean
    assert error.max() < worst


@pytest.mark.parametrize(("kind", "mean"), [("laplace", 0.006), ("equidistant", 0.03), ("equivolumetric", 0.02)])
def test_a_shell_of_oblong_cells_has_hyperbolic_depth_or_its_share_of_length_or_volume(
    kind: DepthKind, mean: float
) -> None:
    cell = (2.0, 1.0, 1.0)
    classes, radius = ball((31, 61, 61), cell, 12, 27)
    found = measure_depth(Ribbon.of(classes, cell), kind)
    at = radius[found.cortex]
    known = {
        "laplace": (1 / at - 1 / 27) / (1 / 12 - 1 / 27),
        "equidistant": (27 - at) / (27 - 12),
        "equivolumetric": (27**3 - at**3) / (27**3 - 12**3),
    }[kind]
    assert np.abs(found.depth[found.cortex] - known).mean() < mean


def test_finer_cells_bring_the_ring_nearer_to_its_law() -> None:
    errors = []
    for scale in (1, 2, 4):
        classes, radius = ball((61 * scale, 61 * scale), (1 / scale, 1 / scale), 10, 25)
        found = measure_depth(Ribbon.of(classes, 1 / scale), "laplace")
        known = np.log(radius[found.cortex] / 25) / np.log(10 / 25)
        errors.append(np.abs(found.depth[found.cortex] - known).mean())
    assert errors[2] < 0.6 * errors[1] < 0.36 * errors[0]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000))
def test_depth_lies_between_the_sides_and_agrees_with_a_direct_solver(seed: int) -> None:
    height = gaussian(np.random.default_rng(seed).normal(size=(2, 40)), (0, 3), mode="wrap") * 12
    rows = np.arange(40)[:, None]
    classes = np.where(rows < 10 + height[0], BACKGROUND, np.where(rows < 26 + height[1], GREY, WHITE)).astype(np.uint8)
    ribbon = Ribbon.of(classes, (3.0, 2.0))
    field = laplace(ribbon)
    assert (field.depth > 0).all()
    assert (field.depth < 1).all()
    balance = np.zeros(len(field.depth))  # what flows into a cell flows out of it
    np.add.at(balance, field.lower, field.flow)
    np.add.at(balance, field.upper, -field.flow)
    np.testing.assert_allclose(balance - field.from_pial + field.to_white, 0, atol=1e-5)
    np.testing.assert_allclose(field.depth, _directly(ribbon), atol=1e-6)
    for kind in KINDS[1:]:
        share = measure_depth(ribbon, kind).depth[ribbon.cortex]
        assert (share > 0).all()
        assert (share < 1).all()


def _directly(ribbon: Ribbon) -> Array:
    """The same equations, cell by cell, by a sparse factorisation."""
    from scipy.sparse import lil_array

    places = np.argwhere(ribbon.cortex)
    number = {tuple(place): at for at, place in enumerate(places)}
    matrix, right = lil_array((len(places), len(places))), np.zeros(len(places))
    for at, place in enumerate(places):
        for axis, size in enumerate(ribbon.cell_um):
            for step in (-1, 1):
                other = tuple(place + step * np.eye(2, dtype=int)[axis])
                if not all(0 <= one < n for one, n in zip(other, ribbon.cortex.shape, strict=True)):
                    continue
                if other in number:
                    matrix[at, at] += 1 / size**2
                    matrix[at, number[other]] -= 1 / size**2
                elif ribbon.pial[other] or ribbon.white[other]:
                    matrix[at, at] += 2 / size**2
                    right[at] += 2 / size**2 * ribbon.white[other]
    return np.asarray(spsolve(matrix.tocsr(), right))


def test_the_sides_change_places_with_the_classes() -> None:
    classes, _ = ball((61, 61), (1.0, 1.0), 10, 25)
    swapped = np.choose(classes, [WHITE, GREY, BACKGROUND])
    for kind in KINDS:
        there, back = (measure_depth(Ribbon.of(one, 1.0), kind) for one in (classes, swapped))
        np.testing.assert_allclose(there.depth[there.cortex], 1 - back.depth[back.cortex], atol=1e-5)


def test_grey_matter_that_does_not_lie_between_the_sides_is_no_cortex() -> None:
    classes = slab(7, 40)
    classes = np.concatenate([classes, np.full((20, 40), WHITE, dtype=np.uint8)])
    classes[20:24, 10:20] = GREY  # a nucleus in the white matter
    classes[0, 0] = GREY  # dust
    found = measure_depth(Ribbon.of(classes, 16.0), "laplace")
    wanted = (classes == GREY) & (np.arange(33)[:, None] >= 3) & (np.arange(33)[:, None] < 10)
    assert (found.cortex == wanted).all()


# -- a piece cut out of a cortex ---------------------------------------------------------------------------------------


def block(width: int = 40) -> Array:
    """A slab whose left and right ends were cut: the slide shows beside them."""
    return np.pad(slab(12, width), ((0, 0), (10, 10)))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_flows_through_the_cut_sides_of_a_block(kind: DepthKind) -> None:
    whole = np.repeat((np.arange(12)[:, None] + 0.5) / 12, 40, axis=1)
    cut_away = np.zeros(block().shape, dtype=bool)
    cut_away[:, :10] = cut_away[:, -10:] = True
    drawn = measure_depth(Ribbon.of(block(), 16.0, cut=cut_away), kind)
    np.testing.assert_allclose(drawn.depth[3:15, 10:-10], whole, atol=1e-6)
    outline = measure_depth(Ribbon.of(block(), 16.0), kind)
    assert np.abs(outline.depth[3:15, 10:-10] - whole).mean() > 0.04, "if the cuts count as pial surface"
    facing = measure_depth(Ribbon.of(block(), 16.0, sides="block"), kind)
    assert np.abs(facing.depth[3:15, 10:-10] - whole).mean() < 0.02


def test_a_turned_block_is_found_to_be_one() -> None:
    from scipy.ndimage import rotate

    big = np.kron(block(), np.ones((3, 3), dtype=np.uint8))
    for angle in (17, 60):
        turned = rotate(np.pad(big, 30), angle, order=0)
        true = rotate(
            np.pad(np.repeat((np.arange(36)[:, None] + 0.5) / 36, 120, 1), ((39, 39), (60, 60))), angle, order=1
        )
        found = measure_depth(Ribbon.of(turned, 5.0, sides="block"), "laplace")
        assert np.abs(found.depth - true)[found.cortex].mean() < 0.03


# -- what cannot be ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [np.zeros((9, 9)), np.ones((9, 9)), np.full((9, 9), 2), slab()[3:], slab()[:9]])
def test_without_two_sides_there_is_no_depth_and_the_error_says_what_was_found(classes: Array) -> None:
    with pytest.raises(SectionError, match="no cortex lies between the pial surface and white matter: found"):
        Ribbon.of(classes, 16.0)


def test_cuts_are_drawn_on_the_cells_of_the_tissue() -> None:
    with pytest.raises(SectionError, match=r"drawn on \(3, 3\) cells, the tissue on \(13, 20\)"):
        Ribbon.of(slab(), 16.0, cut=np.zeros((3, 3), dtype=bool))


# -- phantoms ----------------------------------------------------------------------------------------------------------


def test_the_nucleus_of_a_phantom_is_no_cortex_and_its_depth_runs_with_the_truth() -> None:
    phantom = make_phantom(PhantomSettings(seed=0, resolution=60))
    section = cut(phantom, section_count(phantom) // 2)
    known = truth(section, Window(0, 0, *section.size_px(64.0)), 64.0)
    classes = np.select([known.tissue == 0, known.tissue == 2], [BACKGROUND, WHITE], GREY).astype(np.uint8)
    found = measure_depth(Ribbon.of(classes, 64.0), "laplace")
    assert not found.cortex[known.tissue == 3].any()
    both = found.cortex & (known.tissue == 1)
    assert both.sum() > 0.99 * (known.tissue == 1).sum()
    # the truth goes by straight rays from the middle of a hemisphere, the field by its own curved lines
    assert np.corrcoef(found.depth[both], known.depth[both])[0, 1] > 0.95
    assert np.abs(found.depth - known.depth)[both].mean() < 0.09
