"""What is drawn on where drawing is measured: windows in phantom sections, and human sections, with their truth.

The store holds whole sections, as a person's does: the tissue is found as the product finds it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.layers import brain_of
from cytoarch.anatomy.tissue import TissueSettings
from cytoarch.brains import Brain, LabelTable, Section, read_label_table
from cytoarch.interactive.session import Session
from cytoarch.interactive.views import View
from cytoarch.phantoms.rendering import render
from cytoarch.phantoms.sections import PhantomSection, PhantomSettings, Window, cut, make_phantom, section_count
from cytoarch.phantoms.tables import write_csv
from cytoarch.phantoms.truth import WHITE_MATTER_LAYER, truth
from cytoarch.phantoms.writing import label_rows
from cytoarch.steps import LABELS, SECTION, LabelsStep, ManifestFile, SectionStep, TissueStep, make_sections, open_brain
from cytoarch.steps.opened import OpenBrain, read_only
from cytoarch.steps.step import Place

PIXEL_UM = 8.0
COARSE_PX = 8
"""Windows are chosen on a truth so many times coarser."""
PLACES = (0.45, 0.55)
"""Where along the brain the two sections lie: millimetres apart."""

Map = NDArray[np.int64]


class Drawable(NamedTuple):
    """A part of a section with its truth."""

    section_id: str
    window: Window
    """Where it lies in the section."""
    truth: Map
    """(y, x) ids of the layers, 0 where there is no truth."""
    pixels: NDArray[np.float32]
    """(y, x, c) in [0, 1], as others see it."""

    @property
    def view(self) -> View:
        """All of it."""
        return View(self.section_id, *self.window)

    def on_section(self, path_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places (n, 2) of it as places of its section."""
        return np.asarray(path_px + np.array([self.window.y, self.window.x]))


class Ground(NamedTuple):
    """A brain in a store: a section that is drawn on, and others that are not."""

    store_path: Path
    brain_id: str
    sections: tuple[Drawable, ...]


def richest(section: PhantomSection, edge: int, pixel_um: float) -> Window:
    """The window of a section with most layers, and among these most cortex."""
    coarse_um = COARSE_PX * pixel_um
    height, width = section.size_px(coarse_um)
    layers = truth(section, Window(0, 0, height, width), coarse_um).layer
    side = edge // COARSE_PX

    def worth(corner: tuple[int, int]) -> tuple[int, int]:
        y, x = corner
        seen = layers[y : y + side, x : x + side]
        values, counts = np.unique(seen, return_counts=True)
        cortex = (seen > 0) & (seen < WHITE_MATTER_LAYER)
        return int((counts[values > 0] > side).sum()), int(cortex.sum())

    corners = [(y, x) for y in range(0, height - side, side // 4) for x in range(0, width - side, side // 4)]
    y, x = max(corners, key=worth)
    return Window(y * COARSE_PX, x * COARSE_PX, edge, edge)


def phantom_ground(
    folder: Path, seed: int, edge: int, pixel_um: float = PIXEL_UM, places: Sequence[float] = PLACES
) -> Ground:
    """Windows in a phantom's sections, in a store; made where they are not there yet."""
    files, name = folder / f"files-{seed}", f"P{seed}"
    chosen = files / f"windows-{edge}.json"
    if not chosen.exists():
        sections = drawn_phantom(files, seed, pixel_um, places)
        chosen.write_text(json.dumps([richest(one, edge, pixel_um) for one in sections]))
    rows = tuple(
        Section(
            brain_id=name, section_id=f"s{number}", section_number=number, path=f"s{number}.png",
            labels=f"labels-s{number}.png", pixel_size_um=pixel_um,
        )
        for number in range(len(places))
    )  # fmt: skip
    brain = Brain(brain_id=name, sections=rows, label_table=read_label_table(files / "labels.csv"))
    kept = json.loads(chosen.read_text())
    windows = {row.section_id: Window(*one) for row, one in zip(rows, kept, strict=True)}
    return ground(folder / "store", brain, files, windows)


def drawn_phantom(files: Path, seed: int, pixel_um: float, places: Sequence[float]) -> list[PhantomSection]:
    """Sections of a phantom, with their scans, labels and table of labels in a folder."""
    files.mkdir(parents=True, exist_ok=True)
    phantom = make_phantom(PhantomSettings(seed=seed, resolution=80))
    sections = [cut(phantom, int(place * section_count(phantom))) for place in places]
    if not (files / "labels.csv").exists():
        for number, one in enumerate(sections):
            whole = Window(0, 0, *one.size_px(pixel_um))
            Image.fromarray(np.squeeze(render(one, whole, pixel_um))).save(files / f"s{number}.png")
            Image.fromarray(truth(one, whole, pixel_um).layer).save(files / f"labels-s{number}.png")
        write_csv(files / "labels.csv", label_rows("layers"))
    return sections


def human_ground(folder: Path, data: Path, donor: str, drawn_on: int) -> Ground:
    """Two sections of a donor that are no neighbours; drawn on is the first of them."""
    brain = brain_of(donor)
    ids = [one.section_id for one in brain.sections]
    chosen = (ids[drawn_on], ids[(drawn_on + 2) % len(ids)])
    return ground(folder / "store", brain, data, dict.fromkeys(chosen))


def ground(store_path: Path, brain: Brain, files: Path, windows: Mapping[str, Window | None]) -> Ground:
    """Windows in sections of a brain, None: all of a section; the brain is brought into the store."""
    with open_brain(store_path, brain) as opened:
        steps = [
            SectionStep(ManifestFile(files, "path")), LabelsStep(ManifestFile(files, "labels")),
            TissueStep(TissueSettings()),
        ]  # fmt: skip
        failed = [one for one in make_sections(steps, opened) if one.status == "failed"]
        if failed:
            raise RuntimeError(f"{failed}")
    read = read_only(store_path, brain.brain_id)
    return Ground(store_path, brain.brain_id, tuple(drawable(read, *one) for one in windows.items()))


def drawable(brain: OpenBrain, section_id: str, window: Window | None) -> Drawable:
    """A window in a section of the store; None: all of it."""
    place = Place(brain, brain.rows[section_id])
    image, labels = SECTION.open(place).levels[0], LABELS.open(place).levels[0]
    window = window or Window(0, 0, *image.size)
    part = slice(window.y, window.y + window.height), slice(window.x, window.x + window.width)
    pixels = image.pixels(*part).astype(np.float32) / np.float32(255)
    as_seen = np.atleast_3d(np.moveaxis(pixels, 0, -1) if pixels.ndim > 2 else pixels)
    return Drawable(section_id, window, labels.pixels(*part).astype(np.int64), as_seen)


def shown(session: Session, section: Drawable) -> Map:
    """The session's map of a window on its pixels; 0 where there is none."""
    found = np.zeros(section.truth.shape, dtype=np.int64)
    grid = session.blocks.layout(section.section_id).image.grid.window(*section.window)
    for seen in session.predict(section.view):
        rows, columns = grid.places_in(seen.grid)
        inside_y, inside_x = (
            np.flatnonzero((at >= 0) & (at < n)) for at, n in zip((rows, columns), seen.grid.shape, strict=True)
        )
        found[np.ix_(inside_y, inside_x)] = seen.labels[np.ix_(rows[inside_y], columns[inside_x])]
    return found


def classes_of(ground: Ground) -> LabelTable:
    """What the labels mean."""
    table = read_only(ground.store_path, ground.brain_id).brain.label_table
    if table is None:
        raise RuntimeError(f"{ground.brain_id} has no table of labels")
    return table
