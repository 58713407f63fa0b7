"""How few labels of a brain are enough, for one way of embedding it."""

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.embeddings import EmbedSettings, Scale, SectionEmbeddings, check_same_dims
from cytoarch.errors import TrainingError
from cytoarch.images.views import StoredImage
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.datasets import LabelledSection
from cytoarch.learning.label_shares import ShareScore, ShareSettings, share_scores
from cytoarch.learning.splits import split_sections
from cytoarch.sampling import OnDemand
from cytoarch.steps.scales import scale_of
from cytoarch.steps.sections import LABELS, PixelsDigest
from cytoarch.steps.sources import Each, FactsOf, Table
from cytoarch.steps.step import Facts, Inputs, Step, Stored
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.staging import Staging

SHARES_FILE = "shares.csv"


@dataclass(frozen=True)
class LabelSharesStep(Step[Path]):
    """The scores of probes that learn from shares of a brain's labels."""

    step: ClassVar[str] = "label-shares"
    version: ClassVar[int] = 2
    scope: ClassVar = "brain"
    verb: ClassVar[str] = "evaluate"

    of_embedding: str
    shares: ShareSettings
    embeddings: Each[SectionEmbeddings]
    embedded: Each[Mapping[str, Any]]
    labels: Each[StoredImage]
    tissue: Each[TissueMask]
    pixels: Each[str]
    scale: Stored[Scale] | None
    table: Table = Table()

    @classmethod
    def of(cls, embeddings: Stored[SectionEmbeddings], shares: ShareSettings) -> "LabelSharesStep":
        """That of one way of embedding."""
        labelled = (embeddings, LABELS)
        return cls(
            embeddings.name, shares, Each(embeddings, labelled), Each(FactsOf(embeddings), labelled),
            Each(LABELS, labelled), Each(TISSUE, labelled), Each(PixelsDigest(), labelled),
            scale_of("brain", embeddings),
        )  # fmt: skip

    @property
    def name(self) -> str:
        """The embedding's."""
        return self.of_embedding

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Fit and score. Raises TrainingError if there is too little to learn from or nothing to score on."""
        opened, labels, tissue = inputs[self.embeddings], inputs[self.labels], inputs[self.tissue]
        table = inputs[self.table]
        ids = tuple(opened)
        split = split_sections(ids, inputs[self.pixels])
        if table is None or not split.held_out:
            raise TrainingError(
                f"{len(ids)} embedded sections have labels; three are needed, two to learn from and one to score"
            )
        scale = None if self.scale is None else inputs[self.scale]
        facts = inputs[self.embedded][ids[0]]
        card = HeadCard(
            kind="probe",
            target="labels",
            classes=table.classes(by_group=False),
            dims=check_same_dims((one, opened[one]) for one in ids),
            cells_per_token=1,
            embedding=EmbedSettings.model_validate(facts["embedding"]),
            encoder_digest=facts["encoder_digest"],
            token_px=int(facts["token_px"]),
            pixel_size_um=float(facts["pixel_size_um"]),
            standardise="brain",
        )

        def sections(some: tuple[str, ...]) -> OnDemand[LabelledSection]:
            return OnDemand(
                len(some),
                lambda at: LabelledSection(
                    some[at], opened[some[at]].measured_in(scale), labels[some[at]].levels[0], tissue[some[at]]
                ),
            )

        scores = share_scores(card, sections(split.train), sections(split.held_out), self.shares, inputs.on_progress)
        staging.write(SHARES_FILE, shares_table(scores).encode())
        return {"held_out": list(split.held_out), "scores": figures(scores)}

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """The table."""
        return folder / SHARES_FILE


def figures(scores: list[ShareScore]) -> dict[str, float]:
    """Macro-F1 by share, and each as a share of that of the most labels; what could not be fitted is left out."""
    found = {f"macro_f1/{one.percent:g}": one.macro_f1 for one in scores if math.isfinite(one.macro_f1)}
    most = scores[-1].macro_f1
    for one in scores[:-1]:
        if math.isfinite(one.macro_f1) and most > 0:
            found[f"of_most/{one.percent:g}"] = one.macro_f1 / most
    return {name: round(value, 6) for name, value in found.items()}


def shares_table(scores: list[ShareScore]) -> str:
    """All scores as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(ShareScore._fields)
    writer.writerows([f"{one.percent:g}", one.patches, one.fits, one.macro_f1, one.macro_f1_sd] for one in scores)
    return text.getvalue()
