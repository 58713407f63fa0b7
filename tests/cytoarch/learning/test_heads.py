"""Heads: what probes give, how heads of both kinds are kept, and what is refused."""

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from cytoarch.brains import LabelClass
from cytoarch.errors import ModelError
from cytoarch.images.views import mirrored
from cytoarch.learning import probes
from cytoarch.learning.application import predict_bands
from cytoarch.learning.cards import CARD_FILE, WEIGHTS_FILE, check_fits, check_seen
from cytoarch.learning.heads import head_files, load_head
from cytoarch.learning.probes import Probe, fit_probe
from cytoarch.steps.sources import open_head
from cytoarch.store.brain_store import BrainStore
from tests.cytoarch.learning.decoders import a_decoder


def toy_tokens(present: tuple[int, ...], count: int = 300, length: int = 6, seed: int = 0):
    rng = np.random.default_rng(seed)
    targets = rng.choice(present, count)
    centres = rng.normal(0, 2, (max(present) + 1, length))
    scale = np.array([1, 10, 0.1, 3, 1, 1])[:length]
    return ((centres[targets] + rng.normal(0, 1.5, (count, length))) * scale + 5).astype(np.float32), targets


def on_tokens(head, tokens: np.ndarray) -> np.ndarray:
    """Probabilities (n, k) of tokens (n, c), seen as a column of an image."""
    return head.probabilities(np.ascontiguousarray(tokens.T[None, :, :, None]))[0, :, :, 0].T


def a_probe(card, seed: int = 0) -> Probe:
    tokens, targets = toy_tokens((0, 1, 2), seed=seed)
    return fit_probe(card("probe", (2, 4)), tokens, targets, 1.0)[0]


@pytest.fixture(params=["probe", "decoder"])
def head(request: pytest.FixtureRequest, card):
    return a_probe(card) if request.param == "probe" else a_decoder(card)


def keep(head, folder: Path) -> Path:
    folder.mkdir()
    for name, content in head_files(head).items():
        (folder / name).write_bytes(content)
    return folder


# -- probes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regularisation", [1.0, 30.0])
@pytest.mark.parametrize("present", [(0, 1, 2), (0, 1)], ids=["three classes", "two classes"])
def test_a_probe_is_logistic_regression_on_standardised_tokens(card, regularisation: float, present):
    classes = tuple(LabelClass(name=f"c{i}", ids=(i + 1,)) for i in present)
    tokens, targets = toy_tokens(present)
    probe, fit = fit_probe(card("probe", (2, 4), classes=classes), tokens, targets, regularisation)
    assert fit["converged"]
    alike = FunctionTransformer(lambda values: values * np.sqrt([6 / (2 * 2)] * 2 + [6 / (2 * 4)] * 4))
    oracle = make_pipeline(
        StandardScaler(),
        alike,
        LogisticRegression(C=1 / regularisation, class_weight="balanced", max_iter=2000, tol=1e-6),
    ).fit(tokens.astype(np.float64), targets)
    fresh, _ = toy_tokens(present, seed=1)
    np.testing.assert_allclose(on_tokens(probe, fresh), oracle.predict_proba(fresh.astype(np.float64)), atol=0.02)


def test_the_standardisation_is_folded_into_the_weights_exactly(card):
    tokens, targets = toy_tokens((0, 1, 2))
    probe, _ = fit_probe(card("probe", (2, 4)), tokens, targets, 1.0)
    mean, spread = tokens.mean(axis=0, dtype=np.float64), tokens.std(axis=0, dtype=np.float64)
    scaled = ((tokens - mean) / spread * probes.evenness((2, 4))).astype(np.float32)
    model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000, tol=1e-4).fit(scaled, targets)
    np.testing.assert_allclose(on_tokens(probe, tokens), model.predict_proba(scaled), atol=1e-5)


def test_every_layer_varies_alike_however_long_it_is():
    rng = np.random.default_rng(3)
    tokens = rng.normal(size=(500, 22)) * rng.uniform(0.1, 9, 22) + rng.normal(size=22)
    seen = probes.evened(tokens, (2, 16, 4), tokens.mean(axis=0), tokens.std(axis=0))
    variance = seen.var(axis=0)
    np.testing.assert_allclose([variance[:2].sum(), variance[2:18].sum(), variance[18:].sum()], 22 / 3, rtol=1e-5)
    np.testing.assert_array_equal(probes.evenness((7,)), 1)
    np.testing.assert_array_equal(probes.evenness((3, 3, 3)), 1)


def test_a_class_without_tokens_has_probability_zero(card):
    tokens, targets = toy_tokens((0, 2))
    probe, _ = fit_probe(card("probe", (2, 4)), tokens, targets, 1.0)
    p = on_tokens(probe, tokens)
    assert (p[:, 1] == 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    assert (p.argmax(axis=1) == targets).mean() > 0.8


def test_a_feature_that_never_changes_does_no_harm(card):
    tokens, targets = toy_tokens((0, 1, 2))
    tokens[:, 3] = 7
    probe, _ = fit_probe(card("probe", (2, 4)), tokens, targets, 1.0)
    assert np.isfinite(on_tokens(probe, tokens)).all()


def test_a_probe_that_does_not_converge_says_so_and_does_not_warn(card, monkeypatch: pytest.MonkeyPatch):
    tokens, targets = toy_tokens((0, 1, 2))
    _, fit = fit_probe(card("probe", (2, 4)), tokens, targets, 1.0)
    assert fit["converged"] is True
    assert 2 < fit["iterations"] < probes.ITERATIONS
    monkeypatch.setattr(probes, "ITERATIONS", 2)
    _, fit = fit_probe(card("probe", (2, 4)), tokens, targets, 1.0)
    assert fit == {"iterations": 2, "converged": False}


def test_a_rare_class_counts_as_much_as_a_common_one(card):
    """Two clouds that overlap, one of them forty times as large: half of each is told, as from equal numbers."""
    rng = np.random.default_rng(0)
    tokens = np.concatenate([rng.normal(0, 1, (8000, 6)), rng.normal(1, 1, (200, 6))]).astype(np.float32)
    targets = np.repeat([0, 1], [8000, 200])
    two = (LabelClass(name="a", ids=(1,)), LabelClass(name="b", ids=(2,)))
    probe, _ = fit_probe(card("probe", (2, 4), classes=two), tokens, targets, 1.0)
    recall = [(on_tokens(probe, tokens[targets == k]).argmax(axis=1) == k).mean() for k in (0, 1)]
    assert min(recall) > 0.8
    assert abs(recall[0] - recall[1]) < 0.06


def test_a_probe_of_float16_is_that_of_the_same_values(card):
    tokens, targets = toy_tokens((0, 1, 2))
    stored = tokens.astype(np.float16)
    one, _ = fit_probe(card("probe", (2, 4)), stored, targets, 1.0)
    other, _ = fit_probe(card("probe", (2, 4)), stored.astype(np.float32), targets, 1.0)
    np.testing.assert_allclose(one.weight, other.weight, rtol=1e-4, atol=1e-5)


# -- both ------------------------------------------------------------------------------------------------------------


def test_probabilities_sum_to_one_even_for_extreme_embeddings(head):
    for size in (0.0, 1.0, 1e4):
        embeddings = np.random.default_rng(0).normal(0, 1, (2, sum(head.card.dims), 5, 6)).astype(np.float32) * size
        p = head.probabilities(embeddings)
        assert np.isfinite(p).all()
        assert p.min() >= 0
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)


def test_a_kept_head_comes_back_with_the_same_bits(head, tmp_path: Path):
    folder = keep(head, tmp_path / "head")
    back = load_head(folder)
    assert back.card == head.card
    embeddings = np.random.default_rng(0).random((1, sum(head.card.dims), 9, 7), dtype=np.float32)
    np.testing.assert_array_equal(back.probabilities(embeddings), head.probabilities(embeddings))
    assert head_files(back) == head_files(head)


@pytest.mark.parametrize("grid", [(70, 130), (9, 200), (57, 56), (1, 3)])
def test_a_section_in_tiles_gives_what_it_gives_as_a_whole(card, in_store, grid: tuple[int, int]):
    decoder, reach = a_decoder(card), 6
    rng = np.random.default_rng(0)
    layers = [rng.normal(0, 1, (d, *grid)) for d in decoder.card.dims]
    bands = list(predict_bands(decoder, in_store(layers)))
    tiled = np.concatenate([band for _, band in bands], axis=1)
    whole = np.concatenate(layers).astype(np.float16).astype(np.float32)
    rows, columns = (mirrored(np.arange(-reach, n + reach), n) for n in grid)
    padded = np.ascontiguousarray(whole[:, rows][:, :, columns])
    expected = decoder.probabilities(padded[None])[0, :, 4 * reach : -4 * reach, 4 * reach : -4 * reach]
    assert tiled.shape == (3, grid[0] * 4, grid[1] * 4)
    np.testing.assert_allclose(tiled, expected, atol=1e-5)


def test_a_probe_on_a_section_is_the_probe_on_its_tokens(card, in_store):
    probe = a_probe(card)
    layers = [np.random.default_rng(d).normal(0, 3, (d, 70, 30)) for d in (2, 4)]
    stored = in_store(layers)
    tiled = np.concatenate([band for _, band in predict_bands(probe, stored)], axis=1)
    np.testing.assert_allclose(tiled, probe.probabilities(stored.read(0, 0, 70, 30)[None])[0], atol=1e-6)


def test_embeddings_of_another_kind_are_refused(card):
    the_card = card("probe", (2, 4))
    check_fits(the_card, (2, 4), the_card.encoder_digest, 1.0)
    for wrong in (
        ((4, 2), the_card.encoder_digest, 1.0),
        ((2, 4), "cd" * 32, 1.0),
        ((2, 4), the_card.encoder_digest, 1.1),
    ):
        with pytest.raises(ModelError, match="was trained on embeddings"):
            check_fits(the_card, *wrong)
    check_seen(the_card, [], "as-scanned")
    for channels, background in (([], "filled"), ([0], "as-scanned")):
        with pytest.raises(ModelError, match=r"all channels, background as-scanned; these are of .*Run embed-brain"):
            check_seen(the_card, channels, background)


def test_what_a_head_takes_per_token_is_no_less_than_its_input_and_result(head):
    cells = head.card.cells_per_token
    assert head.bytes_per_token >= 4 * (sum(head.card.dims) + 3 * cells**2)
    wider = a_decoder(lambda *given: head.card.model_copy(update={"kind": "decoder"}), head.card.dims, cells, width=80)
    assert wider.bytes_per_token > 4 * (sum(head.card.dims) + 80 * cells**2)


# -- heads that cannot be trusted ------------------------------------------------------------------------------------


class _Marker:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_in_place_of_the_weights_is_refused_and_not_unpickled(head, tmp_path: Path):
    folder, marker = keep(head, tmp_path / "head"), tmp_path / "executed"
    (folder / WEIGHTS_FILE).write_bytes(pickle.dumps(_Marker(marker)))
    with pytest.raises(ModelError, match="is not a head of format 1"):
        load_head(folder)
    torch.save({"weight": _Marker(marker)}, folder / WEIGHTS_FILE)
    with pytest.raises(ModelError, match="is not a head of format 1"):
        load_head(folder)
    assert not marker.exists()


@pytest.mark.parametrize("name", [CARD_FILE, WEIGHTS_FILE])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_file_cut_short_is_refused(head, tmp_path: Path, name: str, share: float):
    folder = keep(head, tmp_path / "head")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError):
        load_head(folder)


@pytest.mark.parametrize("name", [CARD_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_refused_and_what_is_there_is_named(head, tmp_path: Path, name: str):
    folder = keep(head, tmp_path / "head")
    (folder / name).unlink()
    other = ({CARD_FILE, WEIGHTS_FILE} - {name}).pop()
    with pytest.raises(ModelError, match=rf"are needed, found {other}"):
        load_head(folder)
    with pytest.raises(ModelError, match="no folder"):
        load_head(tmp_path / "absent")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(head, tmp_path: Path, value: float):
    folder = keep(head, tmp_path / "head")
    tensors = {name: tensor.copy() for name, tensor in load((folder / WEIGHTS_FILE).read_bytes()).items()}
    sorted(tensors.items())[0][1].flat[0] = value
    (folder / WEIGHTS_FILE).write_bytes(save(tensors))
    with pytest.raises(ModelError, match="finite"):
        load_head(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"format": 0},
        {"kind": "oracle"},
        {"dims": [3, 5]},
        {"dims": []},
        {"classes": []},
        {"surprise": 1},
        {"cells_per_token": 0},
        {"classes": [{"name": "a", "ids": [1]}]},
        {"embedding": {"encoder": "texture", "surprise": 1}},
    ],
    ids=str,
)
def test_a_card_that_does_not_fit_is_refused(head, tmp_path: Path, change: dict):
    folder = keep(head, tmp_path / "head")
    facts = json.loads((folder / CARD_FILE).read_bytes())
    (folder / CARD_FILE).write_text(json.dumps(facts | change))
    with pytest.raises(ModelError):
        load_head(folder)


def test_the_weights_of_another_kind_of_head_are_refused(card, tmp_path: Path):
    probe, decoder = keep(a_probe(card), tmp_path / "probe"), keep(a_decoder(card), tmp_path / "decoder")
    swapped = (probe / WEIGHTS_FILE).read_bytes()
    (probe / WEIGHTS_FILE).write_bytes((decoder / WEIGHTS_FILE).read_bytes())
    (decoder / WEIGHTS_FILE).write_bytes(swapped)
    for folder in (probe, decoder):
        with pytest.raises(ModelError):
            load_head(folder)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 2)])
def test_tensors_of_another_shape_are_refused(head, tmp_path: Path, shape: tuple[int, ...]):
    folder = keep(head, tmp_path / "head")
    tensors = dict(load((folder / WEIGHTS_FILE).read_bytes()))
    name = "fuse.bias" if "fuse.bias" in tensors else "weight"
    tensors[name] = np.ones(shape, dtype=np.float32)
    (folder / WEIGHTS_FILE).write_bytes(save(tensors))
    with pytest.raises(ModelError):
        load_head(folder)


def test_tensors_too_many_or_too_few_are_refused(head, tmp_path: Path):
    folder = keep(head, tmp_path / "head")
    tensors = dict(load((folder / WEIGHTS_FILE).read_bytes()))
    (folder / WEIGHTS_FILE).write_bytes(save(tensors | {"surprise": np.ones(3, dtype=np.float32)}))
    with pytest.raises(ModelError):
        load_head(folder)
    for name in tensors:
        (folder / WEIGHTS_FILE).write_bytes(save({key: value for key, value in tensors.items() if key != name}))
        with pytest.raises(ModelError):
            load_head(folder)


def test_a_stored_head_whose_weights_were_changed_is_refused(head, tmp_path: Path):
    store = BrainStore(tmp_path)
    digest = store.models.add(head_files(head))
    assert open_head(store, digest).card == head.card
    path = store.models.path(digest) / WEIGHTS_FILE
    content = bytearray(path.read_bytes())
    content[-2] ^= 1  # still a finite weight, but another one
    path.write_bytes(content)
    with pytest.raises(ModelError):
        open_head(store, digest)


def test_a_head_that_is_not_in_the_store_is_refused(tmp_path: Path):
    with pytest.raises(ModelError):
        open_head(BrainStore(tmp_path), "ab" * 32)
