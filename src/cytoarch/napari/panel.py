"""The page of buttons and lists: what there is to press, with what it does as its tooltip. It decides nothing."""

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMenu,
    QProgressBar,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from cytoarch.napari.classes import ClassTable
from cytoarch.napari.sections import SectionList

KEYS = (
    ("T", "train and show the map"),
    ("M", "map the whole section"),
    ("B", "pen; off: the mouse moves the picture"),
    ("X", "rubber"),
    ("1-9", "choose a class"),
    ("Ctrl-Z / Ctrl-Shift-Z", "undo, redo a stroke"),
    ("N", "jump to where the model is least sure"),
    ("C", "show confidence"),
)


class Panel(QWidget):  # type: ignore[misc]  # Qt ships no types
    """Sections, classes, pen, what can be done, and how far it is."""

    def __init__(self) -> None:
        super().__init__()
        self.sections, self.classes = SectionList(), ClassTable()
        self.new_class = _button("New class", "Add a class and name it.")
        self.no_class = _button("Remove class", "Remove the chosen class, if it has no strokes.")
        self.taking = _button("Take classes", "Add the classes of another brain, of somebody's drawing, or of a table.")
        self.sources = QMenu(self.taking)
        self.taking.setMenu(self.sources)
        self.pen = _toggle("Pen (B)", "Draw in the chosen class. Off: the mouse moves the picture.")
        self.rubber = _toggle("Rubber (X)", "Rub strokes out; what lies below is unlabelled again.")
        self.undoing = _button("Undo", "Take the last stroke back (Ctrl-Z).")
        self.redoing = _button("Redo", "Draw again what was taken back (Ctrl-Shift-Z).")
        self.width = _slider(1, 200, 12, "Width of the pen in pixels of the scan.")
        self.opacity = _slider(0, 100, 45, "How strongly the map covers the scan.")
        self.confident = QCheckBox("Show confidence (C)")
        self.confident.setToolTip("Bright: the model is sure of its class. Dark: it wavers between two.")
        self.training = _button("Train and show (T)", "Learn from all strokes; map what is in view.")
        self.next = _button("Annotate next (N)", "Jump to where the model is least sure.")
        self.mapping = _button("Map section (M)", "Map the whole section with what was learned, from the middle out.")
        self.resetting = _button("Reset", "Forget what was learned; strokes stay.")
        self.saving = _button("Save version", "Commit the strokes to the store; versions never change.")
        self.handing = _button(
            "Train for the brain",
            "Save, and train the decoder that parcellate-brain maps the brain with: the same as train-decoder would.",
        )
        self.whole = _button(
            "Map the brain",
            "Map every section with the decoder trained for the brain: as a run of the server where there is one "
            "(PREFECT_API_URL), else here. It can take hours; what is finished is kept.",
        )
        self.resuming = _button(
            "Resume waiting run",
            "Save, and let the train-decoder run go on that waits on the server for scribbles on this brain.",
        )
        self.cancelling = _button("Cancel", "Stop after the present part; what is finished is kept.")
        self.progress, self.status, self.ahead, self.kept = QProgressBar(), QLabel(""), QLabel(""), QLabel("")
        self.progress.setTextVisible(False)
        for label in (self.status, self.ahead, self.kept):
            label.setWordWrap(True)
        self.ahead.setToolTip("What the encoder is looking at beside your drawing, so that the map comes at once.")
        self.cancelling.setEnabled(False)
        self._lay_out(QVBoxLayout(self))

    def say(self, text: str) -> None:
        """Tell the person something."""
        self.status.setText(text)

    def busy(self, *, busy: bool) -> None:
        """While something is going on, nothing else can be begun, and it can be cancelled."""
        for one in (
            self.training, self.next, self.mapping, self.resetting, self.saving, self.handing, self.whole,
            self.resuming, self.sections,
        ):  # fmt: skip
            one.setEnabled(not busy)
        self.cancelling.setEnabled(busy)
        self.tell(0, 0 if busy else 1)

    def tell(self, done: int, total: int) -> None:
        """How far it is; of 0: nobody knows."""
        self.progress.setRange(0, total)
        self.progress.setValue(done)

    @property
    def is_complete(self) -> bool:
        """Whether all of it was told to be done."""
        return bool(self.progress.value() == self.progress.maximum() > 0)

    def only(self, button: QPushButton) -> None:
        """Pen and rubber are never both on."""
        other = self.rubber if button is self.pen else self.pen
        if button.isChecked() and other.isChecked():
            other.setChecked(False)

    def connect_all(self, calls: "dict[QPushButton, Callable[[], Any]]") -> None:
        """What each button does."""
        for button, call in calls.items():
            button.clicked.connect(lambda _=False, call=call: call())

    def _lay_out(self, page: QVBoxLayout) -> None:
        page.addWidget(QLabel("Sections"))
        page.addWidget(self.sections, 2)
        page.addWidget(QLabel("Classes"))
        page.addWidget(self.classes, 3)
        page.addLayout(_row(self.new_class, self.no_class, self.taking))
        page.addLayout(_row(self.pen, self.rubber, self.undoing, self.redoing))
        sliders = QGridLayout()
        for row, (name, one) in enumerate((("Pen width", self.width), ("Map", self.opacity))):
            sliders.addWidget(QLabel(name), row, 0)
            sliders.addWidget(one, row, 1)
        page.addLayout(sliders)
        page.addWidget(self.confident)
        page.addLayout(_row(self.training, self.next))
        page.addLayout(_row(self.mapping, self.resetting, self.saving))
        page.addLayout(_row(self.handing, self.whole, self.resuming))
        page.addLayout(_row(self.progress, self.cancelling))
        for label in (self.status, self.ahead, self.kept):
            page.addWidget(label)
        keys = QLabel("<small>" + "<br>".join(f"<b>{key}</b> {what}" for key, what in KEYS) + "</small>")
        page.addWidget(keys)


def _button(text: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    return button


def _toggle(text: str, tip: str) -> QPushButton:
    button = _button(text, tip)
    button.setCheckable(True)
    return button


def _slider(low: int, high: int, value: int, tip: str) -> QSlider:
    slider = QSlider(Qt.Orientation.Horizontal)
    slider.setRange(low, high)
    slider.setValue(value)
    slider.setToolTip(tip)
    return slider


def _row(*widgets: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    for one in widgets:
        row.addWidget(one)
    return row
