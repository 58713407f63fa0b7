"""What the head of a session sees: embeddings of windows as far as they are computed, joined by places in tissue."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.places import PLACE_CHANNELS, TissuePlaces
from cytoarch.brains import LabelTable
from cytoarch.embeddings.reading import channels_seen
from cytoarch.interactive.holding import Held
from cytoarch.interactive.lessons import Lesson
from cytoarch.interactive.regions import Block, Blocks, Window
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.sketch import MARGIN, Sketch, SketchFit
from cytoarch.learning.targets import UNLABELLED
from cytoarch.learning.training import cells_per_token
from cytoarch.steps.opened import OpenBrain

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

PLACE_BYTES = 96 << 20
"""Distances in sections that are held in memory."""
MOST_WINDOWS, THINNED = 24, 2
"""What embeddings look like is found in so many squares around strokes at most, in every other row."""


class Sight:
    """Windows of a brain's sections with a margin as wide as the head reaches."""

    def __init__(self, brain: OpenBrain, blocks: Blocks, with_places: bool) -> None:
        self.brain, self.blocks, self.with_places = brain, blocks, with_places
        self._places: Held[str, TissuePlaces] = Held(PLACE_BYTES, lambda one: one.values.nbytes)
        self._told: dict[tuple[str, Window], tuple[Int64, Float32]] = {}

    @property
    def cells_per_token(self) -> int:
        """Cells of the map along a token."""
        return cells_per_token("decoder", self.blocks.step.encoder.encoder.tiles.token_px)

    def card(self, table: LabelTable, section_id: str) -> HeadCard:
        """What a head for these classes is fed, where it is told of a section as it is of all others."""
        step, encoder = self.blocks.step, self.blocks.step.encoder.encoder
        dims = encoder.dims(channels_seen(self.blocks.layout(section_id).image, encoder, step.embed))
        return HeadCard(
            kind="sketch",
            target="areas",
            classes=table.classes(by_group=False),
            dims=(*dims, PLACE_CHANNELS) if self.with_places else dims,
            cells_per_token=self.cells_per_token,
            embedding=step.embed,
            encoder_digest=encoder.digest,
            token_px=encoder.tiles.token_px,
            pixel_size_um=step.pixel_size_um,
        )

    def needed(self, section_id: str, window: Window) -> list[Block]:
        """The blocks that decide what the head makes of a window."""
        layout = self.blocks.layout(section_id)
        return layout.blocks(section_id, layout.clipped(_widened(window)))

    def read(self, section_id: str, window: Window) -> tuple[Float32, Mask] | None:
        """Embeddings (c, y, x) of a window of tokens with a margin of `MARGIN`, and which tokens of it are there.

        None: nothing of the window, or of its margin, is embedded.
        """
        around = _widened(window)
        found = self.blocks.read_window(section_id, around)
        if found is None:
            return None
        values, there = found
        if self.with_places:
            cells = self.blocks.layout(section_id).tokens.window(*around)
            values = np.concatenate([values, self.places(section_id).channels(cells)])
        return values, there[MARGIN:-MARGIN, MARGIN:-MARGIN]

    def begin(self, card: HeadCard, lessons: Sequence[Lesson], fit: SketchFit) -> Sketch:
        """A head that knows what embeddings around some of the lessons look like, and nothing else yet."""
        self._told.clear()  # it will be told otherwise
        chosen = lessons[:: -(-len(lessons) // MOST_WINDOWS)]
        read = [self.read(one.section_id, one.window) for one in chosen]
        joined = PLACE_CHANNELS if self.with_places else 0
        return Sketch.begun(card, [one[0][:, ::THINNED, ::THINNED] for one in read if one is not None], joined, fit)

    def places(self, section_id: str) -> TissuePlaces:
        """Where in the tissue the places of a section lie."""
        return self._places.get(section_id, lambda: TissuePlaces.of(self.blocks.layout(section_id).tissue))

    def cells(self, head: Sketch, lessons: Sequence[Lesson]) -> tuple[Float32, Int64]:
        """What the head is told of the labelled cells of lessons (n, i), and their classes (n,).

        What was told of a square is kept as long as what is drawn in it stays as it was.
        """
        told, targets, known_before = [], [], self._told
        self._told = {}  # of the squares that are learned from, and no others
        for one in lessons:
            key, known = (one.section_id, one.window), one.targets != UNLABELLED
            kept = known_before.get(key)
            if kept is None or not np.array_equal(kept[0], one.targets):
                read = self.read(*key)
                if read is None:
                    raise ValueError(f"nothing of window {one.window} of section {one.section_id} is embedded")
                seen = head.told(read[0], MARGIN)
                kept = one.targets, np.ascontiguousarray(seen[:, known].T)
            self._told[key] = kept
            told.append(kept[1])
            targets.append(one.targets[known])
        return np.concatenate(told), np.concatenate(targets)


def _widened(window: Window) -> Window:
    y, x, height, width = window
    return y - MARGIN, x - MARGIN, height + 2 * MARGIN, width + 2 * MARGIN
