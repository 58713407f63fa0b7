"""A decoder at random, for tests of heads."""

import torch

from cytoarch.learning.decoder import Decoder, FusionNetwork


def a_decoder(card, dims=(3, 4), cells: int = 4, width: int = 8, seed: int = 0, **more) -> Decoder:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        the_card = card("decoder", dims, cells, **more)
        network = FusionNetwork(dims, len(the_card.classes), width, cells)
        network.mean.copy_(torch.randn(sum(dims)))
        network.spread.copy_(torch.rand(sum(dims)) + 0.5)
    return Decoder(the_card, network.eval().requires_grad_(requires_grad=False))
