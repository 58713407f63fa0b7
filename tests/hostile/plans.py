"""A case of the corpus: what it is, how it is written, and what may come of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tests.hostile import tiffs as t
from tests.hostile.sound import PIXEL_SIZE_UM, Array, Content
from tests.hostile.tiffs import SHORT, Tag

Kind = Literal["sound", "cut", "flip", "lie", "store", "bomb", "name", "size", "label"]
Fate = Literal["refused", "read", "wrong"]
"""Refused with one clear error; its pixels right; or read with pixels nobody can know to be wrong."""
REFUSED: frozenset[Fate] = frozenset({"refused"})
READ: frozenset[Fate] = frozenset({"read"})
EITHER: frozenset[Fate] = REFUSED | READ
CHECKSUM: frozenset[Fate] = frozenset({"refused", "read", "wrong"})
"""Where a format has no checksum of its own only the manifest's catches every fault."""


@dataclass(frozen=True)
class Plan:
    """A case that is not written yet."""

    name: str
    kind: Kind
    file: str
    """Path relative to the folder of scans."""
    make: Callable[[Path], None]
    allowed: frozenset[Fate]
    pixels: Callable[[], Array] | None = None
    """The right pixels (c, y, x); None: there are none."""
    sound: Content | None = None
    """The undamaged files, where there were such."""
    pixel_size_um: float | None = PIXEL_SIZE_UM
    """What the manifest states."""
    found_um: float | None = PIXEL_SIZE_UM
    """What is to be found."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """What else the manifest states."""
    labels: Callable[[], Array] | None = None
    """The right ids (y, x), where a label image is to be read."""


def writer_of(content: Content) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        for name, data in content.items():
            file = path / name if name else path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)

    return write


def file_of(
    name: str, kind: Kind, suffix: str, data: bytes, allowed: frozenset[Fate], pixels: Array | None = None, **more: Any
) -> Plan:
    """A case that is one file of some bytes."""
    read = None if pixels is None else lambda: pixels
    return Plan(name, kind, f"{name}{suffix}", writer_of({"": data}), allowed, read, **more)


def store_of(name: str, kind: Kind, content: Content, allowed: frozenset[Fate], **more: Any) -> Plan:
    return Plan(name, kind, f"{name}.zarr", writer_of(content), allowed, **more)


def lying_tiff(name: str, changes: Mapping[int, Tag | None], allowed: frozenset[Fate] = REFUSED, **more: Any) -> Plan:
    """The honest TIFF with other tags; `more` may hold other data, pixels, and what the manifest states."""
    data: bytes = more.pop("data", None) or t.plane().tobytes()
    strips: int = more.pop("strips", 1)
    tags = {**t.honest(len(data), strips), **changes}
    return file_of(f"lie-{name}", more.pop("kind", "lie"), ".tif", t.tiff(data, tags), allowed, **more)


def renamed(plan: Plan, name: str) -> Plan:
    return replace(plan, name=name, file=f"{name}.tif")


def resolution(kind: int, values: Sequence[float] | bytes, unit: int | None = 2) -> dict[int, Tag | None]:
    tag = Tag(kind, values)
    return {t.X_RESOLUTION: tag, t.Y_RESOLUTION: tag, t.UNIT: None if unit is None else Tag(SHORT, [unit])}
