"""What the study of pretraining is made with: its sizes, its methods, and one loop for all of them."""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.pretraining_phantoms import BrainPlan, BrainSet
from benchmarks.pretraining_scores import Roles, Sizes
from cytoarch.encoders.compact_model import DEPTHS, WIDTHS, CompactNetwork
from cytoarch.encoders.protocol import Precision
from cytoarch.phantoms.sections import Stain
from cytoarch.pretraining.loop import LoopSettings, Trace, pretrain
from cytoarch.pretraining.objectives import B, Objective, SimCLR, SpatialNCE, SupCon, Supervised
from cytoarch.pretraining.patches import Batch, PatchBatches

SIGMA_MM = 1.8
"""Two thirds of the radius of an area, as the published 10 mm are of a human one."""
SHIFT_MM = 0.1


@dataclass(frozen=True)
class Study:
    """How large everything is."""

    seen: int
    transfer: int
    unseen: int
    sections: int
    points: int
    pixel_size_um: float
    resolution: int
    patch_px: int
    batch_size: int
    learning_rate: float
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    seeds: tuple[int, ...]
    large_tokens: int
    """Edge of the patches that CytoNet is measured with, in its tokens of 64 px."""
    large_batch: int
    sizes: Sizes
    encoder_brains: tuple[tuple[Stain, int], ...]
    encoder_sections: int
    encoder_um: float
    encoder_patch_px: int
    encoder_batch: int

    def study_plans(self) -> list[BrainPlan]:
        """Silver-stained brains: seen, transfer, unseen."""
        return [
            BrainPlan(1000 + k, "silver", self.pixel_size_um, self.sections, self.points, self.resolution)
            for k in range(self.seen + self.transfer + self.unseen)
        ]

    def encoder_plans(self) -> list[BrainPlan]:
        """Other brains, of every stain."""
        stains = [stain for stain, count in self.encoder_brains for _ in range(count)]
        return [
            BrainPlan(2000 + k, stain, self.encoder_um, self.encoder_sections, self.points, self.resolution)
            for k, stain in enumerate(stains)
        ]


STUDIES = {
    "full": Study(
        seen=8, transfer=2, unseen=2, sections=30, points=400, pixel_size_um=8.0, resolution=120, patch_px=192,
        batch_size=1024, learning_rate=2e-3, widths=WIDTHS, depths=DEPTHS, seeds=(0, 1, 2),
        large_tokens=8, large_batch=64,
        sizes=Sizes(per_area=300, tests=4000, layer_train=800, layer_tests=300, neighbours=1500),
        encoder_brains=(("silver", 6), ("nissl", 6), ("dapi", 5)), encoder_sections=16, encoder_um=4.0,
        encoder_patch_px=192, encoder_batch=384,
    ),
    "small": Study(
        seen=4, transfer=1, unseen=1, sections=24, points=400, pixel_size_um=16.0, resolution=80, patch_px=96,
        batch_size=64, learning_rate=1e-3, widths=(16, 24, 32, 48, 64), depths=(0, 1, 1, 1, 0), seeds=(0,),
        large_tokens=2, large_batch=4,
        sizes=Sizes(per_area=60, tests=500, layer_train=100, layer_tests=40, neighbours=300),
        encoder_brains=(("silver", 1), ("nissl", 1), ("dapi", 1)), encoder_sections=4, encoder_um=12.0,
        encoder_patch_px=96, encoder_batch=32,
    ),
    "areas": Study(
        seen=4, transfer=1, unseen=1, sections=24, points=300, pixel_size_um=24.0, resolution=80, patch_px=64,
        batch_size=128, learning_rate=2e-3, widths=(16, 24, 32, 48, 64), depths=(0, 1, 1, 1, 0), seeds=(0, 1, 2),
        large_tokens=2, large_batch=4,
        sizes=Sizes(per_area=60, tests=500, layer_train=100, layer_tests=40, neighbours=300),
        encoder_brains=(("silver", 1), ("nissl", 1), ("dapi", 1)), encoder_sections=4, encoder_um=12.0,
        encoder_patch_px=96, encoder_batch=32,
    ),
    "toy": Study(
        seen=2, transfer=1, unseen=1, sections=6, points=100, pixel_size_um=24.0, resolution=48, patch_px=64,
        batch_size=24, learning_rate=1e-3, widths=(8, 8, 12, 16, 24), depths=(0, 1, 1, 1, 1), seeds=(0,),
        large_tokens=2, large_batch=4,
        sizes=Sizes(per_area=12, tests=80, layer_train=30, layer_tests=10, neighbours=60),
        encoder_brains=(("silver", 1), ("nissl", 1), ("dapi", 1)), encoder_sections=2, encoder_um=24.0,
        encoder_patch_px=64, encoder_batch=16,
    ),
}  # fmt: skip
METHODS: dict[str, Objective[Batch]] = {
    "SpatialNCE": SpatialNCE(sigma_mm=SIGMA_MM),
    "SimCLR": SimCLR(),
    "SupCon": SupCon(),
    "scratch": Supervised(),
}
LABELLED = ("SupCon", "scratch")
"""Learn from labels, and so from the seen brains only."""


@dataclass
class Bench:
    """What all parts share, and where their results go."""

    study: Study
    out: Path
    device: str
    precision: Precision
    deadline: float
    results: dict[str, Any]

    @property
    def left_s(self) -> float:
        """Time until the budget is spent."""
        return self.deadline - time.perf_counter()

    def keep(self) -> None:
        """Write what is known."""
        draft = self.out / "results.json.draft"
        draft.write_text(json.dumps(self.results, indent=1) + "\n", encoding="utf-8")
        draft.replace(self.out / "results.json")


def networked(bench: Bench, channels: int, seed: int) -> CompactNetwork:
    """A new network on the device, the same for the same seed."""
    torch.manual_seed(seed)
    network = CompactNetwork(channels, bench.study.widths, bench.study.depths)
    return network.to(bench.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def batches_of(bench: Bench, brains: BrainSet, roles: Roles, name: str, seed: int) -> PatchBatches:
    """The batches that a method learns from; SimCLR sees as many images, and so half as many patches."""
    chosen = roles.labelled if name in LABELLED else roles.pretraining
    views = METHODS[name].views
    return PatchBatches(
        brains.pixels,
        brains.points[np.flatnonzero(chosen)],
        bench.study.pixel_size_um,
        bench.study.patch_px,
        bench.study.batch_size // views,
        views,
        SHIFT_MM,
        seed,
    )


def settings_of(bench: Bench, steps: int, looks: int = 20) -> LoopSettings:
    """The same schedule for every method; AdamW, as LARS needs more steps than there are."""
    return LoopSettings(
        steps=steps, optimiser="adamw", learning_rate=bench.study.learning_rate, weight_decay=0.05,
        warmup=max(1, steps // 20), decay=True, precision=bench.precision, watch_every=max(1, steps // looks),
        keep_every=10_000_000,
    )  # fmt: skip


def trained(
    bench: Bench, learner: nn.Module, batches: Callable[[int], B], objective: Objective[B], steps: int
) -> dict[str, Any]:
    """Train in place; returns the curve."""
    start = time.perf_counter()
    trace: Trace = pretrain(learner, batches, objective, settings_of(bench, steps))
    return {
        "steps": steps,
        "seconds": time.perf_counter() - start,
        "loss": [round(one, 5) for one in trace.loss],
        "health": {step: list(one) for step, one in trace.health.items()},
    }


def seconds_a_step(
    bench: Bench, learner: nn.Module, batches: Callable[[int], B], objective: Objective[B], steps: int
) -> float:
    """Median of three short runs, after one that warms up."""
    pretrain(learner, batches, objective, settings_of(bench, 3))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        pretrain(learner, batches, objective, settings_of(bench, steps, looks=1))
        times.append((time.perf_counter() - start) / steps)
    return statistics.median(times)
