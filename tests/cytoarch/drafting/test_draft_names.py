"""Names of files: the numbers and ids of sections, and which label image belongs to which scan."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytoarch.drafting import draft_manifest
from cytoarch.drafting.names import match_labels, section_numbers
from cytoarch.errors import ManifestError
from tests.cytoarch.drafting.drafts import completed, drafted, scans, scans_in

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
        (["cells_5um"], [None]),
        (["a_5um_s3", "a_5um_s4"], [3, 4]),
        (["s3 20x", "s4 20x", "s5 10x"], [3, 4, 5]),
        (["B1_s3_0.5\N{MICRO SIGN}m", "B1_s4_0.5\N{MICRO SIGN}m"], [3, 4]),
        (["s010", "s10"], [None, None]),
        (["x001", "x002", "x003"], [1, 2, 3]),
        (["B20_x1", "B20_x2"], [1, 2]),
        (["s1_x4", "s2_x10"], [1, 2]),
        (["left_x4"], [None]),
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
    found = match_labels([*scans, "-"], labels)
    assert (found.same, found.alike, found.doubtful) == ({}, alike, doubtful)


def test_the_folder_of_the_scans_is_refused_as_that_of_the_labels(tmp_path: Path) -> None:
    scans_in(tmp_path / "scans", "a.tif", "a_labels.png")
    with pytest.raises(ManifestError, match="folder of the scans too"):
        draft_manifest(tmp_path / "scans", tmp_path / "m.csv", tmp_path / "scans" / ".." / "scans")


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("cells_5um.png", "?5"),
        ("B1 s3 0.25 um.png", "?0.25"),
        ("B1_s3_0p5um.png", "?0.5"),
        ("B1_s3_325nm.png", "?0.325"),
        ("B1_s3_0.5\N{MICRO SIGN}m.png", "?0.5"),
        ("cut_50um_scan_2um.png", ""),
        ("thick_500um.png", ""),
        ("human5.png", ""),
        ("s5umbra.png", ""),
    ],
)
def test_a_length_in_a_name_is_proposed_as_pixel_size_where_it_can_be_one(tmp_path: Path, name: str, cell: str) -> None:
    draft_manifest(scans(tmp_path / "scans", name), tmp_path / "m.csv")
    assert drafted(tmp_path / "m.csv")[0]["pixel_size_um"] == cell


def test_what_the_file_states_goes_before_what_its_name_says(tmp_path: Path) -> None:
    folder = scans(tmp_path / "scans", "a_5um.tif", resolution=(2e4, 2e4), resolutionunit="CENTIMETER")
    draft_manifest(folder, tmp_path / "m.csv")
    assert drafted(tmp_path / "m.csv")[0]["pixel_size_um"] == "0.5"


def test_the_only_scan_and_the_only_label_image_are_proposed_as_a_pair() -> None:
    found = match_labels(["cells"], ["regions"])
    assert (found.alike, found.left_over) == ({0: 0}, ())
    found = match_labels(["cells", "more"], ["regions"])
    assert (found.alike, found.left_over) == ({}, (0,))
