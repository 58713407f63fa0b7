"""What inflation and a loss that knows lines bring on phantom neurons, and what the network costs.

`python -m benchmarks.neurons OUT [--size gpu] [--device cuda]` pretrains a small ConvNeXt on slices without labels
(it tells what the planes beside a plane show), inflates it, fits networks that begin in different ways with different
losses to the very same patches, traces what they segment in volumes they have not seen, and scores the trees. It
writes `results.json` and the weights of the first network; begun again in the same folder it goes on with the next fit
(`--arms` takes some of them first). It needs torch, transformers, scipy and scikit-image, and of ours
`cytoarch.neurons` and the ground below it.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from skimage.filters import threshold_otsu
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.cases import kept
from cytoarch.neurons.inference import TileShape, segment_volume, segmented_by
from cytoarch.neurons.inflation import Inflation, inflated
from cytoarch.neurons.losses import LineLoss, Topology
from cytoarch.neurons.network import TINY, Architecture, NeuronNetwork, parameter_count
from cytoarch.neurons.patches import GREY_MEAN, GREY_SPREAD, Batch, Known, scale_of
from cytoarch.neurons.phantoms import NeuronPhantom, NeuronVolume, make_phantom
from cytoarch.neurons.scoring import score_trees, score_voxels
from cytoarch.neurons.tracing import TraceRules, trace_mask
from cytoarch.neurons.training import Fit, batch_of, fit_network, new_network


@dataclass(frozen=True)
class Size:
    """How large a study is."""

    features: tuple[int, ...]
    depths: tuple[int, ...]
    shape: tuple[int, int, int]
    slices: int
    """Unlabelled volumes whose slices are pretrained on."""
    known: int
    """Volumes that are learned from."""
    unseen: int
    """Volumes that are scored on."""
    patch: int
    batch: int
    steps: int
    pretraining: int
    """Steps of it."""
    seeds: int = 3
    learning_rate: float = 2e-3
    encoder_rate: float = 1.0
    """Times that rate, which an inflated encoder learns with."""


SIZES = {
    "trial": Size((8, 16, 32, 64), (1, 1, 1, 1), (32, 48, 48), 1, 1, 1, 32, 2, 4, 4, seeds=1),
    "cpu": Size(
        (8, 16, 32, 64), (1, 1, 1, 1), (48, 64, 64), 12, 2, 3, 32, 2, 120, 1500, learning_rate=3e-3, encoder_rate=0.3
    ),
    "gpu": Size((32, 64, 128, 256), (2, 2, 6, 2), (96, 160, 160), 8, 2, 6, 64, 4, 400, 600),
}


@dataclass(frozen=True)
class Arm:
    """One way to begin and one loss."""

    name: str
    inflation: Inflation | None
    topology: Topology


ARMS = (
    Arm("inflated (centre), soft-clDice", "centre", "cldice"),
    Arm("inflated (average), soft-clDice", "average", "cldice"),
    Arm("random, soft-clDice", None, "cldice"),
    Arm("inflated (centre), no line loss", "centre", "none"),
    Arm("random, no line loss", None, "none"),
)
OF_PRETRAINING = ("features", "depths", "shape", "slices", "batch", "pretraining")
"""Of a size, what pretraining depends on."""
FITS = "fits.json"
"""Of every fit, kept as it ends: a study that was cut off goes on with the next."""
CONTEXT = multiprocessing.get_context("fork")
"""Workers are forked before a GPU is touched."""
_VOLUMES: list[Known] = []
"""Those that workers draw from."""


def main() -> None:
    """Run the study and write what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", choices=SIZES, default="cpu")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=1e9, help="most that all fits may take together")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--encoder-rate", type=float, help="of inflated encoders, instead of the size's own")
    parser.add_argument("--arms", default="", help="numbers of the arms to fit, such as 0,2,4; blank: all")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    size = SIZES[asked.size]
    size = size if asked.encoder_rate is None else replace(size, encoder_rate=asked.encoder_rate)
    arms = [ARMS[int(one)] for one in asked.arms.split(",")] if asked.arms else ARMS
    slices, known, unseen = phantoms(size, asked.workers)
    _VOLUMES.extend(as_known(one) for one in known)
    with ProcessPoolExecutor(asked.workers, CONTEXT) as pool:
        list(pool.map(abs, range(asked.workers)))  # forks them now
        found = study(size, asked.device, asked.seconds, pool, (slices, unseen), asked.out, arms)
    found["seconds"] = round(time.monotonic() - started, 1)
    found["size"] = asdict(size)
    found["machine"] = machine(asked.device)
    write(asked.out, found)
    found["network T"] = costs(asked.device, 128 if asked.device != "cpu" else 48)
    write(asked.out, found)
    print(json.dumps(found["arms"], indent=1))


def write(out: Path, found: dict[str, Any]) -> None:
    """What is known so far."""
    (out / "results.json").write_text(json.dumps(found, indent=1) + "\n")


def machine(device: str) -> str:
    """Where it ran."""
    return f"{torch.cuda.get_device_name() if device != 'cpu' else 'CPU'}, torch {torch.__version__}"


def phantoms(size: Size, workers: int) -> tuple[list[NeuronVolume], list[NeuronVolume], list[NeuronVolume]]:
    """Volumes to pretrain on, to learn from and to score on; no two grow from one seed."""
    counts = (size.slices, size.known, size.unseen)
    grown = [NeuronPhantom(shape=size.shape, neurons=3, seed=100 + number) for number in range(sum(counts))]
    with ProcessPoolExecutor(workers, CONTEXT) as pool:
        made = list(pool.map(make_phantom, grown))
    first = size.slices + size.known
    return made[: size.slices], made[size.slices : first], made[first:]


def as_known(volume: NeuronVolume) -> Known:
    """A phantom as a training takes it."""
    scale = scale_of(np.bincount(volume.pixels.ravel(), minlength=256))
    return Known.of(volume.pixels, scale, volume.tree, volume.voxel_um)


def study(
    size: Size,
    device: str,
    seconds: float,
    pool: ProcessPoolExecutor,
    volumes: tuple[list[NeuronVolume], list[NeuronVolume]],
    out: Path,
    arms: Sequence[Arm],
) -> dict[str, Any]:
    """Fit and score every arm with every seed; what an earlier run of the same size kept is not done again."""
    slices, unseen = volumes
    base = Fit(size.steps, (size.patch,) * 3, size.batch, size.learning_rate, checkpoint_every=10**9)
    futures = {seed: pool.map(partial(_drawn, replace(base, seed=seed)), range(size.steps), chunksize=4)
               for seed in range(size.seeds)}  # fmt: skip
    told, tensors = pretrained(size, slices, device, out)
    patches = {seed: list(batches) for seed, batches in futures.items()}
    steps, per_step = affordable(size, base, patches[0], tensors, device, seconds)
    fit = replace(base, steps=steps)
    rows: list[dict[str, Any]] = kept(out / FITS, {"size": asdict(size), "steps": steps}).get("fits", [])
    told_of = {"size": asdict(size), "steps": steps, "fits": rows}
    for seed in range(size.seeds):
        for arm in arms:
            if any((one["arm"], one["seed"]) == (arm.name, seed) for one in rows):
                continue
            network, losses = fitted(arm, size, replace(fit, seed=seed), patches[seed], tensors, device)
            maps = [segmented(network, as_known(one), size.patch, device) for one in unseen]
            rows.append(row(arm.name, seed, losses, list(pool.map(scored, maps, unseen))))
            (out / FITS).write_text(json.dumps(told_of, indent=1) + "\n")
            if seed == 0 and arm is ARMS[0]:
                halves = {name: one.cpu().half().contiguous() for name, one in network.state_dict().items()}
                save_file(halves, out / "network.safetensors")
                (out / "network.json").write_text(json.dumps(network.sizes.as_json()))
    plain = list(pool.map(scored, [otsu(one.pixels) for one in unseen], unseen))
    return {
        "steps": steps,
        "seconds a step": per_step,
        "pretraining": told,
        "fits": rows,
        "arms": {arm.name: summed([one for one in rows if one["arm"] == arm.name]) for arm in arms}
        | {"skeleton of an Otsu mask": mean_of(plain)},
    }


def row(arm: str, seed: int, losses: list[float], scores: list[dict[str, float]]) -> dict[str, Any]:
    """What one fit came to."""
    told = {"arm": arm, "seed": seed, "loss": float(np.mean(losses[-20:]))}
    return told | {"losses": losses[:: max(1, len(losses) // 50)]} | mean_of(scores)


def pretrained(
    size: Size, volumes: list[NeuronVolume], device: str, out: Path
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """First and last loss of the pretraining, and its weights; those that are in the folder for the same size."""
    folder, wanted = out / "convnext", {name: asdict(size)[name] for name in OF_PRETRAINING}
    told = kept(out / "pretraining.json", wanted).get("loss")
    if told is None:
        told = pretrain(size, volumes, device, folder)
        (out / "pretraining.json").write_text(json.dumps({**wanted, "loss": told}))
    return told, load_file(folder / "model.safetensors")


def _drawn(fit: Fit, step: int) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    batch = batch_of(_VOLUMES, fit, step)
    return batch.volumes.numpy().astype(np.float16), batch.targets.numpy().astype(bool)


def _as_batch(patches: list[Any], step: int) -> Batch:
    pixels, mask = patches[step]
    targets = torch.from_numpy(mask.astype(np.int64))
    return Batch(torch.from_numpy(pixels.astype(np.float32)), targets, torch.zeros(0))


def affordable(
    size: Size, fit: Fit, patches: list[Any], tensors: dict[str, Tensor], device: str, seconds: float
) -> tuple[int, float]:
    """The steps of every fit that all of them together have time for, and the seconds that one takes."""
    count = min(8, size.steps)
    fitted(ARMS[0], size, replace(fit, steps=2), patches, tensors, device)
    started = time.monotonic()
    fitted(ARMS[0], size, replace(fit, steps=count), patches, tensors, device)
    per_step = (time.monotonic() - started) / count
    return min(size.steps, max(2, int(seconds / (len(ARMS) * size.seeds * per_step)))), round(per_step, 4)


def fitted(
    arm: Arm, size: Size, fit: Fit, patches: list[Any], tensors: dict[str, Tensor], device: str
) -> tuple[NeuronNetwork, list[float]]:
    """A network of one arm, fitted."""
    # it was pretrained on grey shown thrice, which the sum of the three weights sees alike
    encoder = None if arm.inflation is None else inflated(tensors, arm.inflation, "sum")
    network = new_network(Architecture(size.features, size.depths, layer_scale=1.0), fit.seed, encoder)
    rate = 1.0 if encoder is None else size.encoder_rate
    fit = replace(fit, loss=LineLoss(arm.topology), encoder_rate=rate)
    return network, fit_network(network, [], fit, device, draw=partial(_as_batch, patches))


def segmented(network: NeuronNetwork, volume: Known, edge: int, device: str) -> NDArray[np.bool_]:
    """The voxels that a network takes for neurons."""
    with tempfile.TemporaryDirectory() as folder:
        planes = segment_volume(
            segmented_by(network, device), volume.pixels, volume.scale, TileShape(edge, edge), Path(folder), 8
        )
        return np.stack([plane > 0.5 for plane in planes])


def otsu(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The voxels above Otsu's threshold."""
    return np.asarray(pixels > threshold_otsu(pixels))


def scored(mask: NDArray[np.bool_], volume: NeuronVolume) -> dict[str, float]:
    """Trees in voxels of 1 um, and voxels."""
    tree = trace_mask(mask, volume.voxel_um, TraceRules())
    trees = score_trees(tree, volume.tree, (1.0, 1.0, 1.0)).as_facts()
    voxels = score_voxels(mask, volume.mask, volume.voxel_um).as_facts()
    return trees | {f"voxel {name}": value for name, value in voxels.items() if name in ("f1", "hd95_um")}


def mean_of(scores: list[dict[str, float]]) -> dict[str, float]:
    """Means of what is defined, and for how many volumes a distance is not."""
    names = scores[0]
    found = {name: round(float(np.nanmean([one[name] for one in scores])), 4) for name in names
             if np.isfinite([one[name] for one in scores]).any()}  # fmt: skip
    return found | {"undefined": float(sum(np.isnan(one["esa"]) for one in scores))}


def summed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and deviation over seeds."""
    names = [name for name in rows[0] if name not in ("arm", "seed", "losses")]
    values = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: [round(float(np.mean(one)), 4), round(float(np.std(one)), 4)] for name, one in values.items() if one}


# -- pretraining in two dimensions -------------------------------------------------------------------------------------


class Beside(nn.Module):
    """A DINOv3 ConvNeXt that tells what lies beside a plane, by its four stages projected and summed.

    Its stem halves once, as that of the network in three dimensions does: weights are learned at the strides that they
    are used at.
    """

    def __init__(self, model: Any, features: tuple[int, ...]) -> None:
        super().__init__()
        self.model = model
        stem = model.stages[0].downsample_layers[0]
        stem.stride, stem.padding = (2, 2), (1, 1)
        self.project = nn.ModuleList(nn.Conv2d(width, features[0], 1) for width in features)
        self.paint = nn.Conv2d(features[0], 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(b, 1, y, x) -> (b, 1, y, x)."""
        states = self.model(images.repeat(1, 3, 1, 1), output_hidden_states=True).hidden_states[1:]
        edge = states[0].shape[2:]
        maps = [functional.interpolate(layer(one), size=edge, mode="nearest")
                for layer, one in zip(self.project, states, strict=True)]  # fmt: skip
        painted: Tensor = functional.pixel_shuffle(self.paint(functional.gelu(torch.stack(maps).sum(0))), 2)
        return painted


def pretrain(size: Size, volumes: list[NeuronVolume], device: str, folder: Path) -> dict[str, float]:
    """Tell the mean of the two planes beside a plane from that alone: their noise is their own, neurites go on.

    After DeepInterpolation (Lecoq et al. 2021), which tells a plane from those beside it. Writes the ConvNeXt as
    transformers does, returns its first and last loss.
    """
    from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

    torch.manual_seed(7)
    config = DINOv3ConvNextConfig(
        hidden_sizes=list(size.features), depths=list(size.depths), layer_scale_init_value=1.0
    )
    model: Any = DINOv3ConvNextModel(config)
    beside = Beside(model, size.features).to(device)
    optimiser = torch.optim.AdamW(beside.parameters(), lr=2e-3, weight_decay=0.05)
    shown = [torch.from_numpy(as_known(one).scale.shown(one.pixels)) for one in volumes]
    rng = np.random.default_rng(7)
    batch, edge = 4 * size.batch, size.shape[1] // 32 * 32
    losses: list[float] = []
    for step in range(size.pretraining):
        places = [(one, int(rng.integers(1, len(one) - 1))) for one in _choices(shown, batch, rng)]
        images = torch.stack([one[z, :edge, :edge] for one, z in places])[:, None].to(device)
        wanted = torch.stack([(one[z - 1] + one[z + 1])[:edge, :edge] / 2 for one, z in places])[:, None].to(device)
        weight = 1 + 4 * (wanted > 2 - GREY_MEAN / GREY_SPREAD)  # neurites are few pixels of many
        loss = (weight * (beside(images) - wanted) ** 2).sum() / weight.sum()
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * (1 - step / size.pretraining)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    model.cpu().save_pretrained(folder)
    part = max(1, size.pretraining // 20)
    return {
        "first loss": round(float(np.mean(losses[:part])), 4),
        "last loss": round(float(np.mean(losses[-part:])), 4),
    }


def _choices(volumes: list[Tensor], count: int, rng: np.random.Generator) -> list[Tensor]:
    return [volumes[int(one)] for one in rng.integers(len(volumes), size=count)]


# -- what the network of the paper costs -------------------------------------------------------------------------------


def costs(device: str, edge: int) -> dict[str, Any]:
    """Seconds and memory of a step and of tiles of the network T."""
    network = NeuronNetwork(Architecture(*TINY)).to(device)
    volumes = torch.randn(2, 1, edge, edge, edge, device=device)
    targets = (torch.rand(2, edge, edge, edge, device=device) > 0.99).long()

    def step() -> None:
        network.train()
        LineLoss("none").of(network(volumes), targets, targets).backward()  # type: ignore[no-untyped-call]

    def tiles() -> None:
        network.eval()
        with torch.inference_mode():
            network(volumes)

    found: dict[str, Any] = {"parameters": parameter_count(network), "edge": edge}
    for name, work in (("step", step), ("tiles", tiles)):
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        seconds = timed(work, device, 3 if device != "cpu" else 1)
        found[f"{name} s"] = round(seconds, 4)
        found[f"{name} voxels/s"] = round(2 * edge**3 / seconds)
        if device != "cpu":
            found[f"{name} GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return found


def timed(work: Callable[[], None], device: str, times: int) -> float:
    """Seconds of one call, the first left out."""
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    started = time.monotonic()
    for _ in range(times):
        work()
    if device != "cpu":
        torch.cuda.synchronize()
    return (time.monotonic() - started) / times


if __name__ == "__main__":
    main()
