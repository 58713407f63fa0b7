"""Pairs on two spheres that mirror each other: distances along them, places laid over each other, a task learned."""

import numpy as np
import pytest
import torch
import trimesh

from cytoarch.anatomy.surfaces import Mesh, inflated
from cytoarch.encoders.compact_model import CompactNetwork
from cytoarch.pretraining.loop import LoopSettings, pretrain
from cytoarch.pretraining.pairs import PairBatches, Siamese, SurfacePairs
from cytoarch.pretraining.patches import PatchBatches, PatchPoints, SectionPixels
from cytoarch.pretraining.siamese import SiameseLearner, SiameseLoss

RADIUS = 10.0


def spheres() -> Mesh:
    """A left hemisphere and its mirror image, one mesh."""
    ball = trimesh.creation.icosphere(subdivisions=3, radius=RADIUS)
    left, right = (ball.vertices * [sign, 1, 1] + [sign * 15.0, 0, 0] for sign in (-1, 1))
    faces = np.concatenate([ball.faces[:, ::-1], ball.faces + len(ball.vertices)])
    return Mesh.of(np.concatenate([left, right]), faces)


def points(count: int = 60) -> PatchPoints:
    """Vertices of the left sphere, and their mirror images."""
    mesh = spheres()
    half = len(mesh.vertices_mm) // 2
    chosen = np.random.default_rng(0).choice(half, count, replace=False)
    places = mesh.vertices_mm[np.concatenate([chosen, chosen + half])]
    zero = np.zeros(2 * count, dtype=np.int64)
    return PatchPoints(zero, np.full((2 * count, 2), 32.0), places, zero, zero)


@pytest.fixture(scope="module")
def pairs() -> SurfacePairs:
    return SurfacePairs.of(points(), {0: spheres()}, seed=0)


def test_distances_are_along_the_sphere_and_pairs_lie_on_one_side(pairs: SurfacePairs) -> None:
    ends = points().position_mm[pairs.index]
    assert (np.sign(ends[:, 0, 0]) == np.sign(ends[:, 1, 0])).all()
    away = ends - np.sign(ends[..., :1]) * [15.0, 0, 0]
    angle = np.arccos(np.clip((away[:, 0] * away[:, 1]).sum(axis=1) / RADIUS**2, -1, 1))
    np.testing.assert_allclose(pairs.distance_mm, RADIUS * angle, rtol=0.1, atol=0.1)


def test_the_right_side_is_laid_over_the_left(pairs: SurfacePairs) -> None:
    left, right = pairs.place_mm[:60], pairs.place_mm[60:]
    np.testing.assert_allclose(left, right, atol=1e-9)
    assert np.linalg.norm(left, axis=1).mean() == pytest.approx(RADIUS, rel=0.05)


def test_blowing_up_takes_folds_out_and_keeps_the_area() -> None:
    ball = trimesh.creation.icosphere(subdivisions=3, radius=RADIUS)
    folded = ball.vertices * (1 + 0.2 * np.sin(2 * ball.vertices[:, 2:])) + [20.0, 0, 0]
    mesh = Mesh.of(folded, ball.faces)
    found = Mesh(inflated(mesh), mesh.triangles)
    assert found.area_mm2 == pytest.approx(mesh.area_mm2)
    spread = [
        one.std() / one.mean() for one in (np.linalg.norm(v, axis=1) for v in (found.vertices_mm, folded - [20, 0, 0]))
    ]
    assert spread[0] < 0.2 * spread[1]


@pytest.mark.parametrize("part", ["both", "distances", "coordinates"])
def test_the_task_is_learned_by_the_same_loop(pairs: SurfacePairs, part: str) -> None:
    rng = np.random.default_rng(1)
    some = points()
    # a section of its own for every point, whose grey level tells how far along y it lies
    sections = [
        np.clip(128 + 9 * y + rng.normal(0, 4, (64, 64)), 0, 255).astype(np.uint8) for y in some.position_mm[:, 1]
    ]
    apart = PatchPoints(np.arange(len(some)), some.centre_px, some.position_mm, some.label, some.brain)
    patches = PatchBatches(SectionPixels.of(sections, "cpu"), apart, 20.0, 32, 24, shift_mm=0.05)
    torch.manual_seed(0)
    learner = SiameseLearner(CompactNetwork(1, widths=(4, 4, 6, 8, 8), depths=(0, 0, 0, 0, 0)))
    loss = SiameseLoss(distances=part in ("both", "distances"), coordinates=part in ("both", "coordinates"))
    settings = LoopSettings(steps=40, optimiser="adamw", learning_rate=1e-2, watch_every=20)
    trace = pretrain(learner, PairBatches(patches, pairs), Siamese(loss), settings)
    assert np.mean(trace.loss[-8:]) < 0.8 * np.mean(trace.loss[:2])


def test_a_batch_is_the_same_for_the_same_step_and_holds_both_ends(pairs: SurfacePairs) -> None:
    patches = PatchBatches(SectionPixels.of([np.zeros((64, 64), np.uint8)], "cpu"), points(), 20.0, 32, 24)
    batch, again = (PairBatches(patches, pairs)(3) for _ in range(2))
    assert torch.equal(batch.positions_mm, again.positions_mm)
    assert batch.pixels.shape == (24, 1, 32, 32)
    assert batch.place_mm.shape == (2, 12, 3)
    assert (batch.positions_mm[:12, 0].sign() == batch.positions_mm[12:, 0].sign()).all()
