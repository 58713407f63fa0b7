"""Rendering phantoms: against drawing the same cells with scikit-image, and against noise alone, on one core.

`python -m benchmarks.phantoms` also writes the tables of the population and of what an area can be read from.
"""

import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from skimage.draw import ellipse

from benchmarks.cases import Case, write_block
from cytoarch.phantoms.anatomy import HEMISPHERES
from cytoarch.phantoms.cells import cells_in
from cytoarch.phantoms.kernels import GREY
from cytoarch.phantoms.legibility import sample_patches, times_chance
from cytoarch.phantoms.rendering import render
from cytoarch.phantoms.sections import (
    Phantom,
    PhantomSection,
    PhantomSettings,
    Window,
    cut,
    make_phantom,
    section_count,
)
from cytoarch.phantoms.truth import truth
from cytoarch.phantoms.writing import PhantomRequest, write_phantom

README = Path(__file__).parent / "README.md"
BLOCK = "phantoms: written by python -m benchmarks.phantoms"
EDGE_PX, PIXEL_UM = 1024, 2.0
BRAINS = 10


def cases() -> Iterator[Case]:
    """A window of cortex at 2 um per pixel, 1 megapixel."""
    section, window = cortex_window()
    box = tuple(side * PIXEL_UM / 1000 for side in (window.y, window.x, window.y + EDGE_PX, window.x + EDGE_PX))
    cells = cells_in(section, (box[0], box[1], box[2], box[3]))
    rng = np.random.default_rng(0)

    def ours(_folder: Path) -> object:
        return render(section, window, PIXEL_UM)

    def drawn(_folder: Path) -> object:
        """The same cells as hard ellipses at given places, and noise: no anatomy, no optics."""
        light = np.full((EDGE_PX, EDGE_PX), 200.0)
        for (y, x), radius in zip(cells.slide_mm, cells.radius_um, strict=True):
            row, column = y * 1000 / PIXEL_UM - window.y, x * 1000 / PIXEL_UM - window.x
            light[ellipse(row, column, radius / PIXEL_UM, radius / PIXEL_UM, light.shape)] *= 0.2
        return np.clip(light + rng.normal(0, 2, light.shape), 0, 255).astype(np.uint8)

    def noise(_folder: Path) -> object:
        return np.clip(200 + rng.normal(0, 2, (EDGE_PX, EDGE_PX)), 0, 255).astype(np.uint8)

    ours(Path())  # compiles
    share = float((truth(section, window, PIXEL_UM).tissue == GREY).mean())
    yield Case(
        f"render {EDGE_PX} x {EDGE_PX} px at 2 um, {share:.0%} cortex, {len(cells.radius_um):,} cells, one core",
        ours,
        {"the same cells with skimage.draw.ellipse, and noise": drawn, "numpy noise alone": noise},
    )


def cortex_window() -> tuple[PhantomSection, Window]:
    """The window of a section that holds most cortex."""
    phantom = make_phantom(PhantomSettings(seed=1))
    section = cut(phantom, section_count(phantom) // 2)
    coarse_um = 64.0
    cortex = truth(section, Window(0, 0, *section.size_px(coarse_um)), coarse_um).tissue == GREY
    edge = int(EDGE_PX * PIXEL_UM / coarse_um)
    sums = np.lib.stride_tricks.sliding_window_view(cortex, (edge, edge)).sum(axis=(2, 3))
    y, x = (int(at * coarse_um / PIXEL_UM) for at in np.unravel_index(int(sums.argmax()), sums.shape))
    return section, Window(y, x, EDGE_PX, EDGE_PX)


def peak_memory() -> list[str]:
    """What rendering a tile takes, whatever the size of the section it is part of."""
    section, window = cortex_window()
    rows = ["| section (px) | pixel (um) | peak of one 512 px tile (MB) |", "|---|---|---|"]
    for pixel_um in (20.0, 2.0, 0.2):
        middle = [int((at + EDGE_PX / 2) * PIXEL_UM / pixel_um) - 256 for at in (window.y, window.x)]
        tracemalloc.start()
        render(section, Window(middle[0], middle[1], 512, 512), pixel_um)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        height, width = section.size_px(pixel_um)
        rows.append(f"| {height:,} x {width:,} | {pixel_um:g} | {peak / 1e6:.1f} |")
    return [
        *rows,
        "",
        "A tile of larger pixels shows more cells, which are held as a list; the section's size does not matter.",
    ]


def legibility() -> list[str]:
    """How much above chance areas are classified, every brain by what was learned on the nine others."""
    patches = [sample_patches(_brain(seed), per_area=10, sections=24) for seed in range(BRAINS)]
    count = sum(len(one.area) for one in patches)
    rows = [f"| read from a patch of 1.6 mm ({count:,} patches) | balanced accuracy / chance |", "|---|---|"]
    names = {"mean": "mean grey level", "histogram": "histogram, 32 bins", "profile": "true laminar depth profile"}
    return rows + [f"| {names[what]} | {times_chance(patches, what):.2f} |" for what in names]


def population() -> list[str]:
    """Ten brains written, and from their tables: sizes of the areas and their patches 1 mm apart, on 12 sections."""
    areas, points = [], []
    with tempfile.TemporaryDirectory() as name:
        for seed in range(BRAINS):
            folder = Path(name) / str(seed)
            write_phantom(folder, f"P{seed:02d}", PhantomRequest(seed=seed))
            areas.append(pd.read_csv(folder / "truth" / "areas.csv").set_index("name"))
            points.append(pd.read_csv(folder / "truth" / "points.csv")["area"].value_counts())
    names = list(areas[0].index)
    left, right = (np.stack([one[f"{side}_mm2"] for one in areas]) for side in HEMISPHERES)  # brain, area
    patches = np.stack([one.reindex(names, fill_value=0) for one in points])
    both, uneven = left + right, np.abs(left - right) / (left + right)
    rows = [
        "| area | left (mm2) | right (mm2) | variation between brains | asymmetry, mean | patches a brain (range) |",
        "|---|---|---|---|---|---|",
    ]
    for k, name in enumerate(names):
        rows.append(
            f"| {name} | {left[:, k].mean():.1f} | {right[:, k].mean():.1f} | {_variation(both[:, k]):.0%} "
            f"| {uneven[:, k].mean():.0%} | {patches[:, k].mean():.0f} ({patches[:, k].min()}-{patches[:, k].max()}) |"
        )
    total = patches.sum(axis=1)
    sums = [side.sum(axis=1).mean() for side in (left, right)]
    rows.append(
        f"| all | {sums[0]:.0f} | {sums[1]:.0f} | {_variation(both.sum(axis=1)):.0%} | "
        f"| {total.mean():.0f} ({total.min()}-{total.max()}) |"
    )
    return rows


def _variation(sizes: NDArray[np.float64]) -> float:
    """Standard deviation over mean."""
    return float(sizes.std(ddof=1) / sizes.mean())


def _brain(seed: int) -> Phantom:
    return make_phantom(PhantomSettings(seed=seed))


def main() -> int:
    """Measure and write the section on phantoms."""
    parts = {
        "Memory": peak_memory(),
        "What an area can be read from (ten brains, default nuisances)": legibility(),
        "The population: areas of ten brains": population(),
    }
    body = "\n\n".join(f"### {title}\n\n" + "\n".join(rows) for title, rows in parts.items())
    write_block(README, BLOCK, body)
    print(body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
