"""How a bad section is told from a broken run."""

from pathlib import Path

import pytest
from tasks.sections import SECTION_FAILED, Outcome, section_state

from cytoarch.errors import ScanError, StoreError
from tasks.progress import reporter
from tasks.summaries import artifact_key


def test_a_section_error_is_a_named_state_with_its_reason() -> None:
    def work() -> bool:
        raise ScanError("scans/s1.tif: no such file")

    state = section_state("s1", work)
    assert state.is_failed()
    assert (state.name, state.message) == (SECTION_FAILED, "scans/s1.tif: no such file")


def test_any_other_error_ends_the_run() -> None:
    def work() -> bool:
        raise StoreError("the disk is full")

    with pytest.raises(StoreError):
        section_state("s1", work)


@pytest.mark.parametrize(("made", "status"), [(True, "made"), (False, "current")])
def test_an_outcome_says_whether_anything_was_made(made: bool, status: str) -> None:
    assert section_state("s1", lambda: made).data == Outcome("s1", status)


def test_nobody_hears_progress_of_a_stage_that_is_not_open(tmp_path: Path) -> None:
    reporter(str(tmp_path), "s1")(1, 2)


@pytest.mark.parametrize("text", ["B_07", "B07.left", "--B07", "B 07"])
def test_artifact_keys_hold_only_what_prefect_accepts(text: str) -> None:
    import re

    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", artifact_key("qc", text))
