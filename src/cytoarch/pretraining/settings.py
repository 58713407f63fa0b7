"""How an encoder is pretrained on the sections of several brains."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cytoarch.encoders.compact_model import DEPTHS, WIDTHS
from cytoarch.pretraining.loop import LoopSettings
from cytoarch.settings import Settings

Learning = Literal["spatial", "simclr", "siamese"]
Width = Annotated[int, Field(ge=1, le=4096)]
Depth = Annotated[int, Field(ge=0, le=100)]


class PretrainingSettings(Settings):
    """What an encoder sees, and how it learns."""

    CONDUCT: ClassVar[frozenset[str]] = frozenset({"device", "processes", "recompute", "pixels"})
    """Fields that do not decide results."""

    learning: Learning = Field(
        default="spatial",
        description="spatial (SpatialNCE): patches as alike as they are near in the brain; simclr: two views alike; "
        "siamese: distances along the cortex and places on it are told (points along a surface are needed).",
    )
    siamese: Literal["both", "distances", "coordinates"] = Field(
        default="both", description="What of the Siamese task is learned."
    )
    sigma_mm: float = Field(
        default=10.0, gt=0, le=1000, description="How near is near; CytoNet: 10 mm of a human brain."
    )
    temperature: float = Field(default=0.07, gt=0, le=10, description="Of the softmax over patches.")
    pixel_size_um: float = Field(default=8.0, ge=0.5, le=200, description="Pixel size the encoder sees.")
    patch_px: int = Field(default=192, ge=32, le=4096, multiple_of=32, description="Edge of a patch, in such pixels.")
    batch_size: int = Field(default=256, ge=2, le=65_536, description="Patches a step.")
    shift_mm: float = Field(default=0.1, ge=0, le=10, description="A patch's centre moves by up to so much.")
    balanced_mm: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="Edge of cubes of every brain that are all shown equally often; 0: points as they are, as siamese, "
        "which learns from pairs, needs them.",
    )
    network: str = Field(
        default="compact",
        max_length=500,
        description="What learns: compact, cytonet-r50, cytonet-r50-vit (new), or compact:, cytonet:, dinov3:, dinov2: "
        "and the folder of an encoder to start from. What comes out is used by the same kind of id.",
        examples=["cytonet:/data/models/cytonet"],
    )
    widths: tuple[Width, Width, Width, Width, Width] = Field(
        default=WIDTHS, description="Of a new compact network: channels at strides 2, 4, 8, 16 and 32 px."
    )
    depths: tuple[Depth, Depth, Depth, Depth, Depth] = Field(
        default=DEPTHS, description="Of a new compact network: residual blocks at these strides."
    )
    loop: LoopSettings = Field(
        default=LoopSettings(optimiser="adamw", learning_rate=2e-3, weight_decay=0.05, warmup=50, decay=True),
        description="How long, how fast and in what arithmetic.",
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Of the first weights and of the batches.")
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="Where it is trained.")
    processes: int = Field(
        default=1, ge=1, le=1024, description="Processes that share every batch, of graphics cards one each (torchrun)."
    )
    pixels: Literal["held", "streamed"] = Field(
        default="held",
        description="held: all sections in the memory of the device; streamed: read from the store as they are shown.",
    )
    recompute: bool = Field(
        default=False, description="Compute parts of the network twice instead of holding them: less memory, more time."
    )

    @model_validator(mode="after")
    def _pairs_as_they_are(self) -> Self:
        if self.learning == "siamese" and self.balanced_mm:
            raise ValueError(f"balanced_mm {self.balanced_mm:g}: siamese shows all pairs equally often; leave it at 0")
        return self
