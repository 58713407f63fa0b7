"""What heads that are torch networks share: how they are checked, rebuilt, kept and applied."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cytoarch.errors import ModelError

Float32 = NDArray[np.float32]
Network = TypeVar("Network", bound=nn.Module)

STEP_BYTES = 3 << 30
"""A step of training takes at most so much, or what one crop takes: smaller batches where larger ones do not fit."""


def check_fits(kind: str, make: Callable[[], nn.Module], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ModelError unless tensors have the shapes of the network of a card; nothing is allocated for it."""
    with torch.device("meta"):
        network = make()
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    differing = sorted(name for name in {*wanted, *shapes} if wanted.get(name) != shapes.get(name))
    if differing:
        name = differing[0]
        raise ModelError(
            f"the weights do not fit the {kind} that their card describes: {name} has the shape "
            f"{shapes.get(name)}, {wanted.get(name)} is needed ({len(differing)} of {len(wanted)} tensors differ)"
        )


def rebuilt(kind: str, network: Network, tensors: Mapping[str, Float32]) -> Network:
    """The network with kept tensors, which fit it, ready to be applied. Raises ModelError if some are not finite."""
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise ModelError(f"a {kind}'s finite tensors are needed, found others among {sorted(tensors)}")
    network.load_state_dict({name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()})
    return network.eval().requires_grad_(False)


def tensors_of(network: nn.Module) -> Mapping[str, Float32]:
    """The weights of a network by name."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}


def probabilities_of(network: nn.Module, embeddings: Float32) -> Float32:
    """(b, c, y, x) -> the classes that a network tells (b, k, y u, x u), sums to 1 over k."""
    with torch.inference_mode():
        result: Float32 = network(torch.from_numpy(embeddings)).softmax(dim=1).numpy()
    return result
