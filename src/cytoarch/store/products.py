"""What the store can hold, and where."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cytoarch.errors import StoreError
from cytoarch.paths import is_id

Step = Literal[
    "sections",
    "labels",
    "tissue",
    "embeddings",
    "points",
    "colours",
    "training",
    "probabilities",
    "parcellations",
    "clusters",
    "quality",
    "report",
    "annotations",
]
"""What a product is. Sections and their labels are inputs in our format; annotations are human work, which is kept as
it is; all else is derived from them."""

WHOLE_BRAIN = "_brain"
"""Stands in place of a section id in products that belong to the brain as a whole."""


@dataclass(frozen=True)
class Product:
    """One thing the store can hold: a step's result under a name, for one section or the whole brain."""

    brain_id: str
    step: Step
    name: str
    section_id: str = WHOLE_BRAIN

    def __post_init__(self) -> None:
        for text in (self.brain_id, self.name, self.section_id):
            if not is_id(text) and text != WHOLE_BRAIN:
                raise StoreError(f"{text!r} cannot be part of an address; letters, digits, '.', '_' and '-' are needed")

    @property
    def key(self) -> str:
        """The folder of the product, relative to the folder of its brain."""
        if self.step == "sections":
            return f"sections.ome.zarr/{self.section_id}"
        if self.step == "labels":
            return f"sections.ome.zarr/{self.section_id}/labels"
        if self.step == "report":
            return "report"
        if self.step == "annotations":
            return f"annotations/{self.name}/{self.section_id}"
        return f"derived/{self.step}/{self.name}/{self.section_id}"

    @property
    def guests(self) -> tuple[str, ...]:
        """Folders of other products inside this one's."""
        return ("labels",) if self.step == "sections" else ()


PRODUCT_FOLDERS = {"sections.ome.zarr": 2, "derived": 4, "report": 1, "annotations": 3}
"""The folders of a brain that hold products, and of how many parts the keys of these are."""


def product_folder(file_key: str) -> str:
    """The key of the product that a file of a brain belongs to, by its place; blank: to none.

    >>> product_folder("derived/tissue/otsu/s1/mask.png"), product_folder("sections.ome.zarr/s1/labels/zarr.json")
    ('derived/tissue/otsu/s1', 'sections.ome.zarr/s1/labels')
    >>> product_folder("sections.ome.zarr/OME/zarr.json"), product_folder("brain.json")
    ('', '')
    """
    parts = file_key.split("/")
    if parts[0] not in PRODUCT_FOLDERS or parts[:2] == ["sections.ome.zarr", "OME"]:
        return ""
    depth = PRODUCT_FOLDERS[parts[0]] + (parts[0] == "sections.ome.zarr" and parts[2:3] == ["labels"])
    return "/".join(parts[:depth]) if len(parts) > depth else ""


@dataclass(frozen=True)
class Work:
    """What a product is made from: enough to name its fingerprint before it is made."""

    version: int
    inputs: Mapping[str, str]
    """Digests of everything read, by what it is."""
    settings: Mapping[str, Any]
    """JSON values of everything set."""
