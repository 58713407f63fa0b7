"""The classes of a drawing: added with colours that anybody tells apart, taken from another table, changed."""

from pathlib import Path
from typing import NamedTuple

from cytoarch.brains import Label, LabelTable
from cytoarch.errors import StoreError
from cytoarch.palette import hex_colour
from cytoarch.steps.annotations import STEP, Scribbled
from cytoarch.steps.opened import read_only
from cytoarch.steps.step import Place
from cytoarch.store.brain_store import BrainStore

Labels = tuple[Label, ...]

OKABE_ITO = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
"""Colours that people with any colour vision tell apart (Okabe and Ito 2008); the first classes get them."""


class ClassSource(NamedTuple):
    """Where classes can be taken from: the label table of a brain, or what somebody drew on it."""

    brain_id: str
    author: str = ""
    """Blank: the brain's own table."""

    @property
    def name(self) -> str:
        """What a person reads."""
        return f"of {self.author} on brain {self.brain_id}" if self.author else f"of brain {self.brain_id}"

    @classmethod
    def there(cls, store_path: Path) -> list["ClassSource"]:
        """All that a store holds; those of damaged brains are left out."""
        found: list[ClassSource] = []
        for brain_id in BrainStore(store_path).brain_ids():
            try:
                brain = read_only(store_path, brain_id)
            except StoreError:
                continue
            found += [cls(brain_id)] if brain.brain.label_table is not None else []
            found += [cls(brain_id, author) for author in brain.catalogue.names(STEP)]
        return found

    def table(self, store_path: Path) -> LabelTable:
        """The classes. Raises StoreError if they are not there any more."""
        brain = read_only(store_path, self.brain_id)
        if self.author:
            return Scribbled.of(brain, self.author).open(Place(brain)).table
        if brain.brain.label_table is None:
            raise StoreError(f"brain {self.brain_id} has no label table; choose another source")
        return brain.brain.label_table


def added(labels: Labels, name: str, colour: str | None = None) -> Labels:
    """These and, as the last one, a new class with the next free number, and a colour that the others do not have."""
    used = {(one.colour or "").lower() for one in labels}
    spare = [hex_colour(one) for one in OKABE_ITO if hex_colour(one) not in used]
    taken = {one.id for one in labels}
    return (*labels, Label(id=_free(taken), name=name, colour=colour or (spare[0] if spare else None)))


def joined(labels: Labels, others: Labels) -> Labels:
    """These and those of others (an atlas's, or another brain's) whose names are not there yet.

    A class keeps its number where that is free.
    """
    names, taken = {one.name for one in labels}, {one.id for one in labels}
    found = list(labels)
    for one in others:
        if one.name not in names:
            number = one.id if one.id not in taken else _free(taken)
            taken.add(number)
            found.append(one.model_copy(update={"id": number}))
    return tuple(found)


def merged(labels: Labels, base: Labels, later: Labels) -> tuple[Labels, dict[int, int]]:
    """These and what a later table has that both come from a base; and the number here of each number of the later.

    A class of the base is the same whatever it is called by now. Others are told by their names; one keeps its number
    where that is free.
    """
    own, known = {one.id for one in labels}, {one.id for one in base}
    kept = [one for one in later if one.id in own & known]
    found = joined(labels, tuple(one for one in later if one not in kept))
    named = {one.name: one.id for one in found}
    return found, {one.id: one.id if one in kept else named[one.name] for one in later}


def changed(labels: Labels, label_id: int, name: str | None = None, colour: str | None = None) -> Labels:
    """The same with another name or colour of one class. Raises StoreError if there is no such class."""
    said = {key: value for key, value in (("name", name), ("colour", colour)) if value}
    if label_id not in {one.id for one in labels}:
        raise StoreError(f"there is no class {label_id}; there are {sorted(one.id for one in labels)}")
    return tuple(Label.model_validate({**one.model_dump(), **said}) if one.id == label_id else one for one in labels)


def _free(taken: set[int]) -> int:
    return next(number for number in range(1, 65536) if number not in taken)
