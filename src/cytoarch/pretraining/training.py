"""An encoder pretrained on patches of several brains, and how well places are told from its embeddings."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from cytoarch.digests import canonical_json
from cytoarch.encoders.compact_model import CompactNetwork
from cytoarch.encoders.inference import arithmetic, check_device, device_name
from cytoarch.encoders.weights import CONFIG, SINGLE
from cytoarch.errors import TrainingError
from cytoarch.pretraining.augmentation import Draws
from cytoarch.pretraining.loop import Trace, pretrain
from cytoarch.pretraining.networks import PatchLearner
from cytoarch.pretraining.objectives import Objective, SimCLR, SpatialNCE
from cytoarch.pretraining.patches import Batch, PatchBatches, PatchPoints, SectionPixels, cut
from cytoarch.pretraining.probing import fit_positions, with_constant
from cytoarch.pretraining.settings import PretrainingSettings

RECORD_FILE = "training.json"
PROBED = 4000
"""Points that places are learned from, and that they are told of in each brain, at most."""
CHUNK = 256
RIDGE = 10.0

UInt8 = NDArray[np.uint8]


@dataclass(frozen=True)
class PlacedPatches:
    """Sections of several brains, and points in them whose places are known; brains count from 0."""

    sections: Sequence[UInt8]
    """(h, w) or (h, w, 3), all at one pixel size."""
    points: PatchPoints
    brains: tuple[str, ...]
    held_out: frozenset[str]
    """Brains that are not learned from."""

    @property
    def learned(self) -> NDArray[np.bool_]:
        """(n,) points that are learned from."""
        outside = [index for index, name in enumerate(self.brains) if name in self.held_out]
        return ~np.isin(self.points.brain, outside)


def train_encoder(
    patches: PlacedPatches,
    settings: PretrainingSettings,
    checkpoint_path: Path,
    on_step: Callable[[int, Trace], None],
) -> dict[str, bytes]:
    """The files of an encoder: weights, configuration, and the record of how it was trained and what it tells.

    A run that was cut off goes on from `checkpoint_path`. Raises TrainingError if there are fewer points than a batch.
    """
    check_device(settings.device)
    points = patches.points[np.flatnonzero(patches.learned)]
    if len(points) < settings.batch_size:
        raise TrainingError(
            f"{len(points)} points in {len(patches.brains) - len(patches.held_out)} brains are fewer than a batch of "
            f"{settings.batch_size}; take a smaller batch_size, or points nearer to each other"
        )
    pixels = SectionPixels.of(patches.sections, settings.device)
    torch.manual_seed(settings.seed)
    network = CompactNetwork(pixels.channels, settings.widths, settings.depths)
    learner = PatchLearner(network).to(settings.device)
    objective = objective_of(settings)
    batches = PatchBatches(
        pixels, points, settings.pixel_size_um, settings.patch_px, settings.batch_size, objective.views,
        settings.shift_mm, settings.seed,
    )  # fmt: skip
    trace = pretrain(learner, batches, objective, settings.loop, checkpoint_path=checkpoint_path, on_step=on_step)
    scores = place_errors(network, pixels, patches, settings)
    return encoder_files(network, settings, trace, scores, patches)


def objective_of(settings: PretrainingSettings) -> Objective[Batch]:
    """What is learned."""
    if settings.learning == "simclr":
        return SimCLR(settings.temperature)
    return SpatialNCE(settings.temperature, settings.sigma_mm)


def encoder_files(
    network: CompactNetwork,
    settings: PretrainingSettings,
    trace: Trace,
    scores: dict[str, dict[str, float]],
    patches: PlacedPatches,
) -> dict[str, bytes]:
    """A folder that `compact:FOLDER` reads; weights in single precision."""
    weights = save({name: one.detach().cpu().contiguous() for name, one in network.state_dict().items()})
    config = {
        "model_type": "cytoarch_compact", "channels": network.channels, "widths": settings.widths,
        "depths": settings.depths, "reads": "stages", "sha256": hashlib.sha256(weights).hexdigest(),
    }  # fmt: skip
    record = {
        "settings": settings.model_dump(mode="json"),
        "brains": {name: "held out" if name in patches.held_out else "learned" for name in patches.brains},
        "points": {name: int((patches.points.brain == k).sum()) for k, name in enumerate(patches.brains)},
        "device": device_name(settings.device),
        "loss": trace.loss,
        "health": {str(step): one._asdict() for step, one in trace.health.items()},
        "place_error_mm": scores,
    }
    return {SINGLE: weights, CONFIG: canonical_json(config).encode(), RECORD_FILE: _json(record)}


def _json(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, indent=1) + "\n").encode()


def place_errors(
    network: CompactNetwork, pixels: SectionPixels, patches: PlacedPatches, settings: PretrainingSettings
) -> dict[str, dict[str, float]]:
    """How far places in each brain are told wrong (mm, mean distance), linearly from embeddings.

    Every second point of the brains that are learned from teaches, the others and those of brains held out are told.
    `by_mean` is the error of who tells the mean place of all taught points: an embedding is worth what it is below.
    """
    index, learned = np.arange(len(patches.points)), patches.learned
    rng = np.random.default_rng([settings.seed, 3])
    taught = rng.permutation(np.flatnonzero(learned & (index % 2 == 0)))[:PROBED]
    known = torch.from_numpy(patches.points.position_mm[taught])
    told_by = fit_positions(embedded(network, pixels, patches.points[taught], settings).cpu(), known, RIDGE)
    found = {}
    for brain, name in enumerate(patches.brains):
        asked = rng.permutation(np.flatnonzero((patches.points.brain == brain) & (~learned | (index % 2 == 1))))[
            :PROBED
        ]
        if not len(asked):
            continue
        truth = torch.from_numpy(patches.points.position_mm[asked])
        told = with_constant(embedded(network, pixels, patches.points[asked], settings).cpu()) @ told_by
        found[name] = {
            "told": float((told - truth).norm(dim=1).mean()),
            "by_mean": float((known.mean(dim=0) - truth).norm(dim=1).mean()),
        }
    return found


def embedded(
    network: CompactNetwork, pixels: SectionPixels, points: PatchPoints, settings: PretrainingSettings
) -> Tensor:
    """Embeddings (n, d) float32 of plain patches around points."""
    parts = []
    network.eval()
    with torch.inference_mode(), arithmetic(settings.device, settings.loop.precision):
        for first in range(0, len(points), CHUNK):
            some = points[np.arange(first, min(first + CHUNK, len(points)))]
            parts.append(network(cut(pixels, some, Draws.plain(len(some)), settings.patch_px)).patch.float())
    return torch.cat(parts)
