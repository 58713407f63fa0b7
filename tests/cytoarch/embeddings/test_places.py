"""Tables of regions and points: what they say is read exactly, and every fault is named with its row."""

import math
from pathlib import Path

import pytest
from known_sections import noise, stored_section

from cytoarch.brains import Section
from cytoarch.embeddings.places import Points, check_inside, read_regions
from cytoarch.errors import ManifestError, SectionError

IDS = ["s1", "s2"]


def table(folder: Path, *lines: str) -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def section(section_id: str, **stated) -> Section:
    return Section(brain_id="B", section_id=section_id, section_number=1, path="a.tif", **stated)


def faults_of(path: Path, kind: str) -> tuple[str, ...]:
    with pytest.raises(ManifestError) as raised:
        Points.read(path, IDS) if kind == "points" else read_regions(path, IDS)
    assert raised.value.where == str(path)
    return raised.value.faults


HEADERS = {"points": "section_id,y_px,x_px", "regions": "section_id,y_px,x_px,height_px,width_px"}
REST = {"points": "", "regions": ",10,10"}
both = pytest.mark.parametrize("kind", ["points", "regions"])


def test_points_are_read_by_section_in_the_order_of_the_table(tmp_path: Path):
    path = table(
        tmp_path, "x_px,section_id,y_px,area,x_mm", "1,s2,2.5,V1,7", "", "-0.5,s1,0,,8", "3,s2,4,A 4;5,"
    )  # fmt: skip
    points = Points.read(path, IDS)
    assert points.section_ids == {"s1", "s2"}
    assert points.sections["s2"].rows == (2, 5)
    assert points.sections["s2"].places_px == ((2.5, 1.0), (4.0, 3.0))
    assert points.sections["s2"].columns == {
        "area": ("V1", "A 4;5"),
        "x_mm": (7.0, pytest.approx(math.nan, nan_ok=True)),
    }
    assert points.sections["s1"].rows == (4,)
    assert points.sections["s1"].columns == {"area": ("",), "x_mm": (8.0,)}


def test_regions_are_read_in_pixels_and_given_in_micrometres(tmp_path: Path):
    path = table(tmp_path, HEADERS["regions"], "s2,1,2,3,4", "s1,0,0,0.5,1", "s2,10,20,30,40")
    regions = read_regions(path, IDS)
    assert regions.section_ids == {"s1", "s2"}
    assert regions.windows(section("s2"), 2.0) == ((2.0, 4.0, 6.0, 8.0), (20.0, 40.0, 60.0, 80.0))
    assert regions.windows(section("s3"), 2.0) == ()


def test_regions_of_a_section_that_is_a_part_of_its_scan_are_counted_from_that_part(tmp_path: Path):
    path = table(tmp_path, HEADERS["regions"], "s1,110,325,3,4", "s1,95,300,30,40")
    part = section("s1", region_px=(100, 140, 300, 350))
    assert read_regions(path, IDS).windows(part, 2.0) == ((20.0, 50.0, 6.0, 8.0), (-10.0, 0.0, 60.0, 80.0))


@pytest.mark.parametrize(
    ("window", "inside"),
    [
        ((0.0, 0.0, 1.0, 1.0), True),
        ((-5.0, -5.0, 6.0, 6.0), True),
        ((79.0, 0.0, 9.0, 9.0), True),
        ((0.0, 99.0, 9.0, 9.0), True),
        ((80.0, 0.0, 9.0, 9.0), False),
        ((0.0, 100.0, 9.0, 9.0), False),
        ((90.0, 0.0, 9.0, 9.0), False),
        ((-5.0, 0.0, 5.0, 9.0), False),
        ((0.0, -9.0, 9.0, 8.0), False),
    ],
)
def test_regions_beside_their_section_are_refused(tmp_path: Path, window: tuple[float, ...], inside: bool):
    image = stored_section(tmp_path, noise(40, 50), 2.0)
    part = section("s1", region_px=(100, 140, 300, 350))
    if inside:
        check_inside([window], part, image)
        return
    message = (
        r"1 of its 2 regions lie outside the section of 40 x 50 px that begins at row 100, column 300 of its scan; "
        "they must be in pixels of the scan, y before x"
    )
    with pytest.raises(SectionError, match=message):
        check_inside([(0.0, 0.0, 1.0, 1.0), window], part, image)
    with pytest.raises(SectionError, match="1 of its 1 regions lie outside the section of 40 x 50 px; they"):
        check_inside([window], section("s1"), image)


@both
def test_a_section_that_is_not_there_is_named_with_those_that_are(tmp_path: Path, kind: str):
    path = table(tmp_path, HEADERS[kind], f"s1,1,1{REST[kind]}", f"s9,1,1{REST[kind]}", f"s9,2,2{REST[kind]}")
    (fault,) = faults_of(path, kind)
    assert fault == "rows 3-4: section_id 's9' is no section of this brain; there are s1, s2"


@both
@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ("s1,abc,1", "row 3: y_px 'abc': Input should be a valid number"),
        ("s1,1,", "row 3: x_px is blank; it is needed"),
        (",1,1", "row 3: section_id is blank; it is needed"),
        ("s1,nan,1", "row 3: y_px 'nan': Input should be a finite number"),
        ("s1,1,inf", "row 3: x_px 'inf'"),
        ("s1,1e9,1", "row 3: y_px '1e9': Input should be less than or equal to 10000000"),
        ("s1,-2e7,1", "row 3: y_px '-2e7': Input should be greater than or equal to"),
        ("../s1,1,1", "row 3: section_id '../s1'"),
    ],
)
def test_a_bad_cell_is_named_with_its_row(tmp_path: Path, kind: str, cells: str, said: str):
    path = table(tmp_path, HEADERS[kind], f"s1,1,1{REST[kind]}", f"{cells}{REST[kind]}")
    assert faults_of(path, kind)[0].startswith(said)


@both
def test_every_fault_is_listed(tmp_path: Path, kind: str):
    rest = REST[kind]
    path = table(tmp_path, HEADERS[kind], f"s1,a,b{rest}", f"s9,1,1{rest}", f"s1,1,1,1,1,1,1{rest}", f"s1,1,1{rest}")
    text = "\n".join(faults_of(path, kind))
    assert all(part in text for part in ("row 2: y_px 'a'", "row 2: x_px 'b'", "row 3: section_id 's9'", "row 4: "))


@both
@pytest.mark.parametrize("lines", [(), ("",), (" ",)])
def test_an_empty_file_lacks_its_columns(tmp_path: Path, kind: str, lines: tuple[str, ...]):
    found = faults_of(table(tmp_path, *lines), kind)
    assert found[:3] == tuple(f"row 1: column {name} is missing" for name in ("section_id", "y_px", "x_px"))


@both
def test_a_table_without_rows_is_refused(tmp_path: Path, kind: str):
    (fault,) = faults_of(table(tmp_path, HEADERS[kind], "", ",,"), kind)
    assert fault == f"no {kind[:-1]} is named; at least one row is needed"


@both
def test_a_missing_column_and_a_missing_file_are_said(tmp_path: Path, kind: str):
    assert faults_of(table(tmp_path, HEADERS[kind].replace("y_px", "y")), kind)[0] == "row 1: column y_px is missing"
    assert faults_of(tmp_path / "none.csv", kind) == ("the file does not exist",)


@pytest.mark.parametrize(
    ("cells", "said"), [("s1,-1,1,1,1", "y_px '-1'"), ("s1,1,1,0,1", "height_px '0'"), ("s1,1,1,1,-5", "width_px '-5'")]
)
def test_a_region_has_a_size_and_begins_in_the_section(tmp_path: Path, cells: str, said: str):
    assert faults_of(table(tmp_path, HEADERS["regions"], cells), "regions")[0].startswith(f"row 2: {said}")


def test_a_column_regions_do_not_know_is_named(tmp_path: Path):
    path = table(tmp_path, HEADERS["regions"] + ",area", "s1,1,1,1,1,V1")
    assert faults_of(path, "regions")[0].startswith("row 1: column 'area' is not known; the columns are section_id")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_of_any_spreadsheet_are_read_alike(tmp_path: Path, separator: str):
    lines = [line.replace(",", separator) for line in ("section_id,y_px,x_px,area", "s1,1.5,2.5,V1")]
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert Points.read(path, IDS).sections["s1"].places_px == ((1.5, 2.5),)


def test_the_digest_of_a_sections_points_knows_its_own_points_only_and_not_their_rows(tmp_path: Path):
    lines = ["section_id,y_px,x_px,area", "s1,1,2,V1", "s2,3,4,V2"]
    first = Points.read(table(tmp_path, *lines), IDS)
    for changed, same in (
        ([*lines[:2], "s2,3,5,V2"], {"s1"}),
        ([*lines[:2], "s2,3,4,V3"], {"s1"}),
        ([lines[0], "s1,1.0,2.0,V1", "s2,3,4,V2"], {"s1", "s2"}),
        ([lines[0], lines[2], "", lines[1]], {"s1", "s2"}),
        ([*lines, "s2,5,6,V2"], {"s1"}),
        ([lines[0], "s1,1,2,V2", lines[2]], {"s2"}),
        ([lines[0].replace("area", "region"), *lines[1:]], set()),
    ):
        other = Points.read(table(tmp_path, *changed), IDS)
        assert {one for one in IDS if first.sections[one].digest == other.sections[one].digest} == same


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (("1", "-2"), (1, -2)),
        (("1", ""), (1.0, math.nan)),
        (("1.0", "2"), (1.0, 2.0)),
        (("1e-3", ".5"), (0.001, 0.5)),
        (("007", "1"), (7.0, 1.0)),
        (("V1", "2"), ("V1", "2")),
        (("nan", "2"), ("nan", "2")),
        (("inf", "2"), ("inf", "2")),
        (("1_0", "2"), ("1_0", "2")),
        (("0x1", "2"), ("0x1", "2")),
    ],
)
def test_a_column_has_one_type_in_the_whole_table(tmp_path: Path, cells, values):
    """Cells of different sections: what one of them holds decides for both."""
    points = Points.read(table(tmp_path, "section_id,y_px,x_px,c", f"s1,1,2,{cells[0]}", f"s2,3,4,{cells[1]}"), IDS)
    found = tuple(points.sections[one].columns["c"][0] for one in IDS)
    assert [type(one) for one in found] == [type(one) for one in values]
    assert found == pytest.approx(values, nan_ok=True) if isinstance(values[0], float) else found == values


@pytest.mark.parametrize("name", ["point", "draw", "index", "_index", "", "a/b", "..", "zarr.json"])
def test_a_column_that_cannot_be_kept_is_refused_by_name(tmp_path: Path, name: str):
    (fault,) = faults_of(table(tmp_path, f"section_id,y_px,x_px,{name}", "s1,1,2,3"), "points")
    assert fault.startswith(f"row 1: column {name!r} cannot be kept beside the embeddings")


@pytest.mark.parametrize("cell", ["", "nan", "inf", "left"])
def test_coordinates_in_the_brain_are_numbers_in_every_row(tmp_path: Path, cell: str):
    path = table(tmp_path, "section_id,y_px,x_px,x_mm,y_mm,z_mm", "s1,1,2,1,2,3", f"s1,1,2,1,{cell},3")
    assert faults_of(path, "points") == (f"row 3: y_mm {cell!r}: a number is needed",)


def test_the_points_of_some_sections_are_those_of_the_whole_table(tmp_path: Path):
    points = Points.read(table(tmp_path, "section_id,y_px,x_px", "s1,1,2", "s2,3,4"), IDS)
    one = Section(brain_id="B", section_id="s2", section_number=1, path="a.tif")
    assert points.of([one]).sections == {"s2": points.sections["s2"]}
