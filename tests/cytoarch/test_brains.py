import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cytoarch.brains import COLUMNS, Brain, LabelTable, Section, read_label_table, read_manifest
from cytoarch.errors import ManifestError

HEADER = "brain_id,section_id,section_number,path"
ROW = "B1,s1,1,a.tif"
Brains = Callable[..., tuple[Brain, ...]]


def faults_of(read: Callable[[], object]) -> tuple[str, ...]:
    with pytest.raises(ManifestError) as caught:
        read()
    assert all(fault in str(caught.value) for fault in caught.value.faults)
    return caught.value.faults


def table_at(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# -- what is read ------------------------------------------------------------------------------------------------------


def test_a_row_states_what_its_cells_say_and_blank_cells_state_nothing(brains_of: Brains) -> None:
    (brain,) = brains_of(
        "B1,s1,7,a.tif,0.5,nissl,20,left,horizontal,-90,10:20 30:50,2,ab.png,expert",
        "B1,s2,8,b.tif,,,,,,,,,,",
        header=f"{HEADER},pixel_size_um,stain,thickness_um,hemisphere,flip,rotation,region_px,plane_index,labels,labels_origin",
    )
    first, second = brain.sections
    assert (first.pixel_size_um, first.stain, first.thickness_um) == (0.5, "nissl", 20.0)
    assert (first.hemisphere, first.flip, first.rotation) == ("left", "horizontal", -90.0)
    assert (first.region_px, first.plane_index) == ((10, 20, 30, 50), 2)
    assert (first.labels, first.labels_origin) == ("ab.png", "expert")
    assert second == Section(brain_id="B1", section_id="s2", section_number=8, path="b.tif")


def test_sections_are_ordered_by_number_and_gaps_are_legal(brains_of: Brains) -> None:
    (brain,) = brains_of("B1,c,900,c.tif", "B1,a,0,a.tif", "B1,b,17,b.tif")
    assert [section.section_number for section in brain.sections] == [0, 17, 900]


def test_several_brains_are_read_in_order_of_first_appearance(brains_of: Brains) -> None:
    brains = brains_of("Z,s1,1,a.tif", "A,s1,1,b.tif", "Z,s2,2,c.tif")
    assert [brain.brain_id for brain in brains] == ["Z", "A"]
    assert [len(brain.sections) for brain in brains] == [2, 1]


def test_brains_of_one_manifest_may_use_the_same_section_ids_and_numbers(brains_of: Brains) -> None:
    assert len(brains_of("B1,s1,1,a.tif", "B2,s1,1,a.tif")) == 2


def test_an_excluded_section_is_remembered_but_not_kept(brains_of: Brains) -> None:
    (brain,) = brains_of(ROW + ",yes,torn", "B1,s2,2,b.tif,no,", header=f"{HEADER},exclude,reason")
    assert [section.section_id for section in brain.sections] == ["s1", "s2"]
    assert [section.section_id for section in brain.kept] == ["s2"]
    assert brain.sections[0].reason == "torn"


@pytest.mark.parametrize(("cell", "meant"), [("yes", True), ("TRUE", True), ("1", True), ("No", False), ("0", False)])
def test_yes_and_no_are_understood_in_the_ways_people_write_them(brains_of: Brains, cell: str, meant: bool) -> None:
    (brain,) = brains_of(f"{ROW},{cell},why", header=f"{HEADER},exclude,reason")
    assert brain.sections[0].exclude is meant


@pytest.mark.parametrize("cell", ["WAHR", "FAUX", "x"])
def test_a_truth_value_in_another_language_is_told_what_to_write(brains_of: Brains, cell: str) -> None:
    (fault,) = faults_of(lambda: brains_of(f"B1,s1,1,a.tif,{cell},lost", header=f"{HEADER},exclude,reason"))
    assert fault == f"row 2: exclude {cell!r}: yes or no is needed"


def test_a_byte_order_mark_windows_line_ends_and_blank_rows_change_nothing(tmp_path: Path) -> None:
    plain, excel = tmp_path / "plain.csv", tmp_path / "excel.csv"
    plain.write_text(f"{HEADER}\n{ROW}\n", encoding="utf-8")
    excel.write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\r\n{ROW}\r\n,,,\r\n\r\n".encode())
    assert read_manifest(excel, tmp_path, None) == read_manifest(plain, tmp_path, None)


def test_names_may_be_in_any_script_and_cells_may_be_quoted(brains_of: Brains) -> None:
    (brain,) = brains_of('B1,s1,1,"Schnitt 1, hinten/Größe ü.tif"')
    assert brain.sections[0].path == "Schnitt 1, hinten/Größe ü.tif"


def test_the_digest_depends_on_every_statement_and_on_nothing_else(brains_of: Brains) -> None:
    rows = ("B1,s1,1,a.tif", "B1,s2,2,b.tif")
    (first,), (shuffled,) = brains_of(*rows), brains_of(*reversed(rows))
    (changed,) = brains_of("B1,s1,1,a.tif", "B1,s2,2,c.tif")
    assert first.digest == shuffled.digest != changed.digest


STATED = {
    "brain_id": "B2",
    "section_id": "s9",
    "section_number": 9,
    "path": "other.tif",
    "pixel_size_um": 2.0,
    "stain": "nissl",
    "thickness_um": 20.0,
    "species": "human",
    "hemisphere": "left",
    "flip": "vertical",
    "rotation": 90.0,
    "transform": (1.0, 0.0, 5.0, 0.0, 1.0, -7.0),
    "exclude": True,
    "reason": "another",
    "labels": "other.png",
    "labels_origin": "expert",
    "position_um": 40.0,
    "plane": "coronal",
    "region_px": (0, 9, 1, 8),
    "plane_index": 1,
    "pixel_size_source": "manifest",
    "sha256": "0" * 64,
    "tissue_path": "drawn.png",
}


@pytest.mark.parametrize("field", Section.model_fields)
def test_the_digest_knows_every_cell(field: str) -> None:
    plain = Section(
        brain_id="B1", section_id="s1", section_number=1, path="a.tif", labels="a.png", pixel_size_um=1.0, reason="why"
    )
    changed = Section.model_validate(plain.model_dump() | {field: STATED[field]})
    assert getattr(changed, field) == STATED[field] != getattr(plain, field)
    one, other = (Brain(brain_id="B1", sections=(section,)) for section in (plain, changed))
    assert one.digest != other.digest


def test_the_digest_knows_the_label_table(brains_of: Brains) -> None:
    (brain,) = brains_of(ROW)
    assert brain.label_table is not None
    first, second = brain.label_table.labels
    for labels in ((first,), (second, first), (first, second.model_copy(update={"colour": "#000000"}))):
        table = LabelTable(labels=labels)
        assert brain.model_copy(update={"label_table": table}).digest != brain.digest
    assert brain.model_copy(update={"label_table": None}).digest != brain.digest


paths = st.text("abcXYZ019 _-äß,\"'", min_size=1, max_size=20).map(str.strip).filter(bool).map(lambda t: f"x{t}.tif")
ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,12}", fullmatch=True)
rows_of_a_brain = st.lists(
    st.fixed_dictionaries(
        {
            "section_id": ids,
            "section_number": st.integers(0, 10**6),
            "path": paths,
            "pixel_size_um": st.none() | st.floats(0.05, 100),
            "thickness_um": st.none() | st.floats(0.01, 1000),
            "hemisphere": st.sampled_from(["left", "right", "both"]),
            "flip": st.sampled_from(["none", "horizontal", "vertical"]),
            "rotation": st.floats(-360, 360),
            "position_um": st.none() | st.floats(-1e6, 1e6),
            "plane_index": st.none() | st.integers(0, 99),
            "sha256": st.none() | st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
        }
    ),
    min_size=1,
    max_size=5,
    unique_by=(lambda row: row["section_id"].lower(), lambda row: row["section_number"], lambda row: row["path"]),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(brain_id=ids, rows=rows_of_a_brain)
def test_what_a_valid_manifest_states_is_what_is_read(
    tmp_path: Path, brain_id: str, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path / "manifest.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=["brain_id", *rows[0]])
        writer.writeheader()
        writer.writerows([{"brain_id": brain_id, **row} for row in rows])
    (brain,) = read_manifest(path, tmp_path, None)
    expected = sorted(rows, key=lambda row: row["section_number"])
    assert [section.model_dump(include=set(rows[0])) for section in brain.sections] == expected


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(
    content=st.binary(max_size=200)
    | st.text("abc,\n\r\"'?:/\\ 019", max_size=200).map(lambda t: f"{HEADER}\n{t}".encode())
)
def test_no_bytes_make_the_reader_fail_in_any_other_way_than_a_manifest_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    try:
        outcome: tuple[object, ...] = read_manifest(path, tmp_path, None)
    except ManifestError as error:
        outcome = error.faults
    assert outcome


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "cells", "named"),
    [
        ("pixel_size_um", "0.01", "pixel_size_um"),
        ("pixel_size_um", "352.8", "pixel_size_um"),
        ("pixel_size_um", "nan", "pixel_size_um"),
        ("pixel_size_um", "half", "pixel_size_um"),
        ("thickness_um", "0", "thickness_um"),
        ("thickness_um", "inf", "thickness_um"),
        ("hemisphere", "middle", "hemisphere"),
        ("flip", "diagonal", "flip"),
        ("rotation", "361", "rotation"),
        ("rotation", "nan", "rotation"),
        ("position_um", "nan", "position_um"),
        ("position_um", "inf", "position_um"),
        ("exclude", "perhaps", "exclude"),
        ("exclude", "yes", "reason is blank"),
        ("region_px", "10:5 0:9", "region_px"),
        ("transform", "1 0 0 0 1", "six numbers yy yx y xy xx x are needed, 5 were found"),
        ("transform", "1 0 0 1 0 0", "maps the section onto a line"),
        ("transform", "1 0 nan 0 1 0", "beyond all bounds"),
        ("region_px", "0:9 10:5", "region_px"),
        ("region_px", "5:5 0:9", "region_px"),
        ("region_px", "0:9 5:5", "region_px"),
        ("region_px", "0:9", "region_px"),
        ("region_px", "a:b c:d", "region_px"),
        ("plane_index", "-1", "plane_index"),
        ("pixel_size_source", "manifest", "pixel_size_um is blank"),
        ("sha256", "ABC", "sha256"),
        ("labels_origin", "somebody", "labels_origin"),
        ("plane", "oblique", "plane"),
    ],
)
def test_a_cell_that_cannot_be_meant_is_named_with_its_row(
    brains_of: Brains, columns: str, cells: str, named: str
) -> None:
    faults = faults_of(lambda: brains_of(f"{ROW},", f"B1,s2,2,b.tif,{cells}", header=f"{HEADER},{columns}"))
    assert len(faults) == 1
    assert faults[0].startswith("row 3: ")
    assert named in faults[0]


@pytest.mark.parametrize("number", ["-1", "1.5", "one", "nan"])
def test_a_section_number_is_a_whole_number_from_0(brains_of: Brains, number: str) -> None:
    (fault,) = faults_of(lambda: brains_of(f"B1,s1,{number},a.tif"))
    assert fault.startswith("row 2: section_number")
    assert number in fault


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "-x", "ä", "a b", "x" * 65, "a\\b", "_brain"])
def test_an_id_that_cannot_be_an_address_is_refused(brains_of: Brains, name: str) -> None:
    (fault,) = faults_of(lambda: brains_of(f"{name},s1,1,a.tif"))
    assert fault.startswith("row 2: brain_id")
    (fault,) = faults_of(lambda: brains_of(f"B1,{name},1,a.tif"))
    assert fault.startswith("row 2: section_id")


@pytest.mark.parametrize("name", ["OME", "ome", "zarr.json"])
def test_a_section_cannot_take_a_name_that_its_collection_needs(brains_of: Brains, name: str) -> None:
    (fault,) = faults_of(lambda: brains_of(ROW, f"B1,{name},2,b.tif"))
    assert fault.startswith("row 3: ")
    assert name in fault


@pytest.mark.parametrize("blank", range(4))
def test_a_blank_cell_of_a_needed_column_is_named(brains_of: Brains, blank: int) -> None:
    cells = ROW.split(",")
    column = HEADER.split(",")[blank]
    cells[blank] = " "
    (fault,) = faults_of(lambda: brains_of(",".join(cells)))
    assert fault == f"row 2: {column} is blank; it is needed"


def test_all_faults_of_all_rows_are_listed_at_once(brains_of: Brains) -> None:
    faults = faults_of(
        lambda: brains_of(
            "B1,s1,1,a.tif,none",
            "B1,s2,x,b.tif,sideways",
            "B1,s1,3,../c.tif,none",
            "B1,s4,1,d.tif,none",
            "B1,s5,5,e.tif",
            header=f"{HEADER},flip",
        )
    )
    for row, word in ((3, "section_number"), (3, "flip"), (4, "leads outside"), (4, "'s1'"), (5, "section_number 1")):
        assert any(fault.startswith(f"row {row}: ") and word in fault for fault in faults), (row, word, faults)
    assert any(fault.startswith("row 6: ") for fault in faults)


def test_the_error_says_that_nothing_was_started_and_how_many_faults_there_are(brains_of: Brains) -> None:
    with pytest.raises(ManifestError, match="2 faults, nothing was started"):
        brains_of("B1,s1,-1,a.tif", "B1,s2,-2,b.tif")


def test_cells_that_a_draft_left_unconfirmed_are_refused(brains_of: Brains) -> None:
    faults = faults_of(lambda: brains_of("B1,s1,?12,a.tif", "B1,s2,13,b.tif", "B1,?s3,?14,c.tif"))
    assert [fault[:6] for fault in faults] == ["row 2:", "row 4:", "row 4:"]
    assert all("remove the '?'" in fault for fault in faults)


def test_an_unknown_column_is_refused_and_the_known_ones_are_listed(brains_of: Brains) -> None:
    (fault,) = faults_of(lambda: brains_of(f"{ROW},1", header=f"{HEADER},pixelsize"))
    assert "'pixelsize'" in fault
    assert all(name in fault for name in COLUMNS)


def test_missing_and_doubled_columns_are_refused(brains_of: Brains) -> None:
    faults = faults_of(lambda: brains_of("s1,1,1", header="section_id,section_number,section_number"))
    assert {fault.split("column ")[1] for fault in faults} == {
        "brain_id is missing",
        "path is missing",
        "'section_number' appears twice",
    }


@pytest.mark.parametrize("cells", ["B1,s2,2", "B1,s2,2,b.tif,more"])
def test_a_row_of_another_length_than_the_header_is_refused(brains_of: Brains, cells: str) -> None:
    (fault,) = faults_of(lambda: brains_of(ROW, cells))
    assert fault.startswith("row 3: ")


def test_section_ids_that_a_case_blind_file_system_cannot_tell_apart_are_refused(brains_of: Brains) -> None:
    (fault,) = faults_of(lambda: brains_of("B1,Sec1,1,a.tif", "B1,sec1,2,b.tif"))
    assert fault.startswith("row 3: section_id 'sec1'")
    assert fault.endswith("row 2")


def test_brain_ids_that_differ_only_in_case_are_refused(brains_of: Brains) -> None:
    faults = faults_of(lambda: brains_of("B1,s1,1,a.tif", "b1,s2,2,b.tif"))
    assert any(fault.startswith("row 3: ") and "only in case" in fault for fault in faults)


def test_a_section_number_used_twice_in_a_brain_is_refused(brains_of: Brains) -> None:
    (fault,) = faults_of(lambda: brains_of("B1,s1,7,a.tif", "B1,s2,8,b.tif", "B1,s3,07,c.tif"))
    assert fault.startswith("row 4: section_number 7")
    assert fault.endswith("row 2")


# -- the same file twice -----------------------------------------------------------------------------------------------

PLACED = f"{HEADER},region_px,plane_index,labels,exclude,reason"


@pytest.mark.parametrize(
    "row",
    [
        "B1,s2,2,a.tif,,,,,",
        "B1,s2,2,./a.tif,,,,,",
        "B1,s2,2,below/../a.tif,,,,,",
        "B1,s2,2,link.tif,,,,,",
        "B1,s2,2,a.tif,,0,,,",
        "B1,s2,2,a.tif,,,b.png,,",
    ],
)
def test_a_scan_named_in_two_rows_is_refused_with_both(brains_of: Brains, tmp_path: Path, row: str) -> None:
    (tmp_path / "link.tif").symlink_to("a.tif")
    (fault,) = faults_of(lambda: brains_of("B1,s1,1,a.tif,,,a.png,,", row, header=PLACED))
    assert fault.startswith("row 3: ")
    assert "already the scan of row 2" in fault


def test_a_region_named_in_two_rows_is_refused_with_both(brains_of: Brains) -> None:
    rows = ("B1,s1,1,a.tif,0:9 0:9,,,,", "B1,s2,2,a.tif,0:9 9:18,,,,", "B1,s3,3,a.tif,0:9  9:18,,,,")
    (fault,) = faults_of(lambda: brains_of(*rows, header=PLACED))
    assert fault.startswith("row 4: 'a.tif' is already the scan of row 3")


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("0:90 0:90", "0:91 0:90", True),  # drawn twice by hand
        ("0:90 0:90", "", True),
        ("", "10:20 10:20", True),
        ("0:90 0:90", "30:60 30:60", True),
        ("0:90 0:90", "0:90 44:134", True),
        ("0:90 0:90", "0:90 45:135", False),
        ("0:90 0:90", "80:170 80:170", False),  # frames around neighbours
        ("0:90 0:90", "0:90 90:180", False),
    ],
)
def test_parts_of_a_scan_of_which_one_is_mostly_in_the_other_are_refused(
    brains_of: Brains, one: str, other: str, shared: bool
) -> None:
    def read() -> object:
        return brains_of(f"B1,s1,1,a.tif,{one},,,,", f"B1,s2,2,a.tif,{other},,,,", header=PLACED)

    if shared:
        (fault,) = faults_of(read)
        assert "row 3: 'a.tif' is already the scan of row 2" in fault
        assert "most of one region_px" in fault
    else:
        read()


def test_a_scan_may_hold_several_sections_that_share_the_label_image_drawn_on_it(brains_of: Brains) -> None:
    (brain,) = brains_of(
        "B1,s1,1,a.tif,0:9 0:9,,a.png,,",
        "B1,s2,2,a.tif,9:18 0:9,,a.png,,",
        "B1,s3,3,b.tif,,0,b.png,,",
        "B1,s4,4,b.tif,,1,b.png,,",
        header=PLACED,
    )
    assert len(brain.sections) == 4


def test_a_label_image_of_two_scans_is_refused_with_both_rows(brains_of: Brains) -> None:
    rows = ("B1,s1,1,a.tif,,,a.png,,", "B1,s2,2,b.tif,,,b.png,,", "B1,s3,3,c.tif,,,./a.png,,")
    (fault,) = faults_of(lambda: brains_of(*rows, header=PLACED))
    assert fault.startswith("row 4: './a.png' is already the label image of another scan, in row 2")


def test_blank_label_images_that_git_annex_keeps_once_are_two(brains_of: Brains, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).symlink_to("blank.png")
    (brain,) = brains_of("B1,s1,1,a.tif,,,a.png,,", "B1,s2,2,b.tif,,,b.png,,", header=PLACED)
    assert len(brain.sections) == 2


def test_a_copy_that_is_left_out_and_another_brain_may_name_the_same_files(brains_of: Brains) -> None:
    brains = brains_of(
        "B1,s1,1,a.tif,,,a.png,,",
        "B1,s2,2,a.tif,,,a.png,yes,copy of s1",
        "B1,s3,3,b.tif,,,a.png,yes,shares labels",
        "B2,s1,1,a.tif,,,a.png,,",
        header=PLACED,
    )
    assert [len(brain.kept) for brain in brains] == [1, 1]


@pytest.mark.parametrize(
    "path",
    [
        "https://example.org/a.tif",
        "s3://bucket/a.tif",
        "file:a.tif",
        "file:///a.tif",
        "http:a.tif",
        "zip::a.tif",
        "../a.tif",
        "below/../../a.tif",
        "/etc/passwd",
        "..",
    ],
)
def test_a_path_that_leaves_the_folder_of_scans_is_refused(brains_of: Brains, path: str) -> None:
    for cells, header in ((f"B1,s1,1,{path}", HEADER), (f"{ROW},{path}", f"{HEADER},labels")):
        (fault,) = faults_of(lambda cells=cells, header=header: brains_of(cells, header=header))
        assert fault.startswith("row 2: ")
        assert path in fault or repr(path) in fault


def test_a_symbolic_link_out_of_the_folder_of_scans_is_refused(tmp_path: Path) -> None:
    scans, elsewhere = tmp_path / "scans", tmp_path / "elsewhere"
    scans.mkdir()
    elsewhere.mkdir()
    (scans / "inside.tif").symlink_to(scans / "a.tif")
    (scans / "link.tif").symlink_to(elsewhere / "a.tif")
    (scans / "folder").symlink_to(elsewhere, target_is_directory=True)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(f"{HEADER}\nB1,s1,1,inside.tif\nB1,s2,2,link.tif\nB1,s3,3,folder/a.tif\n", encoding="utf-8")
    faults = faults_of(lambda: read_manifest(manifest, scans, None))
    assert [fault[:6] for fault in faults] == ["row 3:", "row 4:"]


def test_an_absolute_path_below_the_folder_of_scans_is_accepted(brains_of: Brains, tmp_path: Path) -> None:
    assert brains_of(f"B1,s1,1,{tmp_path}/a.tif")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "missing"),
        (f"{HEADER}\n".encode(), "no section"),
        (f"{HEADER}\n,,,\n".encode(), "no section"),
        (f"{HEADER}\n{ROW}\n".encode() + bytes(100), "NUL"),
        (f"{HEADER}\n{ROW}\n".encode("utf-16"), "UTF-8"),
        (f"{HEADER}\nB1,s1,1,Gr\xf6\xdfe.tif\n".encode("latin-1"), "UTF-8"),
        (f'{HEADER}\nB1,s1,1,"a.tif\n'.encode(), "CSV"),
        (b"PK\x03\x04\x14\x00\x06\x00", "workbook"),
    ],
)
def test_a_file_that_is_no_whole_manifest_is_refused(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    assert any(word in fault for fault in faults_of(lambda: read_manifest(path, tmp_path, None)))


def test_a_manifest_that_is_missing_or_a_folder_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in faults_of(lambda: read_manifest(tmp_path / "none.csv", tmp_path, None))[0]
    assert faults_of(lambda: read_manifest(tmp_path, tmp_path, None))


def test_a_newline_inside_a_quoted_cell_does_not_shift_the_row_numbers(brains_of: Brains) -> None:
    (fault,) = faults_of(lambda: brains_of('B1,s1,1,a.tif,"two\nlines"', "B1,s2,x,b.tif,", header=f"{HEADER},reason"))
    assert fault.startswith("row 3: section_number")


def test_label_images_without_a_label_table_are_refused(write_manifest: Callable[..., Path], tmp_path: Path) -> None:
    manifest = write_manifest(f"{ROW},a.png", header=f"{HEADER},labels")
    (fault,) = faults_of(lambda: read_manifest(manifest, tmp_path, None))
    assert "label table" in fault


def test_a_bad_label_table_stops_everything(write_manifest: Callable[..., Path], tmp_path: Path) -> None:
    table = table_at(tmp_path, "id,name", "1,")
    (fault,) = faults_of(lambda: read_manifest(write_manifest(ROW), tmp_path, table))
    assert fault == f"{table.name}: row 2: name is blank; it is needed"


# -- label tables ------------------------------------------------------------------------------------------------------


def test_a_label_table_gives_each_value_its_name_colour_and_group(tmp_path: Path) -> None:
    table = read_label_table(table_at(tmp_path, "id,name,colour,group", "0,unlabelled,,", "3,V1,#a0B1c2,V", "1,M1,,"))
    assert [(one.id, one.name, one.colour, one.group) for one in table.labels] == [
        (3, "V1", "#a0B1c2", "V"),
        (1, "M1", None, None),
    ]


def test_every_label_is_in_exactly_one_class_and_groups_come_in_order_of_first_appearance(tmp_path: Path) -> None:
    table = read_label_table(
        table_at(tmp_path, "id,name,colour,group", "5,V2,#000001,vis", "2,M1,#000002,", "9,V1,#000003,vis", "1,S1,,som")
    )
    single, grouped = table.classes(by_group=False), table.classes(by_group=True)
    assert [(one.name, one.ids) for one in single] == [("V2", (5,)), ("M1", (2,)), ("V1", (9,)), ("S1", (1,))]
    assert [(one.name, one.ids) for one in grouped] == [("vis", (5, 9)), ("M1", (2,)), ("som", (1,))]
    stated = {"#000001", "#000002"}
    assert [one.colour for one in grouped][:2] == ["#000001", "#000002"]
    assert grouped[2].colour not in stated | {None}, "a group that states no colour has one, in every picture the same"
    for classes in (single, grouped):
        assert sorted(value for one in classes for value in one.ids) == [1, 2, 5, 9]


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("-1,A,", "id"),
        ("2147483648,A,", "id"),
        ("1.5,A,", "id"),
        ("one,A,", "id"),
        (",A,", "id is blank"),
        ("1,,", "name is blank"),
        ("1,A,red", "colour"),
        ("1,A,#12345", "colour"),
        ("?1,A,", "remove the '?'"),
    ],
)
def test_a_bad_label_is_named_with_its_row(tmp_path: Path, row: str, word: str) -> None:
    path = table_at(tmp_path, "id,name,colour", "7,Z,", row)
    (fault,) = faults_of(lambda: read_label_table(path))
    assert fault.startswith("row 3: ")
    assert word in fault


def test_an_id_or_a_name_used_twice_is_refused_and_the_first_use_is_named(tmp_path: Path) -> None:
    path = table_at(tmp_path, "id,name", "1,A", "2,B", "1,C", "3,A")
    faults = faults_of(lambda: read_label_table(path))
    assert faults == ("row 4: id 1 is already used in row 2", "row 5: name 'A' is already used in row 2")


def test_only_the_id_0_is_passed_over(tmp_path: Path) -> None:
    table = read_label_table(table_at(tmp_path, "id,name", "07,A", "0,unlabelled", "10,B"))
    assert [(one.id, one.name) for one in table.labels] == [(7, "A"), (10, "B")]


@pytest.mark.parametrize("lines", [("id,name",), ("id,name", "0,unlabelled")])
def test_a_label_table_without_labels_is_refused(tmp_path: Path, lines: tuple[str, ...]) -> None:
    assert "no label" in faults_of(lambda: read_label_table(table_at(tmp_path, *lines)))[0]


def test_a_label_table_survives_a_round_trip_through_its_json(tmp_path: Path) -> None:
    table = read_label_table(table_at(tmp_path, "id,name,colour,group", "3,V1,#a0b1c2,V", "1,M1,,"))
    assert LabelTable.model_validate_json(table.model_dump_json()) == table
