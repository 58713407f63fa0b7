"""What is heard of a stage as it goes on: by listeners in this process, and in Prefect's artifact."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from cytoarch.embeddings.engine import NO_SPEED, Speed
from tasks import progress
from tasks.progress import bytes_note, engine_reporter, listening, reporter, speed_note, stage_progress
from tests.artifacts import every_artifact

NOTE = "2,560 tokens/s, 80 % of the time in the model"
SPEED = Speed(tiles=20, model_s=1.6, wall_s=2.0)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Prefect's artifacts were told; one is due whenever something is heard."""
    calls: list[dict[str, Any]] = []

    def create(**told: Any) -> str:
        calls.append(told)
        return "artifact"

    monkeypatch.setattr(progress, "create_progress_artifact", create)
    monkeypatch.setattr(progress, "update_progress_artifact", lambda **told: calls.append(told))
    return calls


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still until it is set."""
    found = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: found.now))
    return found


def test_the_speed_is_heard_by_listeners_and_written_into_the_artifact(sent, clock) -> None:
    heard: list[tuple[str, float, int, str]] = []
    with listening(lambda stage, done, total, note="": heard.append((stage, done, total, note))):
        with stage_progress("embed", 2) as stage:
            report = engine_reporter("embed", "tokens", 256)
            assert report is not None
            report("s1", 1, 4, SPEED)
            clock.now = 10.0
            report("s1", 2, 4, SPEED)
            stage.finished("s1")
        report = engine_reporter("embed", "tokens", 256)
    assert report is None, "nobody hears of a stage that is over"
    assert heard == [("embed", 0, 2, ""), ("embed", 0.25, 2, NOTE), ("embed", 0.5, 2, NOTE), ("embed", 1.0, 2, NOTE)]
    assert [one["description"] for one in sent] == ["embed", f"embed: {NOTE}", f"embed: {NOTE}"]
    assert [one["progress"] for one in sent] == [0.0, 25.0, 50.0]


def test_the_artifact_is_not_updated_more_often_than_its_period(sent, clock) -> None:
    with stage_progress("embed", 1):
        report = engine_reporter("embed", "tokens", 1)
        assert report is not None
        for done in range(100):
            clock.now = done * progress.ARTIFACT_PERIOD_S / 10
            report("s1", done, 100, SPEED)
    assert len(sent) == 1 + 9 + 1


def test_a_stage_without_a_speed_has_no_note(sent) -> None:
    heard: list[str] = []
    with listening(lambda _stage, _done, _total, note="": heard.append(note)), stage_progress("tissue", 1) as stage:
        report = reporter("tissue", "s1")
        assert report is not None
        report(1, 2)
        stage.finished("s1")
    assert heard == ["", "", ""]
    assert {one["description"] for one in sent} == {"tissue"}


def test_sections_of_a_group_count_as_they_go_on_and_once_when_they_end(sent, clock) -> None:
    heard: list[float] = []
    with listening(lambda _stage, done, _total, note="": heard.append(done)), stage_progress("embed", 3) as stage:
        report = engine_reporter("embed", "tokens", 1)
        assert report is not None
        for section_id, done in (("s1", 2), ("s1", 4), ("s2", 1), ("s2", 4)):
            report(section_id, done, 4, SPEED)
        for section_id in ("s1", "s2", "s3"):
            stage.finished(section_id)
    assert heard == [0, 0.5, 1.0, 1.25, 2.0, 2.0, 2.0, 3.0]
    assert sent[-1]["progress"] == 100.0


def test_work_does_not_wait_for_a_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = SimpleNamespace(sleep=lambda seconds: pytest.fail(f"it waits {seconds} s"))
    monkeypatch.setattr("prefect.client.base.time", waiting)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}), pytest.raises(httpx.ConnectError):
        progress.update_progress_artifact(uuid4(), 50.0, "embed")


def test_no_time_is_no_speed() -> None:
    assert speed_note(NO_SPEED, "patches", 1) == "0 patches/s, 0 % of the time in the model"


# -- bytes -------------------------------------------------------------------------------------------------------------

GB = 1_000_000_000
SIZES = {"s1": GB, "s2": 2 * GB, "s3": GB}


@pytest.fixture
def notes() -> "Iterator[list[str]]":
    """What listeners are told beside the bar."""
    heard: list[str] = []
    with listening(lambda _stage, _done, _total, note="": heard.append(note)):
        yield heard


@pytest.mark.parametrize(
    ("done", "total", "rate", "expected"),
    [
        (0, 4e9, 0, "0.0 of 4.0 GB"),
        (1e9, 4e9, 1e8, "1.0 of 4.0 GB, 100 MB/s, 30 s left"),
        (1e9, 7e9, 1e8, "1.0 of 7.0 GB, 100 MB/s, 1 min left"),
        (0, 600e9, 1e8, "0.0 of 600.0 GB, 100 MB/s, 100 min left"),
        (0, 900e9, 1e8, "0.0 of 900.0 GB, 100 MB/s, 2.5 h left"),
        (4e9, 4e9, 1e8, "4.0 of 4.0 GB, 100 MB/s"),
        (5e5, 2e6, 1e6, "0.5 of 2.0 MB, 1 MB/s, 2 s left"),
        (1e9, 4e9, 2e4, "1.0 of 4.0 GB, 20 kB/s, 41.7 h left"),
        (3.9999e9, 4e9, 1e9, "4.0 of 4.0 GB, 1000 MB/s, less than 1 s left"),
        (2e3, 6e3, 0, "2.0 of 6.0 kB"),
    ],
)
def test_bytes_are_told_with_the_rate_and_the_time_left(done: float, total: float, rate: float, expected: str) -> None:
    assert bytes_note(done, total, rate, {}) == expected


def test_only_some_of_the_sections_under_way_are_named() -> None:
    parts = {f"s{number}": number / 10 for number in range(5)}
    assert bytes_note(0, 1e6, 0, parts) == "0.0 of 1.0 MB, s0 0 %, s1 10 %, s2 20 %"
    assert bytes_note(0, 1e6, 0, {"s1": 1.0}) == "0.0 of 1.0 MB", "one that only waits to be counted is not named"


def test_bytes_and_rate_are_those_of_the_scans(sent, clock, notes) -> None:
    with stage_progress("ingest", 3, SIZES) as stage:
        stage.part("s1", 0, 10)
        clock.now = 10.0
        stage.part("s1", 5, 10)
        stage.part("s2", 0, 77)
        clock.now = 20.0
        stage.part("s1", 10, 10)
        stage.finished("s1")
    assert notes == [
        "",
        "0.0 of 4.0 GB, s1 0 %",
        "0.5 of 4.0 GB, 50 MB/s, 1 min left, s1 50 %",
        "0.5 of 4.0 GB, 50 MB/s, 1 min left, s1 50 %, s2 0 %",
        "1.0 of 4.0 GB, 50 MB/s, 1 min left, s2 0 %",
        "1.0 of 4.0 GB, 50 MB/s, 1 min left, s2 0 %",
    ]
    assert sent[-1]["description"] == f"ingest: {notes[-1]}"
    assert sent[-1]["progress"] == pytest.approx(100 / 3), "the bar counts sections"


def test_sections_that_were_current_count_as_done_but_not_into_the_rate(sent, clock, notes) -> None:
    with stage_progress("ingest", 3, SIZES) as stage:
        stage.finished("s2")
        stage.finished("s3")
        assert notes == ["", "2.0 of 4.0 GB", "3.0 of 4.0 GB"]
        stage.part("s1", 0, 4)
        clock.now = 10.0
        stage.part("s1", 1, 4)
    assert notes[-1] == "3.2 of 4.0 GB, 25 MB/s, 30 s left, s1 25 %"


def test_what_an_earlier_run_did_of_a_section_counts_as_done_but_not_into_the_rate(sent, clock, notes) -> None:
    with stage_progress("ingest", 3, SIZES) as stage:
        stage.part("s1", 8, 10)
        assert notes == ["", "0.8 of 4.0 GB, s1 80 %"]
        clock.now = 10.0
        stage.part("s1", 9, 10)
    assert notes[-1] == "0.9 of 4.0 GB, 10 MB/s, 5 min left, s1 90 %"


def test_a_section_that_failed_half_way_is_over_and_its_rate_stays(sent, clock, notes) -> None:
    with stage_progress("ingest", 3, SIZES) as stage:
        stage.part("s2", 0, 2)
        clock.now = 10.0
        stage.part("s2", 1, 2)
        stage.finished("s2")
        for one in ("s1", "s3"):
            stage.finished(one)
    assert notes[3] == "2.0 of 4.0 GB, 100 MB/s, 20 s left"
    assert notes[-1] == "4.0 of 4.0 GB, 100 MB/s"


def test_a_scan_whose_size_is_not_known_adds_nothing(sent, clock, notes) -> None:
    with stage_progress("ingest", 2, {"s1": GB, "s2": 0}) as stage:
        clock.now = 1.0
        for one in ("s2", "unheard of"):
            stage.part(one, 0, 2)
            stage.part(one, 1, 2)
            stage.finished(one)
    assert {note.split(",")[0] for note in notes[1:]} == {"0.0 of 1.0 GB"}
    assert not any("left" in note for note in notes)


# -- a section's own artifact ------------------------------------------------------------------------------------------


def test_work_that_is_over_within_the_period_gets_no_artifact(sent, clock) -> None:
    report = reporter("ingest", "s1")
    for done in range(11):
        clock.now = done * progress.ARTIFACT_PERIOD_S / 10
        report(done, 10)
    assert sent == []


def test_longer_work_gets_one_artifact_that_is_kept_up_to_date_and_ends_at_100(sent, clock) -> None:
    report = reporter("ingest", "s1")
    for done in range(101):
        clock.now = done * progress.ARTIFACT_PERIOD_S / 10
        report(done * 5_000_000, 500_000_000)
    assert [("artifact_id" in one) for one in sent] == [False] + [True] * (len(sent) - 1)
    shares = [one["progress"] for one in sent]
    assert shares == sorted(shares)
    assert len(shares) == 9 + 1, "not more often than its period, and once at the end"
    assert shares[0] == 11.0
    assert shares[-1] == 100.0
    assert sent[-1]["description"] == "ingest s1: 100 %"


def test_work_that_is_over_long_after_its_last_word_ends_at_100_too(sent, clock) -> None:
    report = reporter("ingest", "s1")
    report(0, 4)
    clock.now = 100.0
    report(4, 4)
    assert [one["progress"] for one in sent] == [100.0]


def test_a_section_tells_its_stage_whether_or_not_it_has_an_artifact(sent, clock, notes) -> None:
    with stage_progress("ingest", 3, SIZES):
        report = reporter("ingest", "s1")
        report(1, 2)
        clock.now = 10.0
        report(2, 2)
    assert len(notes) == 3
    assert [one["description"] for one in sent if one["description"].startswith("ingest s1")] == ["ingest s1: 100 %"]


def test_a_server_that_does_not_answer_costs_a_figure_and_not_the_work(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**_: Any) -> None:
        raise httpx.ConnectError("no server")

    monkeypatch.setattr(progress, "create_progress_artifact", refused)
    report = reporter("ingest", "s1")
    for done in range(3):
        clock.now = 10.0 * done
        report(done, 2)
    monkeypatch.setattr(progress, "create_progress_artifact", lambda **_: "artifact")
    monkeypatch.setattr(progress, "update_progress_artifact", refused)
    with stage_progress("ingest", 1) as stage:
        clock.now += 10.0
        stage.part("s1", 1, 2)
        stage.finished("s1")


@pytest.mark.slow
@pytest.mark.xdist_group("more flows")
def test_prefect_shows_the_speed_in_the_description_of_the_artifact(prefect_server: None) -> None:
    from prefect import flow

    @flow
    def embeds() -> None:
        with stage_progress("embed-with-speed", 1) as stage:
            report = engine_reporter("embed-with-speed", "tokens", 256)
            assert report is not None
            report("s1", 4, 4, SPEED)
            stage.finished("s1")

    embeds()
    shown = [one for one in every_artifact() if "embed-with-speed" in (one.description or "")]
    assert [(one.type, one.description, float(str(one.data))) for one in shown] == [
        ("progress", f"embed-with-speed: {NOTE}", 100.0)
    ]
