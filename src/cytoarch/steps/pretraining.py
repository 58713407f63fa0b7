"""An encoder of a study, pretrained on patches of several brains whose places are known."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from cytoarch.anatomy.surfaces import Mesh
from cytoarch.brains import Brain
from cytoarch.digests import files_digest
from cytoarch.encoders.trainable import start_digest
from cytoarch.errors import TrainingError
from cytoarch.geometry import scan_to_section
from cytoarch.images.views import StoredImage
from cytoarch.pretraining.loop import checkpoint_at, checkpoints, keeps
from cytoarch.pretraining.patches import PatchPoints
from cytoarch.pretraining.sections import StoredSections
from cytoarch.pretraining.settings import PretrainingSettings
from cytoarch.pretraining.torchrun import train_together
from cytoarch.pretraining.training import RECORD_FILE, PlacedPatches
from cytoarch.steps.midline import PointsTable
from cytoarch.steps.sections import SECTION
from cytoarch.steps.sources import Each, OfBrain, Sections, Statements
from cytoarch.steps.step import Facts, Inputs, Place, Source, Step, Stored
from cytoarch.store.staging import Staging

CHECKPOINT = "checkpoint.pt"
"""Where an interrupted training goes on, in two files by turns; they are dropped when it is done."""
PLACE_COLUMNS = ("x_mm", "y_mm", "z_mm")


class PlacedBrain(NamedTuple):
    """What is learned from of one brain."""

    stated: Brain
    table: PointsTable
    images: Sections[StoredImage]
    surface: Mesh | None = None


@dataclass(frozen=True)
class PlacedSource(Source[PlacedBrain]):
    """The sections of a brain, and its points along the cortex."""

    points: Stored[PointsTable]
    surface: Stored[Mesh] | None = None
    """The middle of its cortex, where distances along it are learned."""

    @property
    def _parts(self) -> dict[str, Source[Any]]:
        parts: dict[str, Source[Any]] = {"stated": Statements(), "table": self.points, "images": Each(SECTION)}
        return parts if self.surface is None else {**parts, "surface": self.surface}

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


@dataclass(frozen=True)
class StartWeights(Source[str]):
    """The weights that training starts from, by the id of their encoder; none where a network is new."""

    network: str

    def digests(self, place: Place) -> Mapping[str, str]:  # noqa: ARG002 - the same everywhere
        """That of the weights."""
        found = start_digest(self.network)
        return {"": found} if found else {}

    def open(self, place: Place) -> str:  # noqa: ARG002 - the same everywhere
        """The id."""
        return self.network


class PretrainedEncoder(NamedTuple):
    """A trained encoder."""

    folder: Path
    """What KIND:FOLDER reads."""
    record: Mapping[str, Any]
    """Its kind, loss by step, health, errors of places by brain."""

    @property
    def encoder_id(self) -> str:
        """The id that loads it."""
        return f"{self.record['kind']}:{self.folder.resolve()}"


@dataclass(frozen=True)
class PretrainingStep(Step[PretrainedEncoder]):
    """An encoder trained on the patches of several brains."""

    step: ClassVar[str] = "pretraining"
    scope: ClassVar = "study"
    verb: ClassVar[str] = "pretrain"

    train: PretrainingSettings
    held_out: tuple[str, ...]
    brains: PlacedBrains
    start: StartWeights

    @classmethod
    def of(
        cls,
        learned: tuple[str, ...],
        held_out: tuple[str, ...],
        points: Stored[PointsTable],
        train: PretrainingSettings,
        surface: Stored[Mesh] | None = None,
    ) -> "PretrainingStep":
        """That of brains learned from, and of others that are held out, with one kind of points.

        The Siamese task needs their surfaces; no other reads them.
        """
        source = PlacedSource(points, surface if train.learning == "siamese" else None)
        brains = PlacedBrains(tuple(OfBrain(one, source) for one in (*learned, *held_out)))
        return cls(train, held_out, brains, StartWeights(train.network))

    @property
    def name(self) -> str:
        """How it learns, and how finely it sees."""
        return f"{self.train.learning}-{self.train.pixel_size_um:g}um"

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Train, from where an interrupted run came to. Raises TrainingError if points have no place in the brain."""
        patches = placed_patches(inputs[self.brains], frozenset(self.held_out), self.train.pixel_size_um)
        loop, checkpoint_path = self.train.loop, staging.path / CHECKPOINT

        def on_step(step: int) -> None:
            if keeps(step, loop):
                staging.seal(checkpoint_at(checkpoint_path, step, loop).name)
            inputs.on_progress(step, loop.steps)

        files = train_together(patches, self.train, checkpoint_path, on_step)
        for name, content in files.items():
            staging.write(name, content)
        for one in checkpoints(checkpoint_path):
            staging.drop(one.name)
        errors = json.loads(files[RECORD_FILE])["place_error_mm"]
        return {"model": files_digest(files), "points": len(patches.points), "place_error_mm": errors}

    @classmethod
    def opened(cls, folder: Path) -> PretrainedEncoder:
        """The encoder and its record."""
        return PretrainedEncoder(folder, json.loads((folder / RECORD_FILE).read_text(encoding="utf-8")))


def placed_patches(brains: Mapping[str, PlacedBrain], held_out: frozenset[str], pixel_size_um: float) -> PlacedPatches:
    """The sections that have points, and the points. Raises TrainingError if some have no place."""
    folders: list[Path] = []
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
                    np.full(count, len(folders)),
                    centres,
                    rows[list(PLACE_COLUMNS)].to_numpy(np.float64),
                    np.full(count, -1),
                    np.full(count, number),
                )
            )
            folders.append(image.folder)
    columns = ("section", "centre_px", "position_mm", "label", "brain")
    points = PatchPoints(*(np.concatenate([getattr(one, name) for one in parts]) for name in columns))
    surfaces = {number: one.surface for number, one in enumerate(brains.values()) if one.surface is not None}
    return PlacedPatches(StoredSections(tuple(folders), pixel_size_um), points, tuple(brains), held_out, surfaces)
