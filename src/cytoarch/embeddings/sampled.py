"""Patches centred on points as embeddings: an AnnData table (Zarr) per section, one row a patch."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import Field
from zarr.codecs import BloscCodec, Crc32cCodec

from cytoarch.augmentation import Augmentation, window_px
from cytoarch.brains import Section
from cytoarch.embeddings.jobs import Lot, Results
from cytoarch.embeddings.places import BRAIN_COLUMNS, SectionPoints, stated_size
from cytoarch.embeddings.reading import SectionReader
from cytoarch.encoders.protocol import Encoder
from cytoarch.errors import SectionError
from cytoarch.geometry import first_around, scan_to_section, section_to_brain
from cytoarch.images.layout import Journal
from cytoarch.images.views import StoredImage
from cytoarch.settings import Settings

if TYPE_CHECKING:
    import anndata

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

LOT_ROWS = 256
"""Rows of the table that are written at once."""
WINDOW_BYTES = 64 << 20
"""Patches of a point that are read in one go take at most so many bytes."""


class SampleSettings(Settings):
    """How patches are taken at points."""

    draws: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Augmented draws of every patch, for probes that are trained on them; 0: the patch as it is.",
    )
    name: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9_-]{0,31})?$",
        description="Name of the table, part of the address of the result; blank: that of its file.",
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of the draws.")


@dataclass(frozen=True)
class SamplePlan:
    """The patches of one section, decided before any pixel is read."""

    section_id: str
    reader: SectionReader
    patch_px: int
    centres_px: Float64
    """(n, 2) y, x from the corner of the section, in pixels as the encoder sees them."""
    rows: tuple[int, ...]
    """(n,) rows of the table."""
    settings: SampleSettings

    @classmethod
    def of(
        cls,
        section: Section,
        image: StoredImage,
        reader: SectionReader,
        patch_px: int,
        points: SectionPoints,
        settings: SampleSettings,
    ) -> "SamplePlan":
        """Plan a section. Raises SectionError if a point lies outside it, or outside its region of the scan."""
        places_um = scan_to_section(image.grid, section.region_px)(np.array(points.places_px))
        outside = ~image.grid.holds(places_um)
        if outside.any():
            rows = [str(points.rows[one]) for one in np.flatnonzero(outside)]
            raise SectionError(
                f"{len(rows)} points lie outside the section of {stated_size(section, image)} (row "
                f"{', '.join(rows[:8])}{', ...' if len(rows) > 8 else ''} of the table); they must be in pixels of "
                "the scan, y before x"
            )
        return cls(section.section_id, reader, patch_px, reader.view.grid.from_corner(places_um), points.rows, settings)

    @property
    def draws(self) -> int:
        """Patches taken at a point."""
        return max(1, self.settings.draws)

    @property
    def patch_bytes(self) -> int:
        """Bytes of a patch, as float32."""
        return 4 * self.reader.depth * self.patch_px**2

    def patches(self, point: int, draws: range) -> list[Float32]:
        """Some patches (c, T, T) float32 in [0, 1] of a point, one a draw; beyond the section it is seen mirrored.

        Without augmentation a patch begins at a whole pixel, so that its centre is off by up to half a pixel.
        """
        y, x = self.centres_px[point]
        if not self.settings.draws:
            top, left = (first_around(at, self.patch_px) for at in (y, x))
            return [self.reader.read(top, left, self.patch_px, self.patch_px)]
        size_um = self.reader.view.pixel_size_um
        edge = window_px(self.patch_px, size_um)
        top, left = (first_around(at, edge) for at in (y, x))
        window = self.reader.read(top, left, edge, edge)
        section = zlib.crc32(self.section_id.encode())
        patches = []
        for draw in draws:
            rng = np.random.default_rng([self.settings.seed, section, point, draw])
            patches.append(Augmentation.draw(rng, size_um).patch(window, (y - top, x - left), self.patch_px))
        return patches


@dataclass(frozen=True)
class PointWindow:
    """What is read for one point in one go: some of its draws."""

    plan: SamplePlan
    point: int
    draws: range

    @property
    def tiles(self) -> int:
        """How many patches there are."""
        return len(self.draws)

    @property
    def nbytes(self) -> int:
        """Bytes of the patches, as float32."""
        return len(self.draws) * self.plan.patch_bytes

    def read(self) -> Sequence[Float32]:
        """The patches."""
        return self.plan.patches(self.point, self.draws)


class Rows(NamedTuple):
    """Where the embeddings of a section are written."""

    journal: Journal
    array: "zarr.Array[Any]"
    """(rows, d) float32."""

    @classmethod
    def create(cls, journal: Journal, count: int, dims: int, chunk: int) -> Self:
        """Make the array where AnnData looks for it, or open the one an earlier run made."""
        path, key = journal.path / "X", "X/zarr.json"
        if journal.has(key):
            return cls(journal, zarr.open_array(path, mode="r+", zarr_format=3, config={"write_empty_chunks": True}))
        array = zarr.create_array(
            store=path,
            shape=(count, dims),
            chunks=(min(chunk, count), dims),
            dtype=np.float32,
            compressors=(BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec()),
            fill_value=0,
            attributes={"encoding-type": "array", "encoding-version": "0.2.0"},
            config={"write_empty_chunks": True},  # rows that are absent are always a fault
        )
        journal.seal(key)
        return cls(journal, array)


@dataclass
class SampleLot:
    """Some rows of the table: as many as one file holds."""

    plan: SamplePlan
    rows: Rows | None
    """None: they were written long ago."""
    first: int
    stop: int
    """Points, not rows."""

    @property
    def tiles(self) -> int:
        """How many patches there are."""
        return (self.stop - self.first) * self.plan.draws

    @property
    def key(self) -> str:
        """The file of these rows."""
        return f"X/c/{self.first // points_per_lot(self.plan)}/0"

    @property
    def finished(self) -> bool:
        """Whether the rows are in the journal."""
        return self.rows is None or self.rows.journal.has(self.key)

    def windows(self) -> Sequence[PointWindow]:
        """One a point, or several where its draws are many and large."""
        draws, at_once = self.plan.draws, max(1, WINDOW_BYTES // self.plan.patch_bytes)
        return [
            PointWindow(self.plan, point, range(first, min(first + at_once, draws)))
            for point in range(self.first, self.stop)
            for first in range(0, draws, at_once)
        ]

    @cached_property
    def block(self) -> Float32:
        """(rows, d)."""
        dims = self.rows.array.shape[1] if self.rows else 0
        return np.zeros((self.tiles, dims), dtype=np.float32)

    def put(self, index: int, results: Results) -> None:
        """Take a patch's embedding. Raises SectionError where it is not finite."""
        (embedding,) = results
        if not np.isfinite(embedding).all():
            row = self.plan.rows[self.first + index // self.plan.draws]
            raise SectionError(f"the embedding of the point in row {row} of the table is not finite")
        self.block[index] = embedding

    def close(self) -> None:
        """Write the rows."""
        if self.rows is None:
            return
        journal, array = self.rows
        (journal.path / self.key).unlink(missing_ok=True)
        first = self.first * self.plan.draws
        array[first : first + self.tiles] = self.block
        journal.seal(self.key)


def points_per_lot(plan: SamplePlan) -> int:
    """Points whose rows are written at once."""
    return max(1, LOT_ROWS // plan.draws)


@dataclass
class SampleJob:
    """The points of one section."""

    plan: SamplePlan
    rows: Rows | None
    """None: the product is there already, its patches only keep their places in the batches."""
    write_table: Callable[[Path], None]
    """Writes everything but the embeddings into the folder."""
    finish: Callable[[dict[str, Any]], Any]
    """Given facts for the record, commits the product."""

    @property
    def section_id(self) -> str:
        """The section."""
        return self.plan.section_id

    @property
    def committed(self) -> bool:
        """Whether the product is there already."""
        return self.rows is None

    @property
    def tiles(self) -> int:
        """How many patches there are."""
        return len(self.plan.rows) * self.plan.draws

    @property
    def tile_shape(self) -> tuple[int, int, int]:
        """(c, T, T)."""
        return self.plan.reader.depth, self.plan.patch_px, self.plan.patch_px

    def lots(self) -> Iterator[Lot]:
        """Some hundred rows each."""
        count, points = len(self.plan.rows), points_per_lot(self.plan)
        for first in range(0, count, points):
            yield SampleLot(self.plan, self.rows, first, min(first + points, count))

    def commit(self) -> None:
        """Write the table around the embeddings, and commit."""
        if self.rows is None:
            return
        self.write_table(self.rows.journal.path)
        view = self.plan.reader.view
        self.finish(
            {
                "points": len(self.plan.rows),
                "draws": self.plan.settings.draws,
                "patch_px": self.plan.patch_px,
                "pixel_size_um": view.pixel_size_um,
                "dims": int(self.rows.array.shape[1]),
                "upsampled": view.level.pixel_size_um > 1.001 * view.pixel_size_um,
            }
        )


def write_table(
    folder: Path, section: Section, image: StoredImage, points: SectionPoints, plan: SamplePlan, encoder: Encoder
) -> None:
    """Write an AnnData group around the embeddings in `X`: what is known of every row, and where it lies.

    `obs` holds the section, the point (counted within its section, as the table orders them), the draw and the table's
    further columns; `obsm` the place in the section (y, x) mm and in the brain (x, y, z) mm; `uns` what the embeddings
    are.
    """
    import anndata
    import pandas as pd

    draws = plan.draws
    places, further = np.array(points.places_px), points.columns
    names = [f"{section.section_id}-{point}" for point in range(len(places))]
    index = [f"{name}-{draw}" for name in names for draw in range(draws)] if plan.settings.draws else names
    obs = pd.DataFrame(
        {
            "section_id": pd.Categorical([section.section_id] * len(index)),
            "point": np.repeat(np.arange(len(places)), draws),
            "draw": np.tile(np.arange(draws), len(places)),
            "y_px": np.repeat(places[:, 0], draws),
            "x_px": np.repeat(places[:, 1], draws),
            **{name: np.repeat(np.array(cells), draws) for name, cells in further.items()},
        },
        index=index,
    )
    for name, cells in further.items():
        if isinstance(cells[0], str):
            obs[name] = pd.Categorical(obs[name])
    places_um = scan_to_section(image.grid, section.region_px)(places)
    brain_mm, source = brain_places_mm(section, image, places_um, further)
    section_mm = (places_um - np.array(image.grid.corner_um)) / 1000
    dims = encoder.patch_dims(plan.reader.depth)
    content: dict[str, Any] = {
        "obs": obs,
        "var": pd.DataFrame(index=[str(one) for one in range(dims)]),
        "obsm": {"section_mm": np.repeat(section_mm, draws, axis=0), "brain_mm": np.repeat(brain_mm, draws, axis=0)},
        "uns": {
            "encoder_digest": encoder.digest,
            "pixel_size_um": plan.reader.view.pixel_size_um,
            "patch_px": plan.patch_px,
            "draws": plan.settings.draws,
            "seed": plan.settings.seed,
            "section_mm": "y, x from the corner of the section",
            "brain_mm": source,
        },
        **{name: {} for name in ("layers", "obsp", "varm", "varp")},
    }
    group = zarr.open_group(folder, mode="a", zarr_format=3)
    group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    with anndata.settings.override(zarr_write_format=3, auto_shard_zarr_v3=False):
        for name, element in content.items():
            anndata.io.write_elem(group, name, element)


def brain_places_mm(
    section: Section, image: StoredImage, places_um: Float64, columns: Mapping[str, Sequence[Any]]
) -> tuple[Float64, str]:
    """(n, 3) x, y, z mm in the brain of points (n, 2) y, x um in the frame of their section, and how they are known.

    As the table states them in its columns x_mm, y_mm, z_mm; else as the sections lie on a stack: x and y from the
    section's centre after its flip and rotation, z its place along the cutting axis (not a number where unstated).
    """
    if all(name in columns for name in BRAIN_COLUMNS):
        stated = np.array([columns[name] for name in BRAIN_COLUMNS], dtype=np.float64).T
        return stated, "x, y, z as the table of points states them"
    stacked = section_to_brain(image.grid, section.flip, section.rotation, section.position_um)(places_um)
    if section.position_um is None:
        stacked = np.column_stack([stacked, np.full(len(stacked), np.nan)])
    return stacked, "x, y from the section's centre after flip and rotation, z its position along the cutting axis"


def open_points(folders: Sequence[Path]) -> "anndata.AnnData":
    """The tables of some sections as one AnnData, in memory."""
    import anndata

    return anndata.concat([anndata.io.read_zarr(folder) for folder in folders], uns_merge="same")
