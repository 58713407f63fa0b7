"""A section that was embedded halfway is finished to the bytes of an undisturbed run, and a bad value is refused."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from known_sections import MeanEncoder, all_tissue, contents, embedded, noise, stored_section, tissue_on

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.digests import Checksum
from cytoarch.embeddings import EmbedSettings, dense
from cytoarch.embeddings.dense import DensePlan, dense_job
from cytoarch.embeddings.engine import run_engine
from cytoarch.store.staging import Staging


class Killed(BaseException):
    """The end of a process, as far as one process can play it."""


@dataclass
class Mortal(Staging):
    """A staging folder whose process dies as it enters so many files: from then on nothing is written any more."""

    def __init__(self, room: Path, lives: int) -> None:
        super().__init__(room)
        self.lives = lives

    def enter(self, key: str, mark: Checksum) -> None:
        if self.lives <= 0:
            raise Killed
        self.lives -= 1
        super().enter(key, mark)

    def write(self, key: str, parts: bytes | Iterable[bytes]) -> None:
        if self.lives <= 0:
            raise Killed
        super().write(key, parts)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 2 x 2 tiles."""
    monkeypatch.setattr(dense, "SHARD_PX", 64)


ENCODER = MeanEncoder(tile_px=32, halo_px=None)


def embed(journal: Staging, image, tissue: TissueMask, batch_size: int = 3, encoder=ENCODER) -> tuple[dict, list]:
    """Failures and the batches that were computed."""
    plan = DensePlan.of(image, tissue, encoder, EmbedSettings(), 4.0)
    batches: list[np.ndarray] = []

    def compute(tiles: np.ndarray) -> list[np.ndarray]:
        batches.append(tiles.copy())
        return encoder.encode(tiles)

    failed, _ = run_engine([dense_job("s", plan, encoder, journal, lambda _: None)], compute, batch_size)
    return failed, batches


@pytest.mark.parametrize("lives", [*range(4), *range(4, 24, 2), 23])
def test_a_run_that_dies_at_any_file_is_resumed_to_the_same_bytes(tmp_path: Path, lives: int):
    image = stored_section(tmp_path / "section", noise(150, 170) | 1, 4.0)
    mask = np.ones((5, 6), dtype=bool)
    mask[:2, 4:] = mask[4:, 2:4] = False  # shards without tissue, at the end of a row and in the last
    tissue = tissue_on(image, mask, 128.0)
    failed, whole = embed(Staging(tmp_path / "whole").open(), image, tissue)
    assert failed == {}
    try:
        embed(Mortal(tmp_path / "room", lives).open(), image, tissue)
    except Killed:
        assert lives < 24
    journal = Staging(tmp_path / "room").open()
    left = sum(
        not journal.has(f"{layer}/0/c/0/{y}/{x}") for layer in ENCODER.layers for y in range(3) for x in range(3)
    )
    failed, batches = embed(journal, image, tissue)
    assert failed == {}
    assert contents(journal.path) == contents(tmp_path / "whole" / "content")
    same = iter(whole)
    for batch in batches:
        full = next(
            one
            for one in same
            if all((tile == it).all() or not tile.any() for tile, it in zip(batch, one, strict=True))
        )
        assert full.shape == batch.shape, "tiles keep the slots they had"
    assert bool(batches) <= bool(left)


def test_a_finished_section_is_computed_and_written_no_more(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(150, 170), 4.0)
    journal = Staging(tmp_path / "room").open()
    embed(journal, image, all_tissue(image))
    before = contents(journal.path)
    failed, batches = embed(Staging(tmp_path / "room").open(), image, all_tissue(image))
    assert (failed, batches) == ({}, [])
    assert contents(journal.path) == before


@dataclass(frozen=True)
class OddEncoder(MeanEncoder):
    """Gives something else than numbers for the brightest token of a section, in its second layer."""

    odd: float = np.nan

    def encode(self, tiles: np.ndarray) -> list[np.ndarray]:
        mean, _ = super().encode(tiles)
        return [mean, np.where(mean == 1, np.float32(self.odd), mean)]


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 65536.0, -70000.0])
def test_what_float16_cannot_hold_is_refused_with_its_layer_and_place_and_nothing_is_committed(tmp_path: Path, odd):
    pixels = np.zeros((1, 150, 170), dtype=np.uint8)
    pixels[0, :20] = np.arange(170)
    pixels[0, 100:116, 68:84] = 255  # enough for its grey value to become 1, and no other
    image = stored_section(tmp_path / "section", pixels, 4.0)
    encoder = OddEncoder(tile_px=32, halo_px=None, odd=odd)
    plan = DensePlan.of(image, all_tissue(image), encoder, EmbedSettings(), 4.0)
    journal = Staging(tmp_path / "room").open()
    job = dense_job("s", plan, encoder, journal, lambda _: pytest.fail("it is committed"))
    failed, _ = run_engine([job], encoder.encode, 4)
    assert "embeddings of scaled in the tile at row 3, column 2 reach" in failed["s"]
    assert "65,504" in failed["s"]
    assert not journal.has("scaled/0/c/0/1/1")
    assert not journal.has("zarr.json")


def test_the_largest_number_of_float16_is_kept(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(64, 64), 4.0)
    found, _ = embedded(tmp_path / "room", image, OddEncoder(odd=65504.0, token_px=1, tile_px=32, halo_px=None), 4.0)
    assert found.read(0, 0, 64, 64).max() == 65504


def test_odd_numbers_beyond_the_section_are_nobodys(tmp_path: Path):
    """Tokens of a border tile that lie beyond the section are not kept, so they may be anything."""

    @dataclass(frozen=True)
    class Beyond(MeanEncoder):
        def encode(self, tiles: np.ndarray) -> list[np.ndarray]:
            first, second = super().encode(tiles)
            first[:, :, 4:] = np.nan
            return [first, second]

    image = stored_section(tmp_path / "section", noise(16, 64), 4.0)
    found, _ = embedded(tmp_path / "room", image, Beyond(tile_px=32, halo_px=None), 4.0)
    assert np.isfinite(found.read(0, 0, *found.grid)).all()


@pytest.mark.parametrize("layout", ["C", "transposed", "read-only"])
def test_encoders_may_give_arrays_of_any_layout(tmp_path: Path, layout: str):
    change: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "C": np.ascontiguousarray,
        "transposed": lambda one: np.ascontiguousarray(one.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "read-only": lambda one: np.broadcast_to(one, one.shape),
    }

    class Other(MeanEncoder):
        def encode(self, tiles: np.ndarray) -> list[np.ndarray]:
            return [change[layout](one) for one in super().encode(tiles)]

    image = stored_section(tmp_path / "section", noise(64, 64), 4.0)
    one, _ = embedded(tmp_path / "one", image, Other(), 4.0)
    other, _ = embedded(tmp_path / "other", image, MeanEncoder(), 4.0)
    np.testing.assert_array_equal(one.read(0, 0, *one.grid), other.read(0, 0, *other.grid))
