"""Neurons in a study's volumes: ingested, learned, segmented, traced, compared with trees that are known."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from cytoarch.digests import canonical_json, content_digest, files_digest, hash_file, values_digest
from cytoarch.encoders.weights import weights_digest
from cytoarch.errors import ModelError, TrainingError
from cytoarch.images.sections import IngestSettings
from cytoarch.images.stacks import volume_files
from cytoarch.images.volumes import CHUNK, StoredVolume, write_volume
from cytoarch.neurons.inference import segment_volume, segmented_by
from cytoarch.neurons.kept import CARD_FILE, WEIGHTS_FILE, NeuronCard, load_network, network_files
from cytoarch.neurons.network import NeuronNetwork, parameter_count
from cytoarch.neurons.patches import Known, Scale
from cytoarch.neurons.pretrained import Pretrained, pretrained, pretrained_folder
from cytoarch.neurons.scoring import score_trees, score_voxels
from cytoarch.neurons.settings import NeuronSegmentation, NeuronTraining, TraceSettings
from cytoarch.neurons.swc import MICROMETRES, read_swc, write_swc
from cytoarch.neurons.table import VolumeRow
from cytoarch.neurons.tracing import trace
from cytoarch.neurons.training import fit_network, new_network
from cytoarch.neurons.trees import Tree, Triple
from cytoarch.neurons.tubes import Tubes
from cytoarch.neurons.views import napari_shapes, neuroglancer_skeletons
from cytoarch.paths import confined
from cytoarch.steps.opened import OpenStudy
from cytoarch.steps.sections import CONTAINED, OutsideFile, contained
from cytoarch.steps.sources import FactsOf, OutsideTable
from cytoarch.steps.step import Facts, Inputs, Place, Source, Step, Stored, conduct
from cytoarch.store.staging import Staging

TREE_FILE = "tree.swc"
SHAPES_FILE = "tree-napari.csv"
SCORES_FILE = "scores.json"
LOSSES_FILE = "losses.json"
CHECKPOINT = "checkpoint.safetensors"
MOST_VOXELS = 1 << 27
"""Voxels are compared in volumes of at most so many, which are held in memory; trees in all."""
FULL = 255
"""The value of a voxel that surely belongs to a neuron."""


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
        return _write_tree(staging, inputs[self.swc], ("known",), (1.0, 1.0, 1.0))

    @classmethod
    def opened(cls, folder: Path) -> Tree:
        """The tree."""
        return read_swc(folder / TREE_FILE)


class KnownVolume(NamedTuple):
    """A volume to learn from, as sources."""

    volume_id: str
    volume: Stored[StoredVolume]
    tree: Stored[Tree]

    @classmethod
    def of(cls, volume_id: str) -> "KnownVolume":
        """That of a volume."""
        return cls(volume_id, Stored(NeuronVolumeStep, volume_id), Stored(KnownTreeStep, volume_id))

    def sources(self) -> dict[str, Source[Any]]:
        """All that is read of it."""
        return {"volume": self.volume, "facts": FactsOf(self.volume), "tree": self.tree}


@dataclass(frozen=True)
class KnownVolumes(Source[Mapping[str, Known]]):
    """The volumes that are learned from, with their trees."""

    members: tuple[KnownVolume, ...]
    least_radius_um: float

    def digests(self, place: Place) -> Mapping[str, str]:
        """Those of every volume and tree."""
        return {
            f"{one.volume_id}/{name}": digest
            for one in self.members
            for name, source in one.sources().items()
            for digest in source.digests(place).values()
        }

    def addresses(self, place: Place) -> Mapping[str, str]:
        """Those of every volume and tree."""
        return {
            f"{one.volume_id}/{name}": address
            for one in self.members
            for name, source in one.sources().items()
            for address in source.addresses(place).values()
        }

    def open(self, place: Place) -> Mapping[str, Known]:
        """The volumes, their voxels read where they are asked for."""
        found: dict[str, Known] = {}
        for one in self.members:
            facts, volume = FactsOf(one.volume).open(place), one.volume.open(place)
            tree = one.tree.open(place)
            try:
                found[one.volume_id] = Known.of(
                    volume.pixels, _scale(facts), tree, volume.grid.edges_um, self.least_radius_um
                )
            except TrainingError as error:
                raise TrainingError(f"volume {one.volume_id}: {error}") from None
        return found


@dataclass(frozen=True)
class PretrainedSource(Source[Pretrained | None]):
    """The ConvNeXt that is inflated; none where its name is blank."""

    train: NeuronTraining

    def digests(self, place: Place) -> Mapping[str, str]:  # noqa: ARG002 - the same everywhere
        """That of its weights."""
        return {"": weights_digest(self._folder())} if self.train.encoder else {}

    def open(self, place: Place) -> Pretrained | None:  # noqa: ARG002 - the same everywhere
        """The inflated encoder."""
        return pretrained(self._folder(), self.train.inflation, self.train.rgb) if self.train.encoder else None

    def _folder(self) -> Path:
        return pretrained_folder(self.train.encoder, self.train.revision)


class NeuronFit(NamedTuple):
    """A training, read back."""

    files: Mapping[str, bytes]
    losses: Sequence[float]


@dataclass(frozen=True)
class _Kept:
    """Where an interrupted training goes on: a file that is finished, and dropped when the training is."""

    staging: Staging

    def load(self) -> bytes | None:
        """What the run before this one came to."""
        return (self.staging.path / CHECKPOINT).read_bytes() if self.staging.has(CHECKPOINT) else None

    def save(self, content: bytes) -> None:
        """Replace it."""
        self.staging.write(CHECKPOINT, content)


@dataclass(frozen=True)
class NeuronTrainingStep(Step[NeuronFit]):
    """A network fitted to the known volumes of a study."""

    step: ClassVar[str] = "neuron-training"
    scope: ClassVar = "study"
    verb: ClassVar[str] = "train"

    train: NeuronTraining
    volumes: KnownVolumes
    encoder: PretrainedSource

    @classmethod
    def of(cls, train: NeuronTraining, volume_ids: Sequence[str]) -> "NeuronTrainingStep":
        """That on the volumes named."""
        known = KnownVolumes(tuple(map(KnownVolume.of, volume_ids)), train.least_radius_um)
        return cls(train, known, PretrainedSource(train))

    @property
    def name(self) -> str:
        """How it begins and what keeps its lines."""
        begin = self.train.inflation if self.train.encoder else "random"
        return f"{begin}-{self.train.topology}"

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Fit the network, from where an interrupted run came to."""
        known, encoder = inputs[self.volumes], inputs[self.encoder]
        sizes = encoder.sizes if encoder else self.train.architecture
        network = new_network(sizes, self.train.seed, encoder.tensors if encoder else None)
        kept = _Kept(staging)
        losses = fit_network(network, list(known.values()), self.train.fit, self.train.device, kept, inputs.on_progress)
        staging.drop(CHECKPOINT)
        card = NeuronCard(
            **sizes.as_json(),
            voxel_um=next(iter(known.values())).tubes.voxel_um,
            learned_from=tuple(known),
            encoder=encoder.digest if encoder else "",
        )
        files = network_files(network, card)
        for name, content in files.items():
            staging.write(name, content)
        staging.write(LOSSES_FILE, canonical_json([round(one, 6) for one in losses]).encode())
        return {
            "model": files_digest(files),
            "parameters": parameter_count(network),
            "loss": round(float(np.mean(losses[-50:])), 6),
            "learned_from": list(known),
        }

    @classmethod
    def opened(cls, folder: Path) -> NeuronFit:
        """The files of the network, and the losses."""
        files = {name: (folder / name).read_bytes() for name in (CARD_FILE, WEIGHTS_FILE)}
        return NeuronFit(files, json.loads((folder / LOSSES_FILE).read_text()))


@dataclass(frozen=True)
class NetworkSource(Source[tuple[NeuronNetwork, NeuronCard]]):
    """A fitted network in the store, by its digest."""

    digest: str

    def digests(self, place: Place) -> Mapping[str, str]:  # noqa: ARG002 - it is named by it
        """Its own."""
        return {"": self.digest}

    def open(self, place: Place) -> tuple[NeuronNetwork, NeuronCard]:
        """The network and its card. Raises ModelError if it is not there or damaged."""
        folder = place.home.store.models.path(self.digest)
        found = load_network(folder)
        if content_digest({one: hash_file(folder / one).sha256 for one in (CARD_FILE, WEIGHTS_FILE)}) != self.digest:
            raise ModelError(f"{folder}: its files have changed since they were kept; train again")
        return found


@dataclass(frozen=True)
class NeuronMapStep(Step[StoredVolume]):
    """The probability of a neuron in every voxel of a volume, from 0 to 255."""

    step: ClassVar[str] = "neuron-maps"
    scope: ClassVar = "study"
    verb: ClassVar[str] = "segment"

    segment: NeuronSegmentation
    network: NetworkSource
    volume: Stored[StoredVolume]
    facts: FactsOf

    @classmethod
    def of(cls, volume_id: str, segment: NeuronSegmentation, digest: str) -> "NeuronMapStep":
        """That of a volume by a network."""
        volume = Stored(NeuronVolumeStep, volume_id)
        return cls(segment, NetworkSource(digest), volume, FactsOf(volume))

    @property
    def name(self) -> str:
        """The volume's."""
        return self.volume.name

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Blend the tiles plane by plane; memory is that of a layer of tiles along one of its rows."""
        (network, card), volume = inputs[self.network], inputs[self.volume]
        planes = segment_volume(
            segmented_by(network, self.segment.device),
            volume.pixels,
            _scale(inputs[self.facts]),
            self.segment.tiles,
            staging.scratch,
            self.segment.batch_size,
            inputs.on_progress,
        )
        found = 0
        grid = volume.grid

        def slabs() -> Any:
            nonlocal found
            for first in range(0, grid.shape[0], CHUNK[0]):
                count = min(CHUNK[0], grid.shape[0] - first)
                slab = np.stack([np.rint(FULL * next(planes)).astype(np.uint8) for _ in range(count)])
                found += int((slab > FULL // 2).sum())
                yield slab

        write_volume(staging, grid, slabs(), self.name)
        return {
            "share": round(found / float(np.prod(grid.shape)), 8),
            "voxel_um": list(grid.edges_um),
            "learned_voxel_um": list(card.voxel_um),
        }

    @classmethod
    def opened(cls, folder: Path) -> StoredVolume:
        """The probabilities."""
        return StoredVolume.open(folder)


@dataclass(frozen=True)
class NeuronTraceStep(Step[Tree]):
    """The trees traced in a volume: SWC in um, paths for napari, skeletons for neuroglancer."""

    step: ClassVar[str] = "neuron-traces"
    scope: ClassVar = "study"
    verb: ClassVar[str] = "trace"

    trace: TraceSettings
    probabilities: Stored[StoredVolume]

    @classmethod
    def of(cls, volume_id: str, settings: TraceSettings) -> "NeuronTraceStep":
        """That of a volume."""
        return cls(settings, Stored(NeuronMapStep, volume_id))

    @property
    def name(self) -> str:
        """The volume's."""
        return self.probabilities.name

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Thin block by block, join, prune, write."""
        volume = inputs[self.probabilities]
        least = self.trace.threshold * FULL

        def read(low: tuple[int, int, int], high: tuple[int, int, int]) -> Any:
            return np.asarray(volume.pixels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]) >= least

        tree = trace(read, volume.grid.shape, volume.grid.edges_um, self.trace.rules)
        remarks = (f"traced in {self.name}", "radii: distance to the nearest voxel outside")
        return _write_tree(staging, tree, remarks, volume.grid.edges_um)

    @classmethod
    def opened(cls, folder: Path) -> Tree:
        """The tree."""
        return read_swc(folder / TREE_FILE)


@dataclass(frozen=True)
class NeuronScoreStep(Step[Mapping[str, float]]):
    """How a volume's traced trees differ from the known one, and its segmented voxels from the tubes of that."""

    step: ClassVar[str] = "neuron-scores"
    scope: ClassVar = "study"
    verb: ClassVar[str] = "score"

    traced: Stored[Tree]
    known: Stored[Tree]
    probabilities: Stored[StoredVolume]
    threshold: float
    least_radius_um: float

    @classmethod
    def of(cls, volume_id: str, trace: TraceSettings, least_radius_um: float = 0.0) -> "NeuronScoreStep":
        """That of a volume, whose known neurites are taken to be at least so thick."""
        traced, known = Stored(NeuronTraceStep, volume_id), Stored(KnownTreeStep, volume_id)
        return cls(traced, known, Stored(NeuronMapStep, volume_id), trace.threshold, least_radius_um)

    @property
    def name(self) -> str:
        """The volume's."""
        return self.known.name

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Compare them in units of the shortest edge of a voxel, so that anisotropic volumes are compared in space."""
        traced, known, probabilities = inputs[self.traced], inputs[self.known], inputs[self.probabilities]
        grid = probabilities.grid
        unit = float(min(grid.edges_um))
        score = score_trees(traced, known, (unit, unit, unit))
        facts = {name: value for name, value in score.as_facts().items() if np.isfinite(value)}
        facts |= {"unit_um": unit, "missing": float(score.missing)}
        facts |= {"traced_um": round(traced.length_um, 3), "known_um": round(known.length_um, 3)}
        if np.prod(grid.shape) <= MOST_VOXELS:
            tubes = Tubes.of(known, grid.edges_um, self.least_radius_um).mask((0, 0, 0), grid.shape)
            voxels = score_voxels(probabilities.pixels[...] >= self.threshold * FULL, tubes, grid.edges_um)
            facts |= {f"voxel_{name}": value for name, value in voxels.as_facts().items() if np.isfinite(value)}
        staging.write(SCORES_FILE, canonical_json(facts).encode())
        return facts

    @classmethod
    def opened(cls, folder: Path) -> Mapping[str, float]:
        """The figures by name."""
        return dict(json.loads((folder / SCORES_FILE).read_text()))


def _scale(facts: Mapping[str, Any]) -> Scale:
    return Scale(float(facts["black"]), float(facts["white"]))


def _write_tree(staging: Staging, tree: Tree, remarks: tuple[str, ...], voxel_um: Triple) -> Facts:
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
