"""A brain of the store opened in a window, and one of its sections shown; both are read beside the window."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import napari
import numpy as np
from napari.utils.notifications import notification_manager
from numpy.typing import NDArray
from qtpy.QtWidgets import QStackedWidget, QVBoxLayout, QWidget

from cytoarch.embeddings import EmbedSettings
from cytoarch.errors import CytoarchError, SectionError
from cytoarch.interactive.lessons import SessionSettings
from cytoarch.interactive.session import Session
from cytoarch.interactive.showing import Opened, first_opened, opened, small_pictures
from cytoarch.interactive.views import View
from cytoarch.napari.layers import SectionLayers
from cytoarch.napari.opening import Opening, OpeningForm
from cytoarch.napari.panel import Panel
from cytoarch.napari.sections import THUMBNAIL_PX
from cytoarch.napari.working import Working


class BrainWidget(QWidget):  # type: ignore[misc]  # Qt ships no types
    """A page that asks for a brain, and a page that shows it."""

    def __init__(self, viewer: "napari.Viewer") -> None:
        super().__init__()
        self.viewer = viewer
        self.session: Session | None = None
        self.layers: SectionLayers | None = None
        self.form, self.panel, self.pages = OpeningForm(), Panel(), QStackedWidget()
        self.working = Working(self.panel, self.deed_done)
        self._stack = ExitStack()
        first = QWidget()
        QVBoxLayout(first).addWidget(self.form)
        first.layout().addStretch()
        self.pages.addWidget(first)
        self.pages.addWidget(self.panel)
        QVBoxLayout(self).addWidget(self.pages)
        self.form.opened.connect(self.open)
        self.panel.sections.currentTextChanged.connect(self.show_section)
        self.panel.sections.wanted.connect(self._picture)

    def brain_opened(self) -> None:
        """A brain was opened; nothing of it is shown yet."""

    def section_shown(self) -> None:
        """Another section is shown."""

    def deed_done(self) -> None:
        """What was asked for is done, or broke."""

    # -- opening and closing -------------------------------------------------------------------------------------------

    def open(self, chosen: Opening, settings: SessionSettings | None = None) -> None:
        """Open a brain, beside the window: its manifest and records are read; what its author drew is there again."""
        self.close_session()
        stack, embed = self._stack, EmbedSettings(encoder=chosen.encoder)
        others_ended = self.working.left()

        def work() -> Iterator[tuple[Session, Opened | None, dict[str, str]]]:
            others_ended()
            session = stack.enter_context(
                Session.opened(chosen.store_path, chosen.brain_id, chosen.author, embed, settings)
            )
            if stack is not self._stack:  # it was closed meanwhile, and nobody waited for this
                stack.close()
                return
            yield session, *first_opened(session)

        self.form.show_chosen(chosen)
        self.form.say(f"Opening brain {chosen.brain_id} ...", busy=True)
        self.working.read("brain", work, lambda told: self._opened(*told), self._not_opened)

    def _opened(self, session: Session, first: Opened | None, refused: Mapping[str, str]) -> None:
        """Show the page of a brain, and the first section of it."""
        self.session = session
        self.form.say("")
        self.pages.setCurrentIndex(1)
        self.panel.say("" if first else "No section of this brain can be drawn on: hover over them to see why.")
        self.panel.sections.fill([one.section_id for one in session.sections])
        for section_id, reason in refused.items():
            self.panel.sections.refuse(section_id, reason)
        self.brain_opened()
        if first is not None:
            self.panel.sections.choose(first.section.section_id)
            self._show(first)

    def _not_opened(self, error: Exception) -> None:
        self.pages.setCurrentIndex(0)
        self._not_read(error)
        self.form.say(str(error))

    def close_session(self) -> None:
        """Close the brain; everything that was drawn is kept."""
        layers, self.layers = self.layers, None
        stack, self._stack = self._stack, ExitStack()
        try:
            self.working.end()
        finally:
            self.session = None
            self.form.say("")
            stack.close()
            if layers is not None:
                layers.remove()

    def closeEvent(self, event: Any) -> None:  # noqa: N802 - Qt names it
        """The dock is closed."""
        self.close_session()
        super().closeEvent(event)

    # -- sections ------------------------------------------------------------------------------------------------------

    def show_section(self, section_id: str) -> None:
        """Show a section with all that is known of it, as soon as it is read; until then the one before is shown."""
        session = self.session
        if session is None or not section_id:
            return
        self.panel.say(_reading(section_id))
        self.working.read(
            "section", lambda: iter([opened(session, section_id)]), self._show, partial(self._not_shown, section_id)
        )

    def _not_shown(self, section_id: str, error: Exception) -> None:
        """A section that cannot be read costs itself only."""
        self._not_read(error)
        self.panel.sections.refuse(section_id, str(error))
        if self.layers is not None:
            self.panel.sections.choose(self.section_id)

    def _show(self, section: Opened) -> None:
        """Show a section in place of the one before; where its pixels cannot be read, none is shown."""
        session, section_id = self.session, section.section.section_id
        if session is None:
            return
        if self.layers is not None:
            self.layers.remove()
            self.layers = None  # nothing is drawn on it any more, whatever becomes of the next
        if self.panel.status.text() == _reading(section_id):
            self.panel.say("")
        try:
            layers = self._layers_of(section, session)
        except Exception as error:  # noqa: BLE001 - napari reads in this thread, and hands on whatever a damaged file raises
            self.viewer.layers.clear()
            self._not_shown(section_id, error)
            return
        self.layers = layers
        self.viewer.canvas.overlays.scale_bar.visible = True
        layers.set_opacity(self.panel.opacity.value())
        layers.show_confidence(self.panel.confident.isChecked())
        self.viewer.layers.selection.active = layers.scribbles
        self.viewer.reset_view()
        self.section_shown()

    def _layers_of(self, section: Opened, session: Session) -> SectionLayers:
        """Raises SectionError if pixels that are shown at once are damaged."""
        try:
            layers = SectionLayers(self.viewer, section.section, section.layout, session.cells_per_token)
            for known in section.known:
                layers.add_known(known)
        except (ValueError, RuntimeError) as error:
            raise SectionError(
                f"section {section.section.section_id} cannot be shown ({error}): its pixels are damaged, or those of "
                "what is known of it; run verify, which names the file"
            ) from error
        return layers

    def _picture(self, section_ids: list[str]) -> None:
        """Read small pictures of sections that came into view."""
        session = self.session
        if session is not None:
            self.working.read(
                "pictures", lambda: small_pictures(session, section_ids, THUMBNAIL_PX), self._pictured, self._not_read
            )

    def _pictured(self, told: tuple[str, NDArray[np.uint8] | str]) -> None:
        section_id, found = told
        if isinstance(found, str):
            self.panel.sections.refuse(section_id, found)
        else:
            self.panel.sections.picture(section_id, found)

    @property
    def section_id(self) -> str:
        """The section that is shown; blank: none."""
        return "" if self.layers is None else self.layers.section.section_id

    @property
    def view(self) -> View:
        """What the canvas shows of the section, in pixels of its image."""
        layers = self._shown
        image, window = layers.layout.image.grid, layers.in_view()
        if not min(window[2:]):
            return self.whole_view
        shown = layers.cells.window(*window)
        top, left = image.from_corner(np.array(shown.corner_um)).tolist()
        height, width = (edge / image.cell_um for edge in shown.extent_um)
        return View(self.section_id, top, left, height, width)

    @property
    def whole_view(self) -> View:
        """The whole section."""
        return View(self.section_id, 0, 0, *self._shown.layout.image.grid.shape)

    @property
    def _shown(self) -> SectionLayers:
        if self.layers is None:
            raise CytoarchError("no section is shown: open a brain first")
        return self.layers

    def _not_read(self, error: Exception) -> None:
        """What could not be read is said; what should not happen is reported, too."""
        if not isinstance(error, CytoarchError):
            notification_manager.receive_error(type(error), error, error.__traceback__)
        self.panel.say(str(error))


def _reading(section_id: str) -> str:
    """What is said while a section is read."""
    return f"Reading section {section_id} ..."
