"""Tables as spreadsheets save them: read as they are shown, or refused with the row and what to do."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from cytoarch.brains import read_label_table, read_manifest
from cytoarch.embeddings.places import Points, read_regions
from cytoarch.encoders.conversion_tables import read_table
from cytoarch.errors import CytoarchError, ManifestError
from cytoarch.tables import csv_rows


class Kind(NamedTuple):
    """A table that people write, and what reads it."""

    lines: tuple[str, ...]
    read: Callable[[Path], object]


KINDS = {
    "manifest": Kind(
        ("brain_id,section_id,section_number,path", "B1,s1,1,a.tif", "B1,s2,2,b.tif"),
        lambda path: read_manifest(path, path.parent, None),
    ),
    "label table": Kind(("id,name,group", "1,V1,visual", "2,Größe,visual"), read_label_table),
    "points": Kind(("section_id,y_px,x_px,area", "s1,1.5,2.5,V1", "s1,3,4,V2"), lambda path: Points.read(path, ["s1"])),
    "regions": Kind(
        ("section_id,y_px,x_px,height_px,width_px", "s1,1,2,3,4", "s1,5,6,7,8"),
        lambda path: read_regions(path, ["s1"]),
    ),
    "names of weights": Kind(("from,to", "a,x", "b,y"), read_table),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def table(folder: Path, content: bytes | str) -> Path:
    path = folder / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def as_saved(
    lines: tuple[str, ...], *, separator: str = ",", ends: str = "\n", first: str = "", behind: str = ""
) -> str:
    rows = [line.replace(",", separator) + behind for line in lines]
    return ends.join(([first] if first else []) + rows) + ends


@every_kind
@pytest.mark.parametrize(
    "saved",
    [
        pytest.param({"behind": ",,,"}, id="empty columns at the end"),
        pytest.param({"separator": ";", "first": "sep=;"}, id="sep=;"),
        pytest.param({"separator": ";", "first": '"sep=;"', "ends": "\r\n"}, id="quoted sep=;"),
        pytest.param({"separator": ",", "first": "SEP=,"}, id="SEP=,"),
        pytest.param({"separator": "|", "first": "sep=|"}, id="sep=|"),
        pytest.param({"separator": "\t", "first": "sep=\t"}, id="sep=tab"),
        pytest.param({"separator": ";", "first": "sep=;;;", "behind": ";;"}, id="sep=; saved again"),
        pytest.param({"ends": "\r"}, id="line ends of an old Mac"),
        pytest.param({"separator": ";", "ends": "\r", "first": "sep=;", "behind": ";;"}, id="all at once"),
        pytest.param({"ends": "\r\n"}, id="line ends of Windows"),
        pytest.param({"separator": ";"}, id="semicolons"),
        pytest.param({"separator": "\t"}, id="tabs"),
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "byte order mark"])
def test_what_spreadsheets_add_changes_nothing(tmp_path: Path, kind: Kind, saved: dict[str, str], mark: bytes) -> None:
    plain = kind.read(table(tmp_path, as_saved(kind.lines)))
    assert kind.read(table(tmp_path, mark + as_saved(kind.lines, **saved).encode())) == plain


@every_kind
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp1252", "latin-1"])
def test_a_table_in_another_encoding_is_refused_and_told_what_to_save(
    tmp_path: Path, kind: Kind, encoding: str
) -> None:
    text = as_saved((*kind.lines[:-1], kind.lines[-1] + "ö"))
    with pytest.raises(CytoarchError, match=r"CSV UTF-8|NUL bytes"):
        kind.read(table(tmp_path, text.encode(encoding)))


@every_kind
@pytest.mark.parametrize("start", [b"PK\x03\x04\x14\x00", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"])
def test_a_workbook_is_refused_as_one_and_told_what_to_save(tmp_path: Path, kind: Kind, start: bytes) -> None:
    with pytest.raises(CytoarchError, match=r"is a workbook .* 'CSV UTF-8'"):
        kind.read(table(tmp_path, start + bytes(500)))


def rows_of(folder: Path, text: str, known: tuple[str, ...] | None = None) -> list[tuple[int, dict[str, str]]]:
    rows, faults = csv_rows(table(folder, text), known, ("a", "b"))
    assert faults == []
    return rows


def faults_of(folder: Path, text: str, known: tuple[str, ...] | None = ("a", "b", "c")) -> list[str]:
    try:
        return csv_rows(table(folder, text), known, ("a", "b"))[1]
    except ManifestError as error:
        return list(error.faults)


def test_the_header_says_what_separates_cells_and_nothing_below_it_does(tmp_path: Path) -> None:
    for ends in ("\n", "\r", "\r\n"):
        assert rows_of(tmp_path, ends.join(["a;b", "1;2,5", "x,y,z;4"])) == [
            (2, {"a": "1", "b": "2,5"}),
            (3, {"a": "x,y,z", "b": "4"}),
        ]
    assert rows_of(tmp_path, 'a;b;"size, um"\n1;2;3') == [(2, {"a": "1", "b": "2", "size, um": "3"})]
    assert rows_of(tmp_path, "a,b,x;y;z;w\n1,2,3") == [(2, {"a": "1", "b": "2", "x;y;z;w": "3"})]


def test_a_line_that_names_the_separator_is_not_counted_among_the_rows(tmp_path: Path) -> None:
    assert rows_of(tmp_path, "sep=;\na;b\n1;2") == [(2, {"a": "1", "b": "2"})]
    assert faults_of(tmp_path, "sep=;\na;b\n1") == ["row 2: 1 cells where the header has 2"]


def test_rows_below_blank_lines_are_counted_as_a_spreadsheet_does(tmp_path: Path) -> None:
    assert rows_of(tmp_path, "a,b\n1,2") == [(2, {"a": "1", "b": "2"})]
    assert rows_of(tmp_path, "\n,,\na,b\n1,2") == [(4, {"a": "1", "b": "2"})]
    assert rows_of(tmp_path, "sep=;\r\n;;;\r\na;b\r\n1;2") == [(3, {"a": "1", "b": "2"})]
    assert rows_of(tmp_path, ";;\r;\ra;b\r1,5;2") == [(4, {"a": "1,5", "b": "2"})]
    assert faults_of(tmp_path, "\n\na,c\n1,2") == ["row 3: column b is missing"]


def test_a_separator_that_is_named_is_believed(tmp_path: Path) -> None:
    assert faults_of(tmp_path, "sep=;\na,b\n1,2")[0] == "row 1: column a is missing"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a,b,,\n1,2,,3", "row 1: column 3 has no name; name it or clear it"),
        ("a,,b\n1,,2", "row 1: column 2 has no name; name it or clear it"),
        ("a,b\n1,2\n1,2,3", "row 3: 3 cells where the header has 2"),
        ("a,b,,\n1,2,,\n1", "row 3: 1 cells where the header has 2"),
    ],
)
def test_cells_under_no_name_are_never_dropped(tmp_path: Path, text: str, fault: str) -> None:
    assert fault in faults_of(tmp_path, text)


def test_blank_cells_behind_the_last_column_are_none_whichever_row_has_them(tmp_path: Path) -> None:
    assert rows_of(tmp_path, "a,b\n1,2,,\n3,4\n, , ,\n5,6, ", ("a", "b")) == [
        (2, {"a": "1", "b": "2"}),
        (3, {"a": "3", "b": "4"}),
        (5, {"a": "5", "b": "6"}),
    ]


@pytest.mark.parametrize("cell", ["0,5", "-12,25"])
def test_a_decimal_comma_is_refused_and_told_what_to_write(tmp_path: Path, cell: str) -> None:
    path = table(tmp_path, f"section_id;y_px;x_px\ns1;1;{cell}\n")
    with pytest.raises(ManifestError, match=rf"row 2: x_px '{cell}': .*; decimals are written with a point"):
        Points.read(path, ["s1"])
