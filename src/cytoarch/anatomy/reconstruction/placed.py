"""A reconstructed brain as a value: where every section lies, by what evidence, and what is doubtful about it."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np

from cytoarch.anatomy.reconstruction.links import Link
from cytoarch.anatomy.reconstruction.rigid import Rigid
from cytoarch.errors import SectionError, StoreError
from cytoarch.geometry import Grid, Pair, Transform

PlacedBy = Literal["base", "links", "transform", "manifest"]
"""base: it is what others are placed against; links: by their pictures; transform: a person's; manifest: flip and
rotation alone, centre on centre, since no link holds it."""
SYSTEM = "brain"
PHYSICAL = "physical"
"""Names of coordinate systems, as NGFF 0.6 calls them: that of the brain and that of a section."""
VERSION = 2


@dataclass(frozen=True)
class LinkQuality:
    """How well a section is held by its neighbours: medians over its links."""

    links: int
    """Links that its place was computed from."""
    correlation: float
    """Of its picture with those of its neighbours, aligned; NaN without links."""
    dice: float
    """Overlap of tissue."""
    outline_um: float
    """Median distance of outlines."""
    disagreement_um: float
    """How far its links would rather have it, root mean square over its tissue: what the least squares left."""

    @classmethod
    def none(cls) -> Self:
        """That of a section without links."""
        return cls(0, math.nan, math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class PlacedSection:
    """Where a section lies in its brain."""

    section_id: str
    section_number: int
    grid: Grid
    """Of its overview."""
    plane: Transform
    """From (y, x) um in the frame of the section to (y, x) um in the plane that all sections of the brain share."""
    z_um: float | None
    """Place along the cutting axis; None: the manifest does not say."""
    flipped: bool
    """Whether the scan is a mirror image of the brain, as the manifest states or as its links say."""
    placed_by: PlacedBy
    quality: LinkQuality = field(default_factory=LinkQuality.none)
    corrections: tuple[str, ...] = ()
    """What the manifest states and was done."""
    flags: tuple[str, ...] = ()
    """What a person should look at, each with its reason."""
    centre_um: Pair | None = None
    """Middle of its tissue (y, x), about which its size was evened; None: that of its picture."""

    @property
    def linked(self) -> bool:
        """Whether its place is known: by links, as the base or by a person."""
        return self.placed_by != "manifest"

    @property
    def rigid(self) -> Rigid:
        """The rigid map nearest to its own, which it equals in the middle of the tissue: where it lay as it was."""
        centre = self.centre_um or self.grid.centre_um
        y, x = self.plane(np.array(centre)).tolist()
        return Rigid.of(np.array(self.plane.matrix)).about(centre, (y, x))

    @property
    def size(self) -> float:
        """How many times as large the section lies in the plane as on its slide."""
        return math.sqrt(abs(float(np.linalg.det(self.plane.linear))))

    @property
    def to_brain(self) -> Transform:
        """From (y, x) um in the frame of the section to (x, y, z) mm in the brain; (x, y) where z is not known."""
        swap = Transform.of(np.array([[0, 1e-3], [1e-3, 0]]), np.zeros(2))
        flat = self.plane.then(swap)
        if self.z_um is None:
            return flat
        return flat.then(Transform.of(np.eye(3)[:, :2], np.array([0.0, 0.0, self.z_um / 1000])))

    @property
    def to_section(self) -> Transform:
        """From places in the brain (mm) to (y, x) um in the frame of the section, along the cutting axis."""
        return self.to_brain.inverse()


@dataclass(frozen=True)
class Reconstruction:
    """The sections of a brain in one frame.

    The frame is that of the base section, which lies as the manifest states but for its size, which is evened as all
    are: the middle of its picture, as scanned, is zero, x to the right, y downwards, z along the cutting axis.
    """

    brain_id: str
    base: str
    """The section that stays where it is; blank: none could be placed."""
    sections: Mapping[str, PlacedSection]
    """By section, in the order of the manifest."""
    links: tuple[Link, ...] = ()
    """Every pair that was compared."""
    unplaced: Mapping[str, str] = field(default_factory=dict)
    """Sections that have no place at all -> reason: they are excluded, or no tissue was found in them."""
    remarks: tuple[str, ...] = ()
    """On the brain as a whole, such as sections that seem out of order."""

    def __getitem__(self, section_id: str) -> PlacedSection:
        """A section. Raises SectionError, with the reason where there is one, if it has no place."""
        if section_id not in self.sections:
            reason = self.unplaced.get(section_id, f"the brain's are {', '.join(list(self.sections)[:8])}")
            raise SectionError(f"section {section_id} has no place in {self.brain_id}: {reason}")
        return self.sections[section_id]

    def __iter__(self) -> Iterator[PlacedSection]:
        return iter(self.sections.values())

    def __len__(self) -> int:
        return len(self.sections)

    @cached_property
    def links_of(self) -> Mapping[str, tuple[Link, ...]]:
        """The links that a section takes part in."""
        found: dict[str, list[Link]] = {one: [] for one in self.sections}
        for link in self.links:
            for end in {link.fixed, link.moving} & set(found):
                found[end].append(link)
        return {one: tuple(links) for one, links in found.items()}

    @property
    def flagged(self) -> Mapping[str, tuple[str, ...]]:
        """Sections that a person should look at -> reasons."""
        return {one.section_id: one.flags for one in self if one.flags}

    def to_json(self) -> str:
        """The whole as JSON. Transforms have the form of NGFF 0.6, the rest stands in our own namespace."""
        document = {**scene(self), "cytoarch": {"version": VERSION, "reconstruction": _own(self)}}
        return json.dumps(document, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read back what `to_json` wrote. Raises StoreError for anything else."""
        try:
            document = json.loads(text)
            own = document["cytoarch"]
            if own["version"] != VERSION:
                raise StoreError(f"a reconstruction of version {own['version']} was found, {VERSION} is needed")
            affines = {one["name"]: one["affine"] for one in document["ome"]["scene"]["coordinateTransformations"]}
            stated = own["reconstruction"]
            sections = {name: _placed(name, facts, affines[name]) for name, facts in stated["sections"].items()}
            links = tuple(link_of(one) for one in stated["links"])
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"this is no reconstruction of ours ({error!r}); run reconstruct-brain again") from error
        return cls(
            stated["brain_id"], stated["base"], sections, links, stated["unplaced"], tuple(stated["remarks"])
        )  # fmt: skip


def scene(brain: Reconstruction) -> dict[str, Any]:
    """The transforms as the `scene` of NGFF 0.6: an affine from each section's plane to (z, y, x) um in the brain.

    A section without a place along the cutting axis lies at z = 0, which our own part of the JSON says.
    """
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    return {
        "ome": {
            "version": "0.6",
            "scene": {
                "coordinateSystems": [{"name": SYSTEM, "axes": axes}],
                "coordinateTransformations": [
                    {
                        "type": "affine",
                        "name": one.section_id,
                        "input": {"path": one.section_id, "name": PHYSICAL},
                        "output": {"name": SYSTEM},
                        "affine": zyx_matrix(one).tolist(),
                    }
                    for one in brain
                ],
            },
        }
    }


def zyx_matrix(one: PlacedSection) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(3, 3): from (y, x, 1) um in the frame of a section to (z, y, x) um in its brain; z is 0 where it is unknown."""
    return np.vstack([[0.0, 0.0, one.z_um or 0.0], np.array(one.plane.matrix)])


def _own(brain: Reconstruction) -> dict[str, Any]:
    return {
        "brain_id": brain.brain_id,
        "base": brain.base,
        "sections": {
            one.section_id: {
                "section_number": one.section_number,
                "grid": {"shape": one.grid.shape, "cell_um": one.grid.cell_um, "origin_um": one.grid.origin_um},
                "z_um": one.z_um,
                "flipped": one.flipped,
                "placed_by": one.placed_by,
                "quality": {name: _number(value) for name, value in vars(one.quality).items()},
                "centre_um": one.centre_um,
                "corrections": one.corrections,
                "flags": one.flags,
            }
            for one in brain
        },
        "links": [link_facts(one) for one in brain.links],
        "unplaced": dict(brain.unplaced),
        "remarks": brain.remarks,
    }


def link_facts(link: Link) -> dict[str, Any]:
    """A link as JSON values."""
    figures = {name: _number(value) for name, value in vars(link).items() if name != "rigid"}
    return {**figures, "rigid": vars(link.rigid)}


def _number(value: Any) -> Any:
    """NaN as null: JSON knows no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _figure(value: float | None) -> float:
    return math.nan if value is None else value


def _placed(name: str, facts: Mapping[str, Any], affine: list[list[float]]) -> PlacedSection:
    grid = facts["grid"]
    quality: dict[str, Any] = {
        key: value if key == "links" else _figure(value) for key, value in facts["quality"].items()
    }
    return PlacedSection(
        section_id=name,
        section_number=facts["section_number"],
        grid=Grid(tuple(grid["shape"]), grid["cell_um"], tuple(grid["origin_um"])),
        plane=Transform(tuple(tuple(row) for row in affine[1:])),
        z_um=facts["z_um"],
        flipped=facts["flipped"],
        placed_by=facts["placed_by"],
        quality=LinkQuality(**quality),
        corrections=tuple(facts["corrections"]),
        flags=tuple(facts["flags"]),
        centre_um=None if facts.get("centre_um") is None else tuple(facts["centre_um"]),
    )


def link_of(facts: Mapping[str, Any]) -> Link:
    """The link of which `link_facts` told."""
    stated = dict(facts["rigid"])
    rigid = Rigid(stated["mirrored"], stated["angle_deg"], tuple(stated["shift_um"]))
    numbers = ("correlation", "other_correlation", "dice", "outline_um", "larger")
    figures = {name: _figure(facts[name]) for name in numbers}
    return Link(**{**facts, **figures, "rigid": rigid})
