"""Encoders: tiles in, token grids and embeddings of patches out, behind one protocol and chosen by a string id."""

from cytoarch.encoders.protocol import Encoder, TileShape
from cytoarch.encoders.registry import load_encoder

__all__ = ["Encoder", "TileShape", "load_encoder"]
