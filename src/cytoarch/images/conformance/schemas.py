"""What others say of a group: the JSON schemas of the standard, ome-zarr-models, and ome-zarr-py."""

import json
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from cytoarch.images.conformance.metadata import short
from cytoarch.images.conformance.nodes import Node
from cytoarch.images.ngff import NGFF_VERSION


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
        schema.pop("$schema", None)  # by it jsonschema would choose its own validator, without `unique`
        return schema

    schema = load(model, strict)
    parts = [load(name) for name in ("_version", "image", "label")]  # the others refer to these by their $id
    schema["$defs"] = {**schema.get("$defs", {}), **{one["$id"]: one for one in parts if one["$id"] != schema["$id"]}}
    # jsonschema compares every item with every other: seconds for the colours of a thousand labels
    quick = validators.extend(Draft202012Validator, {"uniqueItems": unique})
    return quick(schema)


def schema_faults(node: Node, model: str, strict: bool = False) -> Iterator[str]:
    """What the schema of a kind of group finds in its attributes."""
    attributes = node.attributes
    multiscales = node.ome.get("multiscales")
    if strict and isinstance(multiscales, list):
        # the strict schema demands `metadata`, the options of the reduction; our reductions have none
        stated = [{"metadata": {}, **one} if isinstance(one, dict) else one for one in multiscales]
        attributes = {**attributes, "ome": {**node.ome, "multiscales": stated}}
    for error in _schema(model, strict).iter_errors(attributes):
        where = ".".join(map(str, error.absolute_path))
        yield f"{node.key}: {where}: {short(error.message)} (schema of NGFF {NGFF_VERSION})"


def second_opinion(folder: Path, node: Node) -> Iterator[str]:
    """What ome-zarr-models, then ome-zarr-py find in a group and all below it.

    The former knows images of a collection named 0, 1, ... only, the latter is asked of images with their labels.
    """
    import zarr
    from ome_zarr_models.v05 import BioFormats2Raw, Image, ImageLabel, Labels

    image = ImageLabel if "image-label" in node.ome else Image
    models: dict[str, Any] = {"image": image, "labels": Labels, "collection": BioFormats2Raw}
    if node.kind not in models:
        return
    judge = "ome-zarr-models"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            group = zarr.open_group(folder, mode="r", zarr_format=3, use_consolidated=False)
            models[node.kind].from_zarr(group)
            judge = "ome-zarr-py"
            yield from _unlike_viewers(folder, node)
    except (ValueError, RuntimeError, LookupError, TypeError, AttributeError, OSError) as error:
        yield f"{node.key}: {short(str(error.__cause__ or error))} ({judge})"


def _unlike_viewers(folder: Path, node: Node) -> Iterator[str]:
    """Whether ome-zarr-py, with which napari and others open it, finds all levels of an image and of its labels."""
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    if node.kind != "image" or "image-label" in node.ome:
        return
    labels = node.children.get("labels")
    due = [one.levels or 0 for one in (node, *(labels.children.values() if labels else ()))]
    location = parse_url(folder)
    found = [] if location is None else [len(one.data) for one in Reader(location)() if one.data]
    if sorted(found) != sorted(due):
        yield f"{node.key}: {found} levels are found by ome-zarr-py, as viewers open it; {due} are needed"
