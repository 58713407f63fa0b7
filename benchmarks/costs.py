"""What embedding whole brains costs: tokens, bytes, time here and on a GPU; checked against runs of three sizes.

`python -m benchmarks.costs` (some five minutes) writes the tables in docs/embeddings.md.
"""

import math
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from benchmarks.cases import write_block
from benchmarks.embedding import Subject, embed, stored_brain, vit_b
from cytoarch.embeddings import EmbedSettings
from cytoarch.steps.encoders import encoder_for
from cytoarch.store.records import read_record

DOCS = Path(__file__).parent.parent / "docs" / "embeddings.md"
BLOCK = "costs: written by python -m benchmarks.costs"
TOKEN_PX, TILE_PX, LAYERS, WIDTH = 16, 512, 4, 768
SIZES_PX = (1536, 2048, 3000)
PEAK_FLOPS = 989e12
"""Dense bf16 peak of an H100 or H200 (NVIDIA data sheet)."""
SHARE_OF_PEAK = 0.4
"""What a vision transformer commonly reaches of it: an assumption, not measured here."""


class BrainSize(NamedTuple):
    """A brain, by the area of tissue on all its sections."""

    name: str
    tissue_mm2: float


BRAINS = (
    BrainSize("mouse: 450 mm3 cut at 25 um", 450 / 0.025),
    BrainSize("macaque: 90 cm3 cut at 40 um", 90_000 / 0.04),
    BrainSize("human: 4,654 sections, 10.7 TB at 1 um, half of it tissue", 10.7e12 / 1e6 / 2),
)


def tokens_of(tissue_mm2: float, pixel_size_um: float) -> float:
    """Tokens that lie in tissue."""
    return tissue_mm2 * 1e6 / (TOKEN_PX * pixel_size_um) ** 2


def flops_per_token() -> float:
    """Floating-point operations of ViT-B/16 on a tile of 512 px, a token each, counted on a model without weights."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": 3072, "num_attention_heads": 12, "num_register_tokens": 4}
    with torch.device("meta"):
        model, tile = DINOv3ViTModel(DINOv3ViTConfig(**sizes)), torch.empty(1, 3, TILE_PX, TILE_PX)
    with FlopCounterMode(display=False) as counter:
        model(tile)
    return float(counter.get_total_flops()) / (TILE_PX // TOKEN_PX) ** 2


class Run(NamedTuple):
    """A section that was embedded."""

    edge_px: int
    tokens: int
    disk_bytes: int
    seconds: float


def measured(folder: Path, edge_px: int) -> Run:
    """Embed a section of this size in bf16 and count what came of it."""
    settings = EmbedSettings(encoder=f"dinov3:{folder / 'vitb'}", batch_size=1, precision="bf16")
    subject = Subject("costs", settings, 4.0, edge_px, 1)
    brain = stored_brain(folder / str(edge_px), subject)
    encoder_for(settings)
    start = time.perf_counter()
    step = embed(brain.store.root, subject)
    seconds = time.perf_counter() - start
    record = read_record(brain.catalogue.record_path(step.product("s0")))
    tokens = math.prod(record.facts["grid"])
    return Run(edge_px, tokens, sum(seal.size_bytes for seal in record.files.values()), seconds)


def main() -> int:
    """Measure and write both tables."""
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as name:
        vit_b(Path(name) / "vitb")
        measured(Path(name), 512)  # warms up
        runs = [measured(Path(name), edge) for edge in SIZES_PX]
    reference = runs[1]
    rate, kept = reference.tokens / reference.seconds, reference.disk_bytes / reference.tokens
    check = [
        "| section (px) | tokens, predicted | found | MB on disk, predicted | found | seconds, predicted | found |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        tiles = math.ceil(run.edge_px / TILE_PX) ** 2 * (TILE_PX // TOKEN_PX) ** 2
        predicted = tokens_of((run.edge_px * 4 / 1000) ** 2, 4.0)
        check.append(
            f"| {run.edge_px:,} x {run.edge_px:,} | {predicted:,.0f} | {run.tokens:,} | {predicted * kept / 1e6:.1f} "
            f"| {run.disk_bytes / 1e6:.1f} | {tiles / rate:.1f} | {run.seconds:.1f} |"
        )
    flops = flops_per_token()
    table = [
        "| brain | um per px | tokens | on disk | this machine | GPU-hours |",
        "|---|---|---|---|---|---|",
    ]
    for brain in BRAINS:
        for size in (1.0, 2.0, 4.0):
            tokens = tokens_of(brain.tissue_mm2, size)
            gpu_h = tokens * flops / (PEAK_FLOPS * SHARE_OF_PEAK) / 3600
            table.append(
                f"| {brain.name} | {size:g} | {tokens / 1e6:,.0f} M | {tokens * kept / 1e12:,.2f} TB "
                f"| {tokens / rate / 86400:,.1f} days | {gpu_h:,.2f} |"
            )
    said = (
        f"Four layers of ViT-B/16 in bf16 on tiles of 512 px side by side; {kept:,.0f} bytes a token on disk, "
        f"{rate:,.0f} tokens/s on two cores (measured), {flops / 1e6:,.0f} MFLOP a token (counted), "
        f"GPU-hours at {SHARE_OF_PEAK:.0%} of {PEAK_FLOPS / 1e12:,.0f} TFLOP/s (assumed, not measured)."
    )
    checked = "Checked against sections that were embedded (bytes a token and the rate are those of the second):"
    note = "Time follows whole tiles: a border that fills a tenth of a tile takes its whole time."
    body = "\n".join([*table, "", said, "", checked, "", *check, "", note])
    write_block(DOCS, BLOCK, body)
    print(body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
