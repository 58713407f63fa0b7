"""A U-Net of areas, fine-tuned in two phases from what a network brings along, and scored after each."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors.torch import save

from cytoarch.encoders.compact_model import DEPTHS, WIDTHS, CompactNetwork
from cytoarch.encoders.inference import check_device, device_name
from cytoarch.encoders.trainable import Wanted, trainable
from cytoarch.errors import TrainingError
from cytoarch.pretraining.areas import NEIGHBOURS, AreaPatches
from cytoarch.pretraining.augmentation import Draws
from cytoarch.pretraining.loop import LoopSettings
from cytoarch.pretraining.settings import Depth, Width
from cytoarch.pretraining.unet import CELL_PX, AreaBatch, AreaScore, ExtendedUNet, area_score, finetune
from cytoarch.progress import Progress
from cytoarch.settings import Settings

WEIGHTS_FILE, RECORD_FILE = "unet.safetensors", "areas.json"
WITHOUT, WITH = "without atlas", "with atlas"
"""The phases of fine-tuning; scores are those at their ends."""


class AreaSettings(Settings):
    """What the U-Net begins with and sees, and how it is fine-tuned."""

    CONDUCT: ClassVar[frozenset[str]] = frozenset({"device"})
    """Fields that do not decide results."""

    network: str = Field(
        default="compact",
        max_length=500,
        description="What the texture path begins with: compact (random weights), or compact: and the folder of an "
        "encoder, such as one that learned distances along the cortex.",
        examples=["compact:/data/studies/siamese/derived/pretraining/siamese-8um"],
    )
    widths: tuple[Width, Width, Width, Width, Width] = Field(
        default=WIDTHS, description="Of a new network: channels at strides 2, 4, 8, 16 and 32 px."
    )
    depths: tuple[Depth, Depth, Depth, Depth, Depth] = Field(
        default=DEPTHS, description="Of a new network: residual blocks at these strides."
    )
    pixel_size_um: float = Field(default=8.0, ge=0.5, le=200, description="Pixel size the network sees.")
    patch_px: int = Field(default=192, ge=32, le=4096, multiple_of=32, description="Edge of a patch, in such pixels.")
    patches: int = Field(default=40, ge=1, le=100_000, description="Patches taken of every section, at most.")
    batch_size: int = Field(default=32, ge=2, le=65_536, description="Patches a step.")
    shift_mm: float = Field(default=0.1, ge=0, le=10, description="A patch's centre moves by up to so much.")
    neighbours: int = Field(
        default=NEIGHBOURS,
        ge=1,
        le=10_000,
        description="Labelled points of other brains, the nearest to a place, whose areas are its probabilities.",
    )
    without_atlas: LoopSettings = Field(
        default=LoopSettings(
            steps=800, optimiser="adamw", learning_rate=2e-3, weight_decay=0.05, warmup=40, decay=True
        ),
        description="The first phase.",
    )
    with_atlas: LoopSettings = Field(
        default=LoopSettings(
            steps=400, optimiser="adamw", learning_rate=1e-3, weight_decay=0.05, warmup=20, decay=True
        ),
        description="The second phase; where labels are of one brain there is none.",
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Of the first weights and of the batches.")
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="Where it is trained.")


@dataclass(frozen=True)
class LabelledPatches:
    """Patches of several brains, and which of their points serve for what."""

    patches: AreaPatches
    classes: tuple[str, ...]
    learned: NDArray[np.int64]
    """Points that are learned from."""
    tests: Mapping[str, NDArray[np.int64]]
    """Points that are scored on, by what they were held out with."""


def train_areas(labelled: LabelledPatches, settings: AreaSettings, on_progress: Progress) -> dict[str, bytes]:
    """The files of a U-Net: weights, and the record of its training and scores.

    Raises TrainingError if there are fewer points than a batch, or another network than compact is named.
    """
    check_device(settings.device)
    patches, classes = labelled.patches, len(labelled.classes)
    if len(labelled.learned) < settings.batch_size:
        raise TrainingError(
            f"{len(labelled.learned)} labelled points are fewer than a batch of {settings.batch_size}; take a smaller "
            "batch_size, or more patches of every section"
        )
    torch.manual_seed(settings.seed)
    wanted = Wanted(
        patches.pixels.channels, settings.patch_px, settings.pixel_size_um, settings.widths, settings.depths
    )
    network = trainable(settings.network, wanted).network
    if not isinstance(network, CompactNetwork):
        raise TrainingError(f"{settings.network}: the U-Net begins with compact, or compact:FOLDER; name one of them")
    unet = ExtendedUNet(network, classes, classes).to(settings.device)
    second = None if patches.priors is None else settings.with_atlas
    steps = settings.without_atlas.steps + (0 if second is None else second.steps)

    def batch(step: int) -> AreaBatch:
        on_progress(step + 1, steps)
        rng = np.random.default_rng([settings.seed, 5, step])
        chosen = rng.choice(labelled.learned, settings.batch_size, replace=False)
        drawn = Draws.draw(rng, settings.batch_size, settings.pixel_size_um, shift_mm=settings.shift_mm)
        return patches.batch(chosen, drawn)

    scores: dict[str, dict[str, AreaScore]] = {}
    traces = finetune(
        unet, batch, settings.without_atlas, second,
        between=lambda: scores.update({WITHOUT: scores_of(unet, labelled, settings, atlas=False)}),
    )  # fmt: skip
    if second is not None:
        scores[WITH] = scores_of(unet, labelled, settings, atlas=True)
    record = {
        "classes": labelled.classes,
        "settings": settings.model_dump(mode="json"),
        "points": {"learned": len(labelled.learned)} | {name: len(one) for name, one in labelled.tests.items()},
        "device": device_name(settings.device),
        "loss": {phase: trace.loss for phase, trace in zip((WITHOUT, WITH), traces, strict=False)},
        "scores": {phase: {split: score._asdict() for split, score in one.items()} for phase, one in scores.items()},
    }
    weights = {name: one.detach().cpu().contiguous() for name, one in unet.state_dict().items()}
    return {WEIGHTS_FILE: save(weights), RECORD_FILE: (json.dumps(record, indent=1) + "\n").encode()}


def scores_of(
    unet: ExtendedUNet, labelled: LabelledPatches, settings: AreaSettings, *, atlas: bool
) -> dict[str, AreaScore]:
    """Dice and err_seg on the points of every test, as they are now."""
    found = {}
    for name, points in labelled.tests.items():
        parts = np.array_split(points, -(-len(points) // settings.batch_size))
        plain = (labelled.patches.batch(one, Draws.plain(len(one))) for one in parts)
        found[name] = area_score(unet, plain, len(labelled.classes), CELL_PX * settings.pixel_size_um, atlas)
    return found
