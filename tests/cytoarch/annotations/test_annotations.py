"""Scribbles as data: their labels, their files, and a drawing that survives whatever happens to its window."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import distance_transform_edt

from cytoarch.annotations.autosave import Drawing
from cytoarch.annotations.drawing import DrawnLabels
from cytoarch.annotations.exchange import (
    RUBBED,
    Drawer,
    as_json,
    features_of,
    scribbles_in,
    scribbles_in_image,
    scribbles_of_labels,
    scribbles_of_shapes,
    shapes_of,
    write_label_image,
)
from cytoarch.annotations.scribbles import Annotation, Scribble
from cytoarch.brains import Label, LabelTable, stated_section
from cytoarch.errors import ScanError, StoreError
from cytoarch.geometry import Grid, Transform

TABLE = LabelTable(labels=(Label(id=1, name="L1"), Label(id=4, name="L4", colour="#112233"), Label(id=900, name="WM")))
BY = Drawer("s1", "ada", "2026-01-02T03:04:05.678Z", 2)
GRID = Grid((40, 60), 2.0, (0.0, 0.0))

places = st.tuples(st.floats(-50, 90), st.floats(-50, 90))
lines = st.builds(
    lambda label, path, width: BY.line(label, np.array(path), width),
    st.sampled_from([0, 1, 4, 900]),
    st.lists(places, min_size=1, max_size=6),
    st.floats(0.1, 30),
)
areas = st.builds(
    lambda label, path: BY.area(label, np.array(path)),
    st.sampled_from([0, 1, 900]),
    st.lists(places, min_size=3, max_size=8),
)


def annotation(scribbles) -> Annotation:
    return Annotation(brain_id="B1", author="ada", table=TABLE, scribbles=tuple(scribbles))


@given(st.lists(lines | areas, min_size=1, max_size=6))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_geojson_gives_back_what_was_drawn_to_the_bit(tmp_path: Path, drawn: list[Scribble]) -> None:
    path = tmp_path / "s1.geojson"
    path.write_bytes(as_json(annotation(drawn), "s1"))
    stranger = Drawer("s1", "bob", "2030-01-01T00:00:00Z")
    assert scribbles_in(path, TABLE, stranger, 5.0) == tuple(drawn)


def test_a_stroke_labels_the_pixels_within_half_its_width(tmp_path: Path) -> None:
    """The oracle: scipy's distance to the pixels of the middle line, drawn between centres of pixels."""
    drawn = DrawnLabels.of([BY.line(4, np.array([[20.5, 10.5], [20.5, 50.5]]), 7.0)], GRID, None)
    middle = np.zeros(GRID.shape, dtype=bool)
    middle[20, 10:51] = True
    near = distance_transform_edt(~middle)
    found = drawn.pixels() == 4
    assert found[near < 3.3].all()
    assert not found[near > 3.7].any()


@pytest.mark.parametrize("angle", np.linspace(0, np.pi, 7))
def test_the_thinnest_stroke_leaves_no_gap(angle: float) -> None:
    ends = np.array([20.2, 30.1]) + np.outer([-18, 18], [np.sin(angle), np.cos(angle)])
    found = DrawnLabels.of([BY.line(1, ends, 0.01)], GRID, None).pixels() == 1
    from scipy.ndimage import label

    assert label(found, np.ones((3, 3)))[1] == 1
    assert found.sum() >= 34 * max(abs(np.sin(angle)), abs(np.cos(angle)))


def test_what_is_drawn_later_covers_and_the_rubber_uncovers() -> None:
    whole = np.array([[0, 0], [0, 60], [40, 60], [40, 0]])
    left, middle = whole * [1, 0.5], whole * [0.5, 1.0] + [10, 0]
    drawn = DrawnLabels.of([BY.area(1, whole), BY.area(900, left), BY.area(0, middle)], GRID, None).pixels()
    assert (drawn[10:30] == 0).all()
    assert (drawn[:10, :30] == 900).all()
    assert (drawn[30:, 30:] == 1).all()


def test_any_window_and_any_part_of_a_slide_sees_the_same_labels() -> None:
    scribbles = [
        BY.line(4, np.array([[3, 3], [30, 50], [5, 55]]), 4.0),
        BY.area(1, np.array([[0, 0], [9, 30], [35, 2]])),
    ]
    whole = DrawnLabels.of(scribbles, GRID, None)
    part = DrawnLabels.of(scribbles, Grid((20, 30), 2.0, (0.0, 0.0)), (12, 32, 7, 37))
    np.testing.assert_array_equal(part.pixels(), whole.pixels()[12:32, 7:37])
    np.testing.assert_array_equal(whole.pixels(slice(5, 17), slice(8, 40)), whole.pixels()[5:17, 8:40])
    assert not whole.is_blank(GRID.window(0, 0, 10, 10))
    assert whole.is_blank(GRID.window(36, 0, 4, 60))


@given(st.integers(0, 10_000))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_label_image_comes_back_pixel_by_pixel(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([0, 0, 1, 4, 900], dtype=np.uint16), (20, 30))
    labels = np.kron(labels, np.ones((2, 2), dtype=np.uint16))
    drawn = DrawnLabels.of(scribbles_of_labels(labels, BY), GRID, None)
    np.testing.assert_array_equal(drawn.pixels(), labels)
    coarse = DrawnLabels.of(scribbles_of_labels(labels[::2, ::2], BY, (0, 0), 2.0), GRID, None)
    np.testing.assert_array_equal(coarse.pixels(), labels)
    path = tmp_path / "s1.png"
    write_label_image(path, drawn, 900)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), labels)
    section = stated_section("s1", {})
    again = scribbles_in_image(path, TABLE, section, BY, tmp_path, GRID.shape)
    with pytest.raises(ScanError, match="export it at full resolution"):
        scribbles_in_image(path, TABLE, section, BY, tmp_path, (2 * GRID.shape[0], 2 * GRID.shape[1]))
    np.testing.assert_array_equal(DrawnLabels.of(again, GRID, None).pixels(), labels)


def test_shapes_of_napari_come_back(tmp_path: Path) -> None:
    to_scan = Transform.scaling((4.0, 4.0)).then(Transform.shift((0.5, 0.5)))
    ring = BY.area(
        1, np.array([[2, 2], [2, 50], [35, 50], [35, 2]]), [np.array([[10, 10], [10, 40], [30, 40], [30, 10]])]
    )
    stroke = BY.line(4, np.array([[1.5, 1.5], [30.5, 40.5]]), 6.0)
    shapes = shapes_of([ring, stroke], to_scan.inverse())
    back = scribbles_of_shapes(shapes.data, shapes.shape_type, shapes.label, shapes.edge_width, to_scan, BY)
    np.testing.assert_array_equal(
        DrawnLabels.of(back, GRID, None).pixels(), DrawnLabels.of([ring, stroke], GRID, None).pixels()
    )
    box = np.array([[0.0, 0.0], [0.0, 10.0], [6.0, 10.0], [6.0, 0.0]])
    (ellipse,) = scribbles_of_shapes([box], ["ellipse"], [1], [1.0], Transform.scaling((1.0, 1.0)), BY)
    area = shapely.Polygon(ellipse.paths_px[0]).area
    assert area == pytest.approx(np.pi * 5 * 3, rel=0.01)


def test_features_are_what_qupath_expects() -> None:
    features = features_of(
        annotation([BY.line(4, np.array([[1, 2], [3, 5]]), 2.0), BY.line(0, np.array([[7, 8]]), 1.0)]), "s1"
    )
    line, point = features["features"]
    assert line["geometry"] == {"type": "LineString", "coordinates": [[2.0, 1.0], [5.0, 3.0]]}, "x before y"
    assert line["properties"]["classification"] == {"name": "L4", "color": [17, 34, 51]}
    assert line["properties"]["objectType"] == "annotation"
    assert point["geometry"] == {"type": "Point", "coordinates": [8.0, 7.0]}
    assert point["properties"]["classification"]["name"] == RUBBED


@pytest.mark.parametrize(
    ("content", "told"),
    [("hello", "is no GeoJSON"), ('{"type": "Point", "coordinates": [1, 2]}', "classes '' are not in the table")],
)
def test_files_that_are_no_scribbles_say_why(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(content)
    with pytest.raises(ScanError, match=told):
        scribbles_in(path, TABLE, BY, 1.0)


def test_an_annotation_knows_its_classes() -> None:
    with pytest.raises(ValueError, match=r"labels \[7\], which are not in the table"):
        annotation([BY.line(7, np.array([[0, 0]]), 1.0)])
    one = annotation([BY.line(0, np.array([[0, 0]]), 1.0)])
    assert one.section_ids == (), "a rubber labels nothing"


# -- a drawing in progress ---------------------------------------------------------------------------------------------


def stroke(at: float, label: int = 1) -> Scribble:
    return BY.line(label, np.array([[at, at], [at + 1, at]]), 3.0)


def test_every_stroke_undo_and_class_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "ada.jsonl"
    with Drawing.opened(path) as drawing:
        drawing.set_classes(TABLE.labels)
        for at in range(4):
            drawing.draw(stroke(at))
        assert drawing.undo() == stroke(3)
        assert drawing.undo() == stroke(2)
        assert drawing.redo() == stroke(2)
        drawing.note_training()
        drawing.note_saved("v0001")
    with Drawing.opened(path) as again:
        assert again.scribbles == [stroke(0), stroke(1), stroke(2)]
        assert again.undone == [stroke(3)]
        assert (again.labels, again.rounds, again.saved) == (TABLE.labels, 1, "v0001")
        again.draw(stroke(9))
        assert again.saved == "", "what was drawn since is in no version"
        assert again.undone == []
    assert path.read_bytes().count(b"\n") == 11, "nothing anybody drew is ever taken out of the file"


def test_what_was_undone_keeps_its_class_until_it_cannot_come_back(tmp_path: Path) -> None:
    first, second = Label(id=1, name="L1"), Label(id=2, name="L2")
    with Drawing.opened(tmp_path / "ada.jsonl") as drawing:
        drawing.set_classes((first, second))
        drawing.draw(stroke(0, label=2))
        drawing.undo()
        with pytest.raises(StoreError, match=r"classes \[2\] have scribbles, those that were undone"):
            drawing.set_classes((first,))
        drawing.redo()
        assert drawing.annotation("B1").scribbles == (stroke(0, label=2),)
        drawing.undo()
        drawing.draw(stroke(1))
        drawing.set_classes((first,))
        assert drawing.redo() is None


def test_the_version_that_a_drawing_goes_on_from_is_known_whatever_was_drawn_since(tmp_path: Path) -> None:
    path = tmp_path / "ada.jsonl"
    with Drawing.opened(path) as drawing:
        drawing.set_classes(TABLE.labels)
        drawing.draw(stroke(0))
        drawing.note_saved("v0001")
        drawing.draw(stroke(1))
    with Drawing.opened(path) as again:
        assert (again.saved, again.last_saved) == ("", "v0001")
        again.note_included("v0002")
        assert (again.saved, again.last_saved) == ("", "v0002")


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_line_cut_short_costs_that_line_alone(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "ada.jsonl"
    with Drawing.opened(path) as drawing:
        drawing.set_classes(TABLE.labels)
        drawing.draw(stroke(0))
        drawing.draw(stroke(1))
    path.write_bytes(path.read_bytes()[:-cut])
    with Drawing.opened(path) as again:
        assert again.scribbles == [stroke(0)]
        again.draw(stroke(5))
    with Drawing.opened(path) as again:
        assert again.scribbles == [stroke(0), stroke(5)]


def test_damage_within_is_told_and_nothing_is_thrown_away(tmp_path: Path) -> None:
    path = tmp_path / "ada.jsonl"
    with Drawing.opened(path) as drawing:
        drawing.set_classes(TABLE.labels)
        drawing.draw(stroke(0))
    lines = path.read_bytes().replace(b"L4", b"L5")
    path.write_bytes(lines)
    with pytest.raises(StoreError, match="line 1 of 2 is damaged"), Drawing.opened(path):
        pass
    assert path.read_bytes() == lines


def test_what_works_on_after_a_drawing_was_closed_writes_into_it_no_more(tmp_path: Path) -> None:
    path = tmp_path / "ada.jsonl"
    with Drawing.opened(path) as left:
        left.set_classes((Label(id=1, name="a"),))
    with Drawing.opened(path) as again:
        with pytest.raises(StoreError, match="was closed before this was noted"):
            left.note_saved("v0001")
        with pytest.raises(StoreError, match="is drawing on this brain in another window"), Drawing.opened(path):
            pass
        again.note_training()
    assert (left.saved, left.closed) == ("", True)
    with Drawing.opened(path) as last:
        assert (last.saved, last.rounds) == ("", 1)


def test_two_windows_never_draw_as_one(tmp_path: Path) -> None:
    with (
        Drawing.opened(tmp_path / "ada.jsonl"),
        pytest.raises(StoreError, match="another window"),
        Drawing.opened(tmp_path / "ada.jsonl"),
    ):
        pass


def test_classes_keep_their_numbers_and_are_not_removed_below_scribbles(tmp_path: Path) -> None:
    with Drawing.opened(tmp_path / "ada.jsonl") as drawing:
        with pytest.raises(StoreError, match="no class"):
            drawing.annotation("B1")
        drawing.set_classes(TABLE.labels)
        drawing.draw(stroke(0, label=4))
        with pytest.raises(StoreError, match=r"classes \[4\] have scribbles"):
            drawing.set_classes(TABLE.labels[:1])
        with pytest.raises(StoreError, match="share a number or a name"):
            drawing.set_classes((*TABLE.labels, Label(id=2, name="L1")))
        with pytest.raises(StoreError, match="label 77 is no class"):
            drawing.draw(stroke(0, label=77))
        assert drawing.annotation("B1").table == TABLE


KILLED = """
import sys
from pathlib import Path
import numpy as np
from cytoarch.annotations.autosave import Drawing
from cytoarch.annotations.exchange import Drawer
from cytoarch.brains import Label
with Drawing.opened(Path(sys.argv[1])) as drawing:
    drawing.set_classes((Label(id=1, name="L1"),))
    for at in range(100000):
        drawing.draw(Drawer("s1", "ada", "2026-01-02T03:04:05Z").line(1, np.array([[at, at]]), 1.0))
        print(at, flush=True)
"""


def test_a_killed_window_loses_at_most_the_last_stroke(tmp_path: Path) -> None:
    path = tmp_path / "ada.jsonl"
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(25):
        said = child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    rest = child.stdout.read().split()
    child.wait()
    child.stdout.close()
    told = [int(said), *map(int, rest[:-1] if rest and not rest[-1].isdigit() else rest)][-1]
    with Drawing.opened(path) as again:
        kept = [one.paths_px[0][0][0] for one in again.scribbles]
    assert kept[: told + 1] == list(map(float, range(told + 1)))
    assert len(kept) <= told + 2


def test_a_stroke_that_could_not_be_kept_leaves_no_part_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ada.jsonl"
    with Drawing.opened(path) as drawing:
        drawing.set_classes(TABLE.labels)
        drawing.draw(BY.line(TABLE.labels[0].id, np.array([[1.0, 1.0], [5.0, 5.0]]), 2.0))
        whole = path.read_bytes()

        def full(_handle: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreError):
            drawing.draw(BY.line(TABLE.labels[0].id, np.array([[2.0, 2.0], [6.0, 6.0]]), 2.0))
        monkeypatch.undo()
        assert path.read_bytes() == whole
        drawing.draw(BY.line(TABLE.labels[0].id, np.array([[3.0, 3.0], [7.0, 7.0]]), 2.0))
    with Drawing.opened(path) as again:
        assert len(again.scribbles) == 2
