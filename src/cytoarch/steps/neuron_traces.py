"""Neurons found in volumes: the probability of every voxel, the trees traced in it, their distance from known ones."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cytoarch.digests import canonical_json, content_digest, hash_file
from cytoarch.errors import ModelError
from cytoarch.images.volumes import CHUNK, StoredVolume, Voxels, planes_there, write_volume
from cytoarch.neurons.inference import segment_volume, segmented_by, waiting_bytes
from cytoarch.neurons.kept import CARD_FILE, WEIGHTS_FILE, NeuronCard, load_network
from cytoarch.neurons.network import NeuronNetwork
from cytoarch.neurons.scoring import score_trees, score_voxels
from cytoarch.neurons.settings import NeuronSegmentation, TraceSettings
from cytoarch.neurons.swc import read_swc
from cytoarch.neurons.tracing import trace
from cytoarch.neurons.trees import Tree
from cytoarch.neurons.tubes import Tubes
from cytoarch.steps.neurons import TREE_FILE, KnownTreeStep, NeuronVolumeStep, scale_of, write_tree
from cytoarch.steps.sources import FactsOf
from cytoarch.steps.step import Facts, Inputs, Place, Source, Step, Stored
from cytoarch.store.disk import check_room
from cytoarch.store.staging import Staging

Float32 = NDArray[np.float32]
SCORES_FILE = "scores.json"
MOST_VOXELS = 1 << 27
"""Voxels are compared in volumes of at most so many, which are held in memory; trees in all."""
TILE_TYPE = np.dtype("<f4")
"""Of segmented tiles that wait: all that was computed, so that going on gives the same bits."""
LESS_WAITS = "a larger segment.step, which makes fewer tiles, or a smaller segment.tile_depth"
FULL = 255
"""The value of a voxel that surely belongs to a neuron."""


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
class _StagedTiles:
    """Segmented tiles as files of the staging folder, which a crash does not lose; none is left when all are taken."""

    staging: Staging
    shape: tuple[int, int, int]

    def load(self, layer: int, tile: int) -> Float32 | None:
        """What this run or one before it kept."""
        key = self._key(layer, tile)
        if not self.staging.has(key):
            return None
        return np.fromfile(self.staging.path / key, dtype=TILE_TYPE).reshape(self.shape)

    def save(self, layer: int, tile: int, told: Float32) -> None:
        """Keep a tile."""
        self.staging.write(self._key(layer, tile), told.astype(TILE_TYPE).tobytes())

    def drop(self, layer: int, tiles: int) -> None:
        """Remove those of a layer."""
        for tile in range(tiles):
            self.staging.drop(self._key(layer, tile))

    @property
    def held_bytes(self) -> int:
        """What a run before this one kept."""
        return sum(one.stat().st_size for one in self.staging.path.glob("tile-*.f32"))

    @staticmethod
    def _key(layer: int, tile: int) -> str:
        return f"tile-{layer}-{tile}.f32"


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
        """Blend the tiles plane by plane; memory is that of a layer of tiles along one of its rows.

        Tiles that an interrupted run segmented are not segmented again: they wait in the staging folder, those of two
        layers at a step of half a tile, until the planes they belong to are written. Raises StoreError before the first
        one if the disk has no room for them.
        """
        (network, card), volume = inputs[self.network], inputs[self.volume]
        grid, tiles = volume.grid, self.segment.tiles
        there = planes_there(staging, grid)
        kept = _StagedTiles(staging, (tiles.depth, tiles.edge, tiles.edge))
        needed = waiting_bytes(grid.shape, tiles) - kept.held_bytes
        check_room(staging.path, needed, f"tiles of volume {self.name} that wait to be blended", LESS_WAITS)
        planes = segment_volume(
            segmented_by(network, self.segment.device),
            volume.pixels,
            scale_of(inputs[self.facts]),
            tiles,
            staging.scratch,
            self.segment.batch_size,
            inputs.on_progress,
            kept,
            there,
        )

        def slabs() -> Iterator[Voxels]:
            for first in range(there, grid.shape[0], CHUNK[0]):
                count = min(CHUNK[0], grid.shape[0] - first)
                yield np.stack([np.rint(FULL * next(planes)).astype(np.uint8) for _ in range(count)])
            next(planes, None)  # there is none: what waited for the last ones goes

        write_volume(staging, grid, slabs(), self.name, there=there)
        written = StoredVolume.open(staging.path).pixels
        found = sum(
            int((np.asarray(written[z : z + CHUNK[0]]) > FULL // 2).sum()) for z in range(0, grid.shape[0], CHUNK[0])
        )
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
        return write_tree(staging, tree, remarks, volume.grid.edges_um)

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
