"""Memory of training, scoring, clusters and colours at the size of a whole human brain, against the stated bounds.

`python -m benchmarks.memory` (some ten minutes) prints a table: every case runs in a process of its own, on arrays that
are made up as they are read, so that what is measured is what our code holds. 113 classes, 4,654 sections, tokens of
64 um on label images of 1 um, embeddings of 3,072 values (four layers of a ViT-B).
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from cytoarch import sampling
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.brains import LabelClass
from cytoarch.discovery import colours
from cytoarch.discovery.clusters import Clustering, ClusterSettings, cluster_sample
from cytoarch.discovery.colours import ColourMap, colour_sample
from cytoarch.embeddings import EmbedSettings, SectionEmbeddings
from cytoarch.geometry import Grid
from cytoarch.images.views import Level, StoredImage
from cytoarch.learning import application, datasets, evaluation, networks, probes, targets
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.datasets import Crops, LabelledSection, cut_crops
from cytoarch.learning.decoder import Decoder, Fit, FusionNetwork, fit_decoder
from cytoarch.learning.evaluation import score_head
from cytoarch.learning.probes import Probe, fit_probe
from cytoarch.learning.targets import targets_on_grid
from cytoarch.learning.training import sample_tokens
from cytoarch.sampling import OnDemand, TokenSource, tissue_source

SECTIONS = 4654
CLASSES = tuple(LabelClass(name=f"area {i}", ids=(i + 1,)) for i in range(113))
DIMS = (768,) * 4
TOKEN_UM = 64.0
WIDE = 1560
"""Tokens across a section of 100 mm."""
MIB = 1 << 20


_VALUES = np.random.default_rng(0).normal(size=(max(DIMS), 113)).astype(np.float16)


class MadeUp:
    """An array whose values are made up when they are read."""

    def __init__(self, shape: tuple[int, ...], dtype: type, largest: int, chunk: int = 16) -> None:
        self.shape, self.dtype, self.ndim = shape, np.dtype(dtype), len(shape)
        self.chunks = (*shape[:-2], chunk, chunk)
        self._largest = largest

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """A window: values that differ from place to place."""
        y, x = (np.arange(*one.indices(size)) for one, size in zip(key[-2:], self.shape[-2:], strict=True))
        plane = (y[:, None] // 64 * 31 + x // 64 * 17) % self._largest
        if self.ndim == 2:
            return np.asarray(plane + 1, dtype=self.dtype)
        values: NDArray[Any] = np.asarray(_VALUES[: self.shape[0], plane], dtype=self.dtype)
        return values


def section(index: int, height: int, width: int, dims: tuple[int, ...] = DIMS) -> LabelledSection:
    """A section of so many tokens, labelled everywhere."""
    made_up = [_array(MadeUp((d, height, width), np.float16, 113)) for d in dims]
    layers = tuple(StoredImage((Level(one, TOKEN_UM, 32.0),), {}) for one in made_up)
    labels = Level(_array(MadeUp((64 * height, 64 * width), np.uint16, 113)), 1.0, 0.5)
    return LabelledSection(
        f"s{index}",
        SectionEmbeddings(layers),
        labels,
        TissueMask(np.ones((1, 1), dtype=bool), Grid.at_corner((1, 1), 1e9, (0.0, 0.0))),
    )


def _array(made_up: MadeUp) -> Any:
    return made_up


def card(kind: str, cells: int, token_px: int = 64) -> HeadCard:
    """The card of a head for these sections."""
    return HeadCard(
        kind=kind,
        target="areas",
        classes=CLASSES,
        dims=DIMS,
        cells_per_token=cells,
        embedding=EmbedSettings(),
        encoder_digest="0",
        token_px=token_px,
        pixel_size_um=TOKEN_UM / token_px,
    )


def a_decoder(cells: int) -> Decoder:
    """A decoder of random weights."""
    network = FusionNetwork(DIMS, len(CLASSES), 64, cells)
    return Decoder(card("decoder", cells), network.eval().requires_grad_(False))


def a_probe() -> Probe:
    """A probe of random weights."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(len(CLASSES), sum(DIMS))).astype(np.float32)
    return Probe(card("probe", 1), weight, np.zeros(len(CLASSES), dtype=np.float32))


def sources(edge: int) -> OnDemand[TokenSource]:
    """4,654 sections to draw from uniformly."""

    def source(index: int) -> TokenSource:
        one = section(index, edge, edge)
        return tissue_source(one.section_id, one.embeddings, one.tissue)

    return OnDemand(SECTIONS, source)


# -- the cases: each does its work and says what it did ----------------------------------------------------------------


def tokens_and_probe() -> str:
    """Tokens of all classes from all sections, and two steps of the solver on them."""
    probes.ITERATIONS = 2  # the memory of a step does not grow with their number
    sections = OnDemand(SECTIONS, lambda index: section(index, 4, 4))
    sample = sample_tokens(sections, CLASSES, 400, 0)
    fit_probe(card("probe", 1), sample.tokens, sample.strata, 1.0)
    return f"{sample.facts()}"


def clusters() -> str:
    """Tokens from all sections, and k-means on them: all alike, so that it fills empty clusters, as takes most."""
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    settings = ClusterSettings(restarts=1)
    sample = cluster_sample(sources(64), settings)
    Clustering.fit([sample.tokens], settings)
    return f"{sample.facts()}"


def colour_map() -> str:
    """Tokens from all sections, and their principal components."""
    sample = colour_sample(sources(64))
    ColourMap.fit([sample.tokens])
    return f"{sample.facts()}"


def crops() -> str:
    """Crops of all sections."""
    found = cut_crops(OnDemand(SECTIONS, lambda index: section(index, 4, 4)), card("decoder", 16), 0)
    return f"{found.facts()}"


def step(cells: int) -> Callable[[], str]:
    """A few steps of training a decoder."""

    def run() -> str:
        edge, rng = 32, np.random.default_rng(0)
        embeddings = rng.normal(size=(16, sum(DIMS), edge, edge)).astype(np.float16)
        given = Crops(embeddings, rng.integers(-1, 113, (16, edge * cells, edge * cells)).astype(np.int16))
        if cells > 4:  # one step takes one crop
            given = Crops(given.embeddings[:2], given.targets[:2])
        _, facts = fit_decoder(
            card("decoder", cells),
            given,
            Fit(epochs=1),
        )
        return f"crops in a step: {facts['batch_size']}"

    return run


def bands(head: Callable[[], Decoder | Probe], rows: int) -> Callable[[], str]:
    """The first bands of a section of 100 mm."""

    def run() -> str:
        shapes = [band.shape for _, band in application.predict_bands(head(), section(0, rows, WIDE).embeddings)]
        return f"bands of {shapes[0]}"

    return run


def scores(head: Callable[[], Decoder | Probe], rows: int) -> Callable[[], str]:
    """The score of some rows of a section of 100 mm."""

    def run() -> str:
        return f"{score_head(head(), [section(0, rows, WIDE)]).confusion.sum():,} cells"

    return run


def label_targets() -> str:
    """Classes of 64 x 64 tokens from their 17 million label pixels."""
    return (
        f"{targets_on_grid(section(0, 64, 64).labels, CLASSES, Grid.at_corner((64, 64), TOKEN_UM, (0.0, 0.0))).shape}"
    )


class Case(NamedTuple):
    """Work whose memory is measured, and what it may take (bytes)."""

    work: str
    run: Callable[[], str]
    bound: int
    stated: str


CASES: Mapping[str, Case] = {
    "targets": Case("targets of 64 x 64 tokens", label_targets, targets.TARGET_BYTES, "TARGET_BYTES"),
    "probe": Case(
        "token sample and fit of a probe",
        tokens_and_probe,
        sampling.SAMPLE_BYTES + targets.TARGET_BYTES,
        "SAMPLE_BYTES + TARGET_BYTES",
    ),
    "clusters": Case(
        "token sample and fit of clusters",
        clusters,
        sampling.SAMPLE_BYTES + 4 * sampling.PART_BYTES,
        "SAMPLE_BYTES + 4 PART_BYTES",
    ),
    "colours": Case(
        "token sample and fit of colours",
        colour_map,
        colours.SAMPLE_BYTES + 8 * sampling.PART_BYTES,
        "colours.SAMPLE_BYTES + 8 PART_BYTES",
    ),
    "crops": Case("decoder crops", crops, datasets.CROP_BYTES + targets.TARGET_BYTES, "CROP_BYTES + TARGET_BYTES"),
    "step-4": Case("a step of a decoder, 4 cells a token", step(4), networks.STEP_BYTES, "STEP_BYTES"),
    "step-16": Case("a step of a decoder, 16 cells a token", step(16), networks.STEP_BYTES, "STEP_BYTES"),
    "bands-probe": Case(
        "bands of a probe",
        bands(a_probe, 57),
        application.BAND_BYTES + application.TILE_BYTES,
        "BAND_BYTES + TILE_BYTES",
    ),
    "bands-decoder": Case(
        "bands of a decoder, 16 cells a token",
        bands(lambda: a_decoder(16), 3),
        application.BAND_BYTES + application.TILE_BYTES,
        "BAND_BYTES + TILE_BYTES",
    ),
    "scores": Case(
        "scores of a decoder, 16 cells a token",
        scores(lambda: a_decoder(16), 2),
        application.BAND_BYTES + application.TILE_BYTES + evaluation.SCORE_BYTES + targets.TARGET_BYTES,
        "those, SCORE_BYTES and TARGET_BYTES",
    ),
}


class Found(NamedTuple):
    """What a case took."""

    peak: int
    seconds: float
    said: str


def measure(name: str) -> Found:
    """Run a case in this process: the rise of its memory from before to the peak."""
    torch.set_num_threads(2)
    process = psutil.Process()
    _warm_up()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, start = process.memory_info().rss, time.perf_counter()
    said = CASES[name].run()
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    return Found(peak - before, time.perf_counter() - start, said)


def _warm_up() -> None:
    """What libraries load and keep at their first call is not the work's."""
    small, rng = 40, np.random.default_rng(0)
    tokens = rng.normal(size=(small, 8)).astype(np.float32)
    one = LabelClass(name="a", ids=(1,))
    tiny = card("probe", 1).model_copy(update={"classes": (one, one), "dims": (8,)})
    fit_probe(tiny, tokens, np.arange(small) % 2, 1.0)
    Clustering.fit([tokens], ClusterSettings(clusters=2, restarts=1))
    ColourMap.fit([tokens])
    fit_decoder(
        tiny,
        Crops(rng.normal(size=(2, 8, 4, 4)).astype(np.float16), np.ones((2, 4, 4), dtype=np.int16)),
        Fit(width=8, epochs=1, batch_size=2, learning_rate=1e-3, weight_decay=0),
    )


def main() -> int:
    """Measure every case in a child and print the table; 1 if one takes more than it states."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], help="leave out for all")
    parser.add_argument("--here", action="store_true", help="measure one case in this process, print JSON")
    given = parser.parse_args()
    if given.here:
        print(json.dumps(measure(given.cases[0])._asdict()))
        return 0
    print("| work | at most (MiB) | stated by | peak (MiB) | share | s | |\n|---|---|---|---|---|---|---|", flush=True)
    worst = 0.0
    for name in given.cases or CASES:
        command = [sys.executable, "-m", "benchmarks.memory", name, "--here"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=dict(os.environ))
        found, case = Found(**json.loads(done.stdout.splitlines()[-1])), CASES[name]
        share = found.peak / case.bound
        worst = max(worst, share)
        print(
            f"| {case.work} | {case.bound / MIB:,.0f} | {case.stated} | {found.peak / MIB:,.0f} | {share:.2f} "
            f"| {found.seconds:.0f} | {found.said} |",
            flush=True,
        )
    return int(worst > 1)


if __name__ == "__main__":
    sys.exit(main())
