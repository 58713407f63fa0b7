"""Images of one level whose pixels become known band by band, or shard by shard in any order."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from cytoarch.errors import ScanError
from cytoarch.images.layout import Journal, Pyramid
from cytoarch.images.pyramids import create_array, write_image_group
from cytoarch.images.shards import Array
from cytoarch.tiling import partition


@dataclass(frozen=True)
class BandTarget:
    """One image of a single level that takes some channels of the bands."""

    folder: str
    name: str
    pyramid: Pyramid
    channels: slice
    own_attributes: Mapping[str, Any]


def write_bands(journal: Journal, targets: Sequence[BandTarget], bands: Iterator[tuple[int, Array]]) -> None:
    """Write images that become known band by band, as `tiling.map_tiles` yields them: (first row, (c, rows, x)).

    All targets have the same (y, x) and one level. Values are cast to each target's type; raises ScanError where
    they are not finite afterwards, and ValueError if the bands do not cover every row once, in order.
    """
    writers = [ShardWriter.create(journal, target) for target in targets]
    height, _ = targets[0].pyramid.level_shape(0)
    due = math.lcm(
        *(target.pyramid.shard_px() for target in targets)
    )  # rows that end at a shard's edge in each of them
    held: list[Array] = []
    top = received = 0
    for row, band in bands:
        if row != received:
            raise ValueError(f"a band starts at row {row} where row {received} is due")
        received += band.shape[1]
        held.append(band)
        while received - top >= due or (received == height and top < height):
            block = np.concatenate(held, axis=1)
            rows = min(due, height - top)
            for writer in writers:
                writer.write_rows(top, block[writer.target.channels, :rows])
            held, top = [block[:, rows:]], top + rows
    if received != height:
        raise ValueError(f"the bands end at row {received} of {height}")
    for writer in writers:
        writer.close()


@dataclass(frozen=True)
class ShardWriter:
    """Writes an image of one level shard by shard, in any order; shards of an earlier run are kept."""

    journal: Journal
    target: BandTarget

    @classmethod
    def create(cls, journal: Journal, target: BandTarget) -> Self:
        """Make the array, or go on with the one an earlier run made."""
        create_array(journal, f"{target.folder}/0", target.pyramid, 0, "cyx")
        return cls(journal, target)

    def key(self, row: int, column: int) -> str:
        """The key of a shard."""
        return f"{self.target.folder}/0/c/0/{row}/{column}"

    def write(self, row: int, column: int, block: Array) -> None:
        """Write a whole shard (c, y, x) of the image's type."""
        self.journal.write(self.key(row, column), self.target.pyramid.encoded(block))

    def write_rows(self, top: int, block: Array) -> None:
        """Write the whole shards of some rows (c, y, x) that start at a shard's edge; values are cast.

        Raises ScanError where a value is not finite afterwards.
        """
        with np.errstate(over="ignore"):  # overflow is what the next line looks for
            cast = block.astype(self.target.pyramid.dtype)
        if cast.dtype.kind == "f" and not np.isfinite(cast).all():
            raise ScanError(f"values of {self.target.name} from row {top} on are not finite in {cast.dtype}")
        edge = self.target.pyramid.shard_px()
        for y, x, h, w in partition(cast.shape[1], cast.shape[2], edge):
            self.write((top + y) // edge, x // edge, cast[:, y : y + h, x : x + w])

    def close(self) -> None:
        """Write the image's metadata, once all shards are there."""
        target = self.target
        write_image_group(self.journal, target.folder, target.pyramid, target.name, "cyx", None, target.own_attributes)
