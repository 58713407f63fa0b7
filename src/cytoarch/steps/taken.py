"""What of a brain is taken home: the map, labels and clusters chosen, what they mean, and where sections lie."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cytoarch import __version__
from cytoarch.anatomy.reconstruction import Reconstruction
from cytoarch.brains import Section
from cytoarch.exports.legends import Legend, SectionMap, legend_of_classes, legend_of_clusters
from cytoarch.exports.names import Names
from cytoarch.exports.settings import ExportSettings, Format
from cytoarch.geometry import Transform, section_to_brain
from cytoarch.images.views import StoredImage
from cytoarch.steps.clusters import ClusterFitStep, ClustersStep
from cytoarch.steps.exports import AreasStep
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.parcellations import ParcellationStep
from cytoarch.steps.reconstruction import RECONSTRUCTION
from cytoarch.steps.sections import LABELS, SECTION
from cytoarch.steps.sources import open_head, require_stored, sections_with
from cytoarch.steps.step import Place, Stored
from cytoarch.store.products import WHOLE_BRAIN

LABELS_KIND, CLUSTERS_KIND = "labels", "clusters"
ALIGNED = "sections aligned with each other by rigid transforms and, where sizes were evened, a scale (reconstruction)"
STACKED = "sections centre on centre after flip and rotation, at their stated positions"


@dataclass(frozen=True)
class Taken:
    """What of a brain is exported."""

    brain: OpenBrain
    settings: ExportSettings
    map_name: str | None
    clusters_name: str | None

    @classmethod
    def of(cls, brain: OpenBrain, settings: ExportSettings) -> "Taken":
        """The map and the clusters that are asked for. Raises MissingInputError, listing the choices, if in doubt."""
        chosen = []
        named = (ParcellationStep, settings.map_name, "map"), (ClustersStep, settings.clusters_name, "clusters")
        for step, name, flag in named:
            there = bool(brain.catalogue.names(step.step)) or name
            hint = f"Name one of them (--{flag}-name)"
            chosen.append(require_stored(step, Place(brain), name, hint) if there else None)
        return cls(brain, settings, *chosen)

    @property
    def areas(self) -> tuple[AreasStep, ...]:
        """What is counted for the tables: the map, and labels where the brain has any."""
        steps = (AreasStep.of(self.map_name),) if self.map_name and self.map_digest else ()
        return (*steps, AreasStep.of(None)) if sections_with(self.brain, LABELS) else steps

    @property
    def map_digest(self) -> str | None:
        """The digest of the model that drew the map."""
        if self._mapped is None:
            return None
        records = (self.brain.catalogue.record(self._mapped.product(one.section_id)) for one in self.brain.sections)
        return next((record.inputs["head"] for record in records if record is not None), None)

    @cached_property
    def _mapped(self) -> Stored[Any] | None:
        return Stored(ParcellationStep, self.map_name) if self.map_name else None

    @cached_property
    def legends(self) -> Mapping[str, Legend]:
        """What the values mean, by the kind of map."""
        table = self.brain.brain.label_table
        found: dict[str, Legend] = {}
        if self.map_digest is not None:
            card = open_head(self.brain.store, self.map_digest).card
            found[card.target] = legend_of_classes(card.classes, table)
        if table is not None and sections_with(self.brain, LABELS):
            found[LABELS_KIND] = legend_of_classes(table.classes(by_group=False), table)
        if self.clusters_name is not None:
            fitted = Stored(ClusterFitStep, self.clusters_name).open(Place(self.brain))
            found[CLUSTERS_KIND] = legend_of_clusters(len(fitted.centres))
        return found

    @property
    def map_kind(self) -> str | None:
        """The word of the map: areas, layers."""
        return next((one for one in self.legends if one not in (LABELS_KIND, CLUSTERS_KIND)), None)

    def maps(self, section: Section) -> list[SectionMap]:
        """The maps of a section, as far as it has them."""
        place = Place(self.brain, section)
        found = []
        for kind, legend in self.legends.items():
            source: Stored[Any] = LABELS if kind == LABELS_KIND else self._stored(kind)
            if self.brain.catalogue.record(source.product(section.section_id)) is None:
                continue
            source.record(place)  # one that is older than what it was made from is an error
            opened = source.open(place)
            labels = opened if isinstance(opened, StoredImage) else opened.labels
            found.append(SectionMap(kind, labels, legend))
        return found

    def _stored(self, kind: str) -> Stored[Any]:
        if kind == CLUSTERS_KIND:
            return Stored(ClustersStep, str(self.clusters_name))
        return Stored(ParcellationStep, str(self.map_name))

    @property
    def sections(self) -> tuple[Section, ...]:
        """The sections that have pixels."""
        return sections_with(self.brain, SECTION)

    @cached_property
    def reconstruction(self) -> Reconstruction | None:
        """The brain put together, where that was done. Raises MissingInputError if it is older than its sections."""
        if self.brain.catalogue.record(RECONSTRUCTION.product(WHOLE_BRAIN)) is None:
            return None
        RECONSTRUCTION.record(Place(self.brain))
        return RECONSTRUCTION.open(Place(self.brain))

    @cached_property
    def places(self) -> Mapping[str, Transform]:
        """From (y, x) um in the frame of a section to (x, y, z) mm in the brain, of the sections that have a place."""
        if self.reconstruction is not None:
            return {one.section_id: one.to_brain for one in self.reconstruction if one.z_um is not None}
        return {
            one.section_id: section_to_brain(
                SECTION.open(Place(self.brain, one)).grid, one.flip, one.rotation, one.position_um
            )
            for one in self.sections
            if one.position_um is not None
        }

    @property
    def placed_by(self) -> str:
        """How sections were placed."""
        return STACKED if self.reconstruction is None else ALIGNED

    @property
    def names(self) -> Names:
        """What files are called."""
        return Names(self.brain.brain_id, self.settings.naming)

    def about(self, export_format: Format) -> dict[str, Any]:
        """What the card of an export says."""
        return {
            "cytoarch": __version__,
            "format": export_format,
            "brain": self.brain.brain_id,
            "stated": self.brain.brain.digest,
            "map": self.map_name,
            "model": self.map_digest,
            "clusters": self.clusters_name,
            "settings": self.settings.model_dump(mode="json"),
        }
