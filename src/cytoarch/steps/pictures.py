"""The pictures of a section in the report: drawn once, and again only where what they show has changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.brains import LabelClass
from cytoarch.discovery.clusters import Clustering
from cytoarch.geometry import Grid
from cytoarch.images.views import StoredImage
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.targets import class_of_id
from cytoarch.measures.neighbours import touching
from cytoarch.palette import Rgb, class_colours, distinct_colours
from cytoarch.parcellation.sparse import SparseProbabilities
from cytoarch.reporting import pictures
from cytoarch.reporting.pictures import Picture
from cytoarch.steps.clusters import ClusterFitStep, ClustersStep
from cytoarch.steps.colours import ColoursStep
from cytoarch.steps.familiarity import FamiliarityStep
from cytoarch.steps.parcellations import Parcellation, ParcellationStep, ProbabilitiesStep
from cytoarch.steps.sections import LABELS, SECTION
from cytoarch.steps.sources import FactsOf, HeadSource, Maybe, Row, Table
from cytoarch.steps.step import Facts, Inputs, Step, Stored
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.staging import Staging

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

PICTURES_NAME = "map"
THUMBNAIL_FILE = "thumbnail.png"
THUMBNAIL_PX = 96
PHOTOGRAPHS = ("scan", "pca")
"""Layers that are kept as photographs are, since no colour on them means a class."""
MARGIN_BINS = 10
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
    is_across: bool = False
    """Whether the map is smoothed from section to section."""


class _Drawn(NamedTuple):
    """What was drawn of a section."""

    pictures: dict[str, Picture]
    """By caption: as they stand on a page."""
    layers: dict[str, Picture]
    """By kind: as they are laid over the scan in the viewer."""
    found: dict[str, Any]
    """What the pictures show, as facts."""


@dataclass(frozen=True)
class PicturesStep(Step[Path]):
    """The pictures of one section."""

    step: ClassVar[str] = "pictures"
    version: ClassVar[int] = 6
    view: ClassVar[bool] = True
    verb: ClassVar[str] = "draw"

    colours: Stored[StoredImage]
    parcellation: Stored[Parcellation] | None = None
    probabilities: Maybe[SparseProbabilities] | None = None
    head: HeadSource | None = None
    familiarity: Maybe[StoredImage] | None = None
    clusters: Stored[StoredImage] | None = None
    clustering: Stored[Clustering] | None = None
    section: Stored[StoredImage] = SECTION
    tissue: Stored[TissueMask] = TISSUE
    tissue_facts: FactsOf = FactsOf(TISSUE)
    labels: Maybe[StoredImage] = Maybe(LABELS, "gap")
    table: Table = Table()
    stated: Row = Row(("brain_id", "flip", "rotation", "labels_origin"))

    @classmethod
    def of(cls, shown: Shown) -> "PicturesStep":
        """The pictures of what was made of a brain."""
        return cls(
            Stored(ColoursStep, shown.colours),
            Stored(ParcellationStep, shown.parcellation) if shown.parcellation else None,
            Maybe(Stored(ProbabilitiesStep, shown.parcellation), "gap") if shown.parcellation else None,
            HeadSource(shown.model_digest) if shown.parcellation and shown.model_digest else None,
            Maybe(Stored(FamiliarityStep, shown.parcellation), "gap")
            if shown.parcellation and shown.is_compared
            else None,
            Stored(ClustersStep, shown.clusters) if shown.clusters else None,
            Stored(ClusterFitStep, shown.clusters) if shown.clusters else None,
        )

    @property
    def name(self) -> str:
        """There is one set of pictures."""
        return PICTURES_NAME

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Draw all pictures and a thumbnail; the facts name them, and say what was found on them."""
        image, row = inputs[self.section], inputs[self.stated]
        drawn = self._drawn(inputs, image)
        files = {}
        for number, (caption, picture) in enumerate(drawn.pictures.items()):
            files[caption] = f"{number}.png"
            staging.write(files[caption], pictures.png(pictures.oriented(picture, row["flip"], row["rotation"])))
        layers = {}
        for kind, layer in drawn.layers.items():
            write, ending = (pictures.webp, "webp") if kind in PHOTOGRAPHS else (pictures.png, "png")
            layers[kind] = f"{kind}.{ending}"
            staging.write(layers[kind], write(pictures.oriented(layer, row["flip"], row["rotation"])))
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
        shown = {"pictures": files, "layers": layers, "details": details, "remarks": remarks}
        return {**shown, "area_mm2": tissue["area_mm2"], **drawn.found}

    def _drawn(self, inputs: Inputs, image: StoredImage) -> "_Drawn":
        grid = pictures.picture_grid(image)
        base = pictures.stain_picture(image)
        drawn = _Drawn(
            {"scan, tissue outlined": pictures.outlined(base, inputs[self.tissue], grid)}, {"scan": base}, {}
        )
        labels, table = inputs[self.labels], inputs[self.table]
        if labels is not None and table is not None:
            values = pictures.label_values(labels, grid)
            origin = inputs[self.stated]["labels_origin"]
            by_id = _by_value(table.classes(by_group=False))
            if self.head is not None:  # labels are shown as the map shows them: groups where it knows groups only
                card = inputs[self.head].card
                by_id = {**by_id, **_by_value(card.classes)}
                classes = class_of_id(card.classes)[values]
                drawn.found["labels_touch"] = _touching(classes)
                _note_shown(drawn, classes)
            drawn.pictures[f"labels ({origin})"] = pictures.overlaid(base, values, by_id)
            drawn.layers["labels"] = pictures.see_through(pictures.painted(values, by_id), values > 0)
        colours = pictures.colour_picture(inputs[self.colours], grid)
        drawn.pictures["embeddings, first three principal components"] = colours
        drawn.layers["pca"] = colours
        if self.parcellation is not None and self.head is not None:
            self._map(drawn, inputs, base, grid, inputs[self.parcellation], inputs[self.head].card)
        if self.clusters is not None and self.clustering is not None:
            values = pictures.label_values(inputs[self.clusters], grid)
            by_value = dict(enumerate(distinct_colours(len(inputs[self.clustering].centres)), start=1))
            drawn.pictures["clusters"] = pictures.painted(values, by_value)
            drawn.layers["clusters"] = pictures.see_through(pictures.painted(values, by_value), values > 0)
        return drawn

    def _map(
        self,
        drawn: "_Drawn",
        inputs: Inputs,
        base: Picture,
        grid: Grid,
        parcellation: Parcellation,
        card: HeadCard,
    ) -> None:
        """The map over the stain and how sure it is; hatched where the tissue is far from what was learned from."""
        values = pictures.label_values(parcellation.labels, grid)
        grades = inputs[self.familiarity] if self.familiarity is not None else None
        far = np.zeros(grid.shape, bool) if grades is None else pictures.label_values(grades, grid) == FAR
        note = "; hatched: far from what the model learned from" if far.any() else ""
        learned = inputs.name in card.learned(inputs[self.stated]["brain_id"])
        seen = " (learned from this section: no test)" if learned else ""
        by_value = _by_value(card.classes)
        sure = pictures.certainty(parcellation.confidence, grid)
        confidence = pictures.confidence_picture(sure.top, len(card.classes))
        drawn.pictures[f"parcellation: {card.target}{seen}{note}"] = pictures.hatched(
            pictures.overlaid(base, values, by_value), far
        )
        drawn.pictures["confidence: probability of the class shown, dark is chance"] = pictures.hatched(confidence, far)
        drawn.layers["map"] = pictures.see_through(pictures.painted(values, by_value), values > 0)
        drawn.layers["confidence"] = pictures.see_through(confidence, ~np.isnan(sure.top))
        classes = class_of_id(card.classes)[values]
        drawn.found["map_touches"] = _touching(classes)
        _note_shown(drawn, classes)
        drawn.found["picture_um"] = grid.cell_um
        drawn.found["margins"] = _margins(classes, sure.margin, len(card.classes))
        before = inputs[self.probabilities] if self.probabilities is not None else None
        if before is not None:
            first = before.first(grid)
            ids = np.array([0, *(one.ids[0] for one in card.classes)])
            drawn.layers["unsmoothed"] = pictures.see_through(pictures.painted(ids[first], by_value), first > 0)
            _note_shown(drawn, first.astype(np.int64) - 1)

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """Their folder."""
        return folder


def _by_value(classes: Sequence[LabelClass]) -> Mapping[int, Rgb]:
    """The colour of each class by every label value that means it."""
    coloured = zip(classes, class_colours(classes), strict=True)
    return {value: rgb for one, rgb in coloured for value in one.ids}


def _note_shown(drawn: _Drawn, classes: Int64) -> None:
    """Add the classes (y, x) of a picture, below 0 where there is none, to those that the pictures show."""
    known = drawn.found.get("classes", [])
    drawn.found["classes"] = sorted({*known, *np.unique(classes[classes >= 0]).tolist()})


def _touching(classes: Int64) -> list[list[int]]:
    """Which classes meet on a picture, and in how many pairs of pixels: rows (class, class, pairs)."""
    return [[one, other, count] for (one, other), count in touching(classes).items()]


def _margins(classes: Int64, margin: Float32, count: int) -> dict[str, Any]:
    """How far the class shown is ahead: a histogram of all pixels in tissue, and pixels and sum of every class."""
    shown = (classes >= 0) & ~np.isnan(margin)
    at, ahead = classes[shown], margin[shown].astype(np.float64)
    bins = np.minimum((ahead * MARGIN_BINS).astype(np.int64), MARGIN_BINS - 1)
    return {
        "histogram": np.bincount(bins, minlength=MARGIN_BINS).tolist(),
        "pixels": np.bincount(at, minlength=count).tolist(),
        "sums": np.bincount(at, weights=ahead, minlength=count).round(3).tolist(),
    }
