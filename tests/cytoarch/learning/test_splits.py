"""Which sections are learnt from and which are held out."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from cytoarch.learning.splits import split_sections

series = st.integers(0, 200).map(lambda count: [f"s{i:03d}" for i in range(count)])


@settings(deadline=None, derandomize=True)
@given(series)
def test_every_section_has_exactly_one_use(ids: list[str]):
    split = split_sections(ids)
    uses = [*split.train, *split.fifth, *split.block]
    assert sorted(uses) == ids
    assert len(set(uses)) == len(uses)
    assert set(split.held_out) == set(ids) - set(split.train)


@settings(deadline=None, derandomize=True)
@given(series)
def test_the_uses_keep_the_cutting_order(ids: list[str]):
    split = split_sections(ids)
    for use in (split.train, split.fifth, split.block):
        assert list(use) == sorted(use)


@settings(deadline=None, derandomize=True)
@given(series.filter(lambda ids: len(ids) >= 3))
def test_from_three_sections_on_there_is_something_to_learn_from_and_something_of_each_kind_held_out(ids: list[str]):
    split = split_sections(ids)
    assert split.train
    assert split.fifth
    assert split.block


@settings(deadline=None, derandomize=True)
@given(series.filter(lambda ids: len(ids) >= 3))
def test_the_block_is_contiguous_and_a_fifth_of_the_series(ids: list[str]):
    block = split_sections(ids).block
    first = ids.index(block[0])
    assert list(block) == ids[first : first + len(block)]
    assert abs(len(block) - len(ids) / 5) <= 1


@settings(deadline=None, derandomize=True)
@given(series.filter(lambda ids: len(ids) >= 10))
def test_most_sections_are_learnt_from(ids: list[str]):
    assert len(split_sections(ids).train) >= len(ids) / 2


@settings(deadline=None, derandomize=True)
@given(series.filter(lambda ids: len(ids) >= 12))
def test_the_fifth_sections_are_held_out_between_neighbours_that_are_learnt_from(ids: list[str]):
    split = split_sections(ids)
    others = [one for one in ids if one not in split.block]
    places = [others.index(one) for one in split.fifth]
    assert all(later - earlier == 5 for earlier, later in pairwise(places))
    for place in places:
        assert others[place - 1] in split.train


@settings(deadline=None, derandomize=True)
@given(st.lists(st.text(min_size=1), max_size=2, unique=True))
def test_of_two_sections_or_fewer_all_are_learnt_from(ids: list[str]):
    split = split_sections(ids)
    assert split.train == tuple(ids)
    assert split.held_out == ()


@st.composite
def copies(draw: st.DrawFn) -> tuple[list[str], dict[str, str]]:
    """A series in which some sections show the same, and some are not named."""
    ids = [f"s{i:03d}" for i in range(draw(st.integers(0, 40)))]
    kinds = draw(st.lists(st.integers(0, 12), min_size=len(ids), max_size=len(ids)))
    return ids, {one: f"digest{kind}" for one, kind in zip(ids, kinds, strict=True) if kind}


@settings(deadline=None, derandomize=True)
@given(copies())
def test_sections_of_equal_content_have_the_same_use(case: tuple[list[str], dict[str, str]]):
    ids, contents = case
    split = split_sections(ids, contents)
    use = {one: name for name in ("train", "fifth", "block") for one in getattr(split, name)}
    assert sorted(use) == ids
    assert sum(map(len, (split.train, split.fifth, split.block))) == len(ids)
    for one, content in contents.items():
        assert all(use[one] == use[other] for other, shown in contents.items() if shown == content)


@settings(deadline=None, derandomize=True)
@given(copies())
def test_copies_change_no_use_of_the_first_of_their_kind(case: tuple[list[str], dict[str, str]]):
    ids, contents = case
    shown = [contents.get(one, one) for one in ids]
    first = [one for one, content in zip(ids, shown, strict=True) if ids[shown.index(content)] == one]
    alone, split = split_sections(first), split_sections(ids, contents)
    for name in ("train", "fifth", "block"):
        assert [one for one in getattr(split, name) if one in first] == list(getattr(alone, name))
        assert list(getattr(split, name)) == sorted(getattr(split, name))


@settings(deadline=None, derandomize=True)
@given(series)
def test_where_all_differ_contents_change_nothing(ids: list[str]):
    plain = split_sections(ids)
    assert split_sections(ids, {}) == plain
    assert split_sections(ids, {one: f"digest of {one}" for one in ids}) == plain


def test_of_four_sections_that_show_two_things_all_are_learnt_from():
    assert split_sections(["a", "b", "c", "d"], {"a": "1", "b": "2", "c": "1", "d": "2"}).held_out == ()


def test_the_split_of_small_series():
    """By hand: the block ends at four fifths, every fifth of the others is held out."""
    parts = {count: split_sections([f"s{i}" for i in range(count)]) for count in (3, 4, 5, 10, 15)}
    numbers = {
        count: tuple([int(one[1:]) for one in part] for part in (split.train, split.fifth, split.block))
        for count, split in parts.items()
    }
    assert numbers == {
        3: ([0], [1], [2]),
        4: ([0, 1], [3], [2]),
        5: ([0, 1, 4], [2], [3]),
        10: ([0, 1, 3, 4, 5, 8], [2, 9], [6, 7]),
        15: ([0, 1, 3, 4, 5, 6, 8, 12, 13, 14], [2, 7], [9, 10, 11]),
    }
