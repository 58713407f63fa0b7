"""Embeddings of a section: the whole path from store to store, against the encoder alone on tiles in memory."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from benchmarks.cases import Case
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.embeddings import EmbedSettings, SectionReader, tile_plan, write_embeddings
from cytoarch.encoders import Encoder, load_encoder
from cytoarch.images.pyramids import Pyramid, level_count, write_pyramid
from cytoarch.images.views import StoredImage
from cytoarch.records import Staging

EDGE_PX = 1536


def cases() -> Iterator[Case]:
    """The filter bank and a ViT-S of random weights, on a section of 1,536 x 1,536 px in the store."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = stored_image(folder / "section")
        torch.manual_seed(0)
        config = DINOv3ViTConfig(num_register_tokens=4)  # the defaults are those of ViT-S
        DINOv3ViTModel(config).save_pretrained(folder / "vits")
        yield case("texture", EmbedSettings(pixel_size_um=4.0), image)
        yield case("DINOv3 ViT-S/16 fp32", EmbedSettings(encoder=f"dinov3:{folder / 'vits'}", batch_size=4), image)


def stored_image(folder: Path) -> StoredImage:
    """A noisy section, written as ingestion writes it."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (1, EDGE_PX, EDGE_PX), dtype=np.uint8)
    pyramid = Pyramid(pixels.shape, pixels.dtype, 4.0, "mean", levels=level_count(EDGE_PX, EDGE_PX))
    staging = Staging(folder).open()
    write_pyramid(staging, pyramid, lambda y, x, h, w: pixels[:, y : y + h, x : x + w], name="section")
    return StoredImage.open(staging.path)


def case(name: str, settings: EmbedSettings, image: StoredImage) -> Case:
    """One encoder: our path, and the bare loop over the same tiles in the same batches."""
    encoder: Encoder = load_encoder(settings)
    tissue = TissueMask(np.ones((96, 96), dtype=bool), 64.0)
    reader = SectionReader.open(image, encoder, settings, 4.0)
    plan, _ = tile_plan(encoder, reader.view, settings)
    tiles = [reader.read(y, x, plan.tile_px, plan.tile_px) for y in plan.rows for x in plan.columns]
    columns = len(plan.columns)
    batches = [
        np.stack(tiles[first : min(first + settings.batch_size, row + columns)])
        for row in range(0, len(tiles), columns)
        for first in range(row, row + columns, settings.batch_size)
    ]

    def ours(folder: Path) -> None:
        write_embeddings(Staging(folder / "room").open(), image, tissue, encoder, settings, 4.0)

    def bare(_folder: Path) -> None:
        for batch in batches:
            encoder.encode(batch)

    return Case(f"embed {plan.tile_count} tiles of {plan.tile_px} px, {name}", ours, {"the encoder alone": bare})
