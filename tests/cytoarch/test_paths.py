"""Names and paths from outside: what may be an address, and where a path leads."""

from pathlib import Path

import pytest

from cytoarch.errors import ScanError
from cytoarch.paths import confined, is_id


@pytest.mark.parametrize("text", ["B1\n", "\nB1", "B1\r", "B1\0", "B 1", "Bé", "x" * 65, ".", "..", "-"])
def test_what_could_be_another_address_is_no_id(text: str) -> None:
    assert not is_id(text)


@pytest.mark.parametrize("text", ["0", "B1", "b.c-d_e", "x" * 64, "CON.1"])
def test_letters_digits_and_three_signs_are_an_id(text: str) -> None:
    assert is_id(text)


@pytest.mark.parametrize("text", ["HTTP:a.tif", "Zip::a.tif", "a::b.tif", "s3://a/b.tif", "./x://y.tif", "a\0.tif"])
def test_what_libraries_would_take_for_another_place_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ScanError, match=r"looks like a URL|NUL"):
        confined(text, tmp_path)


@pytest.mark.parametrize("text", [".", "", "below/..", "c:a.tif", "./http:a.tif", "below/http:a.tif", "a..tif"])
def test_what_stays_below_the_folder_is_that_place(tmp_path: Path, text: str) -> None:
    (tmp_path / "below").mkdir()
    assert confined(text, tmp_path) == (tmp_path / text).resolve()


def test_a_folder_whose_name_begins_alike_is_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    with pytest.raises(ScanError, match="leads outside"):
        confined("../scans2/a.tif", tmp_path / "scans")


def test_a_loop_of_links_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "a.tif").symlink_to("a.tif")
    with pytest.raises(ScanError, match="cannot be followed"):
        confined("a.tif", tmp_path)
