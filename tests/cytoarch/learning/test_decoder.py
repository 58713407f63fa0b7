"""Decoders: the network of the paper, how it learns from many labels and from few."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from cytoarch.brains import LabelClass
from cytoarch.errors import ModelError
from cytoarch.learning import decoder as decoder_module
from cytoarch.learning.datasets import Crops
from cytoarch.learning.decoder import Fit, FusionNetwork, class_weights, fit_decoder, turned
from cytoarch.learning.losses import dice_loss, focal_loss
from cytoarch.learning.targets import UNLABELLED
from tests.cytoarch.learning.decoders import a_decoder

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
