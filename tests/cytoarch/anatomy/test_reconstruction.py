"""Sections put together: noise-free pictures come back exactly, and a bad one costs only itself."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.feature import SIFT

from cytoarch.anatomy.reconstruction import (
    Overview,
    Reconstruction,
    ReconstructionSettings,
    Rigid,
    features,
    reconstruct,
)
from cytoarch.anatomy.reconstruction.links import linked_back
from cytoarch.anatomy.reconstruction.order import insertion
from cytoarch.anatomy.reconstruction.solving import Measured, solved
from cytoarch.errors import SectionError, StoreError
from cytoarch.geometry import Transform
from tests.cytoarch.anatomy.drawn_brains import GRID, SPACING_UM, farthest_um, lying, overview, series

ANGLES = (3.0, -5.0, 8.0, 0.0, -12.0, 2.0, 6.0)
EXACT_UM = 15.0
"""A quarter of a cell, at the corners of the tissue."""
SETTINGS = ReconstructionSettings(reach=2)

rigids = st.builds(
    Rigid,
    st.booleans(),
    st.floats(-179, 179),
    st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
)


def built(overviews: list[Overview], settings: ReconstructionSettings = SETTINGS) -> Reconstruction:
    stated, pictures = series(overviews)
    return reconstruct("B", stated, pictures, settings)


def error_um(brain: Reconstruction, true: list[Rigid], left_out: tuple[str, ...] = ()) -> float:
    kept = [one for one in brain if one.section_id not in left_out]
    by_name = {f"s{at}": one for at, one in enumerate(true)}
    return farthest_um({one.section_id: one.rigid for one in kept}, by_name, brain.base)


@pytest.fixture(scope="module")
def turned_brain() -> tuple[Reconstruction, list[Rigid]]:
    true = lying(ANGLES, mirrored=(1, 4))
    return built([overview(one) for one in true]), true


# -- rigid maps


@given(rigids, rigids)
def test_a_map_after_another_is_their_composition_and_the_way_back_undoes_it(one: Rigid, other: Rigid) -> None:
    places = np.array([[0.0, 0.0], [1000.0, 0.0], [300.0, -2000.0]])
    np.testing.assert_allclose(one.then(other)(places), other(one(places)), atol=1e-6)
    np.testing.assert_allclose(one.inverse()(one(places)), places, atol=1e-6)


@given(rigids)
def test_a_map_is_found_from_noise_free_points(one: Rigid) -> None:
    places = np.random.default_rng(0).normal(scale=3000, size=(9, 2))
    found = Rigid.fitted(places, one(places), one.mirrored)
    np.testing.assert_allclose(found(places), one(places), atol=1e-6)


@given(rigids)
def test_the_rigid_map_nearest_to_a_rigid_affine_is_itself(one: Rigid) -> None:
    found = Rigid.of(np.array(one.transform.matrix))
    assert found.mirrored == one.mirrored
    np.testing.assert_allclose(found(np.eye(2) * 1e4), one(np.eye(2) * 1e4), atol=1e-5)


# -- whole brains


def test_noise_free_sections_come_back_exactly(turned_brain: tuple[Reconstruction, list[Rigid]]) -> None:
    brain, true = turned_brain
    assert error_um(brain, true) < EXACT_UM
    assert all(one.linked for one in brain)


def test_every_mirrored_section_is_found_flagged_and_none_invented(
    turned_brain: tuple[Reconstruction, list[Rigid]],
) -> None:
    brain, _ = turned_brain
    assert {one.section_id for one in brain if one.flipped} == {"s1", "s4"}
    assert {one for one, flags in brain.flagged.items() if "mounted mirrored" in " ".join(flags)} == {"s1", "s4"}


def test_the_base_stays_where_the_manifest_puts_it(turned_brain: tuple[Reconstruction, list[Rigid]]) -> None:
    brain, _ = turned_brain
    base = brain[brain.base]
    assert base.placed_by == "base"
    np.testing.assert_allclose(base.plane(np.array(GRID.centre_um)), 0, atol=1e-9)
    np.testing.assert_allclose(base.plane.linear, np.eye(2), atol=1e-12)


def test_transforms_lead_into_the_brain_and_back(turned_brain: tuple[Reconstruction, list[Rigid]]) -> None:
    for one in turned_brain[0]:
        place = np.array([1234.0, 5678.0])
        x, y, z = one.to_brain(place)
        assert z == pytest.approx(one.section_number * SPACING_UM / 1000)
        np.testing.assert_allclose(one.plane(place) / 1000, (y, x))
        np.testing.assert_allclose(one.to_section(np.array([x, y, z])), place, atol=1e-6)


def test_features_of_a_section_are_found_once_however_many_it_is_linked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[bytes] = []

    detect = SIFT.detect_and_extract

    def counted(self: SIFT, image: NDArray[np.float32]) -> None:
        found.append(image.tobytes())
        detect(self, image)

    monkeypatch.setattr(SIFT, "detect_and_extract", counted)
    monkeypatch.setattr(features, "_LATELY", {})
    pictures = [(f"s{at}", overview(one)) for at, one in enumerate(lying(ANGLES[:4]))]

    def links() -> str:
        numbered = enumerate(pictures)
        return repr([linked_back(one, pictures[max(0, at - 2) : at], 64.0, SETTINGS) for at, one in numbered])

    kept = links()
    assert len(found) == len(set(found)) == 7, "both ways up, but for the first, which nothing lies before"
    monkeypatch.setattr(features, "KEPT", 1)
    assert links() == kept
    assert len(found) > 14
    assert len(features._LATELY) == 1


def test_a_brain_of_two_equal_halves_gets_no_flip() -> None:
    brain = built([overview(one, symmetric=True) for one in lying(ANGLES[:4])])
    assert not any(one.flipped for one in brain)
    assert not brain.flagged


def test_a_section_upside_down_is_turned_and_flagged() -> None:
    true = lying((0.0, 4.0, 183.0, 1.0, 0.0))
    brain = built([overview(one) for one in true])
    assert error_um(brain, true) < EXACT_UM
    assert list(brain.flagged) == ["s2"]
    assert brain.flagged["s2"] == ("lies turned by 179 degrees",)  # against a base that lies turned by 4 itself


def test_a_section_of_noise_costs_only_itself() -> None:
    true = lying(ANGLES)
    pictures = [overview(one) for one in true]
    rng = np.random.default_rng(1)
    grey = rng.uniform(0, 255, GRID.shape).astype(np.float32)
    pictures[3] = replace(pictures[3], grey=grey, mask=grey < 128)
    brain = built(pictures)
    assert error_um(brain, true, left_out=("s3",)) < EXACT_UM
    assert not brain["s3"].linked
    assert brain["s3"].flags[0].startswith("not linked: of its neighbours")
    np.testing.assert_allclose(brain["s3"].plane.linear, np.eye(2), atol=1e-12)
    assert list(brain.flagged) == ["s3"]


def test_an_empty_section_costs_only_itself() -> None:
    true = lying(ANGLES[:5])
    pictures = [overview(one) for one in true]
    pictures[2] = replace(pictures[2], mask=np.zeros(GRID.shape, bool), polarity="bright")
    brain = built(pictures)
    assert error_um(brain, true, left_out=("s2",)) < EXACT_UM
    assert brain.flagged["s2"] == ("not linked: it holds no tissue that stands out from the slide",)


def test_a_section_of_another_stain_is_placed_and_flagged() -> None:
    true = lying(ANGLES[:5])
    pictures = [overview(one, bright=at == 2) for at, one in enumerate(true)]
    brain = built(pictures)
    assert error_um(brain, true) < EXACT_UM
    assert list(brain.flagged) == ["s2"]
    assert brain.flagged["s2"][0].startswith("another stain: its tissue is bright on the slide where most are dark")


def test_swapped_sections_are_reported_and_stay_where_they_are() -> None:
    true = lying((*ANGLES, 1.0, -2.0, 4.0, 0.0, 3.0))
    z = [0.06 * at for at in range(len(true))]
    z[3], z[8] = z[8], z[3]
    brain = built([overview(one, at) for one, at in zip(true, z, strict=True)])
    assert {"s3", "s8"} == {one for one, flags in brain.flagged.items() if "fits better" in " ".join(flags)}
    assert [one.section_id for one in brain] == [f"s{at}" for at in range(len(true))]
    assert "out of order" in brain.remarks[0]


def test_sections_in_order_are_not_said_to_be_out_of_it() -> None:
    true = lying((*ANGLES, 1.0, -2.0))
    assert not built([overview(one, 0.06 * at) for at, one in enumerate(true)]).remarks


# -- what a person states


def test_a_stated_flip_and_rotation_are_done_and_recorded() -> None:
    true = lying((0.0, 0.0, 90.0, 0.0), mirrored=(1,))
    stated, pictures = series([overview(one) for one in true])
    stated[1] = replace(stated[1], flip="horizontal")
    stated[2] = replace(stated[2], rotation_deg=90.0)
    brain = reconstruct("B", stated, pictures, SETTINGS)
    assert error_um(brain, true) < EXACT_UM
    assert brain["s1"].corrections == ("flip horizontal",)
    assert brain["s2"].corrections == ("rotation 90 degrees",)
    assert not brain.flagged


def test_a_stated_transform_is_taken_as_it_is() -> None:
    true = lying(ANGLES[:4])
    stated, pictures = series([overview(one) for one in true])
    own = Transform(((0.99, 0.01, 77.0), (-0.02, 1.01, -5.0)))
    stated[1] = replace(stated[1], transform=own)
    brain = reconstruct("B", stated, pictures, SETTINGS)
    assert brain["s1"].plane == own
    assert (brain["s1"].placed_by, brain["s1"].corrections) == ("transform", ("transform",))


def test_a_base_that_is_not_there_is_an_error() -> None:
    stated, pictures = series([overview(one) for one in lying((0.0, 0.0))])
    with pytest.raises(SectionError, match="'s9' is none of the sections with tissue; name one of s0, s1"):
        reconstruct("B", stated, pictures, ReconstructionSettings(base_section="s9"))


def test_sections_without_tissue_or_left_out_have_no_place_but_a_reason() -> None:
    stated, pictures = series([overview(one) for one in lying((0.0, 0.0, 0.0))])
    brain = reconstruct("B", stated, {one: pictures[one] for one in ("s0", "s2")}, SETTINGS, {"x": "excluded: torn"})
    assert brain.unplaced == {"s1": "no tissue was found in it", "x": "excluded: torn"}
    with pytest.raises(SectionError, match="section x has no place in B: excluded: torn"):
        brain["x"]


# -- the least squares


def test_a_wrong_link_does_not_bend_the_brain() -> None:
    """Twenty nodes in a row; one of the links between second neighbours is 3 mm off."""
    true = [Rigid(False, 2.0 * at, (100.0 * at, -50.0 * at)) for at in range(20)]
    links = [
        Measured(i, j, true[i].then(true[j].inverse()), 1.0, (3000.0, 3000.0), 3000.0)
        for i in range(20)
        for j in range(i + 1, min(20, i + 4))
    ]
    links[10] = links[10]._replace(rigid=Rigid(False, 5.0, (3000.0, -1000.0)).then(links[10].rigid))
    result = solved([Rigid(False, one.angle_deg + 1, one.shift_um) for one in true], links, [9])
    corners = np.array([[0.0, 0.0], [6000.0, 6000.0]])
    for one, found in zip(true, result.places, strict=True):
        relative = one.then(true[9].inverse())(corners)
        np.testing.assert_allclose(found.then(result.places[9].inverse())(corners), relative, atol=5)
    assert result.disagreement_um.argmax() == 10
    assert result.disagreement_um[10] > 2000


def test_links_between_sections_that_a_person_placed_move_nothing() -> None:
    """Nor does it end the brain that a third section is free and has no link."""
    start = [Rigid.identity(), Rigid(False, 5.0, (10.0, 0.0)), Rigid(False, 9.0, (0.0, 20.0))]
    link = Measured(0, 1, Rigid.identity(), 1.0, (0.0, 0.0), 1000.0)
    result = solved(start, [link], [0, 1])
    assert result.places == start
    assert result.disagreement_um.shape == (1,)
    assert result.disagreement_um[0] > 10


@pytest.mark.parametrize("scale", [0.95, 1.0, 1.05])
def test_the_neighbours_of_a_section_that_a_person_scaled_lie_over_its_tissue(scale: float) -> None:
    """A place of the brain comes from all three to nearly one place, though a rigid map shows none of the scale."""
    true = lying((0.0, 4.0, -3.0))
    stated, pictures = series([overview(one) for one in true])
    middles = [one.inverse()(np.zeros(2)) for one in true]
    y, x = (-scale * middles[1]).tolist()
    stated[1] = replace(stated[1], transform=Transform(((scale, 0.0, y), (0.0, scale, x))))
    brain = reconstruct("B", stated, pictures, SETTINGS)
    for name, middle in zip(("s0", "s1", "s2"), middles, strict=True):
        assert np.abs(brain[name].plane(middle)).max() < 60


def test_what_a_section_adds_to_the_series() -> None:
    places = np.array([0.0, 1.0, 2.0, 9.0, 3.0, 4.0])
    here, gap, there = insertion(np.abs(places[:, None] - places[None]), 3)
    assert (here, gap, there) == (12.0, 5, 5.0)


# -- the form in which it is kept


def test_json_reads_back_what_was_written(turned_brain: tuple[Reconstruction, list[Rigid]]) -> None:
    brain, _ = turned_brain
    again = Reconstruction.from_json(brain.to_json())
    assert again.to_json() == brain.to_json()
    assert again.sections["s1"] == brain.sections["s1"]


def test_json_of_something_else_is_an_error() -> None:
    with pytest.raises(StoreError, match="this is no reconstruction of ours"):
        Reconstruction.from_json("{}")


def test_transforms_have_the_form_of_ngff_0_6(turned_brain: tuple[Reconstruction, list[Rigid]]) -> None:
    ngff_zarr = pytest.importorskip("ngff_zarr", reason="ngff-zarr brings the schemas of NGFF 0.6")
    document = json.loads(turned_brain[0].to_json())
    ngff_zarr.validate({"ome": document["ome"]}, version="0.6", model="scene")
