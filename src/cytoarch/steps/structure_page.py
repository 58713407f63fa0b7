"""The page of what embeddings know of the structure of cortex."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from cytoarch.learning.structure import StructureSettings
from cytoarch.reporting.structure import (
    JudgedEntry,
    StructurePage,
    render_structure,
    share_chart,
    structure_curves,
)
from cytoarch.steps.sources import FactsOf, OfBrains
from cytoarch.steps.step import Facts, Inputs, Step, Stored
from cytoarch.steps.structure import BrainPlacesStep, Judged
from cytoarch.store.staging import Staging

PAGE_FILE = "index.html"


@dataclass(frozen=True)
class StructurePageStep(Step[Path]):
    """R2 by components, shares of components and errors of places, brain by brain, on a page."""

    step: ClassVar[str] = "structure-page"
    version: ClassVar[int] = 3
    scope: ClassVar = "study"
    view: ClassVar[bool] = True
    verb: ClassVar[str] = "draw the page"

    study: str
    points: str
    judged: StructureSettings
    brains: OfBrains[Judged]
    facts: OfBrains[Mapping[str, Any]]
    places: Stored[Path]
    attention: OfBrains[Path] | None = None
    """The sheets of attention, where they were drawn."""
    attended: OfBrains[Mapping[str, Any]] | None = None
    """Their facts."""

    @classmethod
    def of(
        cls,
        study: str,
        places: BrainPlacesStep,
        structure: Stored[Judged],
        attention: Stored[Path] | None = None,
        drawn: tuple[str, ...] = (),
    ) -> "StructurePageStep":
        """That of the brains whose places were told; the sheets of attention are those `drawn`."""
        brains = places.brains.brain_ids
        facts = OfBrains(brains, FactsOf(structure))
        page = cls(study, places.points, places.judged, places.brains, facts, places.stored)
        if attention is None or not drawn:
            return page
        return replace(page, attention=OfBrains(drawn, attention), attended=OfBrains(drawn, FactsOf(attention)))

    @property
    def name(self) -> str:
        """That of the points."""
        return self.points

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Draw brain by brain."""
        facts = inputs[self.facts]
        entries = [_entry(staging, name, one, facts[name]) for name, one in inputs[self.brains].items()]
        if self.attention is not None and self.attended is not None:
            sheets, said = inputs[self.attention], inputs[self.attended]
            entries = [
                _with_attention(staging, one, sheets[one.brain_id], said[one.brain_id])
                if one.brain_id in sheets
                else one
                for one in entries
            ]
        settings = [
            (name.replace("_", " "), ", ".join(map(str, one)) if isinstance(one, list) else str(one))
            for name, one in self.judged.model_dump(mode="json").items()
        ]
        page = StructurePage(self.study, self.points, entries, rows_of(inputs[self.places]), settings)
        staging.write(PAGE_FILE, render_structure(page))
        return {}

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """The page."""
        return folder / PAGE_FILE


def _entry(staging: Staging, brain_id: str, judged: Judged, facts: Facts) -> JudgedEntry:
    """A brain on the page, its figures written."""
    curves, shares = f"{brain_id}-curves.png", f"{brain_id}-shares.png"
    scores = rows_of(judged.scores)
    staging.write(curves, structure_curves(scores))
    rows = rows_of(judged.attribution)
    if rows:
        staging.write(shares, share_chart(rows))
    best: dict[str, dict[str, str]] = {one["measure"]: {} for one in scores}
    for name, value in facts["best"].items():
        measure, features, way = name.rsplit("/", 2)
        best[measure][f"{features}/{way}"] = f"{value:.3f}" if value >= 0 else "below 0"
    return JudgedEntry(
        brain_id,
        facts["points"],
        facts["left_out"],
        facts["layers"],
        list(best.items()),
        curves,
        shares if rows else "",
    )


def _with_attention(staging: Staging, entry: JudgedEntry, sheet: Path, facts: Facts) -> JudgedEntry:
    """The entry of a brain, its sheet of attention beside the page."""
    name = f"{entry.brain_id}-attention.png"
    staging.write(name, sheet.read_bytes())
    said = f"{facts['encoder']}, block {facts['block']}, {facts['heads']} heads"
    return replace(entry, attention=name, attended_by=said, as_embedded=facts["as_embedded"])


def rows_of(path: Path) -> Sequence[Mapping[str, str]]:
    """The rows of a CSV table."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
