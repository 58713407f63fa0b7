"""Whether what lies in a folder is NGFF 0.5 as the store writes it: names, sizes and metadata are read, no pixel.

Three judges look at every image, label image and collection: the JSON schemas of the standard, the rules of the store
(what the schemas cannot say: sizes of levels, lists that match the folders, shards that are all there), and last, where
nothing was found so far, ome-zarr-models, which opens everything through zarr.
"""

import json
import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cytoarch.images.ngff import NGFF_VERSION

MAX_METADATA_BYTES = 16 << 20
"""A `zarr.json` larger than this is not read."""
MAX_DEPTH = 24
"""Folders nested deeper than this are not entered."""
MAX_LEVELS = 32
"""More levels than any image can be halved into."""
SKIPPED = "staging"
"""What is being written is not judged."""

_GROUP_KINDS = {
    "multiscales": "image",
    "image-label": "image",
    "labels": "labels",
    "series": "series",
    "bioformats2raw.layout": "collection",
}
"""What a group is, by the first of these keys that its `ome` attributes have."""
_NUMBERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
_PositiveInt = Annotated[int, Field(gt=0)]


def conformance_faults(
    path: Path, complete: bool = True, on_progress: Callable[[int, int], None] | None = None
) -> list[str]:
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
        walk.faults += _collection_faults(collection)
        if not walk.faults:
            walk.faults += _second_opinion(path / collection.key, collection)
    if not units and not walk.collections and not walk.faults:
        walk.faults.append(".: holds no Zarr group; an image, a collection or a folder of them is needed")
    return walk.faults


# -- what a zarr.json states -------------------------------------------------------------------------------------------


class _Metadata(BaseModel):
    """Part of a `zarr.json`; what is not named here is left to zarr."""

    model_config = ConfigDict(strict=True)


class _Header(_Metadata):
    """What every group and array states."""

    zarr_format: Literal[3]
    node_type: Literal["group", "array"]
    attributes: dict[str, Any] = {}
    consolidated_metadata: Any = None


class _Codec(_Metadata):
    name: str
    configuration: dict[str, Any] = {}


class _Chunks(_Metadata):
    chunk_shape: list[_PositiveInt]


class _Sharding(_Chunks):
    codecs: list[_Codec]
    index_codecs: list[_Codec]


class _Grid(_Metadata):
    name: Literal["regular"]
    configuration: _Chunks


class _Keys(_Metadata):
    name: Literal["default", "v2"]
    configuration: dict[Literal["separator"], Literal["/", "."]] = {}


class _Array(_Metadata):
    """What an array states about its shape and its files; a file is a shard, or a chunk where there are no shards."""

    shape: list[Annotated[int, Field(ge=0)]]
    data_type: Any
    chunk_grid: _Grid
    chunk_key_encoding: _Keys
    codecs: list[_Codec]
    fill_value: Any
    dimension_names: list[str | None] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        edges = self.chunk_grid.configuration.chunk_shape
        inner = self.sharding.chunk_shape if self.sharding else edges
        if not len(self.shape) == len(edges) == len(inner) or any(a % b for a, b in zip(edges, inner, strict=True)):
            raise ValueError(f"shape {self.shape}, chunk_shape {edges} and that within shards {inner} do not fit")
        return self

    @cached_property
    def sharding(self) -> _Sharding | None:
        """How a file is divided into chunks, if it is."""
        first = self.codecs[0] if self.codecs else None
        return _Sharding.model_validate(first.configuration) if first and first.name == "sharding_indexed" else None

    @cached_property
    def dtype(self) -> "np.dtype[Any] | None":
        """The type of its values, if these are numbers."""
        return np.dtype(self.data_type) if self.data_type in _NUMBERS else None

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """How many files there are along each axis."""
        edges = self.chunk_grid.configuration.chunk_shape
        return tuple(-(-size // edge) for size, edge in zip(self.shape, edges, strict=True))

    @cached_property
    def separator(self) -> str:
        """What stands between the numbers of a key."""
        keys = self.chunk_key_encoding
        return keys.configuration.get("separator", "/" if keys.name == "default" else ".")

    @property
    def size_range(self) -> tuple[int, int] | None:
        """Least and most bytes a file can have: no codec makes a chunk much larger than it is."""
        if self.dtype is None:
            return None
        edges = self.chunk_grid.configuration.chunk_shape
        raw = math.prod(edges) * self.dtype.itemsize
        if self.sharding is None:
            return 1, raw + raw // 64 + 64
        chunks = math.prod(edges) // math.prod(self.sharding.chunk_shape)
        index = 16 * chunks + 4  # offset and length of every chunk, and a crc32c
        return index + 1, index + raw + raw // 64 + 64 * chunks

    def key(self, place: Sequence[int]) -> str:
        """The key of the file at a place of the grid."""
        numbers = [str(at) for at in place]
        parts = ["c", *numbers] if self.chunk_key_encoding.name == "default" else numbers or ["0"]
        return self.separator.join(parts)

    def place(self, key: str) -> tuple[int, ...] | None:
        """The place in the grid of the file at a key; None if the array has no such key."""
        numbers = re.findall(r"\d+", key, re.ASCII)
        place = tuple(int(number) for number in numbers[: len(self.grid)])
        inside = len(place) == len(self.grid) and all(at < size for at, size in zip(place, self.grid, strict=True))
        return place if inside and self.key(place) == key else None

    def first_missing(self, found: Collection[tuple[int, ...]]) -> str:
        """The first key that is not among the places found, of which there are fewer than keys."""
        for number in count():  # the grid is never listed: a damaged shape can make it endless
            place: list[int] = []
            rest = number
            for size in reversed(self.grid):
                rest, at = divmod(rest, size)
                place.insert(0, at)
            if tuple(place) not in found:
                break
        return self.key(place)


def _is_checked(codecs: Sequence[_Codec]) -> bool:
    """Whether a flipped bit in a file is an error on reading."""
    for codec in codecs:
        if codec.name == "crc32c" or (codec.name == "zstd" and codec.configuration.get("checksum") is True):
            return True
        if codec.name == "sharding_indexed":
            inner = _Sharding.model_validate(codec.configuration)
            return _is_checked(inner.codecs) and any(one.name == "crc32c" for one in inner.index_codecs)
    return False


def _pixel_faults(key: str, array: _Array) -> Iterator[str]:
    """What only arrays of images must be: numbers, guarded by checksums."""
    dtype, fill = array.dtype, array.fill_value
    if dtype is None:
        yield f"{key}: data_type is {_short(array.data_type)}; an integer or float type is needed"
        return
    if not array.shape or 0 in array.shape:
        yield f"{key}: shape is {array.shape}; an image has pixels"
    if not _is_checked(array.codecs):
        names = [codec.name for codec in array.codecs]
        yield f"{key}: codecs {names} have no checksum; crc32c, or zstd with its checksum, is needed in every chunk"
    if dtype.kind == "f":
        fits = isinstance(fill, int | float | str) and not isinstance(fill, bool)
    else:
        fits = type(fill) is int and np.iinfo(dtype).min <= fill <= np.iinfo(dtype).max
    if not fits:
        yield f"{key}: fill_value {_short(fill)} is no {dtype}; a value of the array's type is needed"


# -- the walk ----------------------------------------------------------------------------------------------------------


@dataclass
class _Node:
    """A group or array that was read."""

    key: str
    kind: str
    """array, group (no NGFF), unreadable (a fault was told), unknown, or a value of `_GROUP_KINDS`."""
    attributes: dict[str, Any] = field(default_factory=dict)
    children: "dict[str, _Node]" = field(default_factory=dict)
    array: _Array | None = None
    levels: int | None = None
    """Of an image whose attributes follow the schema."""

    @property
    def ome(self) -> dict[str, Any]:
        """The NGFF attributes; empty if there are none."""
        ome = self.attributes.get("ome")
        return ome if isinstance(ome, dict) else {}

    def find(self, path: str) -> "_Node | None":
        """The node at a path below this one."""
        node: _Node | None = self
        for name in path.split("/"):
            node = node.children.get(name) if node else None
        return node

    def without_content(self) -> "_Node":
        """What the collection needs to know of it."""
        return _Node(self.key, self.kind, self.attributes if self.kind == "series" else {})


@dataclass
class _Walk:
    """One pass over the folders, and the faults found on it."""

    root: Path
    complete: bool
    faults: list[str] = field(default_factory=list)
    collections: list[_Node] = field(default_factory=list)

    def key(self, path: Path) -> str:
        """The path relative to the root."""
        return path.relative_to(self.root).as_posix()

    def units(self, folder: Path) -> Iterator[tuple[Path, _Node | None]]:
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

    def visit(self, folder: Path, ngff: bool = False) -> _Node:
        """Judge a group or array and all below it; `ngff` says that a group above it is one of NGFF."""
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
                self.faults += _second_opinion(folder, node)
        return node

    def _visit_files(
        self, folder: Path, key: str, array: _Array, files: Mapping[str, int], folders: Sequence[str], ngff: bool
    ) -> None:
        """Compare the files of an array with its keys. Others may leave shards out that hold only the fill value."""
        found: set[tuple[int, ...]] = set()
        limits = array.size_range if ngff and self.complete else None
        if ngff:
            self.faults += _pixel_faults(key, array)
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

    def _judge(self, node: _Node) -> None:
        try:
            self.faults += _group_faults(node)
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
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        files[entry.name] = entry.stat(follow_symlinks=False).st_size
                    else:
                        self._add(folder / entry.name, "is a link or no plain file; the content itself is needed")
        except OSError as error:
            self._add(folder, f"cannot be listed ({error.strerror}); a readable folder is needed")
        return files, sorted(folders)

    def _read(self, folder: Path, files: Mapping[str, int]) -> _Node:
        """The node of a folder; faults of its `zarr.json` as such are told here."""
        key, file = self.key(folder), folder / "zarr.json"
        if "zarr.json" not in files:
            self._add(folder, "has no zarr.json; every folder of an image is a Zarr group or array")
        elif files["zarr.json"] > MAX_METADATA_BYTES:
            self._add(file, f"has {files['zarr.json']} bytes; at most {MAX_METADATA_BYTES} are read")
        else:
            try:
                metadata = json.loads(file.read_bytes(), parse_constant=_number, parse_int=_number)
                header = _Header.model_validate(metadata)
                array = _Array.model_validate(metadata) if header.node_type == "array" else None
                return self._node(key, header, array)
            except ValidationError as error:
                for one in error.errors():
                    self._add(file, f"{'.'.join(map(str, one['loc']))}: {_short(one['msg'])} (Zarr v3)")
            except (OSError, ValueError, RecursionError) as error:
                self._add(file, f"cannot be read ({_short(str(error))}); valid JSON is needed")
        return _Node(key, "unreadable")

    def _node(self, key: str, header: _Header, array: _Array | None) -> _Node:
        if header.consolidated_metadata is not None:
            self.faults.append(f"{key}: has consolidated_metadata, which Zarr v3 does not define; leave it out")
        if array is not None:
            return _Node(key, "array", header.attributes, array=array)
        ome = header.attributes.get("ome")
        named = [kind for name, kind in _GROUP_KINDS.items() if isinstance(ome, dict) and name in ome]
        return _Node(key, named[0] if named else "group" if ome is None else "unknown", header.attributes)


def _number(text: str) -> int:
    if len(text) > 20 or not text.lstrip("-").isdigit():  # NaN, Infinity, and more digits than 64 bits have
        raise ValueError(f"{_short(text)} is no number of JSON, or too large")
    return int(text)


def _short(value: object) -> str:
    text = " ".join((value if isinstance(value, str) else repr(value)).split())
    return text if len(text) <= 160 else f"{text[:157]}..."


# -- the schemas of the standard, and ome-zarr-models ------------------------------------------------------------------


@cache
def _schema(model: str, strict: bool) -> Any:
    """The validator of a kind of group, from the schemas of NGFF that come with ngff-zarr."""
    from jsonschema import Draft202012Validator, ValidationError, validators
    from ngff_zarr.validate import load_schema

    def unique(_validator: Any, _wanted: bool, items: Any, _schema: Any) -> Iterator[Exception]:
        if isinstance(items, list) and len({json.dumps(item, sort_keys=True) for item in items}) < len(items):
            yield ValidationError("holds the same item more than once")

    def load(name: str, strict: bool = False) -> dict[str, Any]:
        schema: dict[str, Any] = load_schema(NGFF_VERSION, name, strict)
        schema.pop("$schema", None)  # it would bring `unique` back as it was
        return schema

    schema = load(model, strict)
    parts = [load(name) for name in ("_version", "image", "label")]  # the others refer to these by their $id
    schema["$defs"] = {**schema.get("$defs", {}), **{one["$id"]: one for one in parts if one["$id"] != schema["$id"]}}
    # jsonschema compares every item with every other: seconds for the colours of a thousand labels
    quick = validators.extend(Draft202012Validator, {"uniqueItems": unique})
    return quick(schema)


def _schema_faults(node: _Node, model: str, strict: bool = False) -> Iterator[str]:
    attributes = node.attributes
    multiscales = node.ome.get("multiscales")
    if strict and isinstance(multiscales, list):
        # strict asks for `metadata`, what one should say of the reduction beyond its `type`: ours has no options
        stated = [{"metadata": {}, **one} if isinstance(one, dict) else one for one in multiscales]
        attributes = {**attributes, "ome": {**node.ome, "multiscales": stated}}
    for error in _schema(model, strict).iter_errors(attributes):
        where = ".".join(map(str, error.absolute_path))
        yield f"{node.key}: {where}: {_short(error.message)} (schema of NGFF {NGFF_VERSION})"


def _second_opinion(folder: Path, node: _Node) -> Iterator[str]:
    """What ome-zarr-models finds in a group and all below it; of a collection it knows images named 0, 1, ... only."""
    import zarr
    from ome_zarr_models.v05 import BioFormats2Raw, Image, ImageLabel, Labels

    image = ImageLabel if "image-label" in node.ome else Image
    models: dict[str, Any] = {"image": image, "labels": Labels, "collection": BioFormats2Raw}
    if node.kind not in models:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            group = zarr.open_group(folder, mode="r", zarr_format=3, use_consolidated=False)
            models[node.kind].from_zarr(group)
    except (ValueError, RuntimeError, LookupError, TypeError, AttributeError, OSError) as error:
        yield f"{node.key}: {_short(str(error.__cause__ or error))} (ome-zarr-models)"


# -- groups ------------------------------------------------------------------------------------------------------------


def _group_faults(node: _Node) -> Iterator[str]:
    if node.kind == "image":
        yield from _image_faults(node)
    elif node.kind == "labels":
        yield from _labels_faults(node)
    elif node.kind == "collection":
        yield from _schema_faults(node, "bf2raw")
    elif node.kind == "series":
        yield from _schema_faults(node, "ome")
    elif node.kind == "unknown":
        ome = node.attributes["ome"]
        found = sorted(ome) if isinstance(ome, dict) else ome
        yield f"{node.key}: ome attributes {_short(found)} name no kind; one of {', '.join(_GROUP_KINDS)} is needed"


def _image_faults(node: _Node) -> Iterator[str]:
    by_schema = list(_schema_faults(node, "image", strict=True))
    if "image-label" in node.ome:
        by_schema += [line for line in _schema_faults(node, "label", strict=True) if line not in by_schema]
    yield from by_schema
    if by_schema:  # the rules below rely on the form that the schema gives
        return
    node.levels = len(node.ome["multiscales"][0]["datasets"])
    paths: set[str] = set()
    for multiscale in node.ome["multiscales"]:
        yield from _multiscale_faults(node, multiscale)
        paths |= {dataset["path"] for dataset in multiscale["datasets"]}
    if all(node.find(path) for path in paths):  # else one of these arrays is the one meant
        for name, child in node.children.items():
            if child.kind == "array" and name not in paths:
                yield f"{child.key}: is an array that no dataset names; list it or remove it"
    yield from _omero_faults(node)
    labels = node.children.get("labels")
    if labels is None or labels.kind == "unreadable":
        return
    if labels.kind != "labels":
        yield f"{labels.key}: is of kind {labels.kind}; a group that lists label images is needed"
    for label in labels.children.values():
        if label.levels not in (None, node.levels):
            yield f"{label.key}: has {label.levels} levels; as many as its image are needed, {node.levels}"


def _multiscale_faults(node: _Node, multiscale: Mapping[str, Any]) -> Iterator[str]:
    if len(multiscale["datasets"]) > MAX_LEVELS:
        yield f"{node.key}: has {len(multiscale['datasets'])} levels; {MAX_LEVELS} are enough for the largest of images"
        return
    names = [axis["name"] for axis in multiscale["axes"]]
    space = [axis.get("type") == "space" for axis in multiscale["axes"]]
    if any(axis.get("unit") != "micrometer" for axis in multiscale["axes"] if axis.get("type") == "space"):
        yield f"{node.key}: axes of space without the unit micrometer; sizes in the store are in micrometers"
    levels: dict[int, tuple[str, _Array]] = {}
    for number, dataset in enumerate(multiscale["datasets"]):
        path = dataset["path"]
        child = node.find(path)
        if not set(path.split("/")).isdisjoint({"", ".", ".."}):
            yield f"{node.key}: dataset path {path!r} leaves its group; a path below it is needed"
        elif child is None or child.kind not in ("array", "unreadable"):
            yield f"{node.key}: dataset {path!r} is not there; an array is needed"
        elif child.array is not None:
            levels[number] = child.key, child.array
    yield from _transform_faults(node.key, multiscale["datasets"], space)
    yield from _level_faults(levels, names, space)


def _level_faults(
    levels: Mapping[int, tuple[str, _Array]], names: Sequence[str], space: Sequence[bool]
) -> Iterator[str]:
    """Every level must have the axes and the type of the image, and half the size of the one before."""
    _, first = levels.get(0, ("", None))
    for number, (key, array) in levels.items():
        if array.dimension_names != names:
            yield f"{key}: dimension_names are {array.dimension_names}; the names of the axes are needed, {names}"
        if first is None or len(array.shape) != len(names) or len(first.shape) != len(names):
            continue
        due = [-(-size // 2**number) if halved else size for size, halved in zip(first.shape, space, strict=True)]
        if array.shape != due:
            yield f"{key}: shape is {array.shape}; level {number} needs {due}, halved and rounded up"
        if array.data_type != first.data_type:
            yield f"{key}: data_type is {array.data_type}; that of level 0 is needed, {first.data_type}"


def _transform_faults(key: str, datasets: Sequence[Mapping[str, Any]], space: Sequence[bool]) -> Iterator[str]:
    """Every level must lie on level 0: pixels twice as large, and the same corner."""
    stated: list[tuple[list[float], list[float]]] = []
    for dataset in datasets:
        where = f"{key}: dataset {dataset['path']!r}"
        by_type = {one["type"]: one[one["type"]] for one in dataset["coordinateTransformations"]}
        scale, offset = by_type.get("scale", []), by_type.get("translation", [0.0] * len(space))
        if len(scale) != len(space) or not all(0 < value < math.inf for value in scale):
            yield f"{where} has scale {scale}; {len(space)} positive finite numbers are needed"
            return
        if len(offset) != len(space) or not all(math.isfinite(value) for value in offset):
            yield f"{where} has translation {offset}; {len(space)} finite numbers are needed"
            return
        stated.append((scale, offset))
    (scale_0, offset_0), close = stated[0], {"rel_tol": 1e-6, "abs_tol": 1e-9}
    for number, (dataset, (scale, offset)) in enumerate(zip(datasets, stated, strict=True)):
        where = f"{key}: dataset {dataset['path']!r}"
        due = [value * 2**number if halved else value for value, halved in zip(scale_0, space, strict=True)]
        corner = [at + (b - a) / 2 for at, a, b in zip(offset_0, scale_0, due, strict=True)]
        if not all(math.isclose(a, b, **close) for a, b in zip(scale, due, strict=True)):
            yield f"{where} has scale {scale}; {due} is needed, twice that of the level before"
        elif not all(math.isclose(a, b, **close) for a, b in zip(offset, corner, strict=True)):
            yield f"{where} has translation {offset}; {corner} is needed, so that all levels share a corner"


def _omero_faults(node: _Node) -> Iterator[str]:
    if "omero" not in node.ome:
        return
    channels = node.ome["omero"]["channels"]
    multiscale = node.ome["multiscales"][0]
    array = (node.find(multiscale["datasets"][0]["path"]) or node).array
    names = [axis["name"] for axis in multiscale["axes"]]
    if array is not None and len(array.shape) == len(names):
        depth = array.shape[names.index("c")] if "c" in names else 1
        if len(channels) != depth:
            yield f"{node.key}: omero has {len(channels)} channels; the image has {depth}"
    for number, channel in enumerate(channels):
        where = f"{node.key}: omero channel {number}"
        colour, window = channel.get("color"), channel.get("window", {})
        if not isinstance(colour, str) or not re.fullmatch("[0-9A-Fa-f]{6}", colour):
            yield f"{where} has color {_short(colour)}; six hexadecimal digits are needed"
        bounds = [window[name] for name in ("min", "start", "end", "max")] if window else []
        if not bounds or bounds != sorted(bounds) or not all(map(math.isfinite, bounds)):
            yield f"{where} has window {_short(window)}; min <= start <= end <= max is needed"


def _labels_faults(node: _Node) -> Iterator[str]:
    if node.ome.get("version") != NGFF_VERSION:
        yield f"{node.key}: ome.version is {_short(node.ome.get('version'))}; {NGFF_VERSION!r} is needed"
    listed = node.ome["labels"]
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        yield f"{node.key}: labels is {_short(listed)}; a list of the names of label images is needed"
        return
    yield from _list_faults(node.key, "labels", listed, set(node.children))
    for child in node.children.values():
        if child.kind != "image" or "image-label" not in child.ome:
            if child.kind != "unreadable":
                yield f"{child.key}: is of kind {child.kind} without image-label; a label image is needed"
            continue
        dtypes = {str(level.array.data_type) for level in child.children.values() if level.array}
        for one in sorted(one for one in dtypes if one.startswith("float")):
            yield f"{child.key}: data_type is {one}; an integer type is needed in a label image"


def _collection_faults(node: _Node) -> Iterator[str]:
    """Whether the series of a collection are the images in it."""
    images = {name: child for name, child in node.children.items() if name != "OME"}
    for child in images.values():
        if child.kind not in ("image", "unreadable"):
            yield f"{child.key}: is of kind {child.kind}; an image is needed in a collection"
    lists = node.children.get("OME")
    if lists is None or lists.kind not in ("series", "unreadable"):
        yield f"{node.key}: has no OME group with the series; the list of its images is needed"
        return
    series = lists.ome.get("series")
    if isinstance(series, list) and all(isinstance(name, str) for name in series):
        yield from _list_faults(lists.key, "series", series, set(images))


def _list_faults(key: str, name: str, listed: Sequence[str], there: set[str]) -> Iterator[str]:
    for one in sorted(set(listed) - there):
        yield f"{key}: {name} lists {one!r}, which is not there; list what is there only"
    for one in sorted(there - set(listed)):
        yield f"{key}: {name} does not list {one!r}, which is there; list it or remove it"
    for one in sorted(one for one, times in Counter(listed).items() if times > 1):
        yield f"{key}: {name} lists {one!r} more than once; once is needed"
