"""A person at work on a brain: what is drawn is kept at once, a decoder learns from it, and a view shows what it makes.

No window is needed: tests, benchmarks and the napari plugin all work with the same object. Nothing here knows Prefect.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.ndimage import gaussian_filter

from cytoarch.annotations.autosave import Drawing
from cytoarch.annotations.drawing import DrawnLabels
from cytoarch.annotations.exchange import Drawer
from cytoarch.annotations.scribbles import RUBBER, Scribble, now
from cytoarch.brains import Label, LabelTable, Section
from cytoarch.embeddings import EmbedSettings
from cytoarch.errors import StoreError, TrainingError
from cytoarch.geometry import Grid
from cytoarch.interactive.regions import Block, Blocks, Layout, Patchwork, nearest_first
from cytoarch.learning.application import HALO_TOKENS
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.datasets import Crops
from cytoarch.learning.decoder import Decoder, Fit, fit_decoder
from cytoarch.learning.targets import UNLABELLED, targets_on_grid
from cytoarch.learning.training import DecoderSettings, cells_per_token
from cytoarch.palette import hex_colour
from cytoarch.progress import Progress
from cytoarch.steps.annotations import Scribbled, opened_annotation, save_annotation, version_ids
from cytoarch.steps.opened import open_brain, read_only
from cytoarch.steps.running import make, silent
from cytoarch.steps.scales import ScaleStep
from cytoarch.steps.training import TrainingStep, keep_head

Float32 = NDArray[np.float32]
UInt16 = NDArray[np.uint16]

OKABE_ITO = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
"""Colours that people with any colour vision tell apart (Okabe and Ito 2008); the first classes get them."""
TILE_CELLS = 256
"""Edge of what is predicted at once, in cells: a view fills in piece by piece."""
BLUR_CELLS = 3.0
"""Where a model is least sure is decided over so many cells around: a single odd cell is no place to draw."""


class SessionSettings(BaseModel):
    """How the decoder of a session learns: fast enough to be waited for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(default=32, ge=8, le=512, description="Channels of a branch and of the hidden layer.")
    steps: int = Field(default=20, ge=1, le=1000, description="Steps a key press takes; it goes on from the last ones.")
    first_steps: int = Field(default=60, ge=1, le=5000, description="Steps of the first training, and after a reset.")
    batch_size: int = Field(default=8, ge=1, le=64, description="Crops in a step.")
    crop_tokens: int = Field(default=32, ge=8, le=256, description="Edge of a crop in tokens.")
    most_crops: int = Field(default=64, ge=1, le=1024, description="Crops at most; those drawn on last come first.")
    learning_rate: float = Field(default=3e-3, gt=0, le=1, description="Rate of AdamW.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of initialisation and order.")


class View(NamedTuple):
    """What a person looks at: a window of a section in pixels of its image."""

    section_id: str
    y_px: float
    x_px: float
    height_px: float
    width_px: float


class Seen(NamedTuple):
    """A part of a view as the decoder sees it."""

    section_id: str
    grid: Grid
    """Where its cells lie, in the frame of the section."""
    labels: UInt16
    """(y, x) ids of the classes; 0 outside tissue and where nothing is embedded."""
    confidence: Float32
    """(y, x) in [0, 1]: how much likelier the first class is than the second; 0 where there is no label."""
    at: tuple[int, int]
    """(y, x) of its first cell on the grid of the whole section."""


class Spot(NamedTuple):
    """A place on a section in pixels of its image."""

    section_id: str
    y_px: float
    x_px: float


class Session:
    """A drawing on a brain with the decoder that learns from it."""

    def __init__(
        self, store_path: Path, brain_id: str, drawing: Drawing, embed: EmbedSettings, settings: SessionSettings
    ) -> None:
        self.store_path, self.brain_id = store_path, brain_id
        self.drawing, self.settings = drawing, settings
        self.brain = read_only(store_path, brain_id)
        self.blocks = Blocks(store_path, brain_id, embed)
        self.decoder: Decoder | None = None
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
        path = read_only(store_path, brain_id).catalogue.folder / "drawings" / f"{author}.jsonl"
        with Drawing.opened(path) as drawing:
            session = cls(store_path, brain_id, drawing, embed or EmbedSettings(), settings or SessionSettings())
            session._begin(author)
            yield session

    def _begin(self, author: str) -> None:
        """Start an empty drawing from the latest version, else from the brain's table of labels."""
        if self.drawing.labels or self.drawing.scribbles:
            self._take_later(author)
            return
        if author in self.brain.catalogue.names("annotations"):
            scribbled = Scribbled.of(self.brain, author)
            earlier = opened_annotation(self.brain.catalogue.path(scribbled.product))
            self.drawing.set_classes(earlier.table.labels)
            for one in earlier.scribbles:
                self.drawing.draw(one)
            self.drawing.note_saved(scribbled.version)
        elif self.brain.brain.label_table is not None:
            self.drawing.set_classes(self.brain.brain.label_table.labels)

    def _take_later(self, author: str) -> None:
        """Add what was imported for the author since this drawing was saved, if nothing was drawn since."""
        there = version_ids(self.brain.catalogue, author)
        if not self.drawing.saved or not there or there[-1] == self.drawing.saved:
            return
        later = opened_annotation(self.brain.catalogue.path(Scribbled(author, there[-1]).product))
        known = set(self.drawing.scribbles)
        self.drawing.set_classes(later.table.labels)
        for one in later.scribbles:
            if one not in known:
                self.drawing.draw(one)
        self.drawing.note_saved(there[-1])

    # -- classes and strokes -------------------------------------------------------------------------------------------

    @property
    def author(self) -> str:
        """Who draws."""
        return self.drawing.path.stem

    @property
    def sections(self) -> tuple[Section, ...]:
        """The sections that can be drawn on, in cutting order."""
        return self.brain.sections

    def add_class(self, name: str, colour: str | None = None) -> Label:
        """A new class with the next free number, and a colour that the others do not have."""
        taken = {one.id for one in self.drawing.labels}
        free = next(number for number in range(1, 65536) if number not in taken)
        used = {(one.colour or "").lower() for one in self.drawing.labels}
        spare = [hex_colour(one) for one in OKABE_ITO if hex_colour(one) not in used]
        label = Label(id=free, name=name, colour=colour or (spare[0] if spare else None))
        self.drawing.set_classes((*self.drawing.labels, label))
        return label

    def take_classes(self, table: LabelTable) -> None:
        """Add the classes of a table (an atlas's, or another brain's) whose names are not there yet."""
        names, taken = {one.name for one in self.drawing.labels}, {one.id for one in self.drawing.labels}
        added = []
        for one in table.labels:
            if one.name not in names:
                free = one.id if one.id not in taken else next(n for n in range(1, 65536) if n not in taken)
                taken.add(free)
                added.append(one.model_copy(update={"id": free}))
        self.drawing.set_classes((*self.drawing.labels, *added))

    def change_class(self, label_id: int, name: str | None = None, colour: str | None = None) -> None:
        """Rename a class, or give it another colour."""
        said = {key: value for key, value in (("name", name), ("colour", colour)) if value}
        if label_id not in {one.id for one in self.drawing.labels}:
            raise StoreError(f"there is no class {label_id}")
        changed = [
            Label.model_validate({**one.model_dump(), **said}) if one.id == label_id else one
            for one in self.drawing.labels
        ]
        self.drawing.set_classes(tuple(changed))

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
        own = tuple(one for one in tuple(self.drawing.scribbles) if one.section_id == section_id)
        known = self._drawn.get(section_id)
        if known is None or known[0] != own:
            layout = self.blocks.layout(section_id)
            drawn = DrawnLabels.of(own, layout.image.grid, self.brain.rows[section_id].region_px)
            self._drawn[section_id] = own, drawn
        return self._drawn[section_id][1]

    # -- embedding -----------------------------------------------------------------------------------------------------

    def window(self, view: View) -> tuple[int, int, int, int]:
        """The tokens (y, x, height, width) of a section that a view touches. Raises StoreError if it touches none."""
        layout = self.blocks.layout(view.section_id)
        size = layout.tokens.cell_um / layout.image.pixel_size_um
        rows, columns = layout.tokens.shape
        top, left = max(0, int(view.y_px // size)), max(0, int(view.x_px // size))
        bottom = min(rows, int(-(-(view.y_px + view.height_px) // size)))
        right = min(columns, int(-(-(view.x_px + view.width_px) // size)))
        if bottom <= top or right <= left:
            raise StoreError(f"the view lies beside section {view.section_id}; move it onto the section")
        return top, left, bottom - top, right - left

    def missing(self, view: View) -> list[Block]:
        """The blocks of a view that are not embedded yet, in reading order."""
        layout = self.blocks.layout(view.section_id)
        wanted = layout.blocks(view.section_id, self.window(view))
        return [one for one in wanted if not self.blocks.is_there(one)]

    def embed(
        self, view: View, on_progress: Progress = silent, is_cancelled: Callable[[], bool] = lambda: False
    ) -> bool:
        """Embed what a view shows, block by block, and keep it in the store; whether all of it is there now.

        Raises as `Blocks.compute`.
        """
        blocks = self.missing(view)
        for done, block in enumerate(blocks):
            if is_cancelled():
                return False
            self.blocks.compute(block)
            on_progress(done + 1, len(blocks))
        return True

    # -- learning ------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget what the decoder learned; the next training begins at random. Scribbles stay."""
        self.decoder = None

    def train(self, on_progress: Progress | None = None) -> float:
        """Train the decoder on what is drawn where embeddings are there; returns its loss.

        It goes on from the last training, or begins anew after a reset. The same scribbles, trainings and resets give
        the same weights. Raises TrainingError if fewer than two classes are drawn where embeddings are.
        """
        card = self._card()
        crops = self._crops(card)
        first = self.decoder is None
        steps = self.settings.first_steps if first else self.settings.steps
        fit = Fit(
            width=self.settings.width, epochs=1, batch_size=self.settings.batch_size, least_steps=steps,
            learning_rate=self.settings.learning_rate, seed=self.settings.seed + self.drawing.rounds,
            dihedral=True, balance=True,
        )  # fmt: skip
        self.decoder, facts = fit_decoder(card, crops, fit, self.decoder, on_progress)
        self.drawing.note_training()
        return float(facts["loss"][-1])

    def _card(self) -> HeadCard:
        table = self.drawing.table
        if table is None:
            raise TrainingError("there is no class yet: name two or more, and draw in them")
        step, encoder = self.blocks.step, self.blocks.step.encoder.encoder
        drawn_on = (one.section_id for one in self.drawing.scribbles)
        first = self.blocks.layout(next(drawn_on, self.sections[0].section_id))
        token_px = encoder.tiles.token_px
        return HeadCard(
            kind="decoder",
            target="areas",
            classes=table.classes(by_group=False),
            dims=encoder.dims(len(step.channels) or first.image.channels),
            cells_per_token=cells_per_token("decoder", token_px),
            embedding=step.embed,
            encoder_digest=encoder.digest,
            token_px=token_px,
            pixel_size_um=step.pixel_size_um,
        )

    def _crops(self, card: HeadCard) -> Crops:
        """Squares that hold scribbles, of those drawn last first. Raises TrainingError if they show too little."""
        edge, u = self.settings.crop_tokens, card.cells_per_token
        embeddings: list[NDArray[np.float16]] = []
        targets: list[NDArray[np.int64]] = []
        drawn = tuple(self.drawing.scribbles)  # more may be drawn meanwhile
        sections = dict.fromkeys(one.section_id for one in reversed(drawn) if one.label != RUBBER)
        for section_id in sections:
            layout, labels = self.blocks.layout(section_id), self.labels(section_id)
            for y, x in self._places(section_id, edge):
                if len(targets) == self.settings.most_crops:
                    break
                cells = layout.tokens.window(y, x, edge, edge).split(u)
                patchwork = self._patchwork(layout, layout.blocks(section_id, _clipped(layout, (y, x, edge, edge))))
                if patchwork is None or labels.is_blank(cells):
                    continue
                values, there = patchwork.read(y, x, edge, edge)
                inside = np.repeat(np.repeat(there, u, 0), u, 1) & layout.tissue.on_grid(cells)
                found = np.where(inside, targets_on_grid(labels, card.classes, cells), UNLABELLED)
                if (found != UNLABELLED).any():
                    embeddings.append(values.astype(np.float16))
                    targets.append(found)
        present = sorted({int(one) for found in targets for one in np.unique(found)} - {UNLABELLED})
        if len(present) < 2:
            named = ", ".join(card.classes[one].name for one in present) or "none"
            raise TrainingError(
                f"scribbles of {len(present)} class(es) lie in tissue that is embedded ({named}); at least two are "
                "needed: draw in another class, or wait until the view is embedded"
            )
        return Crops(np.stack(embeddings), np.stack(targets).astype(np.int16), len(targets))

    def _places(self, section_id: str, edge: int) -> list[tuple[int, int]]:
        """The corners (y, x) in tokens of squares side by side that scribbles touch, those drawn last first."""
        layout, region = self.blocks.layout(section_id), self.brain.rows[section_id].region_px or (0, 0, 0, 0)
        size = layout.tokens.cell_um / layout.image.pixel_size_um
        found: dict[tuple[int, int], None] = {}
        own = [one for one in tuple(self.drawing.scribbles) if one.section_id == section_id]
        for one in (one for one in reversed(own) if one.label != RUBBER):
            path = (np.array(one.paths_px[0]) - np.array([region[0], region[2]])) / size / edge
            reach = one.width_px / size / edge
            for y in range(int(np.floor((path[:, 0] - reach).min())), int(np.floor((path[:, 0] + reach).max())) + 1):
                for x in range(
                    int(np.floor((path[:, 1] - reach).min())), int(np.floor((path[:, 1] + reach).max())) + 1
                ):
                    found[y * edge, x * edge] = None
        rows, columns = layout.tokens.shape
        return [(y, x) for y, x in found if 0 <= y < rows and 0 <= x < columns]

    def _patchwork(self, layout: Layout, blocks: Sequence[Block]) -> Patchwork | None:
        held = {block: values for block in blocks if (values := self.blocks.read(block)) is not None}
        return Patchwork(layout, held) if held else None

    # -- seeing --------------------------------------------------------------------------------------------------------

    def predict(self, view: View, centre_px: tuple[float, float] | None = None) -> Iterator[Seen]:
        """What the decoder makes of a view where it is embedded, piece by piece, nearest to a place first.

        `centre_px` is the place (y, x) in pixels of the section's image, blank: the middle of the view. Raises
        TrainingError if nothing was trained yet.
        """
        if self.decoder is None:
            raise TrainingError("the decoder has not learned anything yet: draw in two classes and train")
        decoder, layout, window = self.decoder, self.blocks.layout(view.section_id), self.window(view)
        u = decoder.card.cells_per_token
        edge, halo = max(1, TILE_CELLS // u), HALO_TOKENS
        size = layout.tokens.cell_um / layout.image.pixel_size_um
        y, x = centre_px or (view.y_px + view.height_px / 2, view.x_px + view.width_px / 2)
        ids = np.array([one.ids[0] for one in decoder.card.classes], dtype=np.uint16)
        for top, left, height, width in nearest_first(window, edge, (y / size, x / size)):
            around = top - halo, left - halo, height + 2 * halo, width + 2 * halo
            patchwork = self._patchwork(layout, layout.blocks(view.section_id, _clipped(layout, around)))
            if patchwork is None:
                continue
            values, there = patchwork.read(*around)
            if not there[halo : halo + height, halo : halo + width].any():
                continue
            found = decoder.probabilities(_edges_repeated(values, there)[None])[0]
            found = found[:, halo * u : (halo + height) * u, halo * u : (halo + width) * u]
            cells = layout.tokens.window(top, left, height, width).split(u)
            known = np.repeat(np.repeat(there[halo : halo + height, halo : halo + width], u, 0), u, 1)
            known &= layout.tissue.on_grid(cells)
            two = np.sort(found, axis=0)[-2:]
            labels = np.where(known, ids[found.argmax(axis=0)], 0).astype(np.uint16)
            confidence = np.where(known, two[1] - two[0], 0).astype(np.float32)
            yield Seen(view.section_id, cells, labels, confidence, (top * u, left * u))

    def least_sure(self, views: Sequence[View]) -> Spot | None:
        """Where in some views the decoder is least sure and nothing is drawn; None where nothing is seen."""
        best: tuple[float, Spot] | None = None
        classes = self.decoder.card.classes if self.decoder else ()
        for view in views:
            image = self.blocks.layout(view.section_id).image.grid
            for seen in self.predict(view):
                known = seen.labels > 0
                drawn = targets_on_grid(self.labels(view.section_id), classes, seen.grid) != UNLABELLED
                free = known & ~drawn
                if not free.any():
                    continue
                weight = gaussian_filter(known.astype(np.float32), BLUR_CELLS)
                sure = gaussian_filter(seen.confidence, BLUR_CELLS) / np.maximum(weight, 1e-6)
                y, x = np.unravel_index(np.where(free, sure, np.inf).argmin(), sure.shape)
                place = image.from_corner(seen.grid.um(np.array([y, x])))
                if best is None or float(sure[y, x]) < best[0]:
                    best = float(sure[y, x]), Spot(view.section_id, float(place[0]), float(place[1]))
        return best[1] if best else None

    # -- keeping -------------------------------------------------------------------------------------------------------

    def save(self) -> str:
        """Commit what is drawn as a version in the store; returns its id.

        Raises BrainBusyError if a run is writing the brain (what is drawn stays kept), StoreError if nothing is drawn.
        """
        drawn = self.drawing.annotation(self.brain_id)
        with open_brain(self.store_path, self.brain_id) as brain:
            version = save_annotation(brain, drawn)
        if (drawn.table.labels, drawn.scribbles) == (self.drawing.labels, tuple(self.drawing.scribbles)):
            self.drawing.note_saved(version)  # unless a stroke was drawn meanwhile
        return version

    def hand_over(self, decoder: DecoderSettings | None = None, on_progress: Progress = silent) -> tuple[str, str]:
        """Train the decoder that maps brains from all that is drawn; returns its digest and the name of its training.

        Sections that are drawn on are embedded as a whole where they are not, and the training is the one of
        `train-decoder`: the same scribbles give the same decoder. Raises as `save` and the training.
        """
        settings = decoder or DecoderSettings()
        version = self.save()
        with open_brain(self.store_path, self.brain_id) as brain:
            scribbled = Scribbled.of(brain, self.author, version)
            for section_id in self.drawing.annotation(self.brain_id).section_ids:
                self.blocks.compute_section(section_id, brain)
            stored = self.blocks.step.stored
            if settings.standardise == "brain":
                make(ScaleStep.of(stored), brain)
            step = TrainingStep.on_scribbles(brain, stored, "decoder", settings, scribbled)
            make(step, brain, on_progress)
            return keep_head(brain, step.name), step.name


def _clipped(layout: Layout, window: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The part of a window of tokens (y, x, height, width) that lies on its section."""
    (rows, columns), (y, x, height, width) = layout.tokens.shape, window
    top, left = max(0, y), max(0, x)
    return top, left, min(rows, y + height) - top, min(columns, x + width) - left


def _edges_repeated(values: Float32, there: NDArray[np.bool_]) -> Float32:
    """Embeddings (c, y, x) in which rows and columns that are not there at all repeat the nearest that are."""
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    y = np.clip(np.arange(there.shape[0]), rows[0], rows[-1])
    x = np.clip(np.arange(there.shape[1]), columns[0], columns[-1])
    return np.ascontiguousarray(values[:, y][:, :, x])
