"""Heads: embeddings in, class probabilities out. The one protocol that parcellation knows, and the kinds there are."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from cytoarch.errors import ModelError
from cytoarch.learning.cards import CARD_FILE, HEAD_FORMAT, WEIGHTS_FILE, HeadCard, read_card
from cytoarch.learning.domain import Domain, check_domain

Float32 = NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]

ENTRY_POINTS = "cytoarch.heads"
"""Group under which a package names its kinds of heads: id -> class with `from_tensors(card, tensors)`."""
OURS = {
    "context": "cytoarch.learning.context:ContextHead",
    "decoder": "cytoarch.learning.decoder:Decoder",
    "probe": "cytoarch.learning.probes:Probe",
}
WEIGHTS_BYTES = 1 << 30
"""Weights of a head take at most so much: a decoder of eight layers of the widest models is a tenth of it."""
DOMAIN_PREFIX = "domain."
"""Names the tensors beside the weights that say what the head was trained on."""
HEADER_BYTES = 1 << 20
"""What precedes the weights in their file names the tensors and takes at most so much."""


class Head(Protocol):
    """A trained head.

    One that decides a token by others further around than `application.HALO_TOKENS` says so in a property
    `reach_tokens`; without it, tiles would show seams.
    """

    @property
    def card(self) -> HeadCard:
        """What it is."""

    @property
    def bytes_per_token(self) -> int:
        """Memory that `probabilities` takes per token of a tile at its peak, input and result included (bytes)."""

    def probabilities(self, embeddings: Float32) -> Float32:
        """(b, c, y, x) float32, layers stacked along c -> (b, k, y u, x u) float32, sums to 1 over k."""

    def tensors(self) -> Mapping[str, Float32]:
        """Its weights by name."""


class HeadKind(Protocol):
    """A kind of head.

    One that also has `check_shapes(card, shapes)`, which raises ModelError, is asked before any weight is read.
    """

    def from_tensors(self, card: HeadCard, tensors: Mapping[str, Float32]) -> Head:
        """The head of a card and its weights. Raises ModelError if they do not fit."""


def head_kind(kind: str) -> HeadKind:
    """The kind of head an id names. Raises ModelError, listing those there are, if there is none."""
    if kind in OURS:
        module, _, name = OURS[kind].partition(":")
        return cast(HeadKind, getattr(import_module(module), name))
    points = entry_points(group=ENTRY_POINTS)
    chosen = next((point for point in points if point.name == kind), None)
    if chosen is None:
        known = ", ".join([*OURS, *sorted(point.name for point in points)])
        raise ModelError(f"there is no kind of head {kind!r}; the kinds are {known}. Install the package that adds it")
    return _imported(chosen)


def _imported(point: EntryPoint) -> HeadKind:
    package = point.dist.name if point.dist else point.module
    try:
        found: Any = point.load()
    except Exception as error:
        raise ModelError(
            f"heads of kind {point.name!r} of the package {package} ({point.value}) cannot be imported "
            f"({type(error).__name__}: {error}); repair or remove the package"
        ) from error
    if not callable(getattr(found, "from_tensors", None)):
        raise ModelError(f"heads of kind {point.name!r} of the package {package} ({point.value}) have no from_tensors")
    return cast(HeadKind, found)


def head_files(head: Head, domain: Domain | None = None) -> dict[str, bytes]:
    """The files that keep a head: a JSON card and safetensors, and among these what it was trained on looked like."""
    from safetensors.numpy import save

    weights = {name: np.ascontiguousarray(tensor) for name, tensor in head.tensors().items()}
    if domain is not None:
        weights |= {f"{DOMAIN_PREFIX}{name}": np.ascontiguousarray(one) for name, one in domain.tensors().items()}
    return {CARD_FILE: head.card.model_dump_json(indent=1).encode(), WEIGHTS_FILE: save(weights)}


def load_head(folder: Path) -> Head:
    """The head kept in a folder. Nothing in it is executed or unpickled, no weight is read before its shape is known.

    Raises ModelError if the files are missing, damaged, too large, of another format, or do not fit each other.
    """
    try:
        card = read_card(folder / CARD_FILE)
        kind = head_kind(card.kind)
        check: Callable[[HeadCard, Shapes], None] = getattr(kind, "check_shapes", lambda *_: None)
        return kind.from_tensors(card, _read_tensors(folder / WEIGHTS_FILE, partial(check, card)))
    except FileNotFoundError as error:
        found = ", ".join(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else "no folder"
        raise ModelError(f"{folder}: {CARD_FILE} and {WEIGHTS_FILE} are needed, found {found}") from error
    except OSError as error:
        raise ModelError(f"{folder}: cannot be read ({error}); mend the disk or its rights, or train again") from error


def load_domain(folder: Path) -> Domain | None:
    """What the head kept in a folder was trained on looked like; None where that was not kept.

    Raises ModelError as `load_head` does.
    """
    card = read_card(folder / CARD_FILE)
    tensors = _read_tensors(folder / WEIGHTS_FILE, partial(check_domain, card), domain=True)
    return Domain.from_tensors(card, tensors) if tensors else None


def _read_tensors(path: Path, check: Callable[[Shapes], None], domain: bool = False) -> dict[str, Float32]:
    """The float32 tensors of a head in a file, or those of its domain, after `check` has seen their shapes."""
    from safetensors import SafetensorError, safe_open

    _check_sizes(path)
    try:
        with safe_open(path, framework="numpy") as file:
            names = [name for name in file.keys() if name.startswith(DOMAIN_PREFIX) == domain]  # noqa: SIM118 - no mapping
            parts = {name.removeprefix(DOMAIN_PREFIX): file.get_slice(name) for name in names}
            kinds = sorted({str(part.get_dtype()) for part in parts.values()} - {"F32"})
            if kinds:
                raise ModelError(f"{path}: weights of float32 are needed, found {', '.join(kinds)}")
            check({name: tuple(part.get_shape()) for name, part in parts.items()})
            return {name.removeprefix(DOMAIN_PREFIX): file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ModelError(f"{path}: is not a head of format {HEAD_FORMAT} ({str(error)[:200]})") from None


def _check_sizes(path: Path) -> None:
    """Raise ModelError if a safetensors file or what it says of its header is too large, before either is read."""
    size = path.stat().st_size
    if size > WEIGHTS_BYTES:
        raise ModelError(f"{path}: the weights of a head take at most {WEIGHTS_BYTES} bytes, found {size}")
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > HEADER_BYTES:
        raise ModelError(f"{path}: is not a head of format {HEAD_FORMAT} (its weights have a header of {header} bytes)")
