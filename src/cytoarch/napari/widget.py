"""The dock widget: a brain opened, drawn on, and the one key that trains and shows."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import napari
import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog, QPushButton

from cytoarch.annotations.scribbles import RUBBER
from cytoarch.brains import LabelTable, read_label_table
from cytoarch.errors import CytoarchError
from cytoarch.interactive.classes import ClassSource
from cytoarch.interactive.session import Session
from cytoarch.interactive.views import Seen, Spot, Told, View
from cytoarch.learning.training import DecoderSettings
from cytoarch.napari.browsing import BrainWidget
from cytoarch.napari.layers import SectionLayers
from cytoarch.napari.waiting import Orchestrator

REST_MS = 400
"""The picture has come to rest when it was not moved for so long: then what it shows is looked at."""


class DrawWidget(BrainWidget):
    """Draw on a brain of the store, train, see."""

    def __init__(self, viewer: "napari.Viewer") -> None:
        super().__init__(viewer)
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MS)
        self._connect()
        self._bind()

    def brain_opened(self) -> None:
        """The pen is taken up."""
        self.panel.pen.setChecked(True)
        self._show_classes()

    def section_shown(self) -> None:
        """What is drawn on it is shown, and the map of what is in view, if the model has learned anything."""
        self._refresh()
        self._set_pen()
        session = self.session
        if session is not None and session.head is not None and self.working.deed is None:
            view = self.view  # read here: the canvas belongs to the thread of the window
            self.working.do(lambda: session.predict(view), self._paint, "showing the map")
        self._rest.start()

    def deed_done(self) -> None:
        """Strokes and classes may have changed."""
        self._show_classes()

    def close_session(self) -> None:
        """End the session; everything that was drawn is kept."""
        self._rest.stop()
        super().close_session()

    def look_ahead(self) -> None:
        """Embed what is in view, nearest to the middle first, while the person draws."""
        session = self.session
        if session is None or self.layers is None:
            return
        view = self.view
        self.working.look_ahead(lambda: session.look_ahead(view), self._tell_ahead)

    def _tell_ahead(self, told: Told) -> None:
        self.panel.ahead.setText("" if told.done == told.total else f"{told.text}: {told.done} of {told.total}")

    # -- drawing -------------------------------------------------------------------------------------------------------

    def draw(self, path_px: NDArray[np.float64], section_id: str = "") -> None:
        """Draw in the chosen class along places (n, 2) of a section's image; it is on disk before it is seen.

        The section is the one that is shown where none is named.
        """
        label = RUBBER if self.panel.rubber.isChecked() else self.panel.classes.selected
        if self.session is None or label is None:
            self.panel.say("Add a class first: it is what you draw in.")
            return
        self.session.stroke(section_id or self.section_id, label, path_px, float(self.panel.width.value()))
        self._show_classes()

    def undo(self) -> None:
        """Take the last stroke back."""
        self._change(lambda session: session.drawing.undo())

    def redo(self) -> None:
        """Draw again what was taken back."""
        self._change(lambda session: session.drawing.redo())

    def _drag(self, _viewer: Any, event: Any) -> Iterator[None]:
        """A stroke of the mouse, while pen or rubber is on."""
        drawing = self.panel.pen.isChecked() or self.panel.rubber.isChecked()
        layers, session = self.layers, self.session
        if layers is None or event.button != 1 or not drawing:
            return
        path = [layers.to_section_px(event.position)]
        yield
        while event.type == "mouse_move" and layers is self.layers:
            path.append(layers.to_section_px(event.position))
            yield
        if session is not self.session:  # the brain was closed, and its drawing with it
            return
        section_id = layers.section.section_id
        self.draw(np.array(path), section_id)
        if layers is not self.layers:
            self.panel.say(f"What you were drawing is kept on section {section_id}, up to where another was shown.")

    def _toggled(self, button: QPushButton, _on: bool) -> None:
        self.panel.only(button)
        self._set_pen()

    def _set_pen(self) -> None:
        """The mouse draws, or moves the picture."""
        drawing = self.panel.pen.isChecked() or self.panel.rubber.isChecked()
        for layer in self.viewer.layers:
            layer.mouse_pan = not drawing
        self.viewer.cursor.style = "crosshair" if drawing else "standard"

    # -- classes -------------------------------------------------------------------------------------------------------

    def add_class(self) -> None:
        """A new class, ready to be named."""
        if self.session is None:
            return
        taken = {one.name for one in self.session.drawing.labels}
        name = next(f"class {number}" for number in range(1, 10_000) if f"class {number}" not in taken)
        label = self.session.add_class(name)
        self._show_classes()
        self.panel.classes.select(label.id)
        self.panel.classes.edit_name(label.id)

    def remove_class(self) -> None:
        """Take the chosen class away, where nothing is drawn in it."""
        label_id = self.panel.classes.selected
        if label_id is not None:
            self._change(lambda session: session.remove_class(label_id))

    def take_classes(self, source: ClassSource | None) -> None:
        """Add the classes of another brain or drawing; None: of a table that is asked for."""
        if source is not None and self.session is not None:
            path = self.session.store_path
            self.working.read("classes", lambda: iter([source.table(path)]), self._take_table, self._not_read)
        if source is not None:
            return
        path, _ = QFileDialog.getOpenFileName(self, "Table of classes", "", "Tables with columns id, name (*.csv)")
        if path:
            self._change(lambda session: session.take_classes(read_label_table(path)))

    def _take_table(self, table: LabelTable) -> None:
        self._change(lambda session: session.take_classes(table))

    def _list_sources(self) -> None:
        """Where classes can be taken from, as they are found when the menu opens."""
        self._show_sources(None)
        session = self.session
        if session is not None:
            self.working.read(
                "sources", lambda: iter([ClassSource.there(session.store_path)]), self._show_sources, self._not_read
            )

    def _show_sources(self, found: Sequence[ClassSource] | None) -> None:
        menu = self.panel.sources
        menu.clear()
        if found is None:
            menu.addAction("looking at the brains of the store ...").setEnabled(False)
        for one in found or ():
            menu.addAction(one.name, partial(self.take_classes, one))
        menu.addAction("of a table (CSV) ...", partial(self.take_classes, None))

    def _change(self, change: Callable[[Session], Any]) -> None:
        """Change classes or strokes; what is refused is said and shown as it was."""
        if self.session is None:
            return
        try:
            change(self.session)
        except CytoarchError as error:
            self.panel.say(str(error))
        self._show_classes()

    # -- what can be asked for -----------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train, and show the map of what is in view, nearest to the middle first; what is not embedded yet follows."""
        if self._has_section():
            self._ask(lambda session, view: session.update(view), self.view, "training")

    def map_section(self) -> None:
        """Show the map of the whole section."""
        if self._has_section():
            self._ask(lambda session, view: session.stream(view), self.whole_view, "mapping the section")

    def reset(self) -> None:
        """Forget what was learned, not what was drawn."""
        if self.session is not None:
            self.session.reset()
            self._with_layers(SectionLayers.clear_map)
            self.panel.say("The model has forgotten what it learned; your strokes are all there.")

    def annotate_next(self) -> None:
        """Move the picture to where the model is least sure."""
        session = self.session
        if session is None or session.head is None:
            self.panel.say("Train first (T): then the model can say where it is least sure.")
            return
        if self._has_section():
            whole = [self.whole_view]
            self.working.do(lambda: iter([session.least_sure(whole)]), self._jump, "looking for doubts")

    def save(self) -> None:
        """Commit what is drawn as a version in the store."""
        self._do_once(lambda session: f"Saved as version {session.save()} of {session.author}.", "saving")

    def hand_over(self, decoder: DecoderSettings | None = None) -> None:
        """Save, and train the decoder that maps the whole brain; the scheduled run finds it current."""

        def work(session: Session) -> str:
            digest, name = session.hand_over(decoder)
            return f"Trained {name}, model {digest[:12]}. Press Map the brain, or run parcellate-brain."

        self._do_once(work, "training for the whole brain")

    def map_brain(self) -> None:
        """Map the brain with the decoder that was trained for it: on the server where there is one, else here."""
        orchestrator = Orchestrator.of(os.environ)

        def work(session: Session, _view: View | None) -> Iterator[Told]:
            if orchestrator is None:
                yield from session.map_brain()
                return
            run = orchestrator.map_brain(session.store_path, session.brain_id, session.model)
            yield Told(f"The server maps brain {session.brain_id}: run {run}.", 1, 1)

        self._ask(work, None, "mapping the brain")

    def resume_waiting(self) -> None:
        """Save, and let the run go on that waits for scribbles on this brain."""
        orchestrator = Orchestrator.of(os.environ)
        if orchestrator is None:
            self.panel.say("No server is known: set PREFECT_API_URL to its address, as http://127.0.0.1:4200/api.")
            return

        def work(session: Session) -> str:
            runs = orchestrator.waiting(session.brain_id)
            if not runs:
                return f"No run waits for scribbles on brain {session.brain_id}."
            version = session.save()
            orchestrator.resume(runs[0], session.author, version)
            return f"{runs[0].name} goes on with version {version} of {session.author}."

        self._do_once(work, "asking the server")

    def _has_section(self) -> bool:
        """Whether a section of a brain is shown; said where none is."""
        if self.session is not None and self.layers is None:
            self.panel.say("No section is shown: choose one first.")
        return self.layers is not None

    def _ask(self, work: Callable[[Session, Any], Iterator[Any]], view: View | None, what: str) -> None:
        session = self.session
        if session is not None:
            self.working.do(lambda: work(session, view), self._paint, what)

    def _do_once(self, work: Callable[[Session], str], what: str) -> None:
        self._ask(lambda session, _: iter([Told(work(session), 1, 1)]), None, what)

    # -- looks ---------------------------------------------------------------------------------------------------------

    def _paint(self, told: Seen | Told) -> None:
        """Show a part of the map, or say how far it is."""
        if isinstance(told, Told):
            self.panel.say(told.text)
            self.panel.tell(told.done, told.total)
        elif self.layers is not None and told.section_id == self.section_id:
            self.layers.paint(told)

    def _jump(self, spot: Spot | None) -> None:
        if spot is None:
            self.panel.say("Nothing is embedded here yet: train once with this part in view.")
            return
        if spot.section_id != self.section_id:  # another one was chosen meanwhile
            return
        self.viewer.scene.camera.center = (0.0, *self._shown.to_world((spot.y_px, spot.x_px)))
        self.panel.say(f"The model is least sure here (section {spot.section_id}). Draw what it is, then press T.")

    def _show_classes(self) -> None:
        if self.session is None:
            return
        strokes = Counter(one.label for one in self.session.drawing.scribbles)
        self.panel.classes.show_classes(self.session.drawing.labels, strokes)
        self._refresh()

    def _refresh(self) -> None:
        """Show the strokes, and where they are kept."""
        if self.session is None:
            return
        drawing = self.session.drawing
        if self.layers is not None:
            own = [one for one in drawing.scribbles if one.section_id == self.section_id]
            self.layers.show_scribbles(own, drawing.labels)
            self.layers.colour(drawing.labels)
        kept = f"version {drawing.saved}" if drawing.saved else "kept on disk, in no version yet"
        self.panel.kept.setText(f"{len(drawing.scribbles)} strokes by {self.session.author}: {kept}")

    # -- building ------------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        panel = self.panel
        self._rest.timeout.connect(self.look_ahead)
        panel.classes.renamed.connect(lambda at, name: self._change(lambda one: one.change_class(at, name=name)))
        panel.classes.recoloured.connect(
            lambda at, colour: self._change(lambda one: one.change_class(at, colour=colour))
        )
        panel.sources.aboutToShow.connect(self._list_sources)
        panel.opacity.valueChanged.connect(lambda percent: self._with_layers(lambda of: of.set_opacity(percent)))
        panel.confident.toggled.connect(lambda on: self._with_layers(lambda of: of.show_confidence(on)))
        for one in (panel.pen, panel.rubber):
            one.toggled.connect(partial(self._toggled, one))
        panel.connect_all(
            {
                panel.training: self.train, panel.next: self.annotate_next, panel.mapping: self.map_section,
                panel.resetting: self.reset, panel.saving: self.save, panel.handing: self.hand_over,
                panel.whole: self.map_brain, panel.resuming: self.resume_waiting,
                panel.cancelling: self.working.cancel, panel.new_class: self.add_class,
                panel.no_class: self.remove_class, panel.undoing: self.undo, panel.redoing: self.redo,
            }
        )  # fmt: skip

    def _bind(self) -> None:
        """Keys of the canvas; what they do is written below the buttons."""
        calls: dict[str, Callable[[], Any]] = {
            "t": self.train,
            "m": self.map_section,
            "n": self.annotate_next,
            "b": self.panel.pen.toggle,
            "x": self.panel.rubber.toggle,
            "c": self.panel.confident.toggle,
            "Control-Z": self.undo,
            "Control-Shift-Z": self.redo,
            **{str(number): partial(self.choose, number - 1) for number in range(1, 10)},
        }
        for key, call in calls.items():
            self.viewer.bind_key(key, partial(_pressed, call), overwrite=True)
        self.viewer.mouse_drag_callbacks.append(self._drag)
        self.viewer.scene.camera.events.connect(lambda _: self._rest.start())

    def choose(self, place: int) -> None:
        """Draw in the class at a place of the table."""
        if place < len(self.panel.classes.ids):
            self.panel.classes.select(self.panel.classes.ids[place])

    def _with_layers(self, call: Callable[[SectionLayers], None]) -> None:
        if self.layers is not None:
            call(self.layers)


def _pressed(call: Callable[[], Any], _viewer: Any) -> None:
    """What a key does; napari hands it the viewer."""
    call()
