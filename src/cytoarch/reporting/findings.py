"""What a brain's maps come to: sizes, errors, doubts, and where a person's next labels would help most."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cytoarch.palette import Rgb
from cytoarch.reporting.confusions import Confused, Matrix


class AreaSize(NamedTuple):
    """How large an area is, as the page shows it: numbers as text."""

    name: str
    group: str
    colour: Rgb
    sections: int
    mm2: str
    left_mm2: str
    right_mm2: str
    mm3: str


class Bar(NamedTuple):
    """A bar of a histogram."""

    label: str
    cells: int
    share: float


class Doubt(NamedTuple):
    """A section or an area where the map is least sure."""

    name: str
    margin: float
    """How far the class shown is ahead of the next, on average."""
    reason: str = ""


class Border(NamedTuple):
    """A border on the maps between areas that are no neighbours in the labels."""

    one: str
    other: str
    mm: float
    """Its length, over all sections."""
    hops: str


class Strength(NamedTuple):
    """A strength of smoothing that was tried on held-out sections."""

    weight: float
    macro_f1: float
    is_chosen: bool


class AcrossSaid(NamedTuple):
    """What smoothing from section to section changed."""

    said: str
    """How it was done."""
    counted: Sequence[tuple[str, int, int]]
    """What, before, after."""
    left: Sequence[tuple[str, str, int]]
    """Areas that meet after it and on no labelled section, and in how many pairs of points."""
    tried: Sequence[Strength]
    """Strengths that were tried on sections that the model has not seen."""


class Follows(NamedTuple):
    """How far clusters follow something."""

    name: str
    purity: float
    spread: float
    chance: float
    excess: float
    """Between chance (0) and pure clusters (1)."""
    accuracy: float


class Shares(NamedTuple):
    """How many of a token's nearest neighbours share something with it."""

    name: str
    share: float
    chance: float
    excess: float
    """Between chance (0) and all (1)."""


@dataclass(frozen=True)
class Findings:
    """All of it; what is not known is empty."""

    noun: str = "areas"
    """What the classes of the map are: areas, layers."""
    areas: Sequence[AreaSize] = ()
    has_sides: bool = False
    has_volume: bool = False
    worst: Sequence[Confused] = ()
    matrices: Sequence[Matrix] = ()
    confused_where: str = ""
    """What was counted in the confusions."""
    hops: Sequence[Bar] = ()
    margins: Sequence[Bar] = ()
    borders: Sequence[Border] = ()
    smoothing: Sequence[Strength] = ()
    across: AcrossSaid | None = None
    unsure_sections: Sequence[Doubt] = ()
    unsure_areas: Sequence[Doubt] = ()
    follows: Sequence[Follows] = ()
    stability: Sequence[tuple[int, float | None]] = ()
    """By number of clusters."""
    clustered: str = ""
    """How clusters were checked."""
    alike: Matrix | None = None
    """How alike areas are by their embeddings."""
    near: Sequence[Shares] = ()
    neighbours: str = ""
    """How neighbours were found."""
    sheet: str = ""
    """Path of the sheet of neighbours, relative to the page; blank: there is none."""
    layout: str = ""
    """Path of the picture of tokens laid out, relative to the page."""
    laid_out: str = ""
    """How they were laid out."""
    first_looks: Mapping[str, str] = field(default_factory=dict)
    """Sections to be looked at before others -> why."""


def bars(counts: Mapping[str, int]) -> list[Bar]:
    """The bars of a histogram, shares of all.

    >>> bars({"1": 3, "2": 1})
    [Bar(label='1', cells=3, share=0.75), Bar(label='2', cells=1, share=0.25)]
    """
    total = max(1, sum(counts.values()))
    return [Bar(label, count, round(count / total, 4)) for label, count in counts.items()]
