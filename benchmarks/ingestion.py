"""A tiled TIFF into a sharded pyramid: against ome-zarr-py, and against compression and writing with nothing else."""

from collections.abc import Iterator
from pathlib import Path

import dask.array as da
import numpy as np
import tifffile
import zarr
from numcodecs import Blosc
from numpy.typing import NDArray
from ome_zarr.writer import write_image
from zarr.codecs import BloscCodec, Crc32cCodec

from benchmarks.cases import Case
from cytoarch.brains import Section
from cytoarch.images.halving import halve_mean
from cytoarch.images.layout import CHUNK_PX, level_count
from cytoarch.images.sections import write_section
from cytoarch.records import Record, Staging
from cytoarch.tiling import partition

EDGE_PX = 8192
SHARD_PX = 4096


def cases(scratch: Path) -> Iterator[Case]:
    """Noisy brightfield of 67 MB, uint8."""
    rng = np.random.default_rng(0)
    smooth = np.repeat(np.repeat(rng.normal(200, 25, (EDGE_PX // 64, EDGE_PX // 64)), 64, axis=0), 64, axis=1)
    image = np.clip(smooth + rng.normal(0, 8, (EDGE_PX, EDGE_PX)), 0, 255).astype(np.uint8)
    scan = scratch / "scan.tif"
    tifffile.imwrite(scan, image, tile=(512, 512), resolution=(1e4, 1e4), resolutionunit="CENTIMETER", metadata=None)
    section = Section(brain_id="B", section_id="s", section_number=1, path="scan.tif", pixel_size_um=1.0)
    levels = level_count(EDGE_PX, EDGE_PX)

    def ours(folder: Path) -> Staging:
        staging = Staging(folder / "room").open()
        write_section(staging, scan, section)
        return staging

    def verified(folder: Path) -> None:
        record = Record(step="sections", name="scan", section="s", fingerprint="", inputs={}, settings={}, files={})
        ours(folder).finish(record, "sections")

    def peer(folder: Path) -> None:
        stored = zarr.open(tifffile.imread(scan, aszarr=True), mode="r")
        source = da.from_array(stored, chunks=(SHARD_PX, SHARD_PX))  # type: ignore[no-untyped-call]  # dask is untyped here
        group = zarr.open_group(folder / "peer", mode="w", zarr_format=3)
        options = []
        for level in range(levels):
            edge = min(SHARD_PX, -(-(EDGE_PX >> level) // CHUNK_PX) * CHUNK_PX)
            compressors = [BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"), Crc32cCodec()]
            options.append({"chunks": (CHUNK_PX,) * 2, "shards": (edge,) * 2, "compressors": compressors})
        factors = tuple(2**level for level in range(1, levels))
        write_image(
            source, group, axes="yx", scale_factors=factors, method="local_mean", scale={"y": 1.0, "x": 1.0},
            storage_options=options,
        )  # fmt: skip

    def limit(folder: Path) -> None:
        encode_and_write(image, levels, folder / "limit")

    yield Case(
        f"ingest {EDGE_PX} x {EDGE_PX} uint8, tiled TIFF, {levels} levels, journal and fsync",
        ours,
        {"ome-zarr-py write_image, local mean, sharded": peer, "compress and write alone, one thread": limit},
    )
    yield Case("the same, with read-back verification", verified, {"ingest without verification": ours})


def encode_and_write(image: NDArray[np.uint8], levels: int, folder: Path) -> None:
    """The lower limit: halve, compress and write every chunk, with nothing else."""
    codec = Blosc(cname="zstd", clevel=1, shuffle=Blosc.BITSHUFFLE)
    folder.mkdir()
    for level in range(levels):
        with (folder / str(level)).open("wb") as file:
            for y, x, h, w in partition(image.shape[0], image.shape[1], CHUNK_PX):
                file.write(codec.encode(np.ascontiguousarray(image[y : y + h, x : x + w])))
        image = halve_mean(image)
