"""Sections and points as embeddings: how they are read, computed by the engine, kept and opened again."""

from cytoarch.embeddings.reading import SectionReader
from cytoarch.embeddings.settings import (
    AcrossBrainsSettings,
    EmbedSettings,
    embedding_name,
    working_pixel_size_um,
)
from cytoarch.embeddings.stored import Scale, SectionEmbeddings, check_same_dims

__all__ = [
    "AcrossBrainsSettings",
    "EmbedSettings",
    "Scale",
    "SectionEmbeddings",
    "SectionReader",
    "check_same_dims",
    "embedding_name",
    "working_pixel_size_um",
]
