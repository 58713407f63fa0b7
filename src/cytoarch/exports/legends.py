"""What the values of a label map mean, as every export states it."""

from collections.abc import Sequence
from dataclasses import dataclass

from cytoarch.brains import LabelClass, LabelTable
from cytoarch.images.views import StoredImage
from cytoarch.palette import Rgb, class_colours, distinct_colours, hex_colour


@dataclass(frozen=True)
class LegendRow:
    """A value of a label map."""

    value: int
    name: str
    colour: Rgb
    group: str = ""
    """Coarser area; blank: none is stated."""

    @property
    def hex(self) -> str:
        """#rrggbb."""
        return hex_colour(self.colour)


Legend = tuple[LegendRow, ...]


@dataclass(frozen=True)
class SectionMap:
    """A label map of a section and what its values mean."""

    kind: str
    """Its word in file names: areas, layers, labels, clusters."""
    labels: StoredImage
    legend: Legend


def legend_of_classes(classes: Sequence[LabelClass], table: LabelTable | None) -> Legend:
    """The legend of a map drawn by a head: a class's value is the first of its ids, its group that of its name.

    Ids are those of the model, which another brain's table may give to other names.
    """
    labels = table.labels if table else ()
    groups = {label.group: label.group for label in labels if label.group}  # a head may tell groups themselves
    groups |= {label.name: label.group or "" for label in labels}
    return tuple(
        LegendRow(one.ids[0], one.name, rgb, groups.get(one.name, ""))
        for one, rgb in zip(classes, class_colours(classes), strict=True)
    )


def legend_of_clusters(count: int) -> Legend:
    """The legend of a map of so many clusters."""
    return tuple(LegendRow(i, f"cluster {i}", rgb) for i, rgb in enumerate(distinct_colours(count), start=1))
