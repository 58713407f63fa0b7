"""Pictures of how sections were put together: each in the plane of its brain, over the one before it."""

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage.segmentation import find_boundaries

from cytoarch.anatomy.reconstruction.likeness import Overview, Plane, likeness
from cytoarch.anatomy.reconstruction.placed import PlacedSection, Reconstruction
from cytoarch.geometry import Grid
from cytoarch.palette import Rgb
from cytoarch.reporting.rendered import templates

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Picture = NDArray[np.uint8]
"""(y, x, 3)"""
PANEL_PX = 300
"""Longer edge of a panel."""
SHEET_COLUMNS = 8
SHEET_PX = 150
MOST_ON_SHEET = 96
"""Sections on a contact sheet: more are drawn evenly from the series, besides all that are flagged."""
OUTLINE: Rgb = (255, 140, 0)
INK, FAINT, FLAGGED, UNLINKED = (29, 35, 48), (102, 102, 119), (217, 142, 4), (179, 38, 30)
TEXT_PX, LINE_PX = 22, 28
"""Of a section's picture, which pages show at little more than half its size."""
NAME_PX, NAME_LINE_PX = 14, 18
"""Of a contact sheet."""
LEAST_SIZED = 0.0005
"""Changes of size below this share are not told."""


class Shown(NamedTuple):
    """A section drawn in the plane of its brain."""

    section: PlacedSection
    stain: NDArray[np.float32]
    """(y, x), 0 slide, 1 the tissue's median."""
    tissue: NDArray[np.bool_]


def plane_grid(brain: Reconstruction, longest_px: int = PANEL_PX) -> Grid:
    """A grid in the plane of the brain that holds the scans of nearly all linked sections."""
    chosen = [one for one in brain if one.linked] or list(brain)
    corners = np.concatenate([one.plane(one.grid.corners_um) for one in chosen])
    low, high = np.percentile(corners, 10, axis=0), np.percentile(corners, 90, axis=0)
    cell = float((high - low).max()) / longest_px
    height, width = np.maximum(1, np.ceil((high - low) / cell)).astype(int).tolist()
    return Grid.at_corner((height, width), cell, (float(low[0]), float(low[1])))


def shown(section: PlacedSection, overview: Overview, grid: Grid) -> Shown:
    """A section in the plane of its brain; nothing where it holds no tissue."""
    alike, way = likeness(section.section_id, overview, overview.grid.cell_um), section.plane.inverse()
    if alike is None:
        return Shown(section, np.zeros(grid.shape, np.float32), np.zeros(grid.shape, bool))
    blur = max(0.0, grid.cell_um / overview.grid.cell_um - 1) / 2
    tissue = Plane(alike.tissue.astype(np.float32), alike.plane.grid).on(grid, way)
    return Shown(section, alike.plane.smoothed(blur).on(grid, way), tissue > 0.5)


def outlined(one: Shown) -> Picture:
    """The section in grey, dark on white, with the border of its tissue."""
    grey = (255 - 150 * np.clip(one.stain, 0, 1.6)).astype(np.uint8)
    picture = np.repeat(grey[..., None], 3, axis=-1)
    picture[find_boundaries(one.tissue, mode="inner")] = OUTLINE
    return picture


def over_neighbour(one: Shown, other: Shown | None) -> Picture:
    """The section in red over its neighbour in cyan: where they agree it is grey."""
    own = 255 - 150 * np.clip(one.stain, 0, 1.6)
    others = np.full_like(own, 255) if other is None else 255 - 150 * np.clip(other.stain, 0, 1.6)
    # ink that takes away light: this section all but red, its neighbour all but green and blue
    return np.stack([others, own, own], axis=-1).astype(np.uint8)


def caption(one: PlacedSection, neighbour: PlacedSection | None) -> list[str]:
    """What is said beside the pictures of a section: how it lies and how well it is held."""
    quality, rigid = one.quality, one.rigid
    lines = [f"{one.section_id}  (number {one.section_number})"]
    words = {"base": "the base", "links": "by its links", "transform": "by a person", "manifest": "not linked"}
    flipped = ", flipped" if one.flipped else ""
    sized = f", size {100 * (one.size - 1):+.1f} %" if abs(one.size - 1) >= LEAST_SIZED else ""
    lines.append(f"placed: {words[one.placed_by]}{flipped}, turned {rigid.angle_deg:.1f} deg{sized}")
    if quality.links:
        lines.append(f"{quality.links} links: correlation {quality.correlation:.2f}, overlap {quality.dice:.2f}")
        lines.append(f"outlines {quality.outline_um:.0f} um apart, links disagree by {quality.disagreement_um:.0f} um")
    if neighbour is not None:
        lines.append(f"red: this section, cyan: {neighbour.section_id}")
    lines += [f"stated: {', '.join(one.corrections)}"] if one.corrections else []
    return lines


def section_picture(one: Shown, other: Shown | None) -> bytes:
    """One PNG: the section outlined, over its neighbour, and what is known of its place."""
    panels = np.concatenate([outlined(one), over_neighbour(one, other)], axis=1)
    high, wide = panels.shape[:2]
    font, colour = ImageFont.load_default(TEXT_PX), FLAGGED if one.section.linked else UNLINKED
    said = [(text, INK) for text in caption(one.section, other.section if other else None)]
    said += [(f"! {text}", colour) for text in one.section.flags]
    lines = [(part, ink) for text, ink in said for part in _wrapped(_plain(text), wide - 12, font)]
    image = Image.new("RGB", (wide, high + LINE_PX * len(lines) + 10), "white")
    image.paste(Image.fromarray(panels), (0, 0))
    draw = ImageDraw.Draw(image)
    for row, (text, ink) in enumerate(lines):
        draw.text((6, high + 4 + LINE_PX * row), text, fill=ink, font=font)
    return _png(image)


def chosen_for_sheet(brain: Reconstruction) -> list[str]:
    """The sections on a contact sheet: all, or of many those that are flagged and others evenly."""
    names = list(brain.sections)
    if len(names) <= MOST_ON_SHEET:
        return names
    even = {names[at] for at in np.linspace(0, len(names) - 1, MOST_ON_SHEET // 2).astype(int).tolist()}
    flagged = [one for one in brain.flagged if one not in even][: MOST_ON_SHEET - len(even)]
    return [one for one in names if one in even or one in flagged]


def contact_sheet(brain: Reconstruction, pictures: Sequence[tuple[PlacedSection, Picture]]) -> bytes:
    """One PNG of sections over their neighbours, in cutting order; flagged ones framed, unlinked ones in red."""
    columns = min(SHEET_COLUMNS, max(1, len(pictures)))
    high = max((picture.shape[0] for _, picture in pictures), default=SHEET_PX)
    wide = max((picture.shape[1] for _, picture in pictures), default=SHEET_PX)
    cell = (wide + 10, high + 10 + NAME_LINE_PX)
    rows = max(1, -(-len(pictures) // columns))
    image = Image.new("RGB", (columns * cell[0], rows * cell[1]), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(NAME_PX)
    for number, (section, picture) in enumerate(pictures):
        x, y = number % columns * cell[0] + 5, number // columns * cell[1] + 5
        image.paste(Image.fromarray(picture), (x, y))
        ink = UNLINKED if not section.linked else FLAGGED if section.flags else FAINT
        if section.flags:
            draw.rectangle((x - 2, y - 2, x + wide + 1, y + high + 1), outline=ink, width=2)
        base = " (base)" if section.section_id == brain.base else ""
        draw.text((x, y + high + 2), _plain(section.section_id + base), fill=ink, font=font)
    return _png(image)


def small(picture: Picture, longest_px: int = SHEET_PX) -> Picture:
    """A picture made so small that its longer edge is as long as asked for."""
    factor = longest_px / max(picture.shape[:2])
    height, width = (max(1, round(edge * factor)) for edge in picture.shape[:2])
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))


def page(brain: Reconstruction, pictures: Mapping[str, str], sheet: str) -> bytes:
    """The page that shows all of it; `pictures` and `sheet` are paths relative to it."""
    environment = templates()
    placed = list(brain)
    figures = [
        ("sections linked", f"{sum(one.linked for one in placed)} of {len(placed)}"),
        ("flipped", f"{sum(one.flipped for one in placed)}"),
        ("to be looked at", f"{len(brain.flagged)}"),
        ("links used", f"{sum(one.accepted for one in brain.links)} of {len(brain.links)}"),
    ]
    template = environment.get_template("alignment.html.jinja")
    return template.render(brain=brain, figures=figures, pictures=pictures, sheet=sheet).encode()


def _plain(text: str) -> str:
    """Text that the font can show."""
    return text.encode("latin-1", "replace").decode("latin-1")


def _wrapped(text: str, wide_px: int, font: Font) -> list[str]:
    """Text in lines that are no wider than so many pixels; words that are, as long ids, are broken.

    >>> font = ImageFont.load_default(TEXT_PX)
    >>> all(font.getlength(one) <= 100 for one in _wrapped("iiii iiii iiii iiii WWWWWWWWWWWW", 100, font))
    True
    """
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= wide_px:
            lines[-1] = joined
            continue
        lines += [""] if lines[-1] else []
        for sign in word:
            if lines[-1] and font.getlength(lines[-1] + sign) > wide_px:
                lines.append("")
            lines[-1] += sign
    return lines


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
