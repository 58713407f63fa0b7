"""What steps are made from beside single products: rows of the manifest, many sections, models, files, other brains."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from cytoarch.brains import Brain, LabelTable, Section
from cytoarch.digests import canonical_json, content_digest, hash_file, values_digest
from cytoarch.embeddings.settings import EmbedSettings
from cytoarch.encoders import Encoder
from cytoarch.errors import ManifestError, ModelError, StoreError
from cytoarch.learning.cards import CARD_FILE, WEIGHTS_FILE
from cytoarch.learning.heads import Head, load_head
from cytoarch.sampling import UnreadableSectionError, reading
from cytoarch.steps.encoders import encoder_for
from cytoarch.steps.opened import OpenBrain, OpenStudy
from cytoarch.steps.step import MissingInputError, Place, Source, Step, Stored
from cytoarch.store.brain_store import BrainStore

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Row(Source[Mapping[str, Any]]):
    """Columns of the manifest's row for the section at hand, which JSON can hold."""

    columns: tuple[str, ...]

    def digests(self, place: Place) -> Mapping[str, str]:
        """The columns themselves: they are short."""
        return {"": canonical_json(self.open(place))}

    def open(self, place: Place) -> Mapping[str, Any]:
        """The values by column."""
        if place.section is None:
            raise TypeError("a row of the manifest belongs to a section")
        return {one: getattr(place.section, one) for one in self.columns}


@dataclass(frozen=True)
class Rows(Source[Mapping[str, Mapping[str, Any]]]):
    """Columns of the manifest's rows of all sections of a brain, by section."""

    columns: tuple[str, ...]

    def digests(self, place: Place) -> Mapping[str, str]:
        """One of all of them."""
        return {"": values_digest(self.open(place))}

    def open(self, place: Place) -> Mapping[str, Mapping[str, Any]]:
        """The values by section and column."""
        sections = place.brain.brain.sections
        return {section.section_id: {one: getattr(section, one) for one in self.columns} for section in sections}


@dataclass(frozen=True)
class Table(Source[LabelTable | None]):
    """The label table of the brain."""

    def digests(self, place: Place) -> Mapping[str, str]:
        """One of all its rows."""
        return {"": place.brain.table_digest}

    def open(self, place: Place) -> LabelTable | None:
        """The table; None where no row of the manifest names labels."""
        return place.brain.brain.label_table


@dataclass(frozen=True)
class Statements(Source[Brain]):
    """All that the manifest and the label table state of the brain."""

    def digests(self, place: Place) -> Mapping[str, str]:
        """One of all of it."""
        return {"": place.brain.brain.digest}

    def open(self, place: Place) -> Brain:
        """The statements."""
        return place.brain.brain


@dataclass(frozen=True)
class Failures(Source[Mapping[str, str]]):
    """The sections that could not be processed in this run, with the reason."""

    def digests(self, place: Place) -> Mapping[str, str]:
        """One of all of them."""
        return {"": values_digest(place.brain.failed)}

    def open(self, place: Place) -> Mapping[str, str]:
        """The reasons by section."""
        return place.brain.failed


@dataclass(frozen=True)
class Maybe(Source[T_co | None]):
    """A product that need not be there."""

    source: Stored[T_co]
    older: Literal["error", "gap"] = "error"
    """What one is that is older than what it was made from, or of an older version: results are made of what is there
    or not at all, what only shows it goes without."""

    def digests(self, place: Place) -> Mapping[str, str]:
        """Those of the product, or none."""
        return self.source.digests(place) if self._is_there(place) else {}

    def addresses(self, place: Place) -> Mapping[str, str]:
        """Its address, where it is there."""
        return self.source.addresses(place) if self._is_there(place) else {}

    def open(self, place: Place) -> T_co | None:
        """The product, or None."""
        return self.source.open(place) if self._is_there(place) else None

    def _is_there(self, place: Place) -> bool:
        catalogue = place.home.catalogue
        record = catalogue.record(self.source.product(place.section_id))
        if record is None or self.older == "error":
            return record is not None
        return record.is_of(self.source.kind.version) and not catalogue.outdated(record)


@dataclass(frozen=True)
class FactsOf(Source[Mapping[str, Any]]):
    """The facts in a product's record, which its content does not hold."""

    source: Stored[Any]

    def digests(self, place: Place) -> Mapping[str, str]:
        """One of all facts."""
        return {"": self.source.record(place).facts_digest}

    def open(self, place: Place) -> Mapping[str, Any]:
        """The facts."""
        return self.source.record(place).facts


@dataclass(frozen=True)
class MadeFrom(Source[Mapping[str, str]]):
    """What a product was made from, as its record says."""

    source: Stored[Any]

    def digests(self, place: Place) -> Mapping[str, str]:
        """One of all of it."""
        return {"": values_digest(self.open(place))}

    def open(self, place: Place) -> Mapping[str, str]:
        """The digests by input."""
        return self.source.record(place).inputs


class Sections(Mapping[str, T]):
    """The products of many sections, each opened when it is asked for."""

    def __init__(self, source: Source[T], places: Mapping[str, Place]) -> None:
        self._source, self._places = source, places

    def __getitem__(self, section_id: str) -> T:
        """What one section has. Raises UnreadableSectionError if it is damaged."""
        place = self._places[section_id]
        try:
            with reading(section_id):
                return self._source.open(place)
        except MissingInputError:
            raise
        except StoreError as error:
            raise UnreadableSectionError(section_id, str(error)) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@dataclass(frozen=True)
class Each(Source[Sections[T]]):
    """A source of every section at work that has it, in cutting order.

    `having` limits them to those that have these products too, `only` to those named. A product that is older than
    what it was made from is an error, not a gap.
    """

    source: Source[T]
    having: tuple[Stored[Any], ...] = ()
    only: tuple[str, ...] | None = None

    def places(self, place: Place) -> dict[str, Place]:
        """The sections, each as a place."""
        needed = dict.fromkeys([*self.having, *([self.source] if isinstance(self.source, Stored) else [])])
        sections = place.brain.sections
        if self.only is not None:
            named = frozenset(self.only)
            sections = tuple(one for one in sections if one.section_id in named)
        for stored in needed:
            sections = sections_with(place.brain, stored, sections)
        return {one.section_id: Place(place.home, one) for one in sections}

    def digests(self, place: Place) -> Mapping[str, str]:
        """Those of every section."""
        return self._of_all(place, self.source.digests)

    def addresses(self, place: Place) -> Mapping[str, str]:
        """Those of every section."""
        return self._of_all(place, self.source.addresses)

    def _of_all(self, place: Place, told: Callable[[Place], Mapping[str, str]]) -> dict[str, str]:
        places = self.places(place).items()
        return {_joined(one, part): text for one, at in places for part, text in told(at).items()}

    def open(self, place: Place) -> Sections[T]:
        """The products by section."""
        return Sections(self.source, self.places(place))


@dataclass(frozen=True)
class OfBrain(Source[T_co]):
    """A source of a brain, for steps of a study."""

    brain_id: str
    source: Source[T_co]

    def digests(self, place: Place) -> Mapping[str, str]:
        """Those of the source in its brain."""
        return self.source.digests(self._place(place))

    def open(self, place: Place) -> T_co:
        """What the source holds in its brain."""
        return self.source.open(self._place(place))

    def _place(self, place: Place) -> Place:
        if not isinstance(place.home, OpenStudy):
            raise TypeError("a brain reads no other brain: that is what studies are for")
        return Place(place.home.brain(self.brain_id))


@dataclass(frozen=True)
class OfBrains(Source[Mapping[str, T_co]]):
    """A source of each of several brains, for steps of a study."""

    brain_ids: tuple[str, ...]
    source: Source[T_co]

    def digests(self, place: Place) -> Mapping[str, str]:
        """Those of every brain."""
        return {_joined(one.brain_id, part): text for one in self._each for part, text in one.digests(place).items()}

    def open(self, place: Place) -> Mapping[str, T_co]:
        """What the source holds, by brain."""
        return {one.brain_id: one.open(place) for one in self._each}

    @property
    def _each(self) -> tuple[OfBrain[T_co], ...]:
        return tuple(OfBrain(one, self.source) for one in self.brain_ids)


@dataclass(frozen=True)
class OutsideTable(Source[T_co]):
    """A table in a file outside the store, as it was when it was first read."""

    path: Path
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """The table as it is now. Raises ManifestError if it cannot be read."""
        try:
            return cls(path.absolute(), hash_file(path).sha256)
        except OSError as error:
            raise ManifestError(str(path), [f"cannot be read ({error.strerror}); check the path"]) from None

    def check(self) -> None:
        """Raise ManifestError if it has changed: sections would be made from different tables."""
        if hash_file(self.path).sha256 != self.sha256:
            raise ManifestError(str(self.path), ["changed while the run was going on; run again with the new table"])


@dataclass(frozen=True)
class EncoderSource(Source[Encoder]):
    """An encoder, loaded once per process."""

    settings: EmbedSettings

    @property
    def encoder(self) -> Encoder:
        """The encoder. Raises ModelError if it cannot be had."""
        return encoder_for(self.settings)

    def digests(self, place: Place) -> Mapping[str, str]:  # noqa: ARG002 - the same everywhere
        """That of its weights and settings."""
        return {"": self.encoder.digest}

    def open(self, place: Place) -> Encoder:  # noqa: ARG002 - the same everywhere
        """The encoder."""
        return self.encoder


@dataclass(frozen=True)
class HeadSource(Source[Head]):
    """A head in the store, by its digest."""

    digest: str

    def digests(self, place: Place) -> Mapping[str, str]:  # noqa: ARG002 - it is named by it
        """Its own."""
        return {"": self.digest}

    def open(self, place: Place) -> Head:
        """The head. Raises ModelError if it is not there or damaged."""
        return open_head(place.home.store, self.digest)


def open_head(store: BrainStore, digest: str) -> Head:
    """A head in the store. Raises ModelError if it is not there or damaged."""
    folder = store.models.path(digest)
    head = load_head(folder)
    found = content_digest({name: hash_file(folder / name).sha256 for name in (CARD_FILE, WEIGHTS_FILE)})
    if found != digest:
        raise ModelError(f"{folder}: its files have changed since they were kept; train or import the head again")
    return head


def require_stored(step: type[Step[Any]], place: Place, name: str, hint: str) -> str:
    """The name asked for, or the only one a step has products under. Raises MissingInputError listing the choices."""
    names = place.home.catalogue.names(step.step)
    if name in names:
        return name
    if not name and len(names) == 1:
        return names[0]
    found = ", ".join(names) or "none"
    wanted = f"no {step.step} {name!r}" if name else f"several {step.step} or none, and no name is given"
    raise MissingInputError(f"{place.home.name}: {wanted}; there are: {found}. {hint}")


def sections_with(
    brain: OpenBrain, stored: Stored[Any], sections: tuple[Section, ...] | None = None
) -> tuple[Section, ...]:
    """Those of some sections, or of all at work, that have a committed product, in the same order."""
    chosen, record = brain.sections if sections is None else sections, brain.catalogue.record
    return tuple(one for one in chosen if record(stored.product(one.section_id)) is not None)


def _joined(section_id: str, part: str) -> str:
    return f"{section_id}/{part}" if part else section_id
