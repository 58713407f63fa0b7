"""The list of sections, with small pictures of those that are in view: a brain has thousands."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt, QTimer, Signal
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QListWidget, QListWidgetItem

THUMBNAIL_PX = 72
MOST_PICTURES = 400
"""Pictures that are held; those shown longest ago go first."""
SETTLED_MS = 60
"""The list has come to rest when it was not moved for so long."""


class SectionList(QListWidget):  # type: ignore[misc]  # Qt ships no types
    """The sections of a brain in cutting order; it asks for pictures of those in view that it has none of."""

    wanted = Signal(list)

    def __init__(self) -> None:
        super().__init__()
        self.setIconSize(QSize(THUMBNAIL_PX, THUMBNAIL_PX))
        self.setUniformItemSizes(True)
        self.setToolTip("The sections of the brain in cutting order.")
        self._pictured: OrderedDict[str, None] = OrderedDict()
        self._rows: dict[str, int] = {}
        self._settled = QTimer(self)
        self._settled.setSingleShot(True)
        self._settled.setInterval(SETTLED_MS)
        self._settled.timeout.connect(self._ask)
        self._blank = QIcon(_pixmap(np.full((THUMBNAIL_PX, THUMBNAIL_PX, 3), 128, dtype=np.uint8)))
        self.verticalScrollBar().valueChanged.connect(lambda _: self._settled.start())

    def fill(self, section_ids: Sequence[str]) -> None:
        """List these, without pictures yet."""
        self.clear()
        self._pictured.clear()
        self._rows = {one: row for row, one in enumerate(section_ids)}
        for one in section_ids:
            item = QListWidgetItem(self._blank, one)
            item.setSizeHint(QSize(0, THUMBNAIL_PX + 4))
            self.addItem(item)
        self._settled.start()

    @property
    def chosen(self) -> str:
        """The section that is chosen; blank: none."""
        item = self.currentItem()
        return str(item.text()) if item is not None else ""

    def choose(self, section_id: str) -> None:
        """Choose a section, without telling that it was chosen."""
        self.blockSignals(True)
        self.setCurrentRow(self._rows[section_id])
        self.blockSignals(False)

    def picture(self, section_id: str, pixels: NDArray[np.uint8]) -> None:
        """Show the picture (y, x, 3) of a section."""
        if section_id not in self._rows:  # of a brain that is closed by now
            return
        self.item(self._rows[section_id]).setIcon(QIcon(_pixmap(pixels)))
        self._pictured[section_id] = None
        while len(self._pictured) > MOST_PICTURES:
            self.item(self._rows[self._pictured.popitem(last=False)[0]]).setIcon(self._blank)

    def refuse(self, section_id: str, reason: str) -> None:
        """Say why a section cannot be drawn on; it costs itself only."""
        if section_id in self._rows:
            item = self.item(self._rows[section_id])
            item.setFlags(Qt.ItemFlag.NoItemFlags)
            item.setToolTip(reason)

    def resizeEvent(self, event: object) -> None:  # noqa: N802 - Qt names it
        """More of it may be in view."""
        super().resizeEvent(event)
        self._settled.start()

    def _in_view(self) -> Iterator[str]:
        seen = self.viewport().rect()
        top, bottom = self.indexAt(seen.topLeft()).row(), self.indexAt(seen.bottomLeft()).row()
        last = bottom if bottom >= 0 else self.count() - 1  # the list ends above the lower edge
        for row in range(top, last + 1) if top >= 0 else ():
            yield str(self.item(row).text())

    def _ask(self) -> None:
        missing = []
        for one in self._in_view():
            if one in self._pictured:
                self._pictured.move_to_end(one)
            elif self.item(self._rows[one]).flags() & Qt.ItemFlag.ItemIsEnabled:
                missing.append(one)
        if missing:
            self.wanted.emit(missing[:MOST_PICTURES])


def _pixmap(pixels: NDArray[np.uint8]) -> QPixmap:
    height, width = pixels.shape[:2]
    return QPixmap.fromImage(QImage(pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888).copy())
