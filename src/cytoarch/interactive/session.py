"""A person at work on a brain: what is drawn is kept at once, a head learns from it, and a view shows what it makes.

No window is needed: tests, benchmarks and the napari plugin all work with the same object. Nothing here knows Prefect.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cytoarch.annotations.autosave import Drawing
from cytoarch.annotations.drawing import DrawnLabels
from cytoarch.annotations.exchange import Drawer
from cytoarch.annotations.scribbles import Scribble, now
from cytoarch.brains import Label, LabelClass, LabelTable, Section
from cytoarch.embeddings import EmbedSettings
from cytoarch.errors import TrainingError
from cytoarch.interactive import classes, handing, seeing
from cytoarch.interactive.lessons import Lesson, SessionSettings, in_turn, squares, targets_of
from cytoarch.interactive.regions import Block, Blocks, Window
from cytoarch.interactive.sight import Sight
from cytoarch.interactive.views import Seen, Spot, Told, View, token_px, window_of
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.sketch import Sketch
from cytoarch.learning.targets import UNLABELLED
from cytoarch.learning.training import DecoderSettings
from cytoarch.progress import Progress
from cytoarch.steps.annotations import Scribbled
from cytoarch.steps.opened import read_only
from cytoarch.steps.running import silent

WORTH_SAYING = 0.05
"""A person is told when more than this share of what they drew lies beside the tissue."""


class Session:
    """A drawing on a brain with the head that learns from it."""

    def __init__(
        self, store_path: Path, brain_id: str, drawing: Drawing, embed: EmbedSettings, settings: SessionSettings
    ) -> None:
        self.store_path, self.brain_id = store_path, brain_id
        self.drawing, self.settings = drawing, settings
        self.brain = read_only(store_path, brain_id)
        self.blocks = Blocks(store_path, brain_id, embed)
        self.sight = Sight(self.brain, self.blocks, settings.with_places)
        self.head: Sketch | None = None
        self.beside_tissue = 0.0
        """Share of what was drawn, when the head last learned, that lies beside the tissue: nobody learns from that."""
        self.handed = ""
        """The digest of the decoder that was trained for the brain; blank: none was."""
        self._drawn: dict[str, tuple[tuple[Scribble, ...], DrawnLabels]] = {}

    @classmethod
    @contextmanager
    def opened(
        cls,
        store_path: Path,
        brain_id: str,
        author: str,
        embed: EmbedSettings | None = None,
        settings: SessionSettings | None = None,
    ) -> Iterator[Self]:
        """A session on a brain in the store; what the author drew in earlier ones is there again.

        Where nothing is in progress, drawing goes on from the latest version in the store, or from the classes of the
        brain's label table. Raises StoreError if the brain is not there, or if the author draws in another window.
        """
        brain = read_only(store_path, brain_id)
        with Drawing.opened(brain.catalogue.folder / "drawings" / f"{author}.jsonl") as drawing:
            handing.take_up(drawing, brain)
            yield cls(store_path, brain_id, drawing, embed or EmbedSettings(), settings or SessionSettings())

    @property
    def author(self) -> str:
        """Who draws."""
        return self.drawing.path.stem

    @property
    def sections(self) -> tuple[Section, ...]:
        """The sections that can be drawn on, in cutting order."""
        return self.brain.sections

    @property
    def cells_per_token(self) -> int:
        """Cells of the map along a token."""
        return self.sight.cells_per_token

    # -- classes and strokes -------------------------------------------------------------------------------------------

    def add_class(self, name: str, colour: str | None = None) -> Label:
        """A new class with the next free number, and a colour that the others do not have."""
        self.drawing.set_classes(classes.added(self.drawing.labels, name, colour))
        return self.drawing.labels[-1]

    def take_classes(self, table: LabelTable) -> None:
        """Add the classes of a table (an atlas's, or another brain's) whose names are not there yet."""
        self.drawing.set_classes(classes.joined(self.drawing.labels, table.labels))

    def change_class(self, label_id: int, name: str | None = None, colour: str | None = None) -> None:
        """Rename a class, or give it another colour."""
        self.drawing.set_classes(classes.changed(self.drawing.labels, label_id, name, colour))

    def remove_class(self, label_id: int) -> None:
        """Take a class away. Raises StoreError if something is drawn in it."""
        self.drawing.set_classes(tuple(one for one in self.drawing.labels if one.id != label_id))

    def pen(self, section_id: str) -> Drawer:
        """What makes scribbles on a section, now."""
        return Drawer(section_id, self.author, now(), self.drawing.rounds + 1)

    def stroke(self, section_id: str, label: int, path_px: NDArray[np.float64], width_px: float) -> Scribble:
        """Draw along places (n, 2) y, x in pixels of the section's image, zero at the corner of the first one."""
        y0, _, x0, _ = self.brain.rows[section_id].region_px or (0, 0, 0, 0)
        scribble = self.pen(section_id).line(label, path_px + np.array([y0, x0]), width_px)
        self.drawing.draw(scribble)
        return scribble

    def labels(self, section_id: str) -> DrawnLabels:
        """What is drawn on a section, as labels on its pixels."""
        own = self._own(section_id)
        known = self._drawn.get(section_id)
        if known is None or known[0] != own:
            layout = self.blocks.layout(section_id)
            drawn = DrawnLabels.of(own, layout.image.grid, self.brain.rows[section_id].region_px)
            self._drawn[section_id] = own, drawn
        return self._drawn[section_id][1]

    def _own(self, section_id: str) -> tuple[Scribble, ...]:
        """The scribbles on a section; more may be drawn meanwhile."""
        return tuple(one for one in tuple(self.drawing.scribbles) if one.section_id == section_id)

    # -- embedding -----------------------------------------------------------------------------------------------------

    def window(self, view: View) -> Window:
        """The tokens of a section that a view touches. Raises StoreError if it touches none."""
        return window_of(self.blocks.layout(view.section_id), view)

    def missing(self, view: View) -> list[Block]:
        """The blocks of a view that are not embedded yet, nearest to its middle first."""
        return self.blocks.missing(view.section_id, self.window(view))

    def embed(
        self, view: View, on_progress: Progress = silent, is_cancelled: Callable[[], bool] = lambda: False
    ) -> bool:
        """Embed what a view shows, block by block, and keep it in the store; whether all of it is there now.

        Raises as `Blocks.compute`.
        """
        for told in self.look_ahead(view):
            on_progress(told.done, told.total)
            if is_cancelled():
                break
        return not self.missing(view)

    def look_ahead(self, view: View) -> Iterator[Told]:
        """Embed what a view shows, nearest to its middle first, so that a later training shows its map at once."""
        blocks = self.missing(view)
        for done, block in enumerate(blocks):
            yield Told("looking at the tissue", done, len(blocks))
            self.blocks.compute(block)
        self.sight.places(view.section_id)
        yield Told("looked at the tissue", len(blocks), len(blocks))

    # -- learning ------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget what was learned; the next training begins at random. Scribbles stay."""
        self.head = None

    def update(self, view: View) -> Iterator[Seen | Told]:
        """Learn from all strokes, then show a view: at once what is embedded, nearest first, and the rest as it is.

        What is learned from is embedded before, where it is not. Raises as `train` and `Blocks.compute`.
        """
        card, lessons = self._planned()
        yield from self._looked_at(lessons)
        yield Told("learning from your strokes", 0, 0)
        loss = self._learned(card, lessons)
        yield from self.stream(view)
        yield Told(f"trained on {len(self.drawing.scribbles)} strokes, loss {loss:.3f}{self._doubt()}", 1, 1)

    def _doubt(self) -> str:
        """What a person is told whose strokes are left out."""
        if self.beside_tissue < WORTH_SAYING:
            return ""
        return (
            f"; {self.beside_tissue:.0%} of what is drawn lies beside the tissue that was found and is left out: where "
            "that is wrong, name a mask of the tissue in the manifest (tissue_path)"
        )

    def train(self) -> float:
        """Train the head on all strokes; returns its loss. What they lie on is embedded before, where it is not.

        It goes on from the last training, or begins anew after a reset. The same scribbles, trainings and resets give
        the same weights, whatever else is embedded. Raises TrainingError if fewer than two classes are drawn in tissue,
        and as `Blocks.compute`.
        """
        card, lessons = self._planned()
        for _ in self._looked_at(lessons):
            pass
        return self._learned(card, lessons)

    def _planned(self) -> tuple[HeadCard, list[Lesson]]:
        """The head for the classes that are there now, and what strokes teach it, embedded or not."""
        if self.drawing.table is None:
            raise TrainingError("there is no class yet: name two or more, and draw in them")
        drawn_on = next(in_turn(tuple(self.drawing.scribbles)), self.brain.sections[0].section_id)
        card = self.sight.card(self.drawing.table, drawn_on)
        return card, self._lessons(card.classes)

    def _looked_at(self, lessons: Sequence[Lesson]) -> Iterator[Told]:
        """Embed what decides what lessons tell, a row of tokens around them included, where it is not."""
        blocks = [one for lesson in lessons for one in self.sight.needed(lesson.section_id, lesson.window)]
        missing = [one for one in dict.fromkeys(blocks) if not self.blocks.is_there(one)]
        for done, block in enumerate(missing):
            yield Told("looking at what you drew on", done, len(missing))
            self.blocks.compute(block)

    def _learned(self, card: HeadCard, lessons: Sequence[Lesson]) -> float:
        """Train the head on lessons that are embedded; returns its loss."""
        present = sorted({int(one) for lesson in lessons for one in np.unique(lesson.targets)} - {UNLABELLED})
        if len(present) < 2:
            named = ", ".join(card.classes[one].name for one in present) or "none"
            raise TrainingError(
                f"scribbles of {len(present)} class(es) lie in tissue ({named}); at least two are needed: draw in "
                "another class, or, where tissue was not found, name a mask of it in the manifest (tissue_path)"
            )
        fit, first = self.settings.fit, self.head is None
        if self.head is None:
            self.head = self.sight.begin(card, lessons, fit)
        elif self.head.card != card:
            self.head = self.head.with_classes(card)
        told, targets = self.sight.cells(self.head, lessons)
        steps = fit.first_steps if first else fit.steps
        self.head, loss = self.head.taught(told, targets, fit, steps, fit.seed + self.drawing.rounds)
        self.drawing.note_training()
        return loss

    def _squares(self) -> Iterator[tuple[str, Window]]:
        """The squares that scribbles touch, those drawn on last first."""
        for section_id in in_turn(tuple(self.drawing.scribbles)):
            layout = self.blocks.layout(section_id)
            for window in squares(layout, self.brain.rows[section_id], self._own(section_id)):
                yield section_id, window

    def _lessons(self, known: Sequence[LabelClass]) -> list[Lesson]:
        found: list[Lesson] = []
        cells_drawn = cells_beside = 0
        for section_id, window in self._squares():
            layout = self.blocks.layout(section_id)
            targets, beside = targets_of(layout, self.labels(section_id), known, window, self.cells_per_token)
            drawn = int((targets != UNLABELLED).sum())
            cells_drawn, cells_beside = cells_drawn + drawn, cells_beside + beside
            if drawn:
                found.append(Lesson(section_id, window, targets))
            if len(found) == self.settings.most_squares:
                break
        self.beside_tissue = cells_beside / max(cells_drawn + cells_beside, 1)
        return found

    # -- seeing --------------------------------------------------------------------------------------------------------

    def predict(self, view: View, centre_px: tuple[float, float] | None = None) -> Iterator[Seen]:
        """What the head makes of a view where it is embedded, piece by piece, nearest to a place first.

        `centre_px` is the place (y, x) in pixels of the section's image, blank: the middle of the view. Raises
        TrainingError if nothing was trained yet.
        """
        if self.head is None:
            raise TrainingError("the model has not learned anything yet: draw in two classes and train")
        size = token_px(self.blocks.layout(view.section_id))
        y, x = centre_px or view.middle_px
        yield from seeing.predicted(self.sight, self.head, view.section_id, self.window(view), (y / size, x / size))

    def stream(self, view: View) -> Iterator[Seen | Told]:
        """The same, and then what is not embedded yet, block by block as it is."""
        missing = self.missing(view)
        yield from self.predict(view)
        size = token_px(self.blocks.layout(view.section_id))
        for done, block in enumerate(missing):
            yield Told("looking at the rest of the view", done, len(missing))
            self.blocks.compute(block)
            y, x, height, width = (size * one for one in self.blocks.layout(view.section_id).window(block))
            yield from self.predict(View(view.section_id, y, x, height, width))

    def least_sure(self, views: Sequence[View]) -> Spot | None:
        """Where in some views the head is least sure and nothing is drawn; None where nothing is seen."""
        parts = ((self.labels(view.section_id), seen) for view in views for seen in self.predict(view))
        known = self.head.card.classes if self.head else ()
        return seeing.least_sure(parts, known, lambda one: self.blocks.layout(one).image.grid)

    # -- keeping -------------------------------------------------------------------------------------------------------

    def save(self) -> str:
        """Commit what is drawn as a version in the store; returns its id.

        Raises BrainBusyError if a run is writing the brain (what is drawn stays kept), StoreError if nothing is drawn.
        """
        with self.blocks.writing:
            return handing.save(self.drawing, self.store_path, self.brain_id)

    def hand_over(self, decoder: DecoderSettings | None = None, on_progress: Progress = silent) -> tuple[str, str]:
        """Train the decoder that maps brains from all that is drawn; returns its digest and the name of its training.

        Sections that are drawn on are embedded as a whole where they are not, and the training is the one of
        `train-decoder`: the same scribbles give the same decoder. Raises as `save` and the training.
        """
        settings = decoder or DecoderSettings()
        with self.blocks.writing:
            scribbled = Scribbled(self.author, self.save())
            self.handed, name = handing.hand_over(
                self.store_path, self.brain_id, scribbled, self.blocks, settings, on_progress
            )
        return self.handed, name

    def map_brain(self) -> Iterator[Told]:
        """Map every section with the decoder handed over, as `parcellate-brain` does: its next run finds them current.

        Raises TrainingError if none was handed over in this session, BrainBusyError if a run is writing the brain.
        """
        with self.blocks.writing:
            yield from handing.map_brain(self.store_path, self.brain_id, self.model)

    @property
    def model(self) -> str:
        """The digest of the decoder that was handed over. Raises TrainingError if there is none."""
        if not self.handed:
            raise TrainingError("no decoder was trained for the brain in this session: press Train for the brain first")
        return self.handed
