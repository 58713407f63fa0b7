"""A network of neurons, fitted to the volumes of a study whose trees are known."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from cytoarch.digests import canonical_json, files_digest
from cytoarch.encoders.weights import weights_digest
from cytoarch.errors import TrainingError
from cytoarch.images.volumes import StoredVolume
from cytoarch.neurons.kept import CARD_FILE, WEIGHTS_FILE, NeuronCard, network_files
from cytoarch.neurons.network import parameter_count
from cytoarch.neurons.patches import Known
from cytoarch.neurons.pretrained import Pretrained, pretrained, pretrained_folder
from cytoarch.neurons.settings import NeuronTraining
from cytoarch.neurons.training import fit_network, new_network
from cytoarch.neurons.trees import Tree
from cytoarch.steps.neurons import KnownTreeStep, NeuronVolumeStep, scale_of
from cytoarch.steps.sources import FactsOf
from cytoarch.steps.step import Facts, Inputs, Place, Source, Step, Stored
from cytoarch.store.staging import Staging

LOSSES_FILE = "losses.json"
CHECKPOINT = "checkpoint.safetensors"


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
                    volume.pixels, scale_of(facts), tree, volume.grid.edges_um, self.least_radius_um
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
    version: ClassVar[int] = 2
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
