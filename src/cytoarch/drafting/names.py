"""What file names tell: ids, section numbers, and which label image belongs to which scan."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose
from pathlib import PurePath

from cytoarch.brains import PIXEL_SIZE_LIMITS_UM, RESERVED_IDS
from cytoarch.images.scans import DRAWN_SUFFIXES, SUFFIXES
from cytoarch.paths import is_id

_NUMBER = re.compile(r"\d+")
_LENGTH = r"um|\N{MICRO SIGN}m|\N{GREEK SMALL LETTER MU}m|micron|nm"
_SIZE = re.compile(rf"(?<![\w.])(\d+(?:[.p]\d+)?) ?({_LENGTH})(?![A-Za-z])", re.IGNORECASE)
"""A length in a name: `5um`, `0.5 um`, `0p5um`, `250nm`."""
_QUANTITY = re.compile(rf"\d+(?:[.p]\d+)? ?(?:{_LENGTH}|mm|px|dpi|bit|x)(?![A-Za-z0-9])", re.IGNORECASE)
"""Numbers that count something else than sections: lengths, pixels, depths, magnifications (`20x`)."""
_TIMES = re.compile(r"(?<![A-Za-z])x(\d+(?:\.\d+)?)", re.IGNORECASE)
"""A magnification (`x4`), or the number of a section (`x001`)."""
_BETWEEN_WORDS = re.compile(r"[\W_]+")
ALIKE = 0.05
"""A name rounds the size that its file states."""
Words = tuple[str, ...]


def bare_name(name: str) -> str:
    """A file name without the suffixes of images, also where several follow one another.

    >>> bare_name("B1_s001.ome.tif"), bare_name("s001.tif.png"), bare_name("v1.2_s001.png")
    ('B1_s001', 's001', 'v1.2_s001')
    """
    path = PurePath(name)
    while path.suffix.lower() in (*SUFFIXES, *DRAWN_SUFFIXES, ".ome"):
        path = path.with_suffix("")
    return path.name


def section_numbers(names: Sequence[str]) -> list[int | None]:
    """The number in each bare name that tells the files apart, where there is one.

    Of the numbers in the names (first, second, ...), the last is taken that most files have and no two share.

    Numbers with a unit are none; one behind an x is none where it is the same in all names, or where others tell as
    many files apart.

    >>> section_numbers(["B20_0012_x4", "B20_0027_x4", "overview"]), section_numbers(["left", "right_5um"])
    ([12, 27, None], [None, None])
    >>> section_numbers(["x001", "x002"]), section_numbers(["s1_x4", "s2_x10"])
    ([1, 2], [1, 2])
    """
    plain = [_QUANTITY.sub("_", name) for name in names]
    readings = [[_TIMES.sub("_", name) for name in plain]]
    if len({times for name in plain for times in _TIMES.findall(name)}) > 1:
        readings.append(plain)
    return max(map(_telling, readings), key=lambda numbers: sum(number is not None for number in numbers))


def _telling(names: Sequence[str]) -> list[int | None]:
    """Of the numbers in names (first, second, ...) the last that most have and no two share."""
    found = [[int(number) for number in _NUMBER.findall(name)] for name in names]
    best: list[int | None] = [None] * len(names)
    for place in range(max(len(numbers) for numbers in found)):
        column = [numbers[place] if place < len(numbers) else None for numbers in found]
        present = [number for number in column if number is not None]
        if len(set(present)) == len(present) >= sum(number is not None for number in best):
            best = column
    return best


def pixel_sizes(names: Sequence[str], stated: Sequence[str] = ()) -> list[str]:
    """The one length (um) in each bare name, as text; blank where there is none, or several that differ.

    Names tell nothing where a file `stated` another size itself: lengths are of something else, as the cut is thick.

    >>> pixel_sizes(["cells_5um", "B1_0.25 um_s001", "B1_500nm", "50um_thick_2um", "human"])
    ['5', '0.25', '0.5', '', '']
    >>> pixel_sizes(["a_20um_1", "a_20um_2"], ["0.5", ""]), pixel_sizes(["a_0.5um_1", "a_0.5um_2"], ["0.5", ""])
    (['', ''], ['0.5', '0.5'])
    """
    found = [_pixel_size(name) for name in names]
    pairs = [(float(size), float(own)) for size, own in zip(found, stated, strict=False) if size and own]
    return found if all(isclose(size, own, rel_tol=ALIKE) for size, own in pairs) else [""] * len(names)


def _pixel_size(name: str) -> str:
    found = {
        float(number.lower().replace("p", ".")) / (1000 if unit.lower() == "nm" else 1)
        for number, unit in _SIZE.findall(name.replace("_", " "))
    }
    low, high = PIXEL_SIZE_LIMITS_UM
    return f"{found.pop():g}" if len(found) == 1 and low <= min(found) <= high else ""


def section_ids(names: Sequence[str]) -> list[str]:
    """An id for each bare name, what an id cannot hold replaced by dashes; no two alike, whatever the case.

    >>> section_ids(["a 1", "a-1", "A-1"])
    ['a-1', 'a-1-2', 'A-1-3']
    """
    taken: set[str] = set(RESERVED_IDS)
    ids = []
    for index, name in enumerate(names):
        cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:56]
        base = cleaned if is_id(cleaned) else f"section-{index + 1:04d}"
        candidate, number = base, 2
        while candidate.lower() in taken:
            candidate, number = f"{base}-{number}", number + 1
        taken.add(candidate.lower())
        ids.append(candidate)
    return ids


@dataclass
class Matches:
    """Label images and the scans they belong to by their bare names, as places in the lists that were given."""

    same: dict[int, int] = field(default_factory=dict)
    """scan -> label image of the same name."""
    alike: dict[int, int] = field(default_factory=dict)
    """scan -> label image whose name holds the scan's name, or the other way round, or there is one of each only: a
    person has to look."""
    doubtful: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """label image -> the scans it could belong to, where it is not the only one or they are several."""
    left_over: tuple[int, ...] = ()
    """Label images that belong to no scan."""


def match_labels(scans: Sequence[str], labels: Sequence[str]) -> Matches:
    """Which label image belongs to which scan, by their bare names; every label image is in one part of the answer.

    >>> match_labels(["B1_s001", "B1_s002", "B1_s003"], ["s001", "B1_s002-labelled", "B1_s003", "B1"])
    Matches(same={2: 2}, alike={0: 0, 1: 1}, doubtful={3: (0, 1)}, left_over=())
    """
    found = Matches()
    normal = [[unicodedata.normalize("NFC", name) for name in names] for names in (scans, labels)]
    for matched, fitting in (
        (found.same, _same(str)),
        (found.same, _same(str.casefold)),
        (found.alike, _alike),
    ):
        open_scans = {i: name for i, name in enumerate(normal[0]) if i not in found.same}
        open_labels = {i: name for i, name in enumerate(normal[1]) if i not in found.same.values()}
        candidates = fitting(open_scans, open_labels)
        claims = Counter(choices[0] for choices in candidates.values() if len(choices) == 1)
        matched |= {
            choices[0]: label for label, choices in candidates.items() if len(choices) == 1 and claims[choices[0]] == 1
        }
    if len(scans) == len(labels) == 1 and not found.same:
        found.alike = {0: 0}
    taken = {*found.same.values(), *found.alike.values()}
    found.doubtful = {label: tuple(choices) for label, choices in candidates.items() if label not in taken}
    found.left_over = tuple(i for i in range(len(labels)) if i not in taken and i not in found.doubtful)
    return found


Fitting = Callable[[Mapping[int, str], Mapping[int, str]], dict[int, list[int]]]
"""(scans, label images) -> label image -> the scans that fit it best, where there are any"""


def _same(key: Callable[[str], str]) -> Fitting:
    def fitting(scans: Mapping[int, str], labels: Mapping[int, str]) -> dict[int, list[int]]:
        named: dict[str, list[int]] = defaultdict(list)
        for scan, name in scans.items():
            named[key(name)].append(scan)
        return {label: named[key(name)] for label, name in labels.items() if key(name) in named}

    return fitting


def _alike(scans: Mapping[int, str], labels: Mapping[int, str]) -> dict[int, list[int]]:
    """Names of which one is a run of whole words of the other; of several, those that share the most words."""
    scan_words = {scan: _words(name) for scan, name in scans.items()}
    label_words = {label: _words(name) for label, name in labels.items()}
    shared: dict[int, dict[int, int]] = defaultdict(dict)
    for outer, inner, ordered in ((scan_words, label_words, True), (label_words, scan_words, False)):
        whole: dict[Words, list[int]] = defaultdict(list)
        for one, words in inner.items():
            whole[words].append(one)
        for one, words in outer.items():
            for run in _runs(words):
                for other in whole.get(run, ()):
                    scan, label = (one, other) if ordered else (other, one)
                    shared[label][scan] = len(run)
    return {
        label: [scan for scan, count in counts.items() if count == max(counts.values())]
        for label, counts in shared.items()
    }


def _words(name: str) -> Words:
    return tuple(word for word in _BETWEEN_WORDS.split(name.casefold()) if word)


def _runs(words: Words) -> Iterator[Words]:
    for start in range(len(words)):
        for end in range(start + 1, len(words) + 1):
            yield words[start:end]
