"""Ingestion: a tiled TIFF into a verified pyramid, against reading, compressing and writing with nothing else.

`python -m benchmarks.ingestion` writes the tables; `--memory` adds the peaks of large scans, which takes some ten
minutes and 45 GB of disk.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import dask
import dask.array as da
import ngff_zarr
import numpy as np
import tifffile
import zarr
from numcodecs import Blosc
from numpy.typing import NDArray
from ome_zarr.writer import write_image
from zarr.codecs import BloscCodec, Crc32cCodec

from benchmarks.cases import REPEATS, medians_s, write_block
from cytoarch.brains import Section
from cytoarch.containment import Contained, Limits
from cytoarch.images.contained import section_work
from cytoarch.images.halving import halve_mean
from cytoarch.images.layout import CHUNK_PX, SHARD_CHUNKS, level_count
from cytoarch.images.sections import write_section
from cytoarch.images.shards import CLEVELS
from cytoarch.store.records import Record
from cytoarch.store.staging import Staging
from cytoarch.tiling import partition

EDGE_PX = 20_000
THREADS = 2
SHARD_PX = CHUNK_PX * SHARD_CHUNKS
BLOCK = "ingestion: written by python -m benchmarks.ingestion"
HERE = Path(__file__).parent
UInt8 = NDArray[np.uint8]


class Scan(NamedTuple):
    """A tiled TIFF, and the section it is the scan of."""

    content: str
    path: Path
    image: UInt8

    @property
    def section(self) -> Section:
        """As a manifest would name it."""
        return Section(brain_id="B", section_id="s", section_number=1, path=self.path.name, pixel_size_um=1.0)


def contents() -> Iterator[tuple[str, UInt8]]:
    """What scans look like: camera noise on stained tissue, smooth fluorescence, and mostly bare slide."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(200, 25, (EDGE_PX // 50, EDGE_PX // 50)).astype(np.float32)
    tissue = np.repeat(np.repeat(coarse, 50, axis=0), 50, axis=1)
    noisy = np.empty((EDGE_PX, EDGE_PX), dtype=np.uint8)
    smooth = np.empty_like(noisy)
    for y in range(0, EDGE_PX, 1000):
        band = tissue[y : y + 1000]
        noisy[y : y + 1000] = np.clip(band + rng.normal(0, 8, band.shape), 0, 255)
        ramp = np.sin(np.arange(EDGE_PX) / 300) * 40 + np.sin((y + np.arange(1000))[:, None] / 500) * 40 + 90
        smooth[y : y + 1000] = np.clip(ramp + rng.normal(0, 0.7, band.shape), 0, 255)
    yield "noisy brightfield", noisy
    yield "smooth fluorescence", smooth
    white = np.full_like(noisy, 255)
    inner = slice(EDGE_PX * 3 // 8, EDGE_PX * 5 // 8)
    white[inner, inner] = noisy[inner, inner]
    yield "white background, 6 % tissue", white


def scans(folder: Path) -> Iterator[Scan]:
    """Scans of 400 MB, uncompressed tiles of 512 px."""
    for number, (content, image) in enumerate(contents()):
        path = folder / f"scan-{number}.tif"
        tifffile.imwrite(path, image, tile=(CHUNK_PX, CHUNK_PX), metadata=None)
        yield Scan(content, path, image)
        path.unlink()


def ours(scan: Scan) -> Callable[[Path], Staging]:
    """What a section's child process does: read, halve, compress, checksum, write, journal; without fsync."""

    def run(folder: Path) -> Staging:
        staging = Staging(folder / "staging").open()
        with no_fsync():
            write_section(staging, scan.path, scan.section, threads=THREADS)
        return staging

    return run


def durable(scan: Scan) -> Callable[[Path], Staging]:
    """The same with every shard flushed to disk."""

    def run(folder: Path) -> Staging:
        staging = Staging(folder / "staging").open()
        write_section(staging, scan.path, scan.section, threads=THREADS)
        return staging

    return run


def verified(scan: Scan) -> Callable[[Path], None]:
    """The same, and everything read back and compared before it is published."""

    def run(folder: Path) -> None:
        record = Record(step="sections", name="scan", section="s", fingerprint="", inputs={}, settings={}, files={})
        durable(scan)(folder).finish(record, "sections")

    return run


def contained(scan: Scan, children: Contained) -> Callable[[Path], None]:
    """The same as `durable`, in a child process that is there already."""

    def run(folder: Path) -> None:
        staging = Staging(folder / "staging").open()
        arguments = work_arguments(staging, scan.path)
        children.run("cytoarch.images.contained:section_work", arguments, Limits(4 << 30, 60.0))

    return run


def work_arguments(staging: Staging, scan: Path) -> dict[str, Any]:
    """What a child process is told of a section."""
    stated = {"path": scan.name, "pixel_size_um": 1.0}
    return {"name": "s", "file": str(scan), "staging": str(staging.folder), "threads": THREADS, "section": stated}


@contextmanager
def no_fsync() -> Iterator[None]:
    """Leave flushing to the operating system, as the peers and the limit do."""
    fsync, os.fsync = os.fsync, lambda fd: None  # noqa: ARG005 - os.fsync's signature
    try:
        yield
    finally:
        os.fsync = fsync


def limit(scan: Scan) -> Callable[[Path], None]:
    """Read, compress and write every chunk of every level with nothing else; the levels are there already."""
    levels = [scan.image]
    for _ in range(level_count(*scan.image.shape) - 1):
        levels.append(halve_mean(levels[-1]))
    codec = Blosc(cname="zstd", clevel=CLEVELS["zstd"], shuffle=Blosc.BITSHUFFLE)

    def run(folder: Path) -> None:
        lock = threading.Lock()
        end = 0
        with tifffile.TiffFile(scan.path) as tiff, (folder / "chunks").open("wb") as file:
            page = tiff.pages.first
            source, target = tiff.filehandle.fileno(), file.fileno()

            def chunk(job: tuple[int, tuple[int, int, int, int]]) -> None:
                nonlocal end
                level, (y, x, h, w) = job
                if level == 0:
                    index = y // CHUNK_PX * -(-EDGE_PX // CHUNK_PX) + x // CHUNK_PX
                    data = os.pread(source, page.databytecounts[index], page.dataoffsets[index])
                    block = page.decode(data, index)[0][0, ..., 0]
                else:
                    block = levels[level][y : y + h, x : x + w]
                packed = codec.encode(np.ascontiguousarray(block))
                with lock:
                    at, end = end, end + len(packed)
                os.pwrite(target, packed, at)

            sizes = [(image.shape[0], image.shape[1]) for image in levels]
            jobs = [(level, window) for level, size in enumerate(sizes) for window in partition(*size, CHUNK_PX)]
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(chunk, jobs))

    return run


def _lazy(scan: Scan, chunk: int) -> Any:
    return da.from_array(zarr.open(tifffile.imread(scan.path, aszarr=True), mode="r"), chunks=(chunk, chunk))  # type: ignore[no-untyped-call]  # dask is untyped here


def ome_zarr_best(scan: Scan) -> Callable[[Path], None]:
    """ome-zarr-py with our codec, chunks and shards, its fastest mean, two threads."""

    def run(folder: Path) -> None:
        levels = level_count(*scan.image.shape)
        codec = [BloscCodec(cname="zstd", clevel=CLEVELS["zstd"], shuffle="bitshuffle"), Crc32cCodec()]
        options = []
        for level in range(levels):
            edge = min(SHARD_PX, -(-(EDGE_PX >> level) // CHUNK_PX) * CHUNK_PX)
            options.append({"chunks": (CHUNK_PX,) * 2, "shards": (edge,) * 2, "compressors": codec})
        write_image(
            _lazy(scan, SHARD_PX), zarr.open_group(folder / "peer", mode="w", zarr_format=3), axes="yx",
            scale_factors=tuple(2**level for level in range(1, levels)), method="local_mean",
            scale={"y": 1.0, "x": 1.0}, storage_options=options,
        )  # fmt: skip

    return run


def ome_zarr_default(scan: Scan) -> Callable[[Path], None]:
    """ome-zarr-py as it comes."""
    return lambda folder: write_image(
        _lazy(scan, SHARD_PX), zarr.open_group(folder / "peer", mode="w", zarr_format=3), axes="yx"
    )


def ngff_best(scan: Scan) -> Callable[[Path], None]:
    """ngff-zarr with our codec, chunks and shards, and its fastest mean, two threads."""

    def run(folder: Path) -> None:
        factors = [2**level for level in range(1, level_count(*scan.image.shape))]
        image = ngff_zarr.to_ngff_image(_lazy(scan, SHARD_PX), dims=("y", "x"))
        method = ngff_zarr.Methods.DASK_BIN_SHRINK
        scaled = ngff_zarr.to_multiscales(image, scale_factors=factors, method=method, chunks=CHUNK_PX)
        codec = [BloscCodec(cname="zstd", clevel=CLEVELS["zstd"], shuffle="bitshuffle")]
        ngff_zarr.to_ngff_zarr(
            folder / "peer.ome.zarr", scaled, version="0.5", chunks_per_shard=SHARD_CHUNKS, compressors=codec
        )

    return run


def ngff_default(scan: Scan) -> Callable[[Path], None]:
    """ngff-zarr as it comes."""

    def run(folder: Path) -> None:
        scaled = ngff_zarr.to_multiscales(ngff_zarr.to_ngff_image(_lazy(scan, SHARD_PX), dims=("y", "x")))
        ngff_zarr.to_ngff_zarr(folder / "peer.ome.zarr", scaled, version="0.5")

    return run


def speeds() -> list[str]:
    """Every writer on every content, in turns."""
    rows = [
        "| content | written by | seconds | MB/s | speed / limit | its time / ours |",
        "|---|---|---|---|---|---|",
    ]
    children = Contained()
    with tempfile.TemporaryDirectory() as name, dask.config.set(scheduler="threads", num_workers=THREADS):
        for scan in scans(Path(name)):
            works: dict[str, Callable[[Path], object]] = {
                "ours": ours(scan),
                "ours, each shard fsynced": durable(scan),
                "ours, fsynced, read back and compared": verified(scan),
                "ours, fsynced, in a child process": contained(scan, children),
                "limit: read, compress, write": limit(scan),
                "ome-zarr-py at its best": ome_zarr_best(scan),
                "ome-zarr-py by default": ome_zarr_default(scan),
                "ngff-zarr at its best": ngff_best(scan),
                "ngff-zarr by default": ngff_default(scan),
            }
            medians = dict(zip(works, medians_s([*works.values()], Path(name)), strict=True))
            bound, own = medians["limit: read, compress, write"], medians["ours"]
            for work, seconds in medians.items():
                rate = scan.image.nbytes / 1e6 / seconds
                shares = f"{bound / seconds:.2f} | {seconds / own:.2f}"
                rows.append(f"| {scan.content} | {work} | {seconds:.2f} | {rate:,.0f} | {shares} |")
                print(rows[-1], flush=True)
    children.close()
    return rows


# -- memory ----------------------------------------------------------------------------------------------------------


def memory() -> list[str]:
    """Peak resident memory of a process that ingests a scan with two threads, by its size."""
    rows = ["| scan | raw GB | seconds | peak RSS (MB) |", "|---|---|---|---|"]
    for kind, height, width in (
        ("tiled", 10_000, 10_000),
        ("tiled", 40_000, 40_000),
        ("tiled", 95_000, 136_000),
        ("striped", 40_000, 40_000),
        ("png", 40_000, 40_000),
    ):
        command = [sys.executable, "-m", "benchmarks.ingestion", "--peak", kind, str(height), str(width)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        size = f"{kind} RGB, {height:,} x {width:,}"
        rows.append(f"| {size} | {3 * height * width / 1e9:.1f} | {found['seconds']:.0f} | {found['peak_mb']:.0f} |")
        print(rows[-1], flush=True)
    return rows


def large_scan(kind: str, path: Path, height: int, width: int) -> None:
    """An RGB scan whose pixels repeat one noisy tile; one tile in eight has tissue, the others are bare slide."""
    rng = np.random.default_rng(0)
    tissue = rng.normal(180, 20, (1024, 1024, 3)).clip(0, 255).astype(np.uint8)
    slide = np.full_like(tissue, 240)
    if kind == "tiled":
        packed = [zlib.compress(tile.tobytes(), 1) for tile in (tissue, slide)]
        tiles = (packed[number % 8 != 0] for number in range(-(-height // 1024) * -(-width // 1024)))
        _write_tiff(path, tiles, (height, width, 3), tile=(1024, 1024))
        return
    row = np.concatenate([tissue if number % 8 == 0 else slide for number in range(-(-width // 1024))], axis=1)
    if kind == "striped":
        strips = [zlib.compress(np.ascontiguousarray(row[y : y + 64, :width]).tobytes(), 1) for y in range(0, 1024, 64)]
        _write_tiff(path, (strips[n % 16] for n in range(height // 64)), (height, width, 3), rowsperstrip=64)
        return
    import pyvips

    band = pyvips.Image.new_from_array(np.ascontiguousarray(row[:, :width]))
    band.replicate(1, -(-height // 1024)).crop(0, 0, width, height).pngsave(str(path), compression=1)


def _write_tiff(path: Path, packed: Iterator[bytes], shape: tuple[int, int, int], **layout: Any) -> None:
    options = {"photometric": "rgb", "compression": "deflate", "metadata": None, "bigtiff": True}
    tifffile.imwrite(path, packed, shape=shape, dtype=np.uint8, **options, **layout)


def peak(kind: str, height: int, width: int) -> dict[str, float]:
    """Ingest a large scan as a flow does: seconds, and peak resident memory (MB) of the child process."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("CYTOARCH_SCRATCH")) as name:
        scan = Path(name) / ("scan.png" if kind == "png" else "scan.tif")
        large_scan(kind, scan, height, width)
        arguments = work_arguments(Staging(Path(name) / "staging").open(), scan)
        start = time.perf_counter()
        found = Contained().run("benchmarks.ingestion:measured", arguments, Limits(3_000_000_000, 60.0))
        return {"seconds": time.perf_counter() - start, "peak_mb": found["peak_mb"]}


def measured(arguments: Mapping[str, Any], on_progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Contained work: ingest, and tell the peak resident memory (MB) of this process, which has imported more."""
    section_work(arguments, on_progress)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"peak_mb": int(status["VmHWM"].split()[0]) / 1024}


def main(arguments: Sequence[str]) -> int:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingestion")
    parser.add_argument("--memory", action="store_true", help="measure memory instead of speed")
    parser.add_argument("--peak", nargs=3, metavar=("KIND", "HEIGHT", "WIDTH"), help="one large scan; prints JSON")
    asked = parser.parse_args(arguments)
    if asked.peak:
        kind, height, width = asked.peak
        print(json.dumps(peak(kind, int(height), int(width))))
        return 0
    if asked.memory:
        write_block(HERE / "README.md", f"{BLOCK} --memory", "\n".join(memory()))
        return 0
    body = [f"Scans of {EDGE_PX:,} x {EDGE_PX:,} px, uint8, {THREADS} threads; medians of {REPEATS}.", "", *speeds()]
    write_block(HERE / "README.md", BLOCK, "\n".join(body))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
