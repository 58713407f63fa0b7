"""nnU-Net v2 and our decoder from the same strokes in the same time (`python -m benchmarks.scribbles nnunet`).

nnU-Net lives in an environment of its own (`--nnunet-python`), and learns as it does from few labels: what nobody drew
on is its ignore label. Its plan is its own but for patch, batch and width, which a processor could not work through in
minutes. Both get the same seconds of one core to learn in, a section of a phantom with eight classes, and five strokes
a class; both are scored on another section.
"""

import argparse
import json
import os
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.scribbles_dense import kept_scores, measured, strokes_on
from benchmarks.scribbles_windows import PIXEL_UM, Ground, classes_of, phantom_ground
from cytoarch.embeddings import EmbedSettings

DATASET = "Dataset501_Layers"
ROOT = Path(__file__).parents[1]


def write_dataset(folder: Path, ground: Ground) -> None:
    """A section with strokes as nnU-Net's training case, the other one as what it is to map."""
    here, other = ground.sections
    raw = folder / "raw" / DATASET
    for one in ("imagesTr", "labelsTr", "imagesTs"):
        (raw / one).mkdir(parents=True, exist_ok=True)
    classes = [one.id for one in classes_of(ground).labels]
    y, x, height, width = here.window
    drawn = strokes_on(ground).pixels(slice(y, y + height), slice(x, x + width))
    ignored = max(classes) + 1
    Image.fromarray(np.where(drawn > 0, drawn, ignored).astype(np.uint8)).save(raw / "labelsTr" / "case_000.png")
    Image.fromarray(as_bytes(here.pixels)).save(raw / "imagesTr" / "case_000_0000.png")
    Image.fromarray(as_bytes(other.pixels)).save(raw / "imagesTs" / "other_0000.png")
    labels = {"background": 0, **{f"class{one}": one for one in classes}, "ignore": ignored}
    told = {"channel_names": {"0": "grey"}, "labels": labels, "numTraining": 1, "file_ending": ".png"}
    (raw / "dataset.json").write_text(json.dumps(told))


def as_bytes(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(y, x, c) in [0, 1] -> grey (y, x) uint8."""
    return np.asarray(np.rint(pixels.mean(axis=-1) * 255), dtype=np.uint8)


def nnunet(folder: Path, python: Path, budget_s: float) -> tuple[NDArray[np.int64], str]:
    """The map (y, x) of the other section, and what the driver says it did."""
    places = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed", "nnUNet_results": "results"}
    env = {**os.environ, **{name: str((folder / one).absolute()) for name, one in places.items()}}
    env["nnUNet_n_proc_DA"] = "0"  # it augments in the process that learns: one core
    done = subprocess.run(
        [str(python.absolute()), "-m", "benchmarks.nnunet_driver", str(folder.absolute()), f"{budget_s:.0f}"],
        env=env, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"nnU-Net ended with {done.returncode}: {done.stderr[-2000:]}")
    found = np.asarray(Image.open(folder / "found" / "other.png")).astype(np.int64)
    return found, done.stdout.strip().splitlines()[-1]


def nnunet_table(asked: argparse.Namespace) -> None:
    """Print DSC, HD95 and ASSD by layer of both, and the budget."""
    ground = phantom_ground(asked.store_path, asked.phantoms[0], asked.edge)
    ours = kept_scores(asked.results, ground, EmbedSettings(encoder=asked.encoders[0]), "strokes")
    budget_s = max(ours.seconds, asked.least_s)
    folder = asked.store_path / "nnunet"
    write_dataset(folder, ground)
    found, told = nnunet(folder, asked.nnunet_python, budget_s)
    theirs = measured(ground.sections[1].truth, found, PIXEL_UM)
    print(f"ours: {ours.seconds:.0f} s with embedding and mapping; nnU-Net: {budget_s:.0f} s to learn in; {told}")
    print("| layer | DSC, ours | nnU-Net | HD95 um, ours | nnU-Net | ASSD um, ours | nnU-Net |")
    print("|---|---|---|---|---|---|---|")
    names = {one.id: one.name for one in classes_of(ground).labels}
    rows = {names[int(one)]: (scores, theirs[int(one)]) for one, scores in ours.by_class.items()}
    for name, both in rows.items():
        print(f"| {name} | {cells_of([[by[place] for by in both] for place in range(3)])} |")
    means = [[float(np.nanmean([both[who][place] for both in rows.values()])) for who in (0, 1)] for place in range(3)]
    print(f"| mean | {cells_of(means)} |", flush=True)


def cells_of(pairs: list[list[float]]) -> str:
    """Cells of a line: DSC with three places, micrometres with none."""
    return " | ".join(f"{one:.{3 if place == 0 else 0}f}" for place, pair in enumerate(pairs) for one in pair)
