"""Colours of classes and clusters: given ones kept, the others spread evenly and the same every time."""

import colorsys
from collections.abc import Sequence
from typing import Protocol

Rgb = tuple[int, int, int]

_GOLDEN = 0.61803398875


def distinct_colours(count: int) -> list[Rgb]:
    """`count` colours, neighbours far apart in hue.

    >>> distinct_colours(2)
    [(217, 67, 54), (87, 120, 242)]
    """
    colours: list[Rgb] = []
    for index in range(count):
        hue = (0.013 + index * _GOLDEN) % 1.0
        saturation, value = ((0.75, 0.85), (0.64, 0.95), (0.85, 0.65))[index % 3]
        red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return colours


class Coloured(Protocol):
    """What may have been given a colour."""

    @property
    def colour(self) -> str | None:
        """#rrggbb; None: none was given."""


class Grouped(Coloured, Protocol):
    """What may belong to a group."""

    @property
    def group(self) -> str | None:
        """The group; None: it stands for itself."""


def hex_colour(colour: Rgb) -> str:
    """#rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def group_colours(labels: Sequence[Grouped]) -> dict[str, Rgb]:
    """A colour for every group in order of first appearance: its first member's where one was given, else chosen."""
    groups = list(dict.fromkeys(one.group for one in labels if one.group))
    found = dict(zip(groups, distinct_colours(len(groups)), strict=True))
    for one in reversed(labels):
        if one.group and one.colour:
            found[one.group] = _parsed(one.colour)
    return found


def hierarchical_colours(labels: Sequence[Grouped]) -> list[Rgb]:
    """A colour for each label: its own where it was given one, else a shade of its group's.

    Labels of a group share its hue and differ in lightness; those without a group come after the groups.
    """
    groups = group_colours(labels)
    spare = distinct_colours(len(groups) + len(labels))[len(groups) :]
    members: dict[str, list[int]] = {name: [] for name in groups}
    for place, one in enumerate(labels):
        if one.group and not one.colour:
            members[one.group].append(place)
    found = [_parsed(one.colour) if one.colour else spare[place] for place, one in enumerate(labels)]
    for name, places in members.items():
        for place, colour in zip(places, _shades(groups[name], len(places)), strict=True):
            found[place] = colour
    return found


def _shades(colour: Rgb, count: int) -> list[Rgb]:
    """So many shades of a colour, from light to dark, neighbours told apart by saturation, too."""
    hue, _, saturation = colorsys.rgb_to_hls(*(part / 255 for part in colour))
    shades = []
    for place in range(count):
        lightness = 0.78 - 0.5 * (place / max(1, count - 1)) if count > 1 else 0.5
        strength = min(1.0, saturation * (1.0, 0.62)[place % 2])
        shades.append(colorsys.hls_to_rgb(hue, lightness, strength))
    return [(round(red * 255), round(green * 255), round(blue * 255)) for red, green, blue in shades]


def _parsed(colour: str) -> Rgb:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def class_colours(classes: Sequence[Coloured]) -> list[Rgb]:
    """A colour for each class: its own where the label table gives one."""
    chosen = distinct_colours(len(classes))
    return [_parsed(one.colour) if one.colour else own for one, own in zip(classes, chosen, strict=True)]
