"""Phantom brains for pretraining: rendered by many processes into a folder, and opened as one set.

Of each section only what holds tissue is rendered. Beside the pixels lies the truth of cells of 8 x 8 px: tissue, area,
layer, depth, and the place in the reference brain. Brains are individuals of their own: a seed is never used twice.
"""

import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cytoarch.phantoms.damage import TEAR
from cytoarch.phantoms.kernels import GREY
from cytoarch.phantoms.rendering import LOOKS, render
from cytoarch.phantoms.sections import PhantomSettings, Stain, Window, cut, make_phantom, section_count
from cytoarch.phantoms.truth import truth
from cytoarch.pretraining.patches import PatchPoints, SectionPixels
from cytoarch.pretraining.tokens import PlaceMaps

CELL_PX = 8
MARGIN_MM = 0.4
"""Of bare slide around the tissue."""
ENDS = 0.06
"""Share of the sections at either end of the brain that are left out."""
MID_BAND = 0.1
"""Points lie so near to the middle of the cortex, in shares of its depth."""
TRUTHS = ("tissue", "area", "layer", "depth", "position_mm")


@dataclass(frozen=True)
class BrainPlan:
    """One brain to render."""

    seed: int
    stain: Stain
    pixel_size_um: float
    sections: int
    points: int
    """Points kept of every section."""
    resolution: int = 120


@dataclass(frozen=True)
class BrainSet:
    """Brains as they are trained on and looked at; sections and points of all of them, one after the other."""

    plans: Sequence[BrainPlan]
    pixels: SectionPixels
    places: PlaceMaps
    points: PatchPoints
    section_brain: NDArray[np.int64]
    """(s,) which of the plans."""
    section_rank: NDArray[np.int64]
    """(s,) place within its brain."""


def render_all(plans: Sequence[BrainPlan], folder: Path, processes: int) -> float:
    """Render what the folder does not hold yet; returns how long it took (s)."""
    start = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(plan, part, parts, folder) for plan in plans for part, parts in _parts(plan)]
    jobs = [job for job in jobs if not _done(*job).exists()]
    if jobs:
        _compile()
        context = multiprocessing.get_context("spawn")
        os.environ["OMP_NUM_THREADS"] = "1"
        with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context) as pool:
            list(pool.map(_render_part, *zip(*jobs, strict=True)))
    return time.perf_counter() - start


def _parts(plan: BrainPlan) -> list[tuple[int, int]]:
    """A brain in parts of about 8 sections, which several processes share."""
    count = max(1, plan.sections // 8)
    return [(part, count) for part in range(count)]


def _done(plan: BrainPlan, part: int, parts: int, folder: Path) -> Path:
    return folder / f"{_name(plan)}-{part}-of-{parts}.json"


def _name(plan: BrainPlan) -> str:
    return f"{plan.stain}{plan.seed:04d}-{plan.pixel_size_um:g}um-{plan.sections}-{plan.resolution}"


def _compile() -> None:
    """Compile every kernel once, so that the processes only read them."""
    phantom = make_phantom(PhantomSettings(seed=9999, resolution=24))
    section = cut(phantom, section_count(phantom) // 2)
    height, width = section.size_px(40.0)
    render(section, Window(0, 0, height, width), 40.0)
    truth(section, Window(0, 0, 64, 64), 40.0)


def _render_part(plan: BrainPlan, part: int, parts: int, folder: Path) -> None:
    phantom = make_phantom(PhantomSettings(seed=plan.seed, stain=plan.stain, resolution=plan.resolution))
    count = section_count(phantom)
    numbers = np.linspace(ENDS * count, (1 - ENDS) * count, plan.sections).astype(int)
    kept = []
    for rank in range(part, plan.sections, parts):
        section = cut(phantom, int(numbers[rank]))
        if section.mounting.missing:
            continue
        cell_um = CELL_PX * plan.pixel_size_um
        height, width = section.size_px(cell_um)
        whole = truth(section, Window(0, 0, height, width), cell_um)
        margin = int(MARGIN_MM * 1000 / cell_um)
        rows, columns = (np.flatnonzero((whole.tissue > 0).any(axis=axis)) for axis in (1, 0))
        top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
        inside = (slice(top, rows[-1] + margin), slice(left, columns[-1] + margin))
        maps = {name: getattr(whole, name)[inside] for name in TRUTHS}
        shape = tuple(CELL_PX * n for n in maps["tissue"].shape)
        pixels = render(section, Window(CELL_PX * top, CELL_PX * left, *shape), plan.pixel_size_um)
        full = LOOKS[plan.stain].full
        pixels = pixels if pixels.dtype == np.uint8 else (pixels * (255 / full) + 0.5).astype(np.uint8)
        middle = (maps["tissue"] == GREY) & (np.abs(maps["depth"] - 0.5) < MID_BAND) & (whole.damage[inside] != TEAR)
        at = np.argwhere(middle)
        at = np.random.default_rng([plan.seed, rank]).permutation(at)[: plan.points]
        stem = folder / f"{_name(plan)}-{rank:03d}"
        np.save(f"{stem}.npy", pixels)
        np.savez(f"{stem}.npz", points=at, **maps)
        kept.append(rank)
    _done(plan, part, parts, folder).write_text(json.dumps(kept), encoding="utf-8")


def open_set(plans: Sequence[BrainPlan], folder: Path, device: str, *, mirrored: bool) -> BrainSet:
    """The brains of plans that were rendered; `mirrored` lays the left hemisphere over the right in the reference."""
    pixels: list[NDArray[np.uint8]] = []
    maps, brain, rank = [], [], []
    points: list[tuple[Any, ...]] = []
    for index, plan in enumerate(plans):
        names = sorted(folder.glob(f"{_name(plan)}-[0-9][0-9][0-9].npy"))
        for path in names:
            with np.load(path.with_suffix(".npz")) as kept:
                one = {name: kept[name] for name in kept.files}
            if mirrored:
                one["position_mm"][..., 0] = np.abs(one["position_mm"][..., 0])
            at = tuple(one.pop("points").T)
            section = len(pixels)
            pixels.append(np.load(path, mmap_mode="r"))
            points.append(
                (
                    np.full(len(at[0]), section),
                    CELL_PX * (np.stack(at, axis=1) + 0.5),
                    one["position_mm"][at].astype(np.float64),
                    one["area"][at].astype(np.int64) - 1,
                    np.full(len(at[0]), index),
                )
            )
            maps.append(one)
            brain.append(index)
            rank.append(int(path.stem[-3:]))
    table = PatchPoints(*(np.concatenate(column) for column in zip(*points, strict=True)))
    held = SectionPixels.of(pixels, torch.device(device))
    return BrainSet(plans, held, PlaceMaps.of(maps, CELL_PX), table, np.array(brain), np.array(rank))


def recipe(plans: Sequence[BrainPlan]) -> list[dict[str, object]]:
    """The plans as JSON."""
    return [asdict(plan) for plan in plans]
