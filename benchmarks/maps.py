"""Maps: blending beside MONAI, smoothing beside scikit-image, memory and disk of many classes, what keeping few costs.

`python -m benchmarks.maps` measures all and writes the tables (under eight minutes on two quiet cores); `--small` takes
smaller images. The README says how MONAI is put beside the product for it; without it its column stays empty.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from skimage.restoration import denoise_tv_chambolle

from benchmarks.cases import write_block
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.brains import LabelClass
from cytoarch.embeddings import EmbedSettings
from cytoarch.encoders.protocol import TileShape
from cytoarch.geometry import Grid
from cytoarch.images.views import Level, StoredImage
from cytoarch.learning.cards import HeadCard
from cytoarch.parcellation.drawing import draw_window
from cytoarch.parcellation.inference import ParcellateSettings, write_probabilities
from cytoarch.parcellation.smoothing import write_parcellation
from cytoarch.parcellation.sparse import Likeliest, SparseProbabilities, SparseWriter, cell_bytes
from cytoarch.store.staging import Staging
from cytoarch.tiling import TilePlan, blending_window, map_tiles, partition

Float32 = NDArray[np.float32]
README = Path(__file__).parent / "README.md"
BLOCK = "maps: written by python -m benchmarks.maps"
TILE_PX, ROUNDS, WEIGHT = 512, 3, 0.15
MIB = 1 << 20
CELL_PX = 4
"""Of the sections whose memory is measured: what a decoder of four cells a token of 16 px gives."""


def classes_of(count: int) -> tuple[LabelClass, ...]:
    """So many classes."""
    return tuple(LabelClass(name=f"area {one}", ids=(one + 1,)) for one in range(count))


def regions(classes: int, edge: int, seed: int = 0) -> Float32:
    """Probabilities (k, edge, edge): smooth regions, a few of them near any place, under noise of every cell."""
    rng = np.random.default_rng(seed)
    logits = np.empty((classes, edge, edge), dtype=np.float32)
    for one in range(classes):
        coarse = gaussian_filter(rng.normal(size=(edge // 16 + 2, edge // 16 + 2)), 2) * 40
        logits[one] = zoom(coarse, 16, order=1, grid_mode=True, mode="nearest")[:edge, :edge]
        logits[one] += rng.normal(0, 0.7, logits[one].shape)
    np.exp(logits, out=logits)
    return np.asarray(logits / logits.sum(axis=0), dtype=np.float32)


# -- blending ----------------------------------------------------------------------------------------------------------


class Model:
    """Classes of windows (b, 1, T, T) by a light convolution, on cells of so many pixels; adds up its own time."""

    def __init__(self, classes: int, cell_px: int) -> None:
        self.cell_px, self.seconds, self.windows = cell_px, 0.0, 0
        self.weight = torch.linspace(-3, 3, classes)[:, None, None, None]

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """(b, k, T / cell, T / cell), sums to 1 over k."""
        start = time.perf_counter()
        cells = torch.nn.functional.avg_pool2d(windows, self.cell_px)
        found = torch.softmax(torch.nn.functional.conv2d(cells, self.weight), dim=1)
        self.seconds += time.perf_counter() - start
        self.windows += len(windows)
        return found


def ours_blended(image: Float32, model: Model) -> float:
    """Seconds beyond the model, a window (ms)."""
    edge, classes = image.shape[1], len(model.weight)
    plan = TilePlan(edge, edge, TILE_PX, TILE_PX // 2, TILE_PX // 4, model.cell_px)

    def read(y: int, x: int, height: int, width: int) -> Float32:
        return padded[:, y + before : y + before + height, x + before : x + before + width]

    def compute(tiles: Float32) -> Float32:
        return model(torch.from_numpy(tiles)).numpy()

    window = blending_window("gauss", TILE_PX, model.cell_px)
    before, beyond = plan.margin_px, plan.columns[-1] + TILE_PX - edge
    start = time.perf_counter()
    padded = np.pad(image, ((0, 0), (before, beyond), (before, beyond)), mode="reflect")
    for _, _band in map_tiles(compute, read, plan, window, classes, batch_size=4):
        pass
    return (time.perf_counter() - start - model.seconds) / model.windows * 1000


def monai_blended(image: Float32, model: Model) -> float:
    """The same by MONAI's sliding-window inference, with the same window and overlap."""
    from monai.inferers.utils import sliding_window_inference

    start = time.perf_counter()
    sliding_window_inference(
        torch.from_numpy(image)[None], (TILE_PX, TILE_PX), 4, model, 0.5, mode="gaussian", sigma_scale=0.125
    )
    return (time.perf_counter() - start - model.seconds) / model.windows * 1000


def blending(edge: int) -> list[str]:
    """Rows of a table: what a window of 512 px costs beyond the model."""
    image = np.random.default_rng(0).random((1, edge, edge), dtype=np.float32)
    peers: dict[str, Callable[[Float32, Model], float]] = {"ours": ours_blended}
    if find_spec("monai"):
        peers["MONAI"] = monai_blended
    rows = []
    for classes, cell_px in ((9, 4), (113, 4), (9, 1)):
        ours_blended(image[:, :1024, :1024], Model(classes, cell_px))  # compiled
        found: dict[str, list[float]] = {name: [] for name in peers}
        for _ in range(ROUNDS):
            for name, run in peers.items():
                found[name].append(run(image, Model(classes, cell_px)))
        ours, *theirs = (statistics.median(one) for one in found.values())
        beside = f"{theirs[0]:.2f} | {theirs[0] / ours:.2f}" if theirs else "not installed | -"
        rows.append(f"| {classes} | {cell_px} | {ours:.2f} | {beside} |")
    return [
        f"Windows of 512 px, overlap .5, Gaussian weights, {edge} x {edge} px, a light model; ms a window beyond it.",
        "",
        "| classes | cell (px) | ours (ms) | MONAI (ms) | MONAI / ours |",
        "|---|---|---|---|---|",
        *rows,
    ]


# -- smoothing ---------------------------------------------------------------------------------------------------------


def stored(folder: Path, probabilities: Float32, kept: int) -> SparseProbabilities:
    """Probabilities (k, y, x) as the store keeps them, all of it tissue."""
    grid = Grid.at_corner(probabilities.shape[1:], 16.0, (0.0, 0.0))
    names = tuple(str(one) for one in range(len(probabilities) + 1))
    writer = SparseWriter.create(Staging(folder).open(), grid, names, kept, 1)
    for y, x, height, width in partition(*grid.shape, writer.edge):
        part = Likeliest.of(probabilities[:, y : y + height, x : x + width], kept)
        writer.write(y // writer.edge, x // writer.edge, part)
    writer.close()
    return SparseProbabilities.open(writer.journal.path)


def image_of(grid: Grid) -> StoredImage:
    """A section whose only level lies on a grid."""
    nothing: Any = np.broadcast_to(np.uint8(0), grid.shape)
    return StoredImage((Level(nothing, grid.cell_um, grid.origin_um[0]),), {})


def variation(edge: int, scratch: Path) -> list[str]:
    """Rows of a table: smoothing eight classes, drawing and writing the map, beside scikit-image."""
    p = regions(8, edge)
    source = stored(scratch / "p", p, 8)
    draw_window(source, source.grid, (0, 0, 64, 64), WEIGHT)  # compiled
    start = time.perf_counter()
    journal = Staging(scratch / "map").open()
    write_parcellation(journal, image_of(source.grid), source, classes_of(8), WEIGHT, None, "areas", threads=2)
    ours_s = time.perf_counter() - start
    labels = StoredImage.open(journal.path / "labels" / "areas").levels[0].pixels()
    rows = [f"| ours, two threads, with reading and writing the map | {ours_s:.1f} | 1.00 | - |"]
    for name, how in (
        ("scikit-image, its own stopping rule", {}),
        ("scikit-image, 100 iterations", {"eps": 0.0, "max_num_iter": 100}),
    ):
        start = time.perf_counter()
        smooth = denoise_tv_chambolle(p, weight=WEIGHT, channel_axis=0, **how)
        theirs_s = time.perf_counter() - start
        smooth = np.maximum(smooth, 0)
        smooth /= smooth.sum(axis=0)
        best = np.partition(smooth, -2, axis=0)[-2:]
        ahead = best[1] - best[0] > 0.01
        same = (labels == smooth.argmax(axis=0) + 1)[ahead].mean()
        rows.append(f"| {name} | {theirs_s:.1f} | {theirs_s / ours_s:.2f} | {same:.2%} of {ahead.mean():.1%} |")
    return [
        f"Total variation {WEIGHT} of {edge} x {edge} cells, 8 classes, and the map; same class where it leads by .01.",
        "",
        "| by | s | its time / ours | same class |",
        "|---|---|---|---|",
        *rows,
    ]


# -- memory and disk ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grey:
    """An encoder whose tokens of 16 px hold their place in a texture: nothing to compute."""

    encoder_id: str = "grey"
    digest: str = "0"
    pixel_size_um: float | None = 1.0
    channels: Literal[1] = 1
    layers: tuple[str, ...] = ("grey",)
    tiles: TileShape = TileShape(TILE_PX, 16, None)

    def dims(self, channels: int) -> tuple[int, ...]:
        """One value a token."""
        return (channels,)

    def encode(self, tiles: Float32) -> list[Float32]:
        """The grey of every token (b, 1, T / 16, T / 16)."""
        return [tiles[:, :, ::16, ::16]]

    def patch_dims(self, channels: int) -> int:
        """One value a patch."""
        return channels

    def embed(self, patches: Float32) -> Float32:
        """The grey of its corner (b, c)."""
        return patches[:, :, 0, 0]


@dataclass(frozen=True)
class Made:
    """A head that gives probabilities made up beforehand, which piece by the grey of the tile."""

    card: HeadCard
    pieces: Float32
    """(n, k, T / 4, T / 4)."""
    bytes_per_token: int = 1 << 14

    def probabilities(self, embeddings: Float32) -> Float32:
        """(b, 1, T / 16, T / 16) -> (b, k, T / 4, T / 4)."""
        return np.asarray(self.pieces[(embeddings[:, 0, 0, 0] * 1000).astype(int) % len(self.pieces)])

    def tensors(self) -> Mapping[str, Float32]:
        """None: nothing was trained."""
        return {}


class Texture:
    """The pixels of a section that are made up as they are read."""

    def __init__(self, height: int, width: int) -> None:
        self.shape, self.ndim, self.dtype = (1, height, width), 3, np.dtype(np.uint8)

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        """A window (1, h, w)."""
        y, x = (np.arange(*one.indices(size)) for one, size in zip(key[-2:], self.shape[-2:], strict=True))
        return np.asarray((y[:, None] // 61 * 31 + x // 83 * 17) % 251, dtype=np.uint8)[None]


@cache
def _made(classes: int) -> Made:
    card = HeadCard(
        kind="decoder",
        target="areas",
        classes=classes_of(classes),
        dims=(1,),
        cells_per_token=16 // CELL_PX,
        embedding=EmbedSettings(),
        encoder_digest="0",
        token_px=16,
        pixel_size_um=1.0,
    )
    edge = TILE_PX // CELL_PX
    whole = regions(classes, 2 * edge)
    pieces = [whole[:, y : y + edge, x : x + edge] for y in (0, edge) for x in (0, edge)]
    return Made(card, np.ascontiguousarray(pieces))


class Found(NamedTuple):
    """What mapping a section took."""

    peak: int
    probabilities: int
    maps: int
    cells: int
    seconds: float


def mapped(classes: int, height: int, width: int) -> Found:
    """Map a section of so many pixels in this process: the rise of its memory, and the bytes it left on the disk."""
    torch.set_num_threads(1)
    head, settings = _made(classes), ParcellateSettings()
    texture: Any = Texture(height, width)
    coarse = np.linspace(0, 255, 512 * 512).reshape(1, 512, 512)  # read for the range of greys only
    levels = (Level(texture, 1.0, 0.0), Level(coarse, width / 512, 0.0))  # type: ignore[arg-type]  # arrays serve
    image = StoredImage(levels, {"kind": "grey"})
    everywhere = TissueMask(np.ones((1, 1), dtype=bool), Grid.at_corner((1, 1), 1e9, (0.0, 0.0)))
    grid = image.levels[0].grid.grouped(CELL_PX)
    with tempfile.TemporaryDirectory() as name:
        warm = _made(classes).pieces[0, :, :64, :64]
        small = stored(Path(name) / "warm", warm, 6)
        draw_window(small, small.grid, (0, 0, 64, 64), WEIGHT)
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before, start = psutil.Process().memory_info().rss, time.perf_counter()
        probabilities, maps = (Staging(Path(name) / one).open() for one in ("probabilities", "maps"))
        write_probabilities(probabilities, image, everywhere, head, Grey(), None, settings, 1)
        source = SparseProbabilities.open(probabilities.path)
        write_parcellation(maps, image_of(grid), source, head.card.classes, WEIGHT, None, "areas", threads=2)
        status = Path("/proc/self/status").read_text()
        on_disk = _bytes_in(probabilities.path), _bytes_in(maps.path)
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    return Found(peak - before, *on_disk, grid.shape[0] * grid.shape[1], time.perf_counter() - start)


def _bytes_in(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())


def memory(cases: Sequence[tuple[int, int, int]]) -> list[str]:
    """Rows of a table: mapping wide sections of many classes, each in a process of its own."""
    rows = []
    for classes, height, width in cases:
        command = [sys.executable, "-m", "benchmarks.maps", "--here", str(classes), str(height), str(width)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=dict(os.environ))
        found = Found(**json.loads(done.stdout.splitlines()[-1]))
        kept = ParcellateSettings().kept_classes
        rows.append(
            f"| {classes} | {height:,} x {width:,} | {found.peak / MIB:,.0f} | {4 * (classes + 1):,} "
            f"| {cell_bytes(classes, kept)} | {found.probabilities / found.cells:.1f} | {found.maps / found.cells:.1f} "
            f"| {found.seconds:.0f} |"
        )
        print(rows[-1], flush=True)
    return [
        "Sections at cells of 4 px, all tissue, probabilities noisy in every cell; memory beyond the process's own.",
        "",
        "| classes | section (px) | peak (MiB) | dense (bytes a cell) | kept | on disk | map on disk | s |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
    ]


# -- how many classes to keep ------------------------------------------------------------------------------------------


def kept(edge: int, scratch: Path) -> list[str]:
    """Rows of a table: maps from the m most likely of 113 classes against maps from all of them."""
    p = regions(113, edge)
    drawn: dict[int, NDArray[Any]] = {}
    for count in (113, 2, 4, 6, 8):
        source = stored(scratch / f"kept{count}", p, count)
        drawn[count] = draw_window(source, source.grid, (0, 0, edge, edge), WEIGHT).channels
    ordered = np.sort(p, axis=0)[::-1]
    rows = [
        f"| {count} | {cell_bytes(113, count)} | {ordered[:count].sum(axis=0).mean():.3f} "
        f"| {(drawn[count] == drawn[113]).mean():.2%} |"
        for count in (2, 4, 6, 8)
    ]
    return [
        f"113 classes on {edge} x {edge} cells, smoothed by {WEIGHT}.",
        "",
        "| kept | bytes a cell | probability named | same class as from all |",
        "|---|---|---|---|",
        *rows,
    ]


def main() -> int:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help="blending, variation, memory, kept; none named: all, and the README")
    parser.add_argument("--small", action="store_true", help="smaller images; nothing is written")
    parser.add_argument("--here", nargs=3, type=int, metavar=("CLASSES", "HEIGHT", "WIDTH"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        print(json.dumps(mapped(*given.here)._asdict()))
        return 0
    torch.set_num_threads(2)
    small = given.small
    heights = ((9, 1024, 4096), (554, 1024, 4096)) if small else ((9, 4096, 40_000), (554, 4096, 40_000))
    with tempfile.TemporaryDirectory() as name:
        tables: dict[str, Callable[[], list[str]]] = {
            "blending": lambda: blending(1536 if small else 4096),
            "variation": lambda: variation(1024 if small else 4096, Path(name)),
            "memory": lambda: memory(heights),
            "kept": lambda: kept(256 if small else 768, Path(name)),
        }
        found = []
        for case in given.cases or tables:
            found.append("\n".join(tables[case]()))
            print(found[-1], flush=True)
    if not given.cases and not small:
        write_block(README, BLOCK, "\n\n".join(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
