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
from cytoarch.errors import CytoarchError
from cytoarch.geometry import Grid

TILE_PX = 1024
MOST = 65535
"""Values that a label image holds."""


@dataclass(frozen=True)
class LabelCodes:
    """The numbers that stand for structures of an atlas in label images, whose own ids may be too large."""

    ids: NDArray[np.int64]
    """(n,) ids of the atlas, ascending; without 0."""
    values: NDArray[np.uint16]
    """(n,) their numbers in label images."""
    names: tuple[str, ...]
    colours: tuple[str, ...]

    @classmethod
    def of(cls, volume: AtlasVolume, ontology: Ontology | None = None, level: int | None = None) -> Self:
        """The numbers of all structures in a volume, brought to a level of their ontology where one is given.

        Raises CytoarchError if there are more than label images hold.
        """
        ids = np.unique(volume.labels).astype(np.int64)
        ids = ids[ids != 0]
        held = ids if ontology is None or level is None else ontology.at_level(ids, level)
        kept = np.unique(held)
        if len(kept) > MOST:
            raise CytoarchError(f"the atlas holds {len(kept)} structures, label images at most {MOST}: choose a level")
        known = {} if ontology is None else ontology.structures
        names = tuple(known[one].name if one in known else f"structure {one}" for one in kept.tolist())
        colours = tuple((known[one].colour or "") if one in known else "" for one in kept.tolist())
        values = (np.searchsorted(kept, held) + 1).astype(np.uint16)
        return cls(ids, values, _distinct(names, kept.tolist()), colours)

    def of_labels(self, labels: NDArray[Any]) -> NDArray[np.uint16]:
        """The numbers (...) of ids (...) of the atlas."""
        at = np.searchsorted(self.ids, labels)
        return np.where(labels == 0, 0, self.values[np.minimum(at, len(self.ids) - 1)]).astype(np.uint16)

    def write(self, path: Path) -> None:
        """The label table as CSV: id, name, colour."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "name", "colour"])
            writer.writerows(zip(range(1, len(self.names) + 1), self.names, self.colours, strict=True))


def write_label_image(path: Path, anchoring: Anchoring, volume: AtlasVolume, codes: LabelCodes, section: Grid) -> None:
    """A section's label image as a tiled TIFF of the size of its scan, tile by tile, whatever its size."""
    import tifffile

    def tiles() -> Iterator[NDArray[np.uint16]]:
        for y in range(0, section.shape[0], TILE_PX):
            for x in range(0, section.shape[1], TILE_PX):
                window = section.window(y, x, TILE_PX, TILE_PX)
                yield codes.of_labels(cut_section(anchoring, volume, section, window).labels)

    tifffile.imwrite(
        path,
        tiles(),
        shape=section.shape,
        dtype=np.uint16,
        tile=(TILE_PX, TILE_PX),
        compression="zlib",
        photometric="minisblack",
        metadata=None,
    )


def _distinct(names: tuple[str, ...], ids: list[int]) -> tuple[str, ...]:
    """Names, with the id behind those that several structures share."""
    shared = {name for name in names if names.count(name) > 1}
    return tuple(f"{name} ({one})" if name in shared else name for name, one in zip(names, ids, strict=True))
