"""Depth in the cortex: seconds against the bare solver, error against truth, and layers learned with and without it.

`python -m benchmarks.depth [time] [truth] [solid] [layers]` prints the parts asked for; with none, all of them, and
writes them into the README. The human sections are read from CYTOARCH_REAL_DATA and left out where that is missing.
"""

import csv
import os
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, sparse
from scipy.spatial import cKDTree

from benchmarks.cases import write_block
from cytoarch.anatomy import depth as depth_science
from cytoarch.anatomy.depth import DepthKind, DepthSettings, measure_depth
from cytoarch.anatomy.depth_maps import DepthMap
from cytoarch.anatomy.midline import MidlineSettings, depth_lines
from cytoarch.anatomy.points import section_midline
from cytoarch.anatomy.ribbons import Ribbon, Sides
from cytoarch.anatomy.tissue import TissueSettings, find_tissue
from cytoarch.brains import LabelClass
from cytoarch.embeddings import EmbedSettings
from cytoarch.encoders import load_encoder
from cytoarch.geometry import Grid
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.probes import fit_probe
from cytoarch.measures.overlap import class_scores, confusion_matrix
from cytoarch.phantoms.nuisances import Nuisances
from cytoarch.phantoms.points import midline_points
from cytoarch.phantoms.rendering import render
from cytoarch.phantoms.sections import PhantomSection, PhantomSettings, Window, cut, make_phantom, section_count
from cytoarch.phantoms.truth import truth, truth_at

Array = NDArray[Any]

README = Path(__file__).parent / "README.md"
BLOCK = "depth: written by python -m benchmarks.depth"
CELL_UM = 64.0
LAYER_UM = 16.0
PER_CLASS = 400
NAMES = ("1", "2", "3", "4", "5", "6", "white matter")
LAYERS = 6
"""Of these classes; white matter is learned, but not scored: sides drawn from its labels would give it away."""
REPEATS = 5
SHARES = (0.35, 0.5, 0.65)
"""Where sections lie along a phantom."""
MIDDLES: tuple[DepthKind, ...] = ("laplace", "equidistant")
"""Kinds of depth whose middle is traced."""
SOLID_UM, MIDDLE_UM = 160.0, 40.0
"""Cells of a whole brain, and of a section that its middle is traced on."""
STRAIGHT_DEG = 60.0
"""Columns that lie this much in the section: elsewhere its picture of the cortex is stretched."""


class Learned(NamedTuple):
    """A section to learn layers from: tokens, their layers, and depth by how its sides were told."""

    tokens: Array
    """(n, c) float32."""
    layers: Array
    """(n,) int64, -1 unlabelled."""
    depth: dict[str, Array]
    """(n, 10) by name."""


def classes_of(section: PhantomSection, cell_um: float) -> tuple[Array, Any]:
    """The true tissue classes of a phantom section, and its truth."""
    known = truth(section, Window(0, 0, *section.size_px(cell_um)), cell_um)
    return np.select([known.tissue == 0, known.tissue == 2], [0, 2], 1).astype(np.uint8), known


def sections_of(seed: int, shares: Sequence[float], **settings: Any) -> list[PhantomSection]:
    """Sections of a phantom at shares of its length."""
    phantom = make_phantom(PhantomSettings(seed=seed, resolution=100, **settings))
    return [cut(phantom, int(section_count(phantom) * share)) for share in shares]


def times() -> Iterator[str]:
    """Seconds and memory of depth for a section, beside pyamg on the same equations."""
    (section,) = sections_of(0, [0.5])
    yield "| section at | cells of cortex | ours (s) | its solver (s) | its time / ours | most memory (MB) |"
    yield "|---|---|---|---|---|---|"
    for cell_um in (CELL_UM, 20.0):
        classes, _ = classes_of(section, cell_um)
        inner: list[float] = []
        solve = depth_science._solved

        def timed(
            matrix: "sparse.csr_array",
            right: Array,
            solve: Callable[..., Array] = solve,
            inner: list[float] = inner,
        ) -> Array:
            started = time.perf_counter()
            found = solve(matrix, right)
            inner.append(time.perf_counter() - started)
            return found

        depth_science._solved = timed
        whole = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            found = measure_depth(Ribbon.of(classes, cell_um), "laplace")
            whole.append(time.perf_counter() - started)
        depth_science._solved = solve
        tracemalloc.start()
        measure_depth(Ribbon.of(classes, cell_um), "laplace")
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        ours, theirs = float(np.median(whole)), float(np.median(inner))
        yield (
            f"| {cell_um:g} um | {found.cortex.sum():,} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.2f} | "
            f"{peak:.0f} |"
        )


def against_truth(seeds: Sequence[int] = (11, 12, 13)) -> Iterator[str]:
    """Error of depth, and of the middle, on phantoms; their truth goes by straight rays."""
    columns = [
        *("seed, share", "Laplace, error", "equidistant, error", "volume, error", "middle", "points", "within 150 um"),
        *("where cut straight", "in cortex", "middle covered"),
    ]
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for seed in seeds:
        for share, section in zip(SHARES, sections_of(seed, SHARES), strict=True):
            classes, known = classes_of(section, CELL_UM)
            ribbon = Ribbon.of(classes, CELL_UM)
            both = ribbon.cortex & (known.tissue == 1)
            errors = [
                np.abs(measure_depth(ribbon, kind).depth - true)[both].mean()
                for kind, true in zip(get_args(DepthKind), (known.depth, known.depth, known.laminar_depth), strict=True)
            ]
            told = " | ".join(f"{error:.3f}" for error in errors)
            for kind in MIDDLES:
                yield f"| {seed}, {share} | {told} | {kind} | {_middle(section, classes, kind)} |"


def _middle(section: PhantomSection, classes: Array, kind: DepthKind) -> str:
    """How the points along the middle lie that a kind of depth gives."""
    grid = Grid.at_corner(classes.shape, CELL_UM, (0.0, 0.0))
    depth, _ = DepthMap.measure(classes, grid, DepthSettings(kind=kind))
    found = section_midline(classes, depth, grid, MidlineSettings())
    fine, coarse = (midline_points(section, mm).slide_mm * 1000 for mm in (0.02, 1.0))
    away = cKDTree(fine).query(found.places_um)[0]
    covered = cKDTree(found.places_um).query(coarse)[0] <= 1000
    known = truth_at(section, found.places_um / 1000)
    straight = away[known.cut_angle_deg >= STRAIGHT_DEG]
    return (
        f"{len(away)} of {len(coarse)} | {(away < 150).mean():.2f} | {(straight < 150).mean():.2f} | "
        f"{(known.tissue == 1).mean():.3f} | {covered.mean():.2f}"
    )


class SolidField(NamedTuple):
    """Depth in a whole phantom, by one of our definitions instead of the phantom's rays."""

    values: Array
    """(z, y, x) float32: 0 outside, 1 in white matter."""
    to_cells: Array
    """(3, 4) from x, y, z mm in the brain to cells."""

    def at(self, section: PhantomSection, slide_um: Array) -> Array:
        """Depth (n,) at places (n, 2) um of a section; linear between cells."""
        place = section.brain_mm(slide_um / 1000) @ self.to_cells[:, :3].T + self.to_cells[:, 3]
        return np.asarray(ndimage.map_coordinates(self.values, place.T, order=1, mode="nearest"))


def solid_field(seed: int, kind: DepthKind) -> SolidField:
    """Depth in the whole brain of a seed, from its true classes in cells of `SOLID_UM`."""
    whole = make_phantom(PhantomSettings(seed=seed, resolution=100, nuisances=Nuisances.none()))
    step = round(SOLID_UM / whole.settings.thickness_um)
    cuts = [cut(whole, number) for number in range(0, section_count(whole), step)]
    classes = np.stack([classes_of(one, SOLID_UM)[0] for one in cuts])
    found = measure_depth(Ribbon.of(classes, (SOLID_UM,) * 3), kind)
    to_brain = np.eye(4)
    plane, apart = cuts[0].to_brain, cuts[1].origin_mm - cuts[0].origin_mm
    to_brain[:3, 0], to_brain[:3, 1:3] = apart, plane[:, :2] * SOLID_UM / 1000
    to_brain[:3, 3] = plane[:, :2].sum(axis=1) * SOLID_UM / 2000 + plane[:, 2]
    field = np.where(found.cortex, found.depth, (classes == 2).astype(np.float32))
    return SolidField(field, np.linalg.inv(to_brain)[:3])


def against_solid(seeds: Sequence[int] = (0, 1, 2)) -> Iterator[str]:
    """Error of depth and of the middle in sections with all nuisances, against the same definition in the whole brain.

    That is what is true of it if the phantom's depth were defined as ours is: what is left are tissue classes, cells,
    and that a section shows its brain in 2D.
    """
    yield "Against the same definition in the whole brain:\n"
    columns = ["seed, share", "depth", "true classes: error", "as found: error", "middle within 150 um"]
    columns += ["where cut straight", "in cortex", "middle covered"]
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for seed in seeds:
        for kind in MIDDLES:
            solid = solid_field(seed, kind)
            for share, section in zip(SHARES, sections_of(seed, SHARES), strict=True):
                yield f"| {seed}, {share} | {kind} | {_beside(section, solid, kind)} |"


def _beside(section: PhantomSection, solid: SolidField, kind: DepthKind) -> str:
    """How depth of a section, and the middle that it gives, lie beside those of the whole brain."""
    classes, known = classes_of(section, CELL_UM)
    grid = Grid.at_corner(classes.shape, CELL_UM, (0.0, 0.0))
    pixels = render(section, Window(0, 0, *section.size_px(CELL_UM)), CELL_UM)
    planes = np.moveaxis(pixels.reshape(*classes.shape, -1), -1, 0).astype(np.float32)
    found = find_tissue(planes, CELL_UM, TissueSettings()).classes
    errors = []
    for one in (classes, found):
        ribbon = Ribbon.of(one, CELL_UM)
        both = ribbon.cortex & (known.tissue == 1)
        true = solid.at(section, grid.um(np.argwhere(both)))
        errors.append(float(np.abs(measure_depth(ribbon, kind).depth[both] - true).mean()))
    fine = grid.covered_by(MIDDLE_UM)
    places = fine.um(np.argwhere(np.ones(fine.shape, bool)))
    on_section, told = solid.at(section, places).reshape(fine.shape), truth_at(section, places / 1000)
    middle = depth_lines(on_section, told.tissue.reshape(fine.shape) == 1, on_section >= 1, 0.0)
    wanted = np.concatenate([fine.um(line.places) for line in middle])
    depth, _ = DepthMap.measure(found, grid, DepthSettings(kind=kind))
    points = section_midline(found, depth, grid, MidlineSettings()).places_um
    away, covered = cKDTree(wanted).query(points)[0], cKDTree(points).query(wanted)[0] <= 1000
    there = truth_at(section, points / 1000)
    straight = away[there.cut_angle_deg >= STRAIGHT_DEG]
    return (
        f"{errors[0]:.3f} | {errors[1]:.3f} | {(away < 150).mean():.2f} | {(straight < 150).mean():.2f} | "
        f"{(there.tissue == 1).mean():.3f} | {covered.mean():.2f}"
    )


def learned_phantom() -> list[Learned]:
    """Six sections of a phantom: the layers of every token."""
    found = []
    for section in sections_of(0, (0.3, 0.38, 0.46, 0.54, 0.62, 0.7), stain="nissl"):
        window = Window(0, 0, *section.size_px(LAYER_UM))
        pixels = np.moveaxis(render(section, window, LAYER_UM), -1, 0)
        known = truth(section, window, LAYER_UM)
        layers = np.where(known.tissue == 1, known.layer.astype(np.int64) - 1, np.where(known.tissue == 2, 6, -1))
        found.append(learned(pixels, layers, LAYER_UM, "outline", None))
    return found


def learned(
    pixels: Array,
    layers: Array,
    pixel_um: float,
    sides: Sides,
    drawn: Array | None,
    kinds: Sequence[str] = ("laplace",),
) -> Learned:
    """Tokens of the texture bank with their layers and depth; `drawn` are tissue classes by a person, if there are."""
    encoder = load_encoder(EmbedSettings())
    step = encoder.tiles.token_px
    height, width = (edge // encoder.tiles.align_px * encoder.tiles.align_px for edge in layers.shape)
    image = (pixels[:, :height, :width] / 255).astype(np.float32)
    tokens = encoder.encode(image[None])[0][0]
    grid = Grid.at_corner(layers.shape, pixel_um, (0.0, 0.0))
    on_tokens = grid.window(0, 0, height, width).grouped(step)
    rows, columns = on_tokens.nearest_in(grid)
    depth = {}
    coarse = grid.covered_by(max(CELL_UM, pixel_um))
    shrunk = pixels[:, np.clip(coarse.nearest_in(grid)[0], 0, None)][:, :, coarse.nearest_in(grid)[1]]
    tissue = find_tissue(shrunk.astype(np.float32), coarse.cell_um, TissueSettings())
    told = {"tissue classes as found": (tissue.classes, coarse)}
    if drawn is not None:
        told["sides drawn by a person"] = (drawn, grid)
    for name, (classes, at) in told.items():
        for kind in kinds:
            settings = DepthSettings.model_validate({"kind": kind, "sides": sides})
            depth[name] = np.moveaxis(DepthMap.measure(classes, at, settings)[0].channels(on_tokens), 0, -1)
    return Learned(
        np.moveaxis(tokens, 0, -1).reshape(-1, len(tokens)),
        layers[np.ix_(rows, columns)].ravel(),
        {name: one.reshape(-1, one.shape[-1]) for name, one in depth.items()},
    )


def learned_human(folder: Path) -> dict[str, Learned]:
    """The human sections: partial ribbons with the pial surface on one side."""
    with (folder / "sections.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {}
    for row in rows:
        name, pixel_um = row["section"], float(row["um_per_px_from_spot_pitch"])
        pixels = np.moveaxis(np.asarray(Image.open(folder / "images" / f"{name}.png").convert("RGB")), -1, 0)
        labels = np.asarray(Image.open(folder / "labels" / f"{name}.png")).astype(np.int64)
        drawn = np.select([labels == 7, labels > 0], [2, 1], 0).astype(np.uint8)
        found[name] = learned(pixels, labels - 1, pixel_um, "block", drawn)
    return found


def layer_score(train: Sequence[Learned], test: Sequence[Learned], told: str) -> float:
    """Macro-F1 of the layers there are on held-out sections, learned from tokens with or without depth."""
    card = HeadCard(
        kind="probe",
        target="layers",
        classes=tuple(LabelClass(name=name, ids=(at + 1,)) for at, name in enumerate(NAMES)),
        dims=(inputs_of(train[0], told).shape[1],),
        cells_per_token=1,
        embedding=EmbedSettings(),
        encoder_digest="",
        token_px=4,
        pixel_size_um=LAYER_UM,
    )
    rng = np.random.default_rng(0)
    tokens, layers = [], []
    for one in train:
        for layer in range(7):
            at = np.flatnonzero(one.layers == layer)
            at = rng.permutation(at)[:PER_CLASS]
            tokens.append(inputs_of(one, told)[at])
            layers.append(one.layers[at])
    probe, _ = fit_probe(card, np.concatenate(tokens), np.concatenate(layers), 1.0)
    confusion = np.zeros((7, 7), dtype=np.int64)
    for one in test:
        kept = (one.layers >= 0) & (one.layers < LAYERS)
        values = inputs_of(one, told)[kept].T[None, :, :, None]
        confusion += confusion_matrix(one.layers[kept], probe.probabilities(values)[0, :, :, 0].argmax(axis=0), 7)
    found = class_scores(confusion)
    return float(np.mean(found.f1[:LAYERS][found.support[:LAYERS] > 0]))


def inputs_of(one: Learned, told: str) -> Array:
    """(n, c) float32: tokens, depth alone, or both."""
    alone = told.removeprefix("only ")
    parts = [] if told.startswith("only ") else [one.tokens]
    parts += [one.depth[alone]] if alone in one.depth else []
    return np.concatenate(parts, axis=1).astype(np.float32)


def layers() -> Iterator[str]:
    """Layers of held-out sections with and without depth."""
    yield "| sections | learned from, scored on | embeddings | + depth | depth alone | sides told by |"
    yield "|---|---|---|---|---|---|"
    phantom = learned_phantom()
    yield from rows_of("phantom, six layers", "4 sections, 2 others", phantom[:4], phantom[4:])
    folder = Path(os.environ.get("CYTOARCH_REAL_DATA", README.parent.parent.parent / "shared" / "data"))
    folder = folder / "human_dlpfc_layers"
    if not folder.is_dir():
        yield f"| human | {folder} is not there | | | | |"
        return
    human = learned_human(folder)
    first, second = ([human[one] for one in human if one.startswith(start)] for start in ("1515", "1516"))
    yield from rows_of("human H&E, donor 1", "2 sections, the other pair", first[:2], first[2:])
    yield from rows_of("human H&E, donor 2", "2 sections, the other pair", second[:2], second[2:])
    yield from rows_of("human H&E", "donor 1, donor 2", first, second)


def rows_of(name: str, split: str, train: Sequence[Learned], test: Sequence[Learned]) -> Iterator[str]:
    """A line of the table for every way the sides were told."""
    plain = layer_score(train, test, "")
    for told in train[0].depth:
        both, alone = (layer_score(train, test, one) for one in (told, f"only {told}"))
        yield f"| {name} | {split} | {plain:.3f} | {both:.3f} | {alone:.3f} | {told} |"


def main(arguments: Sequence[str]) -> int:
    """Print the parts asked for; all of them are written into the README."""
    parts = {"time": times, "truth": against_truth, "solid": against_solid, "layers": layers}
    held: list[list[str]] = []
    for name in arguments or parts:
        held.append([])
        for line in parts[name]():
            print(line, flush=True)
            held[-1].append(line)
    if not arguments:
        write_block(README, BLOCK, "\n\n".join("\n".join(lines) for lines in held))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
