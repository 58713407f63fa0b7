"""Sections of the store as they are learned from: held whole on the device, or streamed, window by window."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Generic, NamedTuple, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cytoarch.embeddings.engine import READERS
from cytoarch.images.views import StoredImage, View, intensity_range
from cytoarch.pretraining.sending import sent

BAND_ROWS = 512
"""Rows of a section that are read at once."""

UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]
T = TypeVar("T")


class SeenSection(NamedTuple):
    """A section at the pixel size that is learned from, its 0.5 and 99.5 percentiles as 0 and 255."""

    view: View
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    colour: bool
    """Whether it is RGB; of all others the first channel is seen."""

    @classmethod
    def of(cls, image: StoredImage, pixel_size_um: float) -> "SeenSection":
        """A section of the store."""
        low, high = np.array(intensity_range(image), dtype=np.float32).T[:, :, None, None]
        return cls(image.at(pixel_size_um), low, high, image.attributes.get("kind") == "rgb")

    @property
    def channels(self) -> int:
        """3 or 1."""
        return len(self.low) if self.colour else 1

    def read(self, y: int, x: int, height: int, width: int) -> UInt8:
        """A window (height, width, c); the same bits whatever window a pixel is read in."""
        kept = slice(self.channels)
        seen, low, high = self.view.read(y, x, height, width)[kept], self.low[kept], self.high[kept]
        planes = (255 * np.clip((seen - low) / (high - low), 0, 1) + 0.5).astype(np.uint8)
        return np.ascontiguousarray(np.moveaxis(planes, 0, -1))

    def bands(self) -> Iterator[tuple[int, UInt8]]:
        """The whole, from top to bottom: first row, and rows (h, w, c)."""
        for top in range(0, self.view.height, BAND_ROWS):
            yield top, self.read(top, 0, min(BAND_ROWS, self.view.height - top), self.view.width)


@dataclass(frozen=True)
class StoredSections:
    """Sections in folders of the store; each is opened when it is first asked for."""

    folders: tuple[Path, ...]
    pixel_size_um: float
    _opened: dict[int, SeenSection] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int) -> SeenSection:
        """One of the sections."""
        if index not in self._opened:
            self._opened[index] = SeenSection.of(StoredImage.open(self.folders[index]), self.pixel_size_um)
        return self._opened[index]

    def __iter__(self) -> Iterator[SeenSection]:
        return (self[index] for index in range(len(self)))

    @cached_property
    def channels(self) -> int:
        """3 if some section is in colour."""
        return max(self[index].channels for index in range(len(self)))


@dataclass(frozen=True)
class StreamedSections:
    """Sections of which only what a batch shows is read: memory holds its windows, however large sections are."""

    sections: StoredSections
    device: torch.device

    @property
    def channels(self) -> int:
        """Of every pixel."""
        return self.sections.channels

    def windows(self, section: Int64, corner_px: Int64, edge_px: int) -> Tensor:
        """Squares (n, c, E, E) uint8 of sections (n,) from corners (n, 2); past a section its edge goes on."""
        found = np.empty((len(section), edge_px, edge_px, self.channels), dtype=np.uint8)

        def fill(place: int) -> None:
            top, left = corner_px[place].tolist()
            found[place] = _window(self.sections[int(section[place])], top, left, edge_px)

        with ThreadPoolExecutor(READERS, thread_name_prefix="section-reader") as readers:
            list(readers.map(fill, range(len(section))))
        return sent(found, self.device).permute(0, 3, 1, 2)


def _window(section: SeenSection, top: int, left: int, edge: int) -> UInt8:
    """A square (E, E, c), past the section as at its edge."""
    height, width = section.view.grid.shape
    rows, columns = (np.clip(np.arange(at, at + edge), 0, size - 1) for at, size in ((top, height), (left, width)))
    y, x = int(rows[0]), int(columns[0])
    seen = section.read(y, x, int(rows[-1]) - y + 1, int(columns[-1]) - x + 1)
    return seen[rows - y][:, columns - x]


class Ahead(Generic[T]):
    """Batches by step, the next one cut in a thread of its own while the last is learned from."""

    def __init__(self, batches: Callable[[int], T], steps: int) -> None:
        self._batches, self._steps = batches, steps
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._coming: dict[int, Future[T]] = {}

    def __call__(self, step: int) -> T:
        """The batch of a step."""
        mine = self._coming.pop(step, None) or self._thread.submit(self._batches, step)
        self._coming = {step + 1: self._thread.submit(self._batches, step + 1)} if step + 1 < self._steps else {}
        return mine.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._thread.shutdown(cancel_futures=True)
