"""Which products there are: each declared once. Flows, scripts and viewers call the same steps."""

from cytoarch.steps.clusters import ClusterFitStep, ClustersStep
from cytoarch.steps.colours import ColourFitStep, ColoursStep
from cytoarch.steps.depth import DepthStep
from cytoarch.steps.embeddings import EmbeddingsStep
from cytoarch.steps.midline import CortexPointsStep, MidlineStep, MidsurfaceStep
from cytoarch.steps.opened import open_brain, open_study, read_only
from cytoarch.steps.parcellations import ParcellationStep, ProbabilitiesStep
from cytoarch.steps.points import PointsStep, PointTable
from cytoarch.steps.reconstruction import RECONSTRUCTION, ReconstructionStep
from cytoarch.steps.report import ReportStep
from cytoarch.steps.running import make, make_sections
from cytoarch.steps.sections import LABELS, SECTION, LabelsStep, ManifestFile, SectionStep
from cytoarch.steps.step import Step, Stored
from cytoarch.steps.tissue import QUALITY, TISSUE, QualityStep, TissueStep
from cytoarch.steps.training import TrainingStep

__all__ = [
    "LABELS",
    "QUALITY",
    "RECONSTRUCTION",
    "SECTION",
    "TISSUE",
    "ClusterFitStep",
    "ClustersStep",
    "ColourFitStep",
    "ColoursStep",
    "CortexPointsStep",
    "DepthStep",
    "EmbeddingsStep",
    "LabelsStep",
    "ManifestFile",
    "MidlineStep",
    "MidsurfaceStep",
    "ParcellationStep",
    "PointTable",
    "PointsStep",
    "ProbabilitiesStep",
    "QualityStep",
    "ReconstructionStep",
    "ReportStep",
    "SectionStep",
    "Step",
    "Stored",
    "TissueStep",
    "TrainingStep",
    "make",
    "make_sections",
    "open_brain",
    "open_study",
    "read_only",
]
