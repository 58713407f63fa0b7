import hashlib
import subprocess
import sys

import networkx as nx
import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from cytoarch.phantoms.anatomy import (
    AREA_COUNT,
    CENTRE_MM,
    MIDLINE_GAP_MM,
    PhantomBrain,
    Variation,
    area_names,
    area_regions,
    area_seeds,
    draw_brain,
    reference_profiles,
)
from cytoarch.phantoms.cortex import maps_of, surfaces
from cytoarch.phantoms.rendering import render
from cytoarch.phantoms.sections import PhantomSettings, Window, cut, make_phantom
from cytoarch.phantoms.sphere import cube_directions, look_up
from cytoarch.phantoms.surfaces import Surface, adjacency, area_sizes_mm2, vertex_areas
from cytoarch.phantoms.truth import truth

RESOLUTION, COARSE = 48, 24
SEEDS = (None, 0, 3, 7)
NO_VARIATION = Variation(**dict.fromkeys(Variation.model_fields, 0.0))

FINGERPRINT = """
import hashlib
import numpy as np
from cytoarch.phantoms.rendering import render
from cytoarch.phantoms.sections import PhantomSettings, Window, cut, make_phantom
from cytoarch.phantoms.truth import truth
from dataclasses import fields

section = cut(make_phantom(PhantomSettings(seed=5, resolution=48)), 500)
whole = truth(section, Window(0, 0, *section.size_px(200.0)), 200.0)
digest = hashlib.sha256()
for field in fields(whole):
    digest.update(np.ascontiguousarray(getattr(whole, field.name)).tobytes())
digest.update(np.ascontiguousarray(render(section, Window(300, 300, 400, 400), 10.0)).tobytes())
"""


def coarse(seed: int | None, variation: Variation | None = None) -> PhantomBrain:
    return draw_brain(seed, variation, COARSE)


@pytest.fixture(scope="module", params=SEEDS, ids=lambda seed: "reference" if seed is None else f"seed {seed}")
def brain(request: pytest.FixtureRequest) -> PhantomBrain:
    return draw_brain(request.param, None, RESOLUTION)


@pytest.fixture(scope="module")
def middle(brain: PhantomBrain) -> tuple[Surface, Surface]:
    return surfaces(brain, 0.5)


def same_anatomy(one: PhantomBrain, other: PhantomBrain) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(maps_of(one), maps_of(other), strict=True)) and all(
        np.array_equal(a.density_per_mm3, b.density_per_mm3) and np.array_equal(a.radius_um, b.radius_um)
        for a, b in zip(one.profiles, other.profiles, strict=True)
    )


# -- individuals -------------------------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_bytes_in_any_process() -> None:
    scope: dict[str, hashlib._Hash] = {}
    exec(FINGERPRINT, scope)  # noqa: S102 - the very text that the other process runs
    found = subprocess.run(
        [sys.executable, "-c", FINGERPRINT + "print(digest.hexdigest())"], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == scope["digest"].hexdigest()


def test_seeds_give_different_individuals() -> None:
    pial = [coarse(seed).hemispheres[0].radii_mm[..., 0] for seed in SEEDS]
    for one in range(len(pial)):
        for other in range(one):
            assert np.abs(pial[one] - pial[other]).mean() > 0.1


def test_seeds_give_different_pixels_and_truth() -> None:
    windows = []
    for seed in (0, 1):
        section = cut(make_phantom(PhantomSettings(seed=seed, resolution=RESOLUTION)), 500)
        whole = Window(0, 0, 200, 200)
        windows.append((render(section, whole, 80.0), truth(section, whole, 80.0).area))
    assert (windows[0][0] != windows[1][0]).mean() > 0.3
    assert (windows[0][1] != windows[1][1]).mean() > 0.1


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_without_variation_every_individual_is_the_reference(seed: int) -> None:
    assert same_anatomy(coarse(seed, NO_VARIATION), coarse(None))


def test_the_reference_knows_no_variation() -> None:
    assert same_anatomy(coarse(None, Variation(deformation=0.15, folding=1)), coarse(None))


@pytest.mark.parametrize("knob", [name for name in Variation.model_fields if name != "asymmetry"])
def test_every_kind_of_variation_alone_makes_an_individual_of_its_own(knob: str) -> None:
    varied = Variation(**{**NO_VARIATION.model_dump(), knob: 0.1})
    assert not same_anatomy(coarse(1, varied), coarse(None))
    assert not same_anatomy(coarse(1, varied), coarse(2, varied))


def test_asymmetry_alone_varies_nothing() -> None:
    assert same_anatomy(coarse(1, Variation(**{**NO_VARIATION.model_dump(), "asymmetry": 1.0})), coarse(None))


def test_hemispheres_are_mirror_images_without_asymmetry() -> None:
    brain = coarse(3, Variation(asymmetry=0))
    left, right = surfaces(brain, 0.5)
    np.testing.assert_array_equal(left.vertices_mm * [-1, 1, 1], right.vertices_mm)
    np.testing.assert_array_equal(left.area, right.area)
    for field in maps_of(brain)[:5]:
        np.testing.assert_array_equal(field[0], field[1])


def test_hemispheres_differ_the_more_the_larger_the_asymmetry() -> None:
    gaps = []
    for asymmetry in (0.1, 0.4, 1.0):
        left, right = coarse(3, Variation(asymmetry=asymmetry)).hemispheres
        gaps.append(np.abs(left.radii_mm[..., 0] - right.radii_mm[..., 0]).mean())
    assert 0.02 < gaps[0] < gaps[1] < gaps[2]


# -- areas -------------------------------------------------------------------------------------------------------------


def test_areas_have_names_regions_profiles_and_seeds() -> None:
    assert AREA_COUNT == 24
    assert len(set(area_names())) == len(area_regions()) == len(reference_profiles()) == AREA_COUNT
    np.testing.assert_allclose(np.linalg.norm(area_seeds(), axis=1), 1, rtol=1e-12)
    assert set(area_regions()) <= {
        f"{a} {b}" for a in ("anterior", "middle", "posterior") for b in ("dorsal", "ventral")
    }


def test_both_hemispheres_of_every_individual_have_all_areas(middle: tuple[Surface, Surface]) -> None:
    for surface in middle:
        assert set(np.unique(surface.area).tolist()) == set(range(1, AREA_COUNT + 1))


def test_areas_partition_the_mesh(middle: tuple[Surface, Surface]) -> None:
    sizes = area_sizes_mm2(middle, AREA_COUNT)
    assert sizes.shape == (2, AREA_COUNT)
    assert (sizes > 0).all()
    for surface, own in zip(middle, sizes, strict=True):
        assert own.sum() == pytest.approx(vertex_areas(surface.vertices_mm, surface.triangles).sum(), rel=1e-9)


def test_the_graph_of_neighbours_is_symmetric_connected_and_that_of_the_edges_of_the_mesh(
    middle: tuple[Surface, Surface],
) -> None:
    touching = adjacency(middle, AREA_COUNT)
    np.testing.assert_array_equal(touching, touching.T)
    assert not touching.diagonal().any()
    assert connected_components(touching, directed=False)[0] == 1
    graph = nx.Graph()
    graph.add_nodes_from(range(AREA_COUNT))
    for surface in middle:
        for a, b, c in surface.area[surface.triangles].tolist():
            graph.add_edges_from((m - 1, n - 1) for m, n in ((a, b), (b, c), (c, a)) if m != n)
    np.testing.assert_array_equal(nx.to_numpy_array(graph, nodelist=range(AREA_COUNT)) > 0, touching)
    assert nx.is_connected(graph)


def test_individuals_keep_most_neighbours_of_the_reference() -> None:
    reference = adjacency(surfaces(coarse(None), 0.5), AREA_COUNT)
    for seed in (0, 1, 7):
        own = adjacency(surfaces(coarse(seed), 0.5), AREA_COUNT)
        assert (own & reference).sum() > 0.7 * reference.sum()


# -- the cortex --------------------------------------------------------------------------------------------------------


def test_the_white_surface_lies_inside_the_pial_surface_everywhere(brain: PhantomBrain) -> None:
    maps = maps_of(brain)
    for radii in (*(side.radii_mm for side in brain.hemispheres), *maps.radii_mm):
        assert (radii[..., 1] > 0.5).all()
        assert (radii[..., 1] < radii[..., 0] - 0.1).all()


def test_no_hemisphere_crosses_the_midline(brain: PhantomBrain) -> None:
    left, right = surfaces(brain, 0.0)
    assert left.vertices_mm[:, 0].max() < -0.8 * MIDLINE_GAP_MM
    assert right.vertices_mm[:, 0].min() > 0.8 * MIDLINE_GAP_MM


def test_the_white_surface_is_as_far_from_the_pial_surface_as_the_cortex_is_thick(brain: PhantomBrain) -> None:
    nodes = cube_directions(RESOLUTION)
    dense = cube_directions(4 * (RESOLUTION - 1) + 1).reshape(-1, 3)
    for side in brain.hemispheres:
        pial = cKDTree(look_up(side.radii_mm, dense)[:, :1] * dense)
        distance, _ = pial.query(nodes * side.radii_mm[..., 1:])
        thickness = np.linalg.norm(side.column_mm, axis=-1)
        ratio = distance / thickness
        assert np.median(ratio) == pytest.approx(1, abs=0.03)
        assert np.quantile(np.abs(ratio - 1), 0.95) < 0.08
        assert 0.6 * 1.25 < np.median(distance) < 1.5 * 1.25


def test_columns_end_on_the_pial_surface(brain: PhantomBrain) -> None:
    nodes = cube_directions(RESOLUTION)
    dense = cube_directions(4 * (RESOLUTION - 1) + 1).reshape(-1, 3)
    for side in brain.hemispheres:
        feet = nodes * side.radii_mm[..., 1:] + side.column_mm
        distance, _ = cKDTree(look_up(side.radii_mm, dense)[:, :1] * dense).query(feet)
        assert np.quantile(distance, 0.95) < 0.1


def test_hemispheres_are_folded_and_wound_outwards(brain: PhantomBrain) -> None:
    for side, surface in zip((-1, 1), surfaces(brain, 0.0), strict=True):
        a, b, c = (surface.vertices_mm[surface.triangles[:, k]] for k in range(3))
        outwards = np.einsum("ij,ij->i", np.cross(b - a, c - a), a - [side * CENTRE_MM, 0, 0])
        assert (outwards > 0).all()
    curvature = maps_of(brain).sheet[..., 1]
    assert (curvature < -0.1).mean() > 0.1
    assert (curvature > 0.1).mean() > 0.2
