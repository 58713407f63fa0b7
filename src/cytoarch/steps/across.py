"""Maps smoothed across sections: probabilities at points of the cortex, and how they change over the whole brain."""

import io
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.reconstruction import Reconstruction
from cytoarch.brains import LabelClass, LabelTable
from cytoarch.digests import canonical_json
from cytoarch.discovery.known import SIDE_NAMES
from cytoarch.errors import StoreError
from cytoarch.geometry import Grid
from cytoarch.images.views import StoredImage
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.label_tables import named_alike
from cytoarch.learning.smoothing import Smoothing
from cytoarch.learning.targets import targets_on_grid
from cytoarch.measures.neighbours import touching
from cytoarch.parcellation.across import (
    AcrossSettings,
    Nodes,
    Smoothed,
    broken_pairs,
    joined,
    smooth_across,
)
from cytoarch.parcellation.graph import LAMBDA, Points, point_graph
from cytoarch.parcellation.sparse import SparseProbabilities
from cytoarch.parcellation.strength import Unseen, choose_strength
from cytoarch.parcellation.weighted import Changes, Weighted
from cytoarch.sampling import reading
from cytoarch.steps.arrays import arrays_of
from cytoarch.steps.map_points import ARRAYS, NodesStep
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.reconstruction import RECONSTRUCTION
from cytoarch.steps.sections import LABELS
from cytoarch.steps.sources import Each, HeadSource, Row, Sections, Table, sections_with
from cytoarch.steps.step import Facts, Inputs, Place, Step, Stored
from cytoarch.store.products import WHOLE_BRAIN
from cytoarch.store.staging import Staging

FACTS_FILE = "across.json"
FARTHEST_SPACINGS = 2.0
"""Cells follow a point up to so many spacings away: cortex is thicker than points are apart."""
LABEL_PX = 1024
"""Which classes touch is looked up on labels of so many pixels along the longer edge."""
LISTED = 8
"""Borders that are named."""
DECIDED = {
    "stated": "as it was set",
    "chosen": "chosen on labelled sections that the model has not seen",
    "default": "the default: no labelled section was left to choose it on",
}
"""How the strength was decided -> how that is said."""
UNPLACED = (
    "has a place in the brain, along the cutting axis too; state position_um or thickness_um in the manifest and run "
    "reconstruct-brain"
)
SIDE_OF = {name: side for side, name in enumerate(SIDE_NAMES)}


class Across(Mapping[str, Changes]):
    """What smoothing changed, by section."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, section_id: str) -> Changes:
        """Of one section. Raises KeyError where it had no points, SectionError if they are damaged."""
        path = self._folder / f"{section_id}.npz"
        if not path.exists():
            raise KeyError(section_id)
        return Changes(**arrays_of(path, Changes._fields))

    def __iter__(self) -> Any:
        return (one.stem for one in sorted(self._folder.glob("*.npz")))

    def __len__(self) -> int:
        return len(list(self._folder.glob("*.npz")))

    @property
    def facts(self) -> Facts:
        """What became of the whole, before and after."""
        facts: Facts = json.loads((self._folder / FACTS_FILE).read_text())
        return facts

    def on(self, section_id: str, probabilities: SparseProbabilities, farthest_um: float) -> Weighted:
        """The probabilities of a section as they are after smoothing."""
        changes = self[section_id] if section_id in self else Changes.none()
        return Weighted(probabilities, changes, farthest_um)


@dataclass(frozen=True)
class AcrossStep(Step[Across]):
    """The probabilities of all points of a brain smoothed along the cortex and from section to section."""

    step: ClassVar[str] = "across"
    version: ClassVar[int] = 5
    scope: ClassVar = "brain"
    verb: ClassVar[str] = "smooth across sections"

    across: AcrossSettings
    spacing_um: float
    head: HeadSource
    nodes: Each[Nodes]
    stated: Each[Mapping[str, Any]]
    labels: Each[StoredImage]
    brain: Stored[Reconstruction] = RECONSTRUCTION
    table: Table = Table()
    unseen: Each[SparseProbabilities] | None = None
    """The probabilities of labelled sections that the head has not seen, which the strength is chosen on."""
    smooth_weight: float | None = None
    """How strongly their maps are smoothed then."""

    @classmethod
    def of(
        cls,
        nodes: NodesStep,
        head: HeadSource,
        across: AcrossSettings,
        unseen: tuple[str, ...] = (),
        smooth_weight: float = 0.0,
    ) -> Self:
        """Smooth the points of one map; the strength, where it is not stated, is chosen on the `unseen` sections."""
        having = (nodes.stored,)
        rows, labels = Each(Row(("hemisphere", "section_number")), having), Each(LABELS, (LABELS, *having))
        step = cls(across, nodes.spacing_um, head, Each(nodes.stored, having), rows, labels)
        if across.strength is not None or not unseen:
            return step
        return replace(step, unseen=Each(nodes.probabilities, labels.having, unseen), smooth_weight=smooth_weight)

    @property
    def name(self) -> str:
        """That of the map."""
        source = self.nodes.source
        return source.name if isinstance(source, Stored) else "points"

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Join the points, smooth them, and write by section what changed; the facts compare before and after."""
        brain, rows, every = inputs[self.brain], inputs[self.stated], inputs[self.nodes]
        placed = _with_places(every, brain)
        if not placed:
            raise StoreError(f"{brain.brain_id}: none of the {len(every)} sections with points {UNPLACED}")
        placed.sort(key=lambda one: int(rows[one]["section_number"]))
        nodes = {one: _kept(every[one]) for one in placed}
        points, sections = _points(nodes, brain, rows)
        doubtful = {at for at, one in enumerate(placed) if brain[one].flags}
        broken = broken_pairs([int(rows[one]["section_number"]) for one in placed], doubtful)
        graph = point_graph(points, self.spacing_um / 1000, broken)
        areas_mm2 = self._areas_mm2(placed, brain, len(sections))
        classes = _classes(inputs[self.head].card, inputs[self.table])
        touch = touching_classes(inputs[self.labels], classes)

        def smoothed(strength: float) -> Smoothed:
            as_it_was = {"smallest_mm2": 0.0} if strength == 0 and self.across.strength is None else {}
            settings = self.across.model_copy(update={"strength": strength, **as_it_was})
            return smooth_across(_probabilities(nodes.values()), graph, areas_mm2, settings, touch)

        def changes_by(strength: float, only: Collection[str]) -> Mapping[str, Changes]:
            return dict(_changes(nodes, smoothed(strength), only))

        choice = self._chosen(inputs, classes, changes_by)
        strength = choice.weight if choice else LAMBDA if self.across.strength is None else self.across.strength
        decided = "chosen" if choice else "default" if self.across.strength is None else "stated"
        found = smoothed(strength)
        for section_id, changes in _changes(nodes, found, nodes):
            held = io.BytesIO()
            np.savez(held, allow_pickle=False, **changes._asdict())
            staging.write(f"{section_id}.npz", held.getvalue())
        told = {"points": len(sections), "sections": len(placed), "apart": len(broken), "strength": strength}
        facts = {**_facts(found), **told, "decided": decided, "choice": choice.facts() if choice else None}
        staging.write(FACTS_FILE, canonical_json(facts).encode())
        return facts

    def _chosen(
        self,
        inputs: Inputs,
        classes: Sequence[LabelClass],
        changes_by: Callable[..., Mapping[str, Changes]],
    ) -> Smoothing | None:
        """The strength that served best on sections that the head has not seen; None where it is stated or none are."""
        if self.unseen is None or self.smooth_weight is None:
            return None
        probabilities, labels = inputs[self.unseen], inputs[self.labels]
        unseen = {one: Unseen(probabilities[one], labels[one].levels[0]) for one in probabilities}
        of_these = partial(changes_by, only=unseen.keys())
        return choose_strength(unseen, classes, of_these, self.farthest_um, self.smooth_weight)

    @property
    def farthest_um(self) -> float:
        """How far from a point of the cortex cells follow that."""
        return FARTHEST_SPACINGS * self.spacing_um

    def _areas_mm2(self, placed: Sequence[str], brain: Reconstruction, count: int) -> NDArray[np.float64]:
        """What every point stands for on the cortex (n,): a spacing along its line, times that of sections."""
        steps_um = np.abs(np.diff([float(brain[one].z_um or 0) for one in placed]))
        apart_um = float(np.median(steps_um)) if len(steps_um) else self.spacing_um
        return np.full(count, self.spacing_um * apart_um / 1e6)

    @classmethod
    def opened(cls, folder: Path) -> Across:
        """What changed, by section."""
        return Across(folder)


def _with_places(sections: Iterable[str], brain: Reconstruction) -> list[str]:
    """Those sections that have a place in the brain, along the cutting axis too."""
    return [one for one in sections if one in brain.sections and brain[one].linked and brain[one].z_um is not None]


def _kept(nodes: Nodes) -> Nodes:
    """The points that have probabilities, these summing to 1."""
    known = nodes.known
    own = Nodes(*(getattr(nodes, one)[known] for one in ARRAYS))
    own.probabilities[:] /= own.probabilities.sum(axis=1, keepdims=True)
    return own


def _changes(nodes: Mapping[str, Nodes], smoothed: Smoothed, only: Collection[str]) -> Iterator[tuple[str, Changes]]:
    """What smoothing changed at the points of some sections, one by one."""
    ends = np.cumsum([0, *(len(one.line) for one in nodes.values())])
    parts = zip(nodes.items(), ends[:-1], ends[1:], strict=True)
    for (section_id, own), start, stop in parts:
        if section_id in only:
            yield section_id, Changes.between(own.places_um, own.probabilities, smoothed.probabilities[start:stop])


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


def _classes(card: HeadCard, table: LabelTable | None) -> tuple[LabelClass, ...]:
    """The classes of a head with the ids that they have in the labels of the brain."""
    return card.classes if table is None else named_alike(card.classes, table, card.target.endswith("-groups"))[0]


def touching_classes(labels: Sections[StoredImage], classes: Sequence[LabelClass]) -> dict[tuple[int, int], int]:
    """Which classes lie side by side on labelled sections, and in how many pairs of pixels.

    Raises UnreadableSectionError if labels are damaged.
    """
    found: dict[tuple[int, int], int] = {}
    for section_id in labels:
        with reading(section_id):
            level = labels[section_id].levels[0]
            grid: Grid = level.grid.covered_by(max(level.pixel_size_um, max(level.grid.extent_um) / LABEL_PX))
            seen = targets_on_grid(level, classes, grid).astype(np.int64)
        for pair, count in touching(seen).items():
            found[pair] = found.get(pair, 0) + count
    return found


def _facts(found: Smoothed) -> dict[str, Any]:
    return {
        "before": found.before.facts(),
        "after": found.after.facts(),
        "reassigned": found.reassigned,
        "reassigned_mm2": round(found.reassigned_mm2, 4),
    }


def unseen_labels(brain: OpenBrain, card: HeadCard) -> tuple[str, ...]:
    """The labelled sections of a brain that its head did not learn from; none of a brain that it learned nothing from.

    The labels of such a brain are there to score the map by.
    """
    learned = card.learned(brain.brain_id)
    return tuple(one.section_id for one in sections_with(brain, LABELS) if learned and one.section_id not in learned)


def cannot_smooth(brain: OpenBrain, midline: Stored[Any]) -> str:
    """Why maps of a brain cannot be smoothed from section to section along a middle; blank: they can be."""
    traced = {one.section_id: midline.record(Place(brain, one)).facts for one in sections_with(brain, midline)}
    with_points = [one for one, facts in traced.items() if facts["points"]]
    if not with_points:
        return f"no section has points along its cortex in the middle {midline.name}"
    RECONSTRUCTION.record(Place(brain))
    if not _with_places(with_points, RECONSTRUCTION.open(Place(brain))):
        return f"none of the {len(with_points)} sections with points {UNPLACED}"
    return ""


def notes_across(brain: OpenBrain, name: str, card: HeadCard) -> dict[str, str]:
    """What a person is told of smoothing a map across sections."""
    facts = brain.catalogue.require(Stored(AcrossStep, name).product(WHOLE_BRAIN), "smooth across sections first").facts
    before, after = facts["before"], facts["after"]
    chosen = f"{facts['strength']:g}" + ("" if facts["decided"] == "stated" else f", {DECIDED[facts['decided']]}")
    told = {
        "strength across sections": chosen
        + ("" if facts["strength"] or facts["reassigned"] else "; nothing is changed"),
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
