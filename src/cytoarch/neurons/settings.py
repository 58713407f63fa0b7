"""How neurons are learned, segmented and traced."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from cytoarch.neurons.inference import TileShape
from cytoarch.neurons.inflation import Inflation, RgbReduce
from cytoarch.neurons.losses import LineLoss, Topology
from cytoarch.neurons.network import MULTIPLE, SMALL, TINY, Architecture
from cytoarch.neurons.tracing import TraceRules
from cytoarch.neurons.training import Fit
from cytoarch.settings import Settings

Depths = tuple[int, int, int, int]


class NeuronTraining(Settings):
    """How the network is made and fitted."""

    CONDUCT: ClassVar[frozenset[str]] = frozenset({"device", "checkpoint_every"})
    """Fields that do not decide results."""

    encoder: str = Field(
        default="",
        max_length=500,
        description="DINOv3 ConvNeXt to inflate: a folder as save_pretrained writes it, or a hub id; the sizes of the "
        "network are its own. Blank: random weights.",
    )
    revision: str = Field(
        default="", pattern=r"^([0-9a-f]{40})?$", description="Commit of the hub repository, where encoder is a hub id."
    )
    inflation: Inflation = Field(
        default="centre", description="Kernels stand in their middle plane (centre), or are spread over all (average)."
    )
    rgb: RgbReduce = Field(
        default="mean",
        description="How the weights of the first layer for red, green and blue become those for grey: mean, as "
        "published, or sum, as a grey image shown thrice would be seen.",
    )
    size: Literal["T", "S", "own"] = Field(
        default="T",
        description="Sizes where nothing is inflated: of ConvNeXt-T or -S, or own (features, depths).",
    )
    features: Depths = Field(default=TINY[0], description="Channels of the four stages, where size is own.")
    depths: Depths = Field(default=TINY[1], description="Blocks of the four stages, where size is own.")
    steps: int = Field(default=5000, ge=1, le=1_000_000, description="Steps of training; 27,500 as published.")
    patch: tuple[int, int, int] = Field(
        default=(64, 96, 96), description="Edges (z, y, x) of the patches, multiples of 16 voxels."
    )
    batch_size: int = Field(default=2, ge=1, le=256, description="Patches a step.")
    learning_rate: float = Field(default=1e-3, gt=0, le=1, description="Rate at the first step; it falls to nothing.")
    near: float = Field(default=0.7, ge=0, le=1, description="Share of the patches that lie near a known neurite.")
    topology: Topology = Field(
        default="cldice",
        description="What keeps lines whole: none, tasl (as published: weighs batches, without gradient), cldice, or "
        "skeleton-recall.",
    )
    topology_weight: float = Field(
        default=0.5, ge=0, le=10, description="Of cldice and skeleton-recall beside the overlap."
    )
    least_radius_um: float = Field(
        default=0.0, ge=0, le=100, description="Known neurites are taken to be at least so thick (um); 0: as traced."
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Decides the first weights and every patch.")
    checkpoint_every: int = Field(
        default=250, ge=1, le=1_000_000, description="Steps after which an interrupted training can go on."
    )
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="Where it is computed.")

    @model_validator(mode="after")
    def _multiples(self) -> Self:
        if any(edge < MULTIPLE or edge % MULTIPLE for edge in self.patch):
            raise ValueError(f"patch {self.patch}: every edge is a multiple of {MULTIPLE} voxels")
        if self.batch_size * self.patch[0] * self.patch[1] * self.patch[2] < 2 * MULTIPLE**3:
            raise ValueError(f"batch_size {self.batch_size} with patch {self.patch}: norms need two cells of 16 voxels")
        return self

    @property
    def architecture(self) -> Architecture:
        """The sizes of the network where nothing is inflated."""
        sizes = {"T": TINY, "S": SMALL, "own": (self.features, self.depths)}
        return Architecture(*sizes[self.size])

    @property
    def fit(self) -> Fit:
        """How it is fitted."""
        return Fit(
            steps=self.steps,
            patch=self.patch,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            near=self.near,
            loss=LineLoss(self.topology, self.topology_weight),
            seed=self.seed,
            checkpoint_every=self.checkpoint_every,
        )


class NeuronSegmentation(Settings):
    """How volumes are segmented."""

    CONDUCT: ClassVar[frozenset[str]] = frozenset({"device", "batch_size"})
    """Fields that do not decide results."""

    tile_depth: int = Field(default=64, ge=16, le=512, multiple_of=16, description="Voxels of a tile along z.")
    tile_edge: int = Field(default=96, ge=16, le=512, multiple_of=16, description="Voxels of a tile along y and x.")
    step: float = Field(default=0.5, gt=0, le=1, description="From one tile to the next, in tiles.")
    batch_size: int = Field(default=1, ge=1, le=256, description="Tiles computed together.")
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="Where it is computed.")

    @property
    def tiles(self) -> TileShape:
        """How a volume is cut."""
        return TileShape(self.tile_depth, self.tile_edge, self.step)


class TraceSettings(Settings):
    """How segmented voxels become trees."""

    threshold: float = Field(default=0.5, gt=0, lt=1, description="Probability from which a voxel belongs to a neuron.")
    gap_um: float = Field(
        default=8.0, ge=0, le=1000, description="Gaps no longer than this are closed, from surface to surface."
    )
    spur_um: float = Field(
        default=4.0,
        ge=0,
        le=1000,
        description="Side branches shorter than this are left out; gaps are not closed to pieces that are shorter.",
    )
    piece_um: float = Field(default=10.0, ge=0, le=10_000, description="Pieces shorter than this are left out.")

    @property
    def rules(self) -> TraceRules:
        """What a trace is made of."""
        return TraceRules(self.gap_um, self.spur_um, self.piece_um)
