"""What is true of every pixel of a phantom section."""

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cytoarch.phantoms.anatomy import AREA_COUNT
from cytoarch.phantoms.compiling import keep_kernels
from cytoarch.phantoms.cortex import densities_per_mm3
from cytoarch.phantoms.damage import TEAR, damage_at
from cytoarch.phantoms.kernels import NUCLEUS, WHITE, describe
from cytoarch.phantoms.profiles import LAYERS
from cytoarch.phantoms.sections import PhantomSection, Window, check_pixel_size

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

WHITE_MATTER_LAYER, NUCLEUS_LAYER = len(LAYERS) + 1, len(LAYERS) + 2
"""Values of what is no layer in layer images."""
WHITE_MATTER_AREA, NUCLEUS_AREA = AREA_COUNT + 1, AREA_COUNT + 2
"""Values of what is no cortical area in area images."""


@dataclass(frozen=True)
class Truth:
    """The truth of some positions of a section, arrays of one shape (...); NaN where a value has no meaning."""

    tissue: UInt8
    """0 background, 1 cortex, 2 white matter, 3 nucleus (grey matter that is no cortex)."""
    hemisphere: UInt8
    """0 background, 1 left, 2 right: of the brain, also where the section is mirrored."""
    layer: UInt8
    """0 background, 1-6, 7 white matter, 8 nucleus."""
    area: UInt8
    """0 background, 1-24, 25 white matter, 26 nucleus."""
    damage: UInt8
    """0 intact, 1 tear (no tissue is left), 2 fold, 3 out of focus; by place on the slide, also where it is bare.

    In a fold other tissue lies on what truth describes."""
    depth: Float32
    """0 at the pial to 1 at the white surface."""
    laminar_depth: Float32
    """Share of the column's volume above, 0 to 1: what layers go by."""
    position_mm: Float32
    """(..., 3) place in the reference brain."""
    cut_angle_deg: Float32
    """Between the columns of the cortex and the normal of the section: 90 where they lie in the section, 0 where the
    section runs along the surface."""
    thickness_mm: Float32
    """Thickness of the cortex."""
    curvature_per_mm: Float32
    """Mean curvature of the mid surface, positive on gyral crowns."""
    density_per_mm3: Float32
    """(..., 6) cells per mm3 in every layer of the column."""

    def __getitem__(self, chosen: "NDArray[np.bool_] | NDArray[np.int64]") -> Self:
        """The truth of some of the positions."""
        return replace(self, **{one.name: getattr(self, one.name)[chosen] for one in fields(self)})


def truth_at(section: PhantomSection, slide_mm: NDArray[np.float64]) -> Truth:
    """The truth of positions (..., 2) on the slide, (y, x) mm."""
    keep_kernels()
    shape = slide_mm.shape[:-1]
    points = section.brain_mm(slide_mm).reshape(-1, 3)
    labels, values = np.empty((len(points), 4), np.uint8), np.empty((len(points), 8), np.float32)
    describe(section.phantom.maps, points, section.axes[2], labels, values)
    hemisphere, tissue, layer, area = labels.T.reshape(4, *shape)
    density = densities_per_mm3(section.phantom.brain).astype(np.float32)[area]
    damage = damage_at(section.damage, slide_mm)
    numbers = np.moveaxis(values.reshape(*shape, 8), -1, 0)
    for image, white, nucleus in (
        (layer, WHITE_MATTER_LAYER, NUCLEUS_LAYER),
        (area, WHITE_MATTER_AREA, NUCLEUS_AREA),
    ):
        image[tissue == WHITE], image[tissue == NUCLEUS] = white, nucleus
    torn = (damage == TEAR) & (tissue > 0)
    blank = np.where(torn, np.float32(np.nan), np.float32(0))
    return Truth(
        tissue=np.where(torn, np.uint8(0), tissue),
        hemisphere=np.where(torn, np.uint8(0), hemisphere),
        layer=np.where(torn, np.uint8(0), layer),
        area=np.where(torn, np.uint8(0), area),
        damage=damage,
        depth=numbers[0] + blank,
        laminar_depth=numbers[7] + blank,
        position_mm=np.moveaxis(numbers[1:4], 0, -1) + blank[..., None],
        cut_angle_deg=numbers[4] + blank,
        thickness_mm=numbers[5] + blank,
        curvature_per_mm=numbers[6] + blank,
        density_per_mm3=density + blank[..., None],
    )


def truth(section: PhantomSection, window: Window, pixel_size_um: float) -> Truth:
    """The truth of the middle of every pixel (height, width) of a window of the scan."""
    check_pixel_size(pixel_size_um)
    rows = (np.arange(window.y, window.y + window.height) + 0.5) * pixel_size_um / 1000
    columns = (np.arange(window.x, window.x + window.width) + 0.5) * pixel_size_um / 1000
    return truth_at(section, np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1))
