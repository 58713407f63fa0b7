"""Reference spaces: where the pixels of a section lie in an atlas, and what the atlas says is there."""

from cytoarch.anatomy.reference.anchorings import Anchoring, CoordinateImage, LinearAnchoring, read_anchorings
from cytoarch.anatomy.reference.cutting import AtlasCut, cut_section, prior_maps
from cytoarch.anatomy.reference.ontology import Ontology, Structure, read_ontology
from cytoarch.anatomy.reference.volumes import AtlasVolume

__all__ = [
    "Anchoring",
    "AtlasCut",
    "AtlasVolume",
    "CoordinateImage",
    "LinearAnchoring",
    "Ontology",
    "Structure",
    "cut_section",
    "prior_maps",
    "read_anchorings",
    "read_ontology",
]
