"""Patches around points of sections, embedded: an AnnData table per section."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.augmentation import AUGMENTATION_VERSION
from cytoarch.brains import stated_section
from cytoarch.embeddings import EmbedSettings, embedding_name, working_pixel_size_um
from cytoarch.embeddings.jobs import Float32, Job
from cytoarch.embeddings.places import Points, SectionPoints
from cytoarch.embeddings.reading import SectionReader
from cytoarch.embeddings.sampled import Rows, SampleJob, SamplePlan, SampleSettings, points_per_lot, write_table
from cytoarch.encoders import Encoder
from cytoarch.images.views import StoredImage
from cytoarch.steps.embeddings import section_facts
from cytoarch.steps.engine_step import EngineStep
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.sections import SECTION
from cytoarch.steps.sources import EncoderSource, OutsideTable, Row
from cytoarch.steps.step import Facts, Inputs, Place, Stored
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.staging import Staging

PATCH_PX = 512
"""Edge of a patch for encoders that have no size of their own."""


@dataclass(frozen=True)
class PointTable(OutsideTable[SectionPoints]):
    """The points of the section at hand in a table outside the store."""

    def table(self, brain: OpenBrain) -> Points:
        """All points. Raises ManifestError listing every fault of the table."""
        return _points(self, tuple(one.section_id for one in brain.brain.kept))

    def digests(self, place: Place) -> Mapping[str, str]:
        """That of the section's points and all that is said of them."""
        return {"": self.open(place).digest}

    def open(self, place: Place) -> SectionPoints:
        """The section's points."""
        return self.table(place.brain).sections[place.section_id]


@lru_cache(maxsize=2)
def _points(table: PointTable, section_ids: tuple[str, ...]) -> Points:
    table.check()
    return Points.read(table.path, section_ids)


@dataclass(frozen=True)
class PointsStep(EngineStep[Path]):
    """The embeddings of patches around a section's points."""

    step: ClassVar[str] = "points"
    version: ClassVar[int] = 2
    verb: ClassVar[str] = "sample"

    points: PointTable
    sample: SampleSettings
    pixel_size_um: float
    channels: tuple[int, ...] = ()
    patch_px: int = PATCH_PX
    augmentation: int = AUGMENTATION_VERSION
    placed: Row = Row(("flip", "rotation", "position_um", "region_px"))
    section: Stored[StoredImage] = SECTION
    tissue: Stored[TissueMask] | None = None
    """Where the background is filled."""

    @classmethod
    def of(cls, embed: EmbedSettings, sample: SampleSettings, points: PointTable, brain: OpenBrain) -> "PointsStep":
        """The step that embeds a table of points. Raises ModelError if the encoder cannot be had."""
        encoder = EncoderSource(embed)
        sizes = [float(facts["pixel_size_um"]) for facts in section_facts(brain).values()]
        size_um = working_pixel_size_um(embed, encoder.encoder, sizes)
        patch_px = patch_size_px(embed, encoder.encoder)
        tissue = TISSUE if embed.background == "filled" else None
        return cls(encoder, points, sample, size_um, embed.channels, patch_px, tissue=tissue)

    @cached_property
    def name(self) -> str:
        """The table, and how its patches are embedded."""
        table = self.sample.name or re.sub(r"[^A-Za-z0-9_-]+", "-", self.points.path.stem).strip("-_")[:32] or "points"
        drawn = (str(self.sample.draws), str(self.sample.seed)) if self.sample.draws else ()
        extent = (str(self.patch_px), *drawn)
        return f"{table}-{embedding_name(self.embed, self.encoder.encoder, self.pixel_size_um, extent)}"

    @cached_property
    def embed(self) -> EmbedSettings:
        """The settings, as they were declared."""
        return self.encoder.settings.model_copy(update={"channels": self.channels, "tile_px": self.patch_px})

    def cost(self, inputs: Inputs) -> tuple[int, int]:
        """Patches, and the bytes of their embeddings."""
        count = len(inputs[self.points].rows) * max(1, self.sample.draws)
        return count, count * inputs[self.encoder].patch_dims(3) * 4

    def tiles_of(self, facts: Facts) -> int:
        """Its patches."""
        return int(facts["points"]) * max(1, int(facts["draws"]))

    def job(self, inputs: Inputs, staging: Staging | None, finish: Callable[[Facts], Any]) -> Job:
        """The section's patches, some hundred rows at once."""
        image, encoder, own = inputs[self.section], inputs[self.encoder], inputs[self.points]
        section = stated_section(inputs.name, inputs[self.placed])
        tissue = None if self.tissue is None else inputs[self.tissue]
        reader = SectionReader.open(image, encoder, self.embed, self.pixel_size_um, tissue)
        plan = SamplePlan.of(section, image, reader, self.patch_px, own, self.sample)

        def table(folder: Path) -> None:
            write_table(folder, section, image, own, plan, encoder)

        if staging is None:
            return SampleJob(plan, None, table, dict)
        dims, count = encoder.patch_dims(reader.depth), len(plan.rows) * plan.draws
        rows = Rows.create(staging, count, dims, points_per_lot(plan) * plan.draws)
        return SampleJob(plan, rows, table, finish)

    def compute(self, tiles: Float32) -> Sequence[Float32]:
        """One embedding a patch."""
        return [self.encoder.encoder.embed(tiles)]

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """The folder of the AnnData table; `embeddings.sampled.open_points` reads several."""
        return folder


def patch_size_px(settings: EmbedSettings, encoder: Encoder) -> int:
    """Edge of a patch: as asked for, or the encoder's tile; encoders of finite reach take patches of any size."""
    return settings.tile_px or (encoder.tiles.core_px if encoder.tiles.halo_px is None else PATCH_PX)
