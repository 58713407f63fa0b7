"""Tokens of which all is known, made up."""

import numpy as np

from cytoarch.discovery.known import KnownTokens
from cytoarch.discovery.quality import UNKNOWN


def known_tokens(
    count: int = 400, seed: int = 0, brain: str = "B1", areas: tuple[str, ...] = ("a", "b")
) -> KnownTokens:
    """Tokens of two areas on four sections, two of each stain, with embeddings of their area alone."""
    rng = np.random.default_rng(seed)
    area, section = rng.integers(0, 2, count), rng.integers(0, 4, count)
    tokens = np.eye(6)[area] * 3 + rng.normal(0, 0.5, (count, 6))
    return KnownTokens(
        tokens=tokens.astype(np.float32),
        places_um=rng.uniform(0, 1e5, (count, 2)),
        section=section,
        area=area,
        side=np.full(count, UNKNOWN),
        stain=section // 2,
        brain=np.zeros(count, dtype=np.int64),
        from_border_um=rng.uniform(0, 1e3, count),
        section_ids=("s0", "s1", "s2", "s3"),
        area_names=areas,
        stain_names=("nissl", "silver"),
        brain_ids=(brain,),
        token_um=16.0,
    )
