"""Encoders on phantoms: layers and areas of sections that are left out, by a linear probe on tokens of the same brain.

    python -m benchmarks.encoders

A brain in silver stain and one in DAPI, bright on dark, at 25 um, which no encoder saw; eight sections each, of which
the third and the sixth are scored. Layers and areas are told within cortex. `lite0` has tokens of 8 px, the others of
4 px; all are read at the same places. Encoders side by side (`texture+lite0`) are read on the finest grid of them.
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cytoarch.encoders.protocol import Encoder, Float32
from cytoarch.encoders.registry import EncoderSettings, load_encoder
from cytoarch.measures.overlap import confusion_matrix, map_macro_f1
from cytoarch.phantoms.anatomy import AREA_COUNT
from cytoarch.phantoms.kernels import GREY
from cytoarch.phantoms.rendering import render
from cytoarch.phantoms.sections import PhantomSettings, Stain, Window, cut, make_phantom, section_count
from cytoarch.phantoms.truth import truth
from cytoarch.pretraining.probing import fit_linear_probe

STAINS: tuple[Stain, ...] = ("silver", "dapi")
SEED, SECTIONS, SCORED = 77, 8, (2, 5)
PIXEL_UM, CELL_PX = 25.0, 4
MARGIN_PX, TILE_STEP_PX = 384, 128
PLACES = 2500
"""Cells of cortex that are read of every section, at most."""
LAYERS = 6

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Drawn:
    """A section, and the truth of n of its cells."""

    pixels: Float32
    """(1, c, T, T) in [0, 1], mirrored by a margin and on to a square."""
    cells: Int64
    """(n, 2) rows and columns."""
    layer: Int64
    area: Int64


def drawn(stain: Stain, resolution: int) -> list[Drawn]:
    """The sections of a brain."""
    phantom = make_phantom(PhantomSettings(seed=SEED, stain=stain, resolution=resolution))
    count = section_count(phantom)
    found = []
    for rank, number in enumerate(np.linspace(0.3 * count, 0.7 * count, SECTIONS).astype(int)):
        section = cut(phantom, int(number))
        height, width = (size // CELL_PX for size in section.size_px(PIXEL_UM))
        told = truth(section, Window(0, 0, height, width), CELL_PX * PIXEL_UM)
        cells = np.argwhere(told.tissue == GREY)
        cells = np.random.default_rng(rank).permutation(cells)[:PLACES]
        rows, columns = cells.T
        image = render(section, Window(0, 0, CELL_PX * height, CELL_PX * width), PIXEL_UM).astype(np.float32)
        low, high = np.percentile(image, (0.5, 99.5))
        planes = np.clip((image - low) / (high - low), 0, 1).reshape(*image.shape[:2], -1).transpose(2, 0, 1)
        edge = -(-(max(planes.shape[1:]) + 2 * MARGIN_PX) // TILE_STEP_PX) * TILE_STEP_PX
        after = [edge - MARGIN_PX - size for size in planes.shape[1:]]
        padded = np.pad(planes, ((0, 0), (MARGIN_PX, after[0]), (MARGIN_PX, after[1])), mode="symmetric")
        layer, area = (one[rows, columns].astype(np.int64) for one in (told.layer, told.area))
        found.append(Drawn(np.ascontiguousarray(padded[None], dtype=np.float32), cells, layer, area))
    return found


def tokens_at(encoder: Encoder, section: Drawn) -> Float32:
    """Embeddings (n, d) of the cells of a section, all layers of the encoder side by side."""
    ratio = encoder.tiles.token_px // CELL_PX
    rows, columns = ((section.cells + MARGIN_PX // CELL_PX) // ratio).T
    return np.concatenate([layer[0][:, rows, columns] for layer in encoder.encode(section.pixels)]).T


def scores(encoder: Encoder, sections: list[Drawn]) -> tuple[float, float]:
    """Macro-F1 of layers and of areas in the sections that are left out."""
    values = [tokens_at(encoder, one) for one in sections]
    learned = [k for k in range(len(sections)) if k not in SCORED]
    train, test = (torch.from_numpy(np.concatenate([values[k] for k in some])) for some in (learned, SCORED))
    found = []
    for name, classes in (("layer", LAYERS + 1), ("area", AREA_COUNT + 1)):
        told, asked = (np.concatenate([getattr(sections[k], name) for k in some]) for some in (learned, SCORED))
        probe = fit_linear_probe(train, torch.from_numpy(told), classes)
        found.append(map_macro_f1(confusion_matrix(asked, probe(test).argmax(dim=1).numpy(), classes)))
    return found[0], found[1]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", default="texture,lite0,compact,texture+lite0")
    parser.add_argument("--stains", default=",".join(STAINS))
    parser.add_argument("--resolution", type=int, default=80)
    asked = parser.parse_args()
    print("| brain | encoder | features a token | layers, macro-F1 | areas, macro-F1 | s |\n|---|---|---|---|---|---|")
    for stain in (one for one in STAINS if one in asked.stains.split(",")):
        sections = drawn(stain, asked.resolution)
        for name in asked.encoders.split(","):
            encoder, started = load_encoder(EncoderSettings(encoder=name)), time.perf_counter()
            layers, areas = scores(encoder, sections)
            width = sum(encoder.dims(sections[0].pixels.shape[1]))
            print(
                f"| {stain} | {name} | {width} | {layers:.3f} | {areas:.3f} | {time.perf_counter() - started:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
