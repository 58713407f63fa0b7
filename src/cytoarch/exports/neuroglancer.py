"""What neuroglancer is told to show: the scan of a section under its maps, with names and colours."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from cytoarch.exports.legends import Legend
from cytoarch.images.views import StoredImage, intensity_range

PUBLIC_CLIENT = "https://neuroglancer-demo.appspot.com"
_VALUES = ", ".join(f"toNormalized(getDataValue({channel}))" for channel in range(3))
RGB_SHADER = f"void main() {{ emitRGB(vec3({_VALUES})); }}"
GREY_SHADER = "#uicontrol invlerp normalized(range=[{low}, {high}])\nvoid main() {{ emitGrayscale(normalized()); }}"

METRES = 1e-6
"""Places are in um."""
CHANNELS = {"c^": [1, ""]}
"""The axis of channels, as one that shaders read."""

FROM_CYX = [[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]]
"""Channel, x and y, in the order of their names, from the axes of a scan: names may be sorted on the way."""

Layers = Mapping[str, tuple[str, Legend, str | None]]
"""Kind of map -> address of its label image, what its values mean, address of their names (or None)."""


def section_state(section_id: str, image: StoredImage, scan_url: str, layers: Layers) -> dict[str, Any]:
    """The state that shows a section: its scan, and every map as a layer of segments over it; the first one is seen."""
    height_um, width_um = image.extent_um
    middle = [width_um, height_um]
    shown = [_scan_layer(image, scan_url)]
    shown += [_map_layer(kind, *what, visible=number == 0) for number, (kind, what) in enumerate(layers.items())]
    return {
        "title": section_id,
        "dimensions": {"x": [METRES, "m"], "y": [METRES, "m"]},
        "position": [at // 2 for at in middle],
        "crossSectionScale": max(middle) / 1000,
        "projectionScale": max(middle),
        "layers": shown,
        "selectedLayer": {"layer": shown[1]["name"] if len(shown) > 1 else "scan", "visible": True},
        "showAxisLines": False,
        "showDefaultAnnotations": False,
        "layout": "xy",
    }


def _scan_layer(image: StoredImage, url: str) -> dict[str, Any]:
    layer: dict[str, Any] = {"type": "image", "name": "scan", "source": _source(url)}
    if image.attributes.get("kind") == "rgb":  # all channels at once, not one after the other
        named = {"outputDimensions": {**CHANNELS, "x": [METRES, "m"], "y": [METRES, "m"]}, "matrix": FROM_CYX}
        return {
            **layer,
            "source": {"url": _source(url), "transform": named},
            "shader": RGB_SHADER,
            "channelDimensions": CHANNELS,
        }
    low, high = intensity_range(image)[0]
    return {**layer, "shader": GREY_SHADER.format(low=round(low), high=round(high))}


def _map_layer(kind: str, url: str, legend: Legend, names_url: str | None, *, visible: bool) -> dict[str, Any]:
    sources = [_source(url), *([f"{names_url}|neuroglancer-precomputed:"] if names_url else [])]
    return {
        "type": "segmentation",
        "name": kind,
        "source": sources if len(sources) > 1 else sources[0],
        "segments": [str(row.value) for row in legend],
        "segmentColors": {str(row.value): row.hex for row in legend},
        "selectedAlpha": 0.4,
        "tab": "segments",
        "visible": visible,
    }


def _source(url: str) -> str:
    return f"{url}/|zarr3:"


def segment_names(legend: Legend) -> dict[str, Any]:
    """The `info` of the names of segments, in neuroglancer's precomputed format."""
    properties = [{"id": "label", "type": "label", "values": [row.name for row in legend]}]
    if any(row.group for row in legend):
        properties.append({"id": "group", "type": "description", "values": [row.group for row in legend]})
    return {
        "@type": "neuroglancer_segment_properties",
        "inline": {"ids": [str(row.value) for row in legend], "properties": properties},
    }


def state_link(client_url: str, state: Mapping[str, Any]) -> str:
    """The link that opens a state in a neuroglancer.

    >>> state_link("https://example.org", {"title": "s 1"})
    'https://example.org/#!%7B%22title%22%3A%22s%201%22%7D'
    """
    return f"{client_url.rstrip('/')}/#!{quote(json.dumps(state, separators=(',', ':'), sort_keys=True), safe='')}"
