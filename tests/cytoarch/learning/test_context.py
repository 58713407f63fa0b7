"""The context head sees what surrounds a token, as far as it says and no further."""

import numpy as np
import pytest
import torch

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.errors import ModelError
from cytoarch.images.views import Level
from cytoarch.learning.application import halo_of, predict_bands
from cytoarch.learning.context import ContextHead, ContextNetwork
from cytoarch.learning.datasets import LabelledSection
from cytoarch.learning.evaluation import score_head
from cytoarch.learning.heads import head_files, load_head
from cytoarch.learning.training import ContextSettings, ProbeSettings, train_head

SMALL = ContextSettings(components=2, width=8, blocks=4, steps=200, learning_rate=0.01, crop_tokens=32)


def banded(section_id: str, seed: int, in_store) -> LabelledSection:
    """Three bands, the outer two of which look the same: only the middle one, which tells its sides apart, is bright.

    The embedding is one number and noise; a ramp that no token shows by itself tells up from down: the first band lies
    beside a dark edge, the last beside a bright one.
    """
    rng = np.random.default_rng(seed)
    rows = np.arange(32)[:, None] + np.zeros((32, 32), dtype=np.int64)
    classes = np.select([rows < 10, rows < 20], [0, 1], 2)
    value = np.select([rows < 3, rows < 10, rows < 20, rows < 29], [-3.0, 0.0, 2.0, 0.0], 4.0)
    layer = np.stack([value, rng.normal(0, 1, value.shape)]) + rng.normal(0, 0.2, (2, 32, 32))
    embeddings = in_store([layer])
    labels = np.array([3, 1, 20], dtype=np.uint16)[np.repeat(np.repeat(classes, 4, axis=0), 4, axis=1)]
    everywhere = TissueMask(np.ones((1, 1), dtype=bool), embeddings.layers[0].grid.grouped(32))
    return LabelledSection(section_id, embeddings, Level(labels, 4.0, 2.0), everywhere)


@pytest.mark.long
def test_it_tells_apart_by_their_surroundings_what_looks_the_same(card, in_store) -> None:
    sections = [banded(f"s{i}", i, in_store) for i in range(4)]
    context, facts = train_head(card("context", (2,)), SMALL, sections[:3])
    probe, _ = train_head(card("probe", (2,)), ProbeSettings(), sections[:3])
    scores = [score_head(head, sections[3:]).metrics()["macro_f1"] for head in (context, probe)]
    assert scores[0] > 0.85
    assert scores[1] < 0.75
    assert facts["loss"][-1] < facts["loss"][0]


def by_chance(card, blocks: int = 3) -> ContextHead:
    torch.manual_seed(0)
    network = ContextNetwork(5, 3, 4, blocks, 3)
    network.components.normal_()
    network.mean.normal_()
    return ContextHead(card("context", (5,)), network.eval().requires_grad_(False))


def test_tiles_give_what_the_whole_gives(card, in_store) -> None:
    values = np.random.default_rng(0).normal(size=(5, 90, 130)).astype(np.float16)
    head = by_chance(card)
    whole = head.probabilities(values.astype(np.float32)[None])[0]
    bands = np.concatenate([band for _, band in predict_bands(head, in_store([values]))], axis=1)
    reach = head.reach_tokens
    np.testing.assert_allclose(bands[:, reach:-reach, reach:-reach], whole[:, reach:-reach, reach:-reach], atol=1e-5)


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_it_reaches_as_far_as_it_says(card, blocks: int) -> None:
    head = by_chance(card, blocks)
    values = np.random.default_rng(1).normal(size=(1, 5, 41, 41)).astype(np.float32)
    changed = values.copy()
    changed[0, :, 20, 20] += 5
    rows = np.nonzero(np.abs(head.probabilities(changed) - head.probabilities(values)).max(axis=(0, 1, 3)) > 1e-7)[0]
    assert (rows.min(), rows.max()) == (20 - head.reach_tokens, 20 + head.reach_tokens)
    assert halo_of(head) == max(4, 2**blocks - 1)


def test_it_is_kept_and_read_again_with_the_same_bits_and_what_does_not_fit_is_refused(card, tmp_path) -> None:
    head = by_chance(card)
    for name, content in head_files(head).items():
        (tmp_path / name).write_bytes(content)
    read = load_head(tmp_path)
    values = np.random.default_rng(2).normal(size=(1, 5, 9, 9)).astype(np.float32)
    np.testing.assert_array_equal(read.probabilities(values), head.probabilities(values))
    np.testing.assert_allclose(head.probabilities(values).sum(axis=1), 1, atol=1e-6)
    with pytest.raises(ModelError, match="do not fit the context head"):
        ContextHead.from_tensors(card("context", (6,)), head.tensors())
    with pytest.raises(ModelError, match="has one cell a token"):
        ContextHead.from_tensors(card("context", (5,), 2), head.tensors())
    with pytest.raises(ModelError, match="finite tensors"):
        ContextHead.from_tensors(head.card, {**head.tensors(), "mean": np.full(5, np.nan, dtype=np.float32)})


def test_the_same_seed_gives_the_same_bits(card, in_store) -> None:
    sections = [banded("s0", 0, in_store)]
    short = replace_steps(SMALL, 12)
    first, again, other = (
        train_head(card("context", (2,)), short.model_copy(update={"seed": seed}), sections)[0].tensors()
        for seed in (1, 1, 2)
    )
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not all(np.array_equal(first[name], other[name]) for name in first)


def replace_steps(settings: ContextSettings, steps: int) -> ContextSettings:
    return settings.model_copy(update={"steps": steps})
