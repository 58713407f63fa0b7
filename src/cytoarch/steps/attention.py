"""Where the vision transformer that embedded a brain's points looks in some of their patches."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.embeddings import EmbedSettings
from cytoarch.embeddings.attention import AttentionSettings, attentive
from cytoarch.embeddings.reading import SectionReader
from cytoarch.embeddings.sampled import open_points
from cytoarch.geometry import first_around
from cytoarch.images.views import StoredImage
from cytoarch.reporting.attention import Looked, attention_sheet
from cytoarch.reporting.pictures import patch_picture
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.points import PointsStep
from cytoarch.steps.sections import SECTION
from cytoarch.steps.sources import Each, EncoderSource, FactsOf, sections_with
from cytoarch.steps.step import Facts, Inputs, MissingInputError, Step, Stored
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.staging import Staging
from cytoarch.tiling import evenly

Float64 = NDArray[np.float64]

SHEET_FILE = "attention.png"
PICTURE_PX = 160
"""Edge of a patch on the sheet."""


@dataclass(frozen=True)
class AttentionStep(Step[Path]):
    """The sheet of a brain's attention: some embedded patches, and where the encoder's class token looks in them."""

    step: ClassVar[str] = "attention"
    scope: ClassVar = "brain"
    verb: ClassVar[str] = "draw attention"

    counted: Each[Facts]
    patches: int
    encoder: EncoderSource
    pixel_size_um: float
    patch_px: int
    embedded_by: str
    """Digest of the encoder that embedded the points."""
    points: Each[Path]
    images: Each[StoredImage]
    tissue: Each[TissueMask] | None = None
    """Where the background was filled."""

    @classmethod
    def of(cls, points: str, attend: AttentionSettings, brain: OpenBrain) -> "AttentionStep":
        """That of the points embedded under a name. Raises MissingInputError if there are none."""
        stored = Stored(PointsStep, points)
        there = sections_with(brain, stored)
        record = brain.catalogue.record(stored.product(there[0].section_id)) if there else None
        if record is None:
            raise MissingInputError(f"{brain.name}: no section has points {points}; run embed-points first")
        made, filled = record.settings, "tissue" in record.inputs
        settings = EmbedSettings(
            encoder=attend.encoder, revision=attend.revision, blocks=attend.blocks, device=attend.device,
            tile_px=made["patch_px"], pixel_size_um=made["pixel_size_um"], channels=tuple(made["channels"]),
            background="filled" if filled else "as-scanned",
        )  # fmt: skip
        return cls(
            Each(FactsOf(stored), (stored,)),
            attend.patches, EncoderSource(settings), made["pixel_size_um"], made["patch_px"], record.inputs["encoder"],
            Each(stored), Each(SECTION, (stored, SECTION)), Each(TISSUE, (stored, TISSUE)) if filled else None,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """That of the points."""
        source = self.points.source
        return source.name if isinstance(source, Stored) else PointsStep.step

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Draw patches spread over all sections. Raises ModelError where the encoder has no attention."""
        encoder, images = inputs[self.encoder], inputs[self.images]
        looking = attentive(encoder)
        tissue: Mapping[str, TissueMask] = {} if self.tissue is None else inputs[self.tissue]
        edge_um, rows = self.patch_px * self.pixel_size_um, []
        for section_id, from_corner_mm in _spread(inputs[self.counted], inputs[self.points], self.patches):
            image = images[section_id]
            y_um, x_um = (np.array(image.grid.corner_um) + 1000 * from_corner_mm).tolist()
            reader = SectionReader.open(
                image, encoder, self.encoder.settings, self.pixel_size_um, tissue.get(section_id)
            )
            y, x = (first_around(one, self.patch_px) for one in reader.view.grid.from_corner(np.array([y_um, x_um])))
            seen = reader.read(y, x, self.patch_px, self.patch_px)
            picture = patch_picture(image, (y_um, x_um), edge_um, PICTURE_PX)
            rows.append(Looked(picture, looking.attention_maps(seen[None])[0], section_id))
        staging.write(SHEET_FILE, attention_sheet(rows, edge_um))
        return {
            "encoder": self.encoder.settings.encoder,
            "block": looking.attended,
            "patches": len(rows),
            "heads": len(rows[0].maps),
            "as_embedded": encoder.digest == self.embedded_by,
        }

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """The sheet."""
        return folder / SHEET_FILE


def _spread(counted: Mapping[str, Facts], points: Mapping[str, Path], count: int) -> Iterator[tuple[str, Float64]]:
    """Sections and places (y, x) mm from their corners of some points, evenly chosen among all.

    Only tables that one is chosen of are read. Raises MissingInputError if they hold none.
    """
    ends = np.cumsum([int(one["points"]) for one in counted.values()], dtype=np.int64)
    if not ends.size or not ends[-1]:
        raise MissingInputError(
            "there is not one point to draw attention in; run embed-points with a table that has some"
        )
    chosen = evenly(int(ends[-1]), count)
    for section_id, start, stop in zip(counted, [0, *ends[:-1]], ends, strict=True):
        own = chosen[(start <= chosen) & (chosen < stop)] - start
        if own.size:
            table = open_points([points[section_id]])
            places = np.asarray(table.obsm["section_mm"], dtype=np.float64)[table.obs["draw"].to_numpy() == 0]
            yield from ((section_id, place) for place in places[own])
