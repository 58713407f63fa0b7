"""Scores against the number of strokes, and how long a key press takes (`python -m benchmarks.scribbles`).

A simulated annotator draws a stroke a class and round where the map is most wrong, in a window of a phantom section
with six layers; the map is scored there, and in a window of a section nobody drew on. Beside our session, with the
encoders asked for, stands a random forest on the multi-scale features of scikit-image, which is what users of ilastik
have; it draws its own strokes, where its own map is wrong. Both see the same pixels at the same size. The store of
`--store-path` is kept: a second run finds its embeddings.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score

from cytoarch.annotations.drawing import DrawnLabels
from cytoarch.annotations.exchange import Drawer
from cytoarch.annotations.scribbles import Scribble, now
from cytoarch.brains import read_manifest
from cytoarch.embeddings import EmbedSettings
from cytoarch.geometry import Grid
from cytoarch.interactive.annotator import Annotator
from cytoarch.interactive.session import Session, View
from cytoarch.phantoms.writing import PhantomRequest, write_phantom
from cytoarch.steps import LABELS, SECTION, LabelsStep, ManifestFile, SectionStep, TissueStep, make_sections, open_brain
from cytoarch.steps.opened import OpenBrain, read_only
from cytoarch.steps.step import Place

PIXEL_UM = 8.0
PEN_PX = 6.0
Map = NDArray[np.int64]


class Window(NamedTuple):
    """A part of a section with its truth."""

    section_id: str
    y: int
    x: int
    edge: int
    truth: Map
    pixels: NDArray[np.float32]

    @property
    def view(self) -> View:
        """The same for a session."""
        return View(self.section_id, self.y, self.x, self.edge, self.edge)


class Round(NamedTuple):
    """What a round of strokes gave."""

    strokes: int
    drawn: float
    """Macro-F1 where strokes were drawn."""
    unseen: float
    """Macro-F1 on the other section."""
    seconds: float
    """Training, and the map of the window."""


def prepared(folder: Path, seed: int) -> None:
    """A phantom of two sections in the store, unless it is there."""
    if not (folder / "phantom" / "manifest.csv").exists():
        request = PhantomRequest(target="layers", sections=4, pixel_size_um=PIXEL_UM, seed=seed)
        write_phantom(folder / "phantom", "P1", request)
    root = folder / "phantom"
    (brain,) = read_manifest(root / "manifest.csv", root, root / "labels.csv")
    with open_brain(folder / "store", brain) as opened:
        steps = [SectionStep(ManifestFile(root, "path")), LabelsStep(ManifestFile(root, "labels")), TissueStep()]
        failed = [one for one in make_sections(steps, opened) if one.status == "failed"]
        if failed:
            raise RuntimeError(f"{failed}")


def window_of(brain: OpenBrain, section_id: str, edge: int) -> Window:
    """The window of a section with most classes, and among these most labelled pixels, in steps of half its edge."""
    place = Place(brain, brain.rows[section_id])
    labels = LABELS.open(place).levels[0].pixels().astype(np.int64)
    height, width = labels.shape
    corners = [(y, x) for y in range(0, height - edge, edge // 2) for x in range(0, width - edge, edge // 2)]

    def richness(corner: tuple[int, int]) -> tuple[int, int]:
        y, x = corner
        values, counts = np.unique(labels[y : y + edge, x : x + edge], return_counts=True)
        return int((counts[values > 0] > 500).sum()), int(counts[values > 0].sum())

    y, x = max(corners, key=richness)
    pixels = SECTION.open(place).levels[0].pixels(slice(y, y + edge), slice(x, x + edge)).astype(np.float32)
    colours = np.moveaxis(pixels, 0, -1) / np.float32(255)
    return Window(section_id, y, x, edge, labels[y : y + edge, x : x + edge], colours)


def score(truth: Map, found: Map) -> float:
    """Macro-F1 over the classes of the truth, on labelled pixels; equals the mean DSC of the classes."""
    labelled = truth > 0
    classes = np.unique(truth[labelled])
    return float(f1_score(truth[labelled], found[labelled], labels=classes, average="macro", zero_division=0))


def ours(folder: Path, windows: Sequence[Window], embed: EmbedSettings, rounds: int, seed: int) -> list[Round]:
    """Rounds of a session."""
    here, other = windows
    author = f"simulated-{embed.encoder.replace(':', '-')}-{seed}"
    (read_only(folder / "store", "P1").catalogue.folder / "drawings" / f"{author}.jsonl").unlink(missing_ok=True)
    done: list[Round] = []
    with Session.opened(folder / "store", "P1", author, embed) as session:
        for window in windows:
            session.embed(window.view)
        annotator, found = Annotator(here.truth, seed), None
        for _ in range(rounds):
            for drawn in annotator.strokes(found):
                session.stroke(here.section_id, drawn.label, drawn.path_px + np.array([here.y, here.x]), PEN_PX)
            started = time.perf_counter()
            session.train()
            found = shown(session, here)
            seconds = time.perf_counter() - started
            strokes = len(session.drawing.scribbles)
            done.append(Round(strokes, score(here.truth, found), score(other.truth, shown(session, other)), seconds))
    return done


def shown(session: Session, window: Window) -> Map:
    """The map of a window on its pixels."""
    found = np.zeros((window.edge, window.edge), dtype=np.int64)
    grid = session.blocks.layout(window.section_id).image.grid.window(window.y, window.x, window.edge, window.edge)
    for seen in session.predict(window.view):
        rows, columns = grid.places_in(seen.grid)
        inside_y, inside_x = (
            np.flatnonzero((at >= 0) & (at < n)) for at, n in zip((rows, columns), seen.grid.shape, strict=True)
        )
        found[np.ix_(inside_y, inside_x)] = seen.labels[np.ix_(rows[inside_y], columns[inside_x])]
    return found


def forest(windows: Sequence[Window], rounds: int, seed: int) -> list[Round]:
    """Rounds of a random forest on multi-scale features."""
    here, other = windows
    features = [
        np.asarray(multiscale_basic_features(one.pixels, sigma_min=1, sigma_max=16, channel_axis=-1)) for one in windows
    ]
    annotator, found = Annotator(here.truth, seed), None
    by, scribbles, done = Drawer("s", "forest", now()), list[Scribble](), list[Round]()
    grid = Grid(here.truth.shape, PIXEL_UM, (0.0, 0.0))
    for _ in range(rounds):
        scribbles += [by.line(one.label, one.path_px, PEN_PX) for one in annotator.strokes(found)]
        labels = DrawnLabels.of(scribbles, grid, None).pixels()
        started = time.perf_counter()
        model = RandomForestClassifier(100, min_samples_leaf=5, class_weight="balanced", random_state=seed, n_jobs=1)
        model.fit(features[0][labels > 0], labels[labels > 0])
        found = model.predict(features[0].reshape(-1, features[0].shape[-1])).reshape(here.truth.shape).astype(np.int64)
        seconds = time.perf_counter() - started
        unseen = model.predict(features[1].reshape(-1, features[1].shape[-1])).reshape(other.truth.shape)
        done.append(
            Round(len(scribbles), score(here.truth, found), score(other.truth, unseen.astype(np.int64)), seconds)
        )
    return done


def curve(path: Path, rounds: dict[str, list[list[Round]]]) -> None:
    """Draw macro-F1 against strokes, mean over seeds: on the drawn window and on the other section."""
    mpl.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    colours = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
    for axis, (name, field) in zip(
        figure.subplots(1, 2, sharey=True),
        (("the section drawn on", "drawn"), ("another section", "unseen")),
        strict=True,
    ):
        for (method, seeds), colour in zip(rounds.items(), colours, strict=False):
            x = np.mean([[one.strokes for one in seed] for seed in seeds], axis=0)
            y = np.array([[getattr(one, field) for one in seed] for seed in seeds])
            axis.plot(x, y.mean(axis=0), marker="o", markersize=3, color=colour, label=method)
            axis.fill_between(x, y.min(axis=0), y.max(axis=0), color=colour, alpha=0.15, linewidth=0)
        axis.set(title=name, xlabel="strokes", ylim=(0, 1))
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("macro-F1 of the layers")
    figure.axes[0].legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=130)


def main() -> None:
    """Print a table, and draw the curve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store-path", type=Path, default=Path("work/scribbles"))
    parser.add_argument("--encoders", nargs="+", default=["texture"], help="Any encoder ids, lite0 for example.")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--edge", type=int, default=1024, help="Edge of the window in pixels.")
    parser.add_argument("--picture", type=Path, default=Path("work/scribbles.png"))
    asked = parser.parse_args()
    prepared(asked.store_path, seed=3)
    brain = read_only(asked.store_path / "store", "P1")
    ids = [one.section_id for one in brain.sections]
    windows = [window_of(brain, one, asked.edge) for one in (ids[1], ids[2])]
    methods: dict[str, Callable[[int], list[Round]]] = {
        f"ours, {one}": lambda seed, one=one: ours(  # type: ignore[misc]  # the encoder of this turn
            asked.store_path, windows, EmbedSettings(encoder=one, pixel_size_um=PIXEL_UM), asked.rounds, seed
        )
        for one in asked.encoders
    }
    methods["random forest, scikit-image features"] = lambda seed: forest(windows, asked.rounds, seed)
    found = {name: [method(seed) for seed in range(asked.seeds)] for name, method in methods.items()}
    print("| method | strokes | macro-F1 where drawn | on another section | s a round |\n|---|---|---|---|---|")
    for name, seeds in found.items():
        for rounds in zip(*seeds, strict=True):
            means = [np.mean([getattr(one, field) for one in rounds]) for field in Round._fields]
            print(f"| {name} | {means[0]:.0f} | {means[1]:.3f} | {means[2]:.3f} | {means[3]:.2f} |", flush=True)
    curve(asked.picture, found)


if __name__ == "__main__":
    main()
