"""How deep in the cortex every place of a section lies."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from cytoarch.anatomy.depth import DepthSettings
from cytoarch.anatomy.depth_maps import DepthInput, DepthMap
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.steps.step import Facts, Inputs, Step, Stored
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.staging import Staging


@dataclass(frozen=True)
class DepthStep(Step[DepthMap]):
    """The depth of a section's cortex, on the grid of its tissue; a section without cortex has an empty one."""

    step: ClassVar[str] = "depth"
    verb: ClassVar[str] = "measure depth"

    measured: DepthSettings = field(default_factory=DepthSettings)
    tissue: Stored[TissueMask] = TISSUE

    @property
    def name(self) -> str:
        """The kind of depth."""
        return self.measured.kind

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Measure the depth; the facts say how much cortex there is, and why where there is none."""
        tissue = inputs[self.tissue]
        found, reason = DepthMap.measure(tissue.classes, tissue.grid, self.measured)
        found.write(staging)
        cell_mm2 = (tissue.pixel_size_um / 1000) ** 2
        facts = {"cortex_mm2": float(np.count_nonzero(found.cortex)) * cell_mm2, "pixel_size_um": tissue.pixel_size_um}
        return {**facts, "doubts": [reason]} if reason else facts

    @classmethod
    def opened(cls, folder: Path) -> DepthMap:
        """The map."""
        return DepthMap.open(folder)


def depth_of(kind: DepthInput) -> Stored[DepthMap] | None:
    """The depth of the section at hand that heads are told of, if they are told of any."""
    return None if kind == "none" else Stored(DepthStep, kind)
