"""An encoder pretrained on patches of several brains, and how well places are told from its embeddings."""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cytoarch.anatomy.surfaces import Mesh
from cytoarch.encoders.inference import arithmetic, check_device, device_name
from cytoarch.encoders.trainable import Trainable, Wanted, trainable
from cytoarch.errors import TrainingError
from cytoarch.pretraining.augmentation import Draws
from cytoarch.pretraining.distributed import (
    SharedSimCLR,
    SharedSpatialNCE,
    company,
    leads,
    rank,
    shared_norms,
)
from cytoarch.pretraining.loop import Trace, pretrain
from cytoarch.pretraining.networks import PatchLearner, computed_twice, patch_embeddings
from cytoarch.pretraining.objectives import Objective, SimCLR, SpatialNCE
from cytoarch.pretraining.pairs import PairBatches, Siamese, SurfacePairs
from cytoarch.pretraining.patches import PatchBatches, PatchPoints, SectionPixels, Windows, cut
from cytoarch.pretraining.probing import fit_positions, with_constant
from cytoarch.pretraining.sections import Ahead, StoredSections, StreamedSections
from cytoarch.pretraining.settings import PretrainingSettings
from cytoarch.pretraining.siamese import SiameseLearner, SiameseLoss

RECORD_FILE = "training.json"
PROBED = 4000
"""Points that places are learned from, and that they are told of in each brain, at most."""
CHUNK = 256
RIDGE = 10.0


@dataclass(frozen=True)
class PlacedPatches:
    """Sections of several brains, and points in them whose places are known; brains count from 0."""

    sections: StoredSections
    points: PatchPoints
    brains: tuple[str, ...]
    held_out: frozenset[str]
    """Brains that are not learned from."""
    surfaces: Mapping[int, Mesh] = field(default_factory=dict)
    """The middle of the cortex of every brain, where distances along it are learned."""

    @property
    def learned(self) -> NDArray[np.bool_]:
        """(n,) points that are learned from."""
        outside = [index for index, name in enumerate(self.brains) if name in self.held_out]
        return ~np.isin(self.points.brain, outside)

    def check(self, settings: PretrainingSettings) -> None:
        """Raise TrainingError if there are fewer points than a batch, or a batch cannot be shared evenly."""
        count = int(self.learned.sum())
        if count < settings.batch_size:
            raise TrainingError(
                f"{count} points in {len(self.brains) - len(self.held_out)} brains are fewer than a batch of "
                f"{settings.batch_size}; take a smaller batch_size, or points nearer to each other"
            )
        if settings.learning == "siamese" and (settings.processes > 1 or settings.batch_size % 2):
            raise TrainingError(
                f"the Siamese task in {settings.processes} processes with batches of {settings.batch_size}; needed: "
                "one process, and an even batch_size"
            )
        if settings.batch_size % settings.processes:
            raise TrainingError(
                f"a batch of {settings.batch_size} cannot be shared by {settings.processes} processes; needed: a "
                "multiple of them"
            )


def train_encoder(
    patches: PlacedPatches, settings: PretrainingSettings, checkpoint_path: Path, on_step: Callable[[int], None]
) -> dict[str, bytes]:
    """The files of an encoder: weights, configuration, and the record of how it was trained and what it tells.

    A run that was cut off goes on from `checkpoint_path`. In each of several processes that torch has joined this
    trains its part; only the first of them gets files, the others an empty dict. Raises TrainingError if there are too
    few points.
    """
    check_device(settings.device)
    patches.check(settings)
    held = settings.pixels == "held"
    device = torch.device(settings.device)
    pixels = SectionPixels.read(patches.sections, device) if held else StreamedSections(patches.sections, device)
    torch.manual_seed(settings.seed)
    made = trainable(settings.network, _wanted(pixels, settings))
    learner = _prepared(made, settings)
    objective = objective_of(settings)
    points = patches.points[np.flatnonzero(patches.learned)]
    batches = PatchBatches(
        pixels, points, settings.pixel_size_um, settings.patch_px, settings.batch_size, objective.views,
        settings.shift_mm, settings.seed, points.balanced(settings.balanced_mm), share=(rank(), company()),
    )  # fmt: skip
    source: Callable[[int], Any] = batches
    if settings.learning == "siamese":
        pairs = SurfacePairs.of(batches.points, patches.surfaces, settings.seed)
        source = PairBatches(batches, pairs)

    with ExitStack() as stack:
        # a model on the processor keeps every core busy: only waiting for files is worth a thread beside it
        source = source if held else stack.enter_context(Ahead(source, settings.loop.steps))
        trace = pretrain(
            learner, source, objective, settings.loop, checkpoint_path=checkpoint_path,
            on_step=lambda step, _trace: on_step(step),
            probe=lambda: _by_name(place_errors(made, pixels, patches, settings)),
        )  # fmt: skip
    if not leads():
        return {}
    scores = place_errors(made, pixels, patches, settings)
    if settings.loop.probe_every:
        trace.probe[settings.loop.steps] = _by_name(scores)
    return encoder_files(made, settings, trace, scores, patches)


def _by_name(errors: dict[str, dict[str, float]]) -> dict[str, float]:
    """Errors of places as brain/how."""
    return {f"{brain}/{how}": value for brain, one in errors.items() for how, value in one.items()}


def _wanted(pixels: Windows, settings: PretrainingSettings) -> Wanted:
    return Wanted(pixels.channels, settings.patch_px, settings.pixel_size_um, settings.widths, settings.depths)


def _prepared(made: Trainable, settings: PretrainingSettings) -> nn.Module:
    """The network with its head on its device, joined with those of other processes where there are some."""
    heads = SiameseLearner if settings.learning == "siamese" else PatchLearner
    learner: nn.Module = heads(made.network).to(settings.device)
    if company() > 1:
        learner = shared_norms(learner, settings.device)
    if settings.recompute:
        computed_twice(made.segments)
    return DistributedDataParallel(learner) if company() > 1 else learner


def objective_of(settings: PretrainingSettings) -> Objective[Any]:
    """What is learned, from the batch of all processes."""
    if settings.learning == "siamese":
        distances, coordinates = (settings.siamese in ("both", one) for one in ("distances", "coordinates"))
        return Siamese(SiameseLoss(distances=distances, coordinates=coordinates))
    if settings.learning == "simclr":
        return SimCLR(settings.temperature) if company() == 1 else SharedSimCLR(settings.temperature)
    shared = SpatialNCE if company() == 1 else SharedSpatialNCE
    return shared(settings.temperature, settings.sigma_mm)


def encoder_files(
    made: Trainable,
    settings: PretrainingSettings,
    trace: Trace,
    scores: dict[str, dict[str, float]],
    patches: PlacedPatches,
) -> dict[str, bytes]:
    """A folder that the encoder's kind of id reads; weights in single precision."""
    record = {
        "kind": made.kind,
        "settings": settings.model_dump(mode="json"),
        "brains": {name: "held out" if name in patches.held_out else "learned" for name in patches.brains},
        "points": {name: int((patches.points.brain == k).sum()) for k, name in enumerate(patches.brains)},
        "device": device_name(settings.device),
        "loss": trace.loss,
        "health": {str(step): one._asdict() for step, one in trace.health.items()},
        "probe": {str(step): one for step, one in trace.probe.items()},
        "place_error_mm": scores,
    }
    return made.files() | {RECORD_FILE: _json(record)}


def _json(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, indent=1) + "\n").encode()


def place_errors(
    made: Trainable, pixels: Windows, patches: PlacedPatches, settings: PretrainingSettings
) -> dict[str, dict[str, float]]:
    """How far places in each brain are told wrong (mm, mean distance), linearly from embeddings.

    Every second point of the brains that are learned from teaches, the others and those of brains held out are told.
    `by_mean` is the error of who tells the mean place of all taught points: an embedding is worth what it is below.
    """
    index, learned = np.arange(len(patches.points)), patches.learned
    rng = np.random.default_rng([settings.seed, 3])
    taught = rng.permutation(np.flatnonzero(learned & (index % 2 == 0)))[:PROBED]
    known = torch.from_numpy(patches.points.position_mm[taught])
    told_by = fit_positions(embedded(made, pixels, patches.points[taught], settings).cpu(), known, RIDGE)
    found = {}
    for brain, name in enumerate(patches.brains):
        asked = rng.permutation(np.flatnonzero((patches.points.brain == brain) & (~learned | (index % 2 == 1))))[
            :PROBED
        ]
        if not len(asked):
            continue
        truth = torch.from_numpy(patches.points.position_mm[asked])
        told = with_constant(embedded(made, pixels, patches.points[asked], settings).cpu()) @ told_by
        found[name] = {
            "told": float((told - truth).norm(dim=1).mean()),
            "by_mean": float((known.mean(dim=0) - truth).norm(dim=1).mean()),
        }
    return found


def embedded(made: Trainable, pixels: Windows, points: PatchPoints, settings: PretrainingSettings) -> Tensor:
    """Embeddings (n, d) float32 of plain patches around points."""
    parts = []
    made.module.eval()
    with torch.inference_mode(), arithmetic(settings.device, settings.loop.precision):
        for first in range(0, len(points), CHUNK):
            some = points[np.arange(first, min(first + CHUNK, len(points)))]
            plain = Draws.plain(len(some))
            parts.append(patch_embeddings(made.network, cut(pixels, some, plain, settings.patch_px)).float())
    return torch.cat(parts)
