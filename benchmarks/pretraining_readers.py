"""How the study of pretraining reads patches and tokens: with its own networks, with encoders that saw no phantom."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from benchmarks.pretraining_bench import Bench
from benchmarks.pretraining_scores import TOKEN_PX, Reader
from cytoarch.encoders.compact_model import CompactNetwork
from cytoarch.encoders.inference import arithmetic
from cytoarch.encoders.lite_model import LiteNetwork


def reader(bench: Bench, network: CompactNetwork) -> Reader:
    """Embeddings of patches, and the stages at strides 8, 16 and 32 as tokens of 8 px."""
    network.eval()

    def read(pixels: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(), arithmetic(bench.device, bench.precision):
            found = (pixels.expand(-1, network.channels, -1, -1) - 0.5) / 0.25
            stages = []
            for stage in network.stages:
                found = stage(found)
                stages.append(found)
            size = stages[2].shape[-2:]
            tokens = [functional.interpolate(one.float(), size=size, mode="bilinear") for one in stages[2:]]
            return found.float().mean(dim=(2, 3)), torch.cat(tokens, dim=1)

    return read


def token_reader(bench: Bench, network: CompactNetwork) -> Reader:
    """Embeddings of patches, and the network's own tokens of 4 px averaged to 8 px."""
    network.eval()

    def read(pixels: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(), arithmetic(bench.device, bench.precision):
            found = network(pixels.expand(-1, network.channels, -1, -1))
            return found.patch.float(), functional.avg_pool2d(found.tokens.float(), TOKEN_PX // 4)

    return read


def lite_reader(bench: Bench, path: Path) -> Reader:
    """EfficientNet-Lite0 of ImageNet at three scales, as the encoder `lite0` reads it."""
    network = LiteNetwork()
    network.load_state_dict(load_file(path / "model.safetensors"))
    network.eval().to(bench.device)
    mean, std = (
        torch.tensor(one, device=bench.device)[:, None, None] for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )

    def read(pixels: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(), arithmetic(bench.device, bench.precision):
            found = (pixels.expand(-1, 3, -1, -1) - mean) / std
            stages = [one.float() for scale in (1, 2, 4) for one in network(functional.avg_pool2d(found, scale))]
            size = (pixels.shape[-2] // TOKEN_PX, pixels.shape[-1] // TOKEN_PX)
            tokens = [
                functional.adaptive_avg_pool2d(one, size)
                if one.shape[-1] >= size[-1]
                else functional.interpolate(one, size=size, mode="bilinear")
                for one in stages
            ]
            whole = torch.cat(tokens, dim=1)
            return whole.mean(dim=(2, 3)), whole

    return read


def texture_reader(bench: Bench) -> Reader:
    """The filter bank without weights, on the processor."""
    from cytoarch.encoders.texture import TextureEncoder

    encoder = TextureEncoder()

    def read(pixels: Tensor) -> tuple[Tensor, Tensor]:
        layer = torch.from_numpy(encoder.encode(pixels.cpu().numpy())[0]).to(bench.device)
        return layer.mean(dim=(2, 3)), functional.avg_pool2d(layer, TOKEN_PX // 4)

    return read
