"""Fits that go on to the same bits, and volumes segmented in tiles as if in one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cytoarch.errors import ModelError, TrainingError
from cytoarch.measures.greys import grey_range
from cytoarch.neurons.inference import TileShape, segment_volume, segmented_by, waiting_bytes
from cytoarch.neurons.kept import NeuronCard, load_network, network_files
from cytoarch.neurons.network import Architecture
from cytoarch.neurons.patches import Known, Scale, draw_batch, read_window, scale_of
from cytoarch.neurons.phantoms import NeuronPhantom, make_phantom
from cytoarch.neurons.training import Fit, fit_network, new_network
from cytoarch.neurons.tubes import Tubes

SIZES = Architecture((4, 8, 8, 8), (1, 1, 1, 1), layer_scale=1.0)
PLAIN = Scale(0.0, 1.0)


@pytest.fixture(scope="module")
def known() -> Known:
    made = make_phantom(NeuronPhantom(shape=(24, 40, 40), seed=8))
    return Known.of(made.pixels, scale_of(np.bincount(made.pixels.ravel(), minlength=256)), made.tree, made.voxel_um)


class Memory:
    """Keeps checkpoints, and stops the training at the second."""

    def __init__(self, content: bytes | None = None, stop_after: int = 99) -> None:
        self.content, self.left = content, stop_after

    def load(self) -> bytes | None:
        return self.content

    def save(self, content: bytes) -> None:
        self.content, self.left = content, self.left - 1
        if not self.left:
            raise KeyboardInterrupt


def test_a_training_that_was_stopped_goes_on_to_the_same_bits(known: Known) -> None:
    fit = Fit(steps=5, patch=(16, 16, 32), batch_size=1, checkpoint_every=1)
    whole = new_network(SIZES, 3)
    losses = fit_network(whole, [known], fit)
    memory = Memory(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        fit_network(new_network(SIZES, 3), [known], fit, checkpoint=memory)
    again = new_network(SIZES, 99)
    assert fit_network(again, [known], fit, checkpoint=Memory(memory.content)) == losses
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_patches_are_told_by_the_seed_and_the_step_alone(known: Known) -> None:
    one, same, other = (
        draw_batch([known], (16, 16, 16), 2, 0.7, seed, lines=True) for seed in ((0, 4), (0, 4), (0, 5))
    )
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one.volumes, other.volumes)
    assert bool((one.lines <= one.targets).all())


def test_a_volume_smaller_than_a_patch_is_surrounded_by_background(known: Known) -> None:
    batch = draw_batch([known], (32, 48, 48), 1, 1.0, (0, 0))
    assert batch.volumes.shape == (1, 1, 32, 48, 48)
    block = read_window(np.ones((2, 2, 2), dtype=np.uint8), (-1, 0, 1), (2, 2, 4), 7)
    assert block[:, 0].tolist() == [[7, 7, 7], [1, 7, 7], [1, 7, 7]]


def test_targets_are_the_tubes_of_the_tree(known: Known) -> None:
    made = make_phantom(NeuronPhantom(shape=(24, 40, 40), seed=8))
    tubes = Tubes.of(made.tree, made.voxel_um)
    assert np.array_equal(tubes.mask((0, 0, 0), (24, 40, 40)), made.mask)
    assert np.array_equal(tubes.mask((4, 9, 11), (20, 30, 40)), made.mask[4:20, 9:30, 11:40])


def test_a_tree_that_lies_elsewhere_is_refused(known: Known) -> None:
    with pytest.raises(TrainingError, match="check the voxel size"):
        Known.of(np.zeros((4, 4, 4), dtype=np.uint8), PLAIN, known.tree, (0.01, 0.01, 0.01))
    with pytest.raises(TrainingError, match="no volume with a known tree"):
        fit_network(new_network(SIZES, 0), [], Fit(1, (16, 16, 32)))
    with pytest.raises(TrainingError, match="multiple of 16"):
        fit_network(new_network(SIZES, 0), [known], Fit(1, (16, 16, 20)))


def test_black_and_white_of_a_volume_without_background_are_those_of_what_is_left() -> None:
    counts = np.zeros(256, dtype=np.int64)
    counts[0], counts[200] = 10_000, 9
    assert grey_range(counts) == (0, 200)
    assert grey_range(np.array([0, 0, 5])) == (2, 3)


@pytest.mark.parametrize("shape", [(16, 16, 16), (5, 70, 33), (50, 20, 20), (1, 1, 1)])
def test_tiles_blend_to_what_a_local_rule_gives_for_the_whole(shape: tuple[int, int, int], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    planes = list(segment_volume(lambda tiles: tiles, pixels, PLAIN, TileShape(16, 32), tmp_path / "scratch"))
    assert len(planes) == shape[0]
    assert np.allclose(np.stack(planes), PLAIN.shown(pixels), atol=1e-4)
    assert not list((tmp_path / "scratch").iterdir())


class Shelf:
    """Keeps tiles, and counts."""

    def __init__(self) -> None:
        self.held: dict[tuple[int, int], np.ndarray] = {}
        self.most = 0

    def load(self, layer: int, tile: int) -> np.ndarray | None:
        return self.held.get((layer, tile))

    def save(self, layer: int, tile: int, told: np.ndarray) -> None:
        self.held[layer, tile] = told
        self.most = max(self.most, len(self.held))

    def drop(self, layer: int, tiles: int) -> None:
        for tile in range(tiles):
            self.held.pop((layer, tile), None)


@pytest.mark.parametrize("shape", [(70, 20, 33), (16, 16, 16), (33, 40, 16)])
def test_a_volume_cut_off_anywhere_goes_on_with_the_next_tile_to_the_same_bits(
    shape: tuple[int, int, int], tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    tiles, shelf = TileShape(32, 16), Shelf()
    whole = np.stack(list(segment_volume(np.cos, pixels, PLAIN, tiles, tmp_path, 3, None, shelf)))
    count = int(np.prod([len(tiles.starts(size, edge)) for size, edge in zip(shape, (32, 16, 16), strict=True)]))
    assert not shelf.held
    assert shelf.most <= 3 * count // len(tiles.starts(shape[0], 32)), "those of two layers, and the one at work"
    blending = 32 * shape[1] * shape[2]
    assert 4 * (shelf.most * 32 * 16 * 16 + blending) == waiting_bytes(shape, tiles)
    done, planes = 0, list[np.ndarray]()
    while len(planes) < shape[0]:
        left = 5  # batches until it is cut off

        def segment(given: np.ndarray) -> np.ndarray:
            nonlocal done, left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            done += len(given)
            return np.cos(given)

        first = len(planes)
        going = segment_volume(segment, pixels, PLAIN, tiles, tmp_path, 3, None, shelf, first)
        try:
            for at in range(first, shape[0], 16):
                planes += [next(going) for _ in range(at, min(at + 16, shape[0]))]
            assert next(going, None) is None
        except KeyboardInterrupt:
            continue  # with the slabs that are whole
    assert done == count
    assert np.array_equal(np.stack(planes), whole)
    assert not shelf.held


@pytest.mark.parametrize("cut_off", [1, 2, 4, 5, 10])
def test_a_batch_cut_off_while_its_tiles_are_kept_is_segmented_together_again(cut_off: int, tmp_path: Path) -> None:
    """A network's last bits depend on what it is given together; of this one all bits do."""
    pixels = np.random.default_rng(0).integers(0, 255, (33, 40, 33), dtype=np.uint8)
    tiles, shelf = TileShape(32, 16), Shelf()

    def segment(given: np.ndarray) -> np.ndarray:
        return given + given.mean()

    def planes(kept: Shelf) -> np.ndarray:
        return np.stack(list(segment_volume(segment, pixels, PLAIN, tiles, tmp_path, 3, None, kept)))

    class CutOff(Shelf):
        def save(self, layer: int, tile: int, told: np.ndarray) -> None:
            if len(self.held) == cut_off:
                raise KeyboardInterrupt
            super().save(layer, tile, told)

    cut = CutOff()
    with pytest.raises(KeyboardInterrupt):
        planes(cut)
    assert len(cut.held) == cut_off
    shelf.held = cut.held
    assert np.array_equal(planes(shelf), planes(Shelf()))


def test_weights_of_tiles_are_those_of_three_dimensions(tmp_path: Path) -> None:
    """A rule that depends on the place in the tile is blended as one sum over all tiles would do it."""
    rng = np.random.default_rng(1)
    pattern = rng.random((16, 16, 16)).astype(np.float32)
    shape = (24, 20, 28)
    tiles = TileShape(16, 16, 1.0)
    made = np.stack(list(segment_volume(
        lambda given: np.broadcast_to(pattern, given.shape), np.zeros(shape, np.uint8), PLAIN, tiles, tmp_path
    )))  # fmt: skip
    at = np.linspace(-15 / 16, 15 / 16, 16)
    bell = np.maximum(np.exp(-8 * at**2), 1e-6)
    plane = np.maximum(np.outer(np.exp(-8 * at**2), np.exp(-8 * at**2)), 1e-6)
    window = bell[:, None, None] * plane
    total, weight = np.zeros((64, 64, 64)), np.zeros((64, 64, 64))
    for z in tiles.starts(shape[0], 16):
        for y in tiles.starts(shape[1], 16):
            for x in tiles.starts(shape[2], 16):
                place = tuple(slice(one + 16, one + 32) for one in (z, y, x))
                total[place] += window * pattern
                weight[place] += window
    inside = tuple(slice(16, 16 + size) for size in shape)
    assert np.allclose(made, total[inside] / weight[inside], atol=1e-5)


def test_a_network_is_kept_and_found_again(known: Known, tmp_path: Path) -> None:
    network = new_network(SIZES, 5).eval()
    card = NeuronCard(**SIZES.as_json(), voxel_um=(1, 1, 1), learned_from=("a",))
    for name, content in network_files(network, card).items():
        (tmp_path / name).write_bytes(content)
    again, read = load_network(tmp_path)
    tiles = np.random.default_rng(0).normal(size=(1, 16, 16, 16)).astype(np.float32)
    assert np.array_equal(segmented_by(network)(tiles), segmented_by(again)(tiles))
    assert read == card
    for name, content in network_files(new_network(Architecture((4, 8, 8, 16), (1, 1, 1, 1)), 0), card).items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match="another shape"):
        load_network(tmp_path)
    (tmp_path / "neurons.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="holds no network"):
        load_network(tmp_path)


@pytest.mark.long
@pytest.mark.slow
def test_a_fit_learns_to_see_neurites(known: Known) -> None:
    losses = fit_network(new_network(SIZES, 0), [known], Fit(30, (16, 32, 32), 2, learning_rate=5e-3, near=1.0))
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:3])
