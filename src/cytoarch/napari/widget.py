"""The dock widget: sections, classes, pen, and the one key that trains and shows."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import napari
import numpy as np
from napari.qt.threading import thread_worker
from napari.utils.notifications import notification_manager, show_error
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QProgressBar,
    QPushButton,
    QSlider,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from cytoarch.annotations.scribbles import RUBBER
from cytoarch.embeddings import EmbedSettings
from cytoarch.errors import CytoarchError
from cytoarch.images.views import StoredImage
from cytoarch.interactive.session import Seen, Session, SessionSettings, Spot, View
from cytoarch.learning.training import DecoderSettings, cells_per_token
from cytoarch.napari.classes import ClassTable
from cytoarch.napari.layers import SectionLayers, pixels_of
from cytoarch.napari.opening import Opening, OpeningForm
from cytoarch.napari.waiting import Orchestrator
from cytoarch.steps.colours import ColoursStep
from cytoarch.steps.parcellations import ParcellationStep
from cytoarch.steps.sections import LABELS
from cytoarch.steps.step import Place, Stored

THUMBNAIL_PX = 72
WAIT_MS = 60_000
"""What is going on when a window is closed is waited for so long: a block is written whole, or not at all."""
KEYS = (
    ("T", "train and show the map"),
    ("B", "pen; off: the mouse moves the picture"),
    ("X", "rubber"),
    ("1-9", "choose a class"),
    ("Ctrl-Z / Ctrl-Shift-Z", "undo, redo a stroke"),
    ("N", "jump to where the model is least sure"),
    ("C", "show confidence"),
)


class DrawWidget(QWidget):  # type: ignore[misc]  # Qt ships no types
    """Draw on a brain of the store, train, see."""

    def __init__(self, viewer: "napari.Viewer") -> None:
        super().__init__()
        self.viewer = viewer
        self.session: Session | None = None
        self.layers: SectionLayers | None = None
        self.worker: Any = None
        self._stack = ExitStack()
        self._drawing = False
        self._build()
        self._bind()

    # -- opening and closing -------------------------------------------------------------------------------------------

    def open(self, chosen: Opening, settings: SessionSettings | None = None) -> None:
        """Open a brain; what its author drew before is there again."""
        self.close_session()
        embed = EmbedSettings(encoder=chosen.encoder)
        opened = Session.opened(chosen.store_path, chosen.brain_id, chosen.author, embed, settings)
        self.session = self._stack.enter_context(opened)
        self.pages.setCurrentIndex(1)
        self.sections.clear()
        for section in self.session.sections:
            item = QListWidgetItem(section.section_id)
            try:
                item.setIcon(QIcon(thumbnail(self.session.blocks.layout(section.section_id).image)))
            except CytoarchError as error:  # it costs itself only
                item.setFlags(Qt.ItemFlag.NoItemFlags)
                item.setToolTip(str(error))
            self.sections.addItem(item)
        self._show_classes()
        rows = range(self.sections.count())
        self.sections.setCurrentRow(next((one for one in rows if self._can_be_shown(one)), 0))
        self.pen.setChecked(True)

    def _can_be_shown(self, row: int) -> bool:
        item = self.sections.item(row)
        return item is not None and bool(item.flags() & Qt.ItemFlag.ItemIsEnabled)

    def close_session(self) -> None:
        """End the session; everything that was drawn is kept."""
        if self.worker is not None:
            self.worker.quit()
            type(self.worker).await_workers(WAIT_MS)
            self.worker = None
        if self.layers is not None:
            self.layers.remove()
        self.layers = None
        self.session = None
        self._stack.close()

    def closeEvent(self, event: Any) -> None:  # noqa: N802 - Qt names it
        """The dock is closed."""
        self.close_session()
        super().closeEvent(event)

    # -- sections ------------------------------------------------------------------------------------------------------

    def show_section(self, section_id: str) -> None:
        """Show a section with all that is known of it."""
        if self.session is None or not section_id:
            return
        if self.layers is not None:
            self.layers.remove()
        session, section = self.session, self.session.brain.rows[section_id]
        token_px = session.blocks.step.encoder.encoder.tiles.token_px
        layout = session.blocks.layout(section_id)
        self.layers = SectionLayers(self.viewer, section, layout, cells_per_token("decoder", token_px))
        self._add_known(section_id)
        self.viewer.canvas.overlays.scale_bar.visible = True
        self._refresh()
        self.viewer.layers.selection.active = self.layers.scribbles
        self.viewer.reset_view()
        self._set_pen()
        if session.decoder is not None:
            self._run(lambda: session.predict(self.view), self._paint, "showing the map")

    def _add_known(self, section_id: str) -> None:
        """Labels, PCA maps and parcellations of the store, hidden until they are asked for."""
        session, layers = self.session, self.layers
        if session is None or layers is None:
            return
        place = Place(session.brain, session.brain.rows[section_id])
        catalogue = session.brain.catalogue
        table = session.brain.brain.label_table
        if table is not None and catalogue.record(LABELS.product(section_id)) is not None:
            layers.add_known("labels", LABELS.open(place), table.labels)
        for name in catalogue.names(ColoursStep.step):
            colours = Stored(ColoursStep, name)
            if catalogue.record(colours.product(section_id)) is not None:
                layers.add_known(f"PCA {name}", colours.open(place))
        for name in catalogue.names(ParcellationStep.step):
            maps = Stored(ParcellationStep, name)
            if table is not None and catalogue.record(maps.product(section_id)) is not None:
                layers.add_known(f"parcellation {name}", maps.open(place).labels, table.labels)

    @property
    def section_id(self) -> str:
        """The section that is shown."""
        item = self.sections.currentItem()
        return str(item.text()) if item is not None else ""

    @property
    def view(self) -> View:
        """What the canvas shows of the section, in pixels of its image."""
        layers = self._shown
        image, cells = layers.layout.image.grid, layers.cells
        first, last = np.asarray(layers.map.corner_pixels, dtype=np.int64)
        if (last <= first).any():  # there is no canvas, or the section lies beside it
            return self._whole(self.section_id)
        shown = cells.window(*first.tolist(), *(last - first + 1).tolist())
        top, left = image.from_corner(np.array(shown.corner_um)).tolist()
        height, width = (edge / image.cell_um for edge in shown.extent_um)
        return View(self.section_id, top, left, height, width)

    @property
    def _shown(self) -> SectionLayers:
        if self.layers is None:
            raise CytoarchError("no section is shown: open a brain first")
        return self.layers

    # -- drawing -------------------------------------------------------------------------------------------------------

    def draw(self, path_px: NDArray[np.float64]) -> None:
        """Draw in the chosen class along places (n, 2) of the section's image; it is on disk before it is seen."""
        label = RUBBER if self.rubber.isChecked() else self.classes.selected
        if self.session is None or label is None:
            self._say("Add a class first: it is what you draw in.")
            return
        self.session.stroke(self.section_id, label, path_px, float(self.width.value()))
        self._refresh()

    def undo(self) -> None:
        """Take the last stroke back."""
        if self.session is not None and self.session.drawing.undo() is not None:
            self._refresh()

    def redo(self) -> None:
        """Draw again what was taken back."""
        if self.session is not None and self.session.drawing.redo() is not None:
            self._refresh()

    def _drag(self, _viewer: Any, event: Any) -> Iterator[None]:
        """A stroke of the mouse, while pen or rubber is on."""
        if self.layers is None or event.button != 1 or not (self.pen.isChecked() or self.rubber.isChecked()):
            return
        path = [self.layers.to_section_px(event.position)]
        yield
        while event.type == "mouse_move":
            path.append(self.layers.to_section_px(event.position))
            yield
        self.draw(np.array(path))

    def _set_pen(self) -> None:
        """The mouse draws, or moves the picture."""
        drawing = self.pen.isChecked() or self.rubber.isChecked()
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
        self.classes.select(label.id)
        self.classes.edit_name(label.id)

    def _rename(self, label_id: int, name: str) -> None:
        self._try(lambda session: session.change_class(label_id, name=name))

    def _recolour(self, label_id: int, colour: str) -> None:
        self._try(lambda session: session.change_class(label_id, colour=colour))

    def remove_class(self) -> None:
        """Take the chosen class away, where nothing is drawn in it."""
        label_id = self.classes.selected
        if label_id is not None:
            self._try(lambda session: session.remove_class(label_id))

    def _try(self, change: Callable[[Session], None]) -> None:
        """Change the classes; what is refused is said and shown as it was."""
        if self.session is None:
            return
        try:
            change(self.session)
        except CytoarchError as error:
            self._say(str(error))
        self._show_classes()

    def _show_classes(self) -> None:
        if self.session is None:
            return
        strokes = Counter(one.label for one in self.session.drawing.scribbles)
        self.classes.show_classes(self.session.drawing.labels, strokes)
        self._refresh(classes=False)

    # -- training ------------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Embed what is in view where it is not, train, and show the map, nearest to the middle first."""
        session = self.session
        if session is None:
            return
        view = self.view

        def work() -> Iterator[Any]:
            blocks = session.missing(view)
            for done, block in enumerate(blocks):
                yield "looking at the tissue", done, len(blocks)
                session.blocks.compute(block)
            yield "learning from your strokes", 0, 0
            loss = session.train()
            yield from session.predict(view)
            yield f"trained on {len(session.drawing.scribbles)} strokes, loss {loss:.3f}", 1, 1

        self._run(work, self._paint, "training")

    def reset(self) -> None:
        """Forget what was learned, not what was drawn."""
        if self.session is not None:
            self.session.reset()
            self._shown.clear_map()
            self._say("The model has forgotten what it learned; your strokes are all there.")

    def annotate_next(self) -> None:
        """Move the picture to where the model is least sure."""
        session = self.session
        if session is None or session.decoder is None:
            self._say("Train first (T): then the model can say where it is least sure.")
            return
        whole = [self._whole(self.section_id)]
        self._run(lambda: iter([session.least_sure(whole)]), self._jump, "looking for doubts")

    def _whole(self, section_id: str) -> View:
        height, width = self._shown.layout.image.grid.shape
        return View(section_id, 0, 0, height, width)

    def _jump(self, spot: Spot | None) -> None:
        if spot is None:
            self._say("Nothing is embedded here yet: train once with this part in view.")
            return
        self.viewer.scene.camera.center = (0.0, *self._shown.to_world((spot.y_px, spot.x_px)))
        self._say(f"The model is least sure here (section {spot.section_id}). Draw what it is, then press T.")

    def save(self) -> None:
        """Commit what is drawn as a version in the store."""
        self._work_once(lambda session: f"Saved as version {session.save()} of {session.author}.", "saving")

    def hand_over(self, decoder: DecoderSettings | None = None) -> None:
        """Save, and train the decoder that maps the whole brain; the scheduled run finds it current."""

        def work(session: Session) -> str:
            digest, name = session.hand_over(decoder)
            return f"Trained {name}, model {digest[:12]}. Map the brain with parcellate-brain --model {digest[:12]}..."

        self._work_once(work, "training for the whole brain")

    def resume_waiting(self) -> None:
        """Save, and let the run go on that waits for scribbles on this brain."""
        orchestrator = Orchestrator.of(os.environ)
        if orchestrator is None:
            self._say("No server is known: set PREFECT_API_URL to its address, such as http://127.0.0.1:4200/api.")
            return

        def work(session: Session) -> str:
            runs = orchestrator.waiting(session.brain_id)
            if not runs:
                return f"No run waits for scribbles on brain {session.brain_id}."
            version = session.save()
            orchestrator.resume(runs[0], session.author, version)
            return f"{runs[0].name} goes on with version {version} of {session.author}."

        self._work_once(work, "asking the server")

    def _work_once(self, work: Callable[[Session], str], what: str) -> None:
        session = self.session
        if session is not None:
            self._run(lambda: iter([(work(session), 1, 1)]), self._paint, what)

    def cancel(self) -> None:
        """Stop what is going on after its present part."""
        if self.worker is not None:
            self.worker.quit()
            self._say("Stopped; what was finished is kept.")

    def _run(self, work: Callable[[], Iterator[Any]], on_yield: Callable[[Any], None], what: str) -> None:
        """Do something beside the window; one thing at a time."""
        if self.worker is not None:
            self._say("Still at work: wait for it, or press Cancel.")
            return

        def steps() -> Iterator[Any]:
            yield from work()

        self._say(f"{what} ...")
        self._busy(busy=True)
        worker = thread_worker(steps, ignore_errors=True)()  # they are told by `_failed`
        worker.yielded.connect(on_yield)
        worker.errored.connect(self._failed)
        worker.finished.connect(self._finished)
        self.worker = worker
        worker.start()

    def _paint(self, told: Any) -> None:
        if isinstance(told, Seen):
            if self.layers is not None and told.section_id == self.section_id:
                self.layers.paint(told)
            return
        text, done, total = told
        self._say(text)
        self.progress.setRange(0, total)
        self.progress.setValue(done)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, CytoarchError):
            self._say(str(error))
            return
        self._say(f"Something broke ({error!r}). What you drew is kept; please report it with the details below.")
        notification_manager.receive_error(type(error), error, error.__traceback__)

    def _finished(self) -> None:
        self.worker = None
        self._busy(busy=False)
        self._show_classes()

    # -- looks ---------------------------------------------------------------------------------------------------------

    def _refresh(self, classes: bool = True) -> None:
        if self.session is None:
            return
        if classes:
            self._show_classes()
            return
        if self.layers is not None:
            drawing = self.session.drawing
            self.layers.show_scribbles(
                [s for s in drawing.scribbles if s.section_id == self.section_id], drawing.labels
            )
            self.layers.colour(drawing.labels)
        kept = (
            f"version {self.session.drawing.saved}" if self.session.drawing.saved else "kept on disk, in no version yet"
        )
        self.kept.setText(f"{len(self.session.drawing.scribbles)} strokes by {self.session.author}: {kept}")

    def _set_opacity(self, percent: int) -> None:
        if self.layers is not None:
            self.layers.map.opacity = percent / 100

    def _show_confidence(self, shown: bool) -> None:
        if self.layers is not None:
            self.layers.confidence.visible = bool(shown)

    def _say(self, text: str) -> None:
        self.status.setText(text)

    def _busy(self, *, busy: bool) -> None:
        for one in self._while_idle:
            one.setEnabled(not busy)
        self.cancelling.setEnabled(busy)
        self.progress.setRange(0, 0 if busy else 1)
        self.progress.setValue(0)

    def _build(self) -> None:
        self.form = OpeningForm()
        self.form.opened.connect(self._open_chosen)
        self.sections, self.classes = QListWidget(), ClassTable()
        self.sections.setIconSize(QSize(THUMBNAIL_PX, THUMBNAIL_PX))
        self.sections.setToolTip("The sections of the brain in cutting order.")
        self.sections.currentTextChanged.connect(self.show_section)
        self.classes.renamed.connect(self._rename)
        self.classes.recoloured.connect(self._recolour)
        self.pen = self._toggle("Pen (B)", "Draw in the chosen class. Off: the mouse moves the picture.")
        self.rubber = self._toggle("Rubber (X)", "Rub strokes out; what lies below is unlabelled again.")
        self.width = self._slider(1, 200, 12, "Width of the pen in pixels of the scan.")
        self.opacity = self._slider(0, 100, 45, "How strongly the map covers the scan.")
        self.opacity.valueChanged.connect(self._set_opacity)
        self.confident = QCheckBox("Show confidence (C)")
        self.confident.setToolTip("Bright: the model is sure of its class. Dark: it wavers between two.")
        self.confident.toggled.connect(self._show_confidence)
        self.training = self._button("Train and show (T)", self.train, "Learn from all strokes; map what is in view.")
        self.next = self._button("Annotate next (N)", self.annotate_next, "Jump to where the model is least sure.")
        self.resetting = self._button("Reset", self.reset, "Forget what was learned; strokes stay.")
        self.saving = self._button("Save version", self.save, "Commit the strokes to the store; versions never change.")
        self.handing = self._button(
            "Train for the whole brain", self.hand_over,
            "Save, and train the decoder that parcellate-brain maps the brain with: the same as train-decoder would.",
        )  # fmt: skip
        self.resuming = self._button(
            "Resume waiting run", self.resume_waiting,
            "Save, and let the train-decoder run go on that waits on the server for scribbles on this brain.",
        )  # fmt: skip
        self.cancelling = self._button("Cancel", self.cancel, "Stop after the present part; what is finished is kept.")
        self.new_class = self._button("New class", self.add_class, "Add a class and name it.")
        self.no_class = self._button(
            "Remove class", self.remove_class, "Remove the chosen class, if it has no strokes."
        )
        self.undoing = self._button("Undo", self.undo, "Take the last stroke back (Ctrl-Z).")
        self.redoing = self._button("Redo", self.redo, "Draw again what was taken back (Ctrl-Shift-Z).")
        self._while_idle: tuple[QWidget, ...] = (self.training, self.next, self.resetting, self.saving)
        self._while_idle += (self.handing, self.resuming, self.sections)
        self.progress, self.status, self.kept = QProgressBar(), QLabel(""), QLabel("")
        self.progress.setTextVisible(False)
        for label in (self.status, self.kept):
            label.setWordWrap(True)
        self.cancelling.setEnabled(False)
        self.pages = QStackedWidget()
        first, second = QWidget(), QWidget()
        QVBoxLayout(first).addWidget(self.form)
        first.layout().addStretch()
        self._lay_out(QVBoxLayout(second))
        self.pages.addWidget(first)
        self.pages.addWidget(second)
        QVBoxLayout(self).addWidget(self.pages)

    def _lay_out(self, page: QVBoxLayout) -> None:
        page.addWidget(QLabel("Sections"))
        page.addWidget(self.sections, 2)
        page.addWidget(QLabel("Classes"))
        page.addWidget(self.classes, 3)
        page.addLayout(_row(self.new_class, self.no_class))
        page.addLayout(_row(self.pen, self.rubber, self.undoing, self.redoing))
        sliders = QGridLayout()
        for row, (name, one) in enumerate((("Pen width", self.width), ("Map", self.opacity))):
            sliders.addWidget(QLabel(name), row, 0)
            sliders.addWidget(one, row, 1)
        page.addLayout(sliders)
        page.addWidget(self.confident)
        page.addLayout(_row(self.training, self.next))
        page.addLayout(_row(self.resetting, self.saving))
        page.addLayout(_row(self.handing, self.resuming))
        page.addLayout(_row(self.progress, self.cancelling))
        page.addWidget(self.status)
        page.addWidget(self.kept)
        keys = QLabel("<small>" + "<br>".join(f"<b>{key}</b> {what}" for key, what in KEYS) + "</small>")
        page.addWidget(keys)

    def _open_chosen(self, chosen: Opening) -> None:
        try:
            self.open(chosen)
        except CytoarchError as error:
            self.form.button.setToolTip(str(error))
            show_error(str(error))

    def _button(self, text: str, call: Callable[[], None], tip: str) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(tip)
        button.clicked.connect(lambda _=False: call())
        return button

    def _toggle(self, text: str, tip: str) -> QPushButton:
        button = QPushButton(text)
        button.setCheckable(True)
        button.setToolTip(tip)
        button.toggled.connect(lambda on: self._toggled(button, on))
        return button

    def _toggled(self, button: QPushButton, on: bool) -> None:
        other = self.rubber if button is self.pen else self.pen
        if on and other.isChecked():
            other.setChecked(False)
        self._set_pen()

    def _slider(self, low: int, high: int, value: int, tip: str) -> QSlider:
        slider = QSlider(Qt.Orientation.Horizontal)
        slider.setRange(low, high)
        slider.setValue(value)
        slider.setToolTip(tip)
        return slider

    def _bind(self) -> None:
        """Keys of the canvas; what they do is written below the buttons."""
        calls: dict[str, Callable[[], Any]] = {
            "t": self.train,
            "n": self.annotate_next,
            "b": self.pen.toggle,
            "x": self.rubber.toggle,
            "c": self.confident.toggle,
            "Control-Z": self.undo,
            "Control-Shift-Z": self.redo,
            **{str(number): partial(self._choose, number - 1) for number in range(1, 10)},
        }
        for key, call in calls.items():
            self.viewer.bind_key(key, partial(_pressed, call), overwrite=True)
        self.viewer.mouse_drag_callbacks.append(self._drag)

    def _choose(self, place: int) -> None:
        if place < len(self.classes.ids):
            self.classes.select(self.classes.ids[place])


def _pressed(call: Callable[[], Any], _viewer: Any) -> None:
    """What a key does; napari hands it the viewer."""
    call()


def _row(*widgets: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    for one in widgets:
        row.addWidget(one)
    return row


def thumbnail(image: StoredImage) -> QPixmap:
    """A small picture of a section, from the coarsest level that is large enough."""
    levels, rgb = pixels_of(image)
    fitting = [one for one in levels if max(one.shape[:2]) >= THUMBNAIL_PX]
    pixels = np.asarray(fitting[-1] if fitting else levels[0])
    step = max(1, max(pixels.shape[:2]) // THUMBNAIL_PX)
    pixels = pixels[::step, ::step]
    if pixels.dtype != np.uint8:
        top = max(float(pixels.max()), 1.0)
        pixels = (pixels / top * 255).astype(np.uint8)
    pixels = np.ascontiguousarray(pixels if rgb else np.repeat(pixels[..., None], 3, axis=-1))
    height, width = pixels.shape[:2]
    return QPixmap.fromImage(QImage(pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888).copy())
