"""Sections, or regions of them, as token grids of a frozen encoder."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.brains import stated_section
from cytoarch.digests import values_digest
from cytoarch.embeddings import EmbedSettings, SectionEmbeddings, embedding_name, working_pixel_size_um
from cytoarch.embeddings.dense import DensePlan, dense_job, estimated_bytes, tile_plan, wanted_tiles
from cytoarch.embeddings.jobs import Float32, Job
from cytoarch.embeddings.places import RegionTable, check_inside, read_regions
from cytoarch.embeddings.reading import channels_seen
from cytoarch.encoders.protocol import Encoder
from cytoarch.errors import ModelError, SectionError
from cytoarch.images.views import StoredImage
from cytoarch.steps.engine_step import EngineStep
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.sections import SECTION
from cytoarch.steps.sources import EncoderSource, OutsideTable, Row
from cytoarch.steps.step import Facts, Inputs, Place, Stored
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.disk import check_room
from cytoarch.store.staging import Staging

COARSER = "a coarser pixel_size_um, fewer blocks"
"""What makes embeddings smaller."""


@dataclass(frozen=True)
class Regions(OutsideTable[RegionTable]):
    """The regions of the section at hand in a table outside the store."""

    def table(self, brain: OpenBrain) -> RegionTable:
        """All regions. Raises ManifestError listing every fault of the table."""
        return _regions(self, tuple(one.section_id for one in brain.brain.kept))

    def digests(self, place: Place) -> Mapping[str, str]:
        """One of the section's regions."""
        return {"": values_digest(self.open(place).model_dump(mode="json"))}

    def open(self, place: Place) -> RegionTable:
        """The section's regions."""
        regions = self.table(place.brain).regions
        return RegionTable(regions=tuple(one for one in regions if one.section_id == place.section_id))


@lru_cache(maxsize=4)
def _regions(table: Regions, section_ids: tuple[str, ...]) -> RegionTable:
    table.check()
    return read_regions(table.path, section_ids)


@dataclass(frozen=True)
class EmbeddingsStep(EngineStep[SectionEmbeddings]):
    """The embeddings of a section: a grid of tokens per layer."""

    step: ClassVar[str] = "embeddings"
    version: ClassVar[int] = 3
    verb: ClassVar[str] = "embed"

    pixel_size_um: float
    channels: tuple[int, ...] = ()
    tile_px: int | None = None
    margin_px: int = 0
    background: Literal["filled"] | None = None
    regions: Regions | None = None
    section: Stored[StoredImage] = SECTION
    tissue: Stored[TissueMask] = TISSUE
    stated: Row = Row(("region_px",))

    @classmethod
    def of(cls, settings: EmbedSettings, brain: OpenBrain, regions: Regions | None = None) -> "EmbeddingsStep":
        """The step that embeds a brain as the settings say, at one pixel size for all of its sections.

        Raises ModelError if the encoder cannot be had, or would see some sections in other channels than the others.
        """
        encoder = EncoderSource(settings)
        images = section_facts(brain)
        sizes = [float(facts["pixel_size_um"]) for facts in images.values()]
        size_um = working_pixel_size_um(settings, encoder.encoder, sizes)
        filled: Literal["filled"] | None = "filled" if settings.background == "filled" else None
        step = cls(encoder, size_um, settings.channels, settings.tile_px, settings.margin_px, filled, regions)
        check_same_depth(step, brain, images)
        return step

    @cached_property
    def name(self) -> str:
        """The encoder, the pixel size, and a digest of all that decides the values."""
        extent = () if self.regions is None else ("regions", self.regions.path.stem)
        return embedding_name(self.embed, self.encoder.encoder, self.pixel_size_um, extent)

    @cached_property
    def embed(self) -> EmbedSettings:
        """The settings, as they were declared."""
        declared = {"channels": self.channels, "tile_px": self.tile_px, "margin_px": self.margin_px}
        background = {"background": self.background or "as-scanned"}
        return self.encoder.settings.model_copy(update={**declared, **background})

    @property
    def tokens_per_tile(self) -> int:
        """Tokens that one tile gives."""
        plan = tile_plan(self.encoder.encoder, 1 << 20, 1 << 20, self.embed)
        return (plan.step_px // plan.cell_px) ** 2

    def cost(self, inputs: Inputs) -> tuple[int, int]:
        """Tiles that hold tissue, and the bytes of their embeddings before compression."""
        image, encoder = inputs[self.section], inputs[self.encoder]
        view = image.at(self.pixel_size_um)
        plan = tile_plan(encoder, view.height, view.width, self.embed)
        windows = self._windows(inputs, image)
        tiles = int(wanted_tiles(plan, view.grid, inputs[self.tissue], windows).sum())
        return tiles, estimated_bytes(tiles, plan, encoder.dims(channels_seen(image, encoder, self.embed)))

    def job(self, inputs: Inputs, staging: Staging | None, finish: Callable[[Facts], Any]) -> Job:
        """The section's tiles, shard by shard."""
        image, encoder = inputs[self.section], inputs[self.encoder]
        windows = self._windows(inputs, image)
        plan = DensePlan.of(image, inputs[self.tissue], encoder, self.embed, self.pixel_size_um, windows)
        return dense_job(inputs.name, plan, encoder, staging, finish)

    def compute(self, tiles: Float32) -> Sequence[Float32]:
        """The layers of the encoder."""
        return self.encoder.encoder.encode(tiles)

    @classmethod
    def opened(cls, folder: Path) -> SectionEmbeddings:
        """The token grids."""
        return SectionEmbeddings.open(folder)

    def _windows(self, inputs: Inputs, image: StoredImage) -> tuple[tuple[float, float, float, float], ...] | None:
        if self.regions is None:
            return None
        section = stated_section(inputs.name, inputs[self.stated])
        windows = inputs[self.regions].windows(section, image.pixel_size_um)
        check_inside(windows, section, image)
        return windows


def section_facts(brain: OpenBrain) -> dict[str, Mapping[str, Any]]:
    """What the records say of the pixels of the sections at work, where they are committed."""
    records = {one.section_id: brain.catalogue.record(SECTION.product(one.section_id)) for one in brain.sections}
    return {one: record.facts for one, record in records.items() if record is not None}


def check_same_depth(step: EmbeddingsStep, brain: OpenBrain, images: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ModelError if the encoder would see some sections in other channels than the others, naming these.

    Of every kind of section one is opened: nothing is computed before this is known.
    """
    kinds: dict[tuple[str, int], list[str]] = defaultdict(list)
    for one, facts in images.items():
        kinds[facts["kind"], int(facts["shape"][0])].append(one)
    depths: dict[int, list[str]] = defaultdict(list)
    for ids in kinds.values():
        image = SECTION.open(Place(brain, brain.rows[ids[0]]))
        try:
            depth = channels_seen(image, step.encoder.encoder, step.embed)
        except SectionError:  # these sections fail by themselves, with the reason
            continue
        depths[depth] += ids
    if len(depths) > 1:
        fewest = min(depths, key=lambda depth: len(depths[depth]))
        others = next(depth for depth in depths if depth != fewest)
        shown = ", ".join(depths[fewest][:8]) + (", ..." if len(depths[fewest]) > 8 else "")
        raise ModelError(
            f"{brain.name}: {len(depths[fewest])} section(s) would be seen in {fewest} channel(s), the others in "
            f"{others}: {shown}. Embeddings of both cannot be compared: name the channels to read in embed.channels, "
            "or exclude these sections in the manifest"
        )


def overlooked(brain: OpenBrain, embed: EmbedSettings, encoder: Encoder) -> str | None:
    """What to say where an encoder sees the first of several channels, and nobody has chosen it; None: nothing."""
    if embed.channels or encoder.channels is None:
        return None
    several = [
        one for one, facts in section_facts(brain).items() if facts["kind"] != "rgb" and int(facts["shape"][0]) > 1
    ]
    if not several:
        return None
    shown = ", ".join(several[:8]) + (", ..." if len(several) > 8 else "")
    return (
        f"{brain.name}: {len(several)} section(s) have several channels that are not red, green and blue ({shown}); "
        f"{embed.encoder} sees channel 0 of them only: "
        "choose the channel with --embed.channels, or an encoder that sees all, as texture does"
    )


def check_space(store: BrainStore, needed_bytes: int, what: str, remedy: str = COARSER) -> None:
    """Raise StoreError if the disk has less space than something takes uncompressed; `remedy` says what takes less."""
    check_room(store.root, needed_bytes, what, f"{remedy}, fewer sections")


@dataclass(frozen=True)
class BlockStep(EmbeddingsStep):
    """The embeddings of a part of a section that a person looked at: nothing that a brain is mapped from."""

    step: ClassVar[str] = "blocks"
