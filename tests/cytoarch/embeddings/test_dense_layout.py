"""How a section is divided into tiles, shards and chunks, and what is computed where."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from known_sections import MeanEncoder, PlaceEncoder, all_tissue, contents, embedded, noise, stored_section, tissue_on

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.brains import Section
from cytoarch.embeddings import EmbedSettings, SectionEmbeddings, dense
from cytoarch.embeddings.dense import (
    CHUNK_BYTES,
    SHARD_BYTES,
    SHARD_PX,
    DensePlan,
    chunk_tokens,
    dense_job,
    shard_tiles,
    tile_plan,
    wanted_tiles,
)
from cytoarch.embeddings.engine import run_engine
from cytoarch.embeddings.places import Region, RegionTable
from cytoarch.errors import ModelError, SectionError
from cytoarch.images.layout import Pyramid
from cytoarch.images.shards import ABSENT
from cytoarch.images.views import StoredImage, mirrored
from cytoarch.store.staging import Staging
from cytoarch.tiling import TilePlan


@st.composite
def tilings(draw: st.DrawFn) -> tuple[MeanEncoder, EmbedSettings, int, int]:
    """An encoder that sees the whole of its small tiles, a margin, and the size of a section."""
    token = draw(st.sampled_from([1, 2, 3, 4, 7]))
    margin = token * draw(st.integers(0, 3))
    tile = 2 * margin + token * draw(st.integers(1, 5))
    height, width = (draw(st.integers(1, 60)) for _ in range(2))
    return MeanEncoder(token_px=token, tile_px=tile, halo_px=None), EmbedSettings(margin_px=margin), height, width


@settings(max_examples=30, deadline=None)
@given(tilings(), st.sampled_from([8, 24, 4096]))
def test_every_token_belongs_to_one_tile_and_every_tile_to_one_shard(drawn, shard_px):
    encoder, how, height, width = drawn
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "SHARD_PX", shard_px)
        image = stored_section(Path(folder), noise(height, width), 4.0)
        plan = DensePlan.of(image, all_tissue(image), encoder, how, 4.0)
        owners = np.zeros(plan.plan.grid, dtype=int)
        n, edge = plan.core_tokens, shard_tiles(plan.plan, plan.dims)
        tiles = [(shard, tile) for *shard, places in plan.shards() for tile in places]
        for shard, (row, column) in tiles:
            assert [row // edge, column // edge] == shard
            core = owners[row * n : (row + 1) * n, column * n : (column + 1) * n]
            assert core.size, "no tile lies beyond the section"
            core += 1
    assert (owners == 1).all()
    assert plan.wanted.all()
    assert len(tiles) * n**2 >= owners.size


@settings(max_examples=20, deadline=None)
@given(tilings(), st.sampled_from([24, 64, 4096]), st.integers(1, 5))
def test_whatever_the_tiles_the_result_is_the_mean_of_every_token(drawn, shard_px, batch_size):
    encoder, how, height, width = drawn
    token = encoder.token_px
    pixels = noise(height, width)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "SHARD_PX", shard_px)
        image = stored_section(Path(folder) / "section", pixels, 4.0)
        chosen = {"margin_px": how.margin_px, "batch_size": batch_size}
        found, facts = embedded(Path(folder) / "embeddings", image, encoder, 4.0, **chosen)
        values = found.read(0, 0, *found.grid)
    low, high = facts["ranges"][0]
    scaled = np.clip((pixels[0] - low) / (high - low), 0, 1)
    whole = scaled[np.ix_(*(mirrored(np.arange(size + -size % token), size) for size in (height, width)))]
    expected = whole.reshape(whole.shape[0] // token, token, -1, token).mean(axis=(1, 3))
    np.testing.assert_allclose(values[0], expected, atol=1e-3)
    core = encoder.tile_px - 2 * how.margin_px
    assert facts["tiles"] == -(-height // core) * -(-width // core)


@pytest.mark.parametrize("margin_tokens", [0, 1, 3])
def test_only_the_core_of_a_tile_is_kept(tmp_path: Path, margin_tokens: int):
    encoder = PlaceEncoder(halo_px=None, tile_px=64)
    image = stored_section(tmp_path / "section", noise(150, 210), 4.0)
    found, facts = embedded(tmp_path / "embeddings", image, encoder, 4.0, margin_px=4 * margin_tokens)
    core = 16 - 2 * margin_tokens
    rows, columns = np.mgrid[: found.grid[0], : found.grid[1]]
    values = found.read(0, 0, *found.grid)
    np.testing.assert_array_equal(values[0], rows % core + margin_tokens)
    np.testing.assert_array_equal(values[1], columns % core + margin_tokens)
    assert facts["margin_px"] == 4 * margin_tokens


def test_a_margin_changes_nothing_for_an_encoder_that_sees_only_its_token(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(150, 210), 4.0)
    encoder = MeanEncoder(halo_px=None)
    one, other = (
        embedded(tmp_path / str(margin), image, encoder, 4.0, margin_px=margin)[0].read(0, 0, 38, 53)
        for margin in (0, 16)
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("tile", "margin"), [(64, 30), (64, 6), (62, 4), (64, 32), (64, 40)])
def test_tiles_and_margins_that_do_not_fit_the_token_are_refused(tile: int, margin: int):
    with pytest.raises(ModelError, match=f"tiles of {tile} px with a margin of {margin} px"):
        tile_plan(MeanEncoder(halo_px=None, tile_px=tile), 100, 100, EmbedSettings(margin_px=margin))


# -- shards and chunks -------------------------------------------------------------------------------------------------

PUBLISHED = {  # tile, token, dims of the published encoders
    "texture": (2048 - 640, 4, (26,)),
    "texture-rgb": (2048 - 640, 4, (78,)),
    "dinov3-vits16": (512, 16, (384,) * 4),
    "dinov3-vitb16": (512, 16, (768,) * 4),
    "dinov3-vitl16": (1024, 16, (1024,) * 4),
    "dinov3-vith16plus": (512, 16, (1280,) * 4),
    "dinov3-vit7b16": (512, 16, (4096,) * 4),
    "dinov3-vit7b16-large-tiles": (4096, 16, (4096,) * 8),
    "dinov3-convnext-large": (512, 16, (768, 1536)),
    "dinov2-giant": (518, 14, (1536,) * 4),
    "cytonet-r50": (2048, 32, (2048,)),
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("size", [(700, 900), (24_000, 34_000), (95_000, 136_000)])
def test_shards_and_chunks_stay_within_their_limits(name: str, size: tuple[int, int]):
    step, token, dims = PUBLISHED[name]
    plan = TilePlan(*size, step, step, 0, token)
    tiles, core = shard_tiles(plan, dims), step // token
    shard_bytes = (tiles * core) ** 2 * sum(dims) * 2
    assert tiles == 1 or (shard_bytes <= SHARD_BYTES and tiles * step <= SHARD_PX)
    grown = tiles + 1
    covers_all = tiles >= max(len(plan.rows), len(plan.columns))
    assert covers_all or (grown * core) ** 2 * sum(dims) * 2 > SHARD_BYTES or grown * step > SHARD_PX, "not smaller"
    for width in dims:
        chunk = chunk_tokens(core, width)
        assert core % chunk == 0
        halves = [core // parts for parts in range(1, core // 8 + 1) if core % parts == 0]
        assert chunk**2 * width * 2 <= CHUNK_BYTES or not any(edge**2 * width * 2 <= CHUNK_BYTES for edge in halves)
        layout = Pyramid((width, *plan.grid), np.dtype("f2"), 1.0, "mean", chunk=chunk, shard=tiles * core)
        assert layout.shard_px() % layout.chunk_px() == 0


@pytest.mark.parametrize("missing", [False, True])
def test_every_shard_is_there_even_where_nothing_is_computed(tmp_path: Path, monkeypatch, missing: bool):
    monkeypatch.setattr(dense, "SHARD_PX", 128)
    image = stored_section(tmp_path / "section", noise(300, 400), 4.0)
    tissue = tissue_on(image, np.full((1, 1), not missing), 2 * max(image.extent_um))
    found, facts = embedded(tmp_path / "embeddings", image, MeanEncoder(halo_px=None), 4.0, tissue=tissue)
    assert facts["tiles"] == (0 if missing else 35)
    for name in ("plain", "scaled"):
        home = tmp_path / "embeddings" / "content" / name
        array = zarr.open_array(home / "0", mode="r")
        shards = sorted(path for path in home.rglob("c/*/*/*") if path.is_file())
        per_shard = (array.shards[-1] // array.chunks[-1]) ** 2
        tables = [np.frombuffer(path.read_bytes()[-16 * per_shard - 4 : -4], dtype="<u8") for path in shards]
        assert len(shards) == 3 * 4
        assert sum((table[::2] != ABSENT).sum() for table in tables) == array.nchunks == 5 * 7
    assert found.computed().all() != missing
    values = found.read(0, 0, *found.grid)
    assert values.any() != missing


def test_a_flipped_bit_in_any_shard_is_an_error_when_it_is_read(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(dense, "SHARD_PX", 128)
    image = stored_section(tmp_path / "section", noise(200, 200), 4.0)
    embedded(tmp_path / "embeddings", image, MeanEncoder(halo_px=None), 4.0)
    home = tmp_path / "embeddings" / "content"
    files = sorted(path for path in home.rglob("c/*/*/*") if path.is_file())
    assert len(files) == 2 * 4
    for file in files:
        content = bytearray(file.read_bytes())
        content[len(content) // 3] ^= 4
        file.write_bytes(content)
        found = SectionEmbeddings.open(home)
        with pytest.raises(SectionError, match="cannot be read"):
            found.read(0, 0, *found.grid)
        content[len(content) // 3] ^= 4
        file.write_bytes(content)


# -- places ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["grey", "rgb"])
@pytest.mark.parametrize("working_um", [1.0, 1.3, 2.0, 4.0, 9.0])
def test_a_square_lands_at_its_place_whichever_level_of_the_pyramid_is_read(tmp_path: Path, working_um, kind):
    channels = 3 if kind == "rgb" else 1
    pixels = np.zeros((channels, 700, 1030), dtype=np.uint8)
    pixels[:, 240:320, 610:710] = 255
    image = stored_section(tmp_path / "section", pixels, 1.0, kind)
    assert len(image.levels) > 2
    encoder = MeanEncoder(channels=1, tile_px=48, halo_px=None)
    found, _ = embedded(tmp_path / "embeddings", image, encoder, working_um)
    values = found.read(0, 0, *found.grid)[0].astype(np.float64)
    level = found.layers[0].levels[0]
    centres = [level.origin_um + np.arange(n) * level.pixel_size_um for n in values.shape]
    place = [(values.sum(axis=1 - axis) * centres[axis]).sum() / values.sum() for axis in (0, 1)]
    # a pyramid's mean moves nothing; interpolation blurs both edges alike
    assert np.abs(np.array(place) - (279.5, 659.5)).max() < 0.35 * working_um + 0.05


# -- regions -----------------------------------------------------------------------------------------------------------


def regional(folder: Path, image: StoredImage, encoder, windows, tissue: TissueMask | None = None) -> SectionEmbeddings:
    """The embeddings of windows (y, x, height, width) um of a section."""
    plan = DensePlan.of(image, tissue or all_tissue(image), encoder, EmbedSettings(), 4.0, windows)
    journal = Staging(folder).open()
    failed, speed = run_engine([dense_job("s", plan, encoder, journal, lambda _: None)], encoder.encode, 3)
    assert failed == {}
    assert speed.tiles == plan.wanted.sum()
    return SectionEmbeddings.open(journal.path)


WINDOW = st.tuples(st.integers(0, 199), st.integers(0, 259), st.integers(1, 120), st.integers(1, 120))


@pytest.fixture(scope="module")
def embedded_whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[StoredImage, np.ndarray]:
    """A section, and all of its embeddings."""
    folder = tmp_path_factory.mktemp("whole")
    image = stored_section(folder / "section", noise(200, 260) | 1, 4.0)
    found, _ = embedded(folder / "embeddings", image, MeanEncoder(tile_px=32, halo_px=None), 4.0)
    return image, found.read(0, 0, *found.grid)


@settings(max_examples=25, deadline=None)
@given(st.lists(WINDOW, min_size=1, max_size=3))
def test_tiles_that_touch_a_region_are_computed_and_no_others(embedded_whole, windows_px):
    image, whole = embedded_whole
    windows = tuple(tuple(4.0 * edge for edge in window) for window in windows_px)
    with TemporaryDirectory() as folder:
        found = regional(Path(folder), image, MeanEncoder(tile_px=32, halo_px=None), windows)
        marked, values = found.computed(), found.read(0, 0, *found.grid)
    expected = np.zeros((200, 260), dtype=bool)
    for y, x, height, width in windows_px:
        expected[y // 32 * 32 : -(-(y + height) // 32) * 32, x // 32 * 32 : -(-(x + width) // 32) * 32] = True
    np.testing.assert_array_equal(marked, expected[::4, ::4])
    np.testing.assert_array_equal(values[:, marked], whole[:, marked])
    assert not values[:, ~marked].any()


def test_a_region_without_tissue_is_not_computed(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(128, 128), 4.0)
    mask = np.zeros((2, 2), dtype=bool)
    mask[0, 0] = True
    windows = ((0.0, 0.0, 8.0, 8.0), (300.0, 300.0, 8.0, 8.0))
    found = regional(
        tmp_path / "some", image, MeanEncoder(tile_px=32, halo_px=None), windows, tissue_on(image, mask, 256.0)
    )
    expected = np.zeros((32, 32), dtype=bool)
    expected[:8, :8] = True
    np.testing.assert_array_equal(found.computed(), expected)


@pytest.mark.parametrize("place", [(0, 0), (3, 7), (12, 5), (18, 23), (9, 12)])
def test_an_island_of_tissue_however_small_is_computed(tmp_path: Path, place: tuple[int, int]):
    """One pixel of the mask: 0.6 % of a tile of 64 px."""
    image = stored_section(tmp_path / "section", noise(95, 119), 4.0)
    mask = np.zeros((19, 24), dtype=bool)
    mask[place] = True
    tissue = tissue_on(image, mask, 20.0)
    found, _ = embedded(tmp_path / "some", image, MeanEncoder(halo_px=None), 4.0, tissue=tissue)
    inside = tissue.on_grid(found.layers[0].grid)
    assert found.computed()[inside].all()
    assert inside.any()
    assert not found.computed().all()
    np.testing.assert_array_equal(found.inside(tissue), inside)


@pytest.mark.parametrize(
    ("window", "rows", "columns"),
    [
        ((0.0, 0.0, 1.0, 1.0), (0, 1), (0, 1)),
        ((0.0, 128.0, 128.0, 257.0), (0, 1), (1, 4)),
        ((127.0, 0.0, 2.0, 128.0), (0, 2), (0, 1)),
        ((-300.0, 100.0, 310.0, 20.0), (0, 1), (0, 1)),
        ((-300.0, 0.0, 100.0, 100.0), (0, 0), (0, 0)),
        ((0.0, -300.0, 100.0, 300.0), (0, 0), (0, 0)),
        ((255.0, 383.0, 900.0, 900.0), (1, 3), (2, 4)),
    ],
)
def test_a_region_wants_the_tiles_it_touches(tmp_path: Path, window, rows, columns):
    """Tiles of 128 um on a section of 3 x 4 of them."""
    image = stored_section(tmp_path / "section", noise(96, 128), 4.0)
    plan = TilePlan(96, 128, 32, 32, 0, 4)
    expected = np.zeros((3, 4), dtype=bool)
    expected[slice(*rows), slice(*columns)] = True
    found = wanted_tiles(plan, image.at(4.0).grid, all_tissue(image), [window])
    np.testing.assert_array_equal(found, expected)


def test_regions_are_in_pixels_of_the_scan_whatever_the_pixel_size_they_are_read_at(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(400, 400), 1.0)
    region = Region(section_id="s", y_px=130, x_px=260, height_px=10, width_px=10)
    section = Section(brain_id="B", section_id="s", section_number=1, path="s.tif")
    windows = RegionTable(regions=(region,)).windows(section, image.pixel_size_um)
    found = regional(tmp_path / "some", image, MeanEncoder(tile_px=8, halo_px=None), windows)  # tiles of 32 um
    rows, columns = np.nonzero(found.computed())
    assert {(16.0 * rows.min(), 16.0 * (rows.max() + 1))} == {(128.0, 160.0)}
    assert {(16.0 * columns.min(), 16.0 * (columns.max() + 1))} == {(256.0, 288.0)}


def test_what_is_cast_to_float16_is_rounded_as_numpy_rounds(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(64, 64), 4.0)
    encoder = MeanEncoder(factor=123.456)
    found, facts = embedded(tmp_path / "embeddings", image, encoder, 4.0)
    reader = DensePlan.of(image, all_tissue(image), encoder, EmbedSettings(), 4.0).reader
    for layer, values in zip(found.layers, encoder.encode(reader.read(0, 0, 64, 64)[None]), strict=True):
        np.testing.assert_array_equal(np.asarray(layer.levels[0].array), values[0].astype(np.float16))
    assert facts["embedding"]["margin_px"] == 0


def test_the_same_section_gives_the_same_bytes(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(150, 210), 4.0)
    for name in ("one", "other"):
        embedded(tmp_path / name, image, MeanEncoder(halo_px=None), 4.0, batch_size=len(name))
    assert contents(tmp_path / "one" / "content") == contents(tmp_path / "other" / "content")


def test_arrays_are_named_after_the_layers_and_name_no_path_of_this_machine(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(64, 64), 4.0)
    for place in ("here", "there"):
        encoder = replace(MeanEncoder(), encoder_id=f"mean:/{place}/model")
        embedded(tmp_path / place, image, encoder, 4.0)
    assert contents(tmp_path / "here" / "content") == contents(tmp_path / "there" / "content")
    group = zarr.open_group(tmp_path / "here" / "content", mode="r")
    own = {"encoder_digest": "00" * 32, "pixel_size_um": 4.0, "layers": ["plain", "scaled"]}
    assert own.items() <= dict(group.attrs["cytoarch"]).items()
    assert sorted(group.keys()) == ["computed", "plain", "scaled"]
    names = zarr.open_array(tmp_path / "here" / "content" / "plain" / "0", mode="r").metadata.dimension_names
    assert list(names) == ["c", "y", "x"]
