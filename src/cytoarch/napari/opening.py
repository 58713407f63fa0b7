"""Which brain is opened, by whom, with which encoder: the first page of the widget."""

from pathlib import Path
from typing import NamedTuple

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QWidget,
)

from cytoarch.paths import is_id
from cytoarch.store.brain_store import BrainStore

ENCODERS = ("texture", "texture+lite0:3,4", "lite0", "dinov3:vits16", "dinov3:vitb16")


class Opening(NamedTuple):
    """What a person chose."""

    store_path: Path
    brain_id: str
    author: str
    encoder: str


class OpeningForm(QWidget):  # type: ignore[misc]  # Qt ships no types
    """Asks for the store, the brain, the person's name and the encoder."""

    opened = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._busy = False
        self.store, self.brain, self.author, self.encoder = QLineEdit(), QComboBox(), QLineEdit(), QComboBox()
        self.button, self.status = QPushButton("Open brain"), QLabel("")
        self.status.setWordWrap(True)
        browse = QPushButton("Browse ...")
        self.store.setPlaceholderText("folder of the store")
        self.author.setPlaceholderText("for example ada")
        self.encoder.addItems(ENCODERS)
        self.encoder.setEditable(True)
        self.store.setToolTip("The folder that map-brain or ingest-brain wrote, with brains/ in it.")
        self.brain.setToolTip("A brain of the store.")
        self.author.setToolTip("Your name: every stroke carries it, and your drawing is kept under it.")
        self.encoder.setToolTip(
            "What looks at the tissue. texture needs no weights and is the fastest; dinov3:vitb16 needs fewer strokes "
            "and a graphics card."
        )
        row = QHBoxLayout()
        row.addWidget(self.store)
        row.addWidget(browse)
        form = QFormLayout(self)
        form.addRow("Store", row)
        form.addRow("Brain", self.brain)
        form.addRow("Your name", self.author)
        form.addRow("Encoder", self.encoder)
        form.addRow(self.button)
        form.addRow(self.status)
        browse.clicked.connect(self._browse)
        self.store.textChanged.connect(self._list_brains)
        for one in (self.store.textChanged, self.brain.currentTextChanged, self.author.textChanged):
            one.connect(self._check)
        self.button.clicked.connect(lambda: self.opened.emit(self.value))
        self._check()

    @property
    def value(self) -> Opening:
        """What is chosen now."""
        return Opening(
            Path(self.store.text()), self.brain.currentText(), self.author.text().strip(), self.encoder.currentText()
        )

    def show_chosen(self, chosen: Opening) -> None:
        """Show what is being opened, so that it can be changed where that fails."""
        self.store.setText(str(chosen.store_path))
        self.brain.setCurrentText(chosen.brain_id)
        self.author.setText(chosen.author)
        self.encoder.setCurrentText(chosen.encoder)

    def say(self, text: str, *, busy: bool = False) -> None:
        """Tell the person something; while a brain is being opened no other can be."""
        self.status.setText(text)
        self._busy = busy
        self._check()

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of the store", self.store.text())
        if folder:
            self.store.setText(folder)

    def _list_brains(self) -> None:
        self.brain.clear()
        self.brain.addItems(BrainStore(Path(self.store.text())).brain_ids() if self.store.text() else [])

    def _check(self) -> None:
        chosen = self.value
        self.button.setEnabled(bool(chosen.brain_id) and is_id(chosen.author) and not self._busy)
        missing = "a store that holds a brain" if not chosen.brain_id else "your name: letters, digits, '-', '_'"
        ready = self.button.isEnabled() or self._busy
        self.button.setToolTip("" if ready else f"Needed: {missing}")
