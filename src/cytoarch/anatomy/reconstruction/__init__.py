"""A brain from its sections: rigid alignment of neighbours, one solution for all, and what is doubtful about it."""

from cytoarch.anatomy.reconstruction.assembly import Stated, reconstruct
from cytoarch.anatomy.reconstruction.likeness import Overview
from cytoarch.anatomy.reconstruction.links import Link
from cytoarch.anatomy.reconstruction.placed import LinkQuality, PlacedSection, Reconstruction
from cytoarch.anatomy.reconstruction.rigid import Rigid
from cytoarch.anatomy.reconstruction.settings import ReconstructionSettings

__all__ = [
    "Link",
    "LinkQuality",
    "Overview",
    "PlacedSection",
    "Reconstruction",
    "ReconstructionSettings",
    "Rigid",
    "Stated",
    "reconstruct",
]
