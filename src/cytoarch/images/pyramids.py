"""NGFF images with all their levels, streamed from a source of any size one whole shard at a time."""

from collections.abc import Mapping
from typing import Any

import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from cytoarch.digests import canonical_json
from cytoarch.images.layout import Journal, Pyramid
from cytoarch.images.ngff import NGFF_VERSION, multiscales
from cytoarch.images.shard_tree import ReadWindow, ShardTree
from cytoarch.images.shards import CLEVELS
from cytoarch.progress import Progress
from cytoarch.store.disk import writing


def write_pyramid(
    journal: Journal,
    pyramid: Pyramid,
    read: ReadWindow,
    *,
    name: str,
    folder: str = "",
    attributes: Mapping[str, Any] | None = None,
    own_attributes: Mapping[str, Any] | None = None,
    on_progress: Progress | None = None,
    threads: int = 1,
) -> None:
    """Write an NGFF image at `folder` of the journal's path; shards that an earlier run finished are kept.

    `attributes` join the `ome` attributes (`omero`, `image-label`); `own_attributes` are ours, under `cytoarch`.
    `on_progress(done, total)` counts bytes of level 0. Several threads call `read` at once and
    change nothing in the result. Raises ScanError if `read` gives a block of another shape or type, or values that are
    not finite.
    """
    prefix = f"{folder}/" if folder else ""
    axes = "cyx" if pyramid.lead else "yx"
    levels = range(pyramid.levels)
    arrays = [create_array(journal, f"{prefix}{level}", pyramid, level, axes) for level in levels]
    ShardTree(journal, pyramid, read, prefix, arrays, on_progress).write(threads)
    write_image_group(journal, folder, pyramid, name, axes, attributes, own_attributes)


def write_image_group(
    journal: Journal,
    folder: str,
    pyramid: Pyramid,
    name: str,
    axes: str,
    attributes: Mapping[str, Any] | None,
    own_attributes: Mapping[str, Any] | None,
) -> None:
    """Write the metadata of an image, once all its shards are there."""
    levels = range(pyramid.levels)
    ome = {
        "version": NGFF_VERSION,
        "multiscales": [
            multiscales(
                name,
                axes,
                [pyramid.scale_um(level) for level in levels],
                [pyramid.offset_um(level) for level in levels],
                pyramid.reduction,
                [str(level) for level in levels],
            )
        ],
        **(attributes or {}),
    }
    write_group(journal, folder, {"ome": ome, **({"cytoarch": dict(own_attributes)} if own_attributes else {})})


def write_group(journal: Journal, folder: str, attributes: Mapping[str, Any]) -> None:
    """Write the metadata of a Zarr v3 group at `folder` of the journal's path."""
    metadata = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    journal.write(f"{folder}/zarr.json" if folder else "zarr.json", canonical_json(metadata).encode())


def create_array(journal: Journal, key: str, pyramid: Pyramid, level: int, axes: str) -> "zarr.Array[Any]":
    """The array of a level at `key` of the journal's path: made, or the one that an earlier run made."""
    height, width = pyramid.level_shape(level)
    shard, chunk = pyramid.shard_px(), pyramid.chunk_px()
    metadata_key = f"{key}/zarr.json"
    path = journal.path / key
    if journal.has(metadata_key):
        return zarr.open_array(path, mode="r+", zarr_format=3, config={"write_empty_chunks": True})
    with writing(path):
        array = zarr.create_array(
            store=path,
            shape=(*pyramid.lead, height, width),
            dtype=pyramid.dtype,
            chunks=(*pyramid.lead, chunk, chunk),
            shards=(*pyramid.lead, shard, shard),
            # bitshuffle halves the encoding time of noisy 8-bit content; crc32c catches every flipped bit on reading
            compressors=(
                BloscCodec(cname=pyramid.codec, clevel=CLEVELS[pyramid.codec], shuffle="bitshuffle"),
                Crc32cCodec(),
            ),
            fill_value=pyramid.fill,
            dimension_names=list(axes),
            config={"write_empty_chunks": True},  # a shard that is absent is always a fault, never "all background"
        )
    journal.seal(metadata_key)
    return array
