"""A vision transformer that everybody has: small, of random weights, in a folder."""

from pathlib import Path

import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel


def tiny_transformer(folder: Path, blocks: int = 2) -> str:
    """The id of an encoder that is saved in a folder: a DINOv3 of two heads with four registers."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        config = DINOv3ViTConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=blocks, num_attention_heads=2, num_register_tokens=4
        )
        DINOv3ViTModel(config).save_pretrained(folder)
    return f"dinov3:{folder}"
