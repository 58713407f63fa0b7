import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytoarch.digests import hash_file
from cytoarch.errors import StoreError
from cytoarch.store.disk import write_atomically
from cytoarch.store.records import Record, read_record
from cytoarch.store.staging import Staging

CONTENT = {"a.bin": b"alpha", "deep/b.bin": b"beta", "deep/er/empty": b""}


def record(**changes: Any) -> Record:
    facts = {"step": "tissue", "name": "slide", "section": "s1", "fingerprint": "f", "inputs": {}, "settings": {}}
    return Record(**{**facts, "files": {}, **changes})


def fill(staging: Staging, content: Mapping[str, bytes] = CONTENT) -> Staging:
    for key, data in content.items():
        staging.write(key, data)
    return staging


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def crash(staging: Staging) -> Staging:
    """What the next process sees of a staging folder whose writer died."""
    return Staging(staging.path.parent)


# -- writing atomically ------------------------------------------------------------------------------------------------


def test_a_file_written_atomically_leaves_nothing_else_behind(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        write_atomically(tmp_path / "deep" / "file", content)
        assert tree(tmp_path) == {"deep/file": content}


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match=r"disk is full \(.* GB free\); make room"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# -- journal and adoption ----------------------------------------------------------------------------------------------


def test_files_entered_in_the_journal_are_adopted_after_a_crash(staging: Staging) -> None:
    fill(staging)
    again = crash(staging).open()
    assert all(again.has(key) for key in CONTENT)
    assert tree(again.path) == CONTENT


def test_a_file_that_was_never_entered_is_removed(staging: Staging) -> None:
    fill(staging)
    (staging.path / "deep" / "half.bin").write_bytes(b"hal")
    (staging.path / ".a.bin.123.draft").write_bytes(b"al")
    again = crash(staging).open()
    assert tree(again.path) == CONTENT
    assert not again.has("deep/half.bin")


@pytest.mark.parametrize("damage", [b"alphA", b"alph", b"alpha ", b""])
def test_an_entered_file_that_changed_is_not_adopted(staging: Staging, damage: bytes) -> None:
    fill(staging)
    (staging.path / "a.bin").write_bytes(damage)
    again = crash(staging).open()
    assert not again.has("a.bin")
    assert not (again.path / "a.bin").exists()
    assert again.has("deep/b.bin")


def test_an_entered_file_that_vanished_is_not_adopted(staging: Staging) -> None:
    fill(staging)
    (staging.path / "a.bin").unlink()
    assert not crash(staging).open().has("a.bin")


def test_a_journal_torn_at_any_byte_loses_at_most_the_line_it_is_torn_in(staging: Staging, tmp_path: Path) -> None:
    fill(staging)
    journal = (staging.path.parent / "journal.jsonl").read_bytes()
    whole = [json.loads(line)["key"] for line in journal.splitlines()]
    for cut in range(len(journal) + 1):
        folder = tmp_path / "torn"
        shutil.copytree(staging.path.parent, folder)
        (folder / "journal.jsonl").write_bytes(journal[:cut])
        again = Staging(folder).open()
        complete = journal[:cut].count(b"\n")
        assert [again.has(key) for key in whole[:complete]] == [True] * complete
        assert set(tree(again.path)) == {key for key in whole if again.has(key)}
        again.write("later.bin", b"later")
        assert crash(again).open().has("later.bin")
        shutil.rmtree(folder)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    line=st.text(max_size=40) | st.sampled_from(["null", "[]", '{"key": 1}', '{"key":"a","sha256":1,"size_bytes":"x"}'])
)
def test_a_journal_line_that_says_nothing_is_passed_over(tmp_path_factory: pytest.TempPathFactory, line: str) -> None:
    staging = Staging(tmp_path_factory.mktemp("staging")).open()
    staging.write("a.bin", b"alpha")
    with (staging.path.parent / "journal.jsonl").open("ab") as journal:
        journal.write(line.encode("utf-8", errors="replace") + b"\xff\n")
    again = crash(staging).open()
    assert again.has("a.bin")
    assert set(tree(again.path)) == {"a.bin"}


def test_sealing_a_file_again_keeps_its_last_content(staging: Staging) -> None:
    staging.write("a.bin", b"first")
    staging.write("a.bin", b"second")
    again = crash(staging).open()
    assert again.finish(record(), "p").files["p/a.bin"] == hash_file(staging.path / "a.bin")


# -- sealing and publishing --------------------------------------------------------------------------------------------


def test_the_record_names_every_file_by_its_key_with_size_and_checksum(staging: Staging) -> None:
    sealed = fill(staging).finish(record(), "derived/tissue")
    assert sealed.files == {f"derived/tissue/{key}": hash_file(staging.path / key) for key in CONTENT}
    assert staging.sealed_record == sealed


def test_files_that_were_written_but_not_entered_are_sealed_at_the_end(staging: Staging) -> None:
    (staging.path / "late.bin").write_bytes(b"late")
    assert set(staging.finish(record(), "p").files) == {"p/late.bin"}


@pytest.mark.parametrize("damage", [b"alphA", b"", b"alpha!"])
def test_a_file_that_does_not_read_back_as_written_is_not_committed(staging: Staging, damage: bytes) -> None:
    fill(staging)
    (staging.path / "a.bin").write_bytes(damage)
    with pytest.raises(StoreError, match=r"a\.bin does not read back"):
        staging.finish(record(), "p")
    assert staging.sealed_record is None
    again = crash(staging).open()
    again.write("a.bin", b"alpha")
    assert again.finish(record(), "p").files["p/a.bin"].size_bytes == 5


def test_a_file_that_vanished_before_sealing_is_a_store_error(staging: Staging) -> None:
    fill(staging)
    (staging.path / "a.bin").unlink()
    with pytest.raises(StoreError, match=r"a\.bin"):
        staging.finish(record(), "p")


def test_publishing_moves_content_and_record_into_place_and_leaves_no_staging(staging: Staging, tmp_path: Path) -> None:
    sealed = fill(staging).finish(record(), "p")
    staging.publish(tmp_path / "home" / "p", tmp_path / "records" / "s1.json")
    assert tree(tmp_path / "home" / "p") == CONTENT
    assert read_record(tmp_path / "records" / "s1.json") == sealed
    assert not staging.path.parent.exists()


def test_publishing_replaces_what_was_there_before_as_a_whole(staging: Staging, tmp_path: Path) -> None:
    target = tmp_path / "home" / "p"
    target.mkdir(parents=True)
    (target / "of-the-last-run").write_bytes(b"old")
    fill(staging).finish(record(), "p")
    staging.publish(target, tmp_path / "records" / "s1.json")
    assert tree(target) == CONTENT


@pytest.mark.parametrize("steps_done", range(4))
@pytest.mark.parametrize("earlier", [False, True])
def test_publishing_can_be_repeated_after_a_crash_between_any_two_of_its_renames(
    staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps_done: int, earlier: bool
) -> None:
    target, record_path = tmp_path / "home" / "p", tmp_path / "records" / "s1.json"
    if earlier:
        target.mkdir(parents=True)
        (target / "old").write_bytes(b"old")
    sealed = fill(staging).finish(record(), "p")
    left = steps_done

    def dying(real: Any) -> Any:
        def step(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return real(*arguments, **named)

        return step

    with monkeypatch.context() as patch:
        for name in ("rename", "replace"):
            patch.setattr(Path, name, dying(getattr(Path, name)))
        patch.setattr("cytoarch.store.staging.shutil.rmtree", dying(shutil.rmtree))
        try:
            staging.publish(target, record_path)
        except KeyboardInterrupt:
            again = crash(staging)
    if staging.path.parent.exists() and crash(staging).sealed_record is not None:
        again = crash(staging)
        assert again.sealed_record == sealed
        again.publish(target, record_path)
    assert tree(target) == CONTENT
    assert read_record(record_path) == sealed


@settings(max_examples=50, deadline=None, derandomize=True)
@given(content=st.dictionaries(st.from_regex(r"[a-z]{1,3}(/[a-z]{1,3})?\.bin", fullmatch=True), st.binary(max_size=64)))
def test_what_is_sealed_is_what_is_adopted(tmp_path_factory: pytest.TempPathFactory, content: dict[str, bytes]) -> None:
    staging = fill(Staging(tmp_path_factory.mktemp("staging")).open(), content)
    again = crash(staging).open()
    assert tree(again.path) == content
    assert again.finish(record(), "p").digest == staging.finish(record(), "p").digest
