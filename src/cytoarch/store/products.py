"""What the store can hold, and where: the address of a product, and what it is made from."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from cytoarch.errors import StoreError
from cytoarch.paths import is_id

DERIVED = "derived/{step}/{name}/{section}"
"""Where the products of a step lie in the folder of their brain or study."""

PLACES: Mapping[str, str] = {
    "labels": "sections.ome.zarr/{section}/labels",
    "sections": "sections.ome.zarr/{section}",
    "annotations": "annotations/{name}/{section}",
    "report": "report",
}
"""The steps whose products lie where people and viewers look for them: pixels, labels, human work, the report."""

WHOLE_BRAIN = "_brain"
"""Stands in place of a section id in products that belong to a brain or study as a whole."""

MOST_REMEMBERED = 1 << 14
"""Products of a step and name that are remembered at most."""


@dataclass(frozen=True, slots=True)
class Product:
    """One thing the store can hold: a step's result under a name, for one section or for the whole."""

    step: str
    name: str
    section_id: str = WHOLE_BRAIN
    family: str = field(init=False, repr=False, compare=False)
    """The step and name: what it shares with the products of other sections."""

    def __post_init__(self) -> None:
        for text in (self.step, self.name, self.section_id):
            if not is_id(text) and text != WHOLE_BRAIN:
                raise StoreError(f"{text!r} cannot be part of an address; letters, digits, '.', '_' and '-' are needed")
        object.__setattr__(self, "family", sys.intern(f"{self.step}/{self.name}"))

    @property
    def address(self) -> str:
        """The step, name and section: what tells it from every other product of its brain or study."""
        return f"{self.family}/{self.section_id}"

    @property
    def key(self) -> str:
        """The folder of the product, relative to that of its brain or study.

        >>> Product("tissue", "slide", "s1").key, Product("labels", "manifest", "s1").key
        ('derived/tissue/slide/s1', 'sections.ome.zarr/s1/labels')
        """
        place = PLACES.get(self.step, DERIVED)
        return place.format(step=self.step, name=self.name, section=self.section_id)

    @property
    def is_human(self) -> bool:
        """Whether it is human work, which is never made again."""
        return self.step == "annotations"

    @property
    def guests(self) -> tuple[str, ...]:
        """Folders of other products inside this one's."""
        return ("labels",) if self.step == "sections" else ()


def product_of(step: str, name: str, section_id: str = WHOLE_BRAIN) -> Product:
    """The product, made once: a run over thousands of sections asks for each many times."""
    family = _family(step, name)
    product = family.get(section_id)
    if product is None:
        if len(family) >= MOST_REMEMBERED:
            family.clear()
        product = family[section_id] = Product(step, name, section_id)
    return product


@lru_cache(256)
def _family(step: str, name: str) -> dict[str, Product]:  # noqa: ARG001 - one for each
    """Products that were asked for, by section: a third of the memory that a cache of all three parts takes."""
    return {}


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile("(" + re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template)) + ")/.")


# in this order, since labels lie inside sections
_PATTERNS = tuple(map(_pattern, (*PLACES.values(), DERIVED)))
FOLDERS = tuple(dict.fromkeys(place.split("/")[0] for place in (*PLACES.values(), DERIVED)))
"""The folders of a brain or study that hold products."""
_COLLECTION = "sections.ome.zarr/OME/"


def product_folder(file_key: str) -> str:
    """The key of the product that a file of a brain belongs to, by its place; blank: to none.

    >>> product_folder("derived/tissue/slide/s1/mask.png"), product_folder("sections.ome.zarr/s1/labels/zarr.json")
    ('derived/tissue/slide/s1', 'sections.ome.zarr/s1/labels')
    >>> product_folder("sections.ome.zarr/OME/zarr.json"), product_folder("brain.json")
    ('', '')
    """
    if file_key.startswith(_COLLECTION):
        return ""
    found = (pattern.match(file_key) for pattern in _PATTERNS)
    return next((match.group(1) for match in found if match), "")


@dataclass(frozen=True)
class Work:
    """What a product is made from: enough to name its fingerprint before it is made."""

    version: int
    inputs: Mapping[str, str]
    """Digests of everything read, by what it is."""
    settings: Mapping[str, Any]
    """JSON values of everything set."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Addresses of those inputs that are products of the same brain or study."""
    view: bool = False
    """Whether the product only shows what others hold: views are no part of a brain's content digest."""
