"""Label images of sections cut from an atlas, with their table: what a manifest names as automatic labels."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.reference.anchorings import Anchoring
from cytoarch.anatomy.reference.cutting import cut_section
from cytoarch.anatomy.reference.ontology import Ontology
from cytoarch.anatomy.reference.volumes import AtlasVolume
from cytoarch.brains import MOST_ID
from cytoarch.errors import CytoarchError
from cytoarch.geometry import Grid

TILE_PX = 1024


@dataclass(frozen=True)
class LabelCodes:
    """What stands for the structures of an atlas in label images: their own ids, or those of what holds them."""

    ids: NDArray[np.int64]
    """(n,) ids of the atlas, ascending; without 0."""
    values: NDArray[np.int64]
    """(n,) their ids in label images."""
    kept: tuple[int, ...]
    """The ids that occur in label images, ascending."""
    names: tuple[str, ...]
    colours: tuple[str, ...]

    @classmethod
    def of(cls, volume: AtlasVolume, ontology: Ontology | None = None, level: int | None = None) -> Self:
        """Those of all structures in a volume, brought to a level of their ontology where one is given.

        Raises CytoarchError if an id is none that a label can have.
        """
        ids = np.unique(volume.labels).astype(np.int64)
        ids = ids[ids != 0]
        held = ids if ontology is None or level is None else ontology.at_level(ids, level)
        kept = tuple(np.unique(held).tolist())
        if kept and not 1 <= kept[0] <= kept[-1] <= MOST_ID:
            raise CytoarchError(f"the atlas has ids from {kept[0]} to {kept[-1]}; labels have ids from 1 to {MOST_ID}")
        known = {} if ontology is None else ontology.structures
        names = tuple(known[one].name if one in known else f"structure {one}" for one in kept)
        colours = tuple((known[one].colour or "") if one in known else "" for one in kept)
        return cls(ids, held, kept, _distinct(names, kept), colours)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The narrower of the two types whose label images most programs read."""
        return np.dtype(np.uint16 if max(self.kept, default=0) <= np.iinfo(np.uint16).max else np.uint32)

    def of_labels(self, labels: NDArray[Any]) -> NDArray[Any]:
        """The ids (...) in label images of ids (...) of the atlas."""
        at = np.searchsorted(self.ids, labels)
        return np.where(labels == 0, 0, self.values[np.minimum(at, len(self.ids) - 1)]).astype(self.dtype)

    def write(self, path: Path) -> None:
        """The label table as CSV: id, name, colour."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "name", "colour"])
            writer.writerows(zip(self.kept, self.names, self.colours, strict=True))


def write_label_image(path: Path, anchoring: Anchoring, volume: AtlasVolume, codes: LabelCodes, section: Grid) -> None:
    """A section's label image as a tiled TIFF of the size of its scan, tile by tile, whatever its size."""
    import tifffile

    def tiles() -> Iterator[NDArray[Any]]:
        for y in range(0, section.shape[0], TILE_PX):
            for x in range(0, section.shape[1], TILE_PX):
                window = section.window(y, x, TILE_PX, TILE_PX)
                yield codes.of_labels(cut_section(anchoring, volume, section, window).labels)

    tifffile.imwrite(
        path,
        tiles(),
        shape=section.shape,
        dtype=codes.dtype,
        tile=(TILE_PX, TILE_PX),
        compression="zlib",
        photometric="minisblack",
        metadata=None,
    )


def _distinct(names: tuple[str, ...], ids: tuple[int, ...]) -> tuple[str, ...]:
    """Names, with the id behind those that several structures share."""
    shared = {name for name in names if names.count(name) > 1}
    return tuple(f"{name} ({one})" if name in shared else name for name, one in zip(names, ids, strict=True))
