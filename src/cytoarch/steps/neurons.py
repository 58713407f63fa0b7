"""Volumes of neurons as they come into a study, and the trees that are known in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cytoarch.digests import values_digest
from cytoarch.images.sections import IngestSettings
from cytoarch.images.stacks import volume_files
from cytoarch.images.volumes import StoredVolume
from cytoarch.neurons.patches import Scale
from cytoarch.neurons.swc import MICROMETRES, read_swc, write_swc
from cytoarch.neurons.table import VolumeRow
from cytoarch.neurons.trees import Tree, Triple
from cytoarch.neurons.views import napari_shapes, neuroglancer_skeletons
from cytoarch.paths import confined
from cytoarch.steps.opened import OpenStudy
from cytoarch.steps.sections import CONTAINED, OutsideFile, contained
from cytoarch.steps.sources import OutsideTable
from cytoarch.steps.step import Facts, Inputs, Place, Source, Step, conduct
from cytoarch.store.staging import Staging

TREE_FILE = "tree.swc"
SHAPES_FILE = "tree-napari.csv"


@dataclass(frozen=True)
class VolumeFile(Source[OutsideFile]):
    """A volume outside the store."""

    folder: Path
    """That the path is relative to: of the table."""
    path: str

    def digests(self, place: Place) -> Mapping[str, str]:
        """sha256 of its content, remembered while sizes and dates stay. Raises ScanError if it is not there."""
        path = confined(self.path, self.folder)
        study = _study(place)
        return {"": study.store.study_scan_digest(study.study, path, volume_files(path))}

    def known_digests(self, place: Place) -> Mapping[str, str] | None:
        """The remembered one; nothing is read."""
        path = confined(self.path, self.folder)
        study = _study(place)
        digest = study.store.known_study_digest(study.study, path, volume_files(path))
        return None if digest is None else {"": digest}

    def open(self, place: Place) -> OutsideFile:  # noqa: ARG002 - the same everywhere
        """Where it is."""
        return OutsideFile(confined(self.path, self.folder), self.path)


def _study(place: Place) -> OpenStudy:
    if not isinstance(place.home, OpenStudy):
        raise TypeError("volumes of neurons belong to a study")
    return place.home


@dataclass(frozen=True)
class NeuronVolumeStep(Step[StoredVolume]):
    """A volume as scanned, with coarser levels."""

    step: ClassVar[str] = "neuron-volumes"
    scope: ClassVar = "study"
    verb: ClassVar[str] = "ingest"

    volume_id: str
    file: VolumeFile
    voxel_um: Triple | None
    channel: int
    ingest: IngestSettings = conduct(IngestSettings())

    @classmethod
    def of(cls, row: VolumeRow, folder: Path) -> "NeuronVolumeStep":
        """That of a row of the table of volumes, which lies in a folder."""
        return cls(row.volume_id, VolumeFile(folder, row.path), row.voxel_um, row.channel)

    @property
    def name(self) -> str:
        """The volume's."""
        return self.volume_id

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Stream it into the store, in a child process."""
        arguments = {"name": self.volume_id, "voxel_um": self.voxel_um, "channel": self.channel}
        work = f"{CONTAINED}:volume_work"
        return contained(work, inputs, staging, self.ingest, inputs[self.file], arguments)

    @classmethod
    def opened(cls, folder: Path) -> StoredVolume:
        """The volume."""
        return StoredVolume.open(folder)


@dataclass(frozen=True)
class SwcFile(OutsideTable[Tree]):
    """A traced tree outside the store."""

    unit_um: Triple = MICROMETRES

    def digests(self, place: Place) -> Mapping[str, str]:  # noqa: ARG002 - the same everywhere
        """sha256 of the file as it was when the run began."""
        return {"": values_digest([self.sha256, self.unit_um])}

    def open(self, place: Place) -> Tree:  # noqa: ARG002 - the same everywhere
        """The tree, in um. Raises ScanError if it is none."""
        self.check()
        return read_swc(self.path, self.unit_um)


@dataclass(frozen=True)
class KnownTreeStep(Step[Tree]):
    """The known tree of a volume, in um."""

    step: ClassVar[str] = "neuron-trees"
    scope: ClassVar = "study"
    verb: ClassVar[str] = "read the known tree"

    volume_id: str
    swc: SwcFile

    @property
    def name(self) -> str:
        """The volume's."""
        return self.volume_id

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Read it, check it, write it."""
        return write_tree(staging, inputs[self.swc], ("known",), (1.0, 1.0, 1.0))

    @classmethod
    def opened(cls, folder: Path) -> Tree:
        """The tree."""
        return read_swc(folder / TREE_FILE)


def scale_of(facts: Mapping[str, Any]) -> Scale:
    """The grey values that are black and white in a volume, of the facts of its ingestion."""
    return Scale(float(facts["black"]), float(facts["white"]))


def write_tree(staging: Staging, tree: Tree, remarks: tuple[str, ...], voxel_um: Triple) -> Facts:
    """A tree in all its forms; returns what can be said of it."""
    staging.write(TREE_FILE, write_swc(tree, remarks).encode())
    staging.write(SHAPES_FILE, napari_shapes(tree, voxel_um).encode())
    for name, content in neuroglancer_skeletons(tree).items():
        staging.write(f"neuroglancer/{name}", content)
    return {
        "length_um": round(tree.length_um, 3),
        "nodes": len(tree),
        "pieces": tree.roots,
        "branchings": tree.branchings,
        "ends": tree.ends,
    }
