"""The table of classes: colour, name, strokes; names are edited in place, a double click on a colour changes it."""

from collections.abc import Mapping, Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QColorDialog, QHeaderView, QTableWidget, QTableWidgetItem

from cytoarch.brains import Label
from cytoarch.napari.layers import colours_by_id

COLOUR, NAME, STROKES = range(3)


class ClassTable(QTableWidget):  # type: ignore[misc]  # Qt ships no types
    """The classes of a drawing; the selected one is drawn in."""

    renamed = Signal(int, str)
    recoloured = Signal(int, str)
    chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__(0, 3)
        self.setHorizontalHeaderLabels(["", "class", "strokes"])
        self.horizontalHeader().setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        self.setColumnWidth(COLOUR, 34)
        self.setColumnWidth(STROKES, 60)
        self.verticalHeader().hide()
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setToolTip(
            "Select the class to draw in (keys 1 to 9). Double-click a name to change it, a colour to choose another."
        )
        self.ids: list[int] = []
        self.itemChanged.connect(self._changed)
        self.cellDoubleClicked.connect(self._pick)
        self.itemSelectionChanged.connect(self._selected)

    def show_classes(self, labels: Sequence[Label], strokes: Mapping[int, int]) -> None:
        """Show these classes; the selection stays with its class."""
        before = self.selected
        self.blockSignals(True)
        self.ids = [one.id for one in labels]
        self.setRowCount(len(labels))
        colours = colours_by_id(labels)
        for row, one in enumerate(labels):
            swatch, name, count = (QTableWidgetItem(text) for text in ("", one.name, str(strokes.get(one.id, 0) or "")))
            swatch.setBackground(QColor(*colours[one.id]))
            swatch.setFlags(Qt.ItemFlag.ItemIsEnabled)
            count.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable)
            count.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            for column, item in ((COLOUR, swatch), (NAME, name), (STROKES, count)):
                self.setItem(row, column, item)
        self.blockSignals(False)
        if self.ids:
            self.select(before if before in self.ids else self.ids[0])

    @property
    def selected(self) -> int | None:
        """The id of the class that is drawn in; None: there is none."""
        rows = self.selectionModel().selectedRows() if self.ids else []
        return self.ids[rows[0].row()] if rows and rows[0].row() < len(self.ids) else None

    def select(self, label_id: int) -> None:
        """Draw in this class from now on."""
        self.selectRow(self.ids.index(label_id))

    def edit_name(self, label_id: int) -> None:
        """Put the cursor into the name of a class."""
        self.editItem(self.item(self.ids.index(label_id), NAME))

    def _changed(self, item: QTableWidgetItem) -> None:
        if item.column() == NAME:
            self.renamed.emit(self.ids[item.row()], item.text().strip())

    def _pick(self, row: int, column: int) -> None:
        if column == COLOUR:
            colour = QColorDialog.getColor(self.item(row, COLOUR).background().color(), self, "Colour of the class")
            if colour.isValid():
                self.recoloured.emit(self.ids[row], colour.name())

    def _selected(self) -> None:
        if self.selected is not None:
            self.chosen.emit(self.selected)
