"""A new product is one class: currency, resuming, verification, healing, listing and digest follow from it."""

import dataclasses
import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from cytoarch.brains import Brain, Section
from cytoarch.steps.opened import open_brain
from cytoarch.steps.running import Outcome, due, make_sections
from cytoarch.steps.sources import Row
from cytoarch.steps.step import Facts, Inputs, Step
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.staging import Staging
from cytoarch.store.verification import verify_brain
from tests.products import state


# the 25 lines
@dataclass(frozen=True)
class ThicknessStep(Step[float]):
    """The thickness of a section in mm, times a factor."""

    step: ClassVar[str] = "thickness"
    verb: ClassVar[str] = "measure"
    factor: float = 1.0
    stated: Row = Row(("thickness_um",))

    @property
    def name(self) -> str:
        return "stated"

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        value = self.factor * inputs[self.stated]["thickness_um"] / 1000
        for key in ("a.txt", "b.txt"):
            if not staging.has(key):
                staging.write(key, f"{value}".encode())
        return {"thickness_mm": value}

    @classmethod
    def opened(cls, folder: Path) -> float:
        return float((folder / "a.txt").read_text())


def brain(**changes: float) -> Brain:
    rows = [
        Section(brain_id="B1", section_id=f"s{one}", section_number=one, path=f"{one}.tif", thickness_um=20.0 + one)
        for one in range(3)
    ]
    rows[1] = rows[1].model_copy(update=changes)
    return Brain(brain_id="B1", sections=tuple(rows))


def statuses(outcomes: list[Outcome]) -> list[str]:
    return [one.status for one in outcomes]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    with open_brain(tmp_path / "store", brain()) as opened:
        assert statuses(make_sections([ThicknessStep()], opened)) == ["made"] * 3
    return tmp_path / "store"


def test_it_is_made_once(made: Path) -> None:
    def files() -> dict[str, tuple[int, int, int]]:
        return {key: value for key, value in state(made).items() if "lock" not in key}

    before = files()
    with open_brain(made, brain()) as opened:
        assert due([ThicknessStep()], opened, opened.sections) == []
        assert statuses(make_sections([ThicknessStep()], opened)) == ["current"] * 3
    assert files() == before


@pytest.mark.parametrize(
    ("step", "stated", "wanted"),
    [
        (ThicknessStep(factor=2.0), {}, ["s0", "s1", "s2"]),
        (ThicknessStep(stated=Row(("thickness_um", "stain"))), {}, ["s0", "s1", "s2"]),
        (ThicknessStep(), {"thickness_um": 50.0}, ["s1"]),
        (ThicknessStep(), {"position_um": 7.0}, []),
    ],
    ids=["setting", "input", "row", "undeclared"],
)
def test_whatever_it_declares_makes_it_again(
    made: Path, step: ThicknessStep, stated: dict[str, float], wanted: list[str]
) -> None:
    with open_brain(made, brain(**stated)) as opened:
        assert [one.section_id for one in due([step], opened, opened.sections)] == wanted
        make_sections([step], opened)
        thickness = stated.get("thickness_um", 21.0) * step.factor / 1000
        assert ThicknessStep.opened(opened.catalogue.path(step.product("s1"))) == pytest.approx(thickness)


def test_another_version_makes_it_again(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThicknessStep, "version", 2)
    with open_brain(made, brain()) as opened:
        assert len(due([ThicknessStep()], opened, opened.sections)) == 3


def dies_after_one_file(root: Path) -> None:
    write = Staging.write

    def once(self: Staging, key: str, parts: bytes) -> None:
        if key == "b.txt":
            import os

            os._exit(9)
        write(self, key, parts)

    Staging.write = once  # type: ignore[method-assign]
    with open_brain(root, brain()) as opened:
        make_sections([ThicknessStep()], opened)


def test_a_run_that_was_killed_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = multiprocessing.get_context("spawn").Process(target=dies_after_one_file, args=(tmp_path,))
    child.start()
    child.join()
    assert child.exitcode == 9
    written: list[str] = []
    write = Staging.write
    monkeypatch.setattr(
        Staging,
        "write",
        lambda self, key, parts: (written.append(f"{self.folder.name}/{key}"), write(self, key, parts)),
    )
    with open_brain(tmp_path, brain()) as opened:
        make_sections([ThicknessStep()], opened)
    first = [key.split("/")[-1] for key in written if "s0" in key]
    assert first == ["b.txt"], "the first file of the first section was done"


def test_verify_finds_a_changed_file_and_the_next_run_heals_it(made: Path) -> None:
    store = BrainStore(made)
    digest = store.catalogue("B1").content_digest()
    damaged = store.catalogue("B1").path(ThicknessStep().product("s2")) / "b.txt"
    damaged.write_text("0.999")
    with store.lock("B1"):
        faults = [one.key for one in verify_brain(store, "B1").faults if "thickness" in one.key]
    assert faults == ["derived/thickness/stated/s2/b.txt"]
    with open_brain(made, brain()) as opened:
        assert statuses(make_sections([ThicknessStep()], opened)) == ["current", "current", "made"]
    assert store.catalogue("B1").content_digest() == digest


def test_it_is_listed_and_part_of_the_digest(made: Path) -> None:
    catalogue = BrainStore(made).catalogue("B1")
    assert catalogue.names("thickness") == ["stated"]
    assert catalogue.section_ids("thickness", "stated") == ["s0", "s1", "s2"]
    digest = catalogue.content_digest()
    with open_brain(made, brain()) as opened:
        make_sections([ThicknessStep(factor=3.0)], opened)
    assert BrainStore(made).catalogue("B1").content_digest() != digest


def test_what_it_did_not_declare_it_cannot_read(tmp_path: Path) -> None:
    class Curious(ThicknessStep):
        def write(self, inputs: Inputs, staging: Staging) -> Facts:
            return {"stain": inputs[Row(("stain",))]}

    with open_brain(tmp_path, brain()) as opened, pytest.raises(LookupError, match="is no input of this step"):
        make_sections([Curious()], opened)


def test_a_section_that_fails_costs_itself_and_is_left_out_after(tmp_path: Path) -> None:
    from cytoarch.errors import SectionError

    class Picky(ThicknessStep):
        def write(self, inputs: Inputs, staging: Staging) -> Facts:
            if inputs.name == "s1":
                raise SectionError("torn")
            return super().write(inputs, staging)

    with open_brain(tmp_path, brain()) as opened:
        assert statuses(make_sections([Picky()], opened)) == ["made", "failed", "made"]
        assert opened.failed == {"s1": "torn"}
        assert [one.section_id for one in opened.sections] == ["s0", "s2"]


def test_no_two_steps_share_an_address() -> None:
    import importlib
    import pkgutil

    import cytoarch.steps

    for module in pkgutil.iter_modules(cytoarch.steps.__path__):
        importlib.import_module(f"cytoarch.steps.{module.name}")

    def leaves(cls: type) -> list[type]:
        return [one for sub in cls.__subclasses__() for one in (leaves(sub) or [sub])]

    ours = [one for one in leaves(Step) if one.__module__.startswith("cytoarch.")]
    assert len(ours) >= 15
    names = {(one.step, one.scope) for one in ours}
    assert len(names) == len(ours), "no two products share an address"
    for one in ours:
        assert dataclasses.is_dataclass(one)
        assert isinstance(one.step, str)
        assert isinstance(one.version, int)
