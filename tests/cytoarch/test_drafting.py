import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cytoarch.brains import COLUMNS, Brain, read_manifest
from cytoarch.containment import Contained
from cytoarch.drafting import draft_manifest
from cytoarch.drafting.names import match_labels, section_ids, section_numbers
from cytoarch.errors import ManifestError
from cytoarch.images.scans import open_scan
from cytoarch.paths import confined, is_id

PIXELS = np.zeros((8, 9), np.uint8)


class _Kept(Contained):
    """Children that outlive a draft: starting one takes longer than all the rest of it."""

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def children() -> Iterator[_Kept]:
    kept = _Kept()
    yield kept
    Contained.close(kept)


@pytest.fixture(autouse=True)
def _quickly(children: _Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cytoarch.drafting.draft.Contained", lambda: children)


def scans(folder: Path, *names: str, **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name.endswith(".tif"):
            tifffile.imwrite(folder / name, PIXELS, metadata=None, **options)
        else:
            Image.fromarray(PIXELS).save(folder / name)
    return folder


def scans_in(folder: Path, *names: str) -> Path:
    """Scans that are only looked for, as no image is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"no image")
    return folder


def completed(manifest: Path, root: Path) -> Brain:
    """The brain of a draft after a person took off every '?' and gave the brain its name and numbers."""
    rows = [
        {**row, "brain_id": "B1", "section_number": str(number), "labels": row["labels"].removeprefix("?")}
        for number, row in enumerate(drafted(manifest))
    ]
    path, table = manifest.with_name("completed.csv"), manifest.with_name("table.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    table.write_text("id,name\n1,A\n", encoding="utf-8")
    (brain,) = read_manifest(path, root, table)
    return brain


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


# -- labels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scan", "label", "cell"),
    [
        ("B1_s001.ome.tif", "B1_s001.png", "labels/B1_s001.png"),
        ("B1_s001.tif", "B1_s001.ome.tiff", "labels/B1_s001.ome.tiff"),
        ("B1_s001.tif", "B1_s001.tif.png", "labels/B1_s001.tif.png"),
        ("B1_S001.TIF", "b1_s001.png", "labels/b1_s001.png"),
        ("Gro\u0308sse_1.tif", "Gr\u00f6sse_1.png", "labels/Gr\u00f6sse_1.png"),
        ("B1_s001.ome.tif", "s001.png", "?labels/s001.png"),
        ("B1_s001.ome.tif", "B1_s001-labelled.png", "?labels/B1_s001-labelled.png"),
        ("B1-s001.tif", "B1 s001 areas v2.png", "?labels/B1 s001 areas v2.png"),
    ],
)
def test_a_label_image_finds_its_scan_also_under_another_suffix_or_part_of_its_name(
    tmp_path: Path, scan: str, label: str, cell: str
) -> None:
    other = scan.replace("1.", "2.")
    scans_in(tmp_path / "scans", scan, other)
    scans_in(tmp_path / "labels", label, label.replace("1", "2") if cell.startswith("?") else "other.png")
    root, _ = draft_manifest(tmp_path / "scans", tmp_path / "m.csv", tmp_path / "labels")
    rows = {row["path"]: row["labels"] for row in drafted(tmp_path / "m.csv")}
    assert rows[f"scans/{scan}"] == cell
    assert rows[f"scans/{other}"] != cell
    labelled = {section.path: section.labels for section in completed(tmp_path / "m.csv", root).sections}
    assert labelled[f"scans/{scan}"] == cell.removeprefix("?")


def test_no_label_image_is_dropped_without_a_word(tmp_path: Path) -> None:
    scans_in(tmp_path / "scans", "a_01.tif", "b_02.tif", "c_03.tif", "c_03.png", "d_04.tif")
    labels = ("a_01.png", "a_01.tif", "b_02.jpg", "c_03.png", "d_04.png", "d_04_v2.png", "x_09.png")
    draft_manifest(scans_in(tmp_path / "scans"), tmp_path / "m.csv", scans_in(tmp_path / "labels", *labels))
    _, remarks = draft_manifest(tmp_path / "scans", tmp_path / "again.csv", tmp_path / "labels")
    written = {row["labels"] for row in drafted(tmp_path / "m.csv")} - {""}
    assert written == {"labels/d_04.png"}
    for name in set(labels) - {"d_04.png"}:
        assert [remark for remark in remarks if f"labels/{name}" in remark or f" {name}" in remark], name


names_of_files = st.lists(st.text("ab1 _-.", min_size=1, max_size=6), max_size=6)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(scans=names_of_files, labels=names_of_files)
def test_every_label_image_is_matched_doubtful_or_left_over_and_no_scan_gets_two(
    scans: list[str], labels: list[str]
) -> None:
    found = match_labels(scans, labels)
    matched = [*found.same.values(), *found.alike.values()]
    assert sorted([*matched, *found.doubtful, *found.left_over]) == list(range(len(labels)))
    assert not found.same.keys() & found.alike.keys()
    assert all(scans[scan].casefold() == labels[label].casefold() for scan, label in found.same.items())
    assert all(choices for choices in found.doubtful.values())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(names=st.lists(st.text("ab1_", min_size=1, max_size=6), max_size=6, unique_by=str.casefold))
def test_scans_and_label_images_of_the_same_names_are_all_matched_whatever_their_order(names: list[str]) -> None:
    found = match_labels(names, names[::-1])
    assert {names[scan]: names[::-1][label] for scan, label in found.same.items()} == {name: name for name in names}


@pytest.mark.parametrize(
    ("scans", "labels", "alike", "doubtful"),
    [
        (["s1", "s1_x"], ["s1_x_labels"], {1: 0}, {}),
        (["a_s1", "b_s1"], ["s1"], {}, {0: (0, 1)}),
        (["s1_x"], ["s1", "x"], {}, {0: (0,), 1: (0,)}),
        (["s10"], ["s1"], {}, {}),
        (["B1_s1"], ["s1_B1"], {}, {}),
        (["b_a_1"], ["A-1"], {0: 0}, {}),
    ],
)
def test_names_are_alike_by_whole_words_and_most_words_win(
    scans: list[str], labels: list[str], alike: dict[int, int], doubtful: dict[int, tuple[int, ...]]
) -> None:
    found = match_labels(scans, labels)
    assert (found.same, found.alike, found.doubtful) == ({}, alike, doubtful)


def test_the_folder_of_the_scans_is_refused_as_that_of_the_labels(tmp_path: Path) -> None:
    scans_in(tmp_path / "scans", "a.tif", "a_labels.png")
    with pytest.raises(ManifestError, match="folder of the scans too"):
        draft_manifest(tmp_path / "scans", tmp_path / "m.csv", tmp_path / "scans" / ".." / "scans")


# -- hidden files, links, odd names ------------------------------------------------------------------------------------


def test_hidden_files_and_folders_are_no_scans(tmp_path: Path) -> None:
    folder = scans(tmp_path / "scans", "a_01.tif", "b_02.tif")
    scans_in(folder, "._a_01.tif", "._b_02.tif", ".DS_Store", ".hidden.png")
    scans_in(tmp_path / "labels", "a_01.png", "._a_01.png")
    _, remarks = draft_manifest(folder, tmp_path / "m.csv", tmp_path / "labels")
    rows = drafted(tmp_path / "m.csv")
    assert [row["path"] for row in rows] == ["scans/a_01.tif", "scans/b_02.tif"]
    assert [row["section_number"] for row in rows] == ["?1", "?2"]
    assert [row["labels"] for row in rows] == ["labels/a_01.png", ""]
    assert remarks == []


def test_a_folder_of_hidden_files_holds_no_scan_and_hidden_folders_are_not_named(tmp_path: Path) -> None:
    scans_in(tmp_path / "top" / ".git" / "annex", "a.tif")
    scans_in(tmp_path / "top" / "__MACOSX", "._a.tif")
    scans_in(tmp_path / "top" / "below", "a.tif")
    with pytest.raises(ManifestError, match=r"there are some in below$"):
        draft_manifest(scans_in(tmp_path / "top", "._a.tif"), tmp_path / "m.csv")


def annexed(link: Path, dataset: Path, content: bytes | None) -> None:
    """A file as git-annex keeps it: a link to its content below `.git`, which may not be here."""
    kept = dataset / ".git" / "annex" / "objects" / "f4" / link.name / f"MD5E-s9--0123{link.suffix}"
    kept.parent.mkdir(parents=True)
    if content is not None:
        kept.write_bytes(content)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(kept, link.parent))


def test_files_of_git_annex_keep_their_own_names_and_those_without_content_are_named(tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, metadata=None, resolution=(2e4, 2e4), resolutionunit="CENTIMETER")
    annexed(dataset / "scans" / "a_01.tif", dataset, (tmp_path / "a.tif").read_bytes())
    annexed(dataset / "scans" / "b_02.tif", dataset, None)
    annexed(dataset / "labels" / "a_01.png", dataset, b"png")
    annexed(dataset / "labels" / "b_02.png", dataset, None)
    root, remarks = draft_manifest(dataset / "scans", tmp_path / "m.csv", dataset / "labels")
    rows = drafted(tmp_path / "m.csv")
    assert root == dataset.resolve()
    assert [(row["path"], row["pixel_size_um"], row["labels"]) for row in rows] == [
        ("scans/a_01.tif", "0.5", "labels/a_01.png"),
        ("scans/b_02.tif", "", "labels/b_02.png"),
    ]
    assert [row["section_id"] for row in rows] == ["a_01", "b_02"]
    assert len(remarks) == 2
    assert all("content is not here" in remark and "git annex get" in remark for remark in remarks)
    assert len(completed(tmp_path / "m.csv", root).sections) == 2


def test_a_dataset_without_a_labels_folder_is_the_root_of_its_paths(tmp_path: Path) -> None:
    annexed(tmp_path / "scans" / "a_01.tif", tmp_path, b"tif")
    root, _ = draft_manifest(tmp_path / "scans", tmp_path / "m.csv")
    assert root == tmp_path.resolve()
    assert [section.path for section in completed(tmp_path / "m.csv", root).sections] == ["scans/a_01.tif"]


@pytest.mark.parametrize(
    ("content", "command"),
    [
        (b"/annex/objects/MD5E-s9--0123.tif\n", "git annex get"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    ],
)
def test_a_pointer_in_place_of_a_scan_is_told_with_what_fetches_it(
    tmp_path: Path, content: bytes, command: str
) -> None:
    scans_in(tmp_path / "scans")
    (tmp_path / "scans" / "a_01.tif").write_bytes(content)
    _, (remark,) = draft_manifest(tmp_path / "scans", tmp_path / "m.csv")
    assert "a_01.tif" in remark
    assert command in remark


def test_links_keep_their_own_names_and_those_that_lead_elsewhere_are_named(tmp_path: Path) -> None:
    elsewhere = scans_in(tmp_path / "elsewhere", "x.tif")
    folder = scans_in(tmp_path / "scans", "a_01.tif")
    scans_in(folder / "raw", "x.tif")
    (folder / "b_02.tif").symlink_to("raw/x.tif")
    (folder / "c_03.tif").symlink_to(elsewhere / "x.tif")
    (folder / "d_04.tif").symlink_to("d_04.tif")
    root, remarks = draft_manifest(folder, tmp_path / "m.csv")
    assert [section.path for section in completed(tmp_path / "m.csv", root).sections] == ["a_01.tif", "b_02.tif"]
    left_out = [remark for remark in remarks if remark.endswith("left out of the draft")]
    assert ["c_03.tif" in left_out[0], "d_04.tif" in left_out[1], len(left_out)] == [True, True, 2]


def test_a_link_to_a_scan_that_has_a_row_gets_none_as_map_brain_would_refuse_it(tmp_path: Path) -> None:
    folder = scans_in(tmp_path / "scans", "b_02.tif")
    (folder / "a_01.tif").symlink_to("b_02.tif")
    (folder / "c_03.tif").symlink_to("a_01.tif")
    root, remarks = draft_manifest(folder, tmp_path / "m.csv")
    assert [section.path for section in completed(tmp_path / "m.csv", root).sections] == ["a_01.tif"]
    same = [remark for remark in remarks if "is the same file as a_01.tif" in remark]
    assert [name in remark for name, remark in zip(("b_02.tif", "c_03.tif"), same, strict=True)] == [True, True]


ODD = ("scan:1.tif", "file:2.tif", " a3.tif", "?4.tif", "a?5.tif", 'a,b;c"6.tif', "a\nb7.tif", "\xa0a8.tif", "s:9.tif")
FORMULAS = ("=1+1_1.tif", "+2.tif", "-3.tif", "@4.tif")
"""Spreadsheets compute such cells when they open a table, and save what comes out."""


@pytest.mark.parametrize("name", ODD + FORMULAS)
@pytest.mark.parametrize("below", ["scans", " scans", "?scans", "a:scans"])
def test_what_is_drafted_leads_back_to_the_file(tmp_path: Path, name: str, below: str) -> None:
    scans_in(tmp_path / below, name)
    label = scans_in(tmp_path / "labels", f"{name[:-4]}.png") / f"{name[:-4]}.png"
    for folder, labels in ((tmp_path / below, None), (tmp_path / below, tmp_path / "labels")):
        manifest = tmp_path / f"{'with' if labels else 'without'}.csv"
        root, _ = draft_manifest(folder, manifest, labels)
        (section,) = completed(manifest, root).sections
        assert confined(section.path, root) == tmp_path.resolve() / below / name
        assert section.labels is None or confined(section.labels, root) == label.resolve()
        assert (section.labels is None) == (labels is None)


@pytest.mark.parametrize("name", FORMULAS)
def test_no_path_in_a_draft_is_a_formula(tmp_path: Path, name: str) -> None:
    draft_manifest(scans_in(tmp_path / "scans", name), tmp_path / "m.csv")
    (row,) = csv.DictReader((tmp_path / "m.csv").read_text().splitlines())
    assert row["path"] == f"./{name}"


def test_a_name_that_no_manifest_can_hold_is_named_and_left_out(tmp_path: Path) -> None:
    folder = scans_in(tmp_path / "scans", "a::b_01.tif", "c_02.tif")
    (tmp_path / "scans" / os.fsdecode(b"Gr\xf6sse_03.tif")).write_bytes(b"no image")
    _, remarks = draft_manifest(folder, tmp_path / "m.csv")
    assert [row["path"] for row in drafted(tmp_path / "m.csv")] == ["c_02.tif"]
    left_out = [remark for remark in remarks if "left out of the draft" in remark]
    assert len(left_out) == 2
    assert "a::b_01.tif" in left_out[1]
    assert "Gr\\xf6sse_03.tif" in left_out[0]
    assert "\n".join(remarks).encode()


def test_folders_whose_names_are_no_text_are_one_error(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"Gr\xf6sse")
    scans_in(odd / "scans", "a.tif")
    scans_in(tmp_path / "scans", "a.tif")
    for given_ in (
        (odd / "scans", tmp_path / "m.csv", None),
        (tmp_path / "scans", odd / "m.csv", None),
        (tmp_path / "scans", tmp_path / "m.csv", odd / "scans"),
    ):
        with pytest.raises(ManifestError, match=r"Gr\\xf6sse[\s\S]*no UTF-8 text"):
            draft_manifest(*given_)


@pytest.mark.parametrize("brain", ["B 1", "?B1", "../B1", "ä"])
def test_a_brain_that_map_brain_would_refuse_is_refused_at_once(tmp_path: Path, brain: str) -> None:
    with pytest.raises(ManifestError, match="a letter or digit is needed"):
        draft_manifest(scans_in(tmp_path / "scans", "a.tif"), tmp_path / "m.csv", None, brain)
    assert not (tmp_path / "m.csv").exists()


def test_a_place_that_cannot_be_written_to_is_one_error(tmp_path: Path) -> None:
    folder = scans_in(tmp_path / "scans", "a.tif")
    with pytest.raises(ManifestError, match="cannot be written"):
        draft_manifest(folder, folder / "a.tif" / "m.csv")


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
        if done < total and Path(arguments["scans"][done]).read_bytes() == b"crash":
            signal.raise_signal(signal.SIGSEGV)
    told(0, len(arguments["scans"]))
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
    monkeypatch.setattr("cytoarch.drafting.headers.AT_ONCE", 3)
    for name in (names[1], names[4]):
        (folder / name).write_bytes(b"crash")
    seen: list[tuple[int, int]] = []
    _, remarks = draft_manifest(folder, tmp_path / "m.csv", on_progress=lambda done, total: seen.append((done, total)))
    assert [row["pixel_size_um"] for row in drafted(tmp_path / "m.csv")] == ["0.5", "", "0.5", "0.5", ""]
    assert [remark.split(":")[0] for remark in remarks] == [str(folder / name) for name in (names[1], names[4])]
    assert all("SIGSEGV" in remark and "left blank" in remark for remark in remarks)
    assert seen[-1] == (5, 5)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_scans_are_read_in_chunks_and_none_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr("cytoarch.drafting.headers.AT_ONCE", 3)
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
