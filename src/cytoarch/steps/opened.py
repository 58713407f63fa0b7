"""Brains and studies open for a run: the lock is held, records are read once, and what has failed is known."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from cytoarch.brains import Brain, Section
from cytoarch.digests import values_digest
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.catalogue import Catalogue


@dataclass
class OpenHome:
    """A brain or study of the store, open for a run."""

    store: BrainStore
    catalogue: Catalogue
    name: str
    """What it is called in errors: `brain B07`."""

    @property
    def lock_handle(self) -> int | None:
        """The open file of its lock: who is given it too keeps it locked."""
        lock = self.store.held(self.catalogue.folder)
        return lock.handle if lock else None

    @property
    def ticket(self) -> str:
        """What lets processes that work on this run's behalf join its lock; blank: it is not locked."""
        lock = self.store.held(self.catalogue.folder)
        return lock.ticket if lock else ""


@dataclass
class OpenBrain(OpenHome):
    """A brain of the store, open for a run."""

    brain: Brain
    failed: dict[str, str] = field(default_factory=dict)
    """Sections that could not be processed in this run -> reason. What earlier runs made of them is not used."""
    skipped: frozenset[str] = frozenset()
    """Sections that were asked to be left out."""

    @property
    def brain_id(self) -> str:
        """The brain's name."""
        return self.brain.brain_id

    @cached_property
    def rows(self) -> Mapping[str, Section]:
        """The rows of the manifest by section."""
        return {section.section_id: section for section in self.brain.sections}

    @cached_property
    def order(self) -> Mapping[str, int]:
        """The place of every section among the rows, in cutting order."""
        return {section.section_id: place for place, section in enumerate(self.brain.sections)}

    @cached_property
    def table_digest(self) -> str:
        """sha256 of the label table."""
        table = self.brain.label_table
        return values_digest(table.model_dump(mode="json") if table else None)

    @property
    def sections(self) -> tuple[Section, ...]:
        """The sections at work, in cutting order: neither excluded, nor to be skipped, nor failed in this run."""
        return tuple(
            one for one in self.brain.kept if one.section_id not in self.failed and one.section_id not in self.skipped
        )


@dataclass
class OpenStudy(OpenHome):
    """A study of the store, open for a run."""

    study: str
    _brains: dict[str, OpenBrain] = field(default_factory=dict)

    def brain(self, brain_id: str) -> OpenBrain:
        """A brain to read from. Raises StoreError, listing the brains there are, if it is not there."""
        if brain_id not in self._brains:
            self._brains[brain_id] = read_only(self.store.root, brain_id)
        return self._brains[brain_id]


H = TypeVar("H", bound=OpenHome)

_open: ContextVar[Mapping[Path, OpenHome]] = ContextVar("open", default=MappingProxyType({}))
"""What this run has open: a flow that calls another shares it with that."""


@contextmanager
def open_brain(store_path: Path, brain: str | Brain) -> Iterator[OpenBrain]:
    """Open a brain for writing; one that this run has open is shared.

    `brain` is the name of one that is in the store, or what a manifest states of one, which is remembered there.
    Raises BrainBusyError, naming the holder, if another live run has it; StoreError, listing the brains there are, if
    it is not there.
    """
    store = BrainStore(store_path)
    brain_id = brain if isinstance(brain, str) else brain.brain_id
    shared = shared_brain(store_path, brain_id)
    if shared is not None:
        yield shared
        return
    with store.lock_existing(brain_id) if isinstance(brain, str) else store.lock(brain_id):
        if isinstance(brain, Brain):
            store.write_brain(brain)
        stated = store.read_brain(brain_id) if isinstance(brain, str) else brain
        with _entered(OpenBrain(store, store.catalogue(brain_id), f"brain {brain_id}", stated)) as opened:
            yield opened


def shared_brain(store_path: Path, brain_id: str) -> OpenBrain | None:
    """The brain as this run has it open, if it has."""
    shared = _open.get().get(_key(BrainStore(store_path).brain_path(brain_id)))
    return shared if isinstance(shared, OpenBrain) else None


@contextmanager
def join_brain(store_path: Path, brain_id: str, ticket: str) -> Iterator[OpenBrain]:
    """The brain as this run has it open; in a process that works on the run's behalf, opened there by its ticket.

    Raises BrainBusyError if that run no longer has it.
    """
    store = BrainStore(store_path)
    shared = shared_brain(store_path, brain_id)
    if shared is not None:
        yield shared
        return
    with store.join(brain_id, ticket):
        stated = store.read_brain(brain_id)
        with _entered(OpenBrain(store, store.catalogue(brain_id), f"brain {brain_id}", stated)) as opened:
            yield opened


def read_only(store_path: Path, brain_id: str) -> OpenBrain:
    """A brain to read from, without its lock. Raises StoreError, listing the brains there are, if it is not there."""
    store = BrainStore(store_path)
    return OpenBrain(store, store.catalogue(brain_id), f"brain {brain_id}", store.read_brain(brain_id))


@contextmanager
def open_study(store_path: Path, study: str) -> Iterator[OpenStudy]:
    """Open a study for writing, made where it is not there; one that this run has open is shared.

    Raises BrainBusyError, naming the holder, if another live run has it.
    """
    store = BrainStore(store_path)
    folder = store.study_path(study)
    shared = _open.get().get(_key(folder))
    if isinstance(shared, OpenStudy):
        yield shared
        return
    with store.lock_study(study), _entered(OpenStudy(store, Catalogue(folder), f"study {study}", study)) as opened:
        yield opened


@contextmanager
def _entered(home: H) -> Iterator[H]:
    key = _key(home.catalogue.folder)
    token = _open.set(MappingProxyType({**_open.get(), key: home}))
    try:
        yield home
    finally:
        _open.reset(token)


def _key(folder: Path) -> Path:
    return folder.resolve()
