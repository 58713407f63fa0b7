"""Tissue, grey and white matter, against what is true and what experts drew.

`python -m benchmarks.tissue FOLDER phantom SEED ...` measures phantom brains of three stains at 64 um and keeps what it
found in FOLDER; `table` writes it into the README, beside the outlines that neuroanatomists drew around Nissl sections
of several species (CYTOARCH_REAL_DATA; left out where that is missing).
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import write_block
from cytoarch.anatomy.matter import GREY, WHITE
from cytoarch.anatomy.tissue import TissueMask, TissueSettings, find_tissue
from cytoarch.geometry import Grid
from cytoarch.phantoms.rendering import render
from cytoarch.phantoms.sections import PhantomSettings, Stain, Window, cut, make_phantom, section_count
from cytoarch.phantoms.truth import truth
from tests.real_outlines import agreement, outlined_sections

README = Path(__file__).parent / "README.md"
BLOCK = "tissue: written by python -m benchmarks.tissue"
CELL_UM = 64.0
SHARES = tuple(np.linspace(0.12, 0.88, 8))
"""Where the sections lie along the brain."""
STAINS: tuple[Stain, ...] = get_args(Stain)
KINDS = ("tissue", "grey", "white")


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Overlap of two masks, 1 where both are empty."""
    total = int(a.sum() + b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def measured(seed: int, stain: Stain) -> dict[str, Any]:
    """Dice of the sections of a brain with default nuisances, by kind."""
    phantom = make_phantom(PhantomSettings(seed=seed, stain=stain))
    rows: dict[str, list[float]] = {kind: [] for kind in KINDS}
    doubted = 0
    for share in SHARES:
        section = cut(phantom, int(section_count(phantom) * share))
        if section.mounting.missing:
            continue
        window = Window(0, 0, *section.size_px(CELL_UM))
        pixels = render(section, window, CELL_UM)
        planes = np.moveaxis(pixels.reshape(*pixels.shape[:2], -1), -1, 0).astype(np.float32)
        found = find_tissue(planes, CELL_UM, TissueSettings())
        known = truth(section, window, CELL_UM).tissue
        doubted += bool(found.doubts)
        rows["tissue"].append(dice(found.mask, known > 0))
        rows["grey"].append(dice(found.classes == GREY, (known == 1) | (known == 3)))
        rows["white"].append(dice(found.classes == WHITE, known == 2))
    return {"seed": seed, "stain": stain, "doubted": doubted, **rows}


def of_phantoms(folder: Path) -> Iterator[str]:
    """A line for every stain: the median and the least section of all brains."""
    brains = [json.loads(path.read_text()) for path in sorted(folder.glob("tissue-*.json"))]
    yield "| stain | brains | sections | tissue: median, least | grey | white | doubted |"
    yield "|---|---|---|---|---|---|---|"
    for stain in STAINS:
        of = [one for one in brains if one["stain"] == stain]
        values = {kind: np.array([value for one in of for value in one[kind]]) for kind in KINDS}
        if of:
            cells = [f"{np.median(values[kind]):.3f}, {values[kind].min():.3f}" for kind in KINDS]
            doubted = sum(one["doubted"] for one in of)
            yield f"| {stain} | {len(of)} | {len(values['tissue'])} | {' | '.join(cells)} | {doubted} |"


def of_species(folder: Path) -> Iterator[str]:
    """A line for every species; the second figures leave out pieces that the expert did not outline."""
    yield "| species | Dice | outside the outline | Dice of what is outlined | outside | pieces not outlined |"
    yield "|---|---|---|---|---|---|"
    for one in outlined_sections(folder):
        planes, at_um = overview_of(one.pixels, one.pixel_size_um)
        found = find_tissue(planes, at_um, TissueSettings())
        picture = Grid((one.pixels.shape[1], one.pixels.shape[2]), one.pixel_size_um, (0.0, 0.0))
        mask = TissueMask(found.mask, Grid.at_corner(found.mask.shape, at_um, picture.corner_um))
        scores = agreement(mask, one)
        yield (
            f"| {one.name} | {scores.dice:.3f} | {scores.outside:.1%} | {scores.dice_of_drawn:.3f} | "
            f"{scores.outside_of_drawn:.1%} | {scores.not_drawn:.1%} |"
        )


def overview_of(pixels: NDArray[np.uint8], pixel_um: float) -> tuple[NDArray[np.float32], float]:
    """A picture (c, y, x) averaged to the overview's cells, or as it is where it is coarser."""
    factor = max(1, round(CELL_UM / pixel_um))
    height, width = (edge // factor for edge in pixels.shape[1:])
    parts = pixels[:, : height * factor, : width * factor].reshape(len(pixels), height, factor, width, factor)
    return parts.mean(axis=(2, 4), dtype=np.float32), pixel_um * factor


def main(arguments: Sequence[str]) -> int:
    """Measure what is asked for."""
    folder, what, *rest = Path(arguments[0]), *arguments[1:]
    folder.mkdir(parents=True, exist_ok=True)
    if what == "phantom":
        for seed in map(int, rest):
            for stain in STAINS:
                row = measured(seed, stain)
                medians = {kind: float(np.median(row[kind])) for kind in KINDS}
                print(seed, stain, medians, row["doubted"], flush=True)
                (folder / f"tissue-{seed}-{stain}.json").write_text(json.dumps(row))
    elif what == "table":
        data = Path(os.environ.get("CYTOARCH_REAL_DATA", README.parent.parent.parent / "shared" / "data"))
        lines = list(of_phantoms(folder))
        if (data / "mammals_nissl").is_dir():
            lines += ["", *of_species(data / "mammals_nissl")]
        print("\n".join(lines))
        write_block(README, BLOCK, "\n".join(lines))
    else:
        print(__doc__)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
