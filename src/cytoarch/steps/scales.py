"""The mean and spread of a brain's embeddings, found without labels: what heads of several brains measure them in."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from safetensors.numpy import load, save

from cytoarch.discovery.colours import SMALLEST_SPREAD, colour_sample
from cytoarch.embeddings import Scale, SectionEmbeddings
from cytoarch.errors import StoreError
from cytoarch.learning.cards import Standardise
from cytoarch.reproducible import single_threaded
from cytoarch.sampling import moments
from cytoarch.steps.colours import FIT_FILE, BrainFit, tissue_sources
from cytoarch.steps.step import Facts, Inputs, Stored
from cytoarch.store.staging import Staging


@dataclass(frozen=True)
class ScaleStep(BrainFit[Scale]):
    """The scale of a brain's embeddings: of tokens drawn evenly from the tissue of every section."""

    step: ClassVar[str] = "scales"
    version: ClassVar[int] = 2
    verb: ClassVar[str] = "fit scale"

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Draw tokens and measure them; raises StoreError if no token lies in tissue."""
        sample = colour_sample(tissue_sources(inputs[self.embeddings], inputs[self.tissue]))
        if not len(sample.tokens):
            raise StoreError("no embedding lies in tissue: there is nothing to measure embeddings in")
        with single_threaded():
            mean, spread = moments([sample.tokens], SMALLEST_SPREAD)
        spread = np.where(spread > SMALLEST_SPREAD, spread, 1.0)  # a constant here may vary elsewhere
        arrays = {"mean": mean.astype(np.float32), "spread": spread.astype(np.float32)}
        staging.write(FIT_FILE, save(arrays))
        return sample.facts()

    @classmethod
    def opened(cls, folder: Path) -> Scale:
        """The scale."""
        return Scale(**load((folder / FIT_FILE).read_bytes()))


def scale_of(standardise: Standardise, embeddings: Stored[SectionEmbeddings]) -> Stored[Scale] | None:
    """What a head measures the embeddings of a brain in; None: they are taken as they are."""
    return Stored(ScaleStep, embeddings.name) if standardise == "brain" else None
