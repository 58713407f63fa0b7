"""Drawing measured: scores against strokes, few strokes against dense labels, and a key press.

    python -m benchmarks.scribbles scores     # macro-F1 against strokes of a simulated annotator, and the curve
    python -m benchmarks.scribbles dense      # decoder from 5 strokes a class against the one from dense labels
    python -m benchmarks.scribbles latency    # from the key press to the updated view
    python -m benchmarks.scribbles nnunet     # nnU-Net v2 from the same strokes in the same time

A simulated annotator draws a stroke a class and round where the map is most wrong, each method's own map. Scored is the
section that is drawn on, and one that nobody drew on: windows in phantom sections at 8 um, and human sections (H&E,
16 um). Both see the same pixels at the same size. What is chosen was chosen on phantoms of the seeds 11 and 12, never
on those that are scored here. Every run is kept in `--results`: a second call goes on where the first ended, and draws
the curve of all that was asked for.
"""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.metrics import f1_score

from benchmarks.scribbles_chart import curve
from benchmarks.scribbles_dense import dense_table
from benchmarks.scribbles_latency import latency_table
from benchmarks.scribbles_nnunet import nnunet_table
from benchmarks.scribbles_peers import Forest
from benchmarks.scribbles_windows import Ground, Map, classes_of, human_ground, phantom_ground, shown
from cytoarch.annotations.drawing import DrawnLabels
from cytoarch.annotations.exchange import Drawer
from cytoarch.annotations.scribbles import Scribble, now
from cytoarch.embeddings import EmbedSettings
from cytoarch.geometry import Grid
from cytoarch.interactive.annotator import Annotator
from cytoarch.interactive.lessons import SessionSettings
from cytoarch.interactive.session import Session
from cytoarch.steps.opened import read_only

PEN_PX = 6.0
FOREST = "random forest, scikit-image features"


class Round(NamedTuple):
    """What a round of strokes gave."""

    strokes: int
    drawn: float
    """Macro-F1 on the section that strokes were drawn on."""
    unseen: float
    """Macro-F1 on the other section."""


def score(truth: Map, found: Map) -> float:
    """Macro-F1 over the classes of the truth, on labelled pixels; equals the mean DSC of the classes."""
    labelled = truth > 0
    classes = np.unique(truth[labelled])
    return float(f1_score(truth[labelled], found[labelled], labels=classes, average="macro", zero_division=0))


def ours(ground: Ground, embed: EmbedSettings, settings: SessionSettings, rounds: int, seed: int) -> list[Round]:
    """Rounds of a session."""
    here, other = ground.sections
    author = f"simulated-{embed.encoder.replace(':', '-')}-{seed}"
    folder = read_only(ground.store_path, ground.brain_id).catalogue.folder
    (folder / "drawings" / f"{author}.jsonl").unlink(missing_ok=True)
    done: list[Round] = []
    with Session.opened(ground.store_path, ground.brain_id, author, embed, settings) as session:
        session.take_classes(classes_of(ground))
        for one in ground.sections:
            session.embed(one.view)
        annotator, found = Annotator(here.truth, seed), None
        for _ in range(rounds):
            for drawn in annotator.strokes(found):
                session.stroke(here.section_id, drawn.label, here.on_section(drawn.path_px), PEN_PX)
            session.train()
            found = shown(session, here)
            unseen = score(other.truth, shown(session, other))
            done.append(Round(len(session.drawing.scribbles), score(here.truth, found), unseen))
    return done


def forest(ground: Ground, rounds: int, seed: int) -> list[Round]:
    """Rounds of a random forest."""
    here, other = ground.sections
    annotator, found, model = Annotator(here.truth, seed), None, Forest(seed)
    by, scribbles, done = Drawer("s", "forest", now()), list[Scribble](), list[Round]()
    grid = Grid(here.truth.shape, 1.0, (0.0, 0.0))
    for _ in range(rounds):
        scribbles += [by.line(one.label, one.path_px, PEN_PX) for one in annotator.strokes(found)]
        model.fit(here, DrawnLabels.of(scribbles, grid, None).pixels().astype(np.int64))
        found = model.map(here)
        done.append(Round(len(scribbles), score(here.truth, found), score(other.truth, model.map(other))))
    return done


def share_of_strokes(ours_rounds: Sequence[Round], theirs: Sequence[Round], field: str) -> float:
    """Strokes that ours needs for the best score of the other, as a share of the other's strokes; inf: not reached."""
    best = max(theirs, key=lambda one: getattr(one, field))
    first = next((one for one in theirs if getattr(one, field) >= getattr(best, field)), best)
    reached = next((one.strokes for one in ours_rounds if getattr(one, field) >= getattr(best, field)), None)
    return reached / first.strokes if reached else float("inf")


def kept(path: Path, name: str, run: Callable[[], list[Round]]) -> list[Round]:
    """The rounds of a run, from a file of runs where they are there; else they are made, and kept in it."""
    known: dict[str, list[list[float]]] = json.loads(path.read_text()) if path.exists() else {}
    if name not in known:
        known[name] = [list(one) for one in run()]
        path.write_text(json.dumps(known, indent=1))
        print(f"{name}: {known[name][-1]}", flush=True)
    return [Round(int(strokes), drawn, unseen) for strokes, drawn, unseen in known[name]]


def run_of(
    at: Callable[[], Ground], how: tuple[EmbedSettings, SessionSettings] | None, rounds: int, seed: int
) -> list[Round]:
    """Rounds of a session with some settings; None: of a random forest."""
    return forest(at(), rounds, seed) if how is None else ours(at(), *how, rounds, seed)


def scores(asked: argparse.Namespace) -> None:
    """Print the table of scores against strokes, and draw the curve."""
    data = asked.data_path / "human_dlpfc_layers"
    grounds = {
        f"phantom {seed}": partial(phantom_ground, asked.store_path, seed, asked.edge) for seed in asked.phantoms
    }
    grounds |= {f"human {donor}": partial(human_ground, asked.store_path, data, donor, 0) for donor in asked.donors}
    methods = {f"ours, {one}": (EmbedSettings(encoder=one), SessionSettings()) for one in asked.encoders}
    if asked.without_places:
        methods |= {
            f"ours, {one}, not told of places": (EmbedSettings(encoder=one), SessionSettings(with_places=False))
            for one in asked.encoders
        }
    found: dict[str, dict[str, list[list[Round]]]] = {}
    for kind, made in grounds.items():
        table, at = found.setdefault(kind.split()[0], {}), cache(made)
        for seed in range(asked.seeds):
            runs = {
                name: partial(run_of, at, how, asked.rounds, seed) for name, how in (*methods.items(), (FOREST, None))
            }
            for name, run in runs.items():
                whole = f"{kind}, annotator {seed}, {asked.rounds} rounds, {asked.edge} px: {name}"
                table.setdefault(name, []).append(kept(asked.results, whole, run))
    for kind, table in found.items():
        print_table(kind, table)
    curve(asked.picture, found)


def print_table(kind: str, table: Mapping[str, Sequence[Sequence[Round]]]) -> None:
    """Print means over runs, and how many strokes ours needs for what the forest reaches."""
    print(f"\n{kind}: {len(table[FOREST])} runs\n")
    print("| method | strokes | where drawn | another section |\n|---|---|---|---|")
    for name, runs in table.items():
        for rounds in zip(*runs, strict=True):
            means = [float(np.mean([getattr(one, field) for one in rounds])) for field in Round._fields]
            print(f"| {name} | {means[0]:.0f} | {means[1]:.3f} | {means[2]:.3f} |")
    for name in (one for one in table if one != FOREST):
        shares = [
            [share_of_strokes(a, b, field) for a, b in zip(table[name], table[FOREST], strict=True)]
            for field in ("drawn", "unseen")
        ]
        told = ["/".join(f"{one:.2f}" for one in sorted(some)) for some in shares]
        print(f"{name}: strokes for the forest's best score, as a share of its own: {told[0]}; unseen: {told[1]}")


WHAT = {"scores": scores, "dense": dense_table, "latency": latency_table, "nnunet": nnunet_table}


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(WHAT), nargs="?", default="scores")
    parser.add_argument("--store-path", type=Path, default=Path("work/scribbles"))
    parser.add_argument("--data-path", type=Path, default=Path(os.environ.get("CYTOARCH_REAL_DATA", "../shared/data")))
    parser.add_argument("--encoders", nargs="+", default=["texture"], help="Any encoder ids: compact, lite0, ...")
    parser.add_argument("--results", type=Path, default=Path("work/scribbles.json"), help="Where runs are kept.")
    parser.add_argument("--phantoms", nargs="*", type=int, default=[21, 22], help="Seeds of phantoms.")
    parser.add_argument("--donors", nargs="*", default=["H1", "H2"])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=2, help="Simulated annotators.")
    parser.add_argument("--edge", type=int, default=768, help="Edge of the windows of phantoms in pixels.")
    parser.add_argument("--presses", type=int, default=12, help="Key presses that are timed.")
    parser.add_argument("--without-places", action="store_true", help="Also where heads are not told of places.")
    parser.add_argument("--nnunet-python", type=Path, help="The interpreter of an environment that has nnunetv2.")
    parser.add_argument("--convpaint-python", type=Path, help="The same for napari-convpaint (latency).")
    parser.add_argument("--least-s", type=float, default=300.0, help="Seconds that nnU-Net learns at least.")
    parser.add_argument("--picture", type=Path, default=Path("work/scribbles.png"))
    asked = parser.parse_args()
    WHAT[asked.what](asked)


if __name__ == "__main__":
    main()
