"""What a product is, declared once: where it lives, from what it is made, how it is written and how it is opened.

A step is a frozen dataclass. Its fields are all that its `write` can read: fields that are sources are its inputs, all
others its settings, and both together decide whether a product is current. A field made with `conduct` says how the
work is done and not what comes out (a device, a number of threads); settings models name such fields in a class
variable `CONDUCT`.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel

from cytoarch.brains import Section
from cytoarch.digests import canonical_json
from cytoarch.errors import SectionError, StoreError
from cytoarch.progress import Progress
from cytoarch.steps.opened import OpenBrain, OpenHome
from cytoarch.store.products import WHOLE_BRAIN, Product, Work, product_of
from cytoarch.store.records import Committed, fingerprint_of
from cytoarch.store.staging import Staging

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Scope = Literal["section", "brain", "study"]
Facts = Mapping[str, Any]
"""Small JSON values about a product, kept in its record."""


class MissingInputError(StoreError):
    """What a step is made from is not in the store, or is itself older than what it was made from."""


class ChangedInputError(SectionError):
    """An input turned out to be damaged and was noted as such: what is made is made of others, and is begun anew."""


class Place(NamedTuple):
    """Where a product is made: in an open brain or study, for one section or for the whole."""

    home: OpenHome
    section: Section | None = None

    @property
    def section_id(self) -> str:
        """The section's id, or what stands in its place."""
        return self.section.section_id if self.section else WHOLE_BRAIN

    @property
    def brain(self) -> OpenBrain:
        """The open brain. Raises TypeError in a study."""
        if not isinstance(self.home, OpenBrain):
            raise TypeError("a study is no brain: ask for a brain's products with `OfBrain`")
        return self.home


class Source(ABC, Generic[T_co]):
    """Something that steps are made from. If its digests are the same as before, so is what it holds."""

    @abstractmethod
    def digests(self, place: Place) -> Mapping[str, str]:
        """The digest of each of its parts as it is now; the key is blank where it has no parts.

        Raises MissingInputError or SectionError if it is not there.
        """

    @abstractmethod
    def open(self, place: Place) -> T_co:
        """What `write` gets."""

    def known_digests(self, place: Place) -> Mapping[str, str] | None:
        """The digests, if they can be told without reading large files such as a scan; else None."""
        try:
            return self.digests(place)
        except (MissingInputError, SectionError):
            return None

    def addresses(self, place: Place) -> Mapping[str, str]:  # noqa: ARG002 - for sources that are products
        """The address of each part that is a committed product of the same brain or study."""
        return {}


def conduct(default: Any) -> Any:
    """A field of a step that says how its work is done, not what comes out."""
    return dataclasses.field(default=default, metadata={"conduct": True})


class Inputs:
    """What `write` is handed: the declared inputs, opened as they are asked for, and how to tell how far it is."""

    def __init__(self, step: "Step[Any]", place: Place, on_progress: Progress, threads: int = 1) -> None:
        self._place, self._declared = place, frozenset(step.sources.values())
        self.folder = place.home.catalogue.path(step.product(place.section_id))
        """Where the product will lie: pages refer to other products from there."""
        self.on_progress = on_progress
        self.threads = threads
        """Threads that the work may take for itself."""

    def __getitem__(self, source: Source[T]) -> T:
        """What a declared source holds. Raises LookupError for any other."""
        if source not in self._declared:
            raise LookupError(f"{source} is no input of this step: make it one of its fields")
        return source.open(self._place)

    @property
    def name(self) -> str:
        """The section's id: a name for what is written, and no more."""
        return self._place.section_id

    @property
    def held(self) -> int | None:
        """The open file of the lock, for processes that write on this run's behalf."""
        return self._place.home.lock_handle


@dataclass(frozen=True)
class Step(ABC, Generic[T_co]):
    """A product, declared. Subclasses are frozen dataclasses that set the class variables and write and open it."""

    step: ClassVar[str]
    """The first part of its address, and its word in records."""
    version: ClassVar[int] = 1
    """Raised when the same inputs and settings give another output."""
    scope: ClassVar[Scope] = "section"
    view: ClassVar[bool] = False
    """Whether it only shows what other products hold."""
    verb: ClassVar[str]
    """What making it is called, in runs, progress and errors: `embed`."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name under which its products are kept."""

    @abstractmethod
    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Fill the staging folder from the inputs; returns facts for the record. SectionError costs the section."""

    @classmethod
    @abstractmethod
    def opened(cls, folder: Path) -> T_co:
        """A committed product, read back."""

    def applies(self, section: Section) -> bool:  # noqa: ARG002 - for steps that do not apply to every section
        """Whether a section has such a product; where it has not, one that is there is removed."""
        return True

    @property
    def stored(self) -> "Stored[T_co]":
        """Its products as an input of other steps."""
        return Stored(type(self), self.name)

    @cached_property
    def sources(self) -> Mapping[str, Source[Any]]:
        """Its inputs by field."""
        return {one: value for one, value in self._fields() if isinstance(value, Source)}

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """All that is set and decides the result, as JSON values."""
        decided = ((one, value) for one, value in self._fields() if not isinstance(value, Source))
        return {one: _plain(value) for one, value in decided if value is not None}

    def product(self, section_id: str = WHOLE_BRAIN) -> Product:
        """Where the product of a section, or of the whole, lives."""
        return product_of(self.step, self.name, section_id)

    def work(self, place: Place) -> Work:
        """What the product would be made from now; raises MissingInputError or SectionError if that is not there."""
        inputs: dict[str, str] = {}
        addresses: dict[str, str] = {}
        for name, source in self.sources.items():
            own = _labelled(name, source.digests(place))
            inputs |= own
            told = _labelled(name, source.addresses(place))  # of what was there by now, which may be more
            addresses |= {label: address for label, address in told.items() if label in own}
        return Work(self.version, inputs, self.settings, addresses, self.view)

    def known_fingerprint(self, place: Place) -> str | None:
        """That of this work; None if an input is not there, or large files would have to be read to tell."""
        try:
            return fingerprint_of(self.step, self.version, self._known_inputs(place), self._settings_json)
        except MissingInputError:
            return None

    def _known_inputs(self, place: Place) -> Iterator[Mapping[str, str]]:
        """The digests of one source after the other, in the order of what they are called."""
        for name, source in self._in_order:
            digests = source.known_digests(place)
            if digests is None:
                raise MissingInputError(f"{place.home.name}: {name} is not known without reading it")
            yield _labelled(name, digests)

    @cached_property
    def _in_order(self) -> Sequence[tuple[str, Source[Any]]]:
        return sorted(self.sources.items(), key=lambda one: f"{one[0]}/")

    @cached_property
    def _settings_json(self) -> str:
        return canonical_json(self.settings)

    def _fields(self) -> list[tuple[str, Any]]:
        own = [one.name for one in dataclasses.fields(self) if not one.metadata.get("conduct")]
        return [(one, getattr(self, one)) for one in own]


@dataclass(frozen=True)
class Stored(Source[T_co]):
    """The committed products of a step under one name: of the section at hand, or of the whole."""

    kind: type[Step[T_co]]
    name: str

    def product(self, section_id: str) -> Product:
        """The product of a section, or of the whole where the step is of the whole."""
        return product_of(self.kind.step, self.name, section_id if self.kind.scope == "section" else WHOLE_BRAIN)

    def record(self, place: Place) -> Committed:
        """Its record. Raises MissingInputError where there is none, or it is older than what it was made from."""
        catalogue = place.home.catalogue
        record = catalogue.record(self.product(place.section_id))
        changed = None if record is None else catalogue.outdated(record)
        if record is None or changed:
            raise MissingInputError(self._missing(place, changed))
        return record

    def _missing(self, place: Place, changed: str | None) -> str:
        """What to say where it is not there (None), or is older than what it was made from."""
        of = f" of section {place.section_id}" if place.section and self.kind.scope == "section" else ""
        what = f"{self.kind.step} {self.name}{of}"
        if changed is None:
            return f"{place.home.name}: there is no {what} in the store; {self.kind.verb} first"
        older = changed.split("/")[0]
        return f"{place.home.name}: the {what} were made from an older {older}; {self.kind.verb} again"

    def digests(self, place: Place) -> Mapping[str, str]:
        """The digest of its content."""
        return {"": self.record(place).digest}

    def addresses(self, place: Place) -> Mapping[str, str]:
        """Its address."""
        return {"": self.product(place.section_id).address}

    def open(self, place: Place) -> T_co:
        """The product, read back."""
        return self.kind.opened(place.home.catalogue.path(self.product(place.section_id)))


def is_current(step: Step[Any], place: Place) -> bool:
    """Whether there is nothing to make, as far as can be told without reading large files."""
    catalogue, product = place.home.catalogue, step.product(place.section_id)
    if place.section is not None and not step.applies(place.section):
        return not catalogue.is_committed(product)
    record = catalogue.record(product)
    return record is not None and record.fingerprint == step.known_fingerprint(place)


def _labelled(field: str, parts: Mapping[str, str]) -> dict[str, str]:
    return {f"{field}/{part}" if part else field: text for part, text in parts.items()}


def _plain(value: Any) -> Any:
    """A setting as JSON values, without what does not decide results."""
    if isinstance(value, BaseModel):
        left_out: Collection[str] = getattr(type(value), "CONDUCT", ())
        return value.model_dump(mode="json", exclude=set(left_out))
    return list(value) if isinstance(value, tuple) else value
