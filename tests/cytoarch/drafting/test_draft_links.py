"""What a folder holds beside scans: hidden files, links of datasets, names that no manifest can hold."""

import csv
import os
from pathlib import Path

import pytest
import tifffile

from cytoarch.drafting import draft_manifest
from cytoarch.errors import ManifestError
from cytoarch.paths import confined
from tests.cytoarch.drafting.drafts import PIXELS, completed, drafted, scans, scans_in

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
