"""Tokens drawn from a brain with all that is known of each: what clusters, layouts and neighbours are held against."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cytoarch.discovery.quality import UNKNOWN, bands

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

BORDER = "distance to the tissue's border"
"""What clusters follow where bare slide beside the tissue decides embeddings."""
AREAS, SIDES, SECTIONS, STAINS, BRAINS, CLUSTERS = "labels", "hemispheres", "sections", "stains", "brains", "clusters"
"""What is known of tokens, as people call it; labels may be areas, layers or anything else."""
SIDE_NAMES = ("left", "right")


@dataclass(frozen=True)
class KnownTokens:
    """Tokens and what is known of each; an index is `UNKNOWN` where nothing is."""

    tokens: NDArray[Any]
    """(n, c), as they are stored."""
    places_um: Float64
    """(n, 2) y, x in the frame of the section."""
    section: Int64
    """(n,) index into `section_ids`."""
    area: Int64
    """(n,) index into `area_names`."""
    side: Int64
    """(n,) 0 left, 1 right."""
    stain: Int64
    """(n,) index into `stain_names`."""
    brain: Int64
    """(n,) index into `brain_ids`."""
    from_border_um: Float64
    """(n,) to the nearest token outside the tissue."""
    section_ids: tuple[str, ...]
    area_names: tuple[str, ...]
    stain_names: tuple[str, ...]
    brain_ids: tuple[str, ...]
    token_um: float
    """Edge of a token, the largest there is."""

    def __len__(self) -> int:
        return len(self.tokens)

    def values(self) -> dict[str, Int64]:
        """What is known of every token (n,), by name."""
        return {
            AREAS: self.area,
            SIDES: self.side,
            SECTIONS: self.section,
            STAINS: self.stain,
            BRAINS: self.brain,
            BORDER: bands(self.from_border_um),
        }

    def names(self, of: str) -> Sequence[str]:
        """What the values of a name are called."""
        far = ["at the border", *("" for _ in range(3)), "far inside"]
        return {
            AREAS: self.area_names, SIDES: SIDE_NAMES, SECTIONS: self.section_ids, STAINS: self.stain_names,
            BRAINS: self.brain_ids, BORDER: far,
        }[of]  # fmt: skip

    def chosen(self, at: Int64) -> Self:
        """Some of them."""
        arrays = {one.name: getattr(self, one.name)[at] for one in fields(self) if _is_array(getattr(self, one.name))}
        return replace(self, **arrays)

    def to_bytes(self) -> bytes:
        """As an npz file."""
        held = io.BytesIO()
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        texts = {name: value for name, value in values.items() if not _is_array(value)}
        arrays = {name: value for name, value in values.items() if _is_array(value)}
        np.savez(held, allow_pickle=False, **arrays, texts=np.array(json.dumps(texts)))
        return held.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """From an npz file."""
        with np.load(io.BytesIO(content), allow_pickle=False) as held:
            texts = json.loads(str(held["texts"]))
            arrays = {name: held[name] for name in held if name != "texts"}
        texts = {name: tuple(value) if isinstance(value, list) else value for name, value in texts.items()}
        return cls(**arrays, **texts)


def together(brains: Mapping[str, KnownTokens]) -> KnownTokens:
    """The tokens of several brains as one: areas and stains are the same where they are called the same."""
    parts = list(brains.values())
    areas, stains = (list(dict.fromkeys(name for one in parts for name in getattr(one, key)))
                     for key in ("area_names", "stain_names"))  # fmt: skip
    starts = np.cumsum([0, *(len(one.section_ids) for one in parts)])
    return KnownTokens(
        tokens=np.concatenate([one.tokens for one in parts]),
        places_um=np.concatenate([one.places_um for one in parts]),
        section=np.concatenate([one.section + start for one, start in zip(parts, starts[:-1], strict=True)]),
        area=np.concatenate([_renamed(one.area, one.area_names, areas) for one in parts]),
        side=np.concatenate([one.side for one in parts]),
        stain=np.concatenate([_renamed(one.stain, one.stain_names, stains) for one in parts]),
        brain=np.concatenate([np.full(len(one), number, dtype=np.int64) for number, one in enumerate(parts)]),
        from_border_um=np.concatenate([one.from_border_um for one in parts]),
        section_ids=tuple(f"{brain}/{one}" for brain, part in brains.items() for one in part.section_ids),
        area_names=tuple(areas),
        stain_names=tuple(stains),
        brain_ids=tuple(brains),
        token_um=max(one.token_um for one in parts),
    )


def _renamed(index: Int64, names: Sequence[str], common: Sequence[str]) -> Int64:
    """Indices into one list of names as those into another that holds them all."""
    places = np.array([*(common.index(one) for one in names), UNKNOWN], dtype=np.int64)
    return np.asarray(places[index])


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)
