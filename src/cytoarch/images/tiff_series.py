"""Which image of a TIFF is the scan, and which of its planes is meant.

Files hold thumbnails, pictures of the slide's label and of the whole slide (macro) beside the scan. Nothing in a file
says for certain which image is meant, and their order says nothing: some scanners write the thumbnail or the macro
first. The largest image is the scan where all others are so small that they can only be its companions. Where several
are large, they are counted by `plane_index`, as the scenes of a CZI file are.
"""

from collections.abc import Sequence

import numpy as np
import tifffile

from cytoarch.errors import ScanError

_LISTED = 16
"""Choices an error lists."""


def pick_series(
    all_series: Sequence[tifffile.TiffPageSeries], plane_index: int | None, as_numbers: bool
) -> tuple[tifffile.TiffPageSeries, int | None, tuple[str, ...]]:
    """The image that is meant, the index of the plane within it (None: none was asked for), and remarks.

    Images of at most a quarter of the pixels of the largest (half its edges) are its companions and are not counted.
    The planes of the others are counted from 0, image by image. Raises ScanError, which lists the images, if there
    are several and `plane_index` names none of them; `as_numbers` says that it is a label image, which has none.
    """
    images = [max(one.levels, key=_pixels) for one in all_series]  # thumbnails may have the scan as their SubIFD
    largest = max(images, key=_pixels)
    rivals = [one for one in images if not _is_companion(one, largest)] or [largest]
    if len(rivals) > 1:
        return *_counted(rivals, plane_index, as_numbers), ()
    if largest is all_series[0]:
        return largest, plane_index, ()
    first = _size(all_series[0])
    return largest, plane_index, (f"the largest of {len(images)} images is read; the first is one of {first} pixels",)


def _counted(
    rivals: Sequence[tifffile.TiffPageSeries], plane_index: int | None, as_numbers: bool
) -> tuple[tifffile.TiffPageSeries, int]:
    """The image that holds a plane, and the plane's number in it."""
    counts = [_plane_count(one) for one in rivals]
    starts = [sum(counts[:number]) for number in range(len(counts))]
    for one, start, count in zip(rivals, starts, counts, strict=True):
        if plane_index is not None and start <= plane_index < start + count:
            return one, plane_index - start
    listed = [
        f"{start}{f' to {start + count - 1}' if count > 1 else ''}: {_size(one)} pixels"
        for one, start, count in zip(rivals, starts, counts, strict=True)
    ]
    shown = "; ".join(listed[:_LISTED]) + ("; ..." if len(listed) > _LISTED else "")
    asked = "" if plane_index is None else f", plane_index is {plane_index}"
    advice = "save the one meant as a file of its own" if as_numbers else "say which in column plane_index"
    raise ScanError(f"holds {len(rivals)} images{asked}; {advice}: {shown}")


def plane_axes(axes: str, shape: tuple[int, ...], plane_index: int | None, as_numbers: bool = False) -> dict[str, int]:
    """The index along every axis that is neither channel nor plane; `plane_index` counts through them in order."""
    others = _other_axes(axes, shape)
    if "Y" not in axes or "X" not in axes:
        raise ScanError(f"holds axes {axes}; an image with Y and X is needed")
    planes = int(np.prod([size for _, size in others], dtype=np.int64))
    if plane_index is None and planes > 1:
        advice = "save the one meant as a file of its own" if as_numbers else "say which in column plane_index"
        raise ScanError(f"is a stack of {planes} planes (axes {axes}, {shape}); {advice}")
    index = plane_index or 0
    if index >= planes:
        raise ScanError(f"plane_index is {index} but the file holds {planes} plane(s), counted from 0")
    picks = np.unravel_index(index, [size for _, size in others]) if others else ()
    return {axis: int(pick) for (axis, _), pick in zip(others, picks, strict=True)}


def _other_axes(axes: str, shape: tuple[int, ...]) -> list[tuple[str, int]]:
    """The axes along which a plane is picked, and their lengths."""
    sizes = list(zip(axes, shape, strict=True))
    others = [(axis, size) for axis, size in sizes if axis not in "CSYX"]
    if "C" in axes and dict(sizes).get("S", 1) > 1:  # colour images in channels are planes
        others.append(("C", dict(sizes)["C"]))
    return others


def _plane_count(one: tifffile.TiffPageSeries) -> int:
    return int(np.prod([size for _, size in _other_axes(one.axes, one.shape)], dtype=np.int64))


def _edges(one: tifffile.TiffPageSeries) -> tuple[int, int]:
    sizes = dict(zip(one.axes, one.shape, strict=True))
    return sizes.get("Y", 0), sizes.get("X", 0)


def _pixels(one: tifffile.TiffPageSeries) -> int:
    height, width = _edges(one)
    return height * width


def _size(one: tifffile.TiffPageSeries) -> str:
    return "{} x {}".format(*_edges(one))


def _is_companion(one: tifffile.TiffPageSeries, largest: tifffile.TiffPageSeries) -> bool:
    """Whether an image is at most the largest at half its resolution, rounded up."""
    height, width = _edges(largest)
    return 4 * _pixels(one) <= (height + 1) * (width + 1)
