"""A U-Net that draws the areas of several brains, and how well it does on sections and brains held out."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.reconstruction import Reconstruction
from cytoarch.brains import Brain, LabelClass
from cytoarch.digests import files_digest
from cytoarch.errors import TrainingError
from cytoarch.images.views import StoredImage
from cytoarch.learning.label_tables import merged_table, named_alike
from cytoarch.learning.splits import split_sections
from cytoarch.learning.targets import targets_on_grid
from cytoarch.measures.misplacement import UNLABELLED
from cytoarch.pretraining.area_training import RECORD_FILE, WEIGHTS_FILE, AreaSettings, LabelledPatches, train_areas
from cytoarch.pretraining.areas import AreaPatches, BrainsAtlas, atlas_of
from cytoarch.pretraining.cells import CellMaps, laid_out
from cytoarch.pretraining.patches import PatchPoints, SectionPixels
from cytoarch.pretraining.sections import StoredSections
from cytoarch.pretraining.unet import CELL_PX
from cytoarch.steps.midline import placed_section
from cytoarch.steps.pretraining import StartWeights
from cytoarch.steps.reconstruction import RECONSTRUCTION
from cytoarch.steps.sections import LABELS, SECTION, PixelsDigest
from cytoarch.steps.sources import Each, Maybe, OfBrains, Sections, Statements
from cytoarch.steps.step import Facts, Inputs, Step
from cytoarch.store.staging import Staging

SECTIONS_HELD_OUT = "sections held out"
AXES = 3
"""Coordinates of a place in a brain."""


class AreaNetwork(NamedTuple):
    """A U-Net of areas."""

    weights: Path
    record: Mapping[str, Any]
    """Its classes and settings, loss by phase and step, scores by phase and what was held out."""


class LabelledSectionCells(NamedTuple):
    """A labelled section as cells of the squares that are told of."""

    folder: Path
    brain: int
    role: str
    """Blank: it is learned from; else what it is held out with."""
    area: NDArray[np.int64]
    """(y, x) classes."""
    position_mm: NDArray[np.float64]
    """(y, x, 3)."""
    centres_px: NDArray[np.float64]
    """(y, x, 2) in pixels of the size that is seen, from the corner of the first."""


@dataclass(frozen=True)
class AreasStep(Step[AreaNetwork]):
    """The U-Net of some brains, and its scores."""

    step: ClassVar[str] = "areas"
    scope: ClassVar = "study"
    verb: ClassVar[str] = "fine-tune"

    areas: AreaSettings
    held_out: tuple[str, ...]
    stated: OfBrains[Brain]
    images: OfBrains[Sections[StoredImage]]
    labels: OfBrains[Sections[StoredImage]]
    pixels: OfBrains[Sections[str]]
    placed: OfBrains[Reconstruction | None]
    start: StartWeights

    @classmethod
    def of(cls, learned: tuple[str, ...], held_out: tuple[str, ...], areas: AreaSettings) -> "AreasStep":
        """That of labelled brains learned from, and of others that are held out."""
        every, having = (*learned, *held_out), (SECTION, LABELS)
        return cls(
            areas, held_out, OfBrains(every, Statements()), OfBrains(every, Each(SECTION, having)),
            OfBrains(every, Each(LABELS, having)), OfBrains(every, Each(PixelsDigest(), having)),
            OfBrains(every, Maybe(RECONSTRUCTION)), StartWeights(areas.network),
        )  # fmt: skip

    @property
    def name(self) -> str:
        """How finely it sees."""
        return f"{self.areas.pixel_size_um:g}um"

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Fine-tune and score.

        Raises TrainingError if label tables do not fit each other, nothing is labelled, or labelled places are unknown.
        """
        tables = {brain_id: one.label_table for brain_id, one in inputs[self.stated].items() if one.label_table}
        classes = merged_table(tables).classes(by_group=False) if tables else ()
        names = tuple(one.name for one in classes)
        labelled = labelled_patches(list(self._sections(inputs, classes)), names, self.areas)
        files = train_areas(labelled, self.areas, inputs.on_progress)
        for name, content in files.items():
            staging.write(name, content)
        scores = json.loads(files[RECORD_FILE])["scores"]
        return {"model": files_digest(files), "classes": len(classes), "scores": scores}

    def _sections(self, inputs: Inputs, classes: Sequence[LabelClass]) -> Iterator[LabelledSectionCells]:
        """Every labelled section, in the order of brains and of cutting."""
        images, labels, pixels = inputs[self.images], inputs[self.labels], inputs[self.pixels]
        for number, (brain_id, stated) in enumerate(inputs[self.stated].items()):
            ids = tuple(labels[brain_id])
            tested = set(split_sections(ids, pixels[brain_id]).held_out)
            rows = {one.section_id: one for one in stated.sections}
            own, _ = named_alike(classes, stated.label_table, by_group=False)
            for section_id in ids:
                image = images[brain_id][section_id]
                place = placed_section(image, rows[section_id], inputs[self.placed][brain_id])
                seen = image.at(self.areas.pixel_size_um).grid
                cells = seen.grouped(CELL_PX)
                where_um = cells.um(np.moveaxis(np.indices(cells.shape), 0, -1))
                position_mm = place.to_brain(where_um)
                if position_mm.shape[-1] != AXES:
                    raise TrainingError(
                        f"brain {brain_id}: section {section_id} has no place along the cutting axis; state "
                        "position_um in the manifest, or run reconstruct-brain, then again"
                    )
                area = targets_on_grid(labels[brain_id][section_id].levels[0], own, cells)
                role = brain_id if brain_id in self.held_out else SECTIONS_HELD_OUT if section_id in tested else ""
                yield LabelledSectionCells(image.folder, number, role, area, position_mm, seen.from_corner(where_um))

    @classmethod
    def opened(cls, folder: Path) -> AreaNetwork:
        """The network and its record."""
        return AreaNetwork(folder / WEIGHTS_FILE, json.loads((folder / RECORD_FILE).read_text(encoding="utf-8")))


def labelled_patches(
    sections: Sequence[LabelledSectionCells], classes: tuple[str, ...], areas: AreaSettings
) -> LabelledPatches:
    """Patches around labelled cells drawn by the seed. Raises TrainingError if no section to learn from has a label."""
    roles = np.array([one.role for one in sections])
    if not any(one.role == "" and (one.area != UNLABELLED).any() for one in sections):
        raise TrainingError("no section to learn from has labels; name label images in the manifests of the brains")
    points = _points(sections, areas)
    maps = CellMaps(
        *laid_out([one.area.shape for one in sections]),
        CELL_PX,
        np.concatenate([one.position_mm.reshape(-1, AXES) for one in sections]).astype(np.float32),
        np.concatenate([one.area.ravel() for one in sections]),
    )
    role = roles[points.section]
    learned = np.flatnonzero(role == "")
    several = len(np.unique(points.brain[learned])) > 1
    priors = atlas_of(BrainsAtlas(points[learned], len(classes), areas.neighbours), maps) if several else None
    stored = StoredSections(tuple(one.folder for one in sections), areas.pixel_size_um)
    patches = AreaPatches(SectionPixels.read(stored, areas.device), points, maps, areas.patch_px, priors)
    tests = {str(name): np.flatnonzero(role == name) for name in dict.fromkeys(role.tolist()) if name}
    return LabelledPatches(patches, classes, learned, tests)


def _points(sections: Sequence[LabelledSectionCells], areas: AreaSettings) -> PatchPoints:
    """Some labelled cells of every section, drawn by the seed."""
    rng = np.random.default_rng([areas.seed, 6])
    parts = []
    for number, one in enumerate(sections):
        at = tuple(rng.permutation(np.argwhere(one.area != UNLABELLED))[: areas.patches].T)
        count = len(at[0])
        parts.append(
            (np.full(count, number), one.centres_px[at], one.position_mm[at], one.area[at], np.full(count, one.brain))
        )
    return PatchPoints(*(np.concatenate(column) for column in zip(*parts, strict=True)))
