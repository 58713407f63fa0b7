"""What is most like what: nearest neighbours of tokens, drawn as patches, and what they share in numbers."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cytoarch.digests import canonical_json
from cytoarch.discovery.clusters import Clustering
from cytoarch.discovery.known import KnownTokens
from cytoarch.discovery.neighbours import NO_TOKEN, facts_of, nearest, typical
from cytoarch.discovery.quality import UNKNOWN
from cytoarch.errors import StoreError
from cytoarch.images.views import StoredImage
from cytoarch.reporting.pictures import patch_picture
from cytoarch.reporting.retrieval import Patch, Row, retrieval_sheet
from cytoarch.settings import Settings
from cytoarch.steps.cluster_checks import scaled
from cytoarch.steps.clusters import ClusterFitStep
from cytoarch.steps.known_tokens import KnownTokensStep
from cytoarch.steps.layouts import FACTS_FILE
from cytoarch.steps.sections import SECTION
from cytoarch.steps.sources import Each
from cytoarch.steps.step import Facts, Inputs, Step, Stored
from cytoarch.store.staging import Staging

NEAREST_FILE, SHEET_FILE = "nearest.csv", "nearest.png"
PATCH_TOKENS = 32
"""Edge of a patch where none is stated, in tokens."""
PATCH_PX = 96
"""Edge of a patch on the sheet."""
Int64 = NDArray[np.int64]


class RetrievalSettings(Settings):
    """How nearest neighbours are shown and counted."""

    queries: int = Field(
        default=8, ge=1, le=100, description="Labels (or clusters) whose most typical token is a query."
    )
    neighbours: int = Field(default=7, ge=1, le=50, description="Nearest neighbours of each.")
    tokens: int = Field(
        default=3000, ge=50, le=50_000, description="Tokens that are compared with each other, at most."
    )
    patch_um: float | None = Field(
        default=None, gt=0, le=100_000, description="Edge of a patch (um); blank: 32 tokens. Patches of one section "
        "that overlap are no neighbours.",
    )  # fmt: skip


@dataclass(frozen=True)
class RetrievalStep(Step[Path]):
    """The sheet of nearest neighbours of a brain's tokens, and what neighbours share."""

    step: ClassVar[str] = "retrieval"
    version: ClassVar[int] = 4
    scope: ClassVar = "brain"
    verb: ClassVar[str] = "find neighbours"

    retrieve: RetrievalSettings
    fit: Stored[Clustering]
    known: Stored[KnownTokens]
    images: Each[StoredImage] = Each(SECTION)

    @classmethod
    def of(cls, fit: ClusterFitStep, retrieve: RetrievalSettings) -> "RetrievalStep":
        """The neighbours among the tokens of a clustering."""
        return cls(retrieve, fit.stored, Stored(KnownTokensStep, fit.name))

    @property
    def name(self) -> str:
        """That of the fit."""
        return self.fit.name

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Find them, count what they share, and draw the sheet."""
        images, known = inputs[self.images], inputs[self.known]
        there = [index for index, one in enumerate(known.section_ids) if one in images]  # others failed in this run
        readable = known.chosen(np.flatnonzero(np.isin(known.section, there)))
        facts = write_retrieval(staging, readable, inputs[self.fit], images.__getitem__, self.retrieve)
        staging.write(FACTS_FILE, canonical_json(facts).encode())
        return facts

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """The sheet; what neighbours share lies beside it."""
        return folder / SHEET_FILE


def write_retrieval(
    staging: Staging,
    known: KnownTokens,
    fit: Clustering,
    image_of: Callable[[str], StoredImage],
    settings: RetrievalSettings,
) -> Facts:
    """Write sheet and table of the neighbours of some tokens; the facts say what neighbours of all tokens share.

    `image_of` opens the section of an id. Raises StoreError if there are too few tokens to have neighbours.
    """
    order = np.random.default_rng(0).permutation(len(known))
    chosen = known.chosen(np.sort(order[: settings.tokens]))
    if len(chosen) < 2:
        raise StoreError(f"{', '.join(known.brain_ids)}: {len(chosen)} tokens have no neighbours; two are needed")
    tokens, edge_um = scaled(chosen, fit), settings.patch_um or PATCH_TOKENS * chosen.token_um
    near, shared = nearest(tokens, chosen, settings.neighbours, edge_um)
    has_areas = (chosen.area != UNKNOWN).any()
    groups = chosen.area if has_areas else fit.assign(chosen.tokens.astype(np.float32))
    queries = typical(tokens, groups, settings.queries)

    def patch(one: int) -> Patch:
        section_id = chosen.section_ids[chosen.section[one]]
        y, x = chosen.places_um[one].tolist()
        label = "" if chosen.area[one] == UNKNOWN else chosen.area_names[chosen.area[one]]
        return Patch(patch_picture(image_of(section_id), (y, x), edge_um, PATCH_PX), section_id, label)

    rows = [Row(patch(one), [patch(other) for other in _there(near[one])]) for one in queries.tolist()]
    staging.write(SHEET_FILE, retrieval_sheet(rows, edge_um))
    staging.write(NEAREST_FILE, _csv(chosen, queries, near))
    return {"tokens": len(chosen), "neighbours": near.shape[1], "patch_um": edge_um, "shared": facts_of(shared)}


def retrieval_notes(facts: Facts) -> dict[str, str]:
    """What a person is told of neighbours."""
    return {
        f"neighbours of the same {_one_of(name)}": f"{one['share']:.2f} (chance {one['chance']:.2f})"
        for name, one in facts["shared"].items()
    }


def _one_of(name: str) -> str:
    """The singular of what is known of tokens."""
    return name.removesuffix("s")


def _there(near: Int64) -> list[int]:
    """The neighbours of a token (k,), without the places where none could have been."""
    return [one for one in near.tolist() if one != NO_TOKEN]


def _csv(known: KnownTokens, queries: Int64, near: Int64) -> bytes:
    """A row a neighbour of a query, the most alike first."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["query", "rank", "section", "y_um", "x_um", "label"])
    for query in queries.tolist():
        for rank, one in enumerate([query, *_there(near[query])]):
            label = "" if known.area[one] == UNKNOWN else known.area_names[known.area[one]]
            place = [f"{value:.1f}" for value in known.places_um[one]]
            writer.writerow([query, rank, known.section_ids[known.section[one]], *place, label])
    return buffer.getvalue().encode()
