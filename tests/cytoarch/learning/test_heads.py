"""Probes and decoders: what they give, how they are kept, and what is refused."""

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
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from cytoarch.brains import LabelClass
from cytoarch.errors import ModelError
from cytoarch.images.views import mirrored
from cytoarch.learning import decoder as decoder_module
from cytoarch.learning import probes
from cytoarch.learning.application import predict_bands
from cytoarch.learning.cards import CARD_FILE, WEIGHTS_FILE, check_fits, check_seen
from cytoarch.learning.datasets import Crops
from cytoarch.learning.decoder import Decoder, Fit, FusionNetwork, class_weights, fit_decoder, turned
from cytoarch.learning.heads import head_files, load_head
from cytoarch.learning.losses import dice_loss, focal_loss
from cytoarch.learning.probes import Probe, fit_probe
from cytoarch.learning.targets import UNLABELLED
from cytoarch.steps.sources import open_head
from cytoarch.store.brain_store import BrainStore


def toy_tokens(present: tuple[int, ...], count: int = 300, length: int = 6, seed: int = 0):
    rng = np.random.default_rng(seed)
    targets = rng.choice(present, count)
    centres = rng.normal(0, 2, (max(present) + 1, length))
    scale = np.array([1, 10, 0.1, 3, 1, 1])[:length]
    return ((centres[targets] + rng.normal(0, 1.5, (count, length))) * scale + 5).astype(np.float32), targets


def on_tokens(head, tokens: np.ndarray) -> np.ndarray:
    """Probabilities (n, k) of tokens (n, c), seen as a column of an image."""
    return head.probabilities(np.ascontiguousarray(tokens.T[None, :, :, None]))[0, :, :, 0].T


def a_decoder(card, dims=(3, 4), cells: int = 4, width: int = 8, seed: int = 0, **more) -> Decoder:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        the_card = card("decoder", dims, cells, **more)
        network = FusionNetwork(dims, len(the_card.classes), width, cells)
        network.mean.copy_(torch.randn(sum(dims)))
        network.spread.copy_(torch.rand(sum(dims)) + 0.5)
    return Decoder(the_card, network.eval().requires_grad_(requires_grad=False))


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
    oracle = make_pipeline(
        StandardScaler(), LogisticRegression(C=1 / regularisation, class_weight="balanced", max_iter=2000, tol=1e-6)
    ).fit(tokens.astype(np.float64), targets)
    fresh, _ = toy_tokens(present, seed=1)
    np.testing.assert_allclose(on_tokens(probe, fresh), oracle.predict_proba(fresh.astype(np.float64)), atol=0.02)


def test_the_standardisation_is_folded_into_the_weights_exactly(card):
    tokens, targets = toy_tokens((0, 1, 2))
    probe, _ = fit_probe(card("probe", (2, 4)), tokens, targets, 1.0)
    mean, spread = tokens.mean(axis=0, dtype=np.float64), tokens.std(axis=0, dtype=np.float64)
    scaled = ((tokens - mean) / spread).astype(np.float32)
    model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000, tol=1e-4).fit(scaled, targets)
    np.testing.assert_allclose(on_tokens(probe, tokens), model.predict_proba(scaled), atol=1e-5)


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


# -- decoders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "d", "layers", "classes", "count"),
    [
        (64, 768, 4, 9, 361_609),
        (128, 768, 4, 9, 1_050_889),
        (64, 384, 4, 9, 263_305),
        (96, 1024, 4, 9, 763_593),
        (8, 5, 2, 3, None),
    ],
)
def test_the_decoder_has_the_number_of_parameters_of_the_formula(p, d, layers, classes, count):
    network = FusionNetwork((d,) * layers, classes, p, 4)
    formula = layers * (d * p + p + 9 * p**2 + p) + (layers * p * p + p) + (p * classes + classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == formula
    assert count is None or formula == count


@pytest.mark.parametrize("cells", [1, 4])
def test_the_decoder_is_the_network_of_the_paper(card, cells: int):
    """Branches, upsampling, concatenation, a perceptron per cell: in the paper's order, from the same weights."""
    decoder = a_decoder(card, cells=cells)
    embeddings = torch.randn((2, 7, 5, 6), generator=torch.Generator().manual_seed(1))
    weights, hidden = decoder.network.state_dict(), []
    scaled = (embeddings - weights["mean"].view(1, 7, 1, 1)) / weights["spread"].view(1, 7, 1, 1)
    for index, part in enumerate((scaled[:, :3], scaled[:, 3:])):
        first, second = f"branches.{index}.0", f"branches.{index}.2"
        one = functional.gelu(functional.conv2d(part, weights[f"{first}.weight"], weights[f"{first}.bias"]))
        one = functional.gelu(functional.conv2d(one, weights[f"{second}.weight"], weights[f"{second}.bias"], padding=1))
        hidden.append(functional.interpolate(one, scale_factor=cells, mode="bilinear", align_corners=False))
    fused = functional.gelu(functional.conv2d(torch.cat(hidden, 1), weights["fuse.weight"], weights["fuse.bias"]))
    logits = functional.conv2d(fused, weights["classify.weight"], weights["classify.bias"])
    expected = logits.softmax(dim=1).numpy()
    np.testing.assert_allclose(decoder.probabilities(embeddings.numpy()), expected, atol=1e-5)


@pytest.mark.parametrize("cells", [1, 2, 4])
def test_the_decoder_gives_so_many_cells_a_token(card, cells: int):
    decoder = a_decoder(card, cells=cells)
    p = decoder.probabilities(np.random.default_rng(0).random((2, 7, 5, 6), dtype=np.float32))
    assert p.shape == (2, 3, 5 * cells, 6 * cells)
    assert p.dtype == np.float32


def toy_crops(count: int = 12, edge: int = 8, cells: int = 2, seed: int = 0) -> Crops:
    """Half-planes whose side the embeddings show, with some cells unlabelled."""
    rng = np.random.default_rng(seed)
    side = np.zeros((count, edge, edge), dtype=np.int64)
    for index in range(count):
        side[index, rng.integers(2, edge - 2) :] = 1
    embeddings = rng.normal(0, 0.3, (count, 7, edge, edge))
    embeddings[:, 1] += 2 * side
    embeddings[:, 5] -= side
    targets = np.repeat(np.repeat(side, cells, axis=1), cells, axis=2) * 2  # classes 0 and 2 of three
    targets[rng.random(targets.shape) < 0.2] = UNLABELLED
    return Crops(embeddings.astype(np.float16), targets)


def fitted(card, crops: Crops, seed: int = 0, epochs: int = 30):
    return fit_decoder(
        card("decoder", (3, 4), 2),
        crops,
        Fit(width=8, epochs=epochs, batch_size=4, learning_rate=5e-3, weight_decay=1e-4, seed=seed),
    )


def test_a_decoder_learns_what_its_embeddings_show(card):
    decoder, history = fitted(card, toy_crops())
    assert history["loss"][-1] < 0.2 * history["loss"][0]
    unseen = toy_crops(seed=1)
    predicted = decoder.probabilities(unseen.embeddings.astype(np.float32)).argmax(axis=1)
    labelled = unseen.targets != UNLABELLED
    assert (predicted == unseen.targets)[labelled].mean() > 0.95


def test_the_seed_decides_the_decoder_and_the_global_random_state_is_left_alone(card):
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    one, _ = fitted(card, toy_crops(), epochs=2)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    again, _ = fitted(card, toy_crops(), epochs=2)
    other, _ = fitted(card, toy_crops(), seed=1, epochs=2)
    for name, tensor in one.tensors().items():
        np.testing.assert_array_equal(tensor, again.tensors()[name])
    assert any(not np.array_equal(tensor, other.tensors()[name]) for name, tensor in one.tensors().items())


def test_embeddings_are_standardised_over_all_tokens_of_the_crops(card):
    crops = toy_crops()
    decoder, _ = fitted(card, crops, epochs=1)
    flat = np.moveaxis(crops.embeddings, 1, -1).reshape(-1, 7).astype(np.float64)
    np.testing.assert_allclose(decoder.tensors()["mean"], flat.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(decoder.tensors()["spread"], flat.std(axis=0), rtol=1e-4)


def test_steps_are_smaller_where_a_batch_would_take_too_much(card, monkeypatch: pytest.MonkeyPatch):
    crops = toy_crops()
    _, history = fitted(card, crops, epochs=1)
    assert history["batch_size"] == 4
    # 64 tokens of 7 values in 2 branches of 8 channels; 256 cells of 8 channels and 3 classes
    one = 64 * 4 * (3 * 7 + 8 * 2 * 8) + 256 * 4 * (6 * 8 + 12 * 3)
    for held, size in ((4 * one, 4), (4 * one - 1, 3), (one, 1), (1, 1)):
        monkeypatch.setattr(decoder_module, "STEP_BYTES", held)
        _, history = fitted(card, crops, epochs=1)
        assert history["batch_size"] == size


def test_a_rate_that_is_too_high_is_said(card):
    settings = {"width": 8, "epochs": 9, "batch_size": 4, "learning_rate": 1e30, "weight_decay": 0, "seed": 0}
    with pytest.raises(ModelError, match=r"loss is nan in epoch \d+; lower the learning rate"):
        fit_decoder(card("decoder", (3, 4), 2), toy_crops(), Fit(**settings))


def test_crops_without_labels_move_nothing(card):
    crops = toy_crops()
    blank = Crops(crops.embeddings, np.full_like(crops.targets, UNLABELLED))
    decoder, history = fitted(card, blank, epochs=3)
    start, _ = fitted(card, blank, epochs=1)
    assert history["loss"] == [0, 0, 0]
    np.testing.assert_array_equal(decoder.tensors()["fuse.weight"], start.tensors()["fuse.weight"])


def test_progress_counts_the_epochs(card):
    seen = []
    fit_decoder(
        card("decoder", (3, 4), 2),
        toy_crops(),
        Fit(width=8, epochs=3, batch_size=16, learning_rate=1e-3, weight_decay=0),
        on_progress=lambda *at: seen.append(at),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


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


# -- how a decoder is trained ------------------------------------------------------------------------------------------


def test_the_loss_is_focal_and_a_third_of_dice(card):
    crops = toy_crops()
    settings = {"width": 8, "epochs": 1, "batch_size": 12, "learning_rate": 1e-12, "weight_decay": 0, "seed": 0}
    decoder, history = fit_decoder(card("decoder", (3, 4), 2), crops, Fit(**settings))
    logits, targets = (
        decoder.network(torch.from_numpy(crops.embeddings.astype(np.float32))),
        torch.from_numpy(crops.targets),
    )
    expected = float(focal_loss(logits, targets) + 0.33 * dice_loss(logits, targets))
    assert history["loss"][0] == pytest.approx(expected, rel=1e-4)


def test_weight_decay_shrinks_the_weights(card):
    settings = {"width": 8, "epochs": 5, "batch_size": 4, "learning_rate": 0.01, "seed": 0}
    sizes = []
    for decay in (0, 1):
        decoder, _ = fit_decoder(card("decoder", (3, 4), 2), toy_crops(), Fit(weight_decay=decay, **settings))
        sizes.append(np.abs(decoder.tensors()["branches.0.0.weight"]).sum())
    assert sizes[1] < 0.9 * sizes[0]


def test_every_epoch_sees_every_crop_once_and_in_another_order(card, monkeypatch: pytest.MonkeyPatch):
    seen: list[list[int]] = []

    def noted(network, optimiser, crops, batch, turn, weights) -> float:
        seen.append(batch.tolist())
        return 0.0

    monkeypatch.setattr(decoder_module, "_step", noted)
    fitted(card, toy_crops(count=10), epochs=2)
    assert [len(batch) for batch in seen] == [4, 3, 3] * 2
    epochs = [[one for batch in seen[at : at + 3] for one in batch] for at in (0, 3)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1] != list(range(10))


def test_what_a_head_takes_per_token_is_no_less_than_its_input_and_result(head):
    cells = head.card.cells_per_token
    assert head.bytes_per_token >= 4 * (sum(head.card.dims) + 3 * cells**2)
    wider = a_decoder(lambda *given: head.card.model_copy(update={"kind": "decoder"}), head.card.dims, cells, width=80)
    assert wider.bytes_per_token > 4 * (sum(head.card.dims) + 80 * cells**2)


# -- few labels --------------------------------------------------------------------------------------------------------

FIT = Fit(width=8, epochs=2, batch_size=4, learning_rate=5e-3)


def test_a_decoder_has_as_many_parameters_as_its_formula_says():
    """L (d p + p + 9 p^2 + p) + (L p h + h) + (h C + C), h = p: the table of the fact sheet for ViT-B, four layers."""
    for dim, width, expected in ((384, 64, 263_305), (768, 64, 361_609), (768, 128, 1_050_889), (1024, 256, 3_674_633)):
        network = FusionNetwork((dim,) * 4, 9, width, 4)
        assert sum(one.numel() for one in network.parameters()) == expected


def test_fusing_before_upsampling_is_fusing_after_it():
    """The paper upsamples every level, concatenates and classifies cell by cell; ours is cheaper and the same."""
    torch.manual_seed(0)
    network = FusionNetwork((3, 4), 3, 8, 4).double()
    x = torch.randn(2, 7, 6, 5, dtype=torch.float64)
    levels = [
        torch.nn.functional.interpolate(branch(part), scale_factor=4, mode="bilinear", align_corners=False)
        for branch, part in zip(network.branches, torch.split(x, [3, 4], dim=1), strict=True)
    ]
    expected = network.classify(torch.nn.functional.gelu(network.fuse(torch.cat(levels, dim=1))))
    torch.testing.assert_close(network(x), expected)


def test_gradients_of_the_decoder_and_its_loss_are_those_of_finite_differences():
    torch.manual_seed(0)
    network = FusionNetwork((2, 1), 3, 4, 2).double()
    targets = torch.tensor([[[0, 1], [2, -1]]]).repeat_interleave(2, 1).repeat_interleave(2, 2)
    weights = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)

    def loss(x: torch.Tensor) -> torch.Tensor:
        logits = network(x)
        return focal_loss(logits, targets, weights=weights).double() + 0.33 * dice_loss(logits, targets).double()

    x = torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (x,), eps=1e-2, atol=2e-3, rtol=2e-2)


@pytest.mark.parametrize(
    ("crops", "least", "epochs", "steps"), [(12, 0, 2, 6), (12, 20, 2, 21), (12, 6, 2, 6), (1, 7, 2, 7)]
)
def test_few_crops_are_passed_over_until_the_steps_are_taken(card, crops: int, least: int, epochs: int, steps: int):
    given = toy_crops()
    some = Crops(given.embeddings[:crops], given.targets[:crops])
    _, facts = fit_decoder(card("decoder", (3, 4), 2), some, FIT._replace(least_steps=least, epochs=epochs))
    assert facts["steps"] == steps


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_bits_do_not_depend_on_how_many_threads_the_process_has(card, threads: int):
    expected, _ = fitted(card, toy_crops(), epochs=2)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found, _ = fitted(card, toy_crops(), epochs=2)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(tensor, found.tensors()[name]) for name, tensor in expected.tensors().items())


def test_a_warm_start_goes_on_where_the_other_ended_and_leaves_it_alone(card):
    crops = toy_crops()
    first, history = fitted(card, crops)
    before = {name: tensor.copy() for name, tensor in first.tensors().items()}
    again, more = fit_decoder(card("decoder", (3, 4), 2), crops, FIT, start=first)
    cold, anew = fit_decoder(card("decoder", (3, 4), 2), crops, FIT)
    assert more["loss"][0] < 1.5 * history["loss"][-1] < anew["loss"][0]
    for name, tensor in first.tensors().items():
        np.testing.assert_array_equal(tensor, before[name])
    np.testing.assert_array_equal(again.tensors()["mean"], before["mean"])
    assert not np.array_equal(again.tensors()["fuse.weight"], cold.tensors()["fuse.weight"])


def test_a_warm_start_knows_classes_by_name(card):
    first, _ = fitted(card, toy_crops())
    old = card("decoder", (3, 4), 2)
    new = old.model_copy(update={"classes": (LabelClass(name="new", ids=(9,)), *old.classes[::-1])})
    crops = toy_crops()
    blank = Crops(crops.embeddings, np.full_like(crops.targets, UNLABELLED))
    moved, _ = fit_decoder(new, blank, FIT, start=first)
    x = crops.embeddings[:2].astype(np.float32)
    logits = moved.network(torch.from_numpy(x))[:, 1:].flip(1)
    torch.testing.assert_close(logits, first.network(torch.from_numpy(x)))
    with pytest.raises(ModelError, match="begin anew"):
        fit_decoder(old, crops, FIT._replace(width=16), start=first)


def test_rare_classes_count_more_but_never_without_bound():
    targets = np.repeat([0, 1, 2, UNLABELLED], [90_000, 10_000, 1, 7])
    found = class_weights(targets, 4).numpy().astype(np.float64)
    assert found[1] / found[0] == pytest.approx(3)
    assert found[2] / found[0] == pytest.approx(8)
    assert found[3] == 0
    assert (found[:3] * [90_000, 10_000, 1]).sum() / 100_001 == pytest.approx(1)


def test_the_eight_turns_of_a_crop_are_all_different_and_move_labels_with_embeddings():
    square = np.arange(16).reshape(4, 4)
    assert len({turned(square, turn).tobytes() for turn in range(8)}) == 8
    for turn in range(8):
        fine = np.repeat(np.repeat(square, 2, 0), 2, 1)
        np.testing.assert_array_equal(turned(fine, turn)[::2, ::2], turned(square, turn))


def test_turned_crops_are_learned_from_in_other_directions(card):
    """Borders that always run upright in what is learned from are found when they lie flat."""
    flat = toy_crops(seed=3)
    unseen = Crops(np.swapaxes(flat.embeddings, 2, 3), np.swapaxes(flat.targets, 1, 2))
    scores = {}
    for dihedral in (False, True):
        fit = FIT._replace(epochs=30, dihedral=dihedral)
        decoder, _ = fit_decoder(card("decoder", (3, 4), 2), toy_crops(), fit)
        predicted = decoder.probabilities(unseen.embeddings.astype(np.float32)).argmax(axis=1)
        scores[dihedral] = (predicted == unseen.targets)[unseen.targets != UNLABELLED].mean()
    assert scores[True] >= scores[False]
    assert scores[True] > 0.95
