"""Embeddings of a brain laid out in two and three dimensions, coloured by what is known of them."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cytoarch.brains import LabelTable
from cytoarch.digests import canonical_json
from cytoarch.discovery.clusters import Clustering
from cytoarch.discovery.known import AREAS, BORDER, CLUSTERS, KnownTokens
from cytoarch.discovery.layout import Layout, LayoutSettings, lay_out, spread_of_groups
from cytoarch.discovery.quality import UNKNOWN
from cytoarch.palette import Rgb, class_colours, distinct_colours
from cytoarch.reporting.layouts import Coloured, layout_picture, ramp
from cytoarch.steps.cluster_checks import scaled
from cytoarch.steps.clusters import ClusterFitStep
from cytoarch.steps.known_tokens import KnownTokensStep
from cytoarch.steps.sources import Table
from cytoarch.steps.step import Facts, Inputs, Step, Stored
from cytoarch.store.staging import Staging

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

LAYOUT_FILE, PICTURE_FILE = "layout.csv", "layout.png"
FACTS_FILE = "facts.json"
"""What is told of a picture, beside it."""
COLUMNS = (
    "brain", "section", "y_um", "x_um", "area", "cluster", "flat_1", "flat_2", "deep_1", "deep_2", "deep_3",
)  # fmt: skip
NAMES = {"pca": "principal components", "umap": "UMAP"}


@dataclass(frozen=True)
class LayoutStep(Step[Path]):
    """Tokens of a brain in two and three dimensions, as a table and a picture."""

    step: ClassVar[str] = "layout"
    version: ClassVar[int] = 3
    scope: ClassVar = "brain"
    verb: ClassVar[str] = "lay out tokens"

    layout: LayoutSettings
    fit: Stored[Clustering]
    known: Stored[KnownTokens]
    table: Table = Table()

    @classmethod
    def of(cls, fit: ClusterFitStep, layout: LayoutSettings) -> "LayoutStep":
        """The layout of the tokens of a clustering."""
        return cls(layout, fit.stored, Stored(KnownTokensStep, fit.name))

    @property
    def name(self) -> str:
        """That of the fit."""
        return self.fit.name

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Lay them out and draw them."""
        known, fit = inputs[self.known], inputs[self.fit]
        facts = write_layout(staging, known, fit, inputs[self.table], self.layout)
        staging.write(FACTS_FILE, canonical_json(facts).encode())
        return facts

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """The picture."""
        return folder / PICTURE_FILE


def write_layout(
    staging: Staging, known: KnownTokens, fit: Clustering, table: LabelTable | None, settings: LayoutSettings
) -> Facts:
    """Write the layout of some of the tokens as a table and a picture; the facts say how groups lie on it."""
    order = np.random.default_rng(settings.seed).permutation(len(known))
    chosen = known.chosen(np.sort(order[: settings.tokens]))
    clusters = fit.assign(chosen.tokens.astype(np.float32))
    found = lay_out(scaled(chosen, fit), settings)
    staging.write(LAYOUT_FILE, _csv(chosen, clusters, found))
    title = f"{NAMES[found.method]} of {len(chosen):,} tokens: {', '.join(chosen.brain_ids[:6])}"
    panels = coloured(chosen, clusters, len(fit.centres), table)
    staging.write(PICTURE_FILE, layout_picture(found.flat, found.deep, panels, title))
    return {"method": found.method, "tokens": len(chosen), "groups": spread_of_groups(found.flat, chosen)}


def coloured(known: KnownTokens, clusters: Int64, count: int, table: LabelTable | None) -> list[Coloured]:
    """The ways in which tokens are coloured: clusters, and of what is known whatever differs between them."""
    numbers = [f"{one}" for one in range(1, count + 1)]
    found = {CLUSTERS: Coloured(CLUSTERS, clusters, numbers, distinct_colours(count))}
    for name, values in known.values().items():
        present = np.unique(values[values != UNKNOWN])
        if len(present) > 1:
            names = [known.names(name)[one] if one in present else "" for one in range(len(known.names(name)))]
            found[name] = Coloured(name, values, names, _colours(name, names, table))
    first = [one for one in (AREAS, CLUSTERS) if one in found]
    return [found[one] for one in dict.fromkeys([*first, *found])]


def _colours(name: str, names: Sequence[str], table: LabelTable | None) -> list[Rgb]:
    if name == BORDER:
        return ramp(len(names))
    if name == AREAS and table is not None:
        classes = table.classes(by_group=False)
        known: Mapping[str, Rgb] = dict(zip((one.name for one in classes), class_colours(classes), strict=True))
        spare = distinct_colours(len(names))
        return [known.get(one, other) for one, other in zip(names, spare, strict=True)]
    return distinct_colours(len(names))


def _csv(known: KnownTokens, clusters: Int64, found: Layout) -> bytes:
    """A row a token: where it is from, what is known of it, and where it lies."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)

    def called(names: Sequence[str], index: Any) -> str:
        return "" if index == UNKNOWN else names[index]

    for one in range(len(known)):
        place = [f"{value:.1f}" for value in known.places_um[one]]
        laid = [f"{value:.5g}" for value in (*found.flat[one], *found.deep[one])]
        area = called(known.area_names, known.area[one])
        of = known.brain_ids[known.brain[one]], known.section_ids[known.section[one]]
        writer.writerow([*of, *place, area, int(clusters[one]) + 1, *laid])
    return buffer.getvalue().encode()
