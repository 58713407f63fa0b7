"""Pictures of a phantom: its sections beside their truth, a close-up of an areal border, the folded surface."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cytoarch.brains import Label, LabelTable
from cytoarch.palette import Rgb, class_colours
from cytoarch.phantoms.anatomy import area_names
from cytoarch.phantoms.cortex import surfaces
from cytoarch.phantoms.points import midline_points
from cytoarch.phantoms.rendering import LOOKS, render
from cytoarch.phantoms.scribbles import Target
from cytoarch.phantoms.sections import Phantom, PhantomSection, Stain, Window, cut, make_phantom
from cytoarch.phantoms.surfaces import Surface
from cytoarch.phantoms.truth import truth
from cytoarch.phantoms.writing import WrittenPhantom, label_rows
from cytoarch.progress import Progress

Picture = NDArray[np.uint8]

FOLDER = "pictures"
SHEET_ROWS, SHEET_PX = 5, 330
CLOSE_UP_UM, CLOSE_UP_PX = 1.5, (1000, 1250)
LIGHT = np.array([-0.35, -0.55, 0.76])


def draw_pictures(folder: Path, on_progress: Progress | None = None) -> tuple[Path, ...]:
    """Draw the pictures of a written phantom into its folder; returns their paths."""
    written = WrittenPhantom(folder)
    home = folder / FOLDER
    home.mkdir(exist_ok=True)
    sections = [written.section(name) for name in written.section_ids]
    drawn = []
    pictures: dict[str, Callable[[], Figure | None]] = {
        "sections": lambda: contact_sheet(sections, written.section_ids),
        "closeup": lambda: close_up(sections),
        "surface": lambda: folded_surface(written.phantom),
    }
    for done, (name, draw) in enumerate(pictures.items(), start=1):
        figure = draw()
        if figure is not None:
            path = home / f"{name}.png"
            figure.savefig(path, metadata={"Software": ""})
            drawn.append(path)
        if on_progress is not None:
            on_progress(done, len(pictures))
    return tuple(drawn)


def label_colours(target: Target) -> Picture:
    """(n + 1, 3) colour of every value of a label image; white for 0."""
    labels = [Label.model_validate({k: v or None for k, v in row.items()}) for row in label_rows(target)]
    colours: list[Rgb] = class_colours(LabelTable(labels=tuple(labels)).classes(by_group=False))
    return np.array([(255, 255, 255), *colours], dtype=np.uint8)


def shown(pixels: NDArray[np.unsignedinteger], stain: Stain) -> Picture:
    """Pixels as a screen shows them (h, w, 3): fluorescence stretched to its brightest, in blue."""
    if stain == "nissl":
        return pixels.astype(np.uint8)
    grey = np.clip(pixels * (255 / LOOKS[stain].full), 0, 255)
    if stain == "dapi":
        bright = np.clip(grey * (255 / max(1.0, float(np.percentile(grey, 99.8)))), 0, 255)
        return np.stack([0.35 * bright, 0.55 * bright, bright], axis=-1).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)


def in_stain(section: PhantomSection, stain: Stain) -> PhantomSection:
    """The same section of the same brain in another stain."""
    settings = section.phantom.settings
    return cut(make_phantom(settings.model_copy(update={"stain": stain})), section.number)


def _figure(width: float, height: float, dpi: int = 100) -> Figure:
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _show(axes: Axes, picture: Picture, title: str = "", interpolation: str = "antialiased") -> None:
    axes.imshow(picture, interpolation=interpolation)
    axes.set_axis_off()
    if title:
        axes.set_title(title, fontsize=9)


def contact_sheet(sections: list[PhantomSection], names: tuple[str, ...]) -> Figure:
    """Up to five sections in the three stains, beside their areas and layers."""
    chosen = sorted({round(place) for place in np.linspace(0, len(sections) - 1, min(SHEET_ROWS, len(sections)))})
    stains: tuple[Stain, ...] = ("silver", "nissl", "dapi")
    height, width = sections[0].size_px(1.0)
    figure = _figure(15, 3.0 * len(chosen) * height / width + 0.3)
    grid = figure.subplots(len(chosen), 5, squeeze=False)
    pixel_um = width / SHEET_PX / 2
    for row, index in enumerate(chosen):
        section = sections[index]
        window = Window(0, 0, *section.size_px(pixel_um))
        for column, stain in enumerate(stains):
            pixels = render(in_stain(section, stain), window, pixel_um)
            _show(grid[row, column], shown(pixels, stain), f"{names[index]}, {stain}" if column == 0 else stain)
        true = truth(section, window, pixel_um)
        _show(grid[row, 3], label_colours("areas")[true.area], "areas", "nearest")
        _show(grid[row, 4], label_colours("layers")[true.layer], "layers", "nearest")
    return figure


def close_up(sections: list[PhantomSection]) -> Figure | None:
    """Cells, layers and an areal border at 1.5 um per pixel, plain and with its truth; None without a border."""
    place = _border(sections)
    if place is None:
        return None
    section, (y, x) = place
    height, width = CLOSE_UP_PX
    window = Window(int(y * 1000 / CLOSE_UP_UM) - height // 2, int(x * 1000 / CLOSE_UP_UM) - width // 2, height, width)
    picture = shown(render(in_stain(section, "nissl"), window, CLOSE_UP_UM), "nissl")
    true = truth(section, window, CLOSE_UP_UM)
    figure = _figure(15, 15 / 2 * height / width + 0.25, dpi=130)
    plain, drawn = figure.subplots(1, 2)
    _show(plain, picture, f"nissl at {CLOSE_UP_UM} um per pixel")
    _show(drawn, picture, "the same, with its true layers and areas")
    length = 200 / CLOSE_UP_UM
    plain.plot([40, 40 + length], [height - 40] * 2, color="black", linewidth=3)
    plain.text(40 + length / 2, height - 55, "200 um", ha="center", fontsize=8)
    for layer in range(1, 7):
        drawn.contour(true.layer <= layer, [0.5], colors="#ffffff", linewidths=0.7)
    for area in np.unique(true.area[(true.area > 0) & (true.layer <= 6)]).tolist():
        here = (true.area == area) & (true.layer <= 6)
        colour = label_colours("areas")[area] / 255
        drawn.contour(here, [0.5], colors=[colour], linewidths=2.0)
        rows, columns = np.nonzero(here)
        if len(rows) > 20_000:
            box = {"facecolor": "white", "edgecolor": colour, "pad": 2.0}
            drawn.text(np.median(columns), np.median(rows), area_names()[area - 1], fontsize=9, ha="center", bbox=box)
    _name_layers(drawn, true.layer)
    return figure


def _name_layers(axes: Axes, layer: NDArray[np.uint8]) -> None:
    """The numbers of the layers along the row or column of pixels that crosses them most evenly."""
    lines = [(True, at, layer[at]) for at in range(20, layer.shape[0], 20)]
    lines += [(False, at, layer[:, at]) for at in range(20, layer.shape[1], 20)]
    row, at, line = max(lines, key=lambda one: min(np.count_nonzero(one[2] == number) for number in range(1, 7)))
    for number in range(1, 7):
        places = np.flatnonzero(line == number)
        if len(places):
            x, y = (np.median(places), at) if row else (at, np.median(places))
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
            axes.text(x, y, str(number), fontsize=9, weight="bold", ha="center", va="center", bbox=box)


def _border(sections: list[PhantomSection]) -> tuple[PhantomSection, NDArray[np.float64]] | None:
    """The flattest place where two areas meet in a section cut straight across the cortex."""
    best, place = np.inf, None
    for section in sections[:: max(1, len(sections) // 6)]:
        points = midline_points(section, 0.25)
        known = points.truth
        for index in range(3, len(points.slide_mm) - 3):
            near = slice(index - 3, index + 4)
            if known.area[index] == known.area[index + 1] or len(set(points.line[near].tolist())) > 1:
                continue
            bent = float(np.abs(known.curvature_per_mm[near]).max() + (90 - known.cut_angle_deg[near].min()) / 45)
            if len(set(known.area[near].tolist())) == 2 and not known.damage[near].any() and bent < best:
                best, place = bent, (section, points.slide_mm[index])
    return place


def folded_surface(phantom: Phantom) -> Figure:
    """The pial surface with its areas, from the left, from above, from the front and from the right."""
    left, right = surfaces(phantom.brain, 0.0)
    figure = _figure(15, 3.9)
    views = (
        ("left side", (left,), np.array([[0, -1, 0], [0, 0, 1], [-1, 0, 0]])),
        ("from above", (left, right), np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]])),
        ("from the front", (left, right), np.array([[-1, 0, 0], [0, 0, 1], [0, 1, 0]])),
        ("right side", (right,), np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])),
    )
    for axes, (title, shown_surfaces, view) in zip(figure.subplots(1, 4), views, strict=True):
        for surface in shown_surfaces:
            _draw_surface(axes, surface, view)
        axes.set_aspect("equal")
        axes.autoscale_view()
        axes.set_axis_off()
        axes.set_title(title, fontsize=9)
    return figure


def _draw_surface(axes: Axes, surface: Surface, view: NDArray[np.int64]) -> None:
    """Draw the triangles that face the viewer, far ones first, shaded by where they look.

    Rows of `view` are the screen's right, up and towards the viewer.
    """
    seen = surface.vertices_mm @ view.T
    corners = seen[surface.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    facing = np.flatnonzero(normals[:, 2] > 0)
    order = facing[np.argsort(corners[facing, :, 2].mean(axis=1))]
    light = 0.35 + 0.65 * np.clip(normals[order] @ LIGHT, 0, 1)
    colours = label_colours("areas")[surface.area[surface.triangles[order, 0]]] / 255 * light[:, None]
    axes.add_collection(
        PolyCollection(list(corners[order, :, :2]), facecolors=colours, edgecolors=colours, linewidths=0.3)
    )
