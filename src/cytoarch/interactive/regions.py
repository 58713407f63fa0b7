"""Embeddings of what is in view: blocks of sections, each made once by the embeddings step and kept in the store."""

import math
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.brains import Section
from cytoarch.embeddings import EmbedSettings, SectionEmbeddings
from cytoarch.embeddings.dense import tile_plan
from cytoarch.errors import SectionError, StoreError
from cytoarch.geometry import Grid
from cytoarch.images.views import StoredImage
from cytoarch.interactive.holding import Held
from cytoarch.steps.embeddings import BlockStep, EmbeddingsStep, Regions
from cytoarch.steps.opened import OpenBrain, open_brain, read_only
from cytoarch.steps.running import make_section
from cytoarch.steps.sections import SECTION
from cytoarch.steps.step import Place
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.disk import write_atomically

Float16 = NDArray[np.float16]
Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
Window = tuple[int, int, int, int]
"""Tokens (y, x, height, width) of a section."""

BLOCK_PX = 1024
"""Edge of a block in working pixels, as near as whole tiles come to it."""
HELD_BYTES = 512 << 20
"""Embeddings that are held in memory, beside those that are in use."""
LAYOUT_BYTES = 64 << 20
"""Tissue masks that are held in memory: a brain has thousands of sections."""


class Block(NamedTuple):
    """A part of a section that is embedded in one go."""

    section_id: str
    row: int
    column: int

    @property
    def name(self) -> str:
        """Its name within the section."""
        return f"y{self.row:03d}-x{self.column:03d}"


@dataclass(frozen=True)
class Layout:
    """How a section is cut into blocks of whole tiles."""

    tokens: Grid
    """Where its tokens lie."""
    block_tokens: int
    image: StoredImage
    tissue: TissueMask

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.tissue.mask.nbytes + (0 if self.tissue.matter is None else self.tissue.matter.nbytes)

    def window(self, block: Block) -> Window:
        """The tokens (y, x, height, width) of a block."""
        n, (height, width) = self.block_tokens, self.tokens.shape
        y, x = block.row * n, block.column * n
        return y, x, min(n, height - y), min(n, width - x)

    def clipped(self, window: Window) -> Window:
        """The part of a window of tokens that lies on the section."""
        (rows, columns), (y, x, height, width) = self.tokens.shape, window
        top, left = max(0, y), max(0, x)
        return top, left, min(rows, y + height) - top, min(columns, x + width) - left

    def blocks(self, section_id: str, window: Window) -> list[Block]:
        """The blocks that tokens (y, x, height, width) lie in, in reading order."""
        y, x, height, width = window
        n = self.block_tokens
        rows, columns = range(y // n, -(-(y + height) // n)), range(x // n, -(-(x + width) // n))
        return [Block(section_id, row, column) for row in rows for column in columns]


class Blocks:
    """The blocks of a brain's sections: those in the store are read, others are computed when they are asked for."""

    def __init__(self, store_path: Path, brain_id: str, settings: EmbedSettings) -> None:
        self._store_path, self._brain_id = store_path, brain_id
        self._brain = read_only(store_path, brain_id)
        self.step = EmbeddingsStep.of(settings, self._brain)
        self._layouts: Held[str, Layout] = Held(LAYOUT_BYTES, lambda one: one.nbytes)
        self._held: Held[Block, Float16] = Held(HELD_BYTES, lambda one: one.nbytes)
        self.writing = threading.RLock()
        """Looking ahead goes on beside what a person asks for: one of them writes the brain, the other waits for it."""

    def layout(self, section_id: str) -> Layout:
        """How a section is cut. Raises StoreError if it is not in the store yet, SectionError if it is damaged."""
        return self._layouts.get(section_id, lambda: self._laid_out(self._brain.rows[section_id]))

    def _laid_out(self, section: Section) -> Layout:
        place = Place(self._brain, section)
        image, tissue = SECTION.open(place), TISSUE.open(place)
        view = image.at(self.step.pixel_size_um)
        plan = tile_plan(self.step.encoder.encoder, view.height, view.width, self.step.embed)
        tiles = max(1, round(BLOCK_PX / plan.step_px))
        return Layout(view.grid.grouped(plan.cell_px), tiles * plan.step_px // plan.cell_px, image, tissue)

    def read_window(self, section_id: str, window: Window) -> tuple[Float32, Mask] | None:
        """Embeddings (c, y, x) float32 of a window of tokens, and which tokens (y, x) are there; None: none is.

        The window may reach beyond the section: rows and columns that are not there repeat the nearest that are.
        """
        layout = self.layout(section_id)
        blocks = layout.blocks(section_id, layout.clipped(window))
        held = {block: values for block in blocks if (values := self.read(block)) is not None}
        if not held:
            return None
        found, there = Patchwork(layout, held).read(*window)
        return (edges_repeated(found, there), there) if there.any() else None

    def missing(self, section_id: str, window: Window) -> list[Block]:
        """The blocks of a window of tokens that are not embedded yet, nearest to its middle first."""
        layout = self.layout(section_id)
        y, x, height, width = window

        def away(block: Block) -> tuple[float, Block]:
            top, left, h, w = layout.window(block)
            return math.hypot(top + h / 2 - y - height / 2, left + w / 2 - x - width / 2), block

        return sorted((one for one in layout.blocks(section_id, window) if not self.is_there(one)), key=away)

    def is_there(self, block: Block) -> bool:
        """Whether a block is embedded: held, or in the store."""
        return block in self._held or self._stored(block) is not None

    def read(self, block: Block) -> Float16 | None:
        """The embeddings (c, y, x) float16 of a block, from memory or the store; None: they are not computed yet."""
        held = self._held.find(block)
        if held is not None:
            return held
        stored = self._stored(block)
        if stored is None:
            return None
        return self._held.keep(block, stored.read(*self.layout(block.section_id).window(block)).astype(np.float16))

    def compute(self, block: Block) -> None:
        """Embed a block and keep it in the store, unless it is there.

        Raises BrainBusyError if a run is writing the brain, SectionError if the section cannot be read.
        """
        with self.writing:
            if self.is_there(block):
                return
            with open_brain(self._store_path, self._brain_id) as brain:
                outcome = make_section([self._step(block)], brain, brain.rows[block.section_id])
            self._brain.catalogue.refresh(self._step(block).product(block.section_id))
        if outcome.status == "failed":
            raise SectionError(outcome.reason)

    def compute_section(self, section_id: str, brain: OpenBrain) -> None:
        """Embed a whole section as the scheduled run does; what an earlier, broken attempt finished is kept."""
        outcome = make_section([self.step], brain, brain.rows[section_id])
        self._brain.catalogue.refresh(self.step.product(section_id))
        if outcome.status == "failed":
            raise SectionError(outcome.reason)

    def _stored(self, block: Block) -> SectionEmbeddings | None:
        """The embeddings that hold a block: of its whole section, or of the block alone."""
        place = Place(self._brain, self._brain.rows[block.section_id])
        for step in (self.step, self._step(block)):
            if self._brain.catalogue.record(step.product(block.section_id)) is not None:
                try:
                    step.stored.record(place)  # one of another scan or tissue is not current
                    return step.stored.open(place)
                except StoreError:
                    continue
        return None

    def _step(self, block: Block) -> BlockStep:
        """The step that embeds the tiles of a block and no others."""
        cut = f"{self.step.name}-{self.layout(block.section_id).block_tokens}"  # another encoder cuts other blocks
        folder = self._brain.catalogue.folder / "drawings" / "regions" / cut / block.section_id
        path = folder / f"{block.name}.csv"
        if not path.exists():
            write_atomically(path, self._region(block).encode())
        stated = {one.name: getattr(self.step, one.name) for one in fields(self.step)}
        return BlockStep(**{**stated, "regions": Regions.of(path)})

    def _region(self, block: Block) -> str:
        """A table of one region that touches every tile of a block and none beside it: it ends within them."""
        layout, section = self.layout(block.section_id), self._brain.rows[block.section_id]
        y0, _, x0, _ = section.region_px or (0, 0, 0, 0)
        token = layout.tokens.cell_um / layout.image.pixel_size_um
        top, left, height, width = layout.window(block)
        inset = [1.0 if one > 2 else 0.001 for one in (height, width)]
        y, x = y0 + (top + inset[0]) * token, x0 + (left + inset[1]) * token
        size = [(one - 2 * by) * token for one, by in zip((height, width), inset, strict=True)]
        head = "section_id,y_px,x_px,height_px,width_px"
        return f"{head}\n{block.section_id},{y:.6f},{x:.6f},{size[0]:.6f},{size[1]:.6f}\n"


@dataclass(frozen=True)
class Patchwork:
    """Several blocks of a section as one grid of tokens."""

    layout: Layout
    held: Mapping[Block, Float16]

    def read(self, y: int, x: int, height: int, width: int) -> tuple[Float32, Mask]:
        """Embeddings (c, height, width) float32 of a window of tokens, and which of them are there (height, width).

        The window may reach beyond the section or over blocks that are not computed: there embeddings are zero.
        """
        dim = next(iter(self.held.values())).shape[0]
        found = np.zeros((dim, height, width), dtype=np.float32)
        there = np.zeros((height, width), dtype=np.bool_)
        for block, values in self.held.items():
            by, bx, bh, bw = self.layout.window(block)
            top, left, bottom, right = max(y, by), max(x, bx), min(y + height, by + bh), min(x + width, bx + bw)
            if top < bottom and left < right:
                into = slice(top - y, bottom - y), slice(left - x, right - x)
                found[:, into[0], into[1]] = values[:, top - by : bottom - by, left - bx : right - bx]
                there[into] = True
        return found, there


def edges_repeated(values: Float32, there: Mask) -> Float32:
    """Embeddings (c, y, x) in which rows and columns that are not there at all repeat the nearest that are."""
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    if len(rows) == there.shape[0] and len(columns) == there.shape[1]:
        return values
    y = np.clip(np.arange(there.shape[0]), rows[0], rows[-1])
    x = np.clip(np.arange(there.shape[1]), columns[0], columns[-1])
    return np.ascontiguousarray(values[:, y][:, :, x])


def nearest_first(window: Window, edge: int, centre: tuple[float, float]) -> Iterator[Window]:
    """Squares (y, x, height, width) that cover a window once, those nearest to a place (y, x) first.

    >>> [one[:2] for one in nearest_first((0, 0, 4, 6), 2, (1.0, 5.0))]
    [(0, 4), (0, 2), (2, 4), (2, 2), (0, 0), (2, 0)]
    """
    top, left, height, width = window
    squares = [
        (y, x, min(edge, top + height - y), min(edge, left + width - x))
        for y in range(top, top + height, edge)
        for x in range(left, left + width, edge)
    ]
    yield from sorted(
        squares,
        key=lambda one: (math.hypot(one[0] + one[2] / 2 - centre[0], one[1] + one[3] / 2 - centre[1]), one),
    )
