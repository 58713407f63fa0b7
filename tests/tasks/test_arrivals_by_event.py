"""An event and a look into the inbox speak of the same thing by the same ticket."""

import os
from pathlib import Path

import pytest

from flows.parameters import MapSettings, RunSettings
from tasks.inbox import arrival_of, arrivals, ticket, with_labels

SETTINGS = {"settings": MapSettings(), "run": RunSettings()}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox" / "B1"
    folder.mkdir(parents=True)
    (folder / "labels.csv").write_text("id,name\n1,V1\n")
    (folder / "manifest.csv").write_text(
        "brain_id,section_id,section_number,path,labels\nB1,s1,1,s1.tif,s1.png\nB2,s2,2,s2.tif,\n"
    )
    for name in ("s1.tif", "s2.tif", "s1.png"):
        (folder / name).write_bytes(b"x")
    for path in folder.iterdir():
        os.utime(path, (path.stat().st_mtime - 7200,) * 2)
    return folder / "manifest.csv"


def test_an_event_has_the_ticket_of_the_look(manifest: Path) -> None:
    inbox = manifest.parent.parent
    looked = arrivals(inbox, settle_s=60, missing_grace_s=60)
    told = arrival_of(manifest, inbox)
    assert [one.name for one in told] == [one.name for one in looked] == [
        "B1/manifest.csv: B1", "B1/manifest.csv: B2",
    ]  # fmt: skip
    assert [ticket(one, SETTINGS) for one in told] == [ticket(one, SETTINGS) for one in looked]
    assert [one.wait for one in told] == ["", ""]
    elsewhere = arrival_of(manifest, inbox / "elsewhere")
    assert ticket(elsewhere[0], SETTINGS) == ticket(told[0], SETTINGS), "what it is called decides nothing"


def test_labels_that_were_drawn_on_in_place_are_something_new_for_annotated_only(manifest: Path) -> None:
    inbox = manifest.parent.parent
    (first, second) = arrival_of(manifest, inbox)
    before = ticket(with_labels(first), SETTINGS)
    assert before != ticket(first, SETTINGS), "an annotated brain is another thing than one that arrived"
    (manifest.parent / "s1.png").write_bytes(b"drawn on")
    assert ticket(with_labels(arrival_of(manifest, inbox)[0]), SETTINGS) != before
    assert ticket(arrival_of(manifest, inbox)[0], SETTINGS) == ticket(first, SETTINGS)
    assert with_labels(second).brain_digest != second.brain_digest


def test_a_manifest_at_fault_is_said_with_every_fault(manifest: Path) -> None:
    manifest.write_text("brain_id,section_id,section_number,path\nB1,s1,one,s1.tif\n")
    (found,) = arrival_of(manifest, manifest.parent.parent)
    assert found.faults
    assert "section_number" in found.faults[0]
