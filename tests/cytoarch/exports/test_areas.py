"""Tables of areas: cells become mm2, sections at uneven places become volumes, sides stay apart."""

import csv
import io

import numpy as np
import pytest

from cytoarch.exports.areas import SectionArea, area_rows, areas_csv, slabs_um
from cytoarch.exports.legends import LegendRow

LEGEND = (LegendRow(3, "V1", (1, 2, 3), "visual"), LegendRow(9, "M1", (4, 5, 6)))


def section(number: int, side: str = "both", at: float | None = None, **cells: int) -> SectionArea:
    values = {"v1": 3, "m1": 9}
    counted = {values[name]: count for name, count in cells.items()}
    return SectionArea(f"s{number}", number, side, at, 50.0, counted)  # type: ignore[arg-type]


def rows_of(*sections: SectionArea) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(areas_csv(area_rows(sections, LEGEND)).decode())))


def test_volume_of_a_ball_by_uneven_sections_is_that_of_the_ball() -> None:
    radius, cell_um = 5.0, 20.0
    places = np.sort(np.random.default_rng(0).uniform(-radius, radius, 120))
    sizes = np.pi * (radius**2 - places**2)
    counts = (sizes / (cell_um / 1000) ** 2).round().astype(int)
    sections = [
        SectionArea(f"s{i}", i, "both", float(at * 1000), cell_um, {3: int(count)})
        for i, (at, count) in enumerate(zip(places, counts, strict=True))
    ]
    (row,) = [one for one in area_rows(sections, LEGEND) if one.section_id == "all"]
    assert row.volume_mm3 == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.01)


def test_mm2_of_all_sections_is_the_sum_of_each() -> None:
    rows = rows_of(section(1, at=0.0, v1=400, m1=100), section(2, at=500.0, v1=200))
    assert [(one["section_id"], one["area"], one["mm2"]) for one in rows] == [
        ("all", "V1", "1.5"),
        ("all", "M1", "0.25"),
        ("s1", "V1", "1"),
        ("s1", "M1", "0.25"),
        ("s2", "V1", "0.5"),
    ]
    assert [one["volume_mm3"] for one in rows[:2]] == ["0.75", "0.125"]
    assert (rows[0]["group"], rows[1]["group"]) == ("visual", "")


def test_sides_that_are_stated_are_told_apart() -> None:
    sections = [section(i, side, 100.0 * i, v1=100 * i) for i, side in enumerate(["left", "right"] * 3, start=1)]
    totals = {one["side"]: one for one in rows_of(*sections) if one["section_id"] == "all"}
    assert {side: int(one["cells"]) for side, one in totals.items()} == {"all": 2100, "left": 900, "right": 1200}
    assert float(totals["all"]["volume_mm3"]) == pytest.approx(
        sum(float(totals[one]["volume_mm3"]) for one in ("left", "right"))
    )


@pytest.mark.parametrize("places", [(0.0, None), (5.0, 5.0), (7.0,)])
def test_where_places_are_unknown_no_volume_is_told(places: tuple[float | None, ...]) -> None:
    sections = [section(i, at=at, v1=10) for i, at in enumerate(places)]
    assert slabs_um(sections) == {}
    assert {one["volume_mm3"] for one in rows_of(*sections)} == {""}
