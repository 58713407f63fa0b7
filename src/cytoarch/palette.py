"""Colours of classes and clusters: given ones kept, the others spread evenly and the same every time."""

import colorsys
from collections.abc import Sequence

from cytoarch.brains import LabelClass

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


def class_colours(classes: Sequence[LabelClass]) -> list[Rgb]:
    """A colour for each class: its own where the label table gives one."""
    chosen = distinct_colours(len(classes))
    return [
        (int(one.colour[1:3], 16), int(one.colour[3:5], 16), int(one.colour[5:7], 16)) if one.colour else colour
        for one, colour in zip(classes, chosen, strict=True)
    ]
