import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models
import pytest
import zarr
from known_pyramids import SHAPE, SHARDS, Array, level, make_shards_small, noise, shards, tree, window, write
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel

from cytoarch.errors import ScanError
from cytoarch.images.halving import halve_mean, halve_mode
from cytoarch.images.layout import CHUNK_BYTES, CHUNK_PX, SHARD_CHUNKS, Pyramid, level_count
from cytoarch.images.ngff import image_label, omero
from cytoarch.images.pyramids import write_group, write_pyramid
from cytoarch.store.staging import Staging
from cytoarch.tiling import partition


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    make_shards_small(monkeypatch)


# -- what is written ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32"])
@pytest.mark.parametrize("shape", [SHAPE, (64, 64), (1, 1), (33, 31), (1, 5, 260)])
def test_level_0_is_the_source_bit_for_bit_and_each_level_is_the_one_below_halved(
    staging: Staging, dtype: str, shape: tuple[int, ...]
) -> None:
    pixels = noise(*shape, dtype=dtype)
    layout = write(staging, pixels)
    below = pixels
    for number in range(layout.levels):
        found = level(staging, number)
        assert found.dtype == pixels.dtype
        assert found.shape == (*shape[:-2], *layout.level_shape(number))
        np.testing.assert_array_equal(found, below)
        below = halve_mean(below)


def test_a_label_pyramid_holds_no_value_that_is_not_in_the_labels(staging: Staging) -> None:
    labels = np.array([0, 3, 200, 999], dtype=np.uint16)[noise(86, 107, most=3)]
    write(staging, labels, "mode")
    below = labels
    for number in range(4):
        found = level(staging, number)
        assert set(np.unique(found)) <= {0, 3, 200, 999}
        np.testing.assert_array_equal(found, below)
        below = halve_mode(below)


def test_a_reduction_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="halved by mean or mode, not by 'median'"):
        Pyramid((8, 8), np.dtype(np.uint8), 1.0, "median")  # type: ignore[arg-type]


def test_the_number_of_levels_ends_where_the_longer_edge_is_256() -> None:
    for size in (1, 255, 256, 257, 512, 513, 1024, 136_000):
        count = level_count(7, size)
        assert -(-size // 2 ** (count - 1)) <= 256
        assert count == 1 or -(-size // 2 ** (count - 2)) > 256
        assert level_count(size, 7) == count


def test_scales_and_translations_put_every_level_on_the_same_place(staging: Staging) -> None:
    layout = write(staging, noise(*SHAPE))
    attributes = json.loads((staging.path / "zarr.json").read_bytes())["attributes"]["ome"]
    (multiscale,) = attributes["multiscales"]
    assert [dataset["path"] for dataset in multiscale["datasets"]] == ["0", "1", "2", "3"]
    for number, dataset in enumerate(multiscale["datasets"]):
        scale, translation = dataset["coordinateTransformations"]
        edge_um, centre_um = scale["scale"][-1], translation["translation"][-1]
        assert scale["scale"] == [1.0, 2.0 * 2**number, 2.0 * 2**number]
        assert centre_um - edge_um / 2 == pytest.approx(0 - 2.0 / 2)  # all levels share the image's corner
        assert layout.scale_um(number) == edge_um
        assert layout.offset_um(number) == centre_um
    assert [axis["name"] for axis in multiscale["axes"]] == ["c", "y", "x"]
    assert {axis["unit"] for axis in multiscale["axes"] if axis["type"] == "space"} == {"micrometer"}


def test_an_image_that_begins_elsewhere_says_so(staging: Staging) -> None:
    layout = Pyramid((40, 40), np.dtype("uint8"), 8.0, "mean", levels=2, origin_um=3.0)
    write_pyramid(staging, layout, window(noise(40, 40)), name="x")
    attributes = json.loads((staging.path / "zarr.json").read_bytes())["attributes"]["ome"]
    offsets = [d["coordinateTransformations"][1]["translation"] for d in attributes["multiscales"][0]["datasets"]]
    assert offsets == [[3.0, 3.0], [7.0, 7.0]]


def test_arrays_are_sharded_and_every_shard_is_there_even_where_all_is_background(staging: Staging) -> None:
    layout = write(staging, np.zeros(SHAPE, dtype=np.uint8))
    for number in range(layout.levels):
        array = zarr.open_array(staging.path / str(number), mode="r")
        assert array.shards == (3, 32, 32)
        assert array.chunks == (3, 16, 16)
        height, width = layout.level_shape(number)
        expected = {(y // 32, x // 32) for y, x, *_ in partition(height, width, 32)}
        found = {(int(p.parent.name), int(p.name)) for p in shards(staging.path / str(number))}
        assert found == expected
        assert len(found) == -(-height // 32) * -(-width // 32)


def test_every_file_is_in_the_journal(staging: Staging) -> None:
    write(staging, noise(*SHAPE))
    assert all(staging.has(key) for key in tree(staging.path))


def test_no_chunk_is_larger_than_its_limit_and_no_shard_longer_than_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for channels, dtype in ((1, "uint8"), (3, "uint8"), (768, "float16"), (3072, "float16"), (20, "float32")):
        layout = Pyramid((channels, 9000, 5000), np.dtype(dtype), 1.0, "mean")
        edge = layout.chunk_px()
        assert edge == 16 or edge**2 * channels * np.dtype(dtype).itemsize <= CHUNK_BYTES
        assert layout.shard_px() % edge == 0
        assert layout.shard_px() <= edge * SHARD_CHUNKS
    assert Pyramid((40, 30), np.dtype("uint8"), 1.0, "mean").shard_px() == CHUNK_PX


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_flipped_bit_in_a_shard_is_an_error_when_it_is_read(staging: Staging, part: float) -> None:
    pixels = noise(*SHAPE)
    write(staging, pixels)
    file = shards(staging.path / "0")[7]
    content = file.read_bytes()
    array = zarr.open_array(staging.path / "0", mode="r")
    for bit in (0, 3, 7):
        damaged = bytearray(content)
        damaged[int(part * len(content))] ^= 1 << bit
        file.write_bytes(damaged)
        with pytest.raises((ValueError, RuntimeError)):
            array[...]
    file.write_bytes(content)
    np.testing.assert_array_equal(array[...], pixels)


def test_progress_counts_the_bytes_of_level_0_up_to_all_of_them(staging: Staging) -> None:
    seen: list[tuple[int, int]] = []
    pixels = noise(*SHAPE)
    write(staging, pixels, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, pixels.nbytes)
    assert seen[-1] == (pixels.nbytes, pixels.nbytes)
    assert len(seen) == SHARDS + 1
    assert sorted(set(seen)) == seen


def test_the_source_is_read_once_in_windows_that_partition_it(staging: Staging) -> None:
    pixels, seen = noise(*SHAPE), np.zeros(SHAPE[1:], dtype=int)

    def read(y: int, x: int, h: int, w: int) -> Array:
        seen[y : y + h, x : x + w] += 1
        return pixels[:, y : y + h, x : x + w]

    write(staging, pixels, read=read)
    assert (seen == 1).all()


# -- faults of the source ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_value_that_is_not_finite_is_never_written(staging: Staging, value: float, dtype: str) -> None:
    pixels = noise(2, 70, 70, dtype=dtype)
    pixels[1, 50, 60] = value
    with pytest.raises(ScanError, match="not finite"):
        write(staging, pixels)
    assert not staging.has("zarr.json")


@pytest.mark.parametrize(
    "read",
    [
        lambda _y, _x, h, w: np.zeros((3, h, w + 1), np.uint8),
        lambda _y, _x, h, w: np.zeros((h, w), np.uint8),
        lambda _y, _x, h, w: np.zeros((1, h, w), np.uint8),
        lambda _y, _x, h, w: np.zeros((3, h, w), np.uint16),
        lambda _y, _x, h, w: np.zeros((3, h, w), np.int8),
    ],
)
def test_a_source_that_gives_another_shape_or_type_than_announced_is_refused(staging: Staging, read: Any) -> None:
    with pytest.raises(ScanError, match="announced"):
        write(staging, noise(*SHAPE), read=read)


# -- resuming ----------------------------------------------------------------------------------------------------------


class DiedError(Exception):
    pass


def dying(pixels: Array, after: int) -> Callable[[int, int, int, int], Array]:
    count = 0

    def read(y: int, x: int, h: int, w: int) -> Array:
        nonlocal count
        count += 1
        if count > after:
            raise DiedError
        return pixels[..., y : y + h, x : x + w]

    return read


@pytest.mark.parametrize("after", [0, 1, 4, 5, SHARDS - 1])
def test_a_run_that_died_anywhere_is_resumed_to_identical_bytes_without_reading_twice(
    tmp_path: Path, after: int
) -> None:
    pixels = noise(*SHAPE)
    clean = Staging(tmp_path / "clean").open()
    write(clean, pixels)
    died = Staging(tmp_path / "died").open()
    with pytest.raises(DiedError):
        write(died, pixels, read=dying(pixels, after))
    finished = len(shards(died.path / "0"))
    reads: list[int] = []

    def read(y: int, x: int, h: int, w: int) -> Array:
        reads.append(1)
        return pixels[..., y : y + h, x : x + w]

    seen: list[tuple[int, int]] = []
    resumed = Staging(tmp_path / "died").open()
    write(resumed, pixels, read=read, on_progress=lambda done, total: seen.append((done, total)))
    assert tree(resumed.path) == tree(clean.path)
    assert len(reads) == SHARDS - finished
    assert seen[-1] == (pixels.nbytes, pixels.nbytes)
    assert len(seen) == SHARDS - finished + 1
    assert sorted(set(seen)) == seen


@pytest.mark.parametrize("damage", ["truncated", "flipped", "deleted", "emptied"])
@pytest.mark.parametrize("number", ["0", "2"])
def test_a_shard_that_was_damaged_before_the_resumption_is_written_again(
    staging: Staging, damage: str, number: str
) -> None:
    pixels = noise(*SHAPE)
    write(staging, pixels)
    before = tree(staging.path)
    file = shards(staging.path / number)[0]
    content = bytearray(file.read_bytes())
    if damage == "deleted":
        file.unlink()
    elif damage == "flipped":
        content[100] ^= 1
        file.write_bytes(content)
    else:
        file.write_bytes(content[:50] if damage == "truncated" else b"")
    again = Staging(staging.path.parent).open()
    write(again, pixels)
    assert tree(again.path) == before


def test_the_same_pixels_give_the_same_bytes(tmp_path: Path) -> None:
    trees = []
    for name in ("a", "b"):
        staging = Staging(tmp_path / name).open()
        write(staging, noise(*SHAPE))
        trees.append(tree(staging.path))
    assert trees[0] == trees[1]


# -- read by others ----------------------------------------------------------------------------------------------------


@pytest.fixture
def published(staging: Staging) -> tuple[Path, Array, Array]:
    """An RGB image with a label image `areas` under it: its folder, pixels and labels."""
    pixels, labels = noise(*SHAPE), noise(*SHAPE[1:], most=2)
    write(staging, pixels, attributes={"omero": omero(3, True, (0.0, 255.0))}, own_attributes={"kind": "rgb"})
    write_group(staging, "labels", {"ome": {"version": "0.5", "labels": ["areas"]}})
    meaning = image_label({1: "A", 2: "B"}, {1: (255, 0, 0), 2: (0, 255, 0)})
    write(staging, labels, "mode", folder="labels/areas", attributes={"image-label": meaning})
    return staging.path, pixels, labels


def test_ome_zarr_models_accepts_image_and_labels(published: tuple[Path, Array, Array]) -> None:
    path, pixels, labels = published
    group = zarr.open_group(path, mode="r")
    image = Image.from_zarr(group)
    assert isinstance(ome_zarr_models.open_ome_zarr(group), Image)
    assert image.labels is not None
    assert image.labels.label_paths == ["areas"]
    label = ImageLabel.from_zarr(group["labels/areas"])
    assert len(label.ome_attributes.multiscales[0].datasets) == len(image.ome_attributes.multiscales[0].datasets)
    np.testing.assert_array_equal(group["0"][...], pixels)
    np.testing.assert_array_equal(group["labels/areas/0"][...], labels)


@pytest.mark.slow
def test_napari_reads_the_same_pixels_at_the_same_place(published: tuple[Path, Array, Array]) -> None:
    path, pixels, labels = published
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports use what others deprecate
        from napari_ome_zarr._reader import napari_get_reader

        reader = napari_get_reader(str(path))
        assert reader is not None
        layers = reader(str(path))
    by_kind = {kind: (data, settings) for data, settings, kind in layers}
    assert set(by_kind) == {"image", "labels"}
    (image, image_settings), (label, label_settings) = by_kind["image"], by_kind["labels"]
    assert len(image) == len(label) == 4
    np.testing.assert_array_equal(np.asarray(image[0]), pixels)
    np.testing.assert_array_equal(np.asarray(label[0]), labels)
    assert list(image_settings["scale"])[-2:] == list(label_settings["scale"])[-2:] == [2.0, 2.0]


def test_ngff_zarr_reads_the_same_pixels_at_the_same_place(published: tuple[Path, Array, Array]) -> None:
    path, pixels, _ = published
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports use what others deprecate
        import ngff_zarr

        read = ngff_zarr.from_ngff_zarr(str(path), version="0.5")
    assert len(read.images) == 4
    below = pixels
    for number, image in enumerate(read.images):
        np.testing.assert_array_equal(np.asarray(image.data), below)
        assert image.scale["y"] == image.scale["x"] == 2.0 * 2**number
        below = halve_mean(below)
