"""Cortical layers of human donors, learned from one and found in the other (`python -m benchmarks.layers`).

Eight H&E sections of two donors (Maynard et al., 10.1038/s41593-020-00787-0), `human_dlpfc_layers` in the folder of
real data. The truth are the spots that the authors labelled by hand; scored are the classes that both donors have.
Beside our heads stand a linear discriminant on local colour, and a random forest on the multi-scale features of
scikit-image, which is what users of ilastik do; both learn from the spots of the one donor. Nothing is chosen by the
donor that is scored. The store of `--store-path` is kept: a second run goes on where the first ended.
"""

import argparse
import csv
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.feature import multiscale_basic_features
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score

from cytoarch.anatomy.tissue import TissueSettings
from cytoarch.brains import Brain, Label, LabelTable, Section
from cytoarch.embeddings import EmbedSettings
from cytoarch.embeddings.settings import ACROSS_BRAINS
from cytoarch.learning.application import predict_bands
from cytoarch.learning.cards import Order
from cytoarch.learning.ordering import ordered
from cytoarch.learning.training import ContextSettings, HeadSettings, Kind, ProbeSettings
from cytoarch.steps import (
    EmbeddingsStep,
    LabelsStep,
    ManifestFile,
    SectionStep,
    TissueStep,
    make,
    make_sections,
    open_brain,
)
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.scales import ScaleStep
from cytoarch.steps.sources import open_head
from cytoarch.steps.step import Place, Stored
from cytoarch.steps.tissue import TISSUE
from cytoarch.steps.training import TrainingStep, keep_head

DONORS = {"H1": ("151507", "151508", "151509", "151510"), "H2": ("151669", "151670", "151671", "151672")}
NAMES = ("L1", "L2", "L3", "L4", "L5", "L6", "WM")
COMMON = (3, 4, 5, 6, 7)
"""Ids of the classes that both donors have."""
PIXEL_UM = 16.2
Spots = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Places (n, 2) in pixels (y, x), and the ids of their layers (n,)."""


def spots_of(data: Path, section_id: str) -> Spots:
    """The labelled spots of a section."""
    with (data / "spots" / f"{section_id}.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["layer"] in NAMES]
    places = np.array([[float(row["y_px"]), float(row["x_px"])] for row in rows])
    return places, np.array([NAMES.index(row["layer"]) + 1 for row in rows])


def brain_of(donor: str) -> Brain:
    """A donor as a brain."""
    sections = tuple(
        Section(
            brain_id=donor, section_id=f"s{one}", section_number=number, path=f"images/{one}.png",
            labels=f"labels/{one}.png", pixel_size_um=PIXEL_UM, stain="he", species="human", labels_origin="expert",
        )
        for number, one in enumerate(DONORS[donor])
    )  # fmt: skip
    labels = tuple(Label(id=number, name=name) for number, name in enumerate(NAMES, start=1))
    return Brain(brain_id=donor, sections=sections, label_table=LabelTable(labels=labels))


def prepared(brain: OpenBrain, data: Path, embed: EmbedSettings) -> EmbeddingsStep:
    """Ingest and embed a donor, as far as it is not done."""
    scan, labels = ManifestFile(data, "path"), ManifestFile(data, "labels")
    make_sections([SectionStep(scan), LabelsStep(labels), TissueStep(TissueSettings())], brain)
    step = EmbeddingsStep.of(embed, brain)
    make_sections([step], brain)
    make(ScaleStep.of(step.stored), brain)
    if brain.failed:
        raise RuntimeError(f"{brain.name}: {brain.failed}")
    return step


ORDERS: tuple[Order, ...] = ("none", "bands")


def ours(
    store: Path, data: Path, learned: str, scored: str, embed: EmbedSettings, kind: Kind, settings: HeadSettings
) -> Mapping[Order, NDArray[np.int64]]:
    """The layers that a head finds at the spots of a donor, having learned from the other; by how they are ordered."""
    with open_brain(store, brain_of(learned)) as brain:
        step = prepared(brain, data, embed)
        training = TrainingStep.of(learned, step.stored, kind, settings)
        make(training, brain)
        head = open_head(brain.store, keep_head(brain, training.name))
    found: dict[Order, list[NDArray[np.int64]]] = {order: [] for order in ORDERS}
    with open_brain(store, brain_of(scored)) as brain:
        step = prepared(brain, data, embed)
        place = Place(brain)
        scale = Stored(ScaleStep, step.name).open(place) if settings.standardise == "brain" else None
        for one in DONORS[scored]:
            section = Place(brain, brain.rows[f"s{one}"])
            embeddings = step.stored.open(section).measured_in(scale)
            probabilities = np.concatenate([band for _, band in predict_bands(head, embeddings)], axis=1)
            cell = head.card.token_px / head.card.cells_per_token
            rows, columns = np.floor((spots_of(data, one)[0] + 0.5) / cell).astype(np.int64).T
            u = head.card.cells_per_token
            inside = np.repeat(np.repeat(embeddings.inside(TISSUE.open(section)), u, 0), u, 1)
            for order, layers in found.items():
                drawn = probabilities * ordered(probabilities, inside, order)
                layers.append(drawn[:, rows, columns].argmax(axis=0) + 1)
    return {order: np.concatenate(layers) for order, layers in found.items()}


def local_colour(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean colour around every pixel (y, x, 3)."""
    return np.asarray(gaussian_filter(image, (3, 3, 0)))


def many_scales(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intensity, edges and texture at scales of 1 to 16 px (y, x, f)."""
    return np.asarray(multiscale_basic_features(image, sigma_min=1, sigma_max=16, channel_axis=-1, workers=1))


Features = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def at_spots(data: Path, donor: str, features: Features) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features (n, f) and layers (n,) of all spots of a donor."""
    values, layers = [], []
    for one in DONORS[donor]:
        scanned = np.asarray(Image.open(data / "images" / f"{one}.png").convert("RGB"))
        image = scanned.astype(np.float32) / np.float32(255)
        places, ids = spots_of(data, one)
        rows, columns = np.round(places).astype(np.int64).T
        values.append(features(image)[rows, columns])
        layers.append(ids)
    return np.concatenate(values), np.concatenate(layers)


def baselines(data: Path, learned: str, scored: str, seed: int) -> Mapping[str, NDArray[np.int64]]:
    """What others find at the spots of a donor, having learned from those of the other."""
    models = {
        "linear discriminant, local colour": (LinearDiscriminantAnalysis(), local_colour),
        "random forest, scikit-image features": (
            RandomForestClassifier(100, min_samples_leaf=5, class_weight="balanced", random_state=seed, n_jobs=1),
            many_scales,
        ),
    }
    found = {}
    for name, (model, features) in models.items():
        model.fit(*at_spots(data, learned, features))
        found[name] = model.predict(at_spots(data, scored, features)[0])
    return found


def score(truth: NDArray[np.int64], found: NDArray[np.int64]) -> NDArray[np.float64]:
    """F1 of the common classes, over spots of these."""
    kept = np.isin(truth, COMMON)
    return np.asarray(f1_score(truth[kept], found[kept], labels=list(COMMON), average=None, zero_division=0))


JOINED = EmbedSettings(encoder="texture+lite0")
FEWER = EmbedSettings(encoder=ACROSS_BRAINS)


def probe(**settings: Any) -> Callable[[int], HeadSettings]:
    """A probe with these settings, by its seed."""
    return lambda seed: ProbeSettings.model_validate({"target": "layers", "seed": seed, **settings})


METHODS: dict[str, tuple[EmbedSettings, Kind, Callable[[int], HeadSettings]]] = {
    "probe, texture": (EmbedSettings(), "probe", probe()),
    "probe, texture, not standardised": (EmbedSettings(), "probe", probe(standardise="head")),
    "probe, compact": (EmbedSettings(encoder="compact"), "probe", probe()),
    "probe, lite0": (EmbedSettings(encoder="lite0"), "probe", probe()),
    "probe, lite0, not standardised": (EmbedSettings(encoder="lite0"), "probe", probe(standardise="head")),
    "probe, texture, penalty 1": (EmbedSettings(), "probe", probe(regularisation=1)),
    "probe, lite0, penalty 1": (EmbedSettings(encoder="lite0"), "probe", probe(regularisation=1)),
    "probe, texture+lite0": (JOINED, "probe", probe()),
    "probe, texture+lite0, penalty 1": (JOINED, "probe", probe(regularisation=1)),
    "probe, texture+lite0:3,4": (FEWER, "probe", probe()),
    "probe, texture+lite0:3,4, penalty 1": (FEWER, "probe", probe(regularisation=1)),
    "probe, texture+lite0:3,4, not standardised": (FEWER, "probe", probe(standardise="head")),
    "context, texture": (EmbedSettings(), "context", lambda seed: ContextSettings(target="layers", seed=seed)),
    "context, lite0": (
        EmbedSettings(encoder="lite0"), "context", lambda seed: ContextSettings(target="layers", seed=seed),
    ),
}  # fmt: skip


def row(name: str, scores: Sequence[Sequence[NDArray[np.float64]]], seconds: float) -> str:
    """A line of the table: mean and deviation over seeds, for either donor scored, and F1 by class."""
    parts = []
    for seeds in scores:
        means = [float(one.mean()) for one in seeds]
        deviation = f" +- {np.std(means, ddof=1):.3f}" if len(means) > 1 else ""
        parts.append(f"{np.mean(means):.3f}{deviation}")
    classes = ["/".join(f"{value:.2f}" for value in np.mean(seeds, axis=0)) for seeds in scores]
    return f"| {name} | {parts[0]} | {parts[1]} | {classes[0]} | {classes[1]} | {seconds:.0f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-path", type=Path, default=Path(os.environ.get("CYTOARCH_REAL_DATA", "../shared/data")))
    parser.add_argument("--store-path", type=Path, default=Path("work/layers"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="Methods whose name holds this.")
    asked = parser.parse_args()
    data = asked.data_path / "human_dlpfc_layers"
    ways = (("H1", "H2"), ("H2", "H1"))
    truth = {one: np.concatenate([spots_of(data, section)[1] for section in DONORS[one]]) for one in DONORS}
    print("| method | H1 to H2 | H2 to H1 | by class L3/L4/L5/L6/WM | by class | s |\n|---|---|---|---|---|---|")
    names = ("linear discriminant, local colour", "random forest, scikit-image features")
    if any(asked.only in name for name in names):
        started = time.perf_counter()
        found = [baselines(data, learned, scored, 0) for learned, scored in ways]
        seconds = (time.perf_counter() - started) / 2
        for name in names:
            scores = [[score(truth[to], one[name])] for (_, to), one in zip(ways, found, strict=True)]
            print(row(name, scores, seconds), flush=True)
    for name, (embed, kind, settings) in METHODS.items():
        if asked.only not in name:
            continue
        started = time.perf_counter()
        seeds = range(asked.seeds)
        told = [
            [ours(asked.store_path, data, learned, to, embed, kind, settings(one)) for one in seeds]
            for learned, to in ways
        ]
        seconds = time.perf_counter() - started
        for order in ORDERS:
            scores = [
                [score(truth[to], one[order]) for one in seeds_told]
                for (_, to), seeds_told in zip(ways, told, strict=True)
            ]
            print(row(name if order == "none" else f"{name}, {order}", scores, seconds), flush=True)


if __name__ == "__main__":
    main()
