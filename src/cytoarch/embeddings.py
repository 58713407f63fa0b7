"""Sections as grids of embeddings: one OME-Zarr image (c, y, x) float16 per layer, on the encoder's token grid."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.digests import canonical_json
from cytoarch.encoders.protocol import Encoder
from cytoarch.encoders.registry import EncoderSettings
from cytoarch.errors import ModelError, SectionError
from cytoarch.images.pyramids import BandTarget, Journal, Pyramid, write_bands, write_group
from cytoarch.images.views import StoredImage, View, intensity_range
from cytoarch.tiling import TilePlan, blending_window, map_tiles

Float32 = NDArray[np.float32]

EMBEDDINGS_VERSION = 1
FINEST_DEFAULT_UM = 4.0
"""Sections are not read finer than this unless it is asked for."""
TISSUE_FRACTION = 0.01
"""Tiles with less tissue than this are not computed."""


class EmbedSettings(EncoderSettings):
    """How sections are turned into embeddings."""

    channels: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(), max_length=8, description="Channels to read, from 0; blank: all, or what the encoder can take."
    )


def working_pixel_size_um(settings: EmbedSettings, encoder: Encoder, section_sizes_um: Sequence[float]) -> float:
    """The one pixel size a brain is read at: asked for, the encoder's, or that of its coarsest section but >= 4 um."""
    if settings.pixel_size_um is not None:
        return settings.pixel_size_um
    if encoder.pixel_size_um is not None:
        return encoder.pixel_size_um
    return max(FINEST_DEFAULT_UM, *section_sizes_um)


def embedding_name(settings: EmbedSettings, encoder: Encoder, pixel_size_um: float) -> str:
    """The name under which one way of embedding is kept: readable, and unique to what decides the values."""
    identity = canonical_json([encoder.digest, pixel_size_um, list(settings.channels)])
    kind = settings.encoder.partition(":")[0]
    return f"{kind}-{pixel_size_um:g}um-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class SectionReader:
    """A section as an encoder sees it: at one pixel size, chosen channels, grey values mapped to [0, 1]."""

    view: View
    channels: tuple[int, ...]
    ranges: tuple[tuple[float, float], ...]

    @classmethod
    def open(cls, image: StoredImage, encoder: Encoder, settings: EmbedSettings, pixel_size_um: float) -> Self:
        """Prepare to read. Raises SectionError if the section lacks a channel asked for."""
        count = image.channels
        chosen = settings.channels or tuple(range(count))
        if max(chosen) >= count:
            raise SectionError(f"channels {list(chosen)} asked for; the section has channels 0 to {count - 1}")
        if encoder.colour and len(chosen) != 3:
            chosen = (chosen[0],) * 3
        elif encoder.colour and image.attributes.get("kind") != "rgb" and not settings.channels:
            chosen = (0, 0, 0)
        ranges = intensity_range(image)
        return cls(image.at(pixel_size_um), chosen, tuple((ranges[c][0], ranges[c][1]) for c in chosen))

    def read(self, y: int, x: int, height: int, width: int) -> Float32:
        """A window (c, height, width) float32 in [0, 1]; each channel's 0.5 and 99.5 percentiles become 0 and 1."""
        pixels = self.view.read(y, x, height, width)[list(self.channels)]
        low, high = (np.array(bound, dtype=np.float32)[:, None, None] for bound in zip(*self.ranges, strict=True))
        return np.clip((pixels - low) / (high - low), 0, 1)

    def tissue_skip(self, tissue: TissueMask) -> Callable[[int, int, int, int], bool]:
        """Whether a tile holds too little tissue to be worth computing."""
        size = self.view.pixel_size_um

        def skip(y: int, x: int, height: int, width: int) -> bool:
            y0, x0 = max(y, 0), max(x, 0)
            y1, x1 = min(y + height, self.view.height), min(x + width, self.view.width)
            if y1 <= y0 or x1 <= x0:
                return True
            return tissue.fraction(y0 * size, x0 * size, (y1 - y0) * size, (x1 - x0) * size) < TISSUE_FRACTION

        return skip


def tile_plan(encoder: Encoder, view: View, settings: EmbedSettings) -> tuple[TilePlan, Float32]:
    """The plan and window with which a section is embedded.

    Encoders of finite reach keep the core of each tile, which equals the untiled result. The others are blended with
    the radial window at half overlap.
    """
    shape = encoder.tiles
    tile = settings.tile_px or shape.tile_px
    if shape.halo_px is None:
        plan = TilePlan(view.height, view.width, tile, tile // 2, tile // 4, shape.token_px)
        return plan, blending_window("radial", tile, shape.token_px)
    needed = -(-max(view.height, view.width) // 16) * 16 + 2 * shape.halo_px
    # tiles begin at multiples of 16 px, the coarsest cell of the filter bank; their size does not change the result
    tile = max(min(tile // 16 * 16, needed), 4 * shape.halo_px)
    plan = TilePlan(view.height, view.width, tile, tile - 2 * shape.halo_px, shape.halo_px, shape.token_px)
    return plan, blending_window("core", tile, shape.token_px, shape.halo_px)


def section_bands(
    encoder: Encoder,
    reader: SectionReader,
    tissue: TissueMask,
    settings: EmbedSettings,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[int, Float32]]:
    """The embeddings of a section, all layers stacked along c, as bands (first row, (c, rows, gx))."""
    plan, window = tile_plan(encoder, reader.view, settings)

    def compute(tiles: Float32) -> Float32:
        return np.concatenate(encoder.encode(tiles), axis=1)

    return map_tiles(
        compute,
        reader.read,
        plan,
        window,
        sum(encoder.dims(len(reader.channels))),
        batch_size=settings.batch_size,
        skip=reader.tissue_skip(tissue),
        on_progress=on_progress,
    )


def estimated_bytes(image: StoredImage, encoder: Encoder, pixel_size_um: float) -> int:
    """Bytes that a section's embeddings take before compression."""
    view = image.at(pixel_size_um)
    token = encoder.tiles.token_px
    tokens = (-(-view.height // token)) * (-(-view.width // token))
    return tokens * sum(encoder.dims(3 if encoder.colour else image.channels)) * 2


def write_embeddings(
    journal: Journal,
    image: StoredImage,
    tissue: TissueMask,
    encoder: Encoder,
    settings: EmbedSettings,
    pixel_size_um: float,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Embed one section into the journal's folder, an image per layer; returns facts for its record.

    Cells of tiles without tissue are zero. Raises SectionError if a value overflows float16.
    """
    reader = SectionReader.open(image, encoder, settings, pixel_size_um)
    plan, _ = tile_plan(encoder, reader.view, settings)
    cell_um = plan.cell_px * pixel_size_um
    dims = encoder.dims(len(reader.channels))
    own = {"encoder": settings.encoder, "encoder_digest": encoder.digest, "pixel_size_um": pixel_size_um}
    stops = np.cumsum(dims)
    targets = [
        BandTarget(
            folder=layer,
            name=layer,
            pyramid=Pyramid(
                (d, *plan.grid), np.dtype(np.float16), cell_um, "mean", origin_um=(cell_um - image.pixel_size_um) / 2
            ),
            channels=slice(int(stop - d), int(stop)),
            own_attributes=own,
        )
        for layer, d, stop in zip(encoder.layers, dims, stops, strict=True)
    ]
    write_bands(journal, targets, section_bands(encoder, reader, tissue, settings, on_progress))
    write_group(journal, "", {"cytoarch": {**own, "layers": list(encoder.layers)}})
    return {
        "grid": list(plan.grid),
        "tiles": plan.tile_count,
        "dims": list(dims),
        "token_px": encoder.tiles.token_px,
        "pixel_size_um": pixel_size_um,
        "embedding": settings.model_dump(mode="json", exclude={"device", "batch_size"}),
        "upsampled": image.pixel_size_um > 1.001 * pixel_size_um,
        "ranges": [list(bounds) for bounds in reader.ranges],
    }


@dataclass(frozen=True)
class SectionEmbeddings:
    """The committed embeddings of a section, opened for reading; layers are stacked along c."""

    layers: tuple[StoredImage, ...]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the folder of a committed product."""
        import zarr

        own: Any = zarr.open_group(path, mode="r", zarr_format=3).attrs["cytoarch"]
        return cls(tuple(StoredImage.open(path / layer) for layer in own["layers"]))

    @property
    def grid(self) -> tuple[int, int]:
        """(y, x) tokens."""
        return self.layers[0].levels[0].size

    @property
    def token_um(self) -> float:
        """Edge of a token (um)."""
        return self.layers[0].pixel_size_um

    @property
    def dims(self) -> tuple[int, ...]:
        """Length of the embedding per layer."""
        return tuple(layer.channels for layer in self.layers)

    @property
    def chunk(self) -> int:
        """Edge of a chunk in tokens: what one read decodes."""
        return int(min(layer.levels[0].array.chunks[-1] for layer in self.layers))

    def read(self, y: int, x: int, height: int, width: int) -> Float32:
        """A window (c, height, width) float32 of all layers, in tokens, inside the grid."""
        window = (slice(None), slice(y, y + height), slice(x, x + width))
        parts = [np.asarray(layer.levels[0].array[window], dtype=np.float32) for layer in self.layers]
        return np.concatenate(parts)

    def sample(self, mask: NDArray[np.bool_], count: int, seed: int, max_windows: int = 64) -> Float32:
        """Up to `count` embeddings (n, c) drawn at random where `mask` (y, x) holds, from at most so many windows."""
        rng = np.random.default_rng(seed)
        edge = self.chunk
        rows, columns = np.nonzero(mask)
        if not len(rows):
            return np.zeros((0, sum(self.dims)), dtype=np.float32)
        windows = np.unique(np.stack([rows // edge, columns // edge], axis=1), axis=0)
        windows = windows[np.sort(rng.permutation(len(windows))[:max_windows])]
        found: list[Float32] = []
        for row, column in windows:
            y, x = int(row) * edge, int(column) * edge
            inside = mask[y : y + edge, x : x + edge]
            found.append(self.read(y, x, *inside.shape)[:, inside].T)
        pool = np.concatenate(found)
        picked = np.sort(rng.permutation(len(pool))[:count])
        return np.ascontiguousarray(pool[picked])


def check_same_dims(sections: Sequence[tuple[str, SectionEmbeddings]]) -> tuple[int, ...]:
    """The dims all sections share. Raises ModelError naming a section that differs."""
    first_id, first = sections[0]
    for section_id, embeddings in sections[1:]:
        if embeddings.dims != first.dims:
            raise ModelError(
                f"section {section_id} has embeddings of {embeddings.dims} where {first_id} has {first.dims}: the "
                "sections differ in channels; name the channels to read in the embed settings"
            )
    return first.dims
