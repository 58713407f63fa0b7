"""Inflated kernels against the two-dimensional convolutions they come from, and whole ConvNeXts of transformers."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from cytoarch.errors import ModelError
from cytoarch.neurons.inflation import inflated, inflated_kernel
from cytoarch.neurons.network import SMALL, TINY, Architecture, NeuronNetwork, parameter_count
from cytoarch.neurons.pretrained import pretrained
from cytoarch.neurons.training import new_network

FEATURES, DEPTHS = (8, 16, 24, 32), (1, 1, 2, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random ConvNeXt as transformers saves it."""
    torch.manual_seed(3)
    config = DINOv3ConvNextConfig(hidden_sizes=list(FEATURES), depths=list(DEPTHS), layer_scale_init_value=0.7)
    path = tmp_path_factory.mktemp("convnext") / "model"
    DINOv3ConvNextModel(config).save_pretrained(path)
    return path


@pytest.fixture
def volume() -> Tensor:
    return torch.randn(1, 4, 6, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def kernel() -> Tensor:
    return torch.randn(4, 1, 7, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def planewise(volume: Tensor, kernel: Tensor) -> Tensor:
    """The two-dimensional convolution of every plane."""
    return torch.stack([functional.conv2d(one, kernel, padding=3, groups=4) for one in volume.unbind(2)], dim=2)


def test_a_kernel_in_the_centre_is_the_convolution_of_every_plane(volume: Tensor, kernel: Tensor) -> None:
    made = functional.conv3d(volume, inflated_kernel(kernel, 3, "centre"), padding=(1, 3, 3), groups=4)
    assert torch.allclose(made, planewise(volume, kernel), atol=1e-12)


def test_a_spread_kernel_sees_what_does_not_change_with_depth_as_it_was_seen(volume: Tensor, kernel: Tensor) -> None:
    same = volume[:, :, :1].expand_as(volume)
    made = functional.conv3d(same, inflated_kernel(kernel, 3, "average"), padding=(1, 3, 3), groups=4)
    expected = planewise(same, kernel)
    assert torch.allclose(made[:, :, 1:-1], expected[:, :, 1:-1], atol=1e-12)
    for end in (0, -1):  # beyond the first and last plane are zeros
        assert torch.allclose(made[:, :, end], expected[:, :, end] * 2 / 3, atol=1e-12)


def test_halving_kernels_in_the_centre_use_every_second_plane() -> None:
    volume = torch.randn(1, 2, 6, 4, 4, generator=torch.Generator().manual_seed(1))
    kernel = torch.randn(3, 2, 2, 2, generator=torch.Generator().manual_seed(2))
    made = functional.conv3d(volume, inflated_kernel(kernel, 2, "centre"), stride=2)
    for plane in range(3):
        assert torch.allclose(
            made[:, :, plane], functional.conv2d(volume[:, :, 2 * plane + 1], kernel, stride=2), atol=1e-5
        )


def test_the_stem_halves_once_and_its_centre_uses_every_second_plane() -> None:
    network = new_network(Architecture(FEATURES, DEPTHS), 0)
    stem = network.encoder.stages[0].downsample_layers[0]
    kernel = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        stem.weight.copy_(inflated_kernel(kernel, 4, "centre"))
    volume = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    made = stem(volume)
    assert made.shape[2:] == (4, 4, 4)
    for plane in range(4):
        flat = functional.conv2d(volume[:, :, 2 * plane + 1], kernel, stem.bias, stride=2, padding=1)
        assert torch.allclose(made[:, :, plane], flat, atol=1e-5)


def test_grey_weights_are_the_mean_or_the_sum_over_colours(folder: Path) -> None:
    mean, total = (
        pretrained(folder, "centre", one).tensors["stages.0.downsample_layers.0.weight"] for one in ("mean", "sum")
    )
    assert torch.allclose(3 * mean, total, atol=1e-6)


def test_an_inflated_encoder_gives_what_the_model_gives_for_a_plane(folder: Path) -> None:
    """Only the stem halves once where the model's divides by four: from its output on, both see the same."""
    source = pretrained(folder, "centre", "sum")
    network = new_network(source.sizes, 0, source.tensors).encoder.eval()
    model = DINOv3ConvNextModel.from_pretrained(folder).eval()
    plane = torch.randn(1, 8, 12, 12, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        flat = model.model.stages[0].layers[0](plane)
        made = network.stages[0].layers[0](plane[:, :, None].repeat(1, 1, 3, 1, 1))
        assert torch.allclose(made[:, :, 1], flat, atol=1e-5)
        flat, made = model.model.stages[1](flat), network.stages[1](made[:, :, :2])
        assert torch.allclose(made[:, :, 0], flat, atol=1e-5)


def test_what_is_no_convnext_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="patch_embed"):
        inflated({"patch_embed.weight": torch.zeros(1)}, "centre")
    tensors = pretrained(folder, "centre", "mean").tensors
    with pytest.raises(ModelError, match="do not fit"):
        new_network(Architecture((8, 16, 24, 40), DEPTHS), 0, tensors)


@pytest.mark.parametrize(("sizes", "published", "encoder"), [(TINY, 39_194_891, 30_019_104), (SMALL, 61_506_827, None)])
def test_networks_are_as_large_as_the_published_ones(
    sizes: tuple[tuple[int, ...], tuple[int, ...]], published: int, encoder: int | None
) -> None:
    """Less the norm after the last stage (2 x 768) and a number that the authors' code keeps for checkpointing."""
    with torch.device("meta"):
        network = NeuronNetwork(Architecture(*sizes))
    assert parameter_count(network) == published - 2 * 768 - 1
    if encoder is not None:
        assert parameter_count(network.encoder) == encoder - 2 * 768


def test_outputs_have_the_resolutions_that_the_loss_weighs() -> None:
    network = new_network(Architecture(FEATURES, DEPTHS), 0).eval()
    with torch.no_grad():
        outputs = network(torch.zeros(1, 1, 16, 32, 48))
    assert [tuple(one.shape[1:]) for one in outputs] == [(2, 16 // n, 32 // n, 48 // n) for n in (1, 2, 4, 8, 16)]
