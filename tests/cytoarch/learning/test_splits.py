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
