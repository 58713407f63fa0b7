"""An encoder of a study, pretrained on patches of several brains whose places are known."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cytoarch.brains import Brain
from cytoarch.digests import files_digest
from cytoarch.errors import TrainingError
from cytoarch.geometry import scan_to_section
from cytoarch.images.views import StoredImage, View, intensity_range
from cytoarch.pretraining.loop import Trace
from cytoarch.pretraining.patches import PatchPoints
from cytoarch.pretraining.settings import PretrainingSettings
from cytoarch.pretraining.training import RECORD_FILE, PlacedPatches, train_encoder
from cytoarch.steps.midline import PointsTable
from cytoarch.steps.sections import SECTION
from cytoarch.steps.sources import Each, OfBrain, Sections, Statements
from cytoarch.steps.step import Facts, Inputs, Place, Source, Step, Stored
from cytoarch.store.staging import Staging

CHECKPOINT = "checkpoint.pt"
"""Where an interrupted training goes on; dropped when it is done."""
BAND_ROWS = 512
"""Rows of a section that are read at once."""
PLACE_COLUMNS = ("x_mm", "y_mm", "z_mm")

UInt8 = NDArray[np.uint8]


class PlacedBrain(NamedTuple):
    """What is learned from of one brain."""

    stated: Brain
    table: PointsTable
    images: Sections[StoredImage]


@dataclass(frozen=True)
class PlacedSource(Source[PlacedBrain]):
    """The sections of a brain, and its points along the cortex."""

    points: Stored[PointsTable]

    @property
    def _parts(self) -> dict[str, Source[Any]]:
        return {"stated": Statements(), "table": self.points, "images": Each(SECTION)}

    def digests(self, place: Place) -> Mapping[str, str]:
        """Those of all its parts."""
        return {
            f"{name}/{part}" if part else name: digest
            for name, source in self._parts.items()
            for part, digest in source.digests(place).items()
        }

    def open(self, place: Place) -> PlacedBrain:
        """The table, and the sections, opened as they are asked for."""
        return PlacedBrain(**{name: one.open(place) for name, one in self._parts.items()})


@dataclass(frozen=True)
class PlacedBrains(Source[Mapping[str, PlacedBrain]]):
    """The brains of a pretraining."""

    brains: tuple[OfBrain[PlacedBrain], ...]

    def digests(self, place: Place) -> Mapping[str, str]:
        """Those of every brain."""
        return {f"{one.brain_id}/{part}": value for one in self.brains for part, value in one.digests(place).items()}

    def open(self, place: Place) -> Mapping[str, PlacedBrain]:
        """What is learned from of each."""
        return {one.brain_id: one.open(place) for one in self.brains}


class PretrainedEncoder(NamedTuple):
    """A trained encoder."""

    folder: Path
    """What `compact:FOLDER` reads."""
    record: Mapping[str, Any]
    """Loss by step, health, errors of places by brain."""


@dataclass(frozen=True)
class PretrainingStep(Step[PretrainedEncoder]):
    """An encoder trained on the patches of several brains."""

    step: ClassVar[str] = "pretraining"
    scope: ClassVar = "study"
    verb: ClassVar[str] = "pretrain"

    train: PretrainingSettings
    held_out: tuple[str, ...]
    brains: PlacedBrains

    @classmethod
    def of(
        cls,
        learned: tuple[str, ...],
        held_out: tuple[str, ...],
        points: Stored[PointsTable],
        train: PretrainingSettings,
    ) -> "PretrainingStep":
        """That of brains learned from, and of others that are held out, with one kind of points."""
        source = PlacedSource(points)
        return cls(train, held_out, PlacedBrains(tuple(OfBrain(one, source) for one in (*learned, *held_out))))

    @property
    def name(self) -> str:
        """How it learns, and how finely it sees."""
        return f"{self.train.learning}-{self.train.pixel_size_um:g}um"

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Train, from where an interrupted run came to. Raises TrainingError if points have no place in the brain."""
        patches = placed_patches(inputs[self.brains], frozenset(self.held_out), self.train.pixel_size_um)
        loop = self.train.loop

        def on_step(step: int, _trace: Trace) -> None:
            if step % loop.keep_every == 0 or step == loop.steps:
                staging.seal(CHECKPOINT)
            inputs.on_progress(step, loop.steps)

        files = train_encoder(patches, self.train, staging.path / CHECKPOINT, on_step)
        for name, content in files.items():
            staging.write(name, content)
        staging.drop(CHECKPOINT)
        errors = json.loads(files[RECORD_FILE])["place_error_mm"]
        return {"model": files_digest(files), "points": len(patches.points), "place_error_mm": errors}

    @classmethod
    def opened(cls, folder: Path) -> PretrainedEncoder:
        """The encoder and its record."""
        return PretrainedEncoder(folder, json.loads((folder / RECORD_FILE).read_text(encoding="utf-8")))


def placed_patches(brains: Mapping[str, PlacedBrain], held_out: frozenset[str], pixel_size_um: float) -> PlacedPatches:
    """The sections that have points, read whole, and the points. Raises TrainingError if some have no place."""
    sections: list[UInt8] = []
    parts: list[PatchPoints] = []
    for number, (brain_id, brain) in enumerate(brains.items()):
        table = pd.read_parquet(brain.table.parquet_path)
        lacking = [name for name in PLACE_COLUMNS if name not in table.columns]
        if lacking or table[list(PLACE_COLUMNS)].isna().any(axis=None):
            raise TrainingError(
                f"brain {brain_id}: its points have no place in the brain ({', '.join(lacking) or 'some are blank'}); "
                "state position_um of every section in the manifest, or run reconstruct-brain, then again"
            )
        regions = {one.section_id: one.region_px for one in brain.stated.sections}
        for section_id, rows in table.groupby("section_id", sort=True):
            image = brain.images[str(section_id)]
            view = image.at(pixel_size_um)
            to_um = scan_to_section(image.grid, regions[str(section_id)])
            centres = view.grid.from_corner(to_um(rows[["y_px", "x_px"]].to_numpy(np.float64)))
            count = len(rows)
            parts.append(
                PatchPoints(
                    np.full(count, len(sections)),
                    centres,
                    rows[list(PLACE_COLUMNS)].to_numpy(np.float64),
                    np.full(count, -1),
                    np.full(count, number),
                )
            )
            sections.append(seen_pixels(image, view))
    columns = ("section", "centre_px", "position_mm", "label", "brain")
    points = PatchPoints(*(np.concatenate([getattr(one, name) for one in parts]) for name in columns))
    return PlacedPatches(sections, points, tuple(brains), held_out)


def seen_pixels(image: StoredImage, view: View) -> UInt8:
    """A section (h, w, 3), or (h, w) of its first channel where it is no RGB, 0.5 to 99.5 percentiles as 0 to 255."""
    colour = image.attributes.get("kind") == "rgb"
    low, high = np.array(intensity_range(image), dtype=np.float32).T[:, :, None, None]
    bands = []
    for top in range(0, view.height, BAND_ROWS):
        band = view.read(top, 0, min(BAND_ROWS, view.height - top), view.width)
        bands.append((255 * np.clip((band - low) / (high - low), 0, 1) + 0.5).astype(np.uint8))
    planes = np.concatenate(bands, axis=1)
    return np.ascontiguousarray(np.moveaxis(planes, 0, -1)) if colour else planes[0]
