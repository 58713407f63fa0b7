"""Scribbles as values: strokes and outlines on sections, each with who drew it, when and in which round."""

from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cytoarch.brains import MOST_ID, LabelTable
from cytoarch.digests import values_digest
from cytoarch.paths import ID_PATTERN

VERSION_PATTERN = r"^v[0-9]{4,}$"
RUBBER = 0
"""Label of a scribble that rubs out what was drawn below it."""
MOST_CORNERS = 1_000_000

Number = Annotated[float, Field(ge=-1e7, le=1e7, allow_inf_nan=False)]
Path_px = tuple[tuple[Number, Number], ...]
"""Places (y, x) in pixels of the whole scan; zero is the corner of its first pixel."""


class Scribble(BaseModel):
    """One thing that a person drew on a section: a stroke along a line, or an area with its holes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    section_id: str = Field(pattern=ID_PATTERN, description="Section it is drawn on.")
    label: int = Field(ge=RUBBER, le=MOST_ID, description="Id in the table of classes; 0 rubs out.")
    kind: Literal["line", "area"] = Field(description="line: a stroke of the pen; area: an outline and what is in it.")
    paths_px: Annotated[tuple[Path_px, ...], Field(min_length=1)] = Field(
        description="line: the one path; area: the outline, then its holes. (y, x) pixels of the scan from its corner."
    )
    width_px: float = Field(default=1.0, gt=0, le=1e5, allow_inf_nan=False, description="Width of the pen on the scan.")
    author: str = Field(pattern=ID_PATTERN, description="Who drew it.")
    time: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$", description="When, UTC.")
    round: int = Field(default=1, ge=1, description="How often a model had been trained before, and one.")

    @model_validator(mode="after")
    def _drawn(self) -> Self:
        least = 1 if self.kind == "line" else 3
        if any(len(path) < least for path in self.paths_px):
            raise ValueError(f"every path of a {self.kind} has {least} places or more")
        if self.kind == "line" and len(self.paths_px) != 1:
            raise ValueError("a line has one path")
        if sum(map(len, self.paths_px)) > MOST_CORNERS:
            raise ValueError(f"more than {MOST_CORNERS:,} places; simplify the outline")
        return self

    @property
    def drawn(self) -> dict[str, Any]:
        """What decides labels: all but who drew it, when and in which round."""
        return self.model_dump(mode="json", include={"label", "kind", "paths_px", "width_px"})


class Annotation(BaseModel):
    """The scribbles of one person on one brain as they were at one time, with what their labels mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    brain_id: str = Field(pattern=ID_PATTERN)
    author: str = Field(pattern=ID_PATTERN)
    table: LabelTable
    scribbles: tuple[Scribble, ...]
    origin: str = Field(default="drawn", max_length=500, description="How they came to be, in words.")

    @model_validator(mode="after")
    def _known(self) -> Self:
        known = {RUBBER, *(one.id for one in self.table.labels)}
        unknown = sorted({one.label for one in self.scribbles} - known)
        if unknown:
            raise ValueError(f"scribbles have the labels {unknown[:10]}, which are not in the table of classes")
        return self

    @cached_property
    def section_ids(self) -> tuple[str, ...]:
        """The sections that something is drawn on, in the order in which they were first drawn on."""
        return tuple(dict.fromkeys(one.section_id for one in self.scribbles if one.label != RUBBER))

    def of(self, section_id: str) -> tuple[Scribble, ...]:
        """The scribbles of a section, in the order in which they were drawn."""
        return tuple(one for one in self.scribbles if one.section_id == section_id)

    def digest_of(self, section_id: str) -> str:
        """sha256 of what is drawn on a section; who drew it and when says nothing about labels."""
        return values_digest([one.drawn for one in self.of(section_id)])

    @property
    def digest(self) -> str:
        """sha256 of all of it."""
        return values_digest(self.model_dump(mode="json"))

    @property
    def rounds(self) -> int:
        """The last round in which something was drawn; 0: nothing was."""
        return max((one.round for one in self.scribbles), default=0)


def now() -> str:
    """The time, as scribbles state it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
