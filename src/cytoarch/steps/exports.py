"""How large every label of a section is: counted once, kept, shown in the report and exported."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cytoarch.brains import Section
from cytoarch.digests import canonical_json
from cytoarch.exports.areas import SectionArea
from cytoarch.images.label_ids import counted_ids
from cytoarch.images.views import Level, StoredImage
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.parcellations import Parcellation, ParcellationStep
from cytoarch.steps.sections import LABELS
from cytoarch.steps.sources import sections_with
from cytoarch.steps.step import Facts, Inputs, Place, Step, Stored
from cytoarch.store.staging import Staging
from cytoarch.tiling import partition

AREAS_FILE = "areas.json"
BAND_PX = 4096
"""Edge of the windows that are counted at once."""
OF_LABELS = "of-labels"
"""Name of the areas of label images that came with the manifest; those of a map are kept under its name."""


@dataclass(frozen=True)
class AreasStep(Step[Facts]):
    """The cells that each label of a map, or of a person's label image, takes in a section."""

    step: ClassVar[str] = "areas"
    version: ClassVar[int] = 1
    verb: ClassVar[str] = "measure areas"

    source: Stored[Parcellation] | Stored[StoredImage]

    @classmethod
    def of(cls, parcellation: str | None) -> "AreasStep":
        """The areas of a map; of a person's labels where no map is named."""
        return cls(Stored(ParcellationStep, parcellation) if parcellation else LABELS)

    @property
    def name(self) -> str:
        """That of the map."""
        return OF_LABELS if self.source == LABELS else self.source.name

    def is_there(self, brain: OpenBrain, section: Section) -> bool:
        """Whether a section has what is counted."""
        return brain.catalogue.record(self.source.product(section.section_id)) is not None

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Count the cells of every value, window by window."""
        found: Any = inputs[self.source]
        level = (found.labels if isinstance(found, Parcellation) else found).levels[0]
        facts = {"cell_um": level.pixel_size_um, "cells": counted(level)}
        staging.write(AREAS_FILE, canonical_json(facts).encode())
        return facts

    @classmethod
    def opened(cls, folder: Path) -> Facts:
        """The counts."""
        facts: Facts = json.loads((folder / AREAS_FILE).read_text())
        return facts


def counted(level: Level) -> dict[str, int]:
    """How many cells of a label image have each value, 0 left out. Raises SectionError if it is damaged."""
    counts: Counter[int] = Counter()
    for y, x, height, width in partition(*level.size, BAND_PX):
        counts.update(counted_ids(level.pixels(slice(y, y + height), slice(x, x + width))))
    return {str(value): counts[value] for value in sorted(counts) if value}


def section_areas(brain: OpenBrain, areas: Stored[Facts]) -> Sequence[SectionArea]:
    """What was counted in every section, with what the manifest states of it."""
    return [
        SectionArea(
            one.section_id,
            one.section_number,
            one.hemisphere,
            one.position_um,
            float(facts["cell_um"]),
            {int(value): int(count) for value, count in facts["cells"].items()},
        )
        for one in sections_with(brain, areas)
        for facts in [areas.record(Place(brain, one)).facts]
    ]
