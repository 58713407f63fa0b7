"""Hostile and damaged scans: what each of them is, and what may come of it. The same files every time."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cytoarch.digests import content_digest
from tests.hostile.damages import cut_plans, flipped_plans, sound_plans
from tests.hostile.impostors import bomb_plans, impostor_plans, name_plans
from tests.hostile.lying_sizes import label_plans, size_plans
from tests.hostile.lying_stores import store_plans
from tests.hostile.lying_tags import segment_plans, tag_plans, text_plans
from tests.hostile.plans import Plan
from tests.hostile.several_images import density_plans, image_plans, palette_plans, shape_plans
from tests.hostile.sound import Content


@dataclass(frozen=True)
class Case:
    """A file of the corpus, and what may come of it."""

    plan: Plan
    path: Path
    sha256: str | None
    """Checksum of the undamaged file or folder, where there was one."""

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def row(self) -> dict[str, str]:
        """Its row of the manifest, but for brain and number."""
        size = self.plan.pixel_size_um
        stated = {"pixel_size_um": str(size)} if size is not None else {}
        return {"section_id": self.name, "path": self.plan.file, **stated, **self.plan.columns}


def make_corpus(folder: Path, names: Sequence[str] | None = None) -> list[Case]:
    """Write the corpus, or the cases of these names, into a folder."""
    return [_made(plan, folder) for plan in plans() if names is None or plan.name in names]


_NO_FOLDER = ("name-below-a-file", "name-5000", "name-home")
"""Cases whose path cannot be made."""


def _made(plan: Plan, folder: Path) -> Case:
    path = folder / plan.file
    if plan.name not in _NO_FOLDER:
        path.parent.mkdir(parents=True, exist_ok=True)
    plan.make(path)
    return Case(plan, path, None if plan.sound is None else digest(plan.sound))


def digest(content: Content) -> str:
    """The checksum a manifest states of a scan, a file or a folder."""
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    return hashes.get("") or content_digest(hashes)


@cache
def plans() -> tuple[Plan, ...]:
    """Every case, in a fixed order."""
    found = [
        *sound_plans(), *cut_plans(), *flipped_plans(), *tag_plans(), *segment_plans(), *text_plans(), *store_plans(),
        *bomb_plans(), *impostor_plans(), *name_plans(), *size_plans(), *label_plans(),
        *image_plans(), *shape_plans(), *palette_plans(), *density_plans(),
    ]  # fmt: skip
    assert len({plan.name for plan in found}) == len(found)
    return tuple(found)


SAMPLE = (
    "sound-tif-raw-tiles", "sound-png", "sound-zarr5-sharded", "cut-tif-jpeg-tiles-99.9", "cut-tif-deflate-strips-50",
    "cut-jp2-90", "cut-zarr4-50", "flip-tif-lzw-tiles-pixels", "flip-png-pixels", "lie-huge", "lie-tile-2e31",
    "lie-tag-count", "lie-page-loop", "lie-orientation-9", "lie-ome-files-outside", "store-pickle-filter",
    "store-lost-chunk", "bomb-zstd-tile", "bomb-png-text", "bomb-entities", "bomb-pickle-tif", "bomb-svg-png",
    "name-newline", "name-250", "name-socket", "size-72dpi", "size-ome-nan-stated", "label-unknown-ids",
    "lie-pages-thumbnail-first", "lie-ome-three-sections", "store-thumbnail-first", "size-300dpi", "size-600dpi-stated",
    "label-palette-of-greys-turned", "label-grey-of-2-bits", "label-erased", "label-thumbnail-first",
    "odd-one-pixel", "odd-thin", "label-jpeg2000-tiles", "label-erased-tif", "lie-palette-of-greys",
    "size-300x600dpi-stated", "size-imagej-300dpi",
)  # fmt: skip
"""A few cases of every kind, which run in the normal suite."""
