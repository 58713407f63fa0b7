"""Sections held on the device that trains, and batches of patches cut from them there."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cytoarch.augmentation import SHIFT_MM
from cytoarch.pretraining.augmentation import Draws, changed, taken
from cytoarch.pretraining.sections import StoredSections
from cytoarch.pretraining.sending import sent

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class SectionPixels:
    """The pixels of many sections, one after the other."""

    values: Tensor
    """(pixels of all sections, c) uint8."""
    first: Int64
    """(s,) where each section begins."""
    shape: Int64
    """(s, 2) height and width."""

    @classmethod
    def of(cls, sections: Sequence[NDArray[np.uint8]], device: "torch.device | str") -> Self:
        """Sections (h, w) or (h, w, c); where some have three channels, one is repeated."""
        planes = [one if one.ndim == 3 else one[..., None] for one in sections]
        shape = np.array([one.shape[:2] for one in planes], dtype=np.int64)
        first = np.concatenate([[0], np.cumsum(shape.prod(axis=1))])
        channels = max(one.shape[2] for one in planes)
        values = torch.empty((int(first[-1]), channels), dtype=torch.uint8, device=device)
        for at, plane in zip(first.tolist(), planes, strict=False):
            pixels = torch.from_numpy(np.array(plane)).to(device).reshape(-1, plane.shape[2])
            values[at : at + len(pixels)] = pixels  # one channel goes to all
        return cls(values, first[:-1], shape)

    @classmethod
    def read(cls, sections: StoredSections, device: "torch.device | str") -> Self:
        """Sections of the store, a band of rows at a time."""
        shape = np.array([one.view.grid.shape for one in sections], dtype=np.int64).reshape(-1, 2)
        first = np.concatenate([[0], np.cumsum(shape.prod(axis=1))])
        values = torch.empty((int(first[-1]), sections.channels), dtype=torch.uint8, device=device)
        for at, section in zip(first.tolist(), sections, strict=False):
            for top, rows in section.bands():
                pixels = torch.from_numpy(rows).to(device).reshape(-1, rows.shape[2])
                start = at + top * rows.shape[1]
                values[start : start + len(pixels)] = pixels  # one channel goes to all
        return cls(values, first[:-1], shape)

    @property
    def channels(self) -> int:
        """Of every pixel."""
        return self.values.shape[1]

    @property
    def device(self) -> torch.device:
        """Where they are held."""
        return self.values.device

    def halved(self) -> Self:
        """The sections at twice the pixel size; an odd last row or column is left out."""
        shape = self.shape // 2
        first = np.concatenate([[0], np.cumsum(shape.prod(axis=1))])
        values = torch.empty((int(first[-1]), self.channels), dtype=torch.uint8, device=self.values.device)
        for index, (height, width) in enumerate(shape.tolist()):
            whole = self.section(index)[: 2 * height, : 2 * width].reshape(height, 2, width, 2, self.channels)
            mean = (whole.sum(dim=(1, 3), dtype=torch.int16) + 2) // 4
            values[int(first[index]) : int(first[index + 1])] = mean.to(torch.uint8).reshape(-1, self.channels)
        return type(self)(values, first[:-1], shape)

    def section(self, index: int) -> Tensor:
        """The pixels (h, w, c) of one section."""
        (height, width), at = self.shape[index].tolist(), int(self.first[index])
        return self.values[at : at + height * width].reshape(height, width, self.channels)

    def windows(self, section: Int64, corner_px: Int64, edge_px: int) -> Tensor:
        """Squares (n, c, E, E) uint8 of sections (n,) from corners (n, 2); past a section its edge goes on."""
        device = self.values.device
        table = np.concatenate([self.first[section][:, None], self.shape[section], corner_px], axis=1)
        # places as short as they fit: a table of them is many times as large as the pixels
        short = torch.int32 if len(self.values) <= torch.iinfo(torch.int32).max else torch.int64
        first, height, width, top, left = sent(table, device).to(short).T[:, :, None]
        along = torch.arange(edge_px, device=device, dtype=short)
        rows = torch.minimum((top + along).clamp(min=0), height - 1)
        columns = torch.minimum((left + along).clamp(min=0), width - 1)
        places = (first + rows * width)[:, :, None] + columns[:, None, :]
        pixels = self.values.index_select(0, places.flatten())
        return pixels.view(len(section), edge_px, edge_px, self.channels).permute(0, 3, 1, 2)


class Windows(Protocol):
    """Sections that patches are cut from."""

    @property
    def channels(self) -> int:
        """Of every pixel."""

    @property
    def device(self) -> torch.device:
        """Where windows come."""

    def windows(self, section: Int64, corner_px: Int64, edge_px: int) -> Tensor:
        """Squares (n, c, E, E) uint8 of sections (n,) from corners (n, 2); past a section its edge goes on."""


@dataclass(frozen=True)
class PatchPoints:
    """Where patches may be centred: arrays of n."""

    section: Int64
    """Which of the sections that are held."""
    centre_px: Float64
    """(n, 2) y, x from the corner of the section's first pixel."""
    position_mm: Float64
    """(n, 3) in the reference space."""
    label: Int64
    """Area, from 0; -1 where it is not known."""
    brain: Int64

    def __len__(self) -> int:
        return len(self.section)

    def __getitem__(self, chosen: "NDArray[Any]") -> Self:
        """Some of the points."""
        return type(self)(
            self.section[chosen],
            self.centre_px[chosen],
            self.position_mm[chosen],
            self.label[chosen],
            self.brain[chosen],
        )

    def balanced(self, edge_mm: float) -> Float64 | None:
        """How often every point (n,) is to be drawn for all cubes of a brain to be alike; None for cubes of no edge."""
        if edge_mm == 0:
            return None
        cubes = np.column_stack([self.brain, np.floor(self.position_mm / edge_mm)])
        _, cube, count = np.unique(cubes, axis=0, return_inverse=True, return_counts=True)
        return np.asarray(1 / count[cube.ravel()])


@dataclass(frozen=True)
class Batch:
    """What a step of training sees."""

    pixels: Tensor
    """(views x n, c, P, P) float32 in [0, 1]: all first views, then all second."""
    positions_mm: Tensor
    """(n, 3) float64."""
    labels: Tensor
    """(n,) int64."""

    @property
    def given(self) -> tuple[Tensor, ...]:
        """What the network sees."""
        return (self.pixels,)


@dataclass(frozen=True)
class PatchBatches:
    """Batches by the number of their step: the same step gives the same patches, so that a run can go on."""

    sections: Windows
    points: PatchPoints
    pixel_size_um: float
    patch_px: int
    batch_size: int
    """Patches a batch; of them there are `views` views each."""
    views: int = 1
    shift_mm: float = SHIFT_MM
    seed: int = 0
    weights: Float64 | None = None
    """How often every point is drawn, relatively; None: all in turn, in an order of their own each time."""
    share: tuple[int, int] = (0, 1)
    """(which, of how many): the part of every batch that is cut here; the parts together are the batch."""

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        return self.of(self._chosen(step)[self._own], step)

    def of(self, rows: Int64, step: int) -> Batch:
        """A batch of some points (n,), n the batch's own share, drawn as in a step."""
        chosen = self.points[rows]
        rng = np.random.default_rng([self.seed, 1, step])
        views = [self._view(chosen, rng) for _ in range(self.views)]
        device = self.sections.device
        return Batch(
            pixels=torch.cat(views) if len(views) > 1 else views[0],
            positions_mm=sent(chosen.position_mm, device),
            labels=sent(chosen.label, device),
        )

    def _view(self, points: PatchPoints, rng: np.random.Generator) -> Tensor:
        # drawn for the whole batch, so that a part of it is the same whoever cuts it
        draws = Draws.draw(rng, self.batch_size, self.pixel_size_um, shift_mm=self.shift_mm)[self._own]
        return changed(cut(self.sections, points, draws, self.patch_px), draws)

    @property
    def _own(self) -> slice:
        """The rows of a batch that are cut here. Raises ValueError if the parts would not be alike."""
        part, parts = self.share
        if self.batch_size % parts:
            raise ValueError(f"a batch of {self.batch_size} has no {parts} equal parts; needed: a multiple of {parts}")
        rows = self.batch_size // parts
        return slice(part * rows, (part + 1) * rows)

    def _chosen(self, step: int) -> Int64:
        """The points of a step: the next of a shuffled round, or a draw by weight."""
        if self.weights is not None:
            share = self.weights / self.weights.sum()
            rng = np.random.default_rng([self.seed, 0, step])
            return rng.choice(len(self.points), self.batch_size, replace=len(self.points) < self.batch_size, p=share)
        if len(self.points) < self.batch_size:
            raise ValueError(f"a batch of {self.batch_size} patches needs as many points, there are {len(self.points)}")
        rounds, place = divmod(step, len(self.points) // self.batch_size)
        order = _order(self.seed, rounds, len(self.points))
        return np.asarray(order[place * self.batch_size : (place + 1) * self.batch_size])


@lru_cache(maxsize=2)
def _order(seed: int, rounds: int, count: int) -> Int64:
    """The order of the points (n,) in a round, drawn once: with many points that takes longer than to cut a batch."""
    return np.random.default_rng([seed, 0, rounds]).permutation(count)


def cut(sections: Windows, points: PatchPoints, draws: Draws, patch_px: int) -> Tensor:
    """The patches (n, c, P, P) float32 in [0, 1] of points, as drawn, their grey values as they are."""
    edge = window_edge(draws, patch_px)
    corner = np.floor(points.centre_px + draws.shift_px).astype(np.int64) - edge // 2
    windows = sections.windows(points.section, corner, edge)
    return taken(windows, points.centre_px - corner, draws, patch_px)


def window_edge(draws: Draws, patch_px: int) -> int:
    """Edge (px) of windows around the moved centres that hold every one of these patches."""
    reach = np.abs(draws.linear).sum(axis=2).max(initial=0.0)
    return int(np.ceil(reach * patch_px)) + 3
