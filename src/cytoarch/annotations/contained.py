"""What a child process does with files of drawings that come from outside: it reads one and tells the scribbles."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cytoarch.annotations.exchange import Drawer, scribbles_in, scribbles_in_image
from cytoarch.brains import LabelTable, stated_section
from cytoarch.images.scans import DRAWN_SUFFIXES
from cytoarch.progress import Progress


def scribbles_work(arguments: Mapping[str, Any], _on_progress: Progress) -> dict[str, Any]:
    """Contained work: a GeoJSON file or label image named as JSON; gives its scribbles as JSON."""
    path, table = Path(arguments["file"]), LabelTable.model_validate(arguments["table"])
    drawer = Drawer(**arguments["drawer"])
    if path.suffix.lower() in DRAWN_SUFFIXES:
        found = scribbles_in(path, table, drawer, arguments["width_px"])
    else:
        section = stated_section(drawer.section_id, arguments["section"])
        with TemporaryDirectory() as scratch:
            size = arguments["size"][0], arguments["size"][1]
            found = scribbles_in_image(path, table, section, drawer, Path(scratch), size)
    return {"scribbles": [one.model_dump(mode="json") for one in found]}
