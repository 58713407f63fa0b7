import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cytoarch.brains import COLUMNS, read_manifest
from cytoarch.drafting import draft_manifest, section_numbers
from cytoarch.errors import ManifestError
from cytoarch.paths import is_id

PIXELS = np.zeros((8, 9), np.uint8)


def scans(folder: Path, *names: str, **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name.endswith(".tif"):
            tifffile.imwrite(folder / name, PIXELS, metadata=None, **options)
        else:
            Image.fromarray(PIXELS).save(folder / name)
    return folder


def drafted(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# -- section numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stems", "numbers"),
    [
        (["B20_0012_x4", "B20_0027_x4"], [12, 27]),
        (["7", "12"], [7, 12]),
        (["s1-2", "s2-1"], [2, 1]),
        (["a", "b"], [None, None]),
        (["B20_x4", "B20_x4b"], [None, None]),
        (["one10"], [10]),
        (["s010", "s10"], [None, None]),
    ],
)
def test_the_number_that_tells_the_files_apart_is_the_section_number(stems: list[str], numbers: list[int]) -> None:
    assert section_numbers(stems) == numbers


@settings(max_examples=200, deadline=None, derandomize=True)
@given(stems=st.lists(st.text("ab_-019", min_size=1, max_size=12), min_size=1, max_size=8, unique=True))
def test_no_two_files_get_the_same_number_and_each_number_stands_in_its_name(stems: list[str]) -> None:
    numbers = section_numbers(stems)
    given_out = [number for number in numbers if number is not None]
    assert len(numbers) == len(stems)
    assert len(set(given_out)) == len(given_out)
    assert all(str(number) in stem for stem, number in zip(stems, numbers, strict=True) if number is not None)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(numbers=st.lists(st.integers(0, 10**6), min_size=2, max_size=8, unique=True), brain=st.integers(0, 99))
def test_numbers_between_constant_parts_are_found(numbers: list[int], brain: int) -> None:
    assert section_numbers([f"B{brain}_{number:05d}_x4" for number in numbers]) == numbers


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


@pytest.mark.parametrize(
    "name", ["Größe 1.tif", "_1.tif", "-1-.tif", "...1.tif", "x" * 100 + "1.tif", "切片1.tif", "OME.tif"]
)
def test_every_section_gets_an_id_that_can_be_an_address(tmp_path: Path, name: str) -> None:
    draft_manifest(scans(tmp_path / "scans", name), tmp_path / "manifest.csv")
    (row,) = drafted(tmp_path / "manifest.csv")
    assert is_id(row["section_id"])
    assert row["path"] == name


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


def test_an_implausible_pixel_size_is_left_blank(tmp_path: Path) -> None:
    folder = scans(tmp_path / "scans", "a_01.tif", resolution=(72, 72), resolutionunit="INCH")
    draft_manifest(folder, tmp_path / "manifest.csv")
    assert drafted(tmp_path / "manifest.csv")[0]["pixel_size_um"] == ""


def test_a_draft_never_replaces_a_file(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("work", encoding="utf-8")
    with pytest.raises(ManifestError, match="exists"):
        draft_manifest(scans(tmp_path / "scans", "a.tif"), tmp_path / "manifest.csv")
    assert (tmp_path / "manifest.csv").read_text(encoding="utf-8") == "work"


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
