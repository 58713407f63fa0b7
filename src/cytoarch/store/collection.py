"""The sections of a brain as one NGFF collection: the layout of bioformats2raw, version 3."""

from pathlib import Path
from typing import Any

from cytoarch.brains import Brain
from cytoarch.store.brain_store import write_group
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.products import PLACES

NGFF_VERSION = "0.5"
COLLECTION = ("sections.ome.zarr/zarr.json", "sections.ome.zarr/OME/zarr.json")
"""The files of the collection itself."""


def collection_groups(catalogue: Catalogue, brain: Brain) -> dict[Path, dict[str, Any]]:
    """The groups of a brain's collection and their attributes: the committed sections in cutting order."""
    committed = {one for name in catalogue.names("sections") for one in catalogue.section_ids("sections", name)}
    series = [section.section_id for section in brain.kept if section.section_id in committed]
    folder = catalogue.folder / PLACES["sections"].split("/")[0]
    return {
        folder: {"ome": {"version": NGFF_VERSION, "bioformats2raw.layout": 3}},
        folder / "OME": {"ome": {"version": NGFF_VERSION, "series": series}},
    }


def write_collection(catalogue: Catalogue, brain: Brain) -> None:
    """Write the metadata of a brain's collection of sections."""
    for folder, attributes in collection_groups(catalogue, brain).items():
        write_group(folder, attributes)
