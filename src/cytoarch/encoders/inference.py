"""What encoders made of weights share: device and arithmetic, the pixels they see, the layers they are asked for."""

import platform
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch

from cytoarch.encoders.protocol import Float32, Precision
from cytoarch.errors import ModelError

_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def device_name(device: str = "cpu") -> str:
    """What a device calls itself, for provenance: the model of the processor or of the graphics card."""
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # only Linux has it
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine() or "cpu"


def check_device(device: str) -> None:
    """Raise ModelError if the device is not there."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError("device cuda is asked for, but this machine shows no CUDA device to torch; use device cpu")


def arithmetic(device: str, precision: Precision) -> AbstractContextManager[object]:
    """Where a model computes in a precision: weights stay float32, torch rounds what may be rounded (autocast).

    By default torch lets convolutions on a GPU round to TF32; what is called fp32 here does not.
    """
    if precision == "fp32":
        if device.startswith("cuda"):
            exact: AbstractContextManager[object] = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
            return exact
        return nullcontext()
    return torch.autocast(torch.device(device).type, _HALVES[precision])


def normalised(
    tiles: Float32, mean: Sequence[float], std: Sequence[float], *, multiple_px: int, device: str
) -> torch.Tensor:
    """(b, c, T, T) float32 in [0, 1] -> (b, len(mean), T, T) float32 on the device, (tiles - mean) / std by channel.

    One channel is repeated where three are needed. Raises ModelError for any other number of channels, and unless the
    tiles are squares of a multiple of `multiple_px`.
    """
    channels = len(mean)
    allowed = sorted({1, channels})
    square = tiles.ndim == 4 and tiles.shape[2] == tiles.shape[3]
    if not square or tiles.shape[1] not in allowed or tiles.shape[2] % multiple_px or not tiles.size:
        raise ModelError(
            f"tiles of shape {tiles.shape} do not fit the encoder; needed: (b, {' or '.join(map(str, allowed))}, T, T) "
            f"with T a multiple of {multiple_px}"
        )
    # torch warns of arrays it could write to but should not
    pixels = torch.from_numpy(np.require(tiles, np.float32, ["C", "W"])).to(device)
    centre, spread = (torch.tensor(values, device=device).view(1, channels, 1, 1) for values in (mean, std))
    return (pixels - centre).div_(spread)


def channels_first(tokens: torch.Tensor) -> Float32:
    """(b, n * n, d) tokens, row by row -> (b, d, n, n) float32, in C order."""
    count, area, width = tokens.shape
    edge = round(area**0.5)
    # transposed where the tokens are: on the graphics card that is nearly free
    grid = tokens.transpose(1, 2).contiguous().view(count, width, edge, edge)
    return np.asarray(grid.float().cpu().numpy())


def chosen_layers(
    source: str, asked: Sequence[int], count: int, default: tuple[int, ...], noun: str = "blocks"
) -> tuple[int, ...]:
    """The 1-based layers to read, shallow to deep. Raises ModelError for one the model lacks or one named twice."""
    if len(set(asked)) < len(asked) or any(not 1 <= layer <= count for layer in asked):
        raise ModelError(
            f"{source}: {noun} {list(asked)} asked for; the model has {noun} 1 to {count}, and each may be named once"
        )
    return tuple(sorted(asked)) or default


def four_even(count: int) -> tuple[int, ...]:
    """Four evenly spaced blocks, 3/6/9/12 of 12 (Zhang, Xu and Zhou).

    >>> four_even(12), four_even(24), four_even(2)
    ((3, 6, 9, 12), (6, 12, 18, 24), (1, 2))
    """
    return tuple(sorted({max(1, round(count * quarter / 4)) for quarter in (1, 2, 3, 4)}))
