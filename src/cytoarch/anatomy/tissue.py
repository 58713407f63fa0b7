"""The tissue of a section, grey and white, from a coarse overview of its scan."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from cytoarch.anatomy.doubts import EOSIN, WITHIN, doubts_of
from cytoarch.anatomy.dyes import has_eosin
from cytoarch.anatomy.matter import GREY, WHITE, UInt8, matter
from cytoarch.anatomy.outline import OutlineRules, outline
from cytoarch.anatomy.paper_chain import paper_classes
from cytoarch.anatomy.slide import Float32, Mask, Polarity, find_slide
from cytoarch.anatomy.within import CLOSE_UM, FARTHEST_UM, Look, is_within_tissue
from cytoarch.geometry import Grid, Int64
from cytoarch.images.layout import Journal, Pyramid
from cytoarch.images.ngff import image_label
from cytoarch.images.pyramids import write_group, write_pyramid
from cytoarch.images.shard_tree import ReadWindow
from cytoarch.images.views import StoredImage
from cytoarch.settings import Settings

CLASS_NAMES = {GREY: "grey matter", WHITE: "white matter"}
CLASS_COLOURS = {GREY: (255, 170, 0), WHITE: (90, 160, 255)}


class TissueSettings(Settings):
    """How tissue is told from the slide, and grey from white matter."""

    pixel_size_um: float = Field(
        title="Pixel size of the overview (um)",
        default=64.0,
        ge=1,
        le=1000,
        description="Pixel size of the overview (um); a coarser scan is used as it is.",
    )
    method: Literal["slide", "paper", "whole"] = Field(
        title="How tissue is found",
        default="slide",
        description="slide: against the bare slide, in colour; paper: the chain of CytoNet's authors; whole: all that "
        "was scanned is tissue, as in a photomicrograph.",
    )
    polarity: Literal["auto", "dark", "bright"] = Field(
        title="Tissue is darker or brighter than the slide",
        default="auto",
        description="Tissue against the slide: dark (brightfield), bright (fluorescence), or auto.",
    )
    smallest_mm2: float = Field(
        title="Smallest piece or hole (mm2)",
        default=0.05,
        ge=0,
        le=100,
        description="Pieces and holes below this are ignored (mm2).",
    )
    smallest_share: float = Field(
        title="Smallest share of the largest piece",
        default=0.01,
        ge=0,
        le=1,
        description="Pieces below this share of the largest one are left out.",
    )
    thin_mm: float = Field(
        title="Lines and letters are narrower than (mm)",
        default=0.25,
        ge=0,
        le=5,
        description="Dense things narrower than this are lines or letters (mm).",
    )
    pale_mm: float = Field(
        title="Pale things that are no tissue are narrower than (mm)",
        default=0.8,
        ge=0,
        le=5,
        description="Pale things narrower than this, as rows of dots, are no tissue (mm).",
    )
    cleft_mm: float = Field(
        title="Clefts that are no tissue are narrower than (mm)",
        default=0.0,
        ge=0,
        le=5,
        description="Pale clefts narrower than this that open to the outside, as sulci full of meninges, are no "
        "tissue (mm); 0: all are. It opens a thin callosum beneath a fissure, too: for folded brains, 0.32.",
    )
    molecular_mm: float = Field(
        title="Pale layer along the outside is narrower than (mm)",
        default=0.4,
        ge=0,
        le=5,
        description="A pale band along the outside narrower than this is grey matter (mm).",
    )


@dataclass(frozen=True)
class Tissue:
    """The tissue of a section on its overview grid."""

    classes: UInt8
    """(y, x): 0 background, 1 grey, 2 white."""
    pixel_size_um: float
    polarity: Polarity
    threshold: float
    """What tissue was found with: difference from the slide in grey values, or (paper) the threshold of 0 to 1."""
    pieces: int = 1
    doubts: tuple[str, ...] = ()
    """Why a person should look at it, in plain words."""

    @property
    def mask(self) -> Mask:
        """(y, x) grey and white."""
        return np.asarray(self.classes > 0)

    @property
    def area_mm2(self) -> float:
        """Area of the tissue."""
        return float(self.mask.sum()) * (self.pixel_size_um / 1000) ** 2

    @property
    def white_mm2(self) -> float:
        """Area of the white matter."""
        return float((self.classes == WHITE).sum()) * (self.pixel_size_um / 1000) ** 2

    @property
    def fraction(self) -> float:
        """Share of the scan that is tissue."""
        return float(self.mask.mean())


def find_tissue(
    pixels: Float32,
    pixel_size_um: float,
    settings: TissueSettings,
    drawn: UInt8 | None = None,
    look: Look | None = None,
) -> Tissue:
    """The tissue in an overview (c, y, x) or (y, x) float32 of any range.

    The slide is taken to be what most of the scan's rim shows. `drawn` are classes (y, x) that a person drew: they are
    taken as they are, and only where they name no white matter is that looked for within them. `look` reads windows of
    the overview closer: where a picture smaller than a section shows cells everywhere in what looks like slide, all is
    tissue. Raises SectionError if the
    overview is flat.
    """
    planes = pixels if pixels.ndim == 3 else pixels[None]
    slide = find_slide(planes, None if settings.polarity == "auto" else settings.polarity)
    px_per_mm = 1000 / pixel_size_um
    rules = OutlineRules(
        smallest_px=settings.smallest_mm2 * px_per_mm**2,
        smallest_share=settings.smallest_share,
        thin_px=settings.thin_mm * px_per_mm,
        pale_px=settings.pale_mm * px_per_mm,
        cleft_px=settings.cleft_mm * px_per_mm,
    )
    if drawn is not None:
        classes = drawn
        eosin = not (drawn == WHITE).any() and has_eosin(planes, slide, drawn > 0)
        if not (drawn == WHITE).any() and not eosin:
            stain = slide.differences(planes).mean(axis=0)
            classes = matter(stain, drawn > 0, slide.polarity, pixel_size_um, settings.molecular_mm, rules.smallest_px)
        pieces, told = int(ndimage.label(drawn)[1]), (EOSIN,) if eosin else ()
        return Tissue(classes, pixel_size_um, slide.polarity, 0.0, pieces, told)
    if settings.method == "whole":
        return Tissue(slide.scanned.astype(np.uint8), pixel_size_um, slide.polarity, 0.0)
    if settings.method == "paper":
        grey = np.asarray(planes.mean(axis=0))
        classes, threshold = paper_classes(grey, slide.polarity == "bright", rules.smallest_px)
        return Tissue(classes, pixel_size_um, slide.polarity, threshold, int(ndimage.label(classes)[1]))
    found = outline(planes, slide, rules)
    if look is not None and is_within_tissue(slide, found, look, pixel_size_um):
        return Tissue(slide.scanned.astype(np.uint8), pixel_size_um, slide.polarity, 0.0, doubts=(WITHIN,))
    eosin = has_eosin(planes, slide, found.mask)
    classes = np.where(found.mask, np.uint8(GREY), np.uint8(0))
    if not eosin:
        classes = matter(
            found.stain, found.mask, slide.polarity, pixel_size_um, settings.molecular_mm, rules.smallest_px
        )
    doubts = doubts_of(found, slide, max(slide.scanned.shape) / px_per_mm, eosin)
    return Tissue(classes, pixel_size_um, slide.polarity, found.threshold, found.pieces, doubts)


def overview(image: StoredImage, pixel_size_um: float) -> tuple[Float32, Grid]:
    """The grey overview (y, x) float32 of an image at `pixel_size_um`, or at its own size where that is coarser.

    Channels are averaged. The grid says where its pixels lie.
    """
    planes, grid = overview_channels(image, pixel_size_um)
    return np.asarray(planes.mean(axis=0)), grid


def overview_channels(image: StoredImage, pixel_size_um: float) -> tuple[Float32, Grid]:
    """The same with its channels (c, y, x) float32."""
    view = image.at(max(pixel_size_um, image.pixel_size_um))
    if view.pixel_size_um <= 2 * view.level.pixel_size_um:
        return view.read(0, 0, view.height, view.width), view.grid
    # the coarsest level is much finer than asked for: interpolation alone would alias
    pixels = view.level.pixels()
    shrunk = [_shrunk(plane, view.level.grid, view.grid) for plane in (pixels if pixels.ndim == 3 else pixels[None])]
    return np.stack(shrunk), view.grid


def closer(image: StoredImage, grid: Grid) -> Look | None:
    """What reads windows of an overview's grid so that cells are seen; None where the scan is too coarse for that."""
    if image.pixel_size_um > FARTHEST_UM:
        return None
    close_um = max(CLOSE_UM, image.pixel_size_um)

    def look(y: int, x: int, height: int, width: int) -> Float32:
        view = image.on(grid.window(y, x, height, width).covered_by(close_um))
        return view.read(0, 0, view.height, view.width)

    return look


def _shrunk(plane: NDArray[Any], fine: Grid, coarse: Grid) -> Float32:
    means = plane.astype(np.float32)
    for axis, cells in enumerate(fine.nearest_in(coarse)):
        means = _means(means, cells, coarse.shape[axis], axis)
    return means


def _means(plane: Float32, cells: Int64, count: int, axis: int) -> Float32:
    """Means over the rows or columns that lie in each of so many cells; a cell without any takes the last before it."""
    held, first, counts = np.unique(cells, return_index=True, return_counts=True)
    means = np.add.reduceat(plane, first, axis=axis) / np.expand_dims(counts, 1 - axis)
    last_before = np.searchsorted(held, np.arange(count), side="right") - 1
    return np.asarray(means.take(last_before, axis=axis), dtype=np.float32)


def write_tissue(journal: Journal, grey: Float32, tissue: Tissue, grid: Grid) -> None:
    """Write the overview as an image (y, x) uint8 on its grid, with the classes as its label `tissue`."""
    low, high = (float(value) for value in np.percentile(grey, (0.5, 99.5)))
    shown = np.clip(np.rint((grey - low) / max(high - low, 1e-6) * 255), 0, 255).astype(np.uint8)
    overview_pyramid = Pyramid.on(grid, shown.dtype, "mean")
    classes_pyramid = Pyramid.on(grid, tissue.classes.dtype, "mode")
    write_pyramid(journal, overview_pyramid, _window(shown), name="overview")
    write_group(journal, "labels", {"ome": {"version": "0.5", "labels": ["tissue"]}})
    label = image_label(CLASS_NAMES, CLASS_COLOURS)
    write_pyramid(
        journal,
        classes_pyramid,
        _window(tissue.classes),
        name="tissue",
        folder="labels/tissue",
        attributes={"image-label": label},
    )


def _window(plane: NDArray[np.uint8]) -> ReadWindow:
    return lambda y, x, height, width: plane[y : y + height, x : x + width]


@dataclass(frozen=True)
class TissueMask:
    """A committed mask and where it lies."""

    mask: Mask
    """(y, x)."""
    grid: Grid
    matter: UInt8 | None = None
    """(y, x): 0 background, 1 grey, 2 white; None: not told apart."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the mask of a committed tissue product. Raises SectionError if it is damaged."""
        return cls.of(StoredImage.open(path / "labels" / "tissue"))

    @classmethod
    def of(cls, labels: StoredImage) -> Self:
        """The mask in a label image of classes. Raises SectionError if it is damaged."""
        classes = labels.levels[0].pixels()
        return cls(classes > 0, labels.levels[0].grid, classes)

    @property
    def classes(self) -> UInt8:
        """(y, x) uint8: 0 background, 1 grey, 2 white; all tissue is grey where the two were not told apart."""
        return self.mask.astype(np.uint8) if self.matter is None else self.matter

    @property
    def pixel_size_um(self) -> float:
        """Edge of a pixel of the mask (um)."""
        return self.grid.cell_um

    def touches(self, window: Grid) -> bool:
        """Whether a window of another grid holds any tissue, be it a part of one pixel of the mask."""
        rows, columns = self.grid.overlap(window)
        return bool(self.mask[rows, columns].any())

    def on_grid(self, grid: Grid) -> Mask:
        """The mask at the centres of a grid's cells (y, x); beyond the mask, as it is at its edge."""
        return np.asarray(self.mask[np.ix_(*grid.nearest_in(self.grid))])

    def classes_on_grid(self, grid: Grid) -> UInt8:
        """The classes at the centres of a grid's cells (y, x); beyond the mask, as they are at its edge."""
        return np.asarray(self.classes[np.ix_(*grid.nearest_in(self.grid))])
