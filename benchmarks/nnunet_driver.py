"""nnU-Net v2 within seconds; where it is installed: `PYTHON -m benchmarks.nnunet_driver FOLDER SECONDS`."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

import benchmarks.torchvision_operators  # noqa: F401 - before what imports torchvision

# isort: split
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

PATCH, BATCH, BASE_FEATURES, TRIED, ITERATIONS = 256, 2, 16, 3, 10


def planned(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """nnU-Net's own 2D plan, with another patch, batch and width."""
    extract_fingerprints([501], num_processes=1)
    name = plan_experiments([501])
    place = folder / "preprocessed" / "Dataset501_Layers"
    plans = json.loads((place / f"{name}.json").read_text())
    two = plans["configurations"]["2d"]
    two["patch_size"], two["batch_size"] = [PATCH, PATCH], BATCH
    arch = two["architecture"]["arch_kwargs"]
    stages = 6
    arch["n_stages"] = stages
    arch["features_per_stage"] = [min(BASE_FEATURES << one, 256) for one in range(stages)]
    for key in ("kernel_sizes", "strides", "n_conv_per_stage"):
        arch[key] = arch[key][:stages]
    arch["n_conv_per_stage_decoder"] = arch["n_conv_per_stage_decoder"][: stages - 1]
    (place / f"{name}.json").write_text(json.dumps(plans))
    preprocess([501], name, configurations=["2d"], num_processes=[1])
    return plans, json.loads((folder / "raw" / "Dataset501_Layers" / "dataset.json").read_text())


def trained(plans: dict[str, Any], dataset: dict[str, Any], budget_s: float) -> tuple[nnUNetTrainer, int]:
    """A trainer that learned for so long, and how many iterations that were; its rate falls to zero meanwhile."""
    trainer = nnUNetTrainer(plans, "2d", "all", dataset, device=torch.device("cpu"))
    trainer.initialize()
    trainer.on_train_start()
    trainer.network.train()
    started = time.perf_counter()
    for _ in range(TRIED):
        trainer.train_step(next(trainer.dataloader_train))
    pace_s = (time.perf_counter() - started) / TRIED
    trainer.num_epochs = max(1, round(budget_s / pace_s / ITERATIONS))
    started, taken = time.perf_counter(), 0
    for epoch in range(trainer.num_epochs):
        trainer.lr_scheduler.step(epoch)
        for _ in range(ITERATIONS):
            trainer.train_step(next(trainer.dataloader_train))
            taken += 1
        if time.perf_counter() - started > budget_s:
            break
    return trainer, taken


def main() -> None:
    """Plan, learn, map; the last line says what was done."""
    folder, budget_s = Path(sys.argv[1]), float(sys.argv[2])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    plans, dataset = planned(folder)
    trainer, taken = trained(plans, dataset, budget_s)
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), perform_everything_on_device=False)
    predictor.manual_initialization(
        trainer.network, trainer.plans_manager, trainer.configuration_manager, [trainer.network.state_dict()],
        dataset, "nnUNetTrainer", None,
    )  # fmt: skip
    (folder / "found").mkdir(exist_ok=True)
    predictor.predict_from_files_sequential(
        [[str(folder / "raw" / "Dataset501_Layers" / "imagesTs" / "other_0000.png")]], [str(folder / "found" / "other")]
    )
    print(f"{taken} iterations of {BATCH} patches of {PATCH} px, {BASE_FEATURES} features at first, one core")


if __name__ == "__main__":
    main()
