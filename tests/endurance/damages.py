"""Damage of every kind to the committed files of a store."""

import random
from collections.abc import Callable
from pathlib import Path

from cytoarch.store.brain_store import BrainStore
from cytoarch.store.collection import COLLECTION

Damage = Callable[[random.Random, Path], None]


def flip_bit(draw: random.Random, path: Path) -> None:
    """Turn one bit of a file over."""
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    with path.open("r+b") as file:
        file.write(content)


def truncate(draw: random.Random, path: Path) -> None:
    """Cut a file off."""
    size = draw.randrange(path.stat().st_size)
    with path.open("r+b") as file:
        file.truncate(size)


def delete(_: random.Random, path: Path) -> None:
    """Remove a file."""
    path.unlink()


KINDS: dict[str, Damage] = {"flip": flip_bit, "truncate": truncate, "delete": delete}


def committed_files(store: BrainStore, brain_id: str) -> dict[str, list[str]]:
    """All files that verification answers for, by their kind; keys in the brain's folder."""
    home = store.brain_path(brain_id)
    files: dict[str, list[str]] = {"shards": [], "metadata": [], "pictures": [], "records": [], "brain": ["brain.json"]}
    for record in store.catalogue(brain_id).records():
        for key in record.files:
            name = key.rsplit("/", 1)[-1]
            kind = "metadata" if name == "zarr.json" else "pictures" if "." in name else "shards"
            if record.step != "annotations":
                files[kind].append(key)
    files["records"] = [str(path.relative_to(home)) for path in store.catalogue(brain_id).record_paths()]
    files["collection"] = list(COLLECTION)
    return files
