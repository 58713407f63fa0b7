"""Which sections a head learns from and which it is scored on. Always whole sections: neighbours in one are no test."""

from collections.abc import Sequence
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


def split_sections(section_ids: Sequence[str]) -> Split:
    """Split labelled sections, given in cutting order.

    The block is a fifth of the series (at least one section), ending at four fifths of it; of the others, every fifth
    beginning with the third is held out. With two sections or one, all are trained on and nothing is held out.

    >>> split_sections([f"s{i}" for i in range(8)])
    Split(train=('s0', 's1', 's3', 's6', 's7'), fifth=('s2',), block=('s4', 's5'))
    """
    count = len(section_ids)
    if count < 3:
        return Split(tuple(section_ids), (), ())
    length = max(1, round(count / 5))
    stop = max(length + 1, round(count * 4 / 5)) if count > 3 else count
    block = tuple(section_ids[stop - length : stop])
    others = [one for one in section_ids if one not in block]
    fifth = tuple(others[min(2, len(others) - 1) :: 5])
    return Split(tuple(one for one in others if one not in fifth), fifth, block)
