"""How a bad section is told from a broken run."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from prefect.states import State, exception_to_failed_state

from cytoarch.brains import Brain, Section
from cytoarch.errors import CytoarchError, ScanError, StoreError
from cytoarch.steps.opened import OpenBrain, open_brain
from cytoarch.steps.running import Outcome
from cytoarch.steps.step import Facts, Inputs, Step
from cytoarch.store.staging import Staging
from tasks.progress import reporter
from tasks.steps import Home, Ran, is_transient, run_brain, run_sections
from tasks.summaries import artifact_key

IDS = ("s0", "s1", "s2")


@dataclass(frozen=True)
class Noting(Step[bytes]):
    """A note on every section, but for those it raises at."""

    step: ClassVar[str] = "notes"
    verb: ClassVar[str] = "note"
    bad: tuple[str, ...] = ()
    error: str = "ScanError"

    @property
    def name(self) -> str:
        return "all"

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        if inputs.name in self.bad:
            raise {"ScanError": ScanError, "StoreError": StoreError, "OSError": OSError}[self.error]("no such file")
        staging.write("note", inputs.name.encode())
        return {}

    @classmethod
    def opened(cls, folder: Path) -> bytes:
        return (folder / "note").read_bytes()


class NotingAll(Noting):
    """One note for the whole brain."""

    scope: ClassVar = "brain"


@pytest.fixture
def brain(tmp_path: Path) -> Iterator[OpenBrain]:
    rows = (Section(brain_id="B1", section_id=one, section_number=at, path="none") for at, one in enumerate(IDS))
    with open_brain(tmp_path / "store", Brain(brain_id="B1", sections=tuple(rows))) as opened:
        yield opened


def home(brain: OpenBrain) -> Home:
    return Home(brain.store.root, brain.brain_id, brain.ticket)


def ran(brain: OpenBrain, *steps: Step[bytes]) -> "State[Ran]":
    return run_sections.fn(home(brain), "note", steps, IDS, 1)


def test_a_section_error_costs_its_section_and_is_told_with_its_reason(brain: OpenBrain) -> None:
    state = ran(brain, Noting(bad=("s1",)))
    assert state.is_completed()
    assert (state.name, state.message) == ("1 of 3 failed", "s1: no such file")
    assert state.data.outcomes == (
        Outcome("s0", "made"),
        Outcome("s1", "failed", "no such file"),
        Outcome("s2", "made"),
    )
    assert brain.failed == {"s1": "no such file"}
    assert [one.section_id for one in brain.sections] == ["s0", "s2"], "it is left out of what comes after"


@pytest.mark.parametrize("error", ["StoreError", "OSError"])
def test_any_other_error_ends_the_run(brain: OpenBrain, error: str) -> None:
    with pytest.raises((StoreError, OSError), match="no such file"):
        ran(brain, Noting(bad=("s1",), error=error))


def test_a_step_after_one_that_failed_is_not_tried(brain: OpenBrain) -> None:
    @dataclass(frozen=True)
    class After(Noting):
        step: ClassVar[str] = "more-notes"

    assert [one.status for one in ran(brain, Noting(bad=("s1",)), After()).data.outcomes] == ["made", "failed", "made"]
    assert brain.catalogue.section_ids("more-notes", "all") == ["s0", "s2"]


def test_a_state_says_whether_anything_was_made(brain: OpenBrain) -> None:
    states = [ran(brain, Noting()) for _ in range(2)]
    assert [state.name for state in states] == ["Made", "Current"]
    assert [{one.status for one in state.data.outcomes} for state in states] == [{"made"}, {"current"}]
    assert [run_brain.fn(home(brain), "note", NotingAll()) for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError(5, "Input/output error"), True),
        (OSError(28, "No space left on device"), False),
        (OSError(30, "Read-only file system"), False),
        (StoreError("damaged"), False),
        (CytoarchError("wrong"), False),
        (ValueError("a mistake of ours"), False),
    ],
    ids=repr,
)
def test_only_what_may_pass_by_itself_is_tried_again(error: Exception, again: bool) -> None:
    async def asked() -> bool:
        return await is_transient(None, None, await exception_to_failed_state(error))  # type: ignore[arg-type]

    assert asyncio.run(asked()) is again


def test_nobody_hears_progress_of_a_stage_that_is_not_open(tmp_path: Path) -> None:
    reporter(str(tmp_path), "s1")(1, 2)


@pytest.mark.parametrize("text", ["B_07", "B07.left", "--B07", "B 07"])
def test_artifact_keys_hold_only_what_prefect_accepts(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", artifact_key("qc", text))


def test_artifact_keys_of_brains_that_differ_in_other_characters_differ() -> None:
    names = ["B-1", "B_1", "B.1", "B 1", "B-1-"]
    assert len({artifact_key("qc", name) for name in names}) == len(names)
    assert artifact_key("qc", "B07") == "qc-b07"
