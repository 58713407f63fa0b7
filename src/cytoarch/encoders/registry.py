"""Which encoders there are: our own, and those that installed packages add to the entry-point group."""

from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Literal, TypedDict, cast

from pydantic import Field

from cytoarch.encoders.protocol import Encoder, Precision
from cytoarch.errors import ModelError
from cytoarch.settings import Settings

ENTRY_POINTS = "cytoarch.encoders"
"""Group under which a package names its encoders: id -> callable(EncoderSettings) -> Encoder."""
SEPARATOR = "+"
"""Between the ids of encoders that stand side by side."""
OURS = (
    "texture",
    "profile",
    "compact",
    "compact:<folder>",
    "lite0",
    "lite0:<stages>",
    "dinov3:<short name, hub id or folder>",
    "dinov2:<short name, hub id or folder>",
    "cytonet:<hub id or folder>",
)
NOT_TAKEN = {
    "texture": ("revision", "blocks", "precision", "device", "norm"),
    "profile": ("revision", "blocks", "precision", "device", "norm"),
    "compact": ("revision", "blocks", "norm"),
    "lite0": ("revision", "norm"),
}
"""Settings that an encoder does not have, by its kind; all others have them all."""
OF_ONE = ("revision", "blocks", "norm")
"""Settings that mean something to one model: of encoders side by side only one may have them."""


class ModelSettings(Settings):
    """Which encoder, and where it runs."""

    encoder: str = Field(
        examples=["dinov3:vitb16"],
        default="texture",
        max_length=500,
        description="texture, profile (no weights); compact (comes with cytoarch, trained on phantoms); compact: and a "
        "folder of pretrain-encoder; lite0 (EfficientNet-Lite0), lite0:3,4 (two of its five stages); several side by "
        "side: texture+lite0:3,4; "
        "dinov3:vits16, vits16plus, vitb16, vitl16, vith16plus, vit7b16, vitl16-sat, "
        "vit7b16-sat, convnext-tiny, -small, -base, -large; dinov2:small, base, large, giant, small-registers, ...; "
        "or dinov3:, dinov2:, cytonet: and a hub id, or a local folder with config.json and safetensors.",
    )
    revision: str | None = Field(
        title="Commit of the hub repository",
        examples=["5c8b2f0a3d1e4f6789ab0123456789abcdef0123"],
        default=None,
        max_length=64,
        description="Commit of the hub repository (40 hexadecimal digits); folders: blank.",
    )
    blocks: tuple[int, ...] = Field(
        title="Layers to read",
        examples=[[3, 6, 9, 12]],
        default=(),
        max_length=8,
        description="1-based transformer blocks (or stages 1 to 4 of a ConvNeXt) to read; blank: four evenly spaced "
        "(of a ConvNeXt stages 3 and 4, of CytoNet the last, of lite0 all five).",
    )
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="Where the model runs; does not mark results.")


class EncoderSettings(ModelSettings):
    """Which encoder reads the sections, and how."""

    norm: bool = Field(
        title="Apply the model's final norm",
        default=True,
        description="Apply the model's final norm to every layer; no: as computed.",
    )
    tile_px: int | None = Field(
        examples=[512], default=None, ge=64, le=4096, description="Edge of a tile; blank: the encoder's own."
    )
    pixel_size_um: float | None = Field(
        title="Pixel size that the encoder sees (um)",
        examples=[2.0],
        default=None,
        ge=0.05,
        le=1000,
        description="Pixel size the encoder sees (um); blank: its own, or as scanned but not finer than 4 um.",
    )
    precision: Precision = Field(default="fp32", description="Arithmetic of the model; part of what marks results.")
    batch_size: int = Field(default=2, ge=1, le=1024, description="Tiles computed at once.")


def parts_of(encoder: str) -> tuple[str, ...]:
    """The encoders that an id joins by `+`, in order; of any other id itself: folders may have a + in their names.

    A folder that is there is taken as it is called, even where its name goes on as that of another encoder does.

    >>> parts_of("texture+lite0"), parts_of("dinov3:/models/a+b"), parts_of("compact:/a+b+texture")
    (('texture', 'lite0'), ('dinov3:/models/a+b',), ('compact:/a+b', 'texture'))
    """
    pieces = encoder.split(SEPARATOR)
    if len(pieces) == 1:
        return (encoder,)
    known = {one.partition(":")[0] for one in OURS} | {point.name for point in entry_points(group=ENTRY_POINTS)}
    parts, at = [], 0
    while at < len(pieces):
        ends = [end for end in range(at + 1, len(pieces)) if pieces[end].partition(":")[0] in known] + [len(pieces)]
        folders = [end for end in ends if ":" in pieces[at] and _is_folder(_source(pieces[at:end]))]
        end = folders[-1] if folders else ends[0]
        parts.append(SEPARATOR.join(pieces[at:end]))
        at = end
    return tuple(parts)


def _source(pieces: Sequence[str]) -> str:
    return SEPARATOR.join(pieces).partition(":")[2]


def _is_folder(source: str) -> bool:
    try:
        return bool(source) and Path(source).expanduser().is_dir()
    except (OSError, RuntimeError):  # names of no file, and homes of nobody
        return False


def takes(encoder: str, name: str) -> bool:
    """Whether one encoder has a setting of this name."""
    return name not in NOT_TAKEN.get(encoder.partition(":")[0], ())


def kinds_of(encoder: str) -> tuple[str, ...]:
    """What the parts of an id are, without their folders: names of products are made of them."""
    return tuple(one.partition(":")[0] for one in parts_of(encoder))


def load_encoder(settings: EncoderSettings) -> Encoder:
    """The encoder the settings name. Raises ModelError, listing those there are, if none has that id."""
    parts = parts_of(settings.encoder)
    return _joined(settings, parts) if len(parts) > 1 else _single(settings)


def _joined(settings: EncoderSettings, parts: Sequence[str]) -> Encoder:
    """Several encoders side by side; each takes the settings that it has. Raises ModelError for what is ambiguous."""
    from cytoarch.encoders.joined import join

    for name in OF_ONE:
        takers = [one for one in parts if takes(one, name)]
        if not _is_default(settings, name) and len(takers) != 1:
            raise ModelError(
                f"{name} is set, which is of one model; of those that {settings.encoder} joins {len(takers)} have it "
                f"({', '.join(takers) or 'none'}); leave it out"
            )

    def own(one: str) -> EncoderSettings:
        left = NOT_TAKEN.get(one.partition(":")[0], ())
        blank = {name: EncoderSettings.model_fields[name].default for name in left}
        return settings.model_copy(update={"encoder": one, **blank})

    return join(settings.encoder, [_single(own(one)) for one in parts])


def _single(settings: EncoderSettings) -> Encoder:
    kind, _, argument = settings.encoder.partition(":")
    if kind in NOT_TAKEN and (not argument or kind in ("compact", "lite0")):
        ignored = [name for name in NOT_TAKEN[kind] if not _is_default(settings, name)]
        if ignored:
            raise ModelError(
                f"the encoder {settings.encoder} has no {', '.join(ignored)} to set; leave these settings out, or "
                "choose another encoder"
            )
    models = _of_models(settings)
    if settings.encoder == "texture":
        from cytoarch.encoders.texture import TextureEncoder

        return TextureEncoder()
    if settings.encoder == "profile":
        from cytoarch.encoders.profile import ProfileEncoder

        return ProfileEncoder()
    if settings.encoder == "compact" or (kind == "compact" and argument):
        from cytoarch.encoders.compact import load_compact

        folder = {"folder": Path(argument).expanduser()} if argument else {}
        return load_compact(settings.encoder, precision=settings.precision, device=settings.device, **folder)
    if settings.encoder == "lite0" or (kind == "lite0" and argument):
        from cytoarch.encoders.lite import load_lite

        return load_lite(
            settings.encoder,
            blocks=models["blocks"],
            tile_px=models["tile_px"],
            precision=models["precision"],
            device=models["device"],
        )
    if kind in ("dinov3", "dinov2") and argument:
        from cytoarch.encoders.dino import load_dino

        return load_dino(settings.encoder, **models)
    if kind == "cytonet" and argument:
        from cytoarch.encoders.cytonet import load_cytonet

        return load_cytonet(settings.encoder, **models)
    return _added(settings, kind)


def _is_default(settings: EncoderSettings, name: str) -> bool:
    return bool(getattr(settings, name) == EncoderSettings.model_fields[name].default)


class _OfModels(TypedDict):
    revision: str | None
    blocks: tuple[int, ...]
    tile_px: int | None
    norm: bool
    precision: Precision
    device: str


def _of_models(settings: EncoderSettings) -> _OfModels:
    """The settings that encoders made of weights take."""
    return {
        "revision": settings.revision,
        "blocks": settings.blocks,
        "tile_px": settings.tile_px,
        "norm": settings.norm,
        "precision": settings.precision,
        "device": settings.device,
    }


def _added(settings: EncoderSettings, kind: str) -> Encoder:
    """The encoder that an installed package adds under this id."""
    points = entry_points(group=ENTRY_POINTS)
    chosen = next((point for point in points if point.name == kind), None)
    if chosen is None:
        known = ", ".join([*OURS, *sorted(point.name for point in points)]) + ", and several of them joined by +"
        raise ModelError(f"there is no encoder {settings.encoder!r}; the encoders are {known}")
    return _imported(chosen)(settings)


def _imported(point: EntryPoint) -> Callable[[EncoderSettings], Encoder]:
    try:
        return cast(Callable[[EncoderSettings], Encoder], point.load())
    except Exception as error:
        package = point.dist.name if point.dist else point.module
        raise ModelError(
            f"encoder {point.name!r} of the package {package} ({point.value}) cannot be imported "
            f"({type(error).__name__}: {error}); repair or remove the package, or choose {', '.join(OURS)}"
        ) from error
