"""What is made once a run is made once: tests that share it go to one worker."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.distribution import TogetherScheduling, group

TESTS = Path(__file__).resolve().parent.parent


def scope(nodeid: str) -> str:
    scheduling = TogetherScheduling.__new__(TogetherScheduling)
    scheduling.config = SimpleNamespace(rootpath=TESTS.parent)  # all that is asked of it here
    return scheduling._split_scope(nodeid)


def test_modules_of_a_group_are_one_scope_and_others_one_each() -> None:
    assert (
        scope("tests/flows/test_study.py::test_x[a::b@c]") == scope("tests/flows/test_map_brain.py::test_y") == "flows"
    )
    assert scope("tests/cytoarch/test_paths.py::test_x") == scope("tests/cytoarch/test_paths.py::test_y[1]")
    assert scope("src/cytoarch/paths.py::cytoarch.paths.confined") == "src/cytoarch/paths.py"


def test_a_module_that_names_two_groups_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test_two.py").write_text("".join(f"xdist_{name}\n" for name in ('group("a")', 'group("b")')))
    with pytest.raises(ValueError, match=r"test_two.py names 2 groups \(a, b\)"):
        group(tmp_path / "test_two.py")


def test_all_that_ask_for_the_mapped_phantom_are_of_one_group() -> None:
    modules = sorted(TESTS.rglob("test_*.py"))
    asked = [one for one in modules if re.search(r"\bmapped: MappedBrain\b", one.read_text(encoding="utf-8"))]
    assert len(asked) > 5
    assert {group(one) for one in asked} == {"flows"}


def test_this_run_deals_out_by_scope(request: pytest.FixtureRequest) -> None:
    """In the order of collection, so that groups go first; `load` would make every fixture twice."""
    stated = request.config.getini("addopts")
    assert "--no-loadscope-reorder" in stated
    assert stated[stated.index("--dist") + 1] == "loadscope"
