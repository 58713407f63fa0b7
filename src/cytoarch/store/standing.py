"""How a brain stands: what is current, what is missing or older than what it was made from, and what that costs."""

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from cytoarch.brains import Brain
from cytoarch.errors import StoreError
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.durations import Duration, speeds
from cytoarch.store.products import WHOLE_BRAIN, Product
from cytoarch.store.records import read_record

OF_LABELLED = ("labels", "agreement")
"""Steps that apply to sections with labels only."""
OF_LEARNED = ("training",)
"""Steps of brains that have labels."""
OF_DRAWN = ("drawn-tissue",)
"""Steps that apply to sections whose tissue a person drew."""


class Standing(NamedTuple):
    """How the products of one step and name stand."""

    step: str
    name: str
    current: int
    stale: int
    """Made from something that has changed, or been lost, since."""
    missing: int
    """Sections without it."""
    damaged: int
    nbytes: int
    each_bytes: int = 0
    """How much room each will take where there is none yet: what those of another brain take."""

    @property
    def due(self) -> int:
        """How many a run would make."""
        return self.stale + self.missing + self.damaged

    @property
    def due_bytes(self) -> int:
        """How much room those that are missing will take, as the others do."""
        made = self.current + self.stale
        return round(self.nbytes / made * self.missing) if made else self.each_bytes * self.missing


class Cost(NamedTuple):
    """What a run would take."""

    seconds: float | None
    """None: nothing was ever timed in this store."""
    nbytes: int


def standings(store: BrainStore, brain_id: str) -> list[Standing]:
    """How the products of a brain stand, by step and name. Raises StoreError if the brain is not in the store."""
    brain, catalogue = store.read_brain(brain_id), store.catalogue(brain_id)
    found: dict[tuple[str, str], list[Path]] = {}
    for path in catalogue.record_paths():
        found.setdefault((path.parts[-3], path.parts[-2]), []).append(path)
    rows = [_standing(brain, catalogue, *key, paths) for key, paths in found.items()]
    if not any(step == "sections" for step, _ in found):
        rows.append(Standing("sections", "", 0, 0, len(brain.kept), 0, 0))
    return sorted(rows, key=lambda one: (one.step != "sections", one.step, one.name))


def absent(store: BrainStore, brain_id: str, rows: Iterable[Standing], steps: Collection[str]) -> list[Standing]:
    """What a brain has nothing of that mapping it takes: of these steps, as the best mapped other brain has them."""
    has = {one.step for one in rows}
    brain = store.read_brain(brain_id)
    labelled = any(one.labels is not None for one in brain.kept)
    wanted = set(steps) - has - (set() if labelled else {*OF_LABELLED, *OF_LEARNED})
    others = [one for one in store.brain_ids() if one != brain_id] if wanted else []
    like = max((one for one in others), key=lambda one: _mapped(store, one, wanted), default=None)
    if like is None:
        return []
    ratio = _ratio(megapixels_each(store, brain_id), megapixels_each(store, like))
    found = []
    for row in standings(store, like):
        made = row.current + row.stale
        if row.step in wanted and made:
            wanted.discard(row.step)  # of one name
            whole = store.catalogue(like).section_ids(row.step, row.name) == []
            count = 1 if whole else len(_wanted(brain, row.step))
            found.append(Standing(row.step, "", 0, 0, count, 0, 0, round(row.nbytes / made * (1 if whole else ratio))))
    return found


def megapixels_each(store: BrainStore, brain_id: str) -> float:
    """The size of a brain's sections, on average over those that are in the store; 0: none is."""
    catalogue = store.catalogue(brain_id)
    sizes = []
    for name in catalogue.names("sections"):
        for section_id in catalogue.section_ids("sections", name):
            record = catalogue.record(Product("sections", name, section_id))
            shape = record.facts.get("shape") if record is not None else None
            if shape is not None:
                sizes.append(math.prod(shape[-2:]) / 1e6)
    return sum(sizes) / len(sizes) if sizes else 0.0


def cost(rows: Iterable[Standing], durations: Iterable[Duration], mpx_each: float = 0.0) -> Cost:
    """What it takes to make what is due, at the speed that this store's machines had; steps run together count once.

    `mpx_each` is the size of the brain's sections; 0: they are as those that were timed.
    """
    due: dict[str, int] = {}
    room = 0
    for row in rows:
        due[row.step] = max(due.get(row.step, 0), row.due)
        room += row.due_bytes
    known = speeds(durations)
    seconds = sum(
        speed.seconds(max((due.get(step, 0) for step in steps), default=0), mpx_each) for steps, speed in known.items()
    )
    return Cost(seconds if known else None, room)


def _mapped(store: BrainStore, brain_id: str, steps: Collection[str]) -> tuple[int, int]:
    """How many of the steps a brain has products of, and of how many sections."""
    catalogue = store.catalogue(brain_id)
    sections = [one for name in catalogue.names("sections") for one in catalogue.section_ids("sections", name)]
    return sum(bool(catalogue.names(step)) for step in steps), len(sections)


def _ratio(ours: float, theirs: float) -> float:
    return ours / theirs if ours and theirs else 1.0


def _standing(brain: Brain, catalogue: Catalogue, step: str, name: str, paths: Iterable[Path]) -> Standing:
    """How the products stand whose records lie there; one whose record cannot be read is damaged."""
    current = stale = damaged = nbytes = 0
    sections = set()
    for path in paths:
        sections.add(path.stem)
        try:
            record = read_record(path)
        except StoreError:
            damaged += 1
            continue
        nbytes += sum(seal.size_bytes for seal in record.files.values())
        committed = catalogue.record(record.product)
        if committed is None:
            damaged += 1
        elif catalogue.outdated(committed):
            stale += 1
        else:
            current += 1
    wanted = set() if sections == {WHOLE_BRAIN} else _wanted(brain, step)
    return Standing(step, name, current, stale, len(wanted - sections), damaged, nbytes)


def _wanted(brain: Brain, step: str) -> set[str]:
    """The sections that have a product of a step once all is made."""
    kept = brain.kept
    if step in OF_LABELLED:
        kept = tuple(one for one in kept if one.labels is not None)
    if step in OF_DRAWN:
        kept = tuple(one for one in kept if one.tissue_path is not None)
    return {one.section_id for one in kept}


def total(rows: Iterable[Standing]) -> Mapping[str, int]:
    """The sums over all products."""
    listed = list(rows)
    return {name: sum(getattr(one, name) for one in listed) for name in ("current", "stale", "missing", "damaged")}
