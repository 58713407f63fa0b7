"""The ablation of Spitzer et al. 2018: areas drawn by a U-Net that begins with what distances and places taught.

Four beginnings of the same texture path: both parts of the Siamese loss, coordinates alone, distances alone, random
weights. Each is fine-tuned on the same few patches whose areas are known, first without the atlas and then with it, and
scored by Dice and err_seg on sections held out of the brains that gave labels, and on brains that gave none. Distances
and places on the inflated surface are those of the reference brain of the phantoms.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.pretraining_bench import SHIFT_MM, Bench, networked, settings_of, trained
from benchmarks.pretraining_phantoms import CELL_PX, BrainSet
from benchmarks.pretraining_scores import Roles
from cytoarch.anatomy.surfaces import Mesh
from cytoarch.phantoms.anatomy import draw_brain
from cytoarch.phantoms.cortex import surfaces
from cytoarch.phantoms.truth import NUCLEUS_AREA
from cytoarch.pretraining.areas import AreaPatches, BrainsAtlas
from cytoarch.pretraining.augmentation import Draws
from cytoarch.pretraining.pairs import PairBatches, Siamese, SurfacePairs
from cytoarch.pretraining.patches import PatchBatches, PatchPoints
from cytoarch.pretraining.siamese import SiameseLearner, SiameseLoss
from cytoarch.pretraining.tokens import CORTEX
from cytoarch.pretraining.unet import AreaBatch, AreaScore, ExtendedUNet, area_score, finetune
from cytoarch.store.disk import write_atomically

CLASSES = NUCLEUS_AREA + 1
"""Bare slide, the areas, white matter, the nucleus."""
COORDINATE_UNIT_MM = 10.0
"""Brings places to about one, as 100 mm do with those of a human brain."""
PHASES = ("without atlas", "with atlas")
"""Of fine-tuning; scores are those at its end."""
ARMS: dict[str, SiameseLoss | None] = {
    "distances and coordinates": SiameseLoss(coordinate_unit_mm=COORDINATE_UNIT_MM),
    "coordinates": SiameseLoss(coordinate_unit_mm=COORDINATE_UNIT_MM, distances=False),
    "distances": SiameseLoss(coordinate_unit_mm=COORDINATE_UNIT_MM, coordinates=False),
    "random weights": None,
}

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Ablation:
    """How large it is."""

    points: int
    """That pairs are drawn from."""
    resolution: int
    """Of the reference brain's surface."""
    pretraining: int
    """Steps of it; a batch is that of the study."""
    labelled: int
    """Patches whose areas are learned from."""
    without_atlas: int
    """Steps of the first phase of fine-tuning."""
    with_atlas: int
    """Steps of the second."""
    batch: int
    """Patches of these steps."""
    tests: int
    """Patches of every split that are scored."""


ABLATIONS = {
    "full": Ablation(20_000, 64, 2000, 2400, 800, 800, 64, 1500),
    "areas": Ablation(2000, 32, 400, 300, 300, 60, 32, 200),
    "toy": Ablation(120, 16, 3, 24, 3, 3, 8, 16),
}


def area_patches(brains: BrainSet, labelled: Int64, patch_px: int) -> AreaPatches:
    """Patches with an atlas made of the labelled points of other brains; what is no cortex it knows."""
    places = brains.places
    atlas = BrainsAtlas(brains.points[labelled], CLASSES - 1)

    def priors(brain: Int64, cells: Int64) -> NDArray[np.float32]:
        told: NDArray[np.float32] = np.eye(CLASSES, dtype=np.float32)[places.area[cells]]
        cortex = places.tissue[cells] == CORTEX
        whose = np.broadcast_to(brain[:, None], cells.shape)[cortex]
        told[cortex, 0] = 0.0
        told[cortex, 1:] = atlas.at(whose, places.position_mm[cells[cortex]])
        return told

    return AreaPatches(brains.pixels, brains.points, places, patch_px, priors)


def reference_surface(resolution: int) -> Mesh:
    """The middle of the cortex of the phantoms' reference brain, both sides."""
    left, right = surfaces(draw_brain(None, resolution=resolution), 0.5)
    vertices = np.concatenate([left.vertices_mm, right.vertices_mm])
    return Mesh.of(vertices, np.concatenate([left.triangles, right.triangles + len(left.vertices_mm)]))


def run_ablation(bench: Bench, brains: BrainSet, roles: Roles) -> None:
    """Every beginning with every seed; what is found is kept after each."""
    if bench.results["size"] not in ABLATIONS:
        raise SystemExit(f"the ablation has no size {bench.results['size']}; its sizes are {', '.join(ABLATIONS)}")
    sizes, start = ABLATIONS[bench.results["size"]], time.perf_counter()
    rng = np.random.default_rng(11)
    learned = rng.permutation(np.flatnonzero(roles.pretraining))[: sizes.points]
    mesh = reference_surface(sizes.resolution)
    points = brains.points[learned]
    pairs = _pairs(bench.out / f"pairs-{bench.results['size']}.npz", points, mesh)
    labelled = rng.permutation(np.flatnonzero(roles.labelled))[: sizes.labelled]
    tests = {split: rng.permutation(np.flatnonzero(one))[: sizes.tests] for split, one in roles.tests.items()}
    patches = area_patches(brains, np.flatnonzero(roles.labelled), bench.study.patch_px)
    told = {"sizes": asdict(sizes), "pairs": len(pairs.index), "vertices": len(mesh.vertices_mm)}
    kept_path = bench.out / "siamese.json"
    found = _found_before(kept_path, told)
    print(f"{len(pairs.index)} pairs after {time.perf_counter() - start:.0f} s", flush=True)
    for seed in bench.study.seeds:
        for name, loss in ARMS.items():
            if any(run["seed"] == seed for run in found["arms"][name]):
                continue
            begun = time.perf_counter()
            network = networked(bench, brains.pixels.channels, 100 + seed)
            run: dict[str, Any] = {"seed": seed}
            if loss is not None:
                learner = SiameseLearner(network).to(bench.device)
                batches = PairBatches(_patch_batches(bench, brains, points, seed), pairs)
                run["pretraining"] = trained(bench, learner, batches, Siamese(loss), sizes.pretraining)
            torch.manual_seed(seed)  # the other parts begin alike
            unet = ExtendedUNet(network, CLASSES, CLASSES).to(bench.device)
            run |= _scored(bench, unet, patches, (labelled, tests), sizes, seed)
            run["seconds"] = time.perf_counter() - begun
            found["arms"][name].append(run)
            found["summary"] = summary(found["arms"])
            write_atomically(kept_path, (json.dumps(found, indent=1) + "\n").encode())
            print(f"{name}, seed {seed}, {run['seconds']:.0f} s: {run[PHASES[0]]} {run[PHASES[1]]}", flush=True)


def _pairs(path: Path, points: PatchPoints, mesh: Mesh) -> SurfacePairs:
    """Pairs of points, from a file where an earlier run left them: distances take minutes.

    All brains lie in the reference, so that one surface serves them; pairs stay within a brain.
    """
    if not path.exists():
        made = SurfacePairs.of(points, dict.fromkeys(np.unique(points.brain).tolist(), mesh), seed=0)
        np.savez(path, index=made.index, distance_mm=made.distance_mm, place_mm=made.place_mm)
    with np.load(path) as kept:
        return SurfacePairs(kept["index"], kept["distance_mm"], kept["place_mm"])


def _found_before(path: Path, told: dict[str, Any]) -> dict[str, Any]:
    """What an earlier run of the same sizes found, to be gone on with; or nothing yet."""
    if path.exists():
        earlier: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if all(earlier.get(name) == one for name, one in told.items()):
            return earlier
    return {**told, "arms": {name: [] for name in ARMS}}


def summary(arms: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, list[float]]]:
    """Mean and deviation over seeds of every score, by beginning."""
    return {
        name: {
            f"{split}, {phase}, {score}": [
                round(float(of([run[phase][split][score] for run in runs])), 4) for of in (np.mean, np.std)
            ]
            for phase in PHASES
            for split in runs[0][phase]
            for score in AreaScore._fields
        }
        for name, runs in arms.items()
        if runs
    }


def _patch_batches(bench: Bench, brains: BrainSet, points: PatchPoints, seed: int) -> PatchBatches:
    study = bench.study
    return PatchBatches(brains.pixels, points, study.pixel_size_um, study.patch_px, study.batch_size, 1, SHIFT_MM, seed)


def _scored(
    bench: Bench,
    unet: ExtendedUNet,
    patches: AreaPatches,
    points: tuple[Int64, dict[str, Int64]],
    sizes: Ablation,
    seed: int,
) -> dict[str, Any]:
    """Fine-tune in two phases; the scores of every split after each."""
    labelled, tests = points
    pixel_size_um, settings = bench.study.pixel_size_um, settings_of(bench, 1)

    def batch(step: int) -> AreaBatch:
        rng = np.random.default_rng([seed, 5, step])
        chosen = rng.choice(labelled, sizes.batch, replace=False)
        return patches.batch(chosen, Draws.draw(rng, sizes.batch, pixel_size_um, shift_mm=SHIFT_MM))

    def scores(atlas: bool) -> dict[str, dict[str, float]]:
        told = {}
        for split, chosen in tests.items():
            parts = np.array_split(chosen, -(-len(chosen) // sizes.batch))
            plain = (patches.batch(one, Draws.plain(len(one))) for one in parts)
            told[split] = area_score(unet, plain, CLASSES, CELL_PX * pixel_size_um, atlas)._asdict()
        return told

    warmed = {"watch_every": 20, "warmup": max(1, sizes.without_atlas // 20)}
    first, second = (
        settings.model_copy(update=warmed | {"steps": one}) for one in (sizes.without_atlas, sizes.with_atlas)
    )
    found: dict[str, Any] = {}
    finetune(unet, batch, first, second, between=lambda: found.update({PHASES[0]: scores(atlas=False)}))
    return found | {PHASES[1]: scores(atlas=True)}
