"""The rules of the store for images, lists of label images and collections."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cytoarch.images.conformance.metadata import ArrayMetadata, short
from cytoarch.images.conformance.nodes import GROUP_KINDS, Node
from cytoarch.images.conformance.schemas import schema_faults
from cytoarch.images.ngff import NGFF_VERSION

MAX_LEVELS = 32
"""More levels than any image can be halved into."""


def group_faults(node: Node) -> Iterator[str]:
    """What is wrong with a group of its kind. What lies below it must have been judged before."""
    if node.kind == "image":
        yield from _image_faults(node)
    elif node.kind == "labels":
        yield from _labels_faults(node)
    elif node.kind == "collection":
        yield from schema_faults(node, "bf2raw")
    elif node.kind == "series":
        yield from schema_faults(node, "ome")
    elif node.kind == "unknown":
        ome = node.attributes["ome"]
        found = sorted(ome) if isinstance(ome, dict) else ome
        yield f"{node.key}: ome attributes {short(found)} name no kind; one of {', '.join(GROUP_KINDS)} is needed"


def _image_faults(node: Node) -> Iterator[str]:
    by_schema = list(schema_faults(node, "image", strict=True))
    if "image-label" in node.ome:
        by_schema += [line for line in schema_faults(node, "label", strict=True) if line not in by_schema]
    yield from by_schema
    if by_schema:  # the rules below rely on the form that the schema gives
        return
    node.levels = len(node.ome["multiscales"][0]["datasets"])
    paths: set[str] = set()
    for multiscale in node.ome["multiscales"]:
        yield from _multiscale_faults(node, multiscale)
        paths |= {dataset["path"] for dataset in multiscale["datasets"]}
    if all(node.find(path) for path in paths):  # else an array that no dataset names may be the missing one
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


def _multiscale_faults(node: Node, multiscale: Mapping[str, Any]) -> Iterator[str]:
    if len(multiscale["datasets"]) > MAX_LEVELS:
        yield f"{node.key}: has {len(multiscale['datasets'])} levels; {MAX_LEVELS} are enough for the largest of images"
        return
    names = [axis["name"] for axis in multiscale["axes"]]
    space = [axis.get("type") == "space" for axis in multiscale["axes"]]
    if any(axis.get("unit") != "micrometer" for axis in multiscale["axes"] if axis.get("type") == "space"):
        yield f"{node.key}: axes of space without the unit micrometer; sizes in the store are in micrometers"
    levels: dict[int, tuple[str, ArrayMetadata]] = {}
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
    levels: Mapping[int, tuple[str, ArrayMetadata]], names: Sequence[str], space: Sequence[bool]
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
        if array.dtype != first.dtype:
            yield f"{key}: data_type is {array.dtype}; that of level 0 is needed, {first.dtype}"


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


def _omero_faults(node: Node) -> Iterator[str]:
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
            yield f"{where} has color {short(colour)}; six hexadecimal digits are needed"
        bounds = [window[name] for name in ("min", "start", "end", "max")] if window else []
        if not bounds or bounds != sorted(bounds) or not all(map(math.isfinite, bounds)):
            yield f"{where} has window {short(window)}; min <= start <= end <= max is needed"


def _labels_faults(node: Node) -> Iterator[str]:
    if node.ome.get("version") != NGFF_VERSION:
        yield f"{node.key}: ome.version is {short(node.ome.get('version'))}; {NGFF_VERSION!r} is needed"
    listed = node.ome["labels"]
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        yield f"{node.key}: labels is {short(listed)}; a list of the names of label images is needed"
        return
    yield from _list_faults(node.key, "labels", listed, set(node.children))
    for child in node.children.values():
        if child.kind != "image" or "image-label" not in child.ome:
            if child.kind != "unreadable":
                yield f"{child.key}: is of kind {child.kind} without image-label; a label image is needed"
            continue
        dtypes = {str(level.array.dtype) for level in child.children.values() if level.array}
        for one in sorted(one for one in dtypes if one.startswith("float")):
            yield f"{child.key}: data_type is {one}; an integer type is needed in a label image"


def collection_faults(node: Node) -> Iterator[str]:
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
