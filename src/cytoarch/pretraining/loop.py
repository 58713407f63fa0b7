"""The one loop that trains an encoder: what is learned, and from which batches, are its arguments."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from cytoarch.encoders.inference import arithmetic
from cytoarch.encoders.protocol import Precision
from cytoarch.errors import CytoarchError, ModelError
from cytoarch.pretraining.distributed import leads, mean_of_all, whole_batch
from cytoarch.pretraining.health import Health, health_of
from cytoarch.pretraining.objectives import B, Objective
from cytoarch.pretraining.optimisers import Method, make_optimiser
from cytoarch.settings import Settings


class LoopSettings(Settings):
    """How long, how fast and in what arithmetic an encoder is trained."""

    steps: int = Field(default=1000, ge=1, le=10_000_000, description="Batches, each seen once.")
    optimiser: Method = Field(default="lars", description="lars: as CytoNet; adamw: for short schedules.")
    learning_rate: float = Field(
        default=0.08, gt=0, le=100, description="At its highest; CytoNet: 0.01 per 256 samples."
    )
    weight_decay: float = Field(default=1e-4, ge=0, le=1, description="Of all but biases.")
    warmup: int = Field(default=0, ge=0, le=10_000_000, description="Steps in which the rate rises from 0.")
    decay: bool = Field(default=False, description="Let the rate fall to 0 along a cosine; no: constant, as CytoNet.")
    precision: Precision = Field(default="fp32", description="fp16 and bf16: weights stay fp32, arithmetic is mixed.")
    watch_every: int = Field(
        default=50, ge=1, le=10_000_000, description="Steps between two looks at the loss and the embeddings."
    )
    probe_every: int = Field(
        default=0,
        ge=0,
        le=10_000_000,
        description="Steps between two looks at how well places are told; 0: at the end only.",
    )
    keep_every: int = Field(default=500, ge=1, le=10_000_000, description="Steps between two checkpoints.")


@dataclass
class Trace:
    """How training went."""

    loss: list[float] = field(default_factory=list)
    """By step."""
    health: dict[int, Health] = field(default_factory=dict)
    """By the number of the step it was looked at."""
    probe: dict[int, dict[str, float]] = field(default_factory=dict)
    """What embeddings are worth, by the number of the step."""


@dataclass
class _Run:
    """All that changes while training."""

    learner: nn.Module
    optimiser: Optimizer
    scaler: torch.amp.GradScaler
    trace: Trace
    step: int = 0

    def state(self, settings: LoopSettings) -> dict[str, Any]:
        return {
            "settings": settings.model_dump(),
            "step": self.step,
            "learner": self.bare.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "loss": self.trace.loss,
            "health": {step: tuple(one) for step, one in self.trace.health.items()},
            "probe": self.trace.probe,
        }

    def resume(self, kept: dict[str, Any]) -> None:
        self.bare.load_state_dict(kept["learner"])
        self.optimiser.load_state_dict(kept["optimiser"])
        self.scaler.load_state_dict(kept["scaler"])
        self.trace.loss[:] = kept["loss"]
        self.trace.health.update({step: Health(*one) for step, one in kept["health"].items()})
        self.trace.probe.update(kept["probe"])
        self.step = kept["step"]

    @property
    def bare(self) -> nn.Module:
        """The learner, without what joins processes."""
        if not isinstance(self.learner, DistributedDataParallel):
            return self.learner
        joined: nn.Module = self.learner.module
        return joined


def pretrain(
    learner: nn.Module,
    batches: Callable[[int], B],
    objective: Objective[B],
    settings: LoopSettings,
    *,
    checkpoint_path: Path | None = None,
    on_step: Callable[[int, Trace], None] | None = None,
    probe: Callable[[], dict[str, float]] | None = None,
) -> Trace:
    """Train a network in place on its device; returns how it went.

    `batches` gives the batch of every step, always the same for the same step: a run that was cut off goes on from its
    checkpoint to the weights that it would have had. Losses are read from the device only every `watch_every` steps;
    checkpoints are written by turns beside `checkpoint_path` (`checkpoint_at`), so that while one is written the other
    stands. `probe` is asked every `probe_every`, but not after the last step. Several processes train together where
    the learner is a DistributedDataParallel: each computes its part of every batch, one of them writes. Raises
    ModelError if the loss is not finite, CytoarchError if the checkpoint is of other settings.
    """
    device = next(learner.parameters()).device.type
    optimiser = make_optimiser(learner, settings.optimiser, settings.learning_rate, settings.weight_decay)
    scaler = torch.amp.GradScaler(device, enabled=settings.precision == "fp16")
    run = _Run(learner.train(), optimiser, scaler, Trace())
    if checkpoint_path is not None and (latest := _latest(checkpoint_path, settings)) is not None:
        run.resume(latest)
    waiting: list[Tensor] = []
    while run.step < settings.steps:
        batch = batches(run.step)
        loss, outputs = _step(run, batch, objective, settings, device)
        run.step += 1
        waiting.append(loss)
        looked = run.step % settings.watch_every == 0 or run.step == settings.steps
        kept = checkpoint_path is not None and keeps(run.step, settings)
        if looked or kept:
            _look(run, waiting)
        if looked:
            found, whole = whole_batch(outputs.detach(), batch)
            run.trace.health[run.step] = health_of(found, objective.targets(whole))
        if probe is not None and probes(run.step, settings) and leads():
            run.trace.probe[run.step] = probe()
            run.learner.train()
        if kept and checkpoint_path is not None and leads():
            _write(checkpoint_at(checkpoint_path, run.step, settings), run.state(settings))
        if on_step is not None:
            on_step(run.step, run.trace)
    return run.trace


def _step(run: _Run, batch: B, objective: Objective[B], settings: LoopSettings, device: str) -> tuple[Tensor, Tensor]:
    """One step; returns the loss and the embeddings of the patches, the first of what a network gives."""
    for group in run.optimiser.param_groups:
        group["lr"] = rate_at(run.step, settings)
    with arithmetic(device, settings.precision):
        outputs = run.learner(*batch.given)
        loss = objective(outputs, batch)
    run.optimiser.zero_grad(set_to_none=True)
    run.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
    run.scaler.step(run.optimiser)
    run.scaler.update()
    return loss.detach(), outputs if isinstance(outputs, Tensor) else outputs[0]


def rate_at(step: int, settings: LoopSettings) -> float:
    """The learning rate of a step, counted from 0.

    >>> rate_at(0, LoopSettings(learning_rate=1, warmup=4)), rate_at(9, LoopSettings(learning_rate=1, warmup=4))
    (0.25, 1.0)
    """
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    if not settings.decay:
        return settings.learning_rate
    along = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * along))


def _look(run: _Run, waiting: list[Tensor]) -> None:
    """Read the losses that wait on the device. Raises ModelError if one is not finite."""
    losses = mean_of_all(torch.stack(waiting)).tolist() if waiting else []
    first = len(run.trace.loss)
    run.trace.loss += losses
    waiting.clear()
    for step, loss in enumerate(losses, start=first + 1):
        if not math.isfinite(loss):
            raise ModelError(f"the loss of step {step} is {loss}; a finite one is needed: lower learning_rate")


def keeps(step: int, settings: LoopSettings) -> bool:
    """Whether a checkpoint is written after a step."""
    return step % settings.keep_every == 0 or step == settings.steps


def probes(step: int, settings: LoopSettings) -> bool:
    """Whether embeddings are looked at after a step; after the last that is left to whoever trains.

    >>> [step for step in range(1, 7) if probes(step, LoopSettings(steps=6, probe_every=2))]
    [2, 4]
    """
    return settings.probe_every > 0 and step % settings.probe_every == 0 and step < settings.steps


def checkpoints(path: Path) -> tuple[Path, Path]:
    """The two files that checkpoints are written to by turns.

    >>> [one.name for one in checkpoints(Path("run.pt"))]
    ['run-0.pt', 'run-1.pt']
    """
    first, second = (path.with_stem(f"{path.stem}-{turn}") for turn in (0, 1))
    return first, second


def checkpoint_at(path: Path, step: int, settings: LoopSettings) -> Path:
    """The file of the checkpoint after a step; that of the one before is the other."""
    return checkpoints(path)[math.ceil(step / settings.keep_every) % 2]


def _latest(path: Path, settings: LoopSettings) -> dict[str, Any] | None:
    """The checkpoint of the highest step that can be read; None where there is none.

    Raises CytoarchError if one is of other settings, or none of those that are there can be read.
    """
    latest, damaged = None, dict[Path, Exception]()
    for one in checkpoints(path):
        if not one.exists():
            continue
        try:
            kept = _read(one, settings)
        except (RuntimeError, EOFError, UnpicklingError) as error:
            damaged[one] = error
            continue
        if latest is None or kept["step"] > latest["step"]:
            latest = kept
    if damaged and latest is None:
        said = "; ".join(f"{one}: {error}" for one, error in damaged.items())
        raise CytoarchError(f"the checkpoint cannot be read ({said}); remove it to begin anew")
    return latest


def _read(path: Path, settings: LoopSettings) -> dict[str, Any]:
    kept: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    differing = sorted(name for name, value in settings.model_dump().items() if kept["settings"].get(name) != value)
    if differing:
        raise CytoarchError(
            f"{path}: is the checkpoint of a run with another {', '.join(differing)}; remove it, or use its settings"
        )
    return kept


def _write(path: Path, state: dict[str, Any]) -> None:
    """Replace a checkpoint at once: a crash leaves the old one or the new one."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
