"""The pictures of a section in the report: drawn once, and again only where what they show has changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.brains import LabelClass
from cytoarch.discovery.clusters import Clustering
from cytoarch.geometry import Grid
from cytoarch.images.views import StoredImage
from cytoarch.learning.cards import HeadCard
from cytoarch.palette import Rgb, class_colours, distinct_colours
from cytoarch.reporting import pictures
from cytoarch.reporting.pictures import Picture
from cytoarch.steps.clusters import ClusterFitStep, ClustersStep
from cytoarch.steps.colours import ColoursStep
from cytoarch.steps.familiarity import FamiliarityStep
from cytoarch.steps.parcellations import Parcellation, ParcellationStep
from cytoarch.steps.sections import LABELS, SECTION
from cytoarch.steps.sources import FactsOf, HeadSource, Maybe, Row, Table
from cytoarch.steps.step import Facts, Inputs, Step, Stored
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.staging import Staging

PICTURES_NAME = "map"
THUMBNAIL_FILE = "thumbnail.png"
THUMBNAIL_PX = 96
FAR = 3
"""Grade of tokens that are far from what a model learned from."""


@dataclass(frozen=True)
class Shown:
    """What a brain's report shows: the names under which the store holds it."""

    colours: str
    clusters: str | None = None
    parcellation: str | None = None
    model_digest: str | None = None
    is_compared: bool = False
    """Whether it is known how far the brain lies from what the model learned from."""


@dataclass(frozen=True)
class PicturesStep(Step[Path]):
    """The pictures of one section."""

    step: ClassVar[str] = "pictures"
    version: ClassVar[int] = 2
    view: ClassVar[bool] = True
    verb: ClassVar[str] = "draw"

    colours: Stored[StoredImage]
    parcellation: Stored[Parcellation] | None = None
    head: HeadSource | None = None
    familiarity: Maybe[StoredImage] | None = None
    clusters: Stored[StoredImage] | None = None
    clustering: Stored[Clustering] | None = None
    section: Stored[StoredImage] = SECTION
    tissue: Stored[TissueMask] = TISSUE
    tissue_facts: FactsOf = FactsOf(TISSUE)
    labels: Maybe[StoredImage] = Maybe(LABELS)
    table: Table = Table()
    stated: Row = Row(("brain_id", "flip", "rotation", "labels_origin"))

    @classmethod
    def of(cls, shown: Shown) -> "PicturesStep":
        """The pictures of what was made of a brain."""
        return cls(
            Stored(ColoursStep, shown.colours),
            Stored(ParcellationStep, shown.parcellation) if shown.parcellation else None,
            HeadSource(shown.model_digest) if shown.parcellation and shown.model_digest else None,
            Maybe(Stored(FamiliarityStep, shown.parcellation)) if shown.parcellation and shown.is_compared else None,
            Stored(ClustersStep, shown.clusters) if shown.clusters else None,
            Stored(ClusterFitStep, shown.clusters) if shown.clusters else None,
        )

    @property
    def name(self) -> str:
        """There is one set of pictures."""
        return PICTURES_NAME

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Draw all pictures and a thumbnail; the facts name them and say what stands beside them."""
        image, row = inputs[self.section], inputs[self.stated]
        shown = self._drawn(inputs, image)
        files = {}
        for number, (caption, picture) in enumerate(shown.items()):
            files[caption] = f"{number}.png"
            staging.write(files[caption], pictures.png(pictures.oriented(picture, row["flip"], row["rotation"])))
        small = pictures.stain_picture(image, THUMBNAIL_PX)
        staging.write(THUMBNAIL_FILE, pictures.png(pictures.oriented(small, row["flip"], row["rotation"])))
        attributes, tissue = image.attributes, inputs[self.tissue_facts]
        details = {
            "pixel": f"{attributes['pixel_size_um']:g} um ({attributes['pixel_size_source']})",
            "width x height": "{1:,} x {0:,} px".format(*attributes["shape"][1:]),
            "tissue": f"{tissue['area_mm2']:.1f} mm2",
        }
        labels = inputs[self.labels]
        of_labels = [f"labels: {one}" for one in labels.attributes.get("remarks", [])] if labels is not None else []
        remarks = "; ".join([*attributes["remarks"], *of_labels])
        return {"pictures": files, "details": details, "remarks": remarks, "area_mm2": tissue["area_mm2"]}

    def _drawn(self, inputs: Inputs, image: StoredImage) -> dict[str, Picture]:
        grid = pictures.picture_grid(image)
        base = pictures.stain_picture(image)
        shown = {"scan, tissue outlined": pictures.outlined(base, inputs[self.tissue], grid)}
        labels, table = inputs[self.labels], inputs[self.table]
        if labels is not None and table is not None:
            values = pictures.label_values(labels, grid)
            origin = inputs[self.stated]["labels_origin"]
            by_id = _by_value(table.classes(by_group=False))
            if self.head is not None:  # labels are shown as the map shows them: groups where it knows groups only
                by_id = {**by_id, **_by_value(inputs[self.head].card.classes)}
            shown[f"labels ({origin})"] = pictures.overlaid(base, values, by_id)
        colours = pictures.colour_picture(inputs[self.colours], grid)
        shown["embeddings, first three principal components"] = colours
        if self.parcellation is not None and self.head is not None:
            shown |= self._mapped(inputs, base, grid, inputs[self.parcellation], inputs[self.head].card)
        if self.clusters is not None and self.clustering is not None:
            values = pictures.label_values(inputs[self.clusters], grid)
            by_value = dict(enumerate(distinct_colours(len(inputs[self.clustering].centres)), start=1))
            shown["clusters"] = pictures.painted(values, by_value)
        return shown

    def _mapped(
        self, inputs: Inputs, base: Picture, grid: Grid, parcellation: Parcellation, card: HeadCard
    ) -> dict[str, Picture]:
        """The map over the stain and how sure it is; hatched where the tissue is far from what was learned from."""
        values = pictures.label_values(parcellation.labels, grid)
        grades = inputs[self.familiarity] if self.familiarity is not None else None
        far = np.zeros(grid.shape, bool) if grades is None else pictures.label_values(grades, grid) == FAR
        note = "; hatched: far from what the model learned from" if far.any() else ""
        learned = inputs.name in card.learned(inputs[self.stated]["brain_id"])
        seen = " (learned from this section: no test)" if learned else ""
        mapped = pictures.overlaid(base, values, _by_value(card.classes))
        sure = pictures.confidence_picture(parcellation.probabilities, grid)
        return {
            f"parcellation: {card.target}{seen}{note}": pictures.hatched(mapped, far),
            "confidence: probability of the class shown, dark is chance": pictures.hatched(sure, far),
        }

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """Their folder."""
        return folder


def _by_value(classes: Sequence[LabelClass]) -> Mapping[int, Rgb]:
    """The colour of each class by every label value that means it."""
    coloured = zip(classes, class_colours(classes), strict=True)
    return {value: rgb for one, rgb in coloured for value in one.ids}
