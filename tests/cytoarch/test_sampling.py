"""The one sampler of tokens: whom it draws, how evenly, and that it never takes more than its bytes."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cytoarch import sampling
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.embeddings import SectionEmbeddings, check_same_dims
from cytoarch.errors import ModelError, SectionError
from cytoarch.geometry import Grid
from cytoarch.images.views import Level, StoredImage
from cytoarch.sampling import (
    CANDIDATE_BYTES,
    NOT_DRAWN,
    OnDemand,
    TokenSample,
    TokenSource,
    UnreadableSectionError,
    draw_tokens,
    moments,
    standardised,
    tissue_source,
)

WIDTH = 3


class Watched:
    """An array that remembers which windows were read."""

    def __init__(self, values: NDArray, chunk: int) -> None:
        self.values, self.chunks, self.windows = values, (len(values), chunk, chunk), []
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, key: tuple) -> NDArray:
        self.windows.append((key[1].start, key[1].stop, key[2].start, key[2].stop))
        return self.values[key]


def told_apart(index: int, grid: tuple[int, int]) -> NDArray[np.float16]:
    """Embeddings (3, y, x) that say of which section, row and column they are."""
    y, x = np.indices(grid)
    return np.stack([np.full(grid, index), y, x]).astype(np.float16)


def source_of(index: int, strata: NDArray, chunk: int = 4) -> TokenSource:
    array = Watched(told_apart(index, strata.shape), chunk)
    embeddings = SectionEmbeddings((StoredImage((Level(array, 16.0, 8.0),), {}),))
    return TokenSource(f"s{index}", embeddings, lambda w: strata[w[0] : w[0] + w[2], w[1] : w[1] + w[3]])


def sources_of(sections: int, strata: int, grid: tuple[int, int] = (9, 14), seed: int = 0) -> list[TokenSource]:
    rng = np.random.default_rng(seed)
    return [source_of(index, rng.integers(-1, strata, grid)) for index in range(sections)]


def strata_of(source: TokenSource) -> NDArray:
    return source.strata((0, 0, *source.embeddings.grid))


def counts_of(sample: TokenSample) -> Counter:
    """Tokens by section and stratum."""
    return Counter(zip(sample.tokens[:, 0].astype(int).tolist(), sample.strata.tolist(), strict=True))


def budget_for(tokens: int, extra: int = 0) -> int:
    return tokens * (2 * WIDTH + extra + CANDIDATE_BYTES)


# -- who is drawn ------------------------------------------------------------------------------------------------------


@given(sections=st.integers(1, 4), strata=st.integers(1, 4), per_section=st.integers(1, 40), seed=st.integers(0, 50))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_section_gives_so_many_of_each_stratum_and_every_token_its_own(
    sections: int, strata: int, per_section: int, seed: int
):
    sources = sources_of(sections, strata, seed=seed)
    sample = draw_tokens(sources, strata, per_section, seed)
    expected = {
        (index, stratum): min(per_section, int((strata_of(source) == stratum).sum()))
        for index, source in enumerate(sources)
        for stratum in range(strata)
    }
    assert counts_of(sample) == Counter(expected)
    places = [tuple(token) for token in sample.tokens.astype(int).tolist()]
    assert len(set(places)) == len(places)
    for (index, y, x), stratum in zip(places, sample.strata, strict=True):
        assert strata_of(sources[index])[y, x] == stratum != NOT_DRAWN
    assert sample.share == (per_section, per_section, 0)
    assert sample.facts() == {
        "tokens": len(places),
        "asked_per_section": per_section,
        "drawn_per_section": per_section,
    }
    assert sample.tokens[:, 0].tolist() == sorted(sample.tokens[:, 0].tolist())


def test_every_token_is_as_likely_as_the_other():
    """120 tokens, 30 of them drawn 200 times: each is drawn 50 times, give or take."""
    strata = np.zeros((10, 12), dtype=np.int64)
    drawn = np.zeros(strata.shape, dtype=int)
    for seed in range(200):
        tokens = draw_tokens([source_of(0, strata)], 1, 30, seed).tokens.astype(int)
        drawn[tokens[:, 1], tokens[:, 2]] += 1
    assert drawn.sum() == 6000
    assert 28 < drawn.min() <= drawn.max() < 75
    assert abs(drawn[:5].mean() - 50) < 3  # the tokens that come first are no likelier
    assert abs(drawn[:, :6].mean() - 50) < 3


def test_what_a_section_gives_depends_on_the_seed_and_on_that_section_alone():
    sources = sources_of(4, 2)
    whole = draw_tokens(sources, 2, 5, 3).tokens
    for index, source in enumerate(sources):
        np.testing.assert_array_equal(draw_tokens([source], 2, 5, 3).tokens, whole[whole[:, 0] == index])
    turned = draw_tokens(sources[::-1], 2, 5, 3).tokens
    assert {tuple(one) for one in turned} == {tuple(one) for one in whole}
    np.testing.assert_array_equal(draw_tokens(sources, 2, 5, 3).tokens, whole)
    assert not np.array_equal(draw_tokens(sources, 2, 5, 4).tokens, whole)
    strata = strata_of(sources[0])
    places = [draw_tokens([replace(source_of(0, strata), section_id=name)], 2, 5, 3).tokens for name in "ab"]
    assert not np.array_equal(*places)  # sections of one shape do not all give the same places


def test_sorting_candidates_in_between_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    sources = sources_of(2, 3, (30, 30))
    whole = draw_tokens(sources, 3, 20, 0)
    monkeypatch.setattr(sampling, "PENDING", 10)
    monkeypatch.setattr(sampling, "PART_TOKENS", 7)
    parts = draw_tokens(sources, 3, 20, 0)
    np.testing.assert_array_equal(parts.tokens, whole.tokens)
    np.testing.assert_array_equal(parts.strata, whole.strata)


def test_a_window_is_read_once_and_only_where_something_is_drawn():
    strata = np.full((16, 16), NOT_DRAWN, dtype=np.int64)
    strata[1:3, 1:3] = 0
    strata[9, 14] = 1
    source = source_of(0, strata)
    assert len(draw_tokens([source], 2, 100, 0).tokens) == 5
    array = source.embeddings.layers[0].levels[0].array
    assert sorted(array.windows) == [(1, 3, 1, 3), (9, 10, 14, 15)]


@pytest.mark.parametrize("windows", [1, 3, 12, 100])
def test_tokens_come_from_so_many_windows_at_most(windows: int):
    strata = np.zeros((12, 16), dtype=np.int64)
    strata[:4, :4] = NOT_DRAWN  # a window without any does not count
    seen = set()
    for seed in range(8):
        source = source_of(0, strata)
        tokens = draw_tokens([source], 1, 1000, seed, max_windows=windows).tokens.astype(int)
        used = {(y // 4, x // 4) for _, y, x in tokens.tolist()}
        assert len(used) == min(windows, 11)
        assert len(tokens) == 16 * len(used)
        seen |= used
    assert len(seen) > windows or windows > 11


def test_no_sections_give_no_tokens():
    sample = draw_tokens([], 2, 5, 0)
    assert sample.tokens.shape == (0, 0)
    assert sample.strata.shape == (0,)


# -- the budget --------------------------------------------------------------------------------------------------------


@given(
    sections=st.integers(1, 6),
    strata=st.integers(1, 5),
    per_section=st.integers(1, 40),
    capacity=st.integers(1, 200),
    seed=st.integers(0, 50),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_the_budget_holds_and_all_give_up_alike(sections: int, strata: int, per_section: int, capacity: int, seed: int):
    sources = sources_of(sections, strata, seed=seed)
    offered = np.array([[int((strata_of(one) == k).sum()) for k in range(strata)] for one in sources])
    sample = draw_tokens(sources, strata, per_section, seed, budget_bytes=budget_for(capacity))
    assert len(sample.tokens) <= capacity
    counts = counts_of(sample)
    share = max(n for n in range(per_section + 1) if np.minimum(offered, n).sum() <= capacity)
    assert sample.share.asked == per_section
    assert sample.share.drawn == share
    assert sample.facts()["drawn_per_section"] == share
    if share:
        expected = np.minimum(offered, share)
        assert all(counts[index, k] == expected[index, k] for index, k in np.ndindex(*offered.shape))
        return
    having = (offered > 0).sum(axis=0)
    most = max(n for n in range(sections + 1) if np.minimum(having, n).sum() <= capacity)
    assert sample.share.sections == sample.facts()["sections_per_class"] == most
    assert max(counts.values(), default=1) == 1
    assert [sum(counts[index, k] for index in range(sections)) for k in range(strata)] == [min(most, n) for n in having]


def test_what_fits_to_the_byte_is_drawn_and_the_callers_bytes_count():
    sources = sources_of(3, 1)
    offered = sum(int((strata_of(one) == 0).sum()) for one in sources)
    for extra in (0, 50):
        whole = draw_tokens(sources, 1, 1000, 0, extra_bytes=extra, budget_bytes=budget_for(offered, extra))
        assert len(whole.tokens) == offered
        less = draw_tokens(sources, 1, 1000, 0, extra_bytes=extra, budget_bytes=budget_for(offered, extra) - 1)
        assert offered - 3 <= len(less.tokens) < offered


def test_the_budget_is_that_of_the_module_where_none_is_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sampling, "SAMPLE_BYTES", budget_for(7))
    assert len(draw_tokens(sources_of(1, 1), 1, 1000, 0).tokens) == 7


def test_fewer_are_those_that_are_drawn_first():
    """A smaller share is part of the larger one: a budget changes how many are drawn, not whom."""
    sources = sources_of(5, 3)
    more = {tuple(one) for one in draw_tokens(sources, 3, 20, 0).tokens}
    for capacity in (200, 100, 30, 15, 4):
        fewer = draw_tokens(sources, 3, 20, 0, budget_bytes=budget_for(capacity))
        assert {tuple(one) for one in fewer.tokens} <= more


def test_which_sections_give_where_not_all_can_is_decided_by_lot():
    strata = np.zeros((4, 4), dtype=np.int64)
    sources = [source_of(index, strata) for index in range(20)]
    lots = [
        set(draw_tokens(sources, 1, 5, seed, budget_bytes=budget_for(5)).tokens[:, 0].tolist()) for seed in range(30)
    ]
    assert all(len(one) == 5 for one in lots)
    assert len(set.union(*lots)) == 20


def test_a_budget_smaller_than_a_token_gives_one():
    assert len(draw_tokens(sources_of(1, 1), 1, 10, 0, budget_bytes=1).tokens) == 1


def test_values_are_kept_as_they_are_stored():
    single = source_of(0, np.zeros((4, 4), dtype=np.int64))
    assert draw_tokens([single], 1, 10, 0).tokens.dtype == np.float16
    array = Watched(told_apart(0, (4, 4)).astype(np.float32) + 0.0001, 4)
    exact = TokenSource("s", SectionEmbeddings((StoredImage((Level(array, 16.0, 8.0),), {}),)), single.strata)
    sample = draw_tokens([exact], 1, 16, 0)
    assert sample.tokens.dtype == np.float32
    assert {tuple(one) for one in sample.tokens} == {tuple(one) for one in array.values.reshape(3, -1).T}


# -- sources -----------------------------------------------------------------------------------------------------------


def marked(grid: tuple[int, int], computed: NDArray) -> SectionEmbeddings:
    array = Watched(told_apart(0, grid), 4)
    marks = Level(computed.astype(np.uint8) * 255, 16.0, 8.0)
    return SectionEmbeddings((StoredImage((Level(array, 16.0, 8.0),), {}),), marks)


def test_uniform_tokens_lie_in_tissue_and_were_computed():
    rng = np.random.default_rng(0)
    computed, mask = rng.random((9, 14)) < 0.6, rng.random((9, 14)) < 0.6
    source = tissue_source(
        "s0", marked((9, 14), computed), TissueMask(mask, Grid.at_corner(mask.shape, 16.0, (0.0, 0.0)))
    )
    tokens = draw_tokens([source], 1, 1000, 0).tokens.astype(int)
    found = np.zeros((9, 14), dtype=bool)
    found[tokens[:, 1], tokens[:, 2]] = True
    np.testing.assert_array_equal(found, computed & mask)
    assert len(tokens) == found.sum()


def test_sections_whose_embeddings_differ_in_length_are_refused():
    one, other = sources_of(2, 1)
    wide = Watched(np.zeros((5, 9, 14), dtype=np.float16), 4)
    longer = replace(other, embeddings=SectionEmbeddings((StoredImage((Level(wide, 16.0, 8.0),), {}),)))
    with pytest.raises(ModelError, match="section s1 has embeddings of 5 values where others have 3"):
        draw_tokens([one, longer], 1, 5, 0)


def damaged(path: Path) -> SectionEmbeddings:
    """Stored embeddings of which a chunk is damaged."""
    array = zarr.create_array(store=path, shape=(3, 8, 8), dtype=np.float16, chunks=(3, 8, 8))
    array[:] = np.random.default_rng(0).random((3, 8, 8))
    chunk = next(file for file in path.rglob("*") if file.is_file() and file.name != "zarr.json")
    chunk.write_bytes(b"no zstd" + chunk.read_bytes()[7:])
    return SectionEmbeddings((StoredImage((Level(array, 16.0, 8.0),), {}),))


def test_a_damaged_chunk_costs_its_section_and_names_it(tmp_path: Path):
    broken = TokenSource("s7", damaged(tmp_path), lambda window: np.zeros(window[2:], dtype=np.int64))
    with pytest.raises(UnreadableSectionError, match=r"section s7: .*pixels cannot be read") as caught:
        draw_tokens([*sources_of(2, 1), broken], 1, 5, 0)
    assert isinstance(caught.value, SectionError)
    assert caught.value.section_id == "s7"


def test_marks_that_are_damaged_cost_their_section(tmp_path: Path):
    marks = zarr.create_array(store=tmp_path, shape=(8, 8), dtype=np.uint8, chunks=(8, 8))
    marks[:] = np.random.default_rng(0).integers(0, 255, (8, 8))
    chunk = next(file for file in tmp_path.rglob("*") if file.is_file() and file.name != "zarr.json")
    chunk.write_bytes(b"no zstd" + chunk.read_bytes()[7:])
    array = Watched(told_apart(0, (8, 8)), 4)
    embeddings = SectionEmbeddings((StoredImage((Level(array, 16.0, 8.0),), {}),), Level(marks, 16.0, 8.0))
    with pytest.raises(SectionError, match="pixels cannot be read"):
        embeddings.computed()
    source = tissue_source(
        "s3", embeddings, TissueMask(np.ones((8, 8), dtype=bool), Grid.at_corner((8, 8), 16.0, (0.0, 0.0)))
    )
    with pytest.raises(UnreadableSectionError, match="section s3"):
        draw_tokens([source], 1, 5, 0)


@pytest.mark.parametrize("content", [None, "{", "{}", '{"zarr_format": 3, "node_type": "group", "attributes": {}}'])
def test_embeddings_whose_description_is_damaged_cost_their_section(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "zarr.json").write_text(content)
    with pytest.raises(SectionError, match=r"holds no readable embeddings .*: run embed-brain again"):
        SectionEmbeddings.open(tmp_path)


def test_sections_that_differ_in_layers_are_named():
    def one(index: int, *dims: int) -> tuple[str, SectionEmbeddings]:
        layers = [Level(Watched(np.zeros((d, 4, 4), dtype=np.float16), 4), 16.0, 8.0) for d in dims]
        return f"s{index}", SectionEmbeddings(tuple(StoredImage((layer,), {}) for layer in layers))

    assert check_same_dims(one(index, 2, 3) for index in range(3)) == (2, 3)
    with pytest.raises(ModelError, match=r"section s2 has embeddings of \(3, 2\) where s0 has \(2, 3\)"):
        check_same_dims([one(0, 2, 3), one(1, 2, 3), one(2, 3, 2)])


def test_members_of_a_sequence_on_demand_are_made_when_asked_for_and_not_kept():
    made: list[int] = []

    def make(index: int) -> str:
        made.append(index)
        return f"s{index}"

    late = OnDemand(5, make)
    assert len(late) == 5
    assert not made
    assert late[1] == late[-4] == "s1"
    assert made == [1, 1]
    assert list(late[1:4]) == ["s1", "s2", "s3"]
    assert list(late) == [f"s{i}" for i in range(5)]
    with pytest.raises(IndexError):
        late[5]


def test_sections_are_opened_when_their_turn_comes():
    sources = sources_of(3, 1)
    opened: list[int] = []

    def open_one(index: int) -> TokenSource:
        opened.append(index)
        return sources[index]

    sample = draw_tokens(OnDemand(3, open_one), 1, 5, 0)
    np.testing.assert_array_equal(sample.tokens, draw_tokens(sources, 1, 5, 0).tokens)
    assert opened == [0, 1, 2, 0, 1, 2]


# -- moments -----------------------------------------------------------------------------------------------------------


@given(count=st.integers(1, 60), width=st.integers(1, 5), part=st.integers(1, 70), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_moments_part_by_part_are_those_of_all_at_once(count: int, width: int, part: int, seed: int):
    tokens = (np.random.default_rng(seed).normal(3, 2, (count, width)) * 5 ** np.arange(width)).astype(np.float16)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sampling, "PART_TOKENS", part)
        mean, spread = moments(np.array_split(tokens, 3))
        scaled = standardised(tokens, mean, spread)
    wide = tokens.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(spread, np.maximum(wide.std(axis=0), 1e-6), rtol=1e-6)
    np.testing.assert_allclose(scaled, (wide - mean) / spread, rtol=1e-5, atol=1e-5)
    assert scaled.dtype == np.float32


def test_what_never_changes_has_the_smallest_spread():
    _, spread = moments([np.full((5, 2), 3.0)], 0.25)
    assert spread.tolist() == [0.25, 0.25]
    assert moments([np.full((5, 2), 3.0)])[1].tolist() == [1e-6, 1e-6]


@given(count=st.integers(0, 100), width=st.integers(0, 9), size=st.integers(1, 40), least=st.integers(1, 30))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_parts_hold_every_token_once_and_no_more_than_their_bytes(count: int, width: int, size: int, least: int):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sampling, "PART_BYTES", 8 * max(1, width) * size)
        patched.setattr(sampling, "PART_TOKENS", 35)
        parts = [range(count)[part] for part in sampling.parts_of(count, width, least)]
    assert [one for part in parts for one in part] == list(range(count))
    usual = max(least, min(size, 35))
    assert all(len(part) == usual for part in parts[:-1])
    if count >= least:
        assert least <= len(parts[-1]) < usual + least


# -- where it is from --------------------------------------------------------------------------------------------------


def test_a_token_knows_its_section_and_its_place() -> None:
    sample = draw_tokens(sources_of(3, 2), 2, 10, 0)
    np.testing.assert_array_equal(sample.sections, sample.tokens[:, 0])
    np.testing.assert_array_equal(sample.places, sample.tokens[:, 1:])
    for index, source in enumerate(sources_of(3, 2)):
        own = sample.sections == index
        rows, columns = sample.places[own].T
        np.testing.assert_array_equal(strata_of(source)[rows, columns], sample.strata[own])
