import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from cytoarch.encoders.compact_model import CompactNetwork
from cytoarch.pretraining.loop import LoopSettings, pretrain
from cytoarch.pretraining.patches import PatchPoints, SectionPixels
from cytoarch.pretraining.probing import fit_linear_probe, fit_positions, with_constant
from cytoarch.pretraining.stains import restained
from cytoarch.pretraining.tokens import PlaceMaps, SpatialTokens, TokenBatches, TokenLearner

CELL = 8


def slab() -> tuple[SectionPixels, PlaceMaps, PatchPoints]:
    """A section whose cortex runs from the left (bare slide) to the right (white matter), darker with depth."""
    height, width = 128, 160
    x = (np.arange(width) + 0.5) / CELL
    depth = (x - 5) / 10
    tissue = np.where(depth < 0, 0, np.where(depth < 1, 1, 2))
    pixels = np.tile(np.where(tissue == 0, 240, 200 - 120 * np.clip(depth, 0, 1)).astype(np.uint8), (height, 1))
    cells = (slice(CELL // 2, None, CELL), slice(CELL // 2, None, CELL))
    maps = {
        "tissue": np.tile(tissue.astype(np.uint8), (height, 1))[cells],
        "depth": np.tile(np.where(tissue == 1, depth, np.nan).astype(np.float32), (height, 1))[cells],
        "layer": np.zeros((height // CELL, width // CELL), np.uint8),
        "area": np.zeros((height // CELL, width // CELL), np.uint8),
    }
    place = np.zeros((height // CELL, width // CELL, 3), np.float32)
    place[..., 1] = np.arange(height // CELL)[:, None]
    maps["position_mm"] = np.where(maps["tissue"][..., None] == 0, np.float32(np.nan), place)
    rng = np.random.default_rng(0)
    centre = np.stack([rng.uniform(40, 90, 16), rng.uniform(60, 100, 16)], axis=1)
    position = np.concatenate([np.zeros((16, 1)), centre[:, :1] / CELL, np.zeros((16, 1))], axis=1)
    points = PatchPoints(np.zeros(16, int), centre, position, np.zeros(16, int), np.zeros(16, int))
    return SectionPixels.of([np.repeat(pixels[..., None], 3, axis=2)], "cpu"), PlaceMaps.of([maps], CELL), points


def batches() -> TokenBatches:
    sections, places, points = slab()
    return TokenBatches(
        [sections, sections.halved()], points, places, pixel_size_um=20.0, patch_px=32, batch_size=8, tokens=6,
        sigma_mm=2.0, sigma_depth=0.1, scales=(1.0, 1.5), shift_mm=0.2,
    )  # fmt: skip


def test_cells_are_found_under_their_places() -> None:
    _, places, _ = slab()
    cells = places.at(np.array([0]), np.array([[[0.0, 0.0], [9.0, 17.0], [-50.0, 1e4]]]))[0]
    assert cells.tolist() == [0, 20 + 2, 19]


def test_sections_lie_one_after_the_other() -> None:
    _, places, _ = slab()
    one = {
        name: getattr(places, name).reshape(16, 20, *getattr(places, name).shape[1:])
        for name in ("tissue", "depth", "position_mm", "layer", "area")
    }
    both = PlaceMaps.of([one, one], CELL)
    where = np.array([[9.0, 17.0], [9.0, 17.0]])
    assert both.at(np.array([0, 1]), where).tolist() == [22, 16 * 20 + 22]


def test_depth_and_place_count_within_the_cortex_only() -> None:
    _, places, _ = slab()
    row = np.arange(40, 60)  # the third row of cells
    told = places.coordinates(row, sigma_mm=2.0, sigma_depth=0.1)
    cortex = places.tissue[row] == 1
    assert np.isfinite(told).all()
    np.testing.assert_allclose(told[cortex, 3], places.depth[row][cortex] * 10)
    np.testing.assert_allclose(told[cortex, 1], 1.0)  # 2 mm
    np.testing.assert_array_equal(told[places.tissue[row] == 0], np.tile([0, 0, 0, -5.0], (5, 1)))
    np.testing.assert_array_equal(told[places.tissue[row] == 2], np.tile([0, 0, 0, 15.0], (5, 1)))


def test_the_depth_of_a_token_is_that_of_its_pixels() -> None:
    """Whatever the level, turn and scale: the darker the pixels under a token, the deeper it is told to be."""
    made = batches()
    plain = TokenBatches(**{**vars(made), "patch_px": 16})
    seen = 0
    for step in range(6):
        batch = _unstained(plain, step)
        grey = torch.nn.functional.avg_pool2d(batch.pixels.mean(1, keepdim=True), 4).flatten(1)
        told = batch.coordinates[:, 3].reshape(batch.tokens.shape)
        inside = (told > 1.5) & (told < 8.5)
        shown = grey.gather(1, batch.tokens)[inside] * 255
        expected = 200 - 12 * told[inside]
        seen += int(inside.sum())
        assert float((shown - expected).abs().max()) < 12 * 0.8 + 4  # half a cell, half a token
    assert seen > 40


def _unstained(made: TokenBatches, step: int) -> object:
    """A batch whose grey values are as scanned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cytoarch.pretraining.tokens.restained", lambda patches, rng: patches)
        patch.setattr("cytoarch.pretraining.tokens.changed", lambda patches, draws: patches)
        return made(step)


def test_the_same_step_gives_the_same_tokens() -> None:
    first, again = batches()(3), batches()(3)
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.tokens, again.tokens)
    assert not torch.equal(first.tokens, batches()(4).tokens)


def test_tokens_are_learned_by_the_same_loop() -> None:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        learner = TokenLearner(CompactNetwork(3, widths=(8, 8, 16), depths=(1, 1, 1), tokens=8), width=8)
    settings = LoopSettings(steps=40, optimiser="adamw", learning_rate=3e-3, watch_every=20)
    trace = pretrain(learner, batches(), SpatialTokens(sigma_mm=2.0), settings)
    assert np.mean(trace.loss[-5:]) < np.mean(trace.loss[:5]) - 0.3
    assert sorted(trace.health) == [20, 40]


def test_stains_stay_in_range_and_some_turn_bright() -> None:
    patches = torch.rand(200, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.75  # light tissue
    shown = restained(patches, np.random.default_rng(0))
    assert float(shown.min()) >= 0
    assert float(shown.max()) <= 1
    means = shown.mean((1, 2, 3))
    assert 0.2 < float((means < 0.45).float().mean()) < 0.5
    grey = (shown.std(dim=1).amax((1, 2)) < 1e-6).float().mean()
    assert 0.2 < float(grey) < 0.4


def test_bare_slide_stays_white_in_any_colour() -> None:
    shown = restained(torch.ones(100, 3, 4, 4), np.random.default_rng(1)).mean((1, 2, 3))
    assert bool(((shown - 1).abs() < 1e-6).logical_or(shown.abs() < 1e-6).all())


def test_a_probe_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    embeddings = rng.normal(size=(300, 6)) + labels[:, None] * rng.normal(size=6)
    ours = fit_linear_probe(torch.from_numpy(embeddings), torch.from_numpy(labels), 3)
    scaled = (embeddings - embeddings.mean(0)) / embeddings.std(0)
    theirs = LogisticRegression(C=1.0, class_weight="balanced", tol=1e-8, max_iter=1000).fit(scaled, labels)
    told = ours(torch.from_numpy(embeddings)).softmax(1).numpy()
    np.testing.assert_allclose(told, theirs.predict_proba(scaled), atol=2e-3)


def test_a_probe_does_not_tell_a_class_it_never_saw() -> None:
    embeddings = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    labels = (embeddings[:, 0] > 0).long()
    told = fit_linear_probe(embeddings, labels, 4)(embeddings).argmax(1)
    assert set(told.tolist()) <= {0, 1}


def test_positions_are_those_of_a_ridge_regression() -> None:
    rng = np.random.default_rng(0)
    embeddings, positions = rng.normal(size=(80, 5)) + 3, rng.normal(size=(80, 3)) + 10
    found = with_constant(torch.from_numpy(embeddings)) @ fit_positions(
        torch.from_numpy(embeddings), torch.from_numpy(positions), ridge=2.0
    )
    oracle = Ridge(alpha=2.0).fit(embeddings, positions).predict(embeddings)
    np.testing.assert_allclose(found.numpy(), oracle, atol=1e-8)
