import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05.bioformats2raw import BioFormats2Raw
from ome_zarr_models.v05.image import Image

from cytoarch.images.conformance import conformance_faults
from cytoarch.images.conformance.metadata import ArrayMetadata
from cytoarch.images.layout import Pyramid
from cytoarch.images.ngff import image_label, omero
from cytoarch.images.pyramids import write_group, write_pyramid
from cytoarch.store.staging import Staging

SECTION = "sections.ome.zarr/s1"
LABEL = f"{SECTION}/labels/areas"
LAYER = "derived/embeddings/texture/s1/layer4"
CUTS = {"s1": (3, 86, 107), "s2": (1, 70, 64)}


def write_section(folder: Path, shape: tuple[int, ...], labelled: bool) -> None:
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 255, shape, dtype=np.uint8)
    labels = rng.integers(0, 3, shape[1:], dtype=np.uint8)
    staging = Staging(folder.with_name(f"{folder.name}.room")).open()
    write_pyramid(
        staging,
        Pyramid(shape, pixels.dtype, 2.0, "mean", fill=255, levels=3, chunk=16, shard=32),
        lambda y, x, h, w: pixels[:, y : y + h, x : x + w],
        name=folder.name,
        attributes={"omero": omero(shape[0], shape[0] == 3, (0.0, 255.0))},
    )
    if labelled:
        write_group(staging, "labels", {"ome": {"version": "0.5", "labels": ["areas"]}})
        write_pyramid(
            staging,
            Pyramid(shape[1:], labels.dtype, 2.0, "mode", levels=3, chunk=16, shard=32),
            lambda y, x, h, w: labels[y : y + h, x : x + w],
            name="areas",
            folder="labels/areas",
            attributes={"image-label": image_label({1: "A", 2: "B"}, {1: (255, 0, 0), 2: (0, 255, 0)})},
        )
    staging.path.rename(folder)
    shutil.rmtree(folder.with_name(f"{folder.name}.room"))


def write_embeddings(folder: Path) -> None:
    values = np.random.default_rng(5).normal(size=(8, 40, 50)).astype(np.float16)
    staging = Staging(folder.parent / "room").open()
    layout = Pyramid(values.shape, values.dtype, 16.0, "mean", origin_um=7.0, chunk=16, shard=32, codec="lz4")
    write_pyramid(staging, layout, lambda y, x, h, w: values[:, y : y + h, x : x + w], name="layer4", folder="layer4")
    write_group(staging, "", {"cytoarch": {"layers": ["layer4"]}})
    staging.path.rename(folder)
    shutil.rmtree(folder.parent / "room")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A brain with a collection of two sections, one of them labelled, and embeddings of one layer."""
    brain = tmp_path_factory.mktemp("store") / "B1"
    (brain / "sections.ome.zarr").mkdir(parents=True)
    for name, shape in CUTS.items():
        write_section(brain / "sections.ome.zarr" / name, shape, name == "s1")
    (brain / "derived/embeddings/texture").mkdir(parents=True)
    write_embeddings(brain / "derived/embeddings/texture/s1")
    group(brain / "sections.ome.zarr", {"version": "0.5", "bioformats2raw.layout": 3})
    group(brain / "sections.ome.zarr/OME", {"version": "0.5", "series": list(CUTS)})
    (brain / "brain.json").write_text("{}")
    (brain / "staging/half").mkdir(parents=True)
    (brain / "staging/half/zarr.json").write_text("{")
    return brain


@pytest.fixture
def brain(written: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(written, tmp_path / "B1"))


def group(folder: Path, ome: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}))


# -- what is right -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    [
        *(".", "sections.ome.zarr", "sections.ome.zarr/OME", SECTION, f"{SECTION}/labels", LABEL, f"{LABEL}/0"),
        *("derived", "derived/embeddings/texture/s1", LAYER),
    ],
)
def test_what_the_store_writes_has_no_fault_wherever_one_begins(written: Path, where: str) -> None:
    assert conformance_faults(written / where) == []


def test_every_image_is_counted_once(written: Path) -> None:
    seen: list[tuple[int, int]] = []
    conformance_faults(written, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 4) for number in range(1, 5)]  # two sections, OME, embeddings


def test_a_table_beside_the_images_is_checked_for_strays_but_may_leave_out_what_is_all_fill(brain: Path) -> None:
    table = zarr.create_group(brain / "derived/table", zarr_format=3)
    table.create_array("x", shape=(4, 6), chunks=(2, 2), dtype="float32", compressors=None)
    table.create_array("seed", shape=(), dtype="int64")
    table["x"][:2] = 1
    table["seed"][...] = 7
    assert conformance_faults(brain) == []
    (brain / "derived/table/x/c/0/3").write_bytes(b"")
    assert conformance_faults(brain) == ["derived/table/x/c/0/3: is a stray file, no key of its array; remove it"]


@pytest.mark.parametrize("name", ["default", "v2"])
@pytest.mark.parametrize("separator", ["/", "."])
@pytest.mark.parametrize("shards", [None, (8, 4)])
def test_the_keys_of_an_array_are_those_that_zarr_writes(
    tmp_path: Path, name: str, separator: str, shards: tuple[int, int] | None
) -> None:
    encoding: Any = {"name": name, "separator": separator}
    for number, shape in enumerate([(20, 9), (8, 4), (1, 1)]):
        array = zarr.create_array(
            tmp_path / str(number),
            shape=shape,
            chunks=(4, 2),
            shards=shards,
            dtype="uint8",
            chunk_key_encoding=encoding,
        )
        array[...] = 1
        folder = tmp_path / str(number)
        stated = ArrayMetadata.of(json.loads((folder / "zarr.json").read_bytes()))
        files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {"zarr.json"}
        assert files == {stated.key(place) for place in np.ndindex(stated.grid)}
        assert {stated.place(key) for key in files} == set(np.ndindex(stated.grid))
        assert conformance_faults(folder) == []


# -- what is wrong -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    plant: Callable[[Path], object]
    where: str
    says: str
    seen_by_models: bool = False
    """Whether ome-zarr-models refuses the section or the layer, too."""


def edit(key: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    """Change the metadata at a key in place."""

    def plant(brain: Path) -> None:
        file = brain / key / "zarr.json"
        metadata = json.loads(file.read_bytes())
        change(metadata)
        file.write_text(json.dumps(metadata))

    return plant


def put(key: str, *path: str | int, value: Any) -> Callable[[Path], None]:
    """Set a value in the metadata at a key."""

    def change(metadata: Any) -> None:
        for step in path[:-1]:
            metadata = metadata[step]
        metadata[path[-1]] = value

    return edit(key, change)


def drop(key: str, *path: str | int) -> Callable[[Path], None]:
    """Remove a value from the metadata at a key."""

    def change(metadata: Any) -> None:
        for step in path[:-1]:
            metadata = metadata[step]
        del metadata[path[-1]]

    return edit(key, change)


def file(key: str, content: bytes) -> Callable[[Path], object]:
    return lambda brain: (brain / key).write_bytes(content)


def removed(key: str) -> Callable[[Path], object]:
    return lambda brain: shutil.rmtree(brain / key) if (brain / key).is_dir() else (brain / key).unlink()


def less(key: str, part: int) -> Callable[[Path], object]:
    return lambda brain: (brain / key).write_bytes((brain / key).read_bytes()[:part])


OME = ("attributes", "ome")
SCALE = (*OME, "multiscales", 0, "datasets")
CHANNEL = (*OME, "omero", "channels", 1)
NO_CHECKSUM = [{"name": "bytes", "configuration": {"endian": "little"}}]


def multiscale(metadata: Any) -> Any:
    return metadata["attributes"]["ome"]["multiscales"][0]


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def reorder_axes(brain: Path) -> None:
    put(f"{LAYER}/0", "dimension_names", value=["y", "c", "x"])(brain)
    edit(LAYER, lambda metadata: multiscale(metadata)["axes"].insert(1, multiscale(metadata)["axes"].pop(0)))(brain)


def floats(brain: Path) -> None:
    for level in range(3):
        put(f"{LABEL}/{level}", "data_type", value="float32")(brain)


FAULTS = {
    # files
    "broken JSON": Fault(file(f"{SECTION}/1/zarr.json", b'{"a": '), f"{SECTION}/1/zarr.json", "valid JSON", True),
    "JSON of bytes": Fault(
        file(f"{SECTION}/1/zarr.json", b"\xff\xfe\x00"), f"{SECTION}/1/zarr.json", "valid JSON", True
    ),
    "a JSON list": Fault(file(f"{SECTION}/1/zarr.json", b"[]"), f"{SECTION}/1/zarr.json", "dictionary", True),
    "deep JSON": Fault(file(f"{SECTION}/1/zarr.json", b"[" * 10**5), f"{SECTION}/1/zarr.json", "valid JSON", True),
    "NaN": Fault(put(f"{SECTION}/1", "attributes", value={"x": float("nan")}), f"{SECTION}/1/zarr.json", "NaN is no"),
    "endless number": Fault(put(SECTION, "attributes", "x", value=10**50), f"{SECTION}/zarr.json", "too large"),
    "no zarr.json in a section": Fault(removed(f"{SECTION}/zarr.json"), SECTION, "no zarr.json", True),
    "no zarr.json in a level": Fault(removed(f"{SECTION}/2/zarr.json"), f"{SECTION}/2", "no zarr.json", True),
    "no zarr.json in labels": Fault(removed(f"{SECTION}/labels/zarr.json"), f"{SECTION}/labels", "no zarr.json"),
    "no zarr.json of an image outside": Fault(removed(f"{LAYER}/zarr.json"), LAYER, "no zarr.json", True),
    "Zarr v2": Fault(put(SECTION, "zarr_format", value=2), f"{SECTION}/zarr.json", "zarr_format", True),
    "no node type": Fault(drop(SECTION, "node_type"), f"{SECTION}/zarr.json", "node_type"),
    "a level that is a group": Fault(
        lambda brain: (
            shutil.rmtree(brain / SECTION / "1"),
            group(brain / SECTION / "1", {"version": "0.5", "series": []}),
        ),
        SECTION,
        "dataset '1' is not there; an array is needed",
        True,
    ),
    "a file in a group": Fault(file(f"{SECTION}/notes.txt", b"x"), f"{SECTION}/notes.txt", "stray"),
    "a file in a collection": Fault(
        file("sections.ome.zarr/.zarr.json.7.draft", b"x"), "sections.ome.zarr/.zarr.json.7.draft", "stray"
    ),
    "a partial shard": Fault(file(f"{SECTION}/0/c/0/0/0.7.partial", b"x"), f"{SECTION}/0/c/0/0/0.7.partial", "stray"),
    "a shard beyond the grid": Fault(file(f"{SECTION}/0/c/0/0/4", b"x" * 200), f"{SECTION}/0/c/0/0/4", "stray"),
    "a shard with a leading zero": Fault(file(f"{SECTION}/0/c/0/0/01", b"x" * 200), f"{SECTION}/0/c/0/0/01", "stray"),
    "an emptied shard": Fault(file(f"{SECTION}/0/c/0/1/2", b""), f"{SECTION}/0/c/0/1/2", "has 0 bytes"),
    "a truncated shard": Fault(less(f"{SECTION}/0/c/0/1/2", 60), f"{SECTION}/0/c/0/1/2", "has 60 bytes"),
    "an overlong shard": Fault(file(f"{SECTION}/0/c/0/1/2", bytes(10**4)), f"{SECTION}/0/c/0/1/2", "10000 bytes"),
    "a missing shard": Fault(
        removed(f"{SECTION}/0/c/0/1/2"), f"{SECTION}/0", "1 of 12 shards are missing, the first at c/0/1/2"
    ),
    "missing shards": Fault(removed(f"{LABEL}/0/c"), f"{LABEL}/0", "12 of 12 shards are missing, the first at c/0/0"),
    "a missing shard of embeddings": Fault(removed(f"{LAYER}/0/c/0/1/1"), f"{LAYER}/0", "1 of 4 shards"),
    "a folder that is no group": Fault(
        lambda brain: (brain / SECTION / "more").mkdir(), f"{SECTION}/more", "no zarr.json"
    ),
    "a linked section": Fault(
        lambda brain: (brain / SECTION / "link").symlink_to(brain), f"{SECTION}/link", "is a link"
    ),
    "a pipe": Fault(lambda brain: os.mkfifo(brain / SECTION / "0/c/pipe"), f"{SECTION}/0/c/pipe", "no plain file"),
    "an image of Zarr v2": Fault(file("derived/.zattrs", b"{}"), "derived", "Zarr v2"),
    # arrays
    "an endless shape": Fault(
        edit(f"{LAYER}/0", lambda m: m.update(shape=[8, 10**12, 10**12])), f"{LAYER}/0", "shards are missing"
    ),
    "a negative shape": Fault(
        put(f"{SECTION}/1", "shape", 1, value=-3), f"{SECTION}/1/zarr.json", "non-negative", True
    ),
    "chunks that do not fit": Fault(
        put(f"{SECTION}/1", "chunk_grid", "configuration", "chunk_shape", value=[3, 31, 32]),
        f"{SECTION}/1/zarr.json",
        "needs to be divisible",
        True,
    ),
    "levels not rounded up": Fault(put(f"{SECTION}/1", "shape", 1, value=42), f"{SECTION}/1", "needs [3, 43, 54]"),
    "another type": Fault(put(f"{SECTION}/1", "data_type", value="uint16"), f"{SECTION}/1", "that of level 0"),
    "chunks of nothing": Fault(
        put(f"{LAYER}/0", "chunk_grid", "configuration", "chunk_shape", value=[8, 0, 32]),
        f"{LAYER}/0/zarr.json",
        "positive edges are needed",
    ),
    "text": Fault(put(f"{LAYER}/0", "data_type", value="string"), f"{LAYER}/0/zarr.json", "string dtype", True),
    "no numbers": Fault(
        edit(f"{LAYER}/0", lambda m: m.update(data_type="bool", fill_value=False)),
        f"{LAYER}/0",
        "integer or float type",
    ),
    "no dimension names": Fault(drop(f"{SECTION}/1", "dimension_names"), f"{SECTION}/1", "dimension_names", True),
    "other dimension names": Fault(
        put(f"{SECTION}/1", "dimension_names", value=["c", "x", "y"]), f"{SECTION}/1", "['c', 'y', 'x']", True
    ),
    "no checksum": Fault(
        put(f"{SECTION}/1", "codecs", 0, "configuration", "codecs", value=NO_CHECKSUM), f"{SECTION}/1", "checksum"
    ),
    "no checksum of the index": Fault(
        put(f"{SECTION}/1", "codecs", 0, "configuration", "index_codecs", value=NO_CHECKSUM), f"{SECTION}/1", "checksum"
    ),
    "a fill value out of range": Fault(
        put(f"{SECTION}/1", "fill_value", value=256), f"{SECTION}/1/zarr.json", "out of bounds for uint8", True
    ),
    "an unknown codec": Fault(
        edit(f"{SECTION}/1", lambda m: m["codecs"][0]["configuration"]["codecs"].append({"name": "magic"})),
        f"{SECTION}/1/zarr.json",
        "Unknown codec: 'magic'",
        True,
    ),
    "consolidated metadata": Fault(
        put(SECTION, "consolidated_metadata", value={"kind": "inline", "must_understand": False, "metadata": {}}),
        SECTION,
        "consolidated_metadata",
    ),
    # images
    "another version": Fault(put(SECTION, *OME, "version", value="0.4"), SECTION, "'0.4' is not one of ['0.5']", True),
    "no version": Fault(drop(SECTION, *OME, "version"), SECTION, "'version' is a required property", True),
    "no version of labels": Fault(
        drop(f"{SECTION}/labels", *OME, "version"), f"{SECTION}/labels", "'0.5' is needed", True
    ),
    "no version of OME": Fault(
        drop("sections.ome.zarr/OME", *OME, "version"), "sections.ome.zarr/OME", "'version' is a"
    ),
    "no version of the collection": Fault(
        drop("sections.ome.zarr", *OME, "version"), "sections.ome.zarr", "'version' is a"
    ),
    "no kind": Fault(put(LAYER, *OME, value={"version": "0.5"}), LAYER, "name no kind", True),
    "no name": Fault(drop(SECTION, *OME, "multiscales", 0, "name"), SECTION, "'name' is a required property"),
    "no reduction": Fault(drop(SECTION, *OME, "multiscales", 0, "type"), SECTION, "'type' is a required property"),
    "no axes of space": Fault(
        edit(LAYER, lambda m: [axis.update(type="time") for axis in multiscale(m)["axes"][1:]]), LAYER, "axes", True
    ),
    "axes out of order": Fault(reorder_axes, LAYER, "ome-zarr-models", True),
    "no unit": Fault(drop(SECTION, *OME, "multiscales", 0, "axes", 1, "unit"), SECTION, "micrometer"),
    "a scale of zero": Fault(
        put(SECTION, *SCALE, 1, "coordinateTransformations", 0, "scale", 1, value=0), SECTION, "positive finite", True
    ),
    "a negative scale": Fault(
        put(SECTION, *SCALE, 0, "coordinateTransformations", 0, "scale", 1, value=-2), SECTION, "positive finite"
    ),
    "a scale without end": Fault(
        lambda brain: rewrite(brain / SECTION / "zarr.json", '"scale":[1.0,4.0', '"scale":[1.0,1e999'),
        SECTION,
        "positive finite",
        True,
    ),
    "a scale that does not grow": Fault(
        put(SECTION, *SCALE, 1, "coordinateTransformations", 0, "scale", value=[1, 2, 2]),
        SECTION,
        "[1.0, 4.0, 4.0] is needed",
    ),
    "a scale too short": Fault(
        put(SECTION, *SCALE, 1, "coordinateTransformations", 0, "scale", value=[4, 4]), SECTION, "3 positive", True
    ),
    "a translation elsewhere": Fault(
        put(SECTION, *SCALE, 1, "coordinateTransformations", 1, "translation", 2, value=9), SECTION, "share a corner"
    ),
    "no scale": Fault(drop(SECTION, *SCALE, 1, "coordinateTransformations", 0), SECTION, "scale", True),
    "two translations": Fault(
        edit(
            SECTION,
            lambda m: multiscale(m)["datasets"][1]["coordinateTransformations"].append(
                {"type": "translation", "translation": [0.0, 1.0, 1.0]}
            ),
        ),
        SECTION,
        "ome-zarr-models",
        True,
    ),
    "a level that is not there": Fault(removed(f"{SECTION}/2"), SECTION, "dataset '2' is not there", True),
    "a level that is not listed": Fault(
        drop("sections.ome.zarr/s2", *SCALE, 2), "sections.ome.zarr/s2/2", "no dataset names"
    ),
    "a label image with fewer levels": Fault(
        lambda brain: (drop(LABEL, *SCALE, 2)(brain), removed(f"{LABEL}/2")(brain)), LABEL, "2 levels; as many as", True
    ),
    "too many levels": Fault(
        edit(LAYER, lambda m: multiscale(m).update(datasets=multiscale(m)["datasets"] * 40)),
        LAYER,
        "40 levels",
    ),
    "a path out of the group": Fault(
        put(SECTION, *SCALE, 1, "path", value="../s2/1"), SECTION, "leaves its group", True
    ),
    "an absolute path": Fault(put(SECTION, *SCALE, 1, "path", value="/1"), SECTION, "leaves its group", True),
    "no colour": Fault(drop(SECTION, *CHANNEL, "color"), SECTION, "channel 1 has color None"),
    "a colour of a page": Fault(
        put(SECTION, *CHANNEL, "color", value="#00FF00"), SECTION, "channel 1 has color #00FF00"
    ),
    "no window": Fault(drop(SECTION, *CHANNEL, "window"), SECTION, "channel 1 has window"),
    "a window that ends before it starts": Fault(
        put(SECTION, *CHANNEL, "window", "end", value=-1), SECTION, "min <= start <= end <= max"
    ),
    "a channel too few": Fault(drop(SECTION, *CHANNEL), SECTION, "omero has 2 channels; the image has 3"),
    # labels
    "labels not listed": Fault(
        put(f"{SECTION}/labels", *OME, "labels", value=[]), f"{SECTION}/labels", "does not list 'areas'"
    ),
    "labels that are not there": Fault(
        put(f"{SECTION}/labels", *OME, "labels", value=["areas", "x"]), f"{SECTION}/labels", "lists 'x'", True
    ),
    "labels listed twice": Fault(
        put(f"{SECTION}/labels", *OME, "labels", value=["areas", "areas"]), f"{SECTION}/labels", "more than once"
    ),
    "labels that are no list": Fault(
        put(f"{SECTION}/labels", *OME, "labels", value={"areas": 1}), f"{SECTION}/labels", "list of the names", True
    ),
    "labels of no kind": Fault(
        lambda brain: group(brain / SECTION / "labels", {"version": "0.5", "series": ["areas"]}),
        f"{SECTION}/labels",
        "of kind series",
        True,
    ),
    "no image-label": Fault(drop(LABEL, *OME, "image-label"), LABEL, "without image-label"),
    "no colours of labels": Fault(drop(LABEL, *OME, "image-label", "colors"), LABEL, "'colors' is a required property"),
    "a colour beyond 255": Fault(
        put(LABEL, *OME, "image-label", "colors", 0, "rgba", 0, value=256),
        LABEL,
        "256 is greater than the maximum",
        True,
    ),
    "two colours that are one": Fault(
        edit(LABEL, lambda m: m["attributes"]["ome"]["image-label"].update(colors=[{"label-value": 1}] * 2)),
        LABEL,
        "more than once",
        True,
    ),
    "labels of floats": Fault(floats, LABEL, "integer type is needed in a label image", True),
    # collections
    "a series that is not there": Fault(removed("sections.ome.zarr/s2"), "sections.ome.zarr/OME", "series lists 's2'"),
    "a section not in the series": Fault(
        put("sections.ome.zarr/OME", *OME, "series", value=["s1"]), "sections.ome.zarr/OME", "does not list 's2'"
    ),
    "no series": Fault(removed("sections.ome.zarr/OME"), "sections.ome.zarr", "no OME group"),
    "a series of numbers": Fault(
        put("sections.ome.zarr/OME", *OME, "series", value=[1, "s1"]),
        "sections.ome.zarr/OME",
        "is not of type 'string'",
    ),
    "another layout": Fault(
        put("sections.ome.zarr", *OME, "bioformats2raw.layout", value=2), "sections.ome.zarr", "2 is not one of [3]"
    ),
    "a section that is no image": Fault(
        lambda brain: group(brain / "sections.ome.zarr/s2", {"version": "0.5", "series": []}),
        "sections.ome.zarr/s2",
        "is of kind series; an image is needed",
    ),
}


def refused_by_models(brain: Path) -> bool:
    try:
        for key in (SECTION, LAYER):
            Image.from_zarr(zarr.open_group(brain / key, mode="r", zarr_format=3, use_consolidated=False))
    except Exception:  # noqa: BLE001 it lets every kind through
        return True
    return False


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_told_in_one_line_that_names_it(brain: Path, fault: Fault) -> None:
    fault.plant(brain)
    faults = conformance_faults(brain)
    assert len(faults) == 1, faults
    assert faults[0].startswith(f"{fault.where}: "), faults
    assert fault.says in faults[0]
    assert "\n" not in faults[0]
    assert refused_by_models(brain) == fault.seen_by_models


def test_every_fault_is_told(brain: Path) -> None:
    for plant in (
        removed(f"{SECTION}/0/c/0/1/2"),
        put(SECTION, *CHANNEL, "color", value="green"),
        put(LABEL, *SCALE, 1, "coordinateTransformations", 0, "scale", value=[4, 5]),
        drop(f"{LAYER}/0", "codecs", 0, "configuration", "codecs", 2),
        put("sections.ome.zarr/OME", *OME, "series", value=["s1", "s3"]),
    ):
        plant(brain)
    wheres = [line.split(": ")[0] for line in conformance_faults(brain)]
    series = "sections.ome.zarr/OME"
    assert sorted(wheres) == sorted([f"{SECTION}/0", SECTION, LABEL, f"{LAYER}/0", series, series])


def test_what_is_still_being_written_may_miss_shards_but_has_no_strays(brain: Path) -> None:
    removed(f"{SECTION}/0/c/0/1/2")(brain)
    less(f"{SECTION}/0/c/0/1/1", 10)(brain)
    assert conformance_faults(brain, complete=False) == []
    file(f"{SECTION}/0/c/0/1/2.draft", b"")(brain)
    (line,) = conformance_faults(brain, complete=False)
    assert line.startswith(f"{SECTION}/0/c/0/1/2.draft: is a stray file")


def test_an_image_outside_a_collection_that_lost_its_metadata_is_one_fault(brain: Path) -> None:
    shutil.copytree(brain / SECTION, brain / "derived/tissue")
    removed("derived/tissue/zarr.json")(brain)
    assert conformance_faults(brain) == ["derived/tissue: holds arrays but no zarr.json; that of an image is needed"]


@pytest.mark.parametrize(
    ("name", "says"), [("empty", "holds no Zarr group"), ("absent", "cannot be listed"), ("file", "cannot be listed")]
)
def test_where_there_is_nothing_to_judge_that_is_the_fault(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (line,) = conformance_faults(tmp_path / name)
    assert line.startswith(".: ")
    assert says in line


def test_metadata_beyond_all_measure_is_not_read(brain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cytoarch.images.conformance.walk.MAX_METADATA_BYTES", 5000)
    assert conformance_faults(brain) == []
    put(f"{LAYER}/0", "attributes", "x", value="x" * 5000)(brain)
    (line,) = conformance_faults(brain)
    assert line.startswith(f"{LAYER}/0/zarr.json: has ")
    assert "at most 5000 are read" in line


def test_folders_are_entered_to_a_depth_only(tmp_path: Path) -> None:
    deepest = tmp_path.joinpath(*"abcdefghijklmnopqrstuvwxyz")
    deepest.mkdir(parents=True)
    (line,) = conformance_faults(tmp_path)
    assert line.startswith("/".join("abcdefghijklmnopqrstuvwxy") + ": is nested deeper than 24 folders")


def test_ome_zarr_models_accepts_the_collection_and_finds_a_numbered_image_in_it(brain: Path) -> None:
    (brain / "sections.ome.zarr/s1").rename(brain / "sections.ome.zarr/0")
    put("sections.ome.zarr/OME", *OME, "series", value=["0", "s2"])(brain)
    assert conformance_faults(brain) == []
    collection = BioFormats2Raw.from_zarr(zarr.open_group(brain / "sections.ome.zarr", mode="r"))
    assert collection.image_paths == ["0"]


def test_label_values_may_be_many(brain: Path) -> None:
    colours = {value: (value % 256, value // 256, 0) for value in range(1, 5000)}
    put(LABEL, *OME, "image-label", value=image_label({value: str(value) for value in colours}, colours))(brain)
    assert conformance_faults(brain) == []


def test_what_ome_zarr_py_cannot_open_as_viewers_do_is_a_fault(brain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise ValueError("cannot be shown")

    monkeypatch.setattr("ome_zarr.reader.Multiscales.array", refuses)
    assert conformance_faults(brain / LAYER / "..") == ["layer4: cannot be shown (ome-zarr-py)"]
    monkeypatch.undo()
    monkeypatch.setattr("ome_zarr.reader.Labels.matches", lambda _: False)
    (line,) = conformance_faults(brain / SECTION)
    assert line == ".: [3] levels are found by ome-zarr-py, as viewers open it; [3, 3] are needed"
