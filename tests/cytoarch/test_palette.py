"""Colours: each its own, groups by hue, what a person chose before anything else."""

import colorsys
from itertools import combinations

import numpy as np

from cytoarch.brains import Label, LabelTable
from cytoarch.palette import Rgb, distinct_colours, group_colours, hex_colour, hierarchical_colours


def table(*rows: tuple[str, str, str]) -> LabelTable:
    return LabelTable(
        labels=tuple(
            Label(id=number, name=name, group=group or None, colour=colour or None)
            for number, (name, group, colour) in enumerate(rows, start=1)
        )
    )


def hue(colour: Rgb) -> float:
    return colorsys.rgb_to_hls(*(part / 255 for part in colour))[0]


def apart(one: float, other: float) -> float:
    """Distance of two hues on the circle of hues."""
    return min(abs(one - other), 1 - abs(one - other))


def test_colours_of_many_classes_are_all_different() -> None:
    for count in (1, 8, 113, 181):
        assert len({hex_colour(one) for one in distinct_colours(count)}) == count


def test_labels_of_a_group_share_its_hue_and_are_told_apart() -> None:
    rows = table(*((f"{group}{number}", group, "") for group in ("Au", "Vis", "Mot") for number in range(6)))
    colours, groups = hierarchical_colours(rows.labels), group_colours(rows.labels)
    assert list(groups) == ["Au", "Vis", "Mot"]
    for label, colour in zip(rows.labels, colours, strict=True):
        own = apart(hue(colour), hue(groups[str(label.group)]))
        others = [apart(hue(colour), hue(rgb)) for name, rgb in groups.items() if name != label.group]
        assert own < 0.02 < min(others)
    for one, other in combinations(colours, 2):
        assert np.abs(np.subtract(one, other)).max() >= 8


def test_what_the_table_states_stands_and_marks_its_group() -> None:
    rows = table(("A1", "Au", "#102030"), ("A2", "Au", ""), ("X", "", "#ffffff"), ("Y", "", ""))
    colours = [hex_colour(one) for one in hierarchical_colours(rows.labels)]
    assert (colours[0], colours[2]) == ("#102030", "#ffffff")
    assert apart(hue(hierarchical_colours(rows.labels)[1]), hue((16, 32, 48))) < 0.02
    by_group = {one.name: one.colour for one in rows.classes(by_group=True)}
    assert by_group["Au"] == "#102030"
    assert by_group["X"] == "#ffffff"
    assert len(set(colours)) == 4


def test_a_table_without_groups_leaves_the_choice_to_who_draws() -> None:
    rows = table(("a", "", ""), ("b", "", "#00ff00"))
    assert [one.colour for one in rows.classes(by_group=False)] == [None, "#00ff00"]
