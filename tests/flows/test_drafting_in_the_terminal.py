"""The command that drafts a manifest: whatever the files are called, it ends with a draft or with one error."""

import os
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.console import EXIT_OK, EXIT_USAGE
from flows.terminal import run


def folder_of(path: Path, *names: bytes) -> Path:
    path.mkdir()
    for name in names:
        (path / os.fsdecode(name)).write_bytes(b"no image")
    return path


def test_files_that_cannot_be_drafted_are_told_beside_the_draft(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = folder_of(tmp_path / "scans", b"a_01.tif", b"Gr\xf6sse_02.tif", b"[b]::03.tif", b"._a_01.tif")
    labels = folder_of(tmp_path / "labels", b"a_01-v2.png", b"other.png")
    assert run(["manifest", str(scans), "--labels-folder", str(labels), "--brain", "B1"]) == EXIT_OK
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    for told in ("Gr\\xf6sse_02.tif", "[b]::03.tif", "other.png", "a_01.tif"):
        assert told in shown.err
    assert "._a_01" not in shown.err
    assert "--scans-path" not in shown.out  # it lies above scans and labels, which its paths begin with
    (row,) = (tmp_path / "manifest.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert row.startswith("B1,a_01,?1,scans/a_01.tif,")
    assert "?labels/a_01-v2.png" in row


def test_the_draft_lies_above_scans_and_labels_also_for_who_stands_among_the_scans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scans, labels = folder_of(tmp_path / "scans", b"a_01.tif"), folder_of(tmp_path / "labels", b"a_01.png")
    monkeypatch.chdir(scans)
    assert run(["manifest", ".", "--labels-folder", "../labels"]) == EXIT_OK
    assert "--scans-path" not in capsys.readouterr().out
    assert sorted(one.name for one in tmp_path.iterdir()) == ["labels", "manifest.csv", "scans"]
    assert [[one.name for one in folder.iterdir()] for folder in (scans, labels)] == [["a_01.tif"], ["a_01.png"]]


def test_the_command_to_go_on_with_is_one_that_a_shell_understands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "Dr. Ähre's $HOME; 50 % & more"
    home.mkdir()
    scans = folder_of(home / "scans 2026", b"a_01.tif")
    assert run(["manifest", str(scans)]) == EXIT_OK
    (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("then")]
    command = shlex.split(line.removeprefix("then"))
    assert command[3:] == ["map-brain", "--manifest-path", str(scans / "manifest.csv")]
    elsewhere = home / "my manifest.csv"
    assert run(["manifest", str(scans), "--output", str(elsewhere)]) == EXIT_OK
    (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("then")]
    command = shlex.split(line.removeprefix("then"))
    assert command[3:] == ["map-brain", "--manifest-path", str(elsewhere), "--scans-path", str(scans)]


def test_labels_are_drafted_beside_the_manifest_and_a_table_that_is_there_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans, labels = tmp_path / "scans", tmp_path / "labels"
    for folder in (scans, labels):
        folder.mkdir()
        Image.fromarray(np.array([[0, 7], [3, 3]], dtype=np.uint8)).save(folder / "a_01.png")
    command = ["manifest", str(scans), "--labels-folder", str(labels)]
    assert run(command) == EXIT_OK
    assert "2 labels; name them" in capsys.readouterr().out
    table = tmp_path / "labels.csv"
    assert [line.split(",")[0] for line in table.read_text().splitlines()] == ["id", "3", "7"]
    table.write_text("id,name\n3,V1\n7,V2\n")
    assert run([*command, "--output", str(tmp_path / "again.csv")]) == EXIT_OK
    assert "name them" not in capsys.readouterr().out
    assert "V1" in table.read_text()


def test_a_folder_whose_name_is_no_text_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scans = folder_of(tmp_path / os.fsdecode(b"Gr\xf6sse"), b"a_01.tif")
    assert run(["manifest", str(scans)]) == EXIT_USAGE
    error = capsys.readouterr().err
    assert "no UTF-8 text" in error
    assert "Traceback" not in error
