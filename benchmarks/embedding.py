"""Embeddings: sections of a brain from store to store, against the same model on tiles in memory.

`python -m benchmarks.embedding` also writes what each stage costs, how much memory is taken, the pipeline without a
model, and, given the Python of an environment that has raw2features (`--raw2features`), the same image through that.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from cytoarch.contents import open_section, open_tissue, section_product, tissue_product
from numpy.typing import NDArray
from tasks.embeddings import embed_sections
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from benchmarks.cases import REPEATS, Case, medians_s, write_block
from cytoarch.anatomy.tissue import Tissue, TissueMask, write_tissue
from cytoarch.brains import Section
from cytoarch.embeddings import EmbedSettings
from cytoarch.embeddings.dense import DensePlan, dense_job, write_embeddings
from cytoarch.embeddings.engine import run_engine
from cytoarch.encoders import Encoder, TileShape, load_encoder
from cytoarch.encoders.cytonet import save_cytonet
from cytoarch.encoders.cytonet_model import CytoNetConfig, build_cytonet
from cytoarch.images.layout import Pyramid, level_count
from cytoarch.images.pyramids import write_pyramid
from cytoarch.images.views import StoredImage
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.products import Work
from cytoarch.store.staging import Staging
from tasks.encoders import encoder_for

Float32 = NDArray[np.float32]

BRAIN = "B"
BLOCK = "embeddings: written by python -m benchmarks.embedding"
HERE = Path(__file__).parent


class Subject(NamedTuple):
    """A model, and the sections it is timed on."""

    name: str
    settings: EmbedSettings
    pixel_size_um: float
    edge_px: int
    sections: int


@dataclass(frozen=True)
class PatchGrid:
    """An image cut into patches side by side, one embedding each: what tools for pathology slides make."""

    embedding: Callable[[Float32], Float32]
    """(b, c, T, T) -> (b, d)."""
    width: int = 768
    tile_px: int = 224
    layers: tuple[str, ...] = ("patch",)
    tokens: int = 1
    """Along the edge of a patch; more than one repeat the embedding."""
    encoder_id: str = "patches"
    digest: str = "0" * 64
    pixel_size_um: float | None = 4.0
    channels: None = None

    @property
    def tiles(self) -> TileShape:
        """Side by side."""
        return TileShape(self.tile_px, self.tile_px // self.tokens, None)

    def dims(self, channels: int) -> tuple[int, ...]:  # noqa: ARG002 - the protocol passes it
        """One embedding a layer."""
        return (self.width,) * len(self.layers)

    def patch_dims(self, channels: int) -> int:  # noqa: ARG002 - the protocol passes it
        """One embedding."""
        return self.width

    def encode(self, tiles: Float32) -> list[Float32]:
        """(b, c, T, T) -> per layer (b, d, tokens, tokens)."""
        shape = (len(tiles), self.width, self.tokens, self.tokens)
        return [np.ascontiguousarray(np.broadcast_to(self.embed(tiles)[:, :, None, None], shape))] * len(self.layers)

    def embed(self, patches: Float32) -> Float32:
        """(b, c, T, T) -> (b, d)."""
        return self.embedding(patches)


def no_model(patches: Float32) -> Float32:
    """Every patch gives its mean, repeated: what is left is reading, cutting and writing."""
    return np.repeat(patches.mean(axis=(1, 2, 3))[:, None], 768, axis=1)


def subjects(folder: Path) -> Iterator[Subject]:
    """ViT-B/16 in both precisions and R50-ViT, of random weights, and the filter bank.

    The sections keep the models busy for some 20 to 30 seconds.
    """
    vit_b(folder / "vitb")
    config = CytoNetConfig(model_type="cytonet_r50_vit")
    save_cytonet(build_cytonet(config), config, folder / "hybrid")
    vit = EmbedSettings(encoder=f"dinov3:{folder / 'vitb'}", batch_size=1)
    yield Subject("DINOv3 ViT-B/16, fp32", vit, 4.0, 2048, 1)
    yield Subject("DINOv3 ViT-B/16, bf16", vit.model_copy(update={"precision": "bf16"}), 4.0, 4096, 1)
    hybrid = EmbedSettings(encoder=f"cytonet:{folder / 'hybrid'}", batch_size=1)
    yield Subject("CytoNet R50-ViT, fp32", hybrid, 2.0, 8192, 1)
    yield Subject("texture", EmbedSettings(), 4.0, 4096, 1)


def vit_b(folder: Path) -> Path:
    """A DINOv3 ViT-B/16 of random weights, in a folder."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_register_tokens": 4}
    DINOv3ViTModel(DINOv3ViTConfig(**sizes)).save_pretrained(folder)
    return folder


def cases() -> Iterator[Case]:
    """Sections of a brain in the store, embedded, verified and committed; and the bare model on the same tiles."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for subject in subjects(folder / "models"):
            yield case(subject, folder)


def case(subject: Subject, folder: Path) -> Case:
    """One model: the task that flows run, and the bare loop over the same tiles in the same batches."""
    root = folder / f"store-{subject.edge_px}"
    store, sections = stored_brain(root, subject)
    encoder = encoder_for(subject.settings)
    plans = [plan_of(store, section, encoder, subject) for section in sections]
    tiles = [tile for plan in plans for _, _, places in plan.shards() for tile in plan.read(places)]
    size = subject.settings.batch_size
    batches = [np.stack(tiles[first : first + size]) for first in range(0, len(tiles), size)]

    def ours(_folder: Path) -> None:
        home = store.brain_path(BRAIN)
        for part in ("derived/embeddings", "records/embeddings"):
            shutil.rmtree(home / part, ignore_errors=True)
        state = embed_sections.fn(root, sections, "bench", subject.settings, subject.pixel_size_um)
        if state.name != "Made":
            raise RuntimeError(f"{subject.name}: {state.name}: {state.message}")

    def bare(_folder: Path) -> None:
        for batch in batches:
            encoder.encode(batch)

    work = f"embed {len(tiles)} tiles of {plans[0].plan.tile_px} px, {subject.name}"
    return Case(work, ours, {"the model alone on tiles in memory": bare})


def stored_brain(root: Path, subject: Subject) -> tuple[BrainStore, tuple[Section, ...]]:
    """A brain of noisy sections, all of them tissue, in the store as ingestion leaves it."""
    store = BrainStore(root)
    rng = np.random.default_rng(0)
    sections = []
    for number in range(subject.sections):
        section = Section(brain_id=BRAIN, section_id=f"s{number}", section_number=number, path="scan.tif")
        edge = subject.edge_px
        pixels = rng.integers(0, 255, (1, edge, edge), dtype=np.uint8)
        store.ensure(
            section_product(BRAIN, section.section_id),
            Work(1, {}, {"edge": edge}),
            lambda staging, pixels=pixels: _write_pixels(staging, pixels, subject.pixel_size_um),  # type: ignore[misc]  # a default binds the loop's value
        )
        store.ensure(tissue_product(BRAIN, section.section_id), Work(1, {}, {}), _write_tissue)
        sections.append(section)
    return store, tuple(sections)


def _write_pixels(staging: Staging, pixels: NDArray[np.uint8], size_um: float) -> dict[str, Any]:
    edge = pixels.shape[1]
    pyramid = Pyramid(pixels.shape, pixels.dtype, size_um, "mean", levels=level_count(edge, edge))
    write_pyramid(staging, pyramid, lambda y, x, h, w: pixels[:, y : y + h, x : x + w], name="section")
    return {}


def _write_tissue(staging: Staging) -> dict[str, Any]:
    mask = np.ones((64, 64), dtype=bool)
    write_tissue(staging, np.zeros((64, 64), np.float32), Tissue(mask, 1e4, "dark", 0.0))
    return {}


def plan_of(store: BrainStore, section: Section, encoder: Encoder, subject: Subject) -> DensePlan:
    """What is computed of a section."""
    image, tissue = open_section(store, BRAIN, section.section_id), open_tissue(store, BRAIN, section.section_id)
    return DensePlan.of(image, tissue, encoder, subject.settings, subject.pixel_size_um)


def stages() -> list[str]:
    """What reading, casting, writing and verifying cost beside the model, a tile each, one after the other."""
    rows = [
        "| model | model (ms a tile) | read | cast | compress, write, fsync | verify | together / model |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for subject in subjects(folder / "models"):
            rows.append(_stage_row(subject, folder))
            print(rows[-1], flush=True)
    return rows


def _stage_row(subject: Subject, folder: Path) -> str:
    store, sections = stored_brain(folder / f"store-{subject.edge_px}", subject)
    encoder = encoder_for(subject.settings)
    plan = plan_of(store, sections[0], encoder, subject)
    spent: dict[str, list[float]] = {name: [] for name in ("model", "read", "cast", "write", "verify")}
    for repeat in range(4):  # the first warms up
        staging = Staging(folder / f"{subject.name.replace('/', '-')}-{repeat}").open()
        lot = next(iter(dense_job("s0", plan, encoder, staging, dict).lots()))
        with _timed(spent["read"]):
            tiles = [np.ascontiguousarray(tile)[None] for window in lot.windows() for tile in window.read()]
        with _timed(spent["model"]):
            results = [encoder.encode(tile) for tile in tiles]
        with _timed(spent["cast"]):
            for place, layers in enumerate(results):
                lot.put(place, [layer[0] for layer in layers])
        with _timed(spent["write"]):
            lot.close()
        with _timed(spent["verify"]):
            staging.open()  # reads every finished shard back
        staging.discard()
    ms = {name: 1000 * statistics.median(times[1:]) / lot.tiles for name, times in spent.items()}
    beside = sum(value for name, value in ms.items() if name != "model")
    return (
        f"| {subject.name} | {ms['model']:.1f} | {ms['read']:.2f} | {ms['cast']:.2f} | {ms['write']:.2f} "
        f"| {ms['verify']:.2f} | {beside / ms['model']:.1%} |"
    )


@contextmanager
def _timed(spent: list[float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    spent.append(time.perf_counter() - start)


def memory() -> list[str]:
    """Peak resident memory of a process that embeds a section, by the section's size."""
    rows = [
        "| section (px) | channels | its pixels (um), read at 4 um | peak RSS, null encoder (MB) |",
        "|---|---|---|---|",
    ]
    for channels, size_um in ((1, 4.0), (3, 2.5)):
        for edge in (2048, 8192, 16384):
            asked = [str(edge), str(channels), str(size_um)]
            command = [sys.executable, "-m", "benchmarks.embedding", "--peak", *asked]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append(f"| {edge:,} x {edge:,} | {channels} | {size_um:g} | {found:,.0f} |")
            print(rows[-1], flush=True)
    return rows


def peak_mb(edge: int, channels: int, size_um: float) -> float:
    """Peak resident memory (MB) of this process after embedding a section whose pixels repeat one chunk."""
    with tempfile.TemporaryDirectory() as name:
        image = _endless_image(Path(name) / "section", edge, channels, size_um)
        encoder = PatchGrid(no_model, tile_px=512, layers=("a", "b", "c", "d"), tokens=32)  # the grids of ViT-B
        tissue = TissueMask(np.ones((8, 8), dtype=bool), 1e6)
        settings = EmbedSettings(pixel_size_um=4.0, batch_size=2)
        write_embeddings(Staging(Path(name) / "out").open(), image, tissue, encoder, settings, 4.0)
    # not ru_maxrss, which begins with what the starting process had at its fork
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def _endless_image(folder: Path, edge: int, channels: int = 1, size_um: float = 4.0) -> StoredImage:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (channels, 4096, 4096), dtype=np.uint8)
    staging = Staging(folder).open()
    pyramid = Pyramid((channels, edge, edge), np.dtype(np.uint8), size_um, "mean", levels=level_count(edge, edge))
    write_pyramid(staging, pyramid, lambda _y, _x, h, w: noise[:, :h, :w], name="section")
    return StoredImage.open(staging.path)


def pipelines(peer_python: Path | None) -> list[str]:
    """One section cut into patches of 224 px, an embedding each: ours, and raw2features on the same OME-Zarr."""
    rows = [
        "| patches of 224 px | patches | seconds | in the model | beyond it | patches/s |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vit = load_encoder(EmbedSettings(encoder=f"dinov3:{vit_b(folder / 'vitb')}", tile_px=224))
        for edge, model, encoder, batch in (
            (13440, "no model", PatchGrid(no_model), 64),
            (2240, "ViT-B/16, fp32", PatchGrid(vit.embed), 20),
        ):
            image = _endless_image(folder / f"section-{edge}", edge)
            found: dict[str, list[tuple[float, float]]] = {"ours": [], "raw2features": []}
            for repeat in range(REPEATS):
                found["ours"].append(_ours(image, encoder, batch, folder / f"{model[:2]}-{repeat}"))
                if peer_python is not None:
                    out = folder / f"peer-{model[:2]}-{repeat}"
                    found["raw2features"].append(_theirs(peer_python, folder / f"section-{edge}", out, model))
            patches = (edge // 224) ** 2
            for who, times in found.items():
                if times:
                    total, inside = (statistics.median(column) for column in zip(*times, strict=True))
                    beyond = f"{(total - inside) / inside:.1%}" if model != "no model" else ""
                    seconds = f"{total:.2f} | {inside:.2f} | {beyond} | {patches / total:,.0f}"
                    rows.append(f"| {model}: {who} | {patches:,} | {seconds} |")
                    print(rows[-1], flush=True)
    return rows


def _ours(image: StoredImage, encoder: Encoder, batch: int, out: Path) -> tuple[float, float]:
    inside: list[float] = []

    def timed(tiles: Float32) -> list[Float32]:
        with _timed(inside):
            return encoder.encode(tiles)

    tissue = TissueMask(np.ones((8, 8), dtype=bool), 1e6)
    plan = DensePlan.of(image, tissue, encoder, EmbedSettings(), 4.0)
    staging = Staging(out).open()
    start = time.perf_counter()
    run_engine([dense_job("s", plan, encoder, staging, dict)], timed, batch, beside=False)
    staging.open()  # reads everything back, as committing does
    return time.perf_counter() - start, sum(inside)


def _theirs(python: Path, section: Path, out: Path, model: str) -> tuple[float, float]:
    script = HERE / "raw2features_peer.py"
    kind = "none" if model == "no model" else "vitb16"
    command = [str(python), str(script), str(section / "content"), str(out), kind]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    times = json.loads(shown.strip().splitlines()[-1])
    return times["total_s"], times["forward_s"]


def main(arguments: Sequence[str]) -> int:
    """Measure and write the section on embeddings."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedding")
    parser.add_argument("--peak", nargs=3, metavar=("EDGE", "CHANNELS", "UM"), help="print the peak memory (MB)")
    parser.add_argument("--raw2features", type=Path, help="Python of an environment that has raw2features")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(2)
    if asked.peak:
        edge, channels, size_um = asked.peak
        print(peak_mb(int(edge), int(channels), float(size_um)))
        return 0
    parts = {
        "Share of the model's own speed": shares(),
        "What each stage costs": stages(),
        "The pipeline beside raw2features": pipelines(asked.raw2features),
        "Memory": memory(),
    }
    body = "\n\n".join(f"### {title}\n\n" + "\n".join(rows) for title, rows in parts.items())
    write_block(HERE / "README.md", BLOCK, body)
    return 0


def shares() -> list[str]:
    """How fast a brain is embedded from store to store, relative to the model alone."""
    rows = ["| work | ours (s) | the model alone (s) | share of its speed |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        for one in cases():
            ours, bare = medians_s([one.ours, *one.peers.values()], Path(scratch))
            rows.append(f"| {one.work} | {ours:.2f} | {bare:.2f} | {bare / ours:.3f} |")
            print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
