"""Which pixel size a section has, and who says so."""

from collections.abc import Sequence
from dataclasses import dataclass

from cytoarch.brains import PIXEL_SIZE_LIMITS_UM, Section
from cytoarch.errors import ScanError
from cytoarch.images.planes import StatedPixelSize

TOLERANCE = 0.01
"""Statements that differ by more than this fraction disagree."""


@dataclass(frozen=True)
class PixelSize:
    """The pixel size (um) used for a section, its source, and statements that were passed over."""

    value_um: float
    source: str
    remarks: tuple[str, ...] = ()


def resolve_pixel_size(section: Section, stated: Sequence[StatedPixelSize]) -> PixelSize:
    """The pixel size of a section: the manifest's, else OME-XML's, else the vendor's, else the TIFF tag's.

    A statement outside 0.05-100 um is passed over with a remark. Raises ScanError if a plausible statement differs by
    more than 1 % from the one used (unless the manifest says pixel_size_source=manifest), or if there is none.
    """
    low, high = PIXEL_SIZE_LIMITS_UM
    plausible = [one for one in stated if low <= one.value_um <= high]
    remarks = [f"{s.source} states {s.value_um:g} um: implausible, ignored" for s in stated if s not in plausible]
    candidates = [("manifest", section.pixel_size_um)] if section.pixel_size_um is not None else []
    candidates += [(one.source, one.value_um) for one in plausible]
    if not candidates:
        raise ScanError(
            f"{section.path}: no pixel size: the manifest leaves pixel_size_um blank and the scan states none "
            f"between {low} and {high} um; fill in pixel_size_um"
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
