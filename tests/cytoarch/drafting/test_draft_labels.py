"""Label tables drafted from label images: every id that occurs, and what only a person knows left blank."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cytoarch.brains import read_label_table
from cytoarch.drafting import draft_label_table, draft_manifest
from cytoarch.errors import ManifestError
from tests.cytoarch.drafting.drafts import drafted, scans

ALLEN = 614454277


@pytest.fixture(autouse=True)
def _children_of_tables(children: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cytoarch.drafting.known_labels.Contained", lambda: children)


def labels(folder: Path, name: str, ids: NDArray[np.generic]) -> Path:
    folder.mkdir(exist_ok=True)
    if name.endswith(".tif"):
        tifffile.imwrite(folder / name, ids, metadata=None)
    else:
        Image.fromarray(ids).save(folder / name)
    return folder


def test_every_id_of_every_image_has_a_row_and_no_name(tmp_path: Path) -> None:
    folder = labels(tmp_path / "labels", "a.png", np.array([[0, 3], [7, 3]], dtype=np.uint8))
    labels(folder, "b.tif", np.array([[0, ALLEN], [3, 12]], dtype=np.uint32))
    count, remarks = draft_label_table(folder, tmp_path / "labels.csv")
    rows = drafted(tmp_path / "labels.csv")
    assert (count, remarks) == (4, [])
    assert [row["id"] for row in rows] == ["3", "7", "12", str(ALLEN)]
    assert {row["name"] for row in rows} == {""}


def test_a_table_is_refused_until_its_labels_have_names_and_read_once_they_have(tmp_path: Path) -> None:
    folder = labels(tmp_path / "labels", "a.tif", np.array([[0, ALLEN], [5, 5]], dtype=np.uint32))
    path = tmp_path / "labels.csv"
    draft_label_table(folder, path)
    with pytest.raises(ManifestError, match="rows 2-3: name is blank"):
        read_label_table(path)
    path.write_text(path.read_text().replace(",,", ",area,", 1).replace(f"{ALLEN},,", f"{ALLEN},other,"))
    assert [(one.id, one.name) for one in read_label_table(path).labels] == [(5, "area"), (ALLEN, "other")]


def test_colours_of_a_palette_and_names_of_outlines_are_taken_over(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 2]], dtype=np.uint8), mode="P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    (tmp_path / "labels").mkdir()
    image.save(tmp_path / "labels" / "a.png")
    ring = [[0, 0], [2, 0], [2, 2], [0, 0]]
    drawn = [
        {"geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {"name": name}} for name in ("V1", "M1")
    ]
    (tmp_path / "labels" / "b.geojson").write_text(json.dumps(drawn))
    draft_label_table(tmp_path / "labels", tmp_path / "labels.csv")
    rows = [(row["id"], row["name"], row["colour"]) for row in drafted(tmp_path / "labels.csv")]
    assert rows == [("1", "", "#ff0000"), ("2", "", "#0000ff"), ("3", "M1", ""), ("4", "V1", "")]


def test_what_is_no_label_image_is_told_and_costs_only_itself(tmp_path: Path) -> None:
    folder = labels(tmp_path / "labels", "a.png", np.array([[4]], dtype=np.uint8))
    (folder / "b.png").write_bytes(b"no image")
    labels(folder, "scan.tif", np.arange(10_000, dtype=np.uint16).reshape(100, 100))
    count, remarks = draft_label_table(folder, tmp_path / "labels.csv")
    assert count == 1
    assert sorted(remark.split(":")[0] for remark in remarks) == [str(folder / "b.png"), str(folder / "scan.tif")]
    assert any("looks like a scan" in remark for remark in remarks)


@pytest.mark.parametrize("background", [0, 235, 255])
def test_a_grey_picture_among_labels_is_told_and_an_atlas_numbered_without_gaps_is_not_doubted(
    tmp_path: Path, background: int
) -> None:
    grey = np.full((120, 120), background, dtype=np.uint8)
    y, x = np.mgrid[:90, :90]
    grey[10:100, 10:100] = 20 + y + x + np.random.default_rng(0).integers(0, 40, (90, 90))
    folder = labels(tmp_path / "labels", "overview.png", grey)
    atlas = np.kron(np.arange(196, dtype=np.uint8).reshape(14, 14), np.ones((6, 6), dtype=np.uint8))
    labels(folder, "s1.png", atlas)
    count, remarks = draft_label_table(folder, tmp_path / "labels.csv")
    assert count == 195
    (remark,) = remarks
    assert remark.startswith(str(folder / "overview.png"))
    assert "looks like a scan" in remark


def test_ids_that_no_table_may_hold_are_told(tmp_path: Path) -> None:
    folder = labels(tmp_path / "labels", "a.png", np.array([[4]], dtype=np.uint8))
    labels(folder, "b.tif", np.array([[0, 2**31 - 1]], dtype=np.uint32))
    labels(folder, "c.tif", np.array([[0, 2**31]], dtype=np.uint32))
    count, remarks = draft_label_table(folder, tmp_path / "labels.csv")
    assert [row["id"] for row in drafted(tmp_path / "labels.csv")] == ["4", str(2**31 - 1)]
    assert count == 2
    (remark,) = remarks
    assert remark.startswith(str(folder / "c.tif"))
    assert "id 2147483648" in remark


def test_a_table_that_is_there_is_left_alone(tmp_path: Path) -> None:
    folder = labels(tmp_path / "labels", "a.png", np.array([[4]], dtype=np.uint8))
    (tmp_path / "labels.csv").write_text("work")
    draft_label_table(folder, tmp_path / "labels.csv")
    assert (tmp_path / "labels.csv").read_text() == "work"


def test_outlines_are_matched_to_scans_like_label_images(tmp_path: Path) -> None:
    folder = scans(tmp_path / "scans", "a_01.tif")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a_01.geojson").write_text("[]")
    _, remarks = draft_manifest(folder, tmp_path / "m.csv", tmp_path / "labels")
    assert remarks == []
    assert drafted(tmp_path / "m.csv")[0]["labels"] == "labels/a_01.geojson"
