"""Maps smoothed across sections: probabilities at points of the cortex, and how they change over the whole brain."""

import io
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.depth_maps import DepthMap
from cytoarch.anatomy.points import SectionMidline
from cytoarch.anatomy.reconstruction import Reconstruction
from cytoarch.discovery.known import SIDE_NAMES
from cytoarch.errors import SectionError, StoreError
from cytoarch.geometry import Grid
from cytoarch.images.views import StoredImage
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.targets import targets_on_grid
from cytoarch.measures.neighbours import touching
from cytoarch.parcellation.across import (
    AcrossSettings,
    Nodes,
    Smoothed,
    Weighted,
    broken_pairs,
    gained_of,
    joined,
    ratios_of,
    smooth_across,
)
from cytoarch.parcellation.graph import Points, point_graph
from cytoarch.parcellation.sparse import SparseProbabilities
from cytoarch.sampling import reading
from cytoarch.steps.depth import DepthStep
from cytoarch.steps.midline import MidlineStep
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.reconstruction import RECONSTRUCTION
from cytoarch.steps.sections import LABELS
from cytoarch.steps.sources import Each, HeadSource, Row, Sections, require_stored, sections_with
from cytoarch.steps.step import Facts, Inputs, MissingInputError, Place, Step, Stored
from cytoarch.store.products import WHOLE_BRAIN
from cytoarch.store.staging import Staging

NODES_FILE = "nodes.npz"
ARRAYS = ("places_um", "line", "along_um", "normals", "probabilities")
FARTHEST_SPACINGS = 2.0
"""Cells follow a point up to so many spacings away: cortex is thicker than points are apart."""
LABEL_PX = 1024
"""Which classes touch is looked up on labels of so many pixels along the longer edge."""
LISTED = 8
"""Borders that are named."""
SIDE_OF = {name: side for side, name in enumerate(SIDE_NAMES)}


@dataclass(frozen=True)
class NodesStep(Step[Nodes]):
    """The class probabilities of a section at the points along its cortex."""

    step: ClassVar[str] = "map-points"
    verb: ClassVar[str] = "take to points"

    probabilities: Stored[SparseProbabilities]
    midline: Stored[SectionMidline]
    depth: Stored[DepthMap]
    spacing_um: float

    @classmethod
    def of(cls, probabilities: Stored[SparseProbabilities], brain: OpenBrain, midline: str) -> Self:
        """The points of a middle that was traced. Raises MissingInputError, with the choices, where there is none."""
        hint = "Run trace-cortex, or name one of them in across.midline"
        chosen = Stored(MidlineStep, require_stored(MidlineStep, Place(brain), midline, hint))
        traced = sections_with(brain, chosen)
        record = brain.catalogue.record(chosen.product(traced[0].section_id)) if traced else None
        if record is None:
            raise MissingInputError(f"{brain.name}: no section has a middle {chosen.name}. {hint}")
        depth = Stored(DepthStep, record.sources["depth"].split("/")[1])
        return cls(probabilities, chosen, depth, float(chosen.name.rpartition("-")[2].removesuffix("um")))

    @property
    def name(self) -> str:
        """That of the map."""
        return self.probabilities.name

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Take the means around every point."""
        nodes = Nodes.of(inputs[self.probabilities], inputs[self.midline], inputs[self.depth], self.spacing_um / 2)
        held = io.BytesIO()
        np.savez(held, allow_pickle=False, **{one: getattr(nodes, one) for one in ARRAYS})
        staging.write(NODES_FILE, held.getvalue())
        return {"points": len(nodes.line), "known": int(nodes.known.sum())}

    @classmethod
    def opened(cls, folder: Path) -> Nodes:
        """The points. Raises SectionError if they are damaged."""
        return Nodes(**_arrays(folder / NODES_FILE, ARRAYS))


class Changes(NamedTuple):
    """What smoothing changed at the points of a section."""

    places_um: NDArray[np.float64]
    """(n, 2)."""
    ratios: NDArray[np.float32]
    """(n, k) by how much each class became likelier."""
    gained: NDArray[np.uint16]
    """(n,) the channel of the class that a point changed to; 0 where it kept its own."""

    @classmethod
    def none(cls) -> Self:
        """Of a section without points."""
        return cls(np.empty((0, 2)), np.empty((0, 0), np.float32), np.empty(0, np.uint16))


class Across(Mapping[str, Changes]):
    """What smoothing changed, by section."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, section_id: str) -> Changes:
        """Of one section. Raises KeyError where it had no points, SectionError if they are damaged."""
        path = self._folder / f"{section_id}.npz"
        if not path.exists():
            raise KeyError(section_id)
        return Changes(**_arrays(path, Changes._fields))

    def __iter__(self) -> Any:
        return (one.stem for one in sorted(self._folder.glob("*.npz")))

    def __len__(self) -> int:
        return len(list(self._folder.glob("*.npz")))

    def on(self, section_id: str, probabilities: SparseProbabilities, farthest_um: float) -> Weighted:
        """The probabilities of a section as they are after smoothing."""
        changes = self[section_id] if section_id in self else Changes.none()
        return Weighted(probabilities, *changes, farthest_um)


@dataclass(frozen=True)
class AcrossStep(Step[Across]):
    """The probabilities of all points of a brain smoothed along the cortex and from section to section."""

    step: ClassVar[str] = "across"
    version: ClassVar[int] = 2
    scope: ClassVar = "brain"
    verb: ClassVar[str] = "smooth across sections"

    across: AcrossSettings
    spacing_um: float
    head: HeadSource
    nodes: Each[Nodes]
    stated: Each[Mapping[str, Any]]
    labels: Each[StoredImage]
    brain: Stored[Reconstruction] = RECONSTRUCTION

    @classmethod
    def of(cls, nodes: NodesStep, head: HeadSource, across: AcrossSettings) -> Self:
        """Smooth the points of one map."""
        having = (nodes.stored,)
        rows = Each(Row(("hemisphere", "section_number")), having)
        return cls(across, nodes.spacing_um, head, Each(nodes.stored, having), rows, Each(LABELS, (LABELS, *having)))

    @property
    def name(self) -> str:
        """That of the map."""
        source = self.nodes.source
        return source.name if isinstance(source, Stored) else "points"

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Join the points, smooth them, and write by section what changed; the facts compare before and after."""
        brain, rows, every = inputs[self.brain], inputs[self.stated], inputs[self.nodes]
        placed = [one for one in every if one in brain.sections and brain[one].linked and brain[one].z_um is not None]
        if not placed:
            raise StoreError(
                f"{brain.brain_id}: none of the {len(every)} sections with points has a place in the brain, along the "
                "cutting axis too; state position_um or thickness_um in the manifest and run reconstruct-brain"
            )
        placed.sort(key=lambda one: int(rows[one]["section_number"]))
        nodes = {one: _kept(every[one]) for one in placed}
        points, sections = _points(nodes, brain, rows)
        doubtful = {at for at, one in enumerate(placed) if brain[one].flags}
        broken = broken_pairs([int(rows[one]["section_number"]) for one in placed], doubtful)
        graph = point_graph(points, self.spacing_um / 1000, broken)
        areas_mm2 = self._areas_mm2(placed, brain, len(sections))
        touch = _touching(inputs[self.labels], inputs[self.head].card)
        found = smooth_across(_probabilities(nodes.values()), graph, areas_mm2, self.across, touch)
        ends = np.searchsorted(sections, np.arange(len(placed) + 1))
        for at, (section_id, own) in enumerate(nodes.items()):
            before, after = own.probabilities, found.probabilities[ends[at] : ends[at + 1]]
            changes = Changes(own.places_um, ratios_of(before, after), gained_of(before, after))
            held = io.BytesIO()
            np.savez(held, allow_pickle=False, **changes._asdict())
            staging.write(f"{section_id}.npz", held.getvalue())
        return {**_facts(found), "points": len(sections), "sections": len(placed), "apart": len(broken)}

    def _areas_mm2(self, placed: Sequence[str], brain: Reconstruction, count: int) -> NDArray[np.float64]:
        """What every point stands for on the cortex (n,): a spacing along its line, times that of sections."""
        steps_um = np.abs(np.diff([float(brain[one].z_um or 0) for one in placed]))
        apart_um = float(np.median(steps_um)) if len(steps_um) else self.spacing_um
        return np.full(count, self.spacing_um * apart_um / 1e6)

    @classmethod
    def opened(cls, folder: Path) -> Across:
        """What changed, by section."""
        return Across(folder)


def _arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The arrays of a file by name. Raises SectionError if it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            return {one: held[one] for one in names}
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, BadZipFile, zlib.error) as error:
        raise SectionError(f"{path} is damaged ({error!r}); run verify") from error


def _kept(nodes: Nodes) -> Nodes:
    """The points that have probabilities, these summing to 1."""
    known = nodes.known
    own = Nodes(*(getattr(nodes, one)[known] for one in ARRAYS))
    own.probabilities[:] /= own.probabilities.sum(axis=1, keepdims=True)
    return own


def _probabilities(nodes: Collection[Nodes]) -> NDArray[np.float32]:
    """Those of all sections (n, k), one below the other."""
    counts = [len(one.line) for one in nodes]
    classes = next(iter(nodes)).probabilities.shape[1]
    result = np.empty((sum(counts), classes), dtype=np.float32)
    return np.concatenate([one.probabilities for one in nodes], out=result)


def _points(
    nodes: Mapping[str, Nodes], brain: Reconstruction, rows: Sections[Mapping[str, Any]]
) -> tuple[Points, NDArray[np.int64]]:
    """The points of all sections in the brain, and the place of each one's section."""
    placed, sides = [], []
    for section_id, own in nodes.items():
        to_brain = brain[section_id].to_brain
        places = to_brain(own.places_um)
        normals = own.normals @ to_brain.linear.T
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        placed.append((places, normals))
        side = SIDE_OF.get(str(rows[section_id]["hemisphere"]))
        sides.append((places[:, 0] >= 0).astype(np.int64) if side is None else np.full(len(places), side))
    points = joined(list(nodes.values()), placed, range(len(nodes)), sides)
    return points, points.section


def _touching(labels: Sections[StoredImage], card: HeadCard) -> dict[tuple[int, int], int]:
    """Which classes lie side by side on labelled sections, and in how many pairs of pixels.

    Raises UnreadableSectionError if labels are damaged.
    """
    found: dict[tuple[int, int], int] = {}
    for section_id in labels:
        with reading(section_id):
            level = labels[section_id].levels[0]
            grid: Grid = level.grid.covered_by(max(level.pixel_size_um, max(level.grid.extent_um) / LABEL_PX))
            classes = targets_on_grid(level, card.classes, grid).astype(np.int64)
        for pair, count in touching(classes).items():
            found[pair] = found.get(pair, 0) + count
    return found


def _facts(found: Smoothed) -> dict[str, Any]:
    return {
        "before": found.before.facts(),
        "after": found.after.facts(),
        "reassigned": found.reassigned,
        "reassigned_mm2": round(found.reassigned_mm2, 4),
    }


def notes_across(brain: OpenBrain, name: str, card: HeadCard) -> dict[str, str]:
    """What a person is told of smoothing a map across sections."""
    facts = brain.catalogue.require(Stored(AcrossStep, name).product(WHOLE_BRAIN), "smooth across sections first").facts
    before, after = facts["before"], facts["after"]
    told = {
        "across sections": f"{facts['points']:,} points on {facts['sections']} sections; nothing smoothed between "
        f"{facts['apart']} pairs of neighbours",
        "borders between points": f"{before['borders']:,} before, {after['borders']:,} after",
        "pieces of areas": f"{before['pieces']:,} before, {after['pieces']:,} after; {facts['reassigned']} too small "
        f"({facts['reassigned_mm2']:g} mm2) given to their neighbours",
    }
    if before["violations"] or after["violations"]:
        counts = [sum(pairs for _, _, pairs in one["violations"]) for one in (before, after)]
        names = [one.name for one in card.classes]
        worst = ", ".join(f"{names[one]}-{names[other]} {pairs}" for one, other, pairs in after["violations"][:LISTED])
        told["borders that are on no labelled section"] = (
            f"{counts[0]:,} before, {counts[1]:,} after: {worst or 'none'}"
        )
    return told
