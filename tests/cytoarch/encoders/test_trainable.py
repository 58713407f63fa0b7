"""Networks trained further: each ends as a folder that its encoder reads, and gives what it gave in training."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cytoarch.encoders.compact import load_compact
from cytoarch.encoders.cytonet import CytoNetConfig, build_cytonet, load_cytonet, save_cytonet
from cytoarch.encoders.dino import load_dino
from cytoarch.encoders.trainable import Trainable, Wanted, start_digest, trainable
from cytoarch.errors import ModelError
from cytoarch.pretraining.networks import PatchLearner, computed_twice
from tests.cytoarch.encoders.tiny_models import randomised, save_model

WANTED = Wanted(1, 64, 8.0, (4, 4, 6, 8, 8), (0, 0, 1, 0, 0))
TINY = {"stem_width": 4, "hidden_sizes": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "width": 16, "blocks": 2, "heads": 2,
        "mlp_width": 16, "tile_px": 64}  # fmt: skip


def start(kind: str, folder: Path) -> str:
    """The id of a folder to start from."""
    if kind == "compact":
        keep(trainable("compact", WANTED), folder)
    elif kind.startswith("cytonet"):
        config = CytoNetConfig(model_type=kind, **TINY)
        save_cytonet(randomised(build_cytonet(config)), config, folder)
    else:
        save_model(kind, folder)
    return f"{kind.split('_', maxsplit=1)[0]}:{folder}"


def keep(made: Trainable, folder: Path) -> Path:
    folder.mkdir()
    for name, content in made.files().items():
        (folder / name).write_bytes(content)
    return folder


LOADERS = {"compact": lambda one: load_compact(one, precision="fp32", device="cpu", folder=Path(one.partition(":")[2])),
           "cytonet": load_cytonet, "dinov3": load_dino}  # fmt: skip
KINDS = ("compact", "cytonet_r50", "cytonet_r50_vit", "dinov3_vit", "dinov3_convnext")


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_learned_is_what_the_encoder_gives(kind: str, tmp_path: Path) -> None:
    made = trainable(start(kind, tmp_path / "start"), WANTED)
    before = {name: one.clone() for name, one in made.module.state_dict().items()}
    pixels = torch.rand(4, made.network.channels, 64, 64, generator=torch.Generator().manual_seed(0))
    learner = PatchLearner(made.network).train()
    learner(pixels).square().sum().backward()
    learning = [one for one in made.module.parameters() if one.requires_grad]
    assert all(one.grad is not None for one in learning)
    torch.optim.SGD(learning, 1e-3).step()
    assert any(not torch.equal(one, before[name]) for name, one in made.module.state_dict().items())
    encoder = LOADERS[made.kind](f"{made.kind}:{keep(made, tmp_path / 'end')}")
    made.module.eval()
    with torch.inference_mode():
        wanted = made.network.patch(pixels)
    np.testing.assert_allclose(encoder.embed(pixels.numpy()), wanted.numpy(), atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_computing_twice_changes_neither_gradients_nor_what_norms_remember(kind: str, tmp_path: Path) -> None:
    name = start(kind, tmp_path / "start")
    pixels = torch.rand(4, 3 if kind.startswith("dino") else 1, 64, 64, generator=torch.Generator().manual_seed(0))
    found = []
    for twice in (False, True):
        made = trainable(name, WANTED)
        assert made.segments
        if twice:
            computed_twice(made.segments)
        made.module.train()
        made.network.patch(pixels).square().sum().backward()
        found.append((made.module.state_dict(), [one.grad for one in made.module.parameters()]))
    for key, one in found[0][0].items():
        assert torch.equal(one, found[1][0][key]), key
    for first, second in zip(found[0][1], found[1][1], strict=True):
        assert (first is None and second is None) or torch.equal(first, second)


def test_new_networks_have_the_published_sizes() -> None:
    wanted = Wanted(1, 128, 2.0, (4,) * 5, (0,) * 5)
    for name, count, width in (("cytonet-r50", 23_537_216, 2048), ("cytonet-r50-vit", 110_954_816, 768)):
        made = trainable(name, wanted)
        positions = 0 if width == 2048 else (1025 - 5) * 768  # of tiles of 2,048 px there are more
        assert sum(one.numel() for one in made.module.parameters()) == count - positions
        assert made.network.patch_width == width


def test_what_cannot_be_trained_says_what_can() -> None:
    with pytest.raises(ModelError, match="'lite0' is no network that can be trained; there are compact, cytonet-r50"):
        trainable("lite0", WANTED)
    with pytest.raises(ModelError, match="patches of 48 px do not fit compact: a multiple of 32 px is needed"):
        trainable("compact", Wanted(1, 48, 8.0, (4,) * 5, (0,) * 5))


def test_a_start_is_known_by_its_weights(tmp_path: Path) -> None:
    first, second = (start("compact", tmp_path / str(one)) for one in range(2))
    assert start_digest("compact") == ""
    assert start_digest(first) == start_digest(first) != start_digest(second)
