"""Which pixel size a section has, and who says so."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cytoarch.brains import PIXEL_SIZE_LIMITS_UM, Section
from cytoarch.errors import ScanError
from cytoarch.images.planes import Scan, StatedPixelSize

TOLERANCE = 0.01
"""Statements that differ by more than this fraction disagree."""

PRINT_DENSITIES_DPI = (72, 96, 100, 120, 144, 150, 180, 200, 240, 300, 350, 360, 400, 600, 720, 1200)
"""Densities that programs write without knowing the size of a pixel: those of screens, cameras and printers."""


@dataclass(frozen=True)
class PixelSize:
    """The pixel size (um) used for a section, its source, and statements that were passed over."""

    value_um: float
    source: str
    remarks: tuple[str, ...] = ()


def resolve_pixel_size(section: Section, stated: Sequence[StatedPixelSize]) -> PixelSize:
    """The pixel size of a section: the manifest's, else OME-XML's, else the vendor's, else the TIFF tag's.

    `stated` holds no print densities any more (`without_print_densities`). A statement outside 0.05-100 um is passed
    over with a remark. Raises ScanError if a plausible statement differs by more than 1 % from the one used (unless the
    manifest says pixel_size_source=manifest), or if there is none.
    """
    low, high = PIXEL_SIZE_LIMITS_UM
    plausible = [one for one in stated if low <= one.value_um <= high]
    remarks = [f"{s.source} states {s.value_um:g} um: implausible, ignored" for s in stated if s not in plausible]
    candidates = [("manifest", section.pixel_size_um)] if section.pixel_size_um is not None else []
    candidates += [(one.source, one.value_um) for one in plausible]
    if not candidates:
        raise ScanError(
            f"{section.path}: no pixel size: the manifest leaves pixel_size_um blank and the scan states none "
            f"between {low} and {high} um that is no print density (as 300 dpi is); fill in pixel_size_um"
        )
    source, value = candidates[0]
    for other, size in candidates[1:]:
        if abs(size - value) <= TOLERANCE * value:
            continue
        if section.pixel_size_source == "manifest":
            remarks.append(f"{other} states {size:g} um: overruled by the manifest")
            continue
        raise ScanError(
            f"{section.path}: pixel size {value:g} um by {source} but {size:g} um by {other}; correct "
            "pixel_size_um, or set pixel_size_source to manifest to overrule the file"
        )
    return PixelSize(value, source, tuple(remarks))


def print_density_dpi(pixel_size_um: float) -> int | None:
    """The print density (dpi) that a pixel size stands for, also where it was rounded to dots per cm; else None.

    >>> [print_density_dpi(size) for size in (25400 / 300, 1e4 / 118, 1e4 / 118.11, 20.0, 0.5, 1e-308)]
    [300, 300, 300, None, None, None]
    """
    if not 0 < pixel_size_um < math.inf or math.isinf(per_cm := 1e4 / pixel_size_um):
        return None
    whole = round(per_cm) if math.isclose(per_cm, round(per_cm), rel_tol=1e-6) else None
    for dpi in PRINT_DENSITIES_DPI:
        exact = dpi / 2.54
        if abs(per_cm - exact) < max(1e-3 * exact, 0.05) or whole in (math.floor(exact), math.ceil(exact)):
            return dpi
    return None


def may_be_pixel_size(size_um: float) -> bool:
    """Whether a stated size (um) can be believed: within what is plausible, and no print density.

    >>> [may_be_pixel_size(size) for size in (0.5, 20.0, 25400 / 300, 25400 / 98)]
    [True, True, False, False]
    """
    low, high = PIXEL_SIZE_LIMITS_UM
    return low <= size_um <= high and print_density_dpi(size_um) is None


def without_print_densities(scan: Scan) -> Scan:
    """The scan without the pixel sizes that are print densities, with a remark for each.

    Whatever states them: converters carry the density of a TIFF over into OME-XML and NGFF.
    """
    densities = {one: print_density_dpi(one.value_um) for one in scan.stated_pixel_sizes}
    passed_over = [
        f"{one.source} states {one.value_um:g} um, which is {dpi} dpi: a print density, no pixel size; ignored"
        for one, dpi in densities.items()
        if dpi is not None
    ]
    kept = tuple(one for one in scan.stated_pixel_sizes if densities[one] is None)
    return replace(scan, stated_pixel_sizes=kept, remarks=(*scan.remarks, *passed_over))
