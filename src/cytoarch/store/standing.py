"""How a brain stands: what is current, what is missing or older than what it was made from, and what that costs."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cytoarch.brains import Brain
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.durations import Duration, seconds_each
from cytoarch.store.products import WHOLE_BRAIN
from cytoarch.store.records import Record

OF_LABELLED = ("labels", "agreement")
"""Steps that apply to sections with labels only."""
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

    @property
    def due(self) -> int:
        """How many a run would make."""
        return self.stale + self.missing + self.damaged

    @property
    def due_bytes(self) -> int:
        """How much room those that are missing will take, as the others do."""
        made = self.current + self.stale
        return round(self.nbytes / made * self.missing) if made else 0


class Cost(NamedTuple):
    """What a run would take."""

    seconds: float | None
    """None: nothing was ever timed in this store."""
    nbytes: int


def standings(store: BrainStore, brain_id: str) -> list[Standing]:
    """How the products of a brain stand, by step and name. Raises StoreError if the brain is not in the store."""
    brain, catalogue = store.read_brain(brain_id), store.catalogue(brain_id)
    found: dict[tuple[str, str], list[Record]] = {}
    for record in catalogue.records():
        found.setdefault((record.step, record.name), []).append(record)
    rows = [_standing(brain, catalogue, records) for records in found.values()]
    if ("sections", "scan") not in found and not any(step == "sections" for step, _ in found):
        rows.append(Standing("sections", "", 0, 0, len(brain.kept), 0, 0))
    return sorted(rows, key=lambda one: (one.step != "sections", one.step, one.name))


def cost(rows: Iterable[Standing], durations: Iterable[Duration]) -> Cost:
    """What it takes to make what is due, at the speed that this store's machines had; steps run together count once."""
    due: dict[str, int] = {}
    room = 0
    for row in rows:
        due[row.step] = max(due.get(row.step, 0), row.due)
        room += row.due_bytes
    each = seconds_each(durations)
    seconds = sum(spent * max((due.get(step, 0) for step in steps), default=0) for steps, spent in each.items())
    return Cost(seconds if each else None, room)


def _standing(brain: Brain, catalogue: Catalogue, records: list[Record]) -> Standing:
    current = stale = damaged = 0
    for record in records:
        committed = catalogue.record(record.product)
        if committed is None:
            damaged += 1
        elif catalogue.outdated(committed):
            stale += 1
        else:
            current += 1
    step, name = records[0].step, records[0].name
    sections = {record.section for record in records}
    wanted = set() if sections == {WHOLE_BRAIN} else _wanted(brain, step)
    nbytes = sum(seal.size_bytes for record in records for seal in record.files.values())
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
