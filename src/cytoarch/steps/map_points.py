"""The class probabilities of a section at the points along its cortex, which maps are smoothed over."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from cytoarch.anatomy.depth_maps import DepthMap
from cytoarch.anatomy.points import SectionMidline
from cytoarch.parcellation.across import Nodes
from cytoarch.parcellation.sparse import SparseProbabilities
from cytoarch.steps.arrays import arrays_of
from cytoarch.steps.depth import DepthStep
from cytoarch.steps.midline import MidlineStep
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.sources import require_stored, sections_with
from cytoarch.steps.step import Facts, Inputs, MissingInputError, Place, Step, Stored
from cytoarch.store.staging import Staging

NODES_FILE = "nodes.npz"
ARRAYS = ("places_um", "line", "along_um", "normals", "probabilities")


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
        return cls(probabilities, chosen, depth, float(record.settings["traced"]["spacing_um"]))

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
        return Nodes(**arrays_of(folder / NODES_FILE, ARRAYS))
