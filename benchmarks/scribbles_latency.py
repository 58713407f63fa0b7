"""From the key press to the updated view, on 2,048 x 2,048 px."""

import argparse
import json
import resource
import subprocess
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.scribbles_peers import Clock, Forest, features_of
from benchmarks.scribbles_windows import PLACES, Drawable, Ground, classes_of, phantom_ground
from cytoarch.annotations.drawing import DrawnLabels
from cytoarch.annotations.exchange import Drawer
from cytoarch.annotations.scribbles import now
from cytoarch.embeddings import EmbedSettings
from cytoarch.geometry import Grid
from cytoarch.interactive.annotator import Annotator
from cytoarch.interactive.session import Session
from cytoarch.interactive.views import Seen
from cytoarch.steps.opened import read_only

EDGE_PX, PIXEL_UM, SEED = 2048, 4.0, 31
PEN_PX = 8.0


class Press(NamedTuple):
    """A key press: seconds of wall and processor to the first part of the map, and to all of it."""

    first_s: float
    first_cpu_s: float
    all_s: float
    all_cpu_s: float


def pressed(session: Session, section: Drawable) -> Press:
    """Press the key once."""
    clock, first = Clock(), (0.0, 0.0)
    for told in session.update(section.view):
        if isinstance(told, Seen) and not first[0]:
            first = clock.read()
    return Press(*first, *clock.read())


def ours(ground: Ground, embed: EmbedSettings, presses: int) -> tuple[Press, list[Press]]:
    """The first press of a session that has embedded nothing, and presses when all is embedded."""
    section = ground.sections[0]
    author = f"timed-{embed.encoder.replace(':', '-')}"
    folder = read_only(ground.store_path, ground.brain_id).catalogue.folder
    (folder / "drawings" / f"{author}.jsonl").unlink(missing_ok=True)
    with Session.opened(ground.store_path, ground.brain_id, author, embed) as session:
        session.take_classes(classes_of(ground))
        annotator = Annotator(section.truth, 0)
        strokes = [one for _ in range(1 + -(-presses // 4)) for one in annotator.strokes(None)]  # the classes in turn
        for one in strokes[:8]:
            session.stroke(section.section_id, one.label, section.on_section(one.path_px), PEN_PX)
        cold = pressed(session, section)
        session.reset()
        cached = []
        for press in range(presses):  # a stroke more before each
            one = strokes[(8 + press) % len(strokes)]
            session.stroke(section.section_id, one.label, section.on_section(one.path_px), PEN_PX)
            cached.append(pressed(session, section))
    return cold, cached


def forest(ground: Ground, presses: int) -> tuple[float, list[Press]]:
    """Seconds of the processor to compute features, and presses of the random forest."""
    section, model = ground.sections[0], Forest(0)
    clock = Clock()
    model.features[section.section_id] = features_of(section)
    features_s = clock.read()[1]
    labels, found = strokes_of(section), []
    for _ in range(min(presses, 3)):
        clock = Clock()
        model.fit(section, labels)
        model.map(section)
        found.append(Press(*clock.read(), *clock.read()))
    return features_s, found


def convpaint(ground: Ground, folder: Path, python: Path, presses: int) -> dict[str, list[Press]]:
    """Presses of napari-convpaint on the same image and strokes, by what it looks at the image with."""
    section = ground.sections[0]
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "image.npy", section.pixels.mean(axis=-1))
    np.save(folder / "labels.npy", strokes_of(section))
    told = subprocess.run(
        [str(python.absolute()), "-m", "benchmarks.convpaint_peer", str(folder.absolute()), str(presses)],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False,
    )  # fmt: skip
    if told.returncode:
        raise RuntimeError(f"napari-convpaint ended with {told.returncode}: {told.stderr[-2000:]}")
    found = json.loads(told.stdout.strip().splitlines()[-1])
    return {name: [Press(*one, *one) for one in some] for name, some in found.items()}


def strokes_of(section: Drawable) -> NDArray[np.int64]:
    """Three strokes a class on the pixels of a window, 0 where nothing is drawn."""
    by, grid = Drawer("s", "forest", now()), Grid(section.truth.shape, 1.0, (0.0, 0.0))
    strokes = Annotator(section.truth, 0).strokes(None, 3)
    drawn = DrawnLabels.of([by.line(one.label, one.path_px, PEN_PX) for one in strokes], grid, None)
    return drawn.pixels().astype(np.int64)


def line(name: str, presses: list[Press]) -> str:
    """A line of the table."""
    cells = [
        f"{np.percentile([getattr(one, field) for one in presses], share):.2f}"
        for field in Press._fields
        for share in (50, 95)
    ]
    return f"| {name} | {len(presses)} | {' | '.join(cells)} |"


def latency_table(asked: argparse.Namespace) -> None:
    """Print what a key press takes, cold and with embeddings cached, beside a random forest."""
    with ProcessPoolExecutor(1, get_context("spawn")) as beside:  # making a phantom takes memory that drawing does not
        ground = beside.submit(
            phantom_ground, asked.store_path / "latency", SEED, EDGE_PX, PIXEL_UM, PLACES[:1]
        ).result()
    print("| method | presses | first part: wall p50 | p95 | CPU p50 | p95 | all: wall p50 | p95 | CPU p50 | p95 |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for encoder in asked.encoders:
        cold, cached = ours(ground, EmbedSettings(encoder=encoder), asked.presses)
        print(line(f"ours, {encoder}, nothing embedded", [cold]))
        print(line(f"ours, {encoder}, cached", cached))
        print(line(f"of these the first, 150 steps, {encoder}", cached[:1]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    print(f"memory of the process at its peak: {peak:.2f} GiB", flush=True)
    features_s, found = forest(ground, asked.presses)
    print(line("random forest, features cached", found))
    print(f"(the forest's features took {features_s:.1f} s of the processor)")
    if asked.convpaint_python:
        folder = asked.store_path / "convpaint"
        for name, some in convpaint(ground, folder, asked.convpaint_python, min(asked.presses, 3)).items():
            print(line(f"napari-convpaint, {name}", some), flush=True)
