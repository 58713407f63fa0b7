"""What is doubtful about sections, alone and beside the others of their brain."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cytoarch.measures import quality
from cytoarch.reporting.quality.figures import number, percent


@dataclass(frozen=True)
class Rule:
    """When a figure is told of: an outlier of its brain that differs by so much that it matters."""

    figure: str
    high: str = ""
    """What to say of a value that is too high; blank: nothing. May show {value}, {usual} and {whom}."""
    low: str = ""
    least_ratio: float = 1.0
    """Least factor between the value and the usual one."""
    least: float = 0.0
    """Least difference."""
    percent: bool = False
    """Show the figure as one."""
    neighbours: bool = False
    """Compare with the neighbours in the series instead of all sections."""


OUTLIER_Z = 3.5
FEWEST = 5
"""Fewer sections than this are not compared with each other."""
CLIPPED, EDGE, SMALLEST_MM2, LARGEST_MM2, SEPARATION = 0.1, 0.5, 0.05, 40_000.0, 0.5
"""A section is told of in any company beyond these shares of clipped tissue and of tissue along the edge, these areas,
and below this separation of tissue and slide (noise cut in two gives about 0.2)."""

_BLUR = "blurred compared with {whom}: finest detail {value} um, usual is {usual} um"
RULES = (
    Rule("detail_um", _BLUR, least_ratio=1.35, neighbours=True),
    Rule("detail_um", _BLUR, least_ratio=1.35),
    Rule(
        "blurred_share", "blurred in parts: {value} of the places looked at, usual is {usual}", percent=True, least=0.15
    ),
    Rule(
        "tissue_mm2",
        "more tissue than in its neighbours: {value} mm2, about {usual} expected (mask? pixel size?)",
        "less tissue than in its neighbours: {value} mm2, about {usual} expected (mask? pixel size?)",
        least_ratio=1.3,
        neighbours=True,
    ),
    Rule(
        "clipped_bright", "over-exposed: {value} of the tissue is saturated, usual is {usual}", percent=True, least=0.01
    ),
    Rule("clipped_dark", "under-exposed: {value} of the tissue is black, usual is {usual}", percent=True, least=0.01),
    Rule(
        "tissue_level",
        "tissue brighter than in {whom}: grey value {value}, usual is {usual} (exposure? stain?)",
        "tissue darker than in {whom}: grey value {value}, usual is {usual} (exposure? stain?)",
        least_ratio=1.4,
    ),
    Rule(
        "edge_share",
        "tissue on {value} of the scan's edge, usual is {usual} (cut off? mask?)",
        percent=True,
        least=0.15,
    ),
)


def flags(figures: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
    """What is doubtful about each section, in plain words, from the figures of a brain's sections in cutting order.

    A section stands out where its figure is an outlier by the robust z-score of all sections, or of all differences
    from the neighbours, and differs by enough to matter. Sections without tissue are compared with none.
    """
    found = {name: dict(_alone(one)) for name, one in figures.items()}
    names = [name for name, one in figures.items() if one["tissue_mm2"] > 0]
    if len(names) >= FEWEST:
        compared = {"pixel_size_um", "contrast", *(rule.figure for rule in RULES)}
        columns = {key: np.array([figures[name][key] for name in names], dtype=np.float64) for key in compared}
        for name, about, text in _against_most(names, columns):
            found[name][about] = text
        for rule in RULES:
            for name, text in _outliers(rule, names, columns[rule.figure]):
                found[name].setdefault(rule.figure, text)
    # another pixel size explains another sharpness
    return {
        name: [text for about, text in said.items() if about != "detail_um" or "pixel_size_um" not in said]
        for name, said in found.items()
    }


def _alone(figures: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """What can be said of a section without looking at others, by the figure it is about."""
    area, share = figures["tissue_mm2"], figures["tissue_share"]
    dark, bright = figures["clipped_dark"], figures["clipped_bright"]
    if area <= 0:
        yield "tissue_mm2", "no tissue found: empty scan, or wrong threshold or polarity"
        return
    if 0 < share < 1 and figures["separation"] < SEPARATION:
        yield "separation", "tissue and slide are of the same grey: empty scan, or wrong mask"
    if figures["sharpness"] <= 0:
        yield "sharpness", "no structure in the tissue to judge its sharpness by"
    if bright > CLIPPED:
        yield "clipped_bright", f"over-exposed: {percent(bright)} of the tissue is saturated"
    if dark > CLIPPED:
        yield "clipped_dark", f"under-exposed: {percent(dark)} of the tissue is black"
    if not SMALLEST_MM2 < area < LARGEST_MM2:
        yield "tissue_mm2", f"tissue of {number(area)} mm2: check the pixel size"
    if figures["edge_share"] > EDGE:
        yield "edge_share", "most of the scan's edge is tissue: cut off, or wrong mask or polarity"


def _against_most(names: Sequence[str], columns: Mapping[str, NDArray[np.float64]]) -> Iterator[tuple[str, str, str]]:
    """(section, figure, what to say) of sections of another pixel size or polarity than most of their brain."""
    sizes, contrasts = columns["pixel_size_um"], columns["contrast"]
    usual, side = float(np.median(sizes)), float(np.median(np.sign(contrasts)))
    for name, size, contrast in zip(names, sizes, contrasts, strict=True):
        if not 0.98 < size / usual < 1.02:
            yield name, "pixel_size_um", f"pixel size {size:.4g} um where most sections have {usual:.4g} um"
        if contrast * side < 0:
            here, there = ("darker", "brighter") if contrast > 0 else ("brighter", "darker")
            text = f"tissue is {here} than the slide where in most sections it is {there}: check polarity"
            yield name, "contrast", text


def _outliers(rule: Rule, names: Sequence[str], values: NDArray[np.float64]) -> Iterator[tuple[str, str]]:
    near = rule.neighbours
    usual = quality.expected_from_neighbours(values) if near else np.full_like(values, np.median(values))
    scores = quality.robust_z(values - usual)
    whom = "its neighbours" if near else "the other sections"
    for name, value, expected, z in zip(names, values, usual, scores, strict=True):
        text = rule.high if z > 0 else rule.low
        large, small = max(value, expected), min(value, expected)
        matters = large >= small * rule.least_ratio and large - small > rule.least
        if text and value > 0 and abs(z) > OUTLIER_Z and matters:
            shown = percent if rule.percent else number
            yield name, text.format(value=shown(value), usual=shown(expected), whom=whom)
