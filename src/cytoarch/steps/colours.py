"""Embeddings as colours: fitted to a brain, drawn section by section."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.discovery.colours import ColourMap, colour_sample, write_colours
from cytoarch.embeddings import SectionEmbeddings, check_same_dims
from cytoarch.images.views import StoredImage
from cytoarch.sampling import OnDemand, TokenSource, tissue_source
from cytoarch.steps.sources import Each, Sections
from cytoarch.steps.step import Facts, Inputs, Step, Stored
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.staging import Staging

FIT_FILE = "fit.safetensors"
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class BrainFit(Step[T_co]):
    """What is fitted to tokens drawn from the tissue of every section, by the name of the embeddings."""

    scope: ClassVar = "brain"

    embeddings: Each[SectionEmbeddings]
    tissue: Each[TissueMask]

    @classmethod
    def of(cls, embeddings: Stored[SectionEmbeddings]) -> Self:
        """The fit to one way of embedding."""
        return cls(Each(embeddings), Each(TISSUE, having=(embeddings,)))

    @property
    def name(self) -> str:
        """That of the embeddings."""
        return name_of(self.embeddings)


@dataclass(frozen=True)
class ColourFitStep(BrainFit[ColourMap]):
    """One map from embeddings to colours for a whole brain."""

    step: ClassVar[str] = "colours"
    version: ClassVar[int] = 5
    verb: ClassVar[str] = "fit colours"

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Fit to tokens drawn from every section."""
        sample = colour_sample(tissue_sources(inputs[self.embeddings], inputs[self.tissue]))
        staging.write(FIT_FILE, ColourMap.fit([sample.tokens]).to_bytes())
        return sample.facts()

    @classmethod
    def opened(cls, folder: Path) -> ColourMap:
        """The map."""
        return ColourMap.from_bytes((folder / FIT_FILE).read_bytes())


@dataclass(frozen=True)
class ColoursStep(Step[StoredImage]):
    """A section's embeddings as an image of colours."""

    step: ClassVar[str] = "colours"
    version: ClassVar[int] = 5
    verb: ClassVar[str] = "colour"

    embeddings: Stored[SectionEmbeddings]
    fit: Stored[ColourMap]
    tissue: Stored[TissueMask] = TISSUE

    @classmethod
    def of(cls, fit: ColourFitStep) -> "ColoursStep":
        """The colours of each section by one fit."""
        return cls(stored_of(fit.embeddings), fit.stored)

    @property
    def name(self) -> str:
        """That of the embeddings."""
        return self.embeddings.name

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Draw the image."""
        return write_colours(staging, inputs[self.embeddings], inputs[self.tissue], inputs[self.fit])

    @classmethod
    def opened(cls, folder: Path) -> StoredImage:
        """The image (3, y, x) uint8."""
        return StoredImage.open(folder)


def tissue_sources(embeddings: Sections[SectionEmbeddings], tissue: Sections[TissueMask]) -> Sequence[TokenSource]:
    """The tokens in tissue of every section, opened as they are asked for. Raises ModelError if sections differ."""
    check_same_dims((one, embeddings[one]) for one in embeddings)
    ids = tuple(embeddings)
    return OnDemand(len(ids), lambda at: tissue_source(ids[at], embeddings[ids[at]], tissue[ids[at]]))


def stored_of(each: Each[SectionEmbeddings]) -> Stored[SectionEmbeddings]:
    """The product of one section, of those of all."""
    if not isinstance(each.source, Stored):
        raise TypeError("embeddings of every section are products of a step")
    return each.source


def name_of(each: Each[SectionEmbeddings]) -> str:
    """The name under which embeddings of every section are kept."""
    return stored_of(each).name
