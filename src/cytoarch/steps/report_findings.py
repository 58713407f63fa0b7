"""What the report finds on the maps of a brain, from the facts of its sections."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoarch.brains import Brain
from cytoarch.exports.areas import ALL, AreaRow, SectionArea, area_rows
from cytoarch.exports.legends import Legend, legend_of_classes
from cytoarch.learning.cards import HeadCard
from cytoarch.measures.neighbours import errors_by_hops, hops
from cytoarch.reporting import confusions
from cytoarch.reporting.charts import MAX_NUMBERED
from cytoarch.reporting.confusions import Matrix
from cytoarch.reporting.findings import (
    AcrossSaid,
    AreaSize,
    Bar,
    Border,
    Doubt,
    Findings,
    Follows,
    Shares,
    Strength,
    bars,
)
from cytoarch.steps.across import DECIDED
from cytoarch.steps.layouts import NAMES
from cytoarch.steps.step import Facts

Int64 = NDArray[np.int64]

NEIGHBOURS_PX = 3
"""Pairs of pixels of the pictures in which two classes meet before they count as neighbours."""
LISTED = 12
"""Sections, areas and borders that are listed."""


def findings(
    brain: Brain,
    card: HeadCard | None,
    drawn: Mapping[str, Facts],
    areas: Mapping[str, Facts],
    errors: tuple[str, Int64 | None],
    smoothing: Mapping[str, Any] | None,
    failed: Mapping[str, str],
    more: Mapping[str, Any],
) -> Findings:
    """What is known of a map and of clusters; `errors` says what was counted, and the confusion (k, k).

    `more` are further findings by name: what `of_clusters` found, where its pictures lie, and `said_across`.
    """
    if card is None:
        return Findings(first_looks=_first_looks(brain, drawn, failed, []), **more)
    names = [one.name for one in card.classes]
    legend = legend_of_classes(card.classes, brain.label_table)
    groups = [row.group for row in legend]
    rows = area_rows(_counted(brain, areas), legend) if areas else []
    far = hops(_neighbours(drawn.values(), "labels_touch"), len(names))
    known = bool(np.isfinite(far[~np.eye(len(names), dtype=bool)]).any())
    where, confusion = errors
    is_large = len(names) > MAX_NUMBERED  # of fewer there is a chart
    unsure = _unsure_sections(drawn)
    return Findings(
        noun=card.target.removesuffix("-groups"),
        areas=_sizes(rows, legend),
        has_sides=any(row.side in ("left", "right") for row in rows if row.section_id == ALL),
        has_volume=any(row.volume_mm3 is not None for row in rows if row.section_id == ALL),
        worst=[] if confusion is None else confusions.worst(confusion, names),
        matrices=confusions.matrices(confusion, names, groups) if confusion is not None and is_large else [],
        confused_where=where,
        hops=_hop_bars(confusion, far) if known and confusion is not None else [],
        margins=_margin_bars(drawn.values()),
        borders=_borders(drawn.values(), far, names) if known else [],
        smoothing=_strengths(smoothing),
        unsure_sections=unsure[:LISTED],
        unsure_areas=_unsure_areas(drawn.values(), names),
        first_looks=_first_looks(brain, drawn, failed, unsure),
        **more,
    )


def of_clusters(
    checks: Mapping[str, Any] | None, layout: Mapping[str, Any] | None, near: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The findings on clusters, on the layout of tokens, on their neighbours, and on how alike areas are."""
    found: dict[str, Any] = {}
    if checks is not None:
        found["follows"] = [
            Follows(name, one["purity"], one["spread"], one["baseline"], one["excess"], one["accuracy"])
            for name, one in checks["followed"].items()
        ]
        clustered = f"{checks['clusters']} clusters of {checks['tokens']:,} tokens, fitted {checks['runs']} times"
        if checks["calinski_harabasz"] is not None:
            clustered += f"; Calinski-Harabasz {checks['calinski_harabasz']:,.0f}"
        found |= {"stability": checks["stability"], "clustered": clustered}
        alike = checks.get("similarity")
        if alike and 1 < len(alike["areas"]) <= confusions.WHOLE:
            found["alike"] = alike_matrix("", alike)
    if near is not None:
        found["near"] = [
            Shares(name, one["share"], one["chance"], one["excess"]) for name, one in near["shared"].items()
        ]
        found["neighbours"] = f"the {near['neighbours']} nearest of {near['tokens']:,} tokens by cosine"
    if layout is not None:
        found["laid_out"] = _layout_said(layout)
    return found


def said_across(facts: Mapping[str, Any], names: Sequence[str]) -> AcrossSaid:
    """What smoothing from section to section changed, from the facts of `AcrossStep`; `names` are those of classes."""
    before, after = facts["before"], facts["after"]
    wrong = [sum(pairs for *_, pairs in one["violations"]) for one in (before, after)]
    counted = [
        ("neighbouring points of different areas", before["borders"], after["borders"]),
        ("pieces of areas", before["pieces"], after["pieces"]),
    ]
    counted += [("of the former, areas that touch on no labelled section", *wrong)] if any(wrong) else []
    left = [(names[one], names[other], pairs) for one, other, pairs in after["violations"][:LISTED]]
    said = (
        f"{facts['points']:,} points along the cortex of {facts['sections']} sections, strength {facts['strength']:g} "
        f"({DECIDED[facts['decided']]})"
    )
    if facts["apart"]:
        said += f"; nothing is smoothed across {facts['apart']} gaps and doubtful sections"
    if facts["reassigned"]:
        said += f"; {facts['reassigned']} pieces ({facts['reassigned_mm2']:g} mm2) given to the area around them"
    return AcrossSaid(said, counted, left, _strengths(facts["choice"]))


def _layout_said(layout: Mapping[str, Any]) -> str:
    """How a layout was made, and how far apart groups lie on it."""
    groups = [
        f"{one} {of['calinski_harabasz']:,.0f} ({of['groups']} groups, {of['tokens']:,} tokens)"
        for one, of in layout["groups"].items()
    ]
    apart = f"; Calinski-Harabasz on it: {', '.join(groups)}" if groups else ""
    return f"{layout['tokens']:,} tokens by {NAMES[layout['method']]}{apart}"


def alike_matrix(whose: str, alike: Mapping[str, Any]) -> Matrix:
    """How alike areas are, as a matrix; of many areas it opens when it is asked for."""
    values = [[max(0.0, value or 0.0) for value in row] for row in alike["values"]]
    title = f"{whose}: cosine x 100, below 0 blank" if whose else "cosine x 100, below 0 blank"
    return Matrix(title, alike["areas"], alike["areas"], values)


def _counted(brain: Brain, areas: Mapping[str, Facts]) -> list[SectionArea]:
    return [
        SectionArea(
            one.section_id,
            one.section_number,
            one.hemisphere,
            one.position_um,
            float(areas[one.section_id]["cell_um"]),
            {int(value): int(count) for value, count in areas[one.section_id]["cells"].items()},
        )
        for one in brain.sections
        if one.section_id in areas
    ]


def _sizes(rows: Sequence[AreaRow], legend: Legend) -> list[AreaSize]:
    """The areas of all sections together, in the order of the legend."""
    together = {(row.id, row.side): row for row in rows if row.section_id == ALL}
    sides = {side for _, side in together}
    whole = "all" if "all" in sides else next(iter(sides), "both")
    found = []
    for one in legend:
        row = together.get((one.value, whole))
        if row is None:
            continue
        left, right = (together.get((one.value, side)) for side in ("left", "right"))
        found.append(
            AreaSize(one.name, one.group, one.colour, row.sections, f"{row.mm2:,.2f}", _mm2(left), _mm2(right),
                     "-" if row.volume_mm3 is None else f"{row.volume_mm3:,.2f}")
        )  # fmt: skip
    return found


def _mm2(row: AreaRow | None) -> str:
    return "-" if row is None else f"{row.mm2:,.2f}"


def _neighbours(drawn: Any, name: str) -> dict[tuple[int, int], int]:
    """Which classes meet on the pictures of all sections, where they do more than by chance."""
    found: dict[tuple[int, int], int] = {}
    for facts in drawn:
        for one, other, count in facts.get(name, ()):
            found[one, other] = found.get((one, other), 0) + count
    return {pair: count for pair, count in found.items() if count >= NEIGHBOURS_PX}


def _hop_bars(confusion: Int64, far: NDArray[np.float64]) -> list[Bar]:
    found = errors_by_hops(confusion, far)
    named = {"no way" if one is None else f"{one} border{'s' if one > 1 else ''}": n for one, n in found.items()}
    return bars(named)


def _margin_bars(drawn: Any) -> list[Bar]:
    histograms = [facts["margins"]["histogram"] for facts in drawn if "margins" in facts]
    if not histograms:
        return []
    total = np.sum(histograms, axis=0).tolist()
    return bars({f"{place / len(total):.1f}": count for place, count in enumerate(total)})


def _borders(drawn: Any, far: NDArray[np.float64], names: Sequence[str]) -> list[Border]:
    """The longest borders of the maps between classes that are no neighbours in the labels."""
    lengths: dict[tuple[int, int], float] = {}
    for facts in drawn:
        for one, other, count in facts.get("map_touches", ()):
            lengths[one, other] = lengths.get((one, other), 0.0) + count * facts["picture_um"] / 1000
    strange = [(mm, pair) for pair, mm in lengths.items() if far[pair] > 1]
    return [
        Border(
            names[one], names[other], round(mm, 2), f"{far[one, other]:.0f}" if np.isfinite(far[one, other]) else "-"
        )
        for mm, (one, other) in sorted(strange, reverse=True)[:LISTED]
    ]


def _strengths(smoothing: Mapping[str, Any] | None) -> list[Strength]:
    if smoothing is None:
        return []
    return [Strength(weight, score, weight == smoothing["weight"]) for weight, score in smoothing["macro_f1"]]


def _unsure_sections(drawn: Mapping[str, Facts]) -> list[Doubt]:
    """All sections with a map, the least sure first."""
    found = []
    for section_id, facts in drawn.items():
        pixels, sums = (np.sum(facts.get("margins", {}).get(one, [0])) for one in ("pixels", "sums"))
        if pixels:
            found.append(Doubt(section_id, round(float(sums / pixels), 3)))
    return sorted(found, key=lambda one: one.margin)


def _unsure_areas(drawn: Any, names: Sequence[str]) -> list[Doubt]:
    """The areas of the maps, the least sure first."""
    known = [facts["margins"] for facts in drawn if "margins" in facts]
    if not known:
        return []
    pixels, sums = (np.sum([one[key] for one in known], axis=0) for key in ("pixels", "sums"))
    found = [Doubt(names[at], round(float(sums[at] / pixels[at]), 3)) for at in np.flatnonzero(pixels).tolist()]
    return sorted(found, key=lambda one: one.margin)[:LISTED]


def _first_looks(
    brain: Brain, drawn: Mapping[str, Facts], failed: Mapping[str, str], unsure: Sequence[Doubt]
) -> dict[str, str]:
    """Sections that stand out, with the reason: failed, remarked on, or far less sure than the others."""
    found = {one.section_id: failed[one.section_id] for one in brain.sections if one.section_id in failed}
    found |= {one: facts["remarks"] for one, facts in drawn.items() if facts["remarks"]}
    margins = np.array([one.margin for one in unsure])
    if len(margins) > 3:
        middle = float(np.median(margins))
        spread = float(np.median(np.abs(margins - middle)))
        limit = middle - max(3 * 1.4826 * spread, 0.05)
        for one in unsure:
            if one.margin < limit:
                reason = f"the map is less sure here: ahead by {one.margin:.2f}, elsewhere {middle:.2f}"
                found[one.name] = "; ".join(filter(None, (found.get(one.name, ""), reason)))
    return found
