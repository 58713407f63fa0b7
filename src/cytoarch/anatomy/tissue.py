"""Where a section holds tissue, from a coarse overview: Otsu's threshold, with the polarity read from the border.

Otsu separates the two largest populations. Where densely stained cortex stands against pale white matter and the slide
together, the slide is separated from the pale tissue by a second threshold, if the rest clearly holds two populations
and the image's border lies in one of them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage
from skimage.filters import gaussian, threshold_otsu
from skimage.morphology import remove_small_holes, remove_small_objects

from cytoarch.errors import SectionError
from cytoarch.images.layout import Journal, Pyramid
from cytoarch.images.ngff import image_label
from cytoarch.images.pyramids import write_group, write_pyramid
from cytoarch.images.shard_tree import ReadWindow
from cytoarch.images.views import Float32, StoredImage

Mask = NDArray[np.bool_]
Polarity = Literal["dark", "bright"]

TISSUE_VERSION = 2
BIMODAL = 0.9
"""Share of the variance that two populations must explain (one Gaussian gives 0.64, a uniform one 0.75)."""
RIM_PX = 4
"""Pixels around dense tissue that are not asked whether there is pale tissue."""
PALE_CONTRAST = 0.22
"""Least contrast of pale tissue against the slide, relative to that of dense tissue.

White matter in a Nissl stain reaches 0.4-0.5; the grey of a scan beside the padding around it stays below 0.2.
"""


class TissueSettings(BaseModel):
    """How tissue is told from the slide."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pixel_size_um: float = Field(
        default=64.0, ge=1, le=1000, description="Pixel size of the overview (um); a coarser scan is used as it is."
    )
    polarity: Literal["auto", "dark", "bright"] = Field(
        default="auto", description="Tissue against the slide: dark (brightfield), bright (fluorescence), or auto."
    )
    smallest_mm2: float = Field(
        default=0.05, ge=0, le=100, description="Pieces and holes below this are ignored (mm2)."
    )


@dataclass(frozen=True)
class Tissue:
    """The tissue of a section on its overview grid."""

    mask: Mask
    """(y, x)."""
    pixel_size_um: float
    polarity: Polarity
    threshold: float

    @property
    def area_mm2(self) -> float:
        """Area of the tissue."""
        return float(self.mask.sum()) * (self.pixel_size_um / 1000) ** 2

    @property
    def fraction(self) -> float:
        """Share of the scan that is tissue."""
        return float(self.mask.mean())


def find_tissue(grey: Float32, pixel_size_um: float, settings: TissueSettings) -> Tissue:
    """The tissue in a grey overview (y, x) float32 of any range.

    The slide is taken to be what most of the image's border shows. Raises SectionError if the overview is flat.
    """
    smooth = np.asarray(gaussian(grey, sigma=1.0, preserve_range=True), dtype=np.float32)
    if float(np.ptp(smooth)) < 1e-6:
        raise SectionError("the scan is one flat grey: there is no tissue to find; check the scan")
    threshold = float(threshold_otsu(smooth))
    border: Float32 = np.concatenate([smooth[0], smooth[-1], smooth[:, 0], smooth[:, -1]])
    auto: Polarity = "dark" if (border > threshold).mean() > 0.5 else "bright"
    polarity: Polarity = auto if settings.polarity == "auto" else settings.polarity
    sign = 1.0 if polarity == "bright" else -1.0  # with this sign, tissue is above the threshold
    threshold = sign * _pale_tissue_threshold(np.multiply(sign, smooth), sign * threshold, np.multiply(sign, border))
    mask = sign * smooth > sign * threshold
    smallest_px = int(settings.smallest_mm2 / (pixel_size_um / 1000) ** 2)
    if smallest_px > 1:
        mask = remove_small_objects(mask, max_size=smallest_px)
        mask = remove_small_holes(mask, max_size=smallest_px)
    return Tissue(mask, pixel_size_um, polarity, threshold)


def _pale_tissue_threshold(values: Float32, threshold: float, border: Float32) -> float:
    """A lower threshold that takes in pale tissue, or the one given where there is no sign of any."""
    # the blurred rim of dense tissue is no population of its own
    rest = values[~ndimage.binary_dilation(values > threshold, iterations=RIM_PX)]
    if not len(rest) or float(np.ptp(rest)) < 1e-6:
        return threshold
    second = float(threshold_otsu(rest))
    pale, slide = rest[rest > second], rest[rest <= second]
    if not len(pale) or not len(slide):
        return threshold
    shares = len(pale) / len(rest), len(slide) / len(rest)
    explained = shares[0] * shares[1] * (pale.mean() - slide.mean()) ** 2 / rest.var()
    contrast = (pale.mean() - slide.mean()) / (values[values > threshold].mean() - slide.mean())
    on_slide = float((border <= second).mean())
    return second if explained > BIMODAL and contrast > PALE_CONTRAST and on_slide > 0.9 else threshold


def overview(image: StoredImage, pixel_size_um: float) -> tuple[Float32, float]:
    """The grey overview (y, x) float32 of an image at `pixel_size_um`, or at its own size where that is coarser.

    Channels are averaged.
    """
    size_um = max(pixel_size_um, image.pixel_size_um)
    view = image.at(size_um)
    ratio = size_um / view.level.pixel_size_um
    if ratio <= 2:
        return np.asarray(view.read(0, 0, view.height, view.width).mean(axis=0)), size_um
    # the coarsest level is finer than asked for: average it down first, interpolation alone would alias
    plane = np.asarray(view.level.array, dtype=np.float32)
    plane = plane.mean(axis=0) if plane.ndim == 3 else plane
    plane = np.asarray(ndimage.uniform_filter(plane, size=int(ratio), mode="nearest"))
    at = [
        np.minimum(((np.arange(n) + 0.5) * ratio).astype(int), m - 1)
        for n, m in zip((view.height, view.width), plane.shape, strict=True)
    ]
    return np.asarray(plane[np.ix_(*at)], dtype=np.float32), size_um


def write_tissue(journal: Journal, grey: Float32, tissue: Tissue) -> None:
    """Write the overview as an image (y, x) uint8 with the mask as its label `tissue`."""
    low, high = (float(value) for value in np.percentile(grey, (0.5, 99.5)))
    shown = np.clip((grey - low) / max(high - low, 1e-6) * 255 + 0.5, 0, 255).astype(np.uint8)
    mask = tissue.mask.astype(np.uint8)
    overview_pyramid = Pyramid(shown.shape, shown.dtype, tissue.pixel_size_um, "mean")
    mask_pyramid = Pyramid(mask.shape, mask.dtype, tissue.pixel_size_um, "mode")
    write_pyramid(journal, overview_pyramid, _window(shown), name="overview")
    write_group(journal, "labels", {"ome": {"version": "0.5", "labels": ["tissue"]}})
    label = image_label({1: "tissue"}, {1: (255, 170, 0)})
    write_pyramid(
        journal, mask_pyramid, _window(mask), name="tissue", folder="labels/tissue", attributes={"image-label": label}
    )


def _window(plane: NDArray[np.uint8]) -> ReadWindow:
    return lambda y, x, height, width: plane[y : y + height, x : x + width]


@dataclass(frozen=True)
class TissueMask:
    """A committed mask, asked by physical window."""

    mask: Mask
    pixel_size_um: float

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the mask of a committed tissue product."""
        image = StoredImage.open(path / "labels" / "tissue")
        return cls(np.asarray(image.levels[0].array) > 0, image.pixel_size_um)

    def fraction(self, y_um: float, x_um: float, height_um: float, width_um: float) -> float:
        """Share of tissue in a window (um), whose part beyond the mask counts as mirrored and is left out."""
        y0, x0 = (max(0, int(start / self.pixel_size_um)) for start in (y_um, x_um))
        y1 = max(y0 + 1, int(np.ceil((y_um + height_um) / self.pixel_size_um)))
        x1 = max(x0 + 1, int(np.ceil((x_um + width_um) / self.pixel_size_um)))
        window = self.mask[y0:y1, x0:x1]
        return float(window.mean()) if window.size else 0.0

    def on_grid(self, height: int, width: int, pixel_size_um: float, first: tuple[int, int] = (0, 0)) -> Mask:
        """The mask at the centres of a grid (y, x) of cells of `pixel_size_um`, from the cell `first` (y, x) on."""
        rows, columns = (
            np.minimum(((np.arange(start, start + n) + 0.5) * pixel_size_um / self.pixel_size_um).astype(int), size - 1)
            for start, n, size in zip(first, (height, width), self.mask.shape, strict=True)
        )
        return np.asarray(self.mask[np.ix_(rows, columns)])
