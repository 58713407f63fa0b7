"""Rendering phantoms: against drawing the same cells with scikit-image, and against noise alone, on one core.

`python -m benchmarks.phantoms` also writes the tables of the population and of what an area can be read from.
"""

import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from skimage.draw import ellipse

from benchmarks.cases import Case
from cytoarch.phantoms.anatomy import AREA_COUNT, HEMISPHERES, area_names
from cytoarch.phantoms.cells import cells_in
from cytoarch.phantoms.cortex import surfaces
from cytoarch.phantoms.legibility import sample_patches, times_chance
from cytoarch.phantoms.points import midline_points
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
from cytoarch.phantoms.surfaces import area_sizes_mm2
from cytoarch.phantoms.truth import truth

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- phantoms: written by python -m benchmarks.phantoms -->", "<!-- phantoms end -->"
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
    share = float((truth(section, window, PIXEL_UM).tissue == 1).mean())
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
    cortex = truth(section, Window(0, 0, *section.size_px(coarse_um)), coarse_um).tissue == 1
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
    return rows


def legibility() -> list[str]:
    """How much above chance areas are classified, every brain by what was learned on the nine others."""
    patches = [sample_patches(_brain(seed), per_area=10, sections=24) for seed in range(BRAINS)]
    count = sum(len(one.area) for one in patches)
    rows = [f"| read from a patch of 1.6 mm ({count:,} patches) | balanced accuracy / chance |", "|---|---|"]
    names = {"mean": "mean grey level", "histogram": "histogram, 32 bins", "profile": "true laminar depth profile"}
    return rows + [f"| {names[what]} | {times_chance(patches, what):.2f} |" for what in names]


def population() -> list[str]:
    """Sizes of the areas over ten brains, and how many patches 1 mm apart they give on every 20th section."""
    sizes, points = [], np.zeros((BRAINS, AREA_COUNT))
    for seed in range(BRAINS):
        phantom = _brain(seed)
        sizes.append(area_sizes_mm2(surfaces(phantom.brain, 0.5), AREA_COUNT))
        for number in range(0, section_count(phantom), 20):
            area = midline_points(cut(phantom, number)).truth.area
            points[seed] += np.bincount(area, minlength=AREA_COUNT + 1)[1:]
    mm2 = np.stack(sizes)  # brain, side, area
    left, right = (mm2[:, side].mean(axis=0) for side in range(len(HEMISPHERES)))
    both = mm2.sum(axis=1)
    rows = [
        "| area | left (mm2) | right (mm2) | variation between brains | asymmetry, mean | patches a brain |",
        "|---|---|---|---|---|---|",
    ]
    asymmetry = (np.abs(mm2[:, 0] - mm2[:, 1]) / both).mean(axis=0)
    for k, name in enumerate(area_names()):
        variation = both[:, k].std(ddof=1) / both[:, k].mean()
        rows.append(
            f"| {name} | {left[k]:.1f} | {right[k]:.1f} | {variation:.0%} | {asymmetry[k]:.0%} "
            f"| {points[:, k].mean():.0f} ({points[:, k].min():.0f}-{points[:, k].max():.0f}) |"
        )
    total = both.sum(axis=1)
    rows.append(
        f"| all | {left.sum():.0f} | {right.sum():.0f} | {total.std(ddof=1) / total.mean():.0%} | "
        f"| {points.sum(axis=1).mean():.0f} |"
    )
    return rows


def _brain(seed: int) -> Phantom:
    return make_phantom(PhantomSettings(seed=seed))


def main() -> int:
    """Measure and write the section on phantoms."""
    parts = {
        "Memory": peak_memory(),
        "What an area can be read from (ten brains, default nuisances)": legibility(),
        "The population: areas of ten brains": population(),
    }
    text = README.read_text()
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    body = "\n\n".join(f"### {title}\n\n" + "\n".join(rows) for title, rows in parts.items())
    README.write_text(f"{head}{BEGIN}\n\n{body}\n\n{END}{tail}")
    print(body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
