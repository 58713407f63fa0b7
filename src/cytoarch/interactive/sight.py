"""What the head of a session sees: embeddings of windows as far as they are computed, joined by depth."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.depth import DepthSettings
from cytoarch.anatomy.depth_maps import DEPTH_CHANNELS, DepthMap
from cytoarch.brains import LabelTable
from cytoarch.interactive.lessons import Lesson
from cytoarch.interactive.regions import Block, Blocks, Window
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.sketch import REACH_TOKENS, Sketch, SketchFit
from cytoarch.learning.targets import UNLABELLED
from cytoarch.learning.training import cells_per_token
from cytoarch.steps.depth import DepthStep
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.step import Place

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

MOST_WINDOWS = 8
"""What embeddings look like is found in so many squares around strokes at most."""


class Sight:
    """Windows of a brain's sections with a margin as wide as the head reaches."""

    def __init__(self, brain: OpenBrain, blocks: Blocks, with_depth: bool) -> None:
        self.brain, self.blocks, self.with_depth = brain, blocks, with_depth
        self._depths: dict[str, DepthMap] = {}
        self._told: dict[tuple[str, Window], tuple[Int64, Float32]] = {}

    @property
    def cells_per_token(self) -> int:
        """Cells of the map along a token."""
        return cells_per_token("decoder", self.blocks.step.encoder.encoder.tiles.token_px)

    def card(self, table: LabelTable) -> HeadCard:
        """What a head for these classes is fed."""
        step, encoder = self.blocks.step, self.blocks.step.encoder.encoder
        channels = len(step.channels) or self.blocks.layout(self.brain.sections[0].section_id).image.channels
        dims = encoder.dims(channels)
        return HeadCard(
            kind="sketch",
            target="areas",
            classes=table.classes(by_group=False),
            dims=(*dims, DEPTH_CHANNELS) if self.with_depth else dims,
            cells_per_token=self.cells_per_token,
            embedding=step.embed,
            encoder_digest=encoder.digest,
            token_px=encoder.tiles.token_px,
            pixel_size_um=step.pixel_size_um,
            depth="laplace" if self.with_depth else "none",
        )

    def needed(self, section_id: str, window: Window) -> list[Block]:
        """The blocks that decide what the head makes of a window."""
        layout = self.blocks.layout(section_id)
        return layout.blocks(section_id, layout.clipped(_widened(window)))

    def is_there(self, section_id: str, window: Window) -> bool:
        """Whether all of a window that lies on the section is embedded."""
        layout = self.blocks.layout(section_id)
        return all(map(self.blocks.is_there, layout.blocks(section_id, layout.clipped(window))))

    def read(self, section_id: str, window: Window) -> tuple[Float32, Mask] | None:
        """Embeddings (c, y, x) of a window of tokens with a margin of `REACH_TOKENS`, and which tokens of it are there.

        None: nothing of the window, or of its margin, is embedded.
        """
        around = _widened(window)
        found = self.blocks.read_window(section_id, around)
        if found is None:
            return None
        values, there = found
        depth = self.depth(section_id)
        if depth is not None:
            values = np.concatenate([values, depth.channels(self.blocks.layout(section_id).tokens.window(*around))])
        return values, there[REACH_TOKENS:-REACH_TOKENS, REACH_TOKENS:-REACH_TOKENS]

    def begin(self, card: HeadCard, lessons: Sequence[Lesson], fit: SketchFit) -> Sketch:
        """A head that knows what embeddings around some of the lessons look like, and nothing else yet."""
        self._told.clear()  # it will be told otherwise
        chosen = lessons[:: -(-len(lessons) // MOST_WINDOWS)]
        read = [self.read(one.section_id, one.window) for one in chosen]
        return Sketch.begun(card, [one[0] for one in read if one is not None], fit)

    def depth(self, section_id: str) -> DepthMap | None:
        """The depth of a section: as `trace-cortex` committed it, else measured now; None: the head is not told."""
        if self.with_depth and section_id not in self._depths:
            self._depths[section_id] = self._depth(section_id)
        return self._depths.get(section_id)

    def _depth(self, section_id: str) -> DepthMap:
        stored, place = DepthStep().stored, Place(self.brain, self.brain.rows[section_id])
        if self.brain.catalogue.record(stored.product(section_id)) is not None:
            return stored.open(place)
        tissue = self.blocks.layout(section_id).tissue
        return DepthMap.measure(tissue.classes, tissue.grid, DepthSettings())[0]

    def cells(self, head: Sketch, lessons: Sequence[Lesson]) -> tuple[Float32, Int64]:
        """What the head is told of the labelled cells of lessons (n, i), and their classes (n,).

        What was told of a square is kept as long as what is drawn in it stays as it was.
        """
        told, targets = [], []
        for one in lessons:
            key, known = (one.section_id, one.window), one.targets != UNLABELLED
            kept = self._told.get(key)
            if kept is None or not np.array_equal(kept[0], one.targets):
                read = self.read(*key)
                if read is None:
                    raise ValueError(f"nothing of window {one.window} of section {one.section_id} is embedded")
                seen = head.told(read[0], REACH_TOKENS)
                kept = self._told[key] = one.targets, np.ascontiguousarray(seen[:, known].T)
            told.append(kept[1])
            targets.append(one.targets[known])
        return np.concatenate(told), np.concatenate(targets)


def _widened(window: Window) -> Window:
    y, x, height, width = window
    return y - REACH_TOKENS, x - REACH_TOKENS, height + 2 * REACH_TOKENS, width + 2 * REACH_TOKENS
