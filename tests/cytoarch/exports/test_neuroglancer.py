"""What neuroglancer is told to show; `tests/flows/test_viewing.py` looks at it."""

from typing import Any

import numpy as np

from cytoarch.exports.legends import LegendRow
from cytoarch.exports.neuroglancer import section_state, state_link
from cytoarch.images.views import Level, StoredImage

LEGEND = (LegendRow(3, "cortex", (255, 0, 0)), LegendRow(7, "white matter", (0, 0, 255)))


def image_of(kind: str, channels: int) -> StoredImage:
    pixels: Any = np.arange(channels * 20 * 30, dtype=np.uint16).reshape(channels, 20, 30)
    return StoredImage((Level(pixels, 10.0, 0.0),), {"kind": kind})


def test_the_channels_of_a_colour_scan_are_shown_at_once_and_its_axes_stay_what_they_are() -> None:
    """Names of axes may be sorted on the way: the matrix says which is which."""
    scan, *_ = section_state("s1", image_of("rgb", 3), "http://h/s1", {})["layers"]
    named = scan["source"]["transform"]
    outputs = list(named["outputDimensions"])
    assert outputs == sorted(outputs) == ["c^", "x", "y"]
    channel, y, x = 2.0, 5.0, 7.0
    np.testing.assert_array_equal(np.array(named["matrix"]) @ [channel, y, x, 1], [channel, x, y])
    assert scan["channelDimensions"] == {"c^": [1, ""]}
    assert scan["source"]["url"] == "http://h/s1/|zarr3:"


def test_a_grey_scan_is_shown_in_the_range_of_its_values_and_the_first_map_over_it() -> None:
    layers = {"areas": ("http://h/a", LEGEND, "http://h/names"), "clusters": ("http://h/c", LEGEND, None)}
    state = section_state("s1", image_of("grey", 1), "http://h/s1", layers)
    scan, areas, clusters = state["layers"]
    assert scan["source"] == "http://h/s1/|zarr3:"
    assert "range=[3, 596]" in scan["shader"]
    assert (areas["visible"], clusters["visible"]) == (True, False)
    assert areas["segmentColors"] == {"3": "#ff0000", "7": "#0000ff"}
    assert areas["source"] == ["http://h/a/|zarr3:", "http://h/names|neuroglancer-precomputed:"]
    assert state["position"] == [150, 100], "x, y: the middle"
    assert state["selectedLayer"]["layer"] == "areas"
    assert state_link("http://h/v/1", state).startswith("http://h/v/1/#!%7B")
