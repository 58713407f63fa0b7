"""Which sections a head learns from and which it is scored on. Always whole sections: neighbours in one are no test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Split:
    """Labelled sections by their use; every one has exactly one."""

    train: tuple[str, ...]
    fifth: tuple[str, ...]
    """Every fifth section: interpolation, since its neighbours are trained on. Optimistic."""
    block: tuple[str, ...]
    """A contiguous block: what awaits a part of the brain without labels."""

    @property
    def held_out(self) -> tuple[str, ...]:
        """All sections that are not trained on."""
        return (*self.fifth, *self.block)


def split_sections(section_ids: Sequence[str], contents: Mapping[str, str] | None = None) -> Split:
    """Split labelled sections, given in cutting order.

    The block is a fifth of the series (at least one section), ending at four fifths of it; of the others, every fifth
    beginning with the third is held out. With two sections or one, all are trained on and nothing is held out.
    `contents` says by section what it shows, as a digest: sections of equal content count as one, and all go where the
    first of them goes. Sections it does not name are like no other.

    >>> split_sections([f"s{i}" for i in range(8)])
    Split(train=('s0', 's1', 's3', 's6', 's7'), fifth=('s2',), block=('s4', 's5'))
    >>> split_sections(["s0", "s1", "s2", "copy"], {"s1": "a1", "copy": "a1"})
    Split(train=('s0',), fifth=('s1', 'copy'), block=('s2',))
    """
    digests = contents or {}
    first: dict[str, str] = {}
    shown_by = {one: first.setdefault(digests[one], one) if one in digests else one for one in section_ids}
    fifth, block = _held_out([one for one in section_ids if shown_by[one] == one])

    train = frozenset(shown_by.values()) - fifth - block
    return Split(*(tuple(one for one in section_ids if shown_by[one] in part) for part in (train, fifth, block)))


def _held_out(section_ids: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Every fifth section, and the block, of sections that all differ."""
    count = len(section_ids)
    if count < 3:
        return frozenset(), frozenset()
    length = max(1, round(count / 5))
    stop = max(length + 1, round(count * 4 / 5)) if count > 3 else count
    block = frozenset(section_ids[stop - length : stop])
    others = [one for one in section_ids if one not in block]
    return frozenset(others[min(2, len(others) - 1) :: 5]), block
