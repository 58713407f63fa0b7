"""The inbox: each brain and content is started once; what is half copied waits; what failed may be started again."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey

from cytoarch.brains import Brain
from cytoarch.errors import StoreError
from cytoarch.parcellation.inference import ParcellateSettings
from cytoarch.store import looks
from flows.parameters import MapSettings
from flows.stages import Summary
from flows.watch_inbox import InboxSettings, watch_inbox
from tasks.inbox import arrivals, ticket

pytestmark = [pytest.mark.xdist_group("more flows")]


@pytest.fixture
def inbox(phantom: Path, tmp_path: Path) -> Path:
    """An inbox in which a phantom arrived an hour ago."""
    folder = tmp_path / "inbox"
    shutil.copytree(phantom.parent, folder / "P01")
    for path in folder.rglob("*"):
        aged(path, 3600)
    return folder


def aged(path: Path, seconds: float) -> None:
    stat = path.stat()
    os.utime(path, (stat.st_atime - seconds, stat.st_mtime - seconds))


def waits(folder: Path, settle_s: float = 60, grace_s: float = 7200) -> str:
    (arrival,) = arrivals(folder, settle_s, grace_s)
    return arrival.wait


def test_a_manifest_at_fault_is_told_with_every_fault(
    tmp_path: Path, prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the table, in the log and in the name of the state: where a person who does not see the terminal looks."""
    for name, rows in {"bad": "B1,s1,one,a.tif,-4\nB1,s1,2,b.tif,0\n", "none": "", "soon": "B2,s1,1,a.tif,5\n"}.items():
        (tmp_path / f"{name}.csv").write_text(f"brain_id,section_id,section_number,path,pixel_size_um\n{rows}")
        aged(tmp_path / f"{name}.csv", 600)
    warned: list[str] = []
    logger = SimpleNamespace(warning=lambda text, *values: warned.append(text % values))
    monkeypatch.setattr("tasks.inbox.get_run_logger", lambda: logger)
    state = watch_inbox(inbox=InboxSettings(inbox_path=tmp_path), return_state=True)  # type: ignore[call-overload]
    assert state.name == "2 unreadable, 1 waiting"
    with get_client(sync_client=True) as client:
        kept = client.read_latest_artifacts(
            artifact_filter=ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=["inbox"]))
        )
    table = json.loads(str(kept[0].data))
    told = {name: [row["what"] for row in table if row["found"] == name] for name in ("bad.csv", "none.csv")}
    assert len(told["bad.csv"]) >= 3, told
    assert len(told["none.csv"]) == 1
    assert [row["status"] for row in table if row["found"] == "soon.csv: B2"] == ["waiting"]
    assert warned == [f"{row['found']} is {row['status']}: {row['what']}" for row in table]


def test_a_brain_that_has_settled_waits_for_nothing(inbox: Path) -> None:
    assert waits(inbox) == ""


def test_a_manifest_that_was_just_changed_waits(inbox: Path) -> None:
    (inbox / "P01" / "manifest.csv").touch()
    assert "changed less than 60 s ago" in waits(inbox)


def test_a_manifest_cut_in_the_middle_waits(inbox: Path) -> None:
    path = inbox / "P01" / "manifest.csv"
    path.write_bytes(path.read_bytes()[:-30])
    aged(path, 3600)
    assert waits(inbox) == "cannot be read"


def test_a_scan_that_is_still_copied_or_missing_is_waited_for(inbox: Path) -> None:
    scan = inbox / "P01" / "scans" / "s0010.tif"
    scan.touch()
    assert "s0010.tif changed less than" in waits(inbox)
    scan.unlink()
    assert "not there yet, s0010.tif first" in waits(inbox)
    assert waits(inbox, grace_s=10) == "", "after the time of grace the brain is mapped without the missing scan"


def test_a_scan_that_comes_late_makes_the_brain_something_new_to_map(inbox: Path) -> None:
    scan = inbox / "P01" / "scans" / "s0010.tif"
    content = scan.read_bytes()
    scan.unlink()
    (without,) = arrivals(inbox, 60, 10)
    scan.write_bytes(content)
    aged(scan, 3600)
    (complete,) = arrivals(inbox, 60, 10)
    assert without.missing == ("s0010.tif",)
    assert ticket(without, {}) != ticket(complete, {})
    assert ticket(complete, {}) == ticket(*arrivals(inbox, 60, 10), {})


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock of the inbox ahead, as if time had passed."""
    passed: list[float] = []
    monkeypatch.setattr(looks, "clock_s", lambda path: time_of(path) + sum(passed))
    return passed.append


def time_of(path: Path) -> float:
    path.touch()
    return path.stat().st_mtime


def test_files_dated_in_the_future_are_started_when_they_stand_still(
    inbox: Path, ahead: Callable[[float], None]
) -> None:
    """A camera, a scanner or a server of files whose clock is a day ahead."""
    manifest, scan = inbox / "P01" / "manifest.csv", inbox / "P01" / "scans" / "s0010.tif"
    for path in (manifest, scan):
        aged(path, -86400)
    assert waits(inbox) == "is dated in the future: waits until it has stood still for 60 s"
    ahead(61)
    assert waits(inbox).startswith("s0010.tif is dated in the future"), "which was not looked at before"
    ahead(30)
    assert waits(inbox).startswith("s0010.tif is dated in the future")
    scan.write_bytes(scan.read_bytes())
    aged(scan, -86400)
    ahead(30)
    assert waits(inbox).startswith("s0010.tif is dated in the future"), "it was copied again"
    ahead(61)
    assert waits(inbox) == ""


def test_the_time_of_grace_of_a_manifest_dated_in_the_future_ends(inbox: Path, ahead: Callable[[float], None]) -> None:
    aged(inbox / "P01" / "manifest.csv", -10 * 86400)
    (inbox / "P01" / "scans" / "s0010.tif").unlink()
    waits(inbox)
    ahead(3600)
    assert "not there yet, s0010.tif first" in waits(inbox)
    ahead(3601)
    assert waits(inbox) == ""


def test_an_inbox_that_cannot_be_written_to_goes_by_dates(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_path: Path) -> float:
        raise PermissionError("read-only")

    monkeypatch.setattr(looks, "clock_s", refused)
    assert waits(inbox) == ""
    aged(inbox / "P01" / "manifest.csv", -86400)
    assert "looks cannot be compared as the inbox cannot be written to; correct its date" in waits(inbox)


def test_hidden_tables_and_tables_of_labels_are_no_manifests(inbox: Path) -> None:
    """A Mac leaves `._manifest.csv`, a copy under way `.manifest.csv.part1`; .cache is a folder of a tool."""
    before = arrivals(inbox, 60, 7200)
    for name in ("._manifest.csv", "P01/._manifest.csv", ".cache/manifest.csv", "labels.csv"):
        (inbox / name).parent.mkdir(exist_ok=True)
        shutil.copy(inbox / "P01" / "manifest.csv", inbox / name)
        aged(inbox / name, 3600)
    assert arrivals(inbox, 60, 7200) == before
    shutil.copytree(inbox / "P01", inbox / "deeper" / "P01")
    assert arrivals(inbox, 60, 7200) == before, "one folder deep, no more"


def test_an_inbox_that_is_not_there_is_named(tmp_path: Path, prefect_server: None) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        watch_inbox(inbox=InboxSettings(inbox_path=tmp_path / "nowhere", map_on="here"))


@pytest.mark.long
@pytest.mark.slow
def test_a_brain_is_started_once_and_again_only_when_its_manifest_changes(
    inbox: Path, tmp_path: Path, prefect_server: None
) -> None:
    settings = InboxSettings(inbox_path=inbox, store_path=tmp_path / "store", map_on="here")

    def look() -> Summary:
        return watch_inbox(inbox=settings, settings=MapSettings(parcellate=ParcellateSettings(source="cache")))

    assert look().made == 1
    second = look()
    assert second.made == 0
    assert "done: map-P01" in second.notes["P01/manifest.csv: P01"]
    manifest = inbox / "P01" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("phantom,coronal", "phantom,sagittal"))
    aged(manifest, 3600)
    assert look().made == 1


@pytest.mark.slow
def test_a_failed_brain_is_started_again_a_limited_number_of_times(
    inbox: Path, tmp_path: Path, prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: object, _brain: Brain) -> None:
        raise StoreError("the disk is gone")

    monkeypatch.setattr("cytoarch.store.brain_store.BrainStore.write_brain", broken)
    settings = InboxSettings(inbox_path=inbox, store_path=tmp_path / "other", map_on="here", max_attempts=2)
    assert [watch_inbox(inbox=settings).made for _ in range(3)] == [1, 1, 0]
