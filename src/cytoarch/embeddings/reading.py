"""A section as an encoder sees it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.embeddings.background import Background
from cytoarch.embeddings.settings import EmbedSettings
from cytoarch.encoders.protocol import LUMINANCE, Encoder
from cytoarch.errors import SectionError
from cytoarch.images.views import StoredImage, View, intensity_range

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class SectionReader:
    """A section at one pixel size, with chosen channels, grey values mapped to [0, 1]."""

    view: View
    channels: tuple[int, ...]
    ranges: tuple[tuple[float, float], ...]
    grey: bool = False
    """Whether red, green and blue are read as one grey."""
    background: Background | None = None
    """What is seen where there is no tissue; None: what was scanned."""

    @classmethod
    def open(
        cls,
        image: StoredImage,
        encoder: Encoder,
        settings: EmbedSettings,
        pixel_size_um: float,
        tissue: TissueMask | None = None,
    ) -> Self:
        """Prepare to read; `tissue` is needed to fill the background. Raises SectionError if a channel is missing."""
        chosen, grey = _channels(image, encoder, settings)
        ranges = intensity_range(image)
        seen = cls(image.at(pixel_size_um), chosen, tuple((ranges[c][0], ranges[c][1]) for c in chosen), grey)
        if settings.background == "as-scanned":
            return seen
        if tissue is None:
            raise TypeError("a background is filled from the tissue beside it: the mask is needed")
        return replace(seen, background=Background.of(seen.view.grid, tissue, seen.read))

    @property
    def depth(self) -> int:
        """Channels of what is read."""
        return 1 if self.grey else len(self.channels)

    def read(self, y: int, x: int, height: int, width: int) -> Float32:
        """A window (c, height, width) float32 in [0, 1]; each channel's 0.5 and 99.5 percentiles become 0 and 1."""
        pixels = self._scanned(y, x, height, width)
        return pixels if self.background is None else self.background.filled(pixels, self._scanned, y, x)

    def _scanned(self, y: int, x: int, height: int, width: int) -> Float32:
        pixels = self.view.read(y, x, height, width)
        if self.channels != tuple(range(len(pixels))):
            pixels = pixels[list(self.channels)]
        low, high = (np.array(bound, dtype=np.float32)[:, None, None] for bound in zip(*self.ranges, strict=True))
        pixels -= low
        pixels /= high - low
        np.clip(pixels, 0, 1, out=pixels)
        return np.tensordot(LUMINANCE, pixels, axes=1)[None] if self.grey else pixels

    def tissue_skip(self, tissue: TissueMask) -> Callable[[int, int, int, int], bool]:
        """Whether a tile holds no tissue at all; what is mirrored beyond the section counts for none."""

        def skip(y: int, x: int, height: int, width: int) -> bool:
            y0, x0 = max(y, 0), max(x, 0)
            y1, x1 = min(y + height, self.view.height), min(x + width, self.view.width)
            if y1 <= y0 or x1 <= x0:
                return True
            return not tissue.touches(self.view.grid.window(y0, x0, y1 - y0, x1 - x0))

        return skip


def channels_seen(image: StoredImage, encoder: Encoder, settings: EmbedSettings) -> int:
    """How many channels of a section an encoder would see. Raises SectionError if it lacks one that is asked for."""
    chosen, grey = _channels(image, encoder, settings)
    return 1 if grey else len(chosen)


def _channels(image: StoredImage, encoder: Encoder, settings: EmbedSettings) -> tuple[tuple[int, ...], bool]:
    """The channels to read, and whether they become one grey."""
    count = image.channels
    chosen = settings.channels or tuple(range(count))
    if max(chosen) >= count:
        raise SectionError(f"channels {list(chosen)} asked for; the section has channels 0 to {count - 1}")
    rgb = image.attributes.get("kind") == "rgb"
    colour = rgb or bool(settings.channels)
    allowed = {1, encoder.channels, len(chosen) if encoder.channels is None else 0, 3 if rgb else 0}
    if settings.channels and len(chosen) not in allowed:
        raise SectionError(f"channels {list(chosen)} asked for; the encoder takes 1 or {encoder.channels}")
    if encoder.channels is None or (encoder.channels == 3 and len(chosen) == 3 and colour):
        return chosen, False
    if encoder.channels == 1 and len(chosen) == 3 and rgb:
        return chosen, True
    return chosen[:1], False  # an encoder of three channels repeats the one
