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


def test_links_are_followed_wherever_they_are_met(tmp_path: Path) -> None:
    """Of the folder itself, of a folder below it, of the file; also after the link was made to lead elsewhere."""
    for name in ("first", "second"):
        (tmp_path / name / "scans" / "deep").mkdir(parents=True)
        (tmp_path / name / "scans" / "deep" / "a.tif").touch()
    root = tmp_path / "root"
    for name in ("first", "second"):
        root.unlink(missing_ok=True)
        root.symlink_to(name)
        assert confined("scans/deep/a.tif", root) == tmp_path / name / "scans" / "deep" / "a.tif"
    (tmp_path / "second" / "inside").symlink_to("scans")
    (tmp_path / "second" / "outside").symlink_to(tmp_path / "first" / "scans")
    assert confined("inside/deep/a.tif", root) == tmp_path / "second" / "scans" / "deep" / "a.tif"
    with pytest.raises(ScanError, match="leads outside"):
        confined("outside/deep/a.tif", root)
    (tmp_path / "second" / "scans" / "b.tif").symlink_to(tmp_path / "first" / "scans" / "deep" / "a.tif")
    with pytest.raises(ScanError, match="leads outside"):
        confined("scans/b.tif", root)


def test_a_relative_folder_is_that_of_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "other"):
        (tmp_path / name / "scans").mkdir(parents=True)
        (tmp_path / name / "scans" / "a.tif").touch()
        monkeypatch.chdir(tmp_path / name)
        assert confined("a.tif", Path("scans")) == tmp_path / name / "scans" / "a.tif"


@pytest.mark.parametrize(
    "name", ["none.tif", "a.tif/b.tif", "x" * 300 + ".tif"], ids=["absent", "below a file", "long"]
)
def test_a_file_that_cannot_be_there_has_a_path_all_the_same(tmp_path: Path, name: str) -> None:
    """It costs its section when it is opened, not the whole manifest."""
    (tmp_path / "a.tif").touch()
    assert confined(name, tmp_path) == tmp_path.resolve() / name


def test_a_loop_of_links_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "a.tif").symlink_to("a.tif")
    with pytest.raises(ScanError, match="cannot be followed"):
        confined("a.tif", tmp_path)
