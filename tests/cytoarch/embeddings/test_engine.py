"""The engine: batches are decided by the jobs alone, a bad section costs itself, and nothing is left hanging."""

import threading
from itertools import groupby

import pytest
from fake_jobs import Ledger, jobs_of, parts_of, run_jobs
from hypothesis import given, settings
from hypothesis import strategies as st

from cytoarch.embeddings.engine import (
    AHEAD_BYTES,
    BATCHES_AHEAD,
    GROUP_BATCHES,
    GROUP_SECTIONS,
    NO_SPEED,
    READERS,
    Speed,
    grouped,
    run_engine,
)
from cytoarch.errors import ScanError, SectionError

SHAPES = st.lists(st.lists(st.integers(1, 6), min_size=0, max_size=4), min_size=1, max_size=5)
fast = settings(max_examples=40, deadline=None)


def engine_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("embedding-")]


def undisturbed(shapes, batch_size: int, window_tiles: int = 1) -> Ledger:
    ledger = Ledger()
    failed, _ = run_jobs(ledger, jobs_of(ledger, shapes, window_tiles), batch_size)
    assert failed == {}
    return ledger


def raises_at(place: str, error: BaseException):
    """A hook that raises at places that begin so."""

    def hook(reached: str) -> None:
        if f"{reached}/".startswith(f"{place}/"):
            raise error

    return hook


# -- batches -----------------------------------------------------------------------------------------------------------


@fast
@given(SHAPES, st.integers(1, 7), st.integers(1, 4), st.booleans())
def test_batches_are_the_next_tiles_over_all_borders(shapes, batch_size, window_tiles, beside):
    ledger = Ledger()
    jobs = jobs_of(ledger, shapes, window_tiles)
    failed, speed = run_jobs(ledger, jobs, batch_size, beside)
    everything = [number for job in jobs for number in job.numbers]
    assert failed == {}
    assert ledger.batches == parts_of(everything, batch_size)
    assert ledger.kept == {number: (2.0 * number, float(number)) for number in everything}
    assert sorted(ledger.committed) == [job.section_id for job in jobs]
    assert ledger.closed == {f"{job.section_id}/{lot.place}": lot.numbers for job in jobs for lot in job.lots()}, (
        "a lot is closed once it holds all its tiles, in order"
    )
    assert speed.tiles == len(everything)
    assert engine_threads() == []


@fast
@given(SHAPES, st.integers(1, 7), st.integers(1, 4), st.data())
def test_what_is_finished_leaves_its_slots_empty_and_moves_no_other_tile(shapes, batch_size, window_tiles, data):
    whole = undisturbed(shapes, batch_size, window_tiles)
    ledger = Ledger()
    jobs = jobs_of(ledger, shapes, window_tiles)
    for job in jobs:
        job.committed = data.draw(st.booleans())
        job.finished = frozenset(data.draw(st.sets(st.integers(0, 3))))
    wanted = {number for job in jobs for lot in job.lots() if not lot.finished for number in lot.numbers}
    failed, speed = run_jobs(ledger, jobs, batch_size)
    masked = [[number if number in wanted else 0 for number in batch] for batch in whole.batches]
    assert failed == {}
    assert ledger.batches == [batch for batch in masked if any(batch)], "nothing is computed where nothing is wanted"
    assert sorted(ledger.read) == sorted(wanted), "nothing is read that is not wanted"
    assert ledger.kept == {number: whole.kept[number] for number in wanted}
    assert speed.tiles == len(wanted)
    assert sorted(ledger.committed) == [job.section_id for job in jobs]


@fast
@given(SHAPES, st.integers(1, 7), st.integers(1, 4), st.data())
def test_a_failing_section_moves_no_tile_of_the_others(shapes, batch_size, window_tiles, data):
    whole = undisturbed(shapes, batch_size, window_tiles)
    lost = data.draw(st.integers(0, len(shapes) - 1))
    lot = data.draw(st.integers(0, 3))
    where = data.draw(st.sampled_from([f"read/s{lost}/{lot}", f"put/s{lost}/{lot}", f"close/s{lost}/{lot}"]))
    ledger = Ledger(raises_at(where, SectionError("torn")))
    jobs = jobs_of(ledger, shapes, window_tiles)
    failed, _ = run_jobs(ledger, jobs, batch_size)
    assert failed == ({f"s{lost}": "torn"} if lot < len(shapes[lost]) else {})
    others = {number for job in jobs if job.section_id not in failed for number in job.numbers}
    batch_of = {number: batch for batch in whole.batches for number in batch}
    for batch in ledger.batches:
        same = batch_of[next(number for number in batch if number)]
        assert [number or same[at] for at, number in enumerate(batch)] == same, "every tile keeps its slot"
        assert {number for number in same if number in others} <= set(batch)
    assert {number: ledger.kept[number] for number in others} == {number: whole.kept[number] for number in others}
    assert sorted(ledger.committed) == [job.section_id for job in jobs if job.section_id not in failed]


@fast
@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from([2, 3])), min_size=1, max_size=6), st.integers(1, 5))
def test_tiles_of_another_shape_end_a_batch(sections, batch_size):
    ledger = Ledger()
    jobs = jobs_of(ledger, [[count] for count, _ in sections], edges=[edge for _, edge in sections])
    run_jobs(ledger, jobs, batch_size)
    runs = groupby(jobs, key=lambda job: job.edge)
    numbers = [[number for job in run for number in job.numbers] for _, run in runs]
    assert ledger.batches == [batch for run in numbers for batch in parts_of(run, batch_size)]


def test_nothing_is_computed_where_all_is_committed():
    ledger = Ledger()
    jobs = jobs_of(ledger, [[3, 2], [4]])
    for job in jobs:
        job.committed = True
    failed, speed = run_jobs(ledger, jobs, 2)
    assert (failed, ledger.batches, ledger.read, speed.tiles, speed.model_s) == ({}, [], [], 0, 0.0)


def test_no_jobs_are_no_work():
    assert run_engine([], lambda tiles: [tiles], 4)[0] == {}


def test_jobs_without_tiles_are_committed_and_may_fail():
    ledger = Ledger(raises_at("commit/s2", SectionError("no room")))
    failed, _ = run_jobs(ledger, jobs_of(ledger, [[], [2], [], []]), 3)
    assert failed == {"s2": "no room"}
    assert sorted(ledger.committed) == ["s0", "s1", "s3"]


# -- errors ------------------------------------------------------------------------------------------------------------

PLACES = ["read/s1/1/0", "read/s1/0/1", "put/s1/0/2", "put/s1/1/0", "close/s1/0", "close/s1/1", "commit/s1"]


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("batch_size", [1, 4, 50])
@pytest.mark.parametrize("place", [*PLACES, "lots/s1/1", "lots/s1/0"])
def test_a_section_error_costs_that_section_only_and_gives_the_reason(place: str, batch_size: int, beside: bool):
    ledger = Ledger(raises_at(place, ScanError(f"torn at {place}")))
    jobs = jobs_of(ledger, [[3, 4], [4, 3], [5], [1, 1]], window_tiles=2)
    failed, _ = run_jobs(ledger, jobs, batch_size, beside)
    assert failed == {"s1": f"torn at {place}"}
    assert sorted(ledger.committed) == ["s0", "s2", "s3"]
    others = [number for job in jobs if job.section_id != "s1" for number in job.numbers]
    assert all(number in ledger.kept for number in others)
    assert engine_threads() == []


def test_the_first_reason_is_the_one_that_is_given():
    def hook(place: str) -> None:
        if place.startswith("put/s0/0/"):
            raise SectionError(f"torn at {place}")

    ledger = Ledger(hook)
    failed, _ = run_jobs(ledger, jobs_of(ledger, [[4], [2]]), 2)
    assert failed == {"s0": "torn at put/s0/0/0"}


def test_after_a_failure_nothing_of_the_section_is_kept_closed_or_committed():
    ledger = Ledger(raises_at("put/s0/0/1", SectionError("torn")))
    jobs = jobs_of(ledger, [[3, 3, 3], [3]])
    failed, _ = run_jobs(ledger, jobs, 1)
    assert failed == {"s0": "torn"}
    assert set(ledger.kept) == {1, *jobs[1].numbers}
    assert set(ledger.closed) == {"s1/0"}
    assert ledger.committed == ["s1"]


@pytest.mark.parametrize("error", [OSError(5, "input/output error"), ValueError("odd"), MemoryError()])
@pytest.mark.parametrize(
    "place", [*PLACES, "lots/s1/1", "windows/s1/0", "compute/1", "compute/0", "report/s1/2", "commit/s3"]
)
@pytest.mark.parametrize("beside", [True, False])
def test_any_other_error_is_raised_and_no_thread_is_left(place: str, error: Exception, beside: bool):
    ledger = Ledger(raises_at(place, error))
    with pytest.raises(type(error)) as raised:
        run_jobs(ledger, jobs_of(ledger, [[3, 4], [4, 3], [5], []], window_tiles=2), 3, beside)
    assert raised.value is error
    assert engine_threads() == []


def test_an_error_in_the_last_batch_of_all_is_raised():
    ledger = Ledger(raises_at("close/s0/0", OSError(28, "no space left")))
    with pytest.raises(OSError, match="no space left"):
        run_jobs(ledger, jobs_of(ledger, [[2]]), 2)


def test_an_interrupt_ends_all_threads():
    ledger = Ledger(raises_at("compute/2", KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run_jobs(ledger, jobs_of(ledger, [[20]]), 1)
    assert engine_threads() == []


def test_a_model_that_fails_before_a_full_queue_leaves_nothing_waiting():
    enough, reached = threading.Event(), []

    def hook(place: str) -> None:
        if place.startswith("read/"):
            reached.append(place)
            if len(reached) > 2 + BATCHES_AHEAD:  # one computed, those in the queue, and one that finds it full
                enough.set()
        elif place == "compute/0":
            assert enough.wait(20)
            raise ValueError("the model fails")

    ledger = Ledger(hook)
    with pytest.raises(ValueError, match="the model fails"):
        run_jobs(ledger, jobs_of(ledger, [[1] * 50] * 4), 1)
    assert engine_threads() == []
    assert len(ledger.read) < 50


@pytest.mark.parametrize("place", ["close/s0/0", "put/s0/0/2", "put/s0/1/0"])
def test_after_an_error_no_lot_that_misses_a_tile_is_closed(place: str):
    """The batch that failed held tiles of the next lot, and the batches with its other tiles are already waiting."""
    waiting = threading.Event()

    def hook(reached: str) -> None:
        if reached == "compute/2":
            waiting.set()
        if reached == place:
            assert waiting.wait(20)
            raise OSError(5, "input/output error")

    ledger = Ledger(hook)
    jobs = jobs_of(ledger, [[3, 3, 6], [2]])
    with pytest.raises(OSError, match="input/output error"):
        run_jobs(ledger, jobs, 2)
    whole = {f"{job.section_id}/{lot.place}": lot.numbers for job in jobs for lot in job.lots()}
    assert all(whole[lot] == numbers for lot, numbers in ledger.closed.items())
    assert ledger.committed == []


# -- memory and progress -----------------------------------------------------------------------------------------------


def most_at_once(began: str, ended: str, bound: int, jobs_shape, window_bytes: int = 1) -> bool:
    """Whether more than `bound` things are ever under way between two places, the second of them held up."""
    changed, under_way = threading.Condition(), [0]
    held: list[str] = []
    exceeded: list[bool] = []

    def hook(place: str) -> None:
        if place.startswith(began):
            with changed:
                under_way[0] += 1
                changed.notify_all()
        if place.startswith(ended):
            with changed:
                if len(held) < 2:  # long enough for the others to run as far ahead as they ever do
                    held.append(place)
                    exceeded.append(changed.wait_for(lambda: under_way[0] > bound, timeout=0.4))
                exceeded.append(under_way[0] > bound)
                under_way[0] -= 1

    ledger = Ledger(hook)
    jobs = jobs_of(ledger, jobs_shape)
    for job in jobs:
        job.window_bytes = window_bytes
    run_jobs(ledger, jobs, 1)
    return any(exceeded)


@pytest.mark.parametrize("shape", [[[1] * 150], [[150]], [[1]] * 150])
def test_windows_that_are_read_and_not_yet_computed_are_few_whatever_there_is_to_do(shape):
    ahead = READERS + 1 + BATCHES_AHEAD + 3  # being read, in the queue, and in the hands of the three who pass them on
    assert not most_at_once("read/", "compute/", ahead, shape)
    assert most_at_once("read/", "compute/", BATCHES_AHEAD + 1, shape), "reading does run ahead"


@pytest.mark.parametrize("window_bytes", [AHEAD_BYTES, 10 * AHEAD_BYTES])
def test_large_windows_are_read_one_at_a_time(window_bytes: int):
    ahead = 1 + BATCHES_AHEAD + 3
    assert not most_at_once("read/", "compute/", ahead, [[1] * 60], window_bytes)


def test_results_that_are_computed_and_not_yet_kept_are_few():
    assert not most_at_once("compute/", "put/", BATCHES_AHEAD + 3, [[1] * 60])


@fast
@given(SHAPES, st.integers(1, 7), st.data())
def test_progress_reaches_all_tiles_of_every_section_even_of_one_that_fails(shapes, batch_size, data):
    lost = data.draw(st.integers(0, len(shapes) - 1))
    ledger = Ledger(raises_at(f"read/s{lost}/1", SectionError("torn")))
    jobs = jobs_of(ledger, shapes)
    for job in jobs[::2]:
        job.finished = frozenset({0})
    _, speed = run_jobs(ledger, jobs, batch_size)
    for job in jobs:
        told = ledger.reported[job.section_id]
        assert all(total == job.tiles for _, total in told)
        assert [done for done, _ in told] == sorted({done for done, _ in told}), "it only ever rises"
        assert not job.tiles or told[-1] == (job.tiles, job.tiles)
    assert all(one.tiles <= other.tiles for one, other in zip(ledger.speeds, ledger.speeds[1:], strict=False))
    assert not ledger.speeds or ledger.speeds[-1].tiles == speed.tiles


# -- groups and speed --------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 500), max_size=80), st.integers(1, 32))
def test_groups_partition_the_sections_in_order_and_only_the_last_is_not_full(tiles, batch_size):
    groups = grouped(tiles, batch_size)
    assert [place for group in groups for place in group] == list(range(len(tiles)))
    full = GROUP_BATCHES * batch_size
    for group in groups:
        held = [tiles[place] for place in group]
        assert 1 <= len(group) <= GROUP_SECTIONS
        assert sum(held[:-1]) < full, "no section is added to a group that is full"
    for group in groups[:-1]:
        assert sum(tiles[place] for place in group) >= full or len(group) == GROUP_SECTIONS


def test_speeds_add_up():
    one, other = Speed(10, 2.0, 4.0), Speed(5, 1.0, 1.0)
    assert one + other == other + one == Speed(15, 3.0, 5.0)
    assert isinstance(one + other, Speed)
    assert one + NO_SPEED == one
    assert (one.share, NO_SPEED.share) == (0.5, 0.0)
