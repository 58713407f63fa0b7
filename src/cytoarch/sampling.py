"""The one sampler of tokens: drawn evenly from sections and classes, within a stated number of bytes.

It passes over the sections twice. The first pass reads no embeddings: every section offers candidates, put in a random
order. As soon as all candidates together no longer fit, every section and class gives up the last ones of its order,
the same number for all. The second pass reads the embeddings of those that are left, every window once. What a section
offers depends on the seed and on that section alone.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.embeddings import SectionEmbeddings
from cytoarch.embeddings.stored import Window
from cytoarch.errors import ModelError, SectionError
from cytoarch.tiling import partition

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
T = TypeVar("T")

SAMPLE_BYTES = 1 << 30
"""A sample and what is computed from it take at most so much, beside one chunk of embeddings."""
CANDIDATE_BYTES = 80
"""A token that may be drawn: where it lies, its stratum, its rank and its turn, and once more while they are sorted."""
PENDING = 1 << 18
"""Candidates that are collected before they are sorted."""
PART_BYTES = 32 << 20
"""Tokens that are computed on at once take at most so much as float64."""
PART_TOKENS = 4096
"""They are no more than this, however short."""
NOT_DRAWN = -1
"""Stratum of tokens that are not drawn."""


class UnreadableSectionError(SectionError):
    """Something of a section that is needed for a brain cannot be read."""

    def __init__(self, section_id: str, reason: str) -> None:
        self.section_id, self.reason = section_id, reason
        super().__init__(f"section {section_id}: {reason}")


@contextmanager
def reading(section_id: str) -> Iterator[None]:
    """Names the section in a SectionError that is raised within."""
    try:
        yield
    except UnreadableSectionError:
        raise
    except SectionError as error:
        raise UnreadableSectionError(section_id, str(error)) from error


class OnDemand(Sequence[T]):
    """A sequence that makes a member each time it is asked for, and keeps none: opened sections by the thousand."""

    def __init__(self, count: int, make: Callable[[int], T]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> "OnDemand[T]": ...
    def __getitem__(self, index: int | slice) -> "T | OnDemand[T]":
        places = range(self._count)
        if isinstance(index, slice):
            chosen = places[index]
            return OnDemand(len(chosen), lambda at: self._make(chosen[at]))
        return self._make(places[index])


@dataclass(frozen=True)
class TokenSource:
    """A section that tokens are drawn from."""

    section_id: str
    embeddings: SectionEmbeddings
    strata: Callable[[Window], Int64]
    """(y, x, height, width) -> (height, width) int64: the stratum (class) of every token, or `NOT_DRAWN`."""


def tissue_source(section_id: str, embeddings: SectionEmbeddings, tissue: TissueMask) -> TokenSource:
    """A section whose tokens are drawn uniformly, where there is tissue and they were computed: one stratum."""
    return TokenSource(section_id, embeddings, lambda window: np.where(embeddings.inside(tissue, window), 0, NOT_DRAWN))


def section_rng(seed: int, section_id: str) -> np.random.Generator:
    """The random numbers of a section: the same whatever other sections there are, and in which order."""
    name = hashlib.sha256(section_id.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(name[:8], "little")])


class Share(NamedTuple):
    """How much of what was asked for was drawn."""

    asked: int
    """Tokens asked for per section and stratum."""
    drawn: int
    """Tokens drawn per section and stratum, where it has so many; 0: not even one of each fits."""
    sections: int
    """Sections that give a token to a stratum, at most, where `drawn` is 0."""


@dataclass(frozen=True)
class TokenSample:
    """Tokens drawn from sections, in the order of the sections."""

    tokens: NDArray[Any]
    """(n, c), of the type they are stored in."""
    strata: Int64
    """(n,)."""
    sections: Int64
    """(n,) the place of its section among the sources."""
    places: Int64
    """(n, 2) its row and column on the section's grid of tokens."""
    share: Share

    def facts(self) -> dict[str, int]:
        """What was drawn, for the record: the second and third figure say whether less was drawn than asked for."""
        facts = {
            "tokens": len(self.tokens),
            "asked_per_section": self.share.asked,
            "drawn_per_section": self.share.drawn,
        }
        return facts if self.share.drawn else {**facts, "sections_per_class": self.share.sections}


def draw_tokens(
    sources: Sequence[TokenSource],
    strata: int,
    per_section: int,
    seed: int,
    *,
    extra_bytes: int = 0,
    max_windows: int | None = None,
    budget_bytes: int | None = None,
) -> TokenSample:
    """Draw up to `per_section` tokens of each stratum from every section; all tokens of one are equally likely.

    Sections are numbered as in `sources`, strata from 0 to `strata` - 1. `extra_bytes` is what the caller will hold per
    token beside the sample. If all of them took more than the budget (`SAMPLE_BYTES`), every section and stratum gives
    fewer; the sample's `share` says how many. If not even one of each fits, some sections, drawn by lot, give one token
    to a stratum and the others none. `max_windows` is the largest number
    of chunks that are read of a section. Raises UnreadableSectionError if a section is damaged, and ModelError if their
    embeddings differ in length.
    """
    budget = SAMPLE_BYTES if budget_bytes is None else budget_bytes
    pool = _Pool(strata, per_section)
    width, dtype = 0, np.dtype(np.float16)
    for index, source in enumerate(sources):
        found = sum(source.embeddings.dims)
        if index and found != width:
            raise ModelError(f"section {source.section_id} has embeddings of {found} values where others have {width}")
        width = found
        dtype = np.result_type(dtype, *(layer.levels[0].array.dtype for layer in source.embeddings.layers))
        capacity = max(1, budget // (dtype.itemsize * width + extra_bytes + CANDIDATE_BYTES))
        limit = min(per_section, capacity + 1)  # one more than can be kept shows that there is more
        with reading(source.section_id):
            offered = _candidates(source, strata, limit, seed, max_windows)
        pool.add(index, offered, capacity)
    held = pool.drawn()
    held = held[np.argsort(held["section"], kind="stable")]
    tokens = np.empty((len(held), width), dtype=dtype)
    for start, stop in _runs(held["section"]):
        source = sources[int(held["section"][start])]
        with reading(source.section_id):
            held[start:stop] = _read(source.embeddings, held[start:stop], tokens[start:stop])
    classes, sections = (held[name].astype(np.int64) for name in ("stratum", "section"))
    return TokenSample(tokens, classes, sections, np.stack([held["y"], held["x"]], axis=1).astype(np.int64), pool.share)


def all_tokens(sources: Iterable[TokenSource]) -> Iterator[NDArray[np.float32]]:
    """Every token that may be drawn, of all strata, as parts (n, c) float32: window by window, section by section.

    Raises UnreadableSectionError if a section is damaged.
    """
    for source in sources:
        with reading(source.section_id):
            for window in partition(*source.embeddings.grid, source.embeddings.chunk):
                chosen = source.strata(window) != NOT_DRAWN
                if chosen.any():
                    yield np.ascontiguousarray(source.embeddings.read(*window)[:, chosen].T)


_CANDIDATE = np.dtype(
    [("section", np.int32), ("stratum", np.int32), ("rank", np.int32), ("y", np.int32), ("x", np.int32), ("key", float)]
)
Candidates = NDArray[np.void]
"""Tokens that may be drawn. Key: decides the rank within section and stratum; of those kept, the section's turn."""


def _candidates(
    source: TokenSource, strata: int, limit: int, seed: int, max_windows: int | None
) -> tuple[Candidates, Float64]:
    """The first `limit` tokens of every stratum of a section, in random order, and the section's turns (strata,)."""
    rng = section_rng(seed, source.section_id)
    turns = rng.random(strata)
    windows = list(partition(*source.embeddings.grid, source.embeddings.chunk))
    order = range(len(windows)) if max_windows is None else rng.permutation(len(windows))
    kept, pending, used = np.zeros(0, dtype=_CANDIDATE), list[Candidates](), 0
    for at in order:
        if used == max_windows:
            break
        y, x, *_ = windows[at]
        found = source.strata(windows[at])
        rows, columns = np.nonzero(found != NOT_DRAWN)
        if not len(rows):
            continue
        used += 1
        new = np.zeros(len(rows), dtype=_CANDIDATE)
        new["stratum"], new["y"], new["x"] = found[rows, columns], rows + y, columns + x
        new["key"] = rng.random(len(rows))
        pending.append(new)
        if sum(map(len, pending)) >= PENDING:
            kept, pending = _first(np.concatenate([kept, *pending]), limit), []
    return _first(np.concatenate([kept, *pending]), limit), turns


def _first(candidates: Candidates, limit: int) -> Candidates:
    """The candidates with the `limit` lowest keys of every stratum, with their ranks."""
    ranked = candidates[np.lexsort((candidates["key"], candidates["stratum"]))]
    ranked["rank"] = _places(ranked["stratum"])
    return ranked[ranked["rank"] < limit]


def _places(sorted_values: NDArray[np.int32]) -> Int64:
    """The place of every value (n,) among its equals, from 0."""
    places = np.empty(len(sorted_values), dtype=np.int64)
    for start, stop in _runs(sorted_values):
        places[start:stop] = np.arange(stop - start)
    return places


def _runs(*values: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """First and last + 1 of every run of equal values (n,), none of them below 0."""
    changes = np.any([np.diff(one, prepend=-1) != 0 for one in values], axis=0)
    return pairwise(map(int, [*np.flatnonzero(changes), len(changes)]))


class _Pool:
    """The candidates of all sections so far, no more of them than fit beside those of the last few."""

    def __init__(self, strata: int, asked: int) -> None:
        self.share = Share(asked, asked, 0)
        self._held = np.zeros(0, dtype=_CANDIDATE)
        self._waiting: list[Candidates] = []
        self._counts: list[NDArray[np.int32]] = []
        """(strata,) of each section: what it offered, at most what is asked for."""
        self._strata, self._capacity = strata, 0

    def add(self, index: int, offered: tuple[Candidates, Float64], capacity: int) -> None:
        """Add the candidates of one more section, `capacity` of all of them to be kept at most.

        They wait until they are many: what is held is copied a few times, not once a section.
        """
        candidates, turns = offered
        candidates["section"] = index
        candidates["key"] = turns[candidates["stratum"]]
        self._counts.append(np.bincount(candidates["stratum"], minlength=self._strata).astype(np.int32))
        self._waiting.append(candidates)
        self._capacity = capacity
        if sum(map(len, self._waiting)) >= max(PENDING, len(self._held) // 4):
            self.drawn()

    def drawn(self) -> Candidates:
        """The candidates that are kept of all sections; where they did not fit, all gave up their last ones."""
        if self._waiting:
            share = _even_share(np.stack(self._counts), self.share, self._capacity)
            held = np.concatenate([_within(one, share) for one in (self._held, *self._waiting)])
            if not share.drawn:
                held = held[np.lexsort((held["key"], held["stratum"]))]
                held = held[_places(held["stratum"]) < share.sections]
            self._held, self._waiting, self.share = held, [], share
        return self._held


def _within(candidates: Candidates, share: Share) -> Candidates:
    return candidates[candidates["rank"] < max(1, share.drawn)]


def _even_share(counts: NDArray[np.int32], before: Share, capacity: int) -> Share:
    """The largest share that fits: tokens per section and stratum, or else sections per stratum."""
    drawn = _largest(before.drawn, lambda limit: int(np.minimum(counts, limit).sum()) <= capacity)
    if drawn:
        return Share(before.asked, drawn, 0)
    offering = (counts > 0).sum(axis=0)
    sections = _largest(len(counts), lambda limit: int(np.minimum(offering, limit).sum()) <= capacity)
    return Share(before.asked, 0, sections)


def _largest(stop: int, fits: Callable[[int], bool]) -> int:
    """The largest number from 0 to `stop` that fits, where all smaller ones do."""
    if fits(stop):
        return stop
    low, high = 0, stop
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _read(embeddings: SectionEmbeddings, held: Candidates, tokens: NDArray[Any]) -> Candidates:
    """Read the embeddings of candidates of one section into `tokens` (n, c), chunk by chunk; returns them in order."""
    edge = embeddings.chunk
    held = held[np.lexsort((held["x"], held["y"], held["x"] // edge, held["y"] // edge))]
    rows, columns = held["y"], held["x"]
    for start, stop in _runs(rows // edge, columns // edge):
        y, x = rows[start:stop], columns[start:stop]
        top, left = int(y.min()), int(x.min())
        block = embeddings.read(top, left, int(y.max()) - top + 1, int(x.max()) - left + 1)
        tokens[start:stop] = block[:, y - top, x - left].T
    return held


def parts_of(count: int, width: int, least: int = 1) -> Iterator[slice]:
    """Slices that cut `count` tokens of `width` values into parts of at most `PART_BYTES` as float64.

    A part holds `least` tokens even if they take more; a last part with fewer joins the one before.
    """
    size = max(least, min(PART_TOKENS, PART_BYTES // (8 * max(1, width))))
    starts = range(0, max(1, count - least + 1), size) if count else range(0)
    return (slice(start, stop) for start, stop in pairwise([*starts, count]))


def moments(parts: Iterable[NDArray[Any]], smallest_spread: float = 1e-6) -> tuple[Float64, Float64]:
    """Mean and standard deviation (c,) float64 over tokens (n, c), part by part.

    A spread is at least `smallest_spread`, so that dividing by it is safe.
    """
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    for whole in parts:
        for part in parts_of(len(whole), whole.shape[1]):
            scaler.partial_fit(whole[part].astype(np.float64))
    return scaler.mean_, np.maximum(np.sqrt(scaler.var_), smallest_spread)


def standardised(tokens: NDArray[Any], mean: Float64, spread: Float64) -> NDArray[np.float32]:
    """Tokens (n, c) less their mean, in units of their spread, as a new float32 array; part by part."""
    scaled = np.empty(tokens.shape, dtype=np.float32)
    for part in parts_of(*tokens.shape):
        scaled[part] = (tokens[part] - mean) / spread
    return scaled
