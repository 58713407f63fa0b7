"""The first look whether a brain is free says so before anything is imported, and is never wrong about a free one."""

import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cytoarch.brains import Brain, Section
from cytoarch.store.brain_store import BrainStore
from flows import waiting
from flows.waiting import absent, busy, misstated

WRITERS = [
    "map-brain", "ingest-brain", "embed-brain", "embed-points", "parcellate-brain", "cluster-brain", "verify-brain",
    "train-classifier", "train-decoder",
]  # fmt: skip
HEADER = "brain_id,section_id,section_number,path\n"


@pytest.fixture
def store(tmp_path: Path) -> BrainStore:
    return BrainStore(tmp_path / "store")


@pytest.fixture
def held(store: BrainStore) -> Iterator[int]:
    """The lock of brain B1, held through a file of its own as another process would; the id that stands in it."""
    path = store.brain_path("B1") / "lock"
    path.parent.mkdir(parents=True)
    path.write_text("4711")
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield 4711


def manifest(folder: Path, *brains: str, header: str = HEADER) -> Path:
    path = folder / "manifest.csv"
    path.write_text(header + "".join(f"{brain},s{number},{number},a.tif\n" for number, brain in enumerate(brains)))
    return path


def told(store: BrainStore, *arguments: str) -> str | None:
    return busy([*arguments, "--store-path", str(store.root)])


@pytest.mark.parametrize("command", WRITERS)
def test_a_command_that_writes_is_told_who_has_the_brain(store: BrainStore, held: int, command: str) -> None:
    text = told(store, command, "--brain-id", "B1")
    assert text is not None
    assert "B1" in text
    assert str(held) in text


@pytest.mark.parametrize(
    "command", ["manifest", "phantom", "validate", "convert-weights", "watch-inbox", "--help", "-h", "--version", ""]
)
def test_other_commands_wait_for_nothing(store: BrainStore, held: int, command: str) -> None:
    assert told(store, command, "--brain-id", "B1") is None
    assert told(store, command) is None


def test_no_command_at_all_waits_for_nothing() -> None:
    assert busy([]) is None


def test_a_brain_that_is_free_or_not_there_or_another_is_not_busy(store: BrainStore, held: int) -> None:
    assert told(store, "map-brain", "--brain-id", "B2") is None
    with store.lock("B3"):
        pass
    assert told(store, "map-brain", "--brain-id", "B3") is None
    assert busy(["map-brain", "--brain-id", "B1", "--store-path", str(store.root / "elsewhere")]) is None


def test_a_lock_is_only_busy_while_it_is_held(store: BrainStore) -> None:
    path = store.brain_path("B1") / "lock"
    path.parent.mkdir(parents=True)
    path.write_text("4711")
    assert told(store, "map-brain", "--brain-id", "B1") is None
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert told(store, "map-brain", "--brain-id", "B1") is not None
        fcntl.flock(file, fcntl.LOCK_UN)
        assert told(store, "map-brain", "--brain-id", "B1") is None
        assert told(store, "map-brain", "--brain-id", "B1") is None, "asking holds nothing"
    with store.lock("B1"):
        assert told(store, "map-brain", "--brain-id", "B1") is None, "a run does not wait for itself"


@pytest.mark.parametrize("first", ["brain", "store"])
@pytest.mark.parametrize("form", ["space", "="])
def test_flags_are_read_in_both_forms_and_any_order(store: BrainStore, held: int, form: str, first: str) -> None:
    values = {"--brain-id": "B1", "--store-path": str(store.root)}
    names = sorted(values, reverse=first == "store")
    flags = [
        part for name in names for part in ([name, values[name]] if form == "space" else [f"{name}={values[name]}"])
    ]
    assert busy(["ingest-brain", *flags]) is not None
    assert busy(["ingest-brain", "--run.workers", "2", *flags, "--ingest.rehash"]) is not None
    assert busy(["ingest-brain", *[flag.replace("B1", "B2") for flag in flags]]) is None


def test_a_flag_without_a_value_is_left_to_the_command(store: BrainStore, held: int) -> None:
    assert busy(["map-brain", f"--store-path={store.root}", "--brain-id"]) is None


def test_a_flag_whose_name_begins_alike_is_another(store: BrainStore, held: int) -> None:
    assert busy(["map-brain", f"--store-path={store.root}", "--brain-id-of", "B1", "--manifest-path", "none"]) is None


@pytest.mark.parametrize("bad", ["..", "../B1", "a/b", "", "B 1"])
def test_what_can_be_no_brain_is_left_to_the_command(store: BrainStore, held: int, bad: str) -> None:
    assert told(store, "map-brain", f"--brain-id={bad}", "--manifest-path=none") is None


# -- the manifest ------------------------------------------------------------------------------------------------------


def test_a_flag_that_only_begins_alike_is_another(store: BrainStore, held: int) -> None:
    assert told(store, "map-brain", "--brain-id-before=B2", "--brain-id", "B1") is not None
    assert told(store, "map-brain", "--brain-id-before", "B1") is None


def test_the_one_brain_of_a_manifest_is_asked_for(store: BrainStore, held: int, tmp_path: Path) -> None:
    assert told(store, "map-brain", "--manifest-path", str(manifest(tmp_path, "B1", "B1"))) is not None
    assert told(store, "map-brain", f"--manifest-path={manifest(tmp_path, 'B1')}") is not None
    assert told(store, "map-brain", "--manifest-path", str(manifest(tmp_path, "B2"))) is None
    path = manifest(tmp_path, "B1")
    path.write_text("\ufeff" + path.read_text(), encoding="utf-8")  # as Excel writes it
    assert told(store, "map-brain", "--manifest-path", str(path)) is not None


def test_the_brain_that_is_named_goes_before_the_manifest(store: BrainStore, held: int, tmp_path: Path) -> None:
    path = str(manifest(tmp_path, "B1", "B2"))
    assert told(store, "map-brain", "--manifest-path", path) is None, "several brains: each is looked at in its turn"
    assert told(store, "map-brain", "--manifest-path", path, "--brain-id", "B1") is not None
    assert told(store, "map-brain", "--manifest-path", path, "--brain-id", "B2") is None


def test_without_flags_the_manifest_and_store_are_those_a_flow_takes(
    held: int, store: BrainStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(waiting, "DEFAULT_STORE", Path("store"))
    assert busy(["map-brain"]) is None
    manifest(tmp_path, "B1")
    assert busy(["map-brain"]) is not None


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(HEADER.encode(), id="header only"),
        pytest.param(b"a,b\n1,2\n", id="another table"),
        pytest.param(b"\xff\xfe\x00B\x001", id="not UTF-8"),
        pytest.param(b"brain_id\n\0\n", id="a NUL"),
        pytest.param(b'brain_id\n"B1\n', id="an open quote"),
        pytest.param(b"brain_id\n" + b"B" * 200_000 + b"\n", id="a field too long"),
        pytest.param(b"section_id,brain_id\ns1\n", id="a row too short"),
        pytest.param(b"brain_id\n..\n", id="no name"),
    ],
)
def test_a_manifest_at_fault_is_left_to_the_command(
    store: BrainStore, held: int, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    assert told(store, "map-brain", "--manifest-path", str(path)) is None


def test_a_manifest_that_is_missing_or_a_folder_is_left_to_the_command(
    store: BrainStore, held: int, tmp_path: Path
) -> None:
    for path in (tmp_path / "none.csv", tmp_path, tmp_path / "a" / "\0"):
        assert told(store, "map-brain", "--manifest-path", str(path)) is None


@pytest.mark.parametrize("arguments", [["verify-brain", "B2"], ["cluster-brain", "B2"], ["map-brain", "other.csv"]])
def test_what_is_named_without_a_flag_is_not_refused_for_the_brain_of_a_manifest_beside(
    held: int, store: BrainStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    manifest(tmp_path, "B2").rename(tmp_path / "other.csv")
    manifest(tmp_path, "B1")
    assert told(store, *arguments) is None


# -- asking changes nothing --------------------------------------------------------------------------------------------


def test_asking_makes_no_folder_and_no_lock(store: BrainStore, tmp_path: Path) -> None:
    for brain_id in ("B1", "B2"):
        assert told(store, "map-brain", "--brain-id", brain_id) is None
    assert list(tmp_path.iterdir()) == []
    store.brain_path("B1").mkdir(parents=True)
    assert told(store, "map-brain", "--brain-id", "B1") is None
    assert list(store.brain_path("B1").iterdir()) == []


def test_asking_changes_nothing_of_a_lock_that_is_held(store: BrainStore, held: int) -> None:
    path = store.brain_path("B1") / "lock"
    before = path.stat().st_mtime_ns
    told(store, "map-brain", "--brain-id", "B1")
    assert (path.read_text(), path.stat().st_mtime_ns) == ("4711", before)


def test_a_lock_that_may_not_be_read_is_left_to_the_command(
    store: BrainStore, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        assert told(store, "map-brain", "--brain-id", "B1") is None


# -- manifests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["map-brain", "ingest-brain"])
def test_every_fault_of_a_manifest_is_told_at_the_first_look(tmp_path: Path, command: str) -> None:
    path = manifest(tmp_path, "B1", "", "B2")
    path.write_text(path.read_text().replace(",2,a.tif", ",?2,a.tif"))
    text = misstated([command, "--manifest-path", str(path)])
    assert text is not None
    assert "row 3: brain_id is blank" in text
    assert "remove the '?'" in text
    none = misstated([command, f"--manifest-path={path}", "--scans-path", str(tmp_path / "none")])
    assert none is not None
    assert "does not exist" in none


def test_label_tables_and_names_of_brains_are_looked_at_too(tmp_path: Path) -> None:
    path = manifest(tmp_path, "B1")
    assert misstated(["map-brain", "--manifest-path", str(path)]) is None
    text = misstated(["map-brain", "--manifest-path", str(path), "--brain-id", "B9"])
    assert text is not None
    assert "it names B1" in text
    (tmp_path / "labels.csv").write_text("value,name\n1,V1\n")
    text = misstated(["map-brain", "--manifest-path", str(path)])
    assert text is not None
    assert "column id is missing" in text


@pytest.mark.parametrize("arguments", [[], ["map-brain"], ["manifest", "--manifest-path", "none.csv"], ["study"]])
def test_commands_that_read_no_manifest_are_left_alone(arguments: list[str]) -> None:
    assert misstated(arguments) is None


def test_a_manifest_at_fault_ends_the_command_before_prefect_is_imported(tmp_path: Path) -> None:
    path = manifest(tmp_path, "")
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "flows", "map-brain", "--manifest-path", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 2
    assert "brain_id is blank" in told.stderr
    assert not re.search(r"\| +(prefect|torch|mlflow)$", told.stderr, re.MULTILINE)


# -- brains that are not there -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["embed-brain", "score-brain", "trace-cortex", "train-classifier", "embed-points"])
def test_a_brain_that_is_not_there_is_told_with_those_that_are(store: BrainStore, command: str) -> None:
    row = Section(brain_id="B1", section_id="s1", section_number=1, path="x")
    store.write_brain(Brain(brain_id="B1", sections=(row,)))
    where = ["--store-path", str(store.root)]
    text = absent([command, "--brain-id", "B2", *where])
    assert text is not None
    assert "no brain 'B2' (brains there: B1)" in text
    assert absent([command, "--brain-id", "B1", *where]) is None
    assert absent([command, *where]) is None


def test_brains_that_are_named_by_place_are_looked_for_too(store: BrainStore) -> None:
    where = ["--store-path", str(store.root)]
    for command in ("export", "view", "draw", "verify", "status"):
        assert "brains there: none" in str(absent([command, "B2", *where]))
        assert absent([command, *where]) is None


@pytest.mark.parametrize("command", ["map-brain", "ingest-brain", "manifest", "phantom", "study", ""])
def test_commands_that_bring_a_brain_need_none(store: BrainStore, command: str) -> None:
    assert absent([command, "--brain-id", "B2", "--store-path", str(store.root)]) is None


def test_help_is_shown_whatever_else_is_on_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The early looks at manifest and brain are for those who want something done."""
    from flows import __main__ as door

    asked: list[list[str]] = []
    monkeypatch.setitem(sys.modules, "flows.terminal", SimpleNamespace(run=asked.append))
    monkeypatch.setattr(door, "running_servers", dict)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    line = ["map-brain", "--manifest-path", "missing.csv"]
    for words in ([*line, "--help"], [*line, "-h"], line):
        monkeypatch.setattr(sys, "argv", ["flows", *words])
        with pytest.raises(SystemExit) as left:
            door.main()
    assert asked == [[*line, "--help"], [*line, "-h"]]
    assert left.value.code == 2
