"""What a window needs to show a section, read in one go: it is read beside the window, which only draws it."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.brains import Label, Section
from cytoarch.errors import CytoarchError
from cytoarch.images.views import StoredImage
from cytoarch.interactive.regions import Layout
from cytoarch.interactive.session import Session
from cytoarch.steps.colours import ColoursStep
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.parcellations import ParcellationStep
from cytoarch.steps.sections import LABELS, SECTION
from cytoarch.steps.step import MissingInputError, Place, Stored

UInt8 = NDArray[np.uint8]


class Known(NamedTuple):
    """An image of the store that can be shown over a section."""

    name: str
    image: StoredImage
    labels: tuple[Label, ...] = ()
    """What its values mean; blank: it is a picture."""


class Opened(NamedTuple):
    """A section that can be drawn on."""

    section: Section
    layout: Layout
    known: tuple[Known, ...]
    """Labels, PCA maps and parcellations of the store."""


def opened(session: Session, section_id: str) -> Opened:
    """A section with all that is known of it. Raises StoreError if it is not in the store, SectionError if damaged."""
    section = session.brain.rows[section_id]
    return Opened(section, session.blocks.layout(section_id), tuple(_known(session.brain, section)))


def first_opened(session: Session) -> tuple[Opened | None, dict[str, str]]:
    """The first section that can be drawn on, and why those before it cannot be."""
    refused: dict[str, str] = {}
    for section in session.sections:
        try:
            return opened(session, section.section_id), refused
        except CytoarchError as error:
            refused[section.section_id] = str(error)
    return None, refused


def _known(brain: OpenBrain, section: Section) -> Iterator[Known]:
    """Labels, PCA maps and parcellations of a section."""
    place, section_id = Place(brain, section), section.section_id
    catalogue, table = brain.catalogue, brain.brain.label_table
    if table is not None and catalogue.record(LABELS.product(section_id)) is not None:
        yield Known("labels", LABELS.open(place), table.labels)
    for name in catalogue.names(ColoursStep.step):
        colours = Stored(ColoursStep, name)
        if catalogue.record(colours.product(section_id)) is not None:
            yield Known(f"PCA {name}{_age(place, colours)}", colours.open(place))
    for name in catalogue.names(ParcellationStep.step):
        maps = Stored(ParcellationStep, name)
        if table is not None and catalogue.record(maps.product(section_id)) is not None:
            yield Known(f"parcellation {name}{_age(place, maps)}", maps.open(place).labels, table.labels)


def _age(place: Place, stored: Stored[Any]) -> str:
    """What to say of a product that is older than what it was made from; blank: it is current."""
    try:
        stored.record(place)
    except MissingInputError:
        return " (outdated)"
    return ""


def small_pictures(session: Session, section_ids: Iterable[str], edge_px: int) -> Iterator[tuple[str, UInt8 | str]]:
    """Small pictures of sections, or why there is none, one by one."""
    for one in section_ids:
        try:
            yield one, small_picture(SECTION.open(Place(session.brain, session.brain.rows[one])), edge_px)
        except CytoarchError as error:
            yield one, str(error)


def small_picture(image: StoredImage, edge_px: int) -> UInt8:
    """A picture (y, x, 3) of a section from the coarsest level that is large enough; its longer edge is about so long.

    Raises SectionError if it is damaged.
    """
    fitting = [one for one in image.levels if max(one.size) >= edge_px]
    pixels = (fitting[-1] if fitting else image.levels[0]).pixels()
    planes = pixels if pixels.ndim == 3 else pixels[None]
    step = max(1, max(planes.shape[1:]) // edge_px)
    planes = planes[: 3 if len(planes) == 3 else 1, ::step, ::step]
    if planes.dtype != np.uint8:
        planes = (planes / max(float(planes.max()), 1.0) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(np.broadcast_to(planes, (3, *planes.shape[1:])), 0, -1))
