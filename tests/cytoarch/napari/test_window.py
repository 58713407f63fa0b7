"""The real window: a person's whole session, whatever they press, and what is there when they come back."""

import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import napari
import numpy as np
import pytest
from napari.qt.threading import GeneratorWorker
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QApplication

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.annotations.autosave import Drawing
from cytoarch.errors import StoreError, TrainingError
from cytoarch.images.views import StoredImage
from cytoarch.interactive.classes import ClassSource
from cytoarch.interactive.lessons import SessionSettings
from cytoarch.interactive.views import Told
from cytoarch.learning.sketch import SketchFit
from cytoarch.learning.training import DecoderSettings
from cytoarch.napari.layers import upright
from cytoarch.napari.opening import Opening
from cytoarch.napari.sections import SectionList
from cytoarch.napari.widget import DrawWidget
from cytoarch.napari.working import Working
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.catalogue import Catalogue
from tests.cytoarch.steps.small_brain import CORTEX, HEIGHT, WHITE_MATTER, WIDTH, SmallBrain

pytestmark = [
    pytest.mark.xdist_group("napari"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # napari's and Qt's own
]

FAST = SessionSettings(fit=SketchFit(first_steps=100, steps=30))
SEQUENCES = 100 if os.environ.get("CYTOARCH_FULL") else 10


@pytest.fixture
def viewer(screen: None) -> Iterator[Any]:
    opened = napari.Viewer(show=True)
    yield opened
    opened.close()
    QApplication.processEvents()


@pytest.fixture
def window(viewer: Any, small: SmallBrain) -> Iterator[DrawWidget]:
    widget = DrawWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Draw and map")
    widget.open(Opening(small.folder / "store", "B1", "ada", "texture"), FAST)
    settle(widget)
    yield widget
    widget.close_session()


def settle(widget: DrawWidget, seconds: float = 300.0) -> None:
    """Until nothing is going on any more."""
    end = time.monotonic() + seconds
    QApplication.processEvents()
    while widget.working.deed is not None or widget.working.reading:
        QApplication.processEvents()
        time.sleep(0.02)  # the worker needs the interpreter, too
        assert time.monotonic() < end, widget.panel.status.text()
    QApplication.processEvents()


def settle_looking(widget: DrawWidget, seconds: float = 300.0) -> None:
    """Until nothing is looked at ahead any more."""
    end = time.monotonic() + seconds
    while widget.working.looking is not None:
        QApplication.processEvents()
        time.sleep(0.02)
        assert time.monotonic() < end


def drag(widget: DrawWidget, places_px: Any) -> None:
    """The mouse pressed, moved and let go over places of the section, as napari tells its callbacks."""
    event = SimpleNamespace(type="mouse_press", button=1, position=())
    event.position = tuple(widget.layers.to_world(places_px[0]))
    stroke = widget._drag(widget.viewer, event)
    for place in places_px[1:]:
        next(stroke, None)
        event.type, event.position = "mouse_move", tuple(widget.layers.to_world(place))
    next(stroke, None)
    event.type = "mouse_release"
    next(stroke, None)


def halves(widget: DrawWidget) -> None:
    """A stroke in either half of the section."""
    for label, x in ((CORTEX, 30.0), (WHITE_MATTER, 100.0)):
        widget.panel.classes.select(label)
        drag(widget, np.array([[20.0, x], [50.0, x], [80.0, x]]))


def share(widget: DrawWidget, label: int, columns: slice) -> float:
    """How much of what the map shows in some columns is of a class."""
    shown = widget.layers.map.data[:, columns]
    return float((shown[shown > 0] == label).mean())


def test_a_whole_session_and_the_next(window: DrawWidget, small: SmallBrain) -> None:
    assert window.panel.sections.count() == 6
    assert window.panel.classes.ids == [CORTEX, WHITE_MATTER]
    halves(window)
    scribbles = list(window.session.drawing.scribbles)
    np.testing.assert_allclose(scribbles[0].paths_px[0][1], (50.0, 30.0), atol=1e-6)
    assert len(window.layers.scribbles.data) == 2
    window.train()
    settle(window)
    assert "trained on 2 strokes" in window.panel.status.text()
    width = window.layers.map.data.shape[1]
    assert share(window, CORTEX, slice(0, width * 3 // 8)) > 0.9
    assert share(window, WHITE_MATTER, slice(width * 5 // 8, None)) > 0.9
    assert window.layers.confidence.data.max() > 0.5
    window.panel.classes.select(CORTEX)
    drag(window, np.array([[60.0, 40.0], [70.0, 40.0]]))  # one more, and away with it
    window.undo()
    assert window.session.drawing.scribbles == scribbles
    window.redo()
    window.annotate_next()
    settle(window)
    assert "least sure" in window.panel.status.text()
    window.save()
    settle(window)
    assert "version v0001" in window.panel.kept.text()
    window.close_session()
    assert not window.viewer.layers
    window.open(Opening(small.folder / "store", "B1", "ada", "texture"), FAST)
    settle(window)
    assert len(window.session.drawing.scribbles) == 3
    assert window.session.missing(window.view) == [], "embeddings are found, not computed"
    window.train()
    settle(window)
    assert share(window, CORTEX, slice(0, width * 3 // 8)) > 0.9


def test_new_classes_take_two_clicks_and_mistakes_are_said(window: DrawWidget) -> None:
    window.panel.new_class.click()
    label = window.session.drawing.labels[-1]
    assert (label.name, label.colour, window.panel.classes.selected) == ("class 1", "#e69f00", label.id)
    window.panel.classes.renamed.emit(label.id, "layer IV")
    assert window.session.drawing.labels[-1].name == "layer IV"
    window.panel.classes.renamed.emit(label.id, "cortex")
    assert "share a number or a name" in window.panel.status.text()
    window.panel.classes.recoloured.emit(label.id, "#0072b2")
    assert window.session.drawing.labels[-1].colour == "#0072b2"
    drag(window, np.array([[20.0, 30.0], [40.0, 30.0]]))
    window.panel.no_class.click()
    assert "have scribbles" in window.panel.status.text()
    window.panel.undoing.click()
    window.panel.no_class.click()
    assert "those that were undone" in window.panel.status.text()
    window.panel.classes.select(CORTEX)
    drag(window, np.array([[20.0, 30.0], [40.0, 30.0]]))
    window.panel.classes.select(label.id)
    window.panel.no_class.click()
    assert window.panel.classes.ids == [CORTEX, WHITE_MATTER]


def test_redo_brings_a_stroke_back_in_its_own_class(window: DrawWidget) -> None:
    window.panel.new_class.click()
    label = window.panel.classes.selected
    drag(window, np.array([[20.0, 30.0], [40.0, 30.0]]))
    window.panel.classes.renamed.emit(label, "layer IV")
    window.undo()
    window.panel.no_class.click()
    window.panel.new_class.click()
    window.redo()
    names = {one.id: one.name for one in window.session.drawing.labels}
    assert [names[one.label] for one in window.session.drawing.scribbles] == ["layer IV"]
    window.save()
    settle(window)
    assert "version v0001" in window.panel.kept.text()


class Held:
    """Work that is asked for and goes on until it is let go."""

    def __init__(self) -> None:
        self.begun, self.let_go, self.lock = threading.Event(), threading.Event(), threading.RLock()

    def __call__(self) -> Iterator[Told]:
        with self.lock:
            self.begun.set()
            assert self.let_go.wait(30)
            yield Told("a part is done", 1, 2)
            yield Told("all is done", 2, 2)


def test_cancel_says_when_it_stops_and_the_work_gives_back_what_it_held(window: DrawWidget) -> None:
    held = Held()
    window.working.do(held, window._paint, "holding")
    assert held.begun.wait(30)
    window.panel.cancelling.click()
    assert "stops after its present part" in window.panel.status.text()
    held.let_go.set()
    settle(window)
    assert window.panel.status.text() == "Stopped; what was finished is kept."
    assert held.lock.acquire(blocking=False)


def test_what_has_one_part_is_finished_and_told_though_it_was_cancelled(window: DrawWidget) -> None:
    halves(window)
    begun, save = threading.Event(), window.session.save

    def told() -> str:
        begun.set()
        return save()

    window.session.save = told
    with window.session.blocks.writing:  # it waits, as for a block that is looked at ahead
        window.save()
        assert begun.wait(30)
        window.panel.cancelling.click()
    settle(window)
    assert window.panel.status.text() == "Saved as version v0001 of ada."


def test_a_window_closes_whole_while_something_long_goes_on(
    window: DrawWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cytoarch.napari.working.WAIT_MS", 50)
    held, path = Held(), window.session.drawing.path
    window.working.do(held, window._paint, "holding")
    assert held.begun.wait(30)
    window.close_session()
    assert window.session is None
    assert not window.viewer.layers
    with Drawing.opened(path):
        pass
    window.open(Opening(path.parents[3], "B1", "ada", "texture"), FAST)
    settle(window)
    window.panel.say("open again")
    held.let_go.set()
    GeneratorWorker.await_workers(30_000)
    QApplication.processEvents()
    assert window.panel.status.text() == "open again", "what was left speaks into no other window"


def test_whatever_breaks_beside_the_window_is_told(window: DrawWidget, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[BaseException] = []
    monkeypatch.setattr(notification_manager, "receive_error", lambda _kind, error, _trace: told.append(error))
    broken = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    window.session.save = lambda: (_ for _ in ()).throw(broken)
    window.save()
    settle(window)
    assert told == [broken]
    assert "Something broke (RuntimeError('mat1" in window.panel.status.text()


def test_the_canvas_is_read_in_the_thread_of_the_window(window: DrawWidget, monkeypatch: pytest.MonkeyPatch) -> None:
    halves(window)
    window.train()
    settle(window)
    seen: list[threading.Thread] = []
    view = DrawWidget.view.fget
    monkeypatch.setattr(
        DrawWidget, "view", property(lambda widget: (seen.append(threading.current_thread()), view(widget))[1])
    )
    window.panel.sections.setCurrentRow(1)
    settle(window)
    assert set(seen) == {threading.main_thread()}


def test_classes_are_taken_from_another_brain(window: DrawWidget, small: SmallBrain) -> None:
    window.panel.classes.renamed.emit(CORTEX, "grey matter")
    window._list_sources()
    settle(window)
    names = [one.text() for one in window.panel.sources.actions()]
    assert names == ["of brain B1", "of a table (CSV) ..."]
    window.panel.sources.actions()[0].trigger()
    settle(window)
    assert [one.name for one in window.session.drawing.labels] == ["grey matter", "white matter", "cortex"]


def test_what_is_in_view_is_looked_at_before_anybody_asks(window: DrawWidget, monkeypatch: pytest.MonkeyPatch) -> None:
    window.open(Opening(window.session.store_path, "B1", "bob", "profile"), FAST)
    settle(window)
    assert window.session.missing(window.view)
    window.look_ahead()
    settle_looking(window)
    assert window.session.missing(window.view) == []
    assert window.panel.training.isEnabled(), "nobody waited"
    monkeypatch.setattr(type(window.session.blocks), "compute", lambda *_: pytest.fail("computed twice"))
    halves(window)
    window.train()
    settle(window)
    assert "trained on 2 strokes" in window.panel.status.text()
    window.panel.mapping.click()
    settle(window)
    assert window.layers.map.data.any()


def test_what_grows_with_a_brain_is_read_beside_the_window(
    window: DrawWidget, small: SmallBrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[threading.Thread]] = {}

    def watched(owner: type, name: str) -> None:
        call = getattr(owner, name)

        def told(*args: Any) -> Any:
            threads.setdefault(f"{owner.__name__}.{name}", set()).add(threading.current_thread())
            return call(*args)

        monkeypatch.setattr(owner, name, told)

    for owner, name in ((StoredImage, "open"), (TissueMask, "open"), (BrainStore, "read_brain"), (Catalogue, "_read")):
        watched(owner, name)
    window.open(Opening(small.folder / "store", "B1", "ada", "texture"), FAST)
    settle(window)
    window.panel.sections.setCurrentRow(2)
    settle(window)
    assert window.section_id == "s2"
    window._list_sources()
    settle(window)
    assert len(threads) == 4
    assert [name for name, seen in threads.items() if threading.main_thread() in seen] == []


def test_only_sections_in_view_have_pictures_and_few_are_held(viewer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cytoarch.napari.sections.MOST_PICTURES", 30)
    sections, asked = SectionList(), list[list[str]]()
    sections.wanted.connect(asked.append)
    sections.resize(200, 400)
    sections.show()
    sections.fill([f"s{number:04d}" for number in range(3000)])
    for row in (0, 1500, 2999):
        sections.scrollToItem(sections.item(row))
        sections._ask()
        assert f"s{row:04d}" in asked[-1]
        for one in asked[-1]:
            sections.picture(one, np.zeros((8, 12, 3), dtype=np.uint8))
    assert sum(map(len, asked)) <= 30
    sections._ask()
    assert len(asked) == 3, "those in view have theirs"
    sections.close()


def test_a_damaged_section_costs_itself_only(window: DrawWidget, small: SmallBrain) -> None:
    shutil.rmtree(small.folder / "store" / "brains" / "B1" / "sections.ome.zarr" / "s3")
    window.open(Opening(small.folder / "store", "B1", "ada", "texture"), FAST)
    settle(window)
    window.panel.sections.setCurrentRow(3)
    settle(window)
    assert "s3" in window.panel.status.text()
    assert (window.section_id, window.panel.sections.chosen) == ("s0", "s0")
    assert window.panel.sections.item(3).toolTip()


def damage(folder: Path) -> None:
    """Every chunk of an image is cut short; what its metadata tell stays whole."""
    for chunk in (one for one in folder.rglob("*") if one.is_file() and one.name != "zarr.json"):
        chunk.write_bytes(chunk.read_bytes()[:8])


def test_nothing_is_drawn_on_a_section_whose_successor_turns_out_to_be_damaged(
    window: DrawWidget, small: SmallBrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[BaseException] = []
    monkeypatch.setattr(notification_manager, "receive_error", lambda _kind, error, _trace: told.append(error))
    halves(window)
    window.train()
    settle(window)
    damage(small.folder / "store" / "brains" / "B1" / "sections.ome.zarr" / "s3")
    window.panel.sections.setCurrentRow(3)
    settle(window)
    assert "section s3 cannot be shown" in window.panel.status.text()
    assert "section s3 cannot be shown" in window.panel.sections.item(3).toolTip()
    assert (window.layers, window.section_id, list(window.viewer.layers)) == (None, "", [])
    place = SimpleNamespace(type="mouse_press", button=1, position=(300.0, 300.0))
    assert list(window._drag(window.viewer, place)) == []
    for button in (window.panel.next, window.panel.mapping, window.panel.training, window.panel.resetting):
        button.click()
        settle(window)
    assert told == []
    assert len(window.session.drawing.scribbles) == 2
    window.panel.sections.setCurrentRow(1)
    settle(window)
    assert window.section_id == "s1"
    halves(window)
    assert {one.section_id for one in window.session.drawing.scribbles} == {"s0", "s1"}


def test_a_stroke_that_another_section_interrupts_is_kept_where_it_began(window: DrawWidget) -> None:
    def to(y: float, x: float) -> tuple[float, ...]:
        return tuple(window.layers.to_world((y, x)))

    event = SimpleNamespace(type="mouse_press", button=1, position=to(20, 30))
    stroke = window._drag(window.viewer, event)
    next(stroke)
    event.type, event.position = "mouse_move", to(50, 30)
    next(stroke)
    window.panel.sections.setCurrentRow(1)
    settle(window)
    assert window.section_id == "s1"
    event.position = to(80, 30)
    assert list(stroke) == []
    (kept,) = window.session.drawing.scribbles
    assert kept.section_id == "s0"
    np.testing.assert_allclose(kept.paths_px[0], [(20, 30), (50, 30)], atol=1e-6)
    assert "is kept on section s0" in window.panel.status.text()
    assert len(window.layers.scribbles.data) == 0


def test_large_maps_are_drawn_thinned(window: DrawWidget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cytoarch.napari.layers.THINNED_PX", 16)
    window.show_section("s1")
    settle(window)
    layers = window.layers
    assert layers.map.multiscale
    assert layers.map.data[-1].base is layers.found, "views: what is painted is painted once"
    assert window.view.height_px >= HEIGHT - 1
    halves(window)
    window.train()
    settle(window)
    assert (np.asarray(layers.map.data[1]) == layers.found[::2, ::2]).all()
    assert layers.found.any()


def test_strokes_are_shown_one_by_one_as_they_would_be_all_at_once(window: DrawWidget) -> None:
    def seen() -> list[Any]:
        layer = window.layers.scribbles
        return [[one.tolist() for one in layer.data], layer.edge_width, layer.edge_color.round(6).tolist()]

    halves(window)
    window.undo()
    drag(window, np.array([[60.0, 40.0], [70.0, 40.0]]))
    window.panel.classes.recoloured.emit(CORTEX, "#0072b2")
    window.redo()
    grown = seen()
    window.layers._drawn = []
    window.layers._colours = {}
    window._refresh()
    assert seen() == grown
    assert len(grown[0]) == 2


def test_what_cannot_be_done_yet_is_said(window: DrawWidget) -> None:
    window.panel.next.click()
    assert "Train first" in window.panel.status.text()
    window.train()
    settle(window)
    assert "at least two are needed" in window.panel.status.text()
    window.save()
    settle(window)
    assert "nothing is drawn" in window.panel.status.text()


def test_the_rubber_uncovers_and_the_pen_is_off_while_it_is_on(window: DrawWidget) -> None:
    halves(window)
    window.panel.rubber.click()
    assert not window.panel.pen.isChecked()
    drag(window, np.array([[10.0, 30.0], [90.0, 30.0]]))
    window.panel.width.setValue(40)
    labels = window.session.labels("s0")
    assert (labels.pixels()[40:60, 30] == 0).all()
    assert (labels.pixels()[40:60, 100] == WHITE_MATTER).all()
    window.panel.rubber.click()
    drag(window, np.array([[10.0, 30.0], [90.0, 30.0]]))
    assert len(window.session.drawing.scribbles) == 3, "neither pen nor rubber: the mouse moves the picture"


@pytest.mark.parametrize(("flip", "rotation"), [("none", 0.0), ("horizontal", 90.0), ("vertical", 33.0)])
def test_display_is_turned_and_drawing_comes_back_to_pixels(window: DrawWidget, flip: Any, rotation: float) -> None:
    layers = window.layers
    layers.affine = upright(
        layers.section.model_copy(update={"flip": flip, "rotation": rotation}), layers.layout.image.grid
    )
    for place in ((0.0, 0.0), (12.5, 77.25), (96.0, 128.0)):
        np.testing.assert_allclose(layers.to_section_px(layers.to_world(place)), place, atol=1e-6)
    middle = layers.to_world((HEIGHT / 2, WIDTH / 2))
    layers.affine = np.eye(3)
    np.testing.assert_allclose(layers.to_world((HEIGHT / 2, WIDTH / 2)), middle, atol=1e-6)


def test_the_decoder_for_the_whole_brain_is_trained_from_the_window(
    window: DrawWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves(window)
    window.hand_over(DecoderSettings(width=8, epochs=2, least_steps=0))
    settle(window)
    assert "Trained areas-decoder-by-ada" in window.panel.status.text()
    digest = window.panel.status.text().split("model ")[1][:12]
    assert any(path.name.startswith(digest) for path in (window.session.store_path / "models").iterdir())


def actions(window: DrawWidget, rng: np.random.Generator) -> list[Callable[[], Any]]:
    """Whatever a person may press."""

    def scribble() -> None:
        drag(window, np.cumsum(rng.normal(0, 8, (5, 2)), axis=0) + rng.uniform((0, 0), (HEIGHT, WIDTH)))

    panel = window.panel
    return [
        scribble, scribble, scribble, window.undo, window.redo, panel.new_class.click, panel.no_class.click,
        panel.pen.click, panel.rubber.click, panel.training.click, panel.next.click, panel.resetting.click,
        panel.saving.click, panel.cancelling.click, panel.confident.click, panel.mapping.click, window.look_ahead,
        lambda: panel.width.setValue(int(rng.integers(1, 200))),
        lambda: panel.opacity.setValue(int(rng.integers(0, 100))),
        lambda: panel.sections.setCurrentRow(int(rng.integers(6))),
        lambda: window.choose(int(rng.integers(4))),
        lambda: window.take_classes(ClassSource("B1")),
        window.viewer.reset_view,
    ]  # fmt: skip


REFUSED = {
    TrainingError: "at least two are needed|has not learned anything yet|there is no class yet",
    StoreError: "nothing is drawn|there is no class yet|lies beside section",
}
"""What a person who presses anything may be told that it cannot be done."""


@pytest.mark.long
def test_no_sequence_of_presses_raises_or_loses_a_stroke(window: DrawWidget, monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[Exception] = []
    for owner, name in ((Working, "_failed"), (Working, "_ahead_failed"), (DrawWidget, "_not_read")):
        monkeypatch.setattr(owner, name, lambda _, error: faults.append(error))
    for seed in range(SEQUENCES):
        rng = np.random.default_rng(seed)
        for _ in range(8):
            choices = actions(window, rng)
            choices[int(rng.integers(len(choices)))]()
            QApplication.processEvents()
        settle(window)
        log = window.session.drawing.path.read_bytes().count(b"\n")
        drawn = len(window.session.drawing.scribbles)
        assert log >= drawn
        settle_looking(window)
        wrong = [one for one in faults if not re.search(REFUSED.get(type(one), "$^"), str(one))]
        assert wrong == [], f"after the presses of seed {seed}"
    kept = list(window.session.drawing.scribbles)
    path = window.session.drawing.path
    window.close_session()
    with Drawing.opened(path) as again:
        assert again.scribbles == kept


def test_the_form_says_what_is_missing(viewer: Any, small: SmallBrain) -> None:
    widget = DrawWidget(viewer)
    form = widget.form
    assert not form.button.isEnabled()
    assert "a store that holds a brain" in form.button.toolTip()
    form.store.setText(str(small.folder / "store"))
    assert "your name" in form.button.toolTip()
    form.author.setText("ada")
    assert form.button.isEnabled()
    form.button.click()
    settle(widget)
    assert widget.session is not None
    widget.close_session()


def test_a_brain_that_cannot_be_opened_is_said_on_the_first_page(viewer: Any, small: SmallBrain) -> None:
    widget = DrawWidget(viewer)
    store = small.folder / "store"
    with Drawing.opened(store / "brains" / "B1" / "drawings" / "ada.jsonl"):
        widget.open(Opening(store, "B1", "ada", "texture"))
        assert not widget.form.button.isEnabled(), "it is being opened"
        settle(widget)
    assert widget.session is None
    assert "in another window" in widget.form.status.text()
    assert (widget.form.author.text(), widget.form.button.isEnabled()) == ("ada", True)
    widget.form.button.click()
    settle(widget)
    assert (widget.session is not None, widget.form.status.text()) == (True, "")
    widget.close_session()


def test_every_button_says_what_it_does(window: DrawWidget) -> None:
    from qtpy.QtWidgets import QAbstractButton

    silent = [
        one.text()
        for one in window.pages.currentWidget().findChildren(QAbstractButton)
        if one.text() and not one.toolTip()
    ]
    assert silent == []


def test_the_plugin_is_declared() -> None:
    from npe2 import PluginManifest

    import cytoarch.napari

    manifest = PluginManifest.from_file(Path(str(cytoarch.napari.__file__)).parent / "napari.yaml")
    (command,) = manifest.contributions.commands or ()
    module, name = str(command.python_name).split(":")
    assert (module, name) == (DrawWidget.__module__, DrawWidget.__name__)
