"""The structures of an atlas and their levels: from a fine label to the coarser one that holds it."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoarch.errors import ManifestError
from cytoarch.tables import csv_rows

Int64 = NDArray[np.int64]
_DESCRIBED = re.compile(r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+[\d.]+\s+\d+\s+\d+\s+"(.*)"\s*')
"""A line of ITK-SNAP's label descriptions: id, red, green, blue, opacity, two switches, name."""


@dataclass(frozen=True)
class Structure:
    """A structure of an atlas."""

    id: int
    name: str
    parent: int | None
    colour: str | None = None
    """#rrggbb."""


@dataclass(frozen=True)
class Ontology:
    """The structures of an atlas by id."""

    structures: Mapping[int, Structure]

    def lineage(self, id: int) -> tuple[int, ...]:  # noqa: A002 - what atlases call it
        """From the root to a structure, itself included."""
        line: list[int] = []
        at: int | None = id
        while at is not None and at in self.structures and at not in line:
            line.append(at)
            at = self.structures[at].parent
        return tuple(reversed(line))

    def at_level(self, ids: NDArray[Any], level: int) -> Int64:
        """The ids (...) replaced by what holds them at a level; 0 is the root. What is less deep stays, and 0 does.

        Ids that the ontology does not name stay as they are.
        """
        found, inverse = np.unique(ids, return_inverse=True)
        coarse = np.array([self._held_by(int(one), level) for one in found], dtype=np.int64)
        return coarse[inverse].reshape(ids.shape)

    def _held_by(self, id: int, level: int) -> int:  # noqa: A002 - what atlases call it
        line = self.lineage(id)
        return line[min(level, len(line) - 1)] if line else id


def read_ontology(path: Path) -> Ontology:
    """The structures in a file: JSON of Allen's API, or a table of id, name, parent_id or structure_id_path, colour.

    Label descriptions of ITK-SNAP (.txt, .label) are read, too: no structure of theirs holds another. Raises
    ManifestError listing every fault.
    """
    if path.suffix.lower() == ".json":
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            roots = content["msg"] if isinstance(content, dict) else content
            nested = list(_nested(roots, None))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ManifestError(str(path), [f"is no ontology as Allen's API gives it ({error!r})"]) from None
        return _checked(path, nested, [])
    described = _described(path)
    if described:
        return _checked(path, described, [])
    rows, faults = csv_rows(path, None, ("id", "name"))
    found: list[Structure] = []
    for number, row in rows:
        try:
            found.append(Structure(int(row["id"]), row["name"], _parent(row), _colour(row)))
        except (KeyError, ValueError) as error:
            faults.append(f"row {number}: {error}; id, name and parent_id or structure_id_path are needed")
    return _checked(path, found, faults)


def _checked(path: Path, found: list[Structure], faults: list[str]) -> Ontology:
    structures = {one.id: one for one in found}
    faults += [f"{len(found) - len(structures)} ids are named twice"] if len(structures) < len(found) else []
    faults += [] if found else ["no structure is named"]
    if faults:
        raise ManifestError(str(path), faults)
    return Ontology(structures)


def _described(path: Path) -> list[Structure]:
    """The structures in label descriptions of ITK-SNAP, without 0, which is no label; none if the file holds others."""
    if path.suffix.lower() not in (".txt", ".label"):
        return []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []  # said by whoever reads it as a table
    stated = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    found = [_DESCRIBED.fullmatch(line) for line in stated]
    rows = [one.groups() for one in found if one is not None]
    if len(rows) < len(stated):
        return []
    colours = [tuple(min(int(one), 255) for one in row[1:4]) for row in rows]
    structures = [
        Structure(int(row[0]), row[4], None, "#{:02x}{:02x}{:02x}".format(*colour))
        for row, colour in zip(rows, colours, strict=True)
    ]
    return [one for one in structures if one.id]


def _nested(nodes: Any, parent: int | None) -> Iterator[Structure]:
    for node in nodes:
        yield Structure(int(node["id"]), str(node["name"]), parent, _colour(node))
        yield from _nested(node.get("children", ()), int(node["id"]))


def _parent(row: Mapping[str, str]) -> int | None:
    path = [int(one) for one in row.get("structure_id_path", "").strip("/").split("/") if one]
    if path:
        return path[-2] if len(path) > 1 else None
    stated = row.get("parent_id") or row.get("parent_structure_id") or ""
    return int(float(stated)) if stated else None


def _colour(row: Mapping[str, Any]) -> str | None:
    stated = str(row.get("colour") or row.get("color_hex_triplet") or "").lstrip("#")
    return f"#{stated.lower().zfill(6)}" if stated else None
