"""What is heard of a stage as it goes on: by listeners in this process, and in Prefect's artifact."""

from types import SimpleNamespace
from typing import Any

import pytest

from cytoarch.embeddings.engine import NO_SPEED, Speed
from tasks import progress
from tasks.progress import engine_reporter, listening, reporter, speed_note, stage_progress

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
    assert heard == [("embed", 0.25, 2, NOTE), ("embed", 0.5, 2, NOTE), ("embed", 1.0, 2, NOTE)]
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
    assert heard == ["", ""]
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
    assert heard == [0.5, 1.0, 1.25, 2.0, 2.0, 2.0, 3.0]
    assert sent[-1]["progress"] == 100.0


def test_no_time_is_no_speed() -> None:
    assert speed_note(NO_SPEED, "patches", 1) == "0 patches/s, 0 % of the time in the model"


@pytest.mark.slow
@pytest.mark.xdist_group("more flows")
def test_prefect_shows_the_speed_in_the_description_of_the_artifact(prefect_server: None) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client

    @flow
    def embeds() -> None:
        with stage_progress("embed-with-speed", 1) as stage:
            report = engine_reporter("embed-with-speed", "tokens", 256)
            assert report is not None
            report("s1", 4, 4, SPEED)
            stage.finished("s1")

    embeds()
    with get_client(sync_client=True) as prefect:
        shown = [one for one in prefect.read_artifacts() if "embed-with-speed" in (one.description or "")]
    assert [(one.type, one.description, float(str(one.data))) for one in shown] == [
        ("progress", f"embed-with-speed: {NOTE}", 100.0)
    ]
