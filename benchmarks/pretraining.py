"""Pretraining on phantoms: SpatialNCE against SimCLR, SupCon and training from scratch, and the encoder that ships.

    python -m benchmarks.pretraining --out FOLDER --folder work/pretraining --device cuda --budget-s 540

needs neither Prefect, MLflow nor a store: torch, numba, scipy, scikit-image, scikit-learn, safetensors and pydantic.
Parts: `render` and `draw` (the brains of the study and, in the background, of the encoder), `throughput`, `rivals`
(`texture` needs google-crc32c), `study`, `encoder`, `cytonet` (its throughput; needs transformers), `siamese` (the
ablation of distances and coordinates; needs potpourri3d, and is run where it is asked for). What is found is
written to OUT/results.json after every run, the encoder to OUT/encoder.safetensors. Nothing is chosen by a test brain.
"""

import argparse
import functools
import multiprocessing
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.pretraining_bench import (
    METHODS,
    SIGMA_MM,
    STUDIES,
    Bench,
    batches_of,
    networked,
    seconds_a_step,
    settings_of,
    trained,
)
from benchmarks.pretraining_phantoms import BrainSet, open_set, recipe, render_all
from benchmarks.pretraining_readers import lite_reader, reader, texture_reader, token_reader
from benchmarks.pretraining_scores import Reader, Roles, roles_of, scores_of
from cytoarch.encoders.inference import device_name
from cytoarch.encoders.protocol import Precision
from cytoarch.phantoms.anatomy import AREA_COUNT
from cytoarch.pretraining.networks import PatchLearner, projection_head
from cytoarch.pretraining.patches import Batch
from cytoarch.pretraining.tokens import SpatialTokens, TokenBatches, TokenLearner

SIGMA_DEPTH = 0.08
"""Half a layer."""
ENCODER_SHIFT_MM = 0.6
LEVELS, SCALES = 3, (1.0, 1.6)
"""The encoder sees 4 to 25 um a pixel."""
TOKENS = 10


def measure_throughput(bench: Bench, brains: BrainSet, roles: Roles, name: Literal["compact", "cytonet"]) -> None:
    """The loop, cutting its patches as it goes, against the same loop on one batch that lies ready."""
    study, objective = bench.study, METHODS["SpatialNCE"]
    learner: nn.Module
    if name == "compact":
        learner, edge_px, batch = PatchLearner(networked(bench, 1, 0)), study.patch_px, study.batch_size
    else:
        edge_px, batch = 64 * study.large_tokens, study.large_batch
        learner = CytoNetLearner(edge_px)
    learner = learner.to(bench.device)
    batches = replace(batches_of(bench, brains, roles, "SpatialNCE", 0), patch_px=edge_px, batch_size=batch)
    steps = 60 if bench.device == "cuda" else 2
    loop = seconds_a_step(bench, learner, batches, objective, steps)
    bare = seconds_a_step(bench, learner, functools.partial(_same, batches(0)), objective, steps)
    bench.results.setdefault("throughput", {})[name] = {
        "loop_s": loop, "bare_s": bare, "ratio": bare / loop, "images_a_second": batch / loop,
    }  # fmt: skip
    bench.keep()


def _same(ready: Batch, _step: int) -> Batch:
    return ready


class CytoNetLearner(nn.Module):
    """CytoNet's ResNet-50 with its projection."""

    def __init__(self, tile_px: int) -> None:
        from cytoarch.encoders.cytonet_model import CytoNetConfig, build_cytonet

        super().__init__()
        config = CytoNetConfig(model_type="cytonet_r50", tile_px=tile_px)
        self.network = build_cytonet(config)
        self.head = projection_head(config.hidden_sizes[-1])

    def forward(self, pixels: Tensor) -> Tensor:
        """(b, 1, T, T) -> (b, 256)."""
        found: Tensor = self.head(self.network(pixels).mean(dim=(2, 3)))
        return found


def run_study(
    bench: Bench, brains: BrainSet, roles: Roles, budget_s: float, methods: Sequence[str], fixed_steps: int
) -> None:
    """Every method with every seed, as long as the budget lasts; a seed that cannot be finished is not begun."""
    study, begun = bench.study, time.perf_counter()
    chosen = {name: METHODS[name] for name in methods}
    first = PatchLearner(networked(bench, 1, 0)).to(bench.device)
    step_s = seconds_a_step(
        bench,
        first,
        batches_of(bench, brains, roles, "SpatialNCE", 0),
        METHODS["SpatialNCE"],
        60 if bench.device == "cuda" else 5,
    )
    start = time.perf_counter()
    scores_of(reader(bench, networked(bench, 1, 0)), brains, roles, study.sizes, study.patch_px)
    score_s = time.perf_counter() - start
    runs = len(chosen) * len(study.seeds)
    each_s = (budget_s - (time.perf_counter() - begun)) / runs - score_s
    steps = fixed_steps or max(8, int(0.92 * each_s / step_s))
    bench.results["study"] = {
        "steps": steps,
        "step_s": step_s,
        "score_s": score_s,
        "methods": {name: [] for name in chosen},
    }
    longest = 0.0
    for seed in study.seeds:
        if longest > bench.left_s:
            break
        since = time.perf_counter()
        for name, objective in chosen.items():
            network = networked(bench, 1, 100 + seed)
            learner = PatchLearner(network, AREA_COUNT if name == "scratch" else None).to(bench.device)
            run = trained(bench, learner, batches_of(bench, brains, roles, name, seed), objective, steps)
            run |= {
                "seed": seed,
                "scores": scores_of(reader(bench, network), brains, roles, study.sizes, study.patch_px),
            }
            bench.results["study"]["methods"][name].append(run)
            bench.keep()
            f1 = {split: round(one["macro_f1"], 3) for split, one in run["scores"]["areas"].items()}
            print(f"{name} seed {seed}: {steps} steps {run['seconds']:.1f} s, areas {f1}", flush=True)
        longest = time.perf_counter() - since


def train_encoder(bench: Bench, brains: BrainSet, judged: BrainSet, roles: Roles, budget_s: float) -> None:
    """The encoder that ships, trained on many stains; scored on the brains of the study, none of which it saw."""
    study, begun = bench.study, time.perf_counter()
    levels = [brains.pixels]
    for _ in range(LEVELS - 1):
        levels.append(levels[-1].halved())
    batches = TokenBatches(
        levels, brains.points, brains.places, study.encoder_um, study.encoder_patch_px, study.encoder_batch, TOKENS,
        SIGMA_MM, SIGMA_DEPTH, SCALES, ENCODER_SHIFT_MM,
    )  # fmt: skip
    objective = SpatialTokens(sigma_mm=SIGMA_MM)
    network = networked(bench, 3, 1909)
    learner = TokenLearner(network).to(bench.device)
    step_s = seconds_a_step(bench, learner, batches, objective, 60 if bench.device == "cuda" else 2)
    steps = max(8, int(0.85 * (budget_s - (time.perf_counter() - begun)) / step_s))
    network = networked(bench, 3, 1909)
    learner = TokenLearner(network).to(bench.device)
    run = trained(bench, learner, batches, objective, steps)
    tensors = kept_tensors(network)
    save_file(tensors, bench.out / "encoder.safetensors")
    record = {
        "network": {"channels": 3, "widths": study.widths, "depths": study.depths},
        "brains": recipe(study.encoder_plans()), "patch_px": study.encoder_patch_px, "batch": study.encoder_batch,
        "levels": LEVELS, "scales": SCALES, "tokens": TOKENS, "sigma_mm": SIGMA_MM, "sigma_depth": SIGMA_DEPTH,
        "temperature": objective.temperature, "shift_mm": ENCODER_SHIFT_MM, "seed": 1909,
        "settings": settings_of(bench, steps).model_dump(), "step_s": step_s, "device": bench.results["device"],
        "bytes": (bench.out / "encoder.safetensors").stat().st_size,
    }  # fmt: skip
    bench.results["encoder"] = {"record": record, "training": run}
    bench.keep()
    stored = networked(bench, 3, 0)
    stored.load_state_dict({name: one.float() for name, one in tensors.items()})  # as it ships, rounded
    bench.results["encoder"]["scores"] = scores_of(
        token_reader(bench, stored), judged, roles, study.sizes, study.patch_px
    )
    bench.keep()
    print(
        f"encoder: {steps} steps {run['seconds']:.1f} s, loss {run['loss'][0]:.2f} to {run['loss'][-1]:.2f}", flush=True
    )


def kept_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Weights of convolutions in half precision, norms and biases in single: under 8 MB."""
    kept = {}
    for name, one in network.state_dict().items():
        plain = one.detach().cpu().contiguous()
        kept[name] = plain.half() if plain.ndim == 4 else plain
    return kept


def run_rivals(bench: Bench, brains: BrainSet, roles: Roles, lite_path: Path | None, names: Sequence[str]) -> None:
    """Encoders that never saw a phantom."""
    readers: dict[str, Callable[[], Reader]] = {
        "random": lambda: reader(bench, networked(bench, 1, 0)),
        "texture": lambda: texture_reader(bench),
    }
    if lite_path is not None:
        readers["lite0"] = lambda: lite_reader(bench, lite_path)
    rivals = bench.results.setdefault("rivals", {})
    for name in names:
        if name in readers and name not in rivals:
            rivals[name] = [scores_of(readers[name](), brains, roles, bench.study.sizes, bench.study.patch_px)]
            bench.keep()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("work/pretraining"), help="where rendered brains are kept")
    parser.add_argument("--size", choices=sorted(STUDIES), default="full")
    parser.add_argument("--parts", default="render,draw,throughput,rivals,study,encoder,cytonet")
    parser.add_argument("--methods", default=",".join(METHODS), help="of the study")
    parser.add_argument("--seeds", default="", help="of the study, such as 0,1,2")
    parser.add_argument("--steps", type=int, default=0, help="of every run of the study; 0: what the budget allows")
    parser.add_argument("--rivals", default="random,lite0")
    parser.add_argument("--lite0-path", type=Path, default=None, help="folder of the converted weights of lite0")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--budget-s", type=float, default=540.0)
    parser.add_argument("--encoder-share", type=float, default=0.28, help="of the time that is left after rendering")
    asked = parser.parse_args(argv)
    asked.out.mkdir(parents=True, exist_ok=True)
    start, parts = time.perf_counter(), asked.parts.split(",")
    study = STUDIES[asked.size]
    study = replace(study, seeds=tuple(int(one) for one in asked.seeds.split(",")) if asked.seeds else study.seeds)
    precision: Precision = "bf16" if asked.device == "cuda" else "fp32"
    torch.backends.cudnn.benchmark = True  # speed, not the same bits: seeds are repeated instead
    bench = Bench(study, asked.out, asked.device, precision, start + asked.budget_s, {})
    bench.results |= {
        "device": device_name(asked.device), "torch": torch.__version__, "python": platform.python_version(),
        "size": asked.size, "precision": precision, "seconds": {},
    }  # fmt: skip

    def timed(name: str) -> None:
        bench.results["seconds"][name] = time.perf_counter() - start
        print(f"{name}: {time.perf_counter() - start:.0f} s since the start", flush=True)
        bench.keep()

    if "render" in parts:
        render_all(study.study_plans(), asked.folder, asked.processes)
        timed("render")
    # the encoder's brains are rendered while the study keeps the graphics card busy
    drawing = None
    if "draw" in parts:
        more = max(1, asked.processes - 2)
        drawing = multiprocessing.get_context("spawn").Process(
            target=render_all, args=(study.encoder_plans(), asked.folder, more)
        )
        drawing.start()
    if not set(parts) & {"throughput", "study", "encoder", "rivals", "cytonet", "siamese"}:
        return _ended(drawing)
    brains = open_set(study.study_plans(), asked.folder, asked.device, mirrored=False)
    roles = roles_of(brains, study.seen, study.transfer)
    bench.results["points"] = {"pretraining": int(roles.pretraining.sum()), "labelled": int(roles.labelled.sum())}
    timed("opened")
    if "throughput" in parts:
        measure_throughput(bench, brains, roles, "compact")
        timed("throughput")
    if "rivals" in parts:
        run_rivals(bench, brains, roles, asked.lite0_path, asked.rivals.split(","))
        timed("rivals")
    if "study" in parts:
        share = 1 - asked.encoder_share if "encoder" in parts else 1.0
        run_study(bench, brains, roles, 0.95 * share * bench.left_s, asked.methods.split(","), asked.steps)
        timed("study")
    if "siamese" in parts:
        from benchmarks.pretraining_siamese import run_ablation

        run_ablation(bench, brains, roles)
        timed("siamese")
    if "encoder" in parts:
        _ended(drawing)
        many = open_set(study.encoder_plans(), asked.folder, asked.device, mirrored=True)
        timed("opened the encoder's brains")
        train_encoder(bench, many, brains, roles, 0.9 * bench.left_s)
        timed("encoder")
    if "cytonet" in parts:
        measure_throughput(bench, brains, roles, "cytonet")
        timed("cytonet")
    return _ended(drawing)


def _ended(drawing: Any) -> int:
    """Wait for brains that are still rendered; returns how that ended."""
    if drawing is None:
        return 0
    drawing.join()
    return int(drawing.exitcode)


if __name__ == "__main__":
    sys.exit(main())
