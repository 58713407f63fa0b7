"""The real window: a person's whole session, whatever they press, and what is there when they come back."""

import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QApplication

from cytoarch.annotations.autosave import Drawing
from cytoarch.errors import StoreError, TrainingError
from cytoarch.interactive.classes import ClassSource
from cytoarch.interactive.session import Session
from cytoarch.interactive.views import Told
from cytoarch.learning.training import DecoderSettings
from cytoarch.napari import working
from cytoarch.napari.opening import Opening
from cytoarch.napari.widget import DrawWidget
from cytoarch.napari.working import Working
from tests.cytoarch.napari.windows import FAST, drag, halves, settle, settle_looking, share
from tests.cytoarch.steps.small_brain import CORTEX, HEIGHT, WHITE_MATTER, WIDTH, SmallBrain

pytestmark = [
    pytest.mark.xdist_group("napari"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # napari's and Qt's own
]

SEQUENCES, A_WINDOW = 100 if os.environ.get("CYTOARCH_FULL") else 10, 10
"""Random sequences of presses in all, and in one window."""


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


def test_a_window_closes_at_once_and_what_was_left_ends_before_the_next_opens(
    window: DrawWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, path = Held(), window.session.drawing.path
    window.working.do(held, window._paint, "holding")
    assert held.begun.wait(30)
    window.close_session()
    assert not held.lock.acquire(blocking=False), "closing waited for it"
    assert window.session is None
    assert not window.viewer.layers
    with Drawing.opened(path):
        pass
    opened_after_it(window, held, path, monkeypatch)


def test_what_looked_ahead_ends_before_the_next_opens_though_it_was_rested(
    window: DrawWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, path = Held(), window.session.drawing.path
    window.working.look_ahead(held, window._tell_ahead)
    assert held.begun.wait(30)
    window.working.rest()
    window.close_session()
    opened_after_it(window, held, path, monkeypatch)
    assert window.panel.ahead.text() == ""


def test_what_was_read_before_is_waited_for_though_something_else_was_chosen(
    window: DrawWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()
    window.working.read("a thing", held, window._paint, window._not_read)
    assert held.begun.wait(30)
    window.working.read("a thing", lambda: iter([]), window._paint, window._not_read)
    settle(window)
    let_go_when_waited_for(held, monkeypatch)
    window.working.left()()
    assert held.lock.acquire(blocking=False)


def let_go_when_waited_for(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held goes on as soon as somebody who waits finds it at work, and not before."""
    running = working._running

    def found(*workers: Any) -> list[Any]:
        at_work = running(*workers)
        if at_work:
            held.let_go.set()
        return at_work

    monkeypatch.setattr(working, "_running", found)


def opened_after_it(window: DrawWidget, held: Held, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open the brain again beside what is held; it is opened when that has ended, of which it hears nothing."""
    ended: list[bool] = []
    said: list[str] = []
    opened, say = Session.opened, window.panel.say

    def opened_now(*chosen: Any) -> Any:
        ended.append(held.lock.acquire(blocking=False))
        held.let_go.set()
        return opened(*chosen)

    let_go_when_waited_for(held, monkeypatch)
    monkeypatch.setattr(Session, "opened", opened_now)
    monkeypatch.setattr(window.panel, "say", lambda text: (said.append(text), say(text)))
    window.open(Opening(path.parents[3], "B1", "ada", "texture"), FAST)
    assert "Opening brain B1" in window.form.status.text()
    assert window.session is None
    settle(window)
    assert window.session is not None
    assert ended == [True], "what was left may be writing the brain"
    assert [one for one in said if "done" in one] == [], "what was left speaks into no other window"


def test_what_does_not_end_keeps_no_brain_closed(window: DrawWidget, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(working, "LEFT_S", 0.05)
    monkeypatch.setattr(working, "show_warning", told.append)
    held, path = Held(), window.session.drawing.path
    window.working.do(held, window._paint, "holding")
    assert held.begun.wait(30)
    window.open(Opening(path.parents[3], "B1", "ada", "texture"), FAST)
    settle(window)
    assert window.session is not None
    assert ["still at its present part" in one for one in told] == [True]
    held.let_go.set()


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
@pytest.mark.parametrize("first", range(0, SEQUENCES, A_WINDOW))
def test_no_sequence_of_presses_raises_or_loses_a_stroke(
    window: DrawWidget, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    faults: list[Exception] = []
    for owner, name in ((Working, "_failed"), (Working, "_ahead_failed"), (DrawWidget, "_not_read")):
        monkeypatch.setattr(owner, name, lambda _, error: faults.append(error))
    monkeypatch.setattr(working, "_left_failed", faults.append)
    for seed in range(first, first + A_WINDOW):
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
