"""Areas drawn in QuPath are read as label images on the pixels of their scan."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cytoarch.brains import Label, LabelTable
from cytoarch.errors import ScanError
from cytoarch.images.drawn import drawn_labels

TABLE = LabelTable(labels=(Label(id=3, name="V1"), Label(id=900, name="V2")))
SHAPE = (40, 60)


def annotation(classed: str | None, *rings: list[tuple[float, float]], **properties: Any) -> dict[str, Any]:
    classified = {"classification": {"name": classed, "color": [1, 2, 3]}} if classed else {}
    geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]] for ring in rings]}
    return {"type": "Feature", "geometry": geometry, "properties": {**classified, **properties}}


def box(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s1.geojson"


def write(path: Path, *features: dict[str, Any], collection: bool = True) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features} if collection else features))
    return path


@pytest.mark.parametrize("collection", [True, False])
def test_polygons_become_ids_at_the_pixels_whose_centres_they_hold(path: Path, collection: bool) -> None:
    first = annotation("V1", box(5, 10, 25, 30), box(10, 15, 20, 25))
    write(path, first, annotation(None, box(20, 0, 40, 12.6), name="V2"), collection=collection)
    labels = drawn_labels(path, TABLE, SHAPE, None)
    expected = np.zeros(SHAPE, dtype=np.uint16)
    expected[10:30, 5:25] = 3
    expected[15:25, 10:20] = 0
    expected[0:13, 20:40] = 900
    assert (labels.read(0, 0, *SHAPE)[0] == expected).all()
    assert (labels.read(7, 11, 20, 30)[0] == expected[7:27, 11:41]).all()  # any window gives the same


def test_outlines_of_a_slide_are_cut_to_the_section(path: Path) -> None:
    write(path, annotation("V1", box(105, 210, 125, 230)), annotation("V2", box(0, 0, 9, 9)))
    labels = drawn_labels(path, TABLE, SHAPE, (200, 240, 100, 160)).read(0, 0, *SHAPE)[0]
    assert (labels[10:30, 5:25] == 3).all()
    assert np.count_nonzero(labels) == 400


def test_unknown_classes_are_told_together(path: Path) -> None:
    write(path, annotation("V1", box(0, 0, 5, 5)), *(annotation(one, box(0, 0, 5, 5)) for one in ("X", "Y", "X")))
    with pytest.raises(ScanError, match=r"'X' \(2\), 'Y' \(1\) are not in the label table"):
        drawn_labels(path, TABLE, SHAPE, None)


def test_what_has_no_class_or_no_area_is_left_out_with_a_remark(path: Path) -> None:
    line = annotation("V1", box(0, 0, 5, 5))
    line["geometry"] = {"type": "LineString", "coordinates": [[0, 0], [9, 9]]}
    crossed = annotation("V2", [(0, 0), (10, 10), (10, 0), (0, 10)])
    labels = drawn_labels(write(path, annotation(None, box(1, 1, 2, 2)), line, crossed), TABLE, SHAPE, None)
    assert [one.split(" ", 1)[0] for one in labels.remarks] == ["1", "1", "1"]
    assert set(np.unique(labels.read(0, 0, *SHAPE))) == {0, 900}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"features": 3}', "is no GeoJSON"),
        ("[1, 2]", "is no GeoJSON"),
        ("not json", "is no GeoJSON"),
        ('{"features": []}', "holds no polygon"),
        (json.dumps([annotation("V1", box(100, 100, 120, 120))]), "lie beside the scan"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(path: Path, content: str, told: str) -> None:
    path.write_text(content)
    with pytest.raises(ScanError, match=told):
        drawn_labels(path, TABLE, SHAPE, None)
