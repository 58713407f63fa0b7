"""Drafts of manifests."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tifffile

from cytoarch.brains import COLUMNS, read_manifest
from cytoarch.containment import Contained
from cytoarch.drafting import draft_manifest
from cytoarch.drafting.names import section_ids
from cytoarch.errors import ManifestError
from cytoarch.images.scans import open_scan
from cytoarch.paths import is_id
from tests.cytoarch.drafting.drafts import PIXELS, drafted, scans, scans_in

# -- drafts ------------------------------------------------------------------------------------------------------------


def test_a_draft_names_every_scan_in_order_with_what_the_files_state(tmp_path: Path) -> None:
    folder = scans(tmp_path / "scans", "b_02.tif", "a_01.tif", resolution=(2e4, 2e4), resolutionunit="CENTIMETER")
    scans(folder, "c_03.png")
    (folder / "notes.txt").write_text("not a scan")
    root, remarks = draft_manifest(folder, tmp_path / "manifest.csv")
    rows = drafted(tmp_path / "manifest.csv")
    assert (root, remarks) == (folder.resolve(), [])
    assert list(rows[0]) == list(COLUMNS)
    assert [row["path"] for row in rows] == ["a_01.tif", "b_02.tif", "c_03.png"]
    assert [row["section_id"] for row in rows] == ["a_01", "b_02", "c_03"]
    assert [row["section_number"] for row in rows] == ["?1", "?2", "?3"]
    assert [row["pixel_size_um"] for row in rows] == ["0.5", "0.5", ""]
    assert all(row["stain"] == row["flip"] == row["rotation"] == "" for row in rows)


def test_a_draft_is_refused_as_a_manifest_until_a_person_has_confirmed_it(tmp_path: Path) -> None:
    folder = scans(tmp_path / "scans", "a_01.tif", "b_02.tif")
    path = tmp_path / "manifest.csv"
    root, _ = draft_manifest(folder, path)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path, root, None)
    unconfirmed = [fault for fault in caught.value.faults if "remove the '?'" in fault]
    assert [fault.split(":")[0] for fault in unconfirmed] == ["row 2", "row 3"]
    assert [fault for fault in caught.value.faults if fault not in unconfirmed] == [
        "rows 2-3: brain_id is blank; it is needed"
    ]
    lines = path.read_text(encoding="utf-8").replace("?", "").splitlines()
    confirmed = [lines[0], *(f"B1{line}" if line.startswith(",") else line for line in lines[1:])]
    path.write_text("\n".join(confirmed), encoding="utf-8")
    (brain,) = read_manifest(path, root, None)
    assert [(one.section_number, one.path) for one in brain.sections] == [(1, "a_01.tif"), (2, "b_02.tif")]


def test_label_images_are_matched_by_name_and_paths_start_at_the_folder_that_holds_both(tmp_path: Path) -> None:
    folder = scans(tmp_path / "data" / "scans", "a_01.tif", "b_02.tif")
    labels = scans(tmp_path / "data" / "labels", "b_02.png", "other_03.png")
    root, _ = draft_manifest(folder, tmp_path / "manifest.csv", labels)
    rows = drafted(tmp_path / "manifest.csv")
    assert root == (tmp_path / "data").resolve()
    assert [(row["path"], row["labels"]) for row in rows] == [
        ("scans/a_01.tif", ""),
        ("scans/b_02.tif", "labels/b_02.png"),
    ]


@pytest.mark.parametrize("name", ["Größe 1.tif", "_1.tif", "-1-.tif", "x" * 100 + "1.tif", "切片1.tif", "OME.tif"])
def test_every_section_gets_an_id_that_can_be_an_address(tmp_path: Path, name: str) -> None:
    draft_manifest(scans(tmp_path / "scans", name), tmp_path / "manifest.csv")
    (row,) = drafted(tmp_path / "manifest.csv")
    assert is_id(row["section_id"])
    assert row["path"] == (f"./{name}" if name[0] == "-" else name), "no formula to a spreadsheet"


@pytest.mark.parametrize(
    "names", [("a 1.tif", "a-1.tif"), ("a1.tif", "a1.png"), ("A1.tif", "a1.tif"), ("ä1.tif", "ö1.tif")]
)
def test_ids_of_files_with_similar_names_differ(tmp_path: Path, names: tuple[str, ...]) -> None:
    draft_manifest(scans(tmp_path / "scans", *names), tmp_path / "manifest.csv")
    ids = [row["section_id"].lower() for row in drafted(tmp_path / "manifest.csv")]
    assert len(set(ids)) == len(ids) == 2


def test_a_scan_that_cannot_be_read_stays_in_the_draft_with_a_remark(tmp_path: Path) -> None:
    folder = scans(tmp_path / "scans", "a_01.tif")
    (folder / "b_02.tif").write_bytes(b"no image")
    _, remarks = draft_manifest(folder, tmp_path / "manifest.csv")
    assert len(drafted(tmp_path / "manifest.csv")) == 2
    (remark,) = remarks
    assert "b_02.tif" in remark


def ome_scan(path: Path, size_um: float, **options: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    size = {f"PhysicalSize{axis}": size_um for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    tifffile.imwrite(path, PIXELS, ome=True, metadata={"axes": "YX", **size}, **options)


@pytest.mark.parametrize(
    ("size_um", "cell"),
    [(0.2274, "0.2274"), (0.05, "0.05"), (100.0, "100"), (12.34567, "12.3457"), (0.0499, ""), (100.1, "")],
)
def test_a_stated_pixel_size_is_written_as_stated_within_what_is_plausible(
    tmp_path: Path, size_um: float, cell: str
) -> None:
    ome_scan(tmp_path / "scans" / "a.ome.tif", size_um)
    draft_manifest(tmp_path / "scans", tmp_path / "m.csv")
    assert drafted(tmp_path / "m.csv")[0]["pixel_size_um"] == cell


def test_of_two_statements_the_draft_takes_the_one_that_ingestion_would(tmp_path: Path) -> None:
    ome_scan(tmp_path / "scans" / "a.ome.tif", 0.25, resolution=(2e4, 2e4), resolutionunit="CENTIMETER")
    draft_manifest(tmp_path / "scans", tmp_path / "m.csv")
    (row,) = drafted(tmp_path / "m.csv")
    with open_scan(tmp_path / "scans" / "a.ome.tif") as scan:
        stated = scan.stated_pixel_sizes
    assert [one.value_um for one in stated] == [0.25, 0.5]
    assert row["pixel_size_um"] == "0.25"


def test_an_implausible_pixel_size_is_left_blank(tmp_path: Path) -> None:
    folder = scans(tmp_path / "scans", "a_01.tif", resolution=(72, 72), resolutionunit="INCH")
    draft_manifest(folder, tmp_path / "manifest.csv")
    assert drafted(tmp_path / "manifest.csv")[0]["pixel_size_um"] == ""


def test_a_draft_never_replaces_a_file(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("work", encoding="utf-8")
    with pytest.raises(ManifestError, match="exists"):
        draft_manifest(scans(tmp_path / "scans", "a.tif"), tmp_path / "manifest.csv")
    assert (tmp_path / "manifest.csv").read_text(encoding="utf-8") == "work"


def test_a_draft_is_not_written_through_a_link_to_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").symlink_to(tmp_path / "elsewhere.csv")
    with pytest.raises(ManifestError, match="exists"):
        draft_manifest(scans(tmp_path / "scans", "a.tif"), tmp_path / "manifest.csv")
    assert not (tmp_path / "elsewhere.csv").exists()


def test_a_folder_without_scans_is_refused_and_folders_below_that_hold_some_are_named(tmp_path: Path) -> None:
    scans(tmp_path / "top" / "deep", "a.tif")
    with pytest.raises(ManifestError, match="there are some in deep"):
        draft_manifest(tmp_path / "top", tmp_path / "manifest.csv")
    assert not (tmp_path / "manifest.csv").exists()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such folder"):
        draft_manifest(tmp_path / "none", tmp_path / "manifest.csv")
    with pytest.raises(ManifestError, match="no such folder"):
        draft_manifest(scans(tmp_path / "scans", "a.tif"), tmp_path / "manifest.csv", tmp_path / "none")


def test_progress_counts_the_scans(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    folder = scans(tmp_path / "scans", "a1.tif", "a2.tif")
    draft_manifest(folder, tmp_path / "m.csv", on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_ids_of_long_names_that_begin_alike_are_addresses_that_differ() -> None:
    ids = section_ids(["x" * 100 + str(number) for number in range(12)])
    assert all(is_id(one) for one in ids)
    assert len(set(ids)) == 12


def test_ids_of_names_of_dots_alone_are_addresses_too() -> None:
    assert all(is_id(one) for one in section_ids(["...1", "...", "..", "OME"]))


# -- in a process of its own -------------------------------------------------------------------------------------------


def test_headers_are_read_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scans(tmp_path / "scans", "a_01.tif", resolution=(2e4, 2e4), resolutionunit="CENTIMETER")

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened here")

    monkeypatch.setattr("cytoarch.drafting.headers.open_scan", forbidden)
    monkeypatch.setattr(tifffile, "TiffFile", forbidden)
    draft_manifest(folder, tmp_path / "m.csv")
    assert drafted(tmp_path / "m.csv")[0]["pixel_size_um"] == "0.5"


CRASHING_READER = """
import signal
from pathlib import Path
from cytoarch.drafting import headers

def headers_work(arguments, on_progress):
    def told(done, total):
        on_progress(done, total)
        if done < total and Path(arguments["files"][done]).read_bytes() == b"crash":
            signal.raise_signal(signal.SIGSEGV)
    told(0, len(arguments["files"]))
    return headers.headers_work(arguments, told)
"""
"""Reads headers, and crashes at some files as a decoder would at a damage that no check foresees."""


def test_files_that_end_the_process_reading_them_cost_a_remark_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"a_{number}.tif" for number in range(5)]
    folder = scans(tmp_path / "scans", *names, resolution=(2e4, 2e4), resolutionunit=3)
    (tmp_path / "crashing.py").write_text(CRASHING_READER, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setattr("cytoarch.drafting.draft.Contained", Contained)
    monkeypatch.setattr("cytoarch.drafting.headers.__name__", "crashing")
    monkeypatch.setattr("cytoarch.drafting.asking.AT_ONCE", 3)
    for name in (names[1], names[4]):
        (folder / name).write_bytes(b"crash")
    seen: list[tuple[int, int]] = []
    _, remarks = draft_manifest(folder, tmp_path / "m.csv", on_progress=lambda done, total: seen.append((done, total)))
    assert [row["pixel_size_um"] for row in drafted(tmp_path / "m.csv")] == ["0.5", "", "0.5", "0.5", ""]
    assert [remark.split(":")[0] for remark in remarks] == [str(folder / name) for name in (names[1], names[4])]
    assert all("SIGSEGV" in remark and "left blank" in remark for remark in remarks)
    assert seen[-1] == (5, 5)


def test_lengths_in_names_are_proposed_unless_a_file_states_another(tmp_path: Path) -> None:
    scans_in(tmp_path / "thick", "b_20um_1.tif", "b_20um_2.tif")
    draft_manifest(tmp_path / "thick", tmp_path / "m.csv")
    assert [row["pixel_size_um"] for row in drafted(tmp_path / "m.csv")] == ["?20", "?20"]
    ome_scan(tmp_path / "thick" / "b_20um_3.ome.tif", 0.5)
    draft_manifest(tmp_path / "thick", tmp_path / "n.csv")
    assert [row["pixel_size_um"] for row in drafted(tmp_path / "n.csv")] == ["", "", "0.5"]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_scans_are_read_in_chunks_and_none_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr("cytoarch.drafting.asking.AT_ONCE", 3)
    folder = tmp_path / "scans"
    for number in range(count):
        ome_scan(folder / f"a_{number}.ome.tif", 0.5 + number)
    scans_in(folder, "b.tif")
    seen: list[tuple[int, int]] = []
    _, remarks = draft_manifest(folder, tmp_path / "m.csv", on_progress=lambda done, total: seen.append((done, total)))
    sizes = [row["pixel_size_um"] for row in drafted(tmp_path / "m.csv")]
    assert sizes == [f"{0.5 + number:g}" for number in range(count)] + [""]
    assert len(remarks) == 1
    assert seen == sorted(seen)
    assert seen[-1] == (count + 1, count + 1)


def test_no_process_is_left_behind(tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []
    with pytest.MonkeyPatch.context() as patch:
        real = subprocess.Popen

        def popen(*arguments: Any, **more: Any) -> "subprocess.Popen[bytes]":
            started.append(real(*arguments, **more))
            return started[-1]

        patch.setattr("cytoarch.drafting.draft.Contained", Contained)
        patch.setattr("cytoarch.containment.subprocess.Popen", popen)
        draft_manifest(scans(tmp_path / "scans", "a_01.tif", "b_02.tif"), tmp_path / "m.csv")
    assert [process.poll() is not None for process in started] == [True]
