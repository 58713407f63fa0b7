"""OME-Zarr stores that lie."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.hostile.damages import damaged
from tests.hostile.plans import CHECKSUM, EITHER, REFUSED, Plan, file_of, store_of, writer_of
from tests.hostile.sound import Content, sound


def store_plans() -> Iterator[Plan]:
    four, five = sound("zarr4"), sound("zarr5")

    def changed(content: Content, file: str, change: Callable[[Any], object]) -> Content:
        metadata = json.loads(content[file])
        change(metadata)
        return {**content, file: json.dumps(metadata).encode()}

    array, group = "0/zarr.json", "zarr.json"
    for name, change in (
        ("huge-chunks", lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=[1, 2**31, 2**31])),
        ("no-chunks", lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=[0, 0, 0])),
        ("tiny-chunks", lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=[1, 1, 1])),
        ("negative-shape", lambda m: m.update(shape=[1, -1, 310])),
        ("huge-shape", lambda m: m.update(shape=[1, 2**40, 2**40])),
        ("objects", lambda m: m.update(data_type="object")),
        ("float", lambda m: m.update(data_type="float32")),
        ("pickle-codec", lambda m: m.update(codecs=[{"name": "numcodecs.pickle", "configuration": {}}])),
        ("unknown-codec", lambda m: m["codecs"].append({"name": "os.system", "configuration": {"cmd": "true"}})),
        ("format-9", lambda m: m.update(zarr_format=9)),
        ("codecs-a-text", lambda m: m.update(codecs="none")),
    ):
        yield store_of(f"store-{name}", "store", changed(five.content, array, change), REFUSED)
    for name, path in (("dots", "../sound-zarr5.zarr/0"), ("absolute", "/etc"), ("url", "http://127.0.0.1:9/0")):
        content = changed(five.content, group, lambda m, path=path: _dataset(m).update(path=path))
        yield store_of(f"store-path-{name}", "store", content, REFUSED)
    for name, change in (
        ("no-multiscales", lambda m: m["attributes"]["ome"].update(multiscales=[])),
        ("version-9", lambda m: m["attributes"]["ome"].update(version="9")),
        ("axes-twice", lambda m: m["attributes"]["ome"]["multiscales"][0].update(axes=[{"name": "y"}] * 3)),
        ("attributes-a-list", lambda m: m.update(attributes=[])),
    ):
        yield store_of(f"store-{name}", "store", changed(five.content, group, change), REFUSED)
    pickle = changed(four.content, "0/.zarray", lambda m: m.update(filters=[{"id": "pickle", "protocol": 5}]))
    yield store_of("store-pickle-filter", "store", pickle, REFUSED)
    objects = changed(four.content, "0/.zarray", lambda m: m.update(dtype="|O"))
    yield store_of("store-objects-of-v2", "store", objects, REFUSED)
    yield store_of("store-json-deep", "store", {**five.content, group: b"[" * 200_000}, REFUSED)
    yield store_of("store-json-large", "store", {**five.content, group: b" " * (20 << 20)}, REFUSED)
    yield store_of("store-empty", "store", {"readme.txt": b""}, REFUSED)
    yield store_of("store-without-chunks", "store", {k: v for k, v in five.content.items() if "/c/" not in k}, REFUSED)

    def with_node(node: Callable[[Path], None]) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            writer_of(five.content)(path)
            node(path)

        return make

    def deep(path: Path) -> None:
        for part in ["d"] * 1200:  # deeper than Python calls itself
            path = path / part
            path.mkdir()

    nodes: dict[str, Callable[[Path], None]] = {
        "link-outside": lambda path: (path / "0" / "c" / "9").symlink_to("/etc/hostname"),
        "link-to-folder": lambda path: (path / "0" / "c" / "9").symlink_to("/etc"),
        "link-loop": lambda path: (path / "0" / "c" / "9").symlink_to("9"),
        "pipe": lambda path: os.mkfifo(path / "0" / "c" / "9"),
        "deep": deep,
        "name-of-no-encoding": lambda path: Path(os.fsdecode(os.fsencode(path) + b"/0/\xff\xfe")).write_bytes(b""),
    }
    for name, node in nodes.items():
        allowed = EITHER if name in ("deep", "name-of-no-encoding") else REFUSED
        pixels = five.pixels
        yield Plan(
            f"store-{name}", "store", f"store-{name}.zarr", with_node(node), allowed, lambda pixels=pixels: pixels
        )

    def folder_for_chunk(path: Path) -> None:
        chunk = path / damaged("zarr5")
        chunk.unlink()
        chunk.mkdir()

    file, right = "store-folder-for-a-chunk.zarr", five.pixels
    yield Plan(
        "store-folder-for-a-chunk", "store", file, with_node(folder_for_chunk), CHECKSUM, lambda: right, five.content
    )
    lost = {key: data for key, data in five.content.items() if key != damaged("zarr5")}
    file = "store-lost-chunk.zarr"
    yield Plan("store-lost-chunk", "store", file, writer_of(lost), CHECKSUM, lambda: right, five.content)
    yield file_of("store-a-file", "store", ".zarr", b"PK\x03\x04", REFUSED)


def _dataset(metadata: Any) -> Any:
    return metadata["attributes"]["ome"]["multiscales"][0]["datasets"][0]
