"""One pass over folders that judges every image, label image and collection in them."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cytoarch.images.conformance.metadata import NUMBERS, ArrayMetadata, Header, json_number, pixel_faults, short
from cytoarch.images.conformance.nodes import GROUP_KINDS, Node
from cytoarch.images.conformance.rules import collection_faults, group_faults
from cytoarch.images.conformance.schemas import second_opinion
from cytoarch.images.ngff import NGFF_VERSION
from cytoarch.paths import is_litter
from cytoarch.progress import Progress

MAX_METADATA_BYTES = 16 << 20
"""A `zarr.json` larger than this is not read."""
MAX_DEPTH = 24
"""Folders nested deeper than this are not entered."""
SKIPPED = "staging"
"""What is being written is not judged."""


def conformance_faults(path: Path, complete: bool = True, on_progress: Progress | None = None) -> list[str]:
    """Every fault of the images below a folder, a line each: where (relative to `path`), what is, what is needed.

    `path` is an image, a label group, a collection, or any folder of them (a brain). Folders named staging are left
    out and links are not followed. With `complete`, every shard must be there and of a plausible size.
    `on_progress(done, total)` counts images.
    """
    walk = _Walk(path, complete)
    units = list(walk.units(path))
    headless: set[Path] = set()
    for done, (folder, collection) in enumerate(units, 1):
        node = walk.visit(folder)
        if collection is not None:
            collection.children[folder.name] = node.without_content()
        elif node.kind == "array" and folder != path and folder.parent not in headless:
            headless.add(folder.parent)
            walk.faults.append(f"{walk.key(folder.parent)}: holds arrays but no zarr.json; that of an image is needed")
        if on_progress:
            on_progress(done, len(units))
    for collection in walk.collections:
        walk.faults += collection_faults(collection)
        if not walk.faults:
            walk.faults += second_opinion(path / collection.key, collection)
    if not units and not walk.collections and not walk.faults:
        walk.faults.append(".: holds no Zarr group; an image, a collection or a folder of them is needed")
    return walk.faults


@dataclass
class _Walk:
    """One pass over the folders, and the faults found on it."""

    root: Path
    complete: bool
    faults: list[str] = field(default_factory=list)
    collections: list[Node] = field(default_factory=list)

    def key(self, path: Path) -> str:
        """The path relative to the root."""
        return path.relative_to(self.root).as_posix()

    def units(self, folder: Path) -> Iterator[tuple[Path, Node | None]]:
        """The outermost groups and arrays that are no collections, each with the collection it lies in."""
        files, folders = self._scan(folder)
        if "zarr.json" in files:
            node = self._read(folder, files)
            if node.kind != "collection":
                yield folder, None
                return
            self._stray(folder, files)
            self._judge(node)
            self.collections.append(node)
            yield from ((folder / name, node) for name in folders)
            return
        if old := sorted({".zgroup", ".zarray", ".zattrs"} & set(files)):
            self._add(folder, f"holds {old[0]}, which is Zarr v2; NGFF {NGFF_VERSION} is written in Zarr v3")
        for name in folders:
            if name != SKIPPED:
                yield from self.units(folder / name)

    def visit(self, folder: Path, ngff: bool = False) -> Node:
        """Judge a group or array and all below it; `ngff` says whether it lies inside a group of NGFF."""
        before = len(self.faults)
        files, folders = self._scan(folder)
        node = self._read(folder, files)
        if node.array is not None:
            self._visit_files(folder, node.key, node.array, files, folders, ngff)
        elif node.kind != "unreadable":
            self._stray(folder, {name for name in files if (node.kind, name) != ("series", "METADATA.ome.xml")})
            ngff_here = ngff or "ome" in node.attributes
            node.children = {name: self.visit(folder / name, ngff_here) for name in folders}
            self._judge(node)
            if ngff_here and not ngff and len(self.faults) == before:
                self.faults += second_opinion(folder, node)
        return node

    def _visit_files(
        self, folder: Path, key: str, array: ArrayMetadata, files: Mapping[str, int], folders: Sequence[str], ngff: bool
    ) -> None:
        """Compare the files of an array with its keys. Only arrays of images must have all their shards."""
        found: set[tuple[int, ...]] = set()
        limits = array.size_range if ngff and self.complete and array.dtype.kind in NUMBERS else None
        if ngff:
            self.faults += pixel_faults(key, array)
        for path, size in self._files_below(folder, files, folders):
            place = array.place(path.relative_to(folder).as_posix())
            if place is None:
                if path != folder / "zarr.json":
                    self._add(path, "is a stray file, no key of its array; remove it")
                continue
            found.add(place)
            if limits and not limits[0] <= size <= limits[1]:
                self._add(path, f"has {size} bytes; {limits[0]} to {limits[1]} are needed for what it holds")
        total = math.prod(array.grid)
        if limits and len(found) < total:
            first = array.first_missing(found)
            lost = total - len(found)
            self._add(folder, f"{lost} of {total} shards are missing, the first at {first}; all are needed")

    def _files_below(
        self, folder: Path, files: Mapping[str, int], folders: Sequence[str]
    ) -> Iterator[tuple[Path, int]]:
        yield from ((folder / name, size) for name, size in sorted(files.items()))
        waiting = [folder / name for name in reversed(folders)]
        while waiting:
            below = waiting.pop()
            files, folders = self._scan(below)
            yield from ((below / name, size) for name, size in sorted(files.items()))
            waiting += [below / name for name in reversed(folders)]

    def _judge(self, node: Node) -> None:
        try:
            self.faults += group_faults(node)
        except RecursionError:
            self.faults.append(f"{node.key}: attributes are nested too deeply to be judged; flatter ones are needed")

    def _add(self, path: Path, fault: str) -> None:
        self.faults.append(f"{self.key(path)}: {fault}")

    def _stray(self, folder: Path, files: Mapping[str, int] | set[str]) -> None:
        for name in sorted(set(files) - {"zarr.json"}):
            self._add(folder / name, "is a stray file, no part of its group; remove it")

    def _scan(self, folder: Path) -> tuple[dict[str, int], list[str]]:
        """The plain files of a folder with their sizes (bytes), and its folders."""
        files: dict[str, int] = {}
        folders: list[str] = []
        if len(folder.relative_to(self.root).parts) > MAX_DEPTH:
            self._add(folder, f"is nested deeper than {MAX_DEPTH} folders; a flatter hierarchy is needed")
            return files, folders
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_litter(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        files[entry.name] = entry.stat(follow_symlinks=False).st_size
                    else:
                        self._add(folder / entry.name, "is a link or no plain file; the content itself is needed")
        except OSError as error:
            self._add(folder, f"cannot be listed ({error.strerror}); a readable folder is needed")
        return files, sorted(folders)

    def _read(self, folder: Path, files: Mapping[str, int]) -> Node:
        """The node of a folder; faults of its `zarr.json` as such are told here."""
        key, file = self.key(folder), folder / "zarr.json"
        if "zarr.json" not in files:
            self._add(folder, "has no zarr.json; every folder of an image is a Zarr group or array")
        elif files["zarr.json"] > MAX_METADATA_BYTES:
            self._add(file, f"has {files['zarr.json']} bytes; at most {MAX_METADATA_BYTES} are read")
        else:
            try:
                metadata = json.loads(file.read_bytes(), parse_constant=json_number, parse_int=json_number)
                header = Header.model_validate(metadata)
            except ValidationError as error:
                for one in error.errors():
                    self._add(file, f"{'.'.join(map(str, one['loc']))}: {short(one['msg'])} (Zarr v3)")
            except (OSError, ValueError, RecursionError) as error:
                self._add(file, f"cannot be read ({short(str(error))}); valid JSON is needed")
            else:
                return self._node(key, header, metadata)
        return Node(key, "unreadable")

    def _node(self, key: str, header: Header, metadata: Mapping[str, Any]) -> Node:
        if header.consolidated_metadata is not None:
            self.faults.append(f"{key}: has consolidated_metadata, which Zarr v3 does not define; leave it out")
        if header.node_type == "array":
            try:
                return Node(key, "array", header.attributes, array=ArrayMetadata.of(metadata))
            except ValueError as error:
                self.faults.append(f"{key}/zarr.json: {error}")
                return Node(key, "unreadable")
        ome = header.attributes.get("ome")
        named = [kind for name, kind in GROUP_KINDS.items() if isinstance(ome, dict) and name in ome]
        return Node(key, named[0] if named else "group" if ome is None else "unknown", header.attributes)
