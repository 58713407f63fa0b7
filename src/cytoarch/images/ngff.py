"""NGFF 0.5 metadata: what the groups of images and label images state about themselves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

NGFF_VERSION = "0.5"

_CHANNEL_COLOURS = ("FFFFFF", "00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF")


def multiscales(
    name: str, axes: str, scales_um: Sequence[float], offsets_um: Sequence[float], kind: str, paths: Sequence[str]
) -> dict[str, Any]:
    """The `multiscales` entry of an image (y, x) or (c, y, x).

    `scales_um` and `offsets_um` give the pixel edge and the centre of the first pixel of every level (um), with the
    centre of the first full-resolution pixel at 0. `kind` names the reduction from level to level.
    """
    lead = len(axes) - 2
    return {
        "name": name,
        "type": kind,
        "axes": [{"name": "c", "type": "channel"}] * lead
        + [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"],
        "datasets": [
            {
                "path": path,
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1.0] * lead + [scale, scale]},
                    {"type": "translation", "translation": [0.0] * lead + [offset, offset]},
                ],
            }
            for path, scale, offset in zip(paths, scales_um, offsets_um, strict=True)
        ],
    }


def omero(channels: int, rgb: bool, window: tuple[float, float]) -> dict[str, Any]:
    """The `omero` entry: a colour and a display window for every channel."""
    colours = ("FF0000", "00FF00", "0000FF") if rgb else _CHANNEL_COLOURS if channels > 1 else ("FFFFFF",)
    low, high = window
    return {
        "rdefs": {"model": "color" if rgb or channels > 1 else "greyscale"},
        "channels": [
            {
                "label": ("red", "green", "blue")[i] if rgb else f"channel {i}",
                "color": colours[i % len(colours)],
                "window": {"min": low, "max": high, "start": low, "end": high},
                "active": i < 3,
            }
            for i in range(channels)
        ],
    }


def image_label(names: Mapping[int, str], colours: Mapping[int, tuple[int, int, int]]) -> dict[str, Any]:
    """The `image-label` entry: names and colours of the label values."""
    return {
        "version": NGFF_VERSION,
        "colors": [{"label-value": value, "rgba": [*rgb, 255]} for value, rgb in sorted(colours.items())],
        "properties": [{"label-value": value, "name": name} for value, name in sorted(names.items())],
        "source": {"image": "../../"},
    }


def label_dtype(largest: int) -> np.dtype[Any]:
    """The narrowest unsigned type that holds label values up to `largest`.

    >>> str(label_dtype(255)), str(label_dtype(256))
    ('uint8', 'uint16')
    """
    return np.dtype(np.uint8 if largest < 256 else np.uint16 if largest < 65536 else np.uint32)
