"""What features are worth: areas, layers, places, clusters and neighbours, on brains that were seen and that were not.

The same patches for every network. `seen` brains give labels, four fifths of their sections train; `transfer` brains
are pretrained on without labels; `unseen` ones take part in nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional

from benchmarks.pretraining_phantoms import BrainSet
from cytoarch.measures.overlap import accuracy, confusion_matrix, macro_f1, purity
from cytoarch.phantoms.anatomy import AREA_COUNT
from cytoarch.pretraining.augmentation import Draws, places_px
from cytoarch.pretraining.patches import PatchPoints, cut
from cytoarch.pretraining.probing import fit_linear_probe, fit_positions, with_constant

Int64 = NDArray[np.int64]
Reader = Callable[[Tensor], tuple[Tensor, Tensor]]
"""(n, 1, P, P) in [0, 1] -> embeddings of patches (n, d) and tokens of 8 px (n, e, P/8, P/8)."""
SPLITS = ("seen", "transfer", "unseen")
TOKEN_PX = 8
LAYERS = 7
"""Six layers and white matter; 0 is bare slide."""
SHARES = (0.01, 0.05, 0.1, 0.2, 1.0)
"""Of the labelled patches that a layer probe learns from."""
NEIGHBOURS = 5
CHUNK = 256
"""Patches read at once."""


@dataclass(frozen=True)
class Roles:
    """Which points of a set serve for what; bool (n,)."""

    pretraining: NDArray[np.bool_]
    labelled: NDArray[np.bool_]
    tests: dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Sizes:
    """How many patches are looked at."""

    per_area: int
    tests: int
    layer_train: int
    layer_tests: int
    neighbours: int


def roles_of(brains: BrainSet, seen: int, transfer: int) -> Roles:
    """The first brains are seen, the next are transfer brains, the others unseen; every fifth seen section tests."""
    points = brains.points
    held_out = brains.section_rank[points.section] % 5 == 2
    is_seen = points.brain < seen
    is_transfer = (points.brain >= seen) & (points.brain < seen + transfer)
    labelled = is_seen & ~held_out
    tests = {"seen": is_seen & held_out, "transfer": is_transfer, "unseen": points.brain >= seen + transfer}
    return Roles(labelled | is_transfer, labelled, tests)


def scores_of(read: Reader, brains: BrainSet, roles: Roles, sizes: Sizes, patch_px: int) -> dict[str, Any]:
    """Every score of one network."""
    rng = np.random.default_rng(0)
    areas = brains.points.label
    train = np.concatenate(
        [
            rng.permutation(np.flatnonzero(roles.labelled & (areas == area)))[: sizes.per_area]
            for area in range(AREA_COUNT)
        ]
    )
    tests = {split: rng.permutation(np.flatnonzero(roles.tests[split]))[: sizes.tests] for split in SPLITS}
    features = {split: embedded(read, brains, chosen, patch_px) for split, chosen in tests.items()}
    learned = embedded(read, brains, train, patch_px)
    device = learned.device
    probe = fit_linear_probe(learned, torch.from_numpy(areas[train]).to(device), AREA_COUNT)
    positions = fit_positions(learned, torch.from_numpy(brains.points.position_mm[train]).to(device), ridge=10.0)
    found: dict[str, Any] = {"areas": {}, "position_error_mm": {}}
    for split, chosen in tests.items():
        found["areas"][split] = _area_scores(probe(features[split]), areas[chosen])
        told = (with_constant(features[split]) @ positions).cpu().numpy()
        found["position_error_mm"][split] = np.abs(told - brains.points.position_mm[chosen]).mean(axis=0).tolist()
    everywhere = np.concatenate([one[: sizes.neighbours] for one in tests.values()])
    pooled = torch.cat([one[: sizes.neighbours] for one in features.values()])
    found["retrieval"] = retrieval(pooled, brains.points[everywhere])
    found["clusters"] = clusters(pooled, brains.points[everywhere])
    found["layers"] = layer_scores(read, brains, roles, sizes, patch_px)
    return found


def embedded(read: Reader, brains: BrainSet, chosen: Int64, patch_px: int) -> Tensor:
    """Embeddings (n, d) float32 of plain patches around points."""
    parts = []
    for at in range(0, len(chosen), CHUNK):
        some = brains.points[chosen[at : at + CHUNK]]
        parts.append(read(cut(brains.pixels, some, Draws.plain(len(some)), patch_px))[0].float())
    return torch.cat(parts)


def _area_scores(logits: Tensor, areas: Int64) -> dict[str, float]:
    order = logits.topk(3, dim=1).indices.cpu().numpy()
    counts = confusion_matrix(areas, order[:, 0], AREA_COUNT)
    return {
        "macro_f1": macro_f1(counts),
        "top1": accuracy(counts),
        "top3": float((order == areas[:, None]).any(axis=1).mean()),
    }


def retrieval(embeddings: Tensor, points: PatchPoints) -> dict[str, float]:
    """What the nearest neighbours of a patch share with it, beside what any other patch shares (`chance_`)."""
    unit = functional.normalize(embeddings.float(), dim=1)
    likeness = unit @ unit.T
    section, brain, area = (
        torch.from_numpy(one).to(unit.device) for one in (points.section, points.brain, points.label)
    )
    same = {name: one[:, None] == one for name, one in (("section", section), ("brain", brain), ("area", area))}
    found: dict[str, float] = {}

    def add(name: str, allowed: Tensor, shared: Tensor) -> None:
        nearest = likeness.masked_fill(~allowed, -torch.inf).topk(NEIGHBOURS, dim=1).indices
        found[name] = float(shared.gather(1, nearest).float().mean())
        found[f"chance_{name}"] = float(shared[allowed].float().mean())

    others = ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    add("same_section", others, same["section"])
    add("same_brain_of_other_sections", others & ~same["section"], same["brain"])
    add("same_area_of_other_brains", others & ~same["brain"], same["area"])
    return found


def clusters(embeddings: Tensor, points: PatchPoints) -> dict[str, float]:
    """Purity of as many k-means clusters as there are areas, by area and by brain, beside the largest class share."""
    values = functional.normalize(embeddings.float(), dim=1).cpu().numpy()
    assigned = KMeans(AREA_COUNT, n_init=1, random_state=0).fit_predict(values)
    found: dict[str, float] = {}
    for name, label in (("area", points.label), ("brain", points.brain)):
        counts = np.zeros((AREA_COUNT, int(label.max()) + 1), np.int64)
        np.add.at(counts, (assigned, label), 1)
        found[f"{name}_purity"] = purity(counts)
        found[f"{name}_largest_share"] = float(counts.sum(axis=0).max() / counts.sum())
    return found


def layer_scores(read: Reader, brains: BrainSet, roles: Roles, sizes: Sizes, patch_px: int) -> dict[str, Any]:
    """Macro-F1 of layers by token, learned from a share of the labelled patches."""
    rng = np.random.default_rng(1)
    train = rng.permutation(np.flatnonzero(roles.labelled))[: sizes.layer_train]
    tests = {split: rng.permutation(np.flatnonzero(roles.tests[split]))[: sizes.layer_tests] for split in SPLITS}
    learned = _tokens(read, brains, train, patch_px)
    looked_at = {split: _tokens(read, brains, chosen, patch_px) for split, chosen in tests.items()}
    found: dict[str, Any] = {}
    for share in SHARES:
        patches = max(1, round(share * len(train)))
        of_share = learned[2] < patches
        probe = fit_linear_probe(learned[0][of_share], learned[1][of_share], LAYERS + 1)
        found[f"{share:g}"] = {"patches": patches}
        for split, (features, layers, _) in looked_at.items():
            told = probe(features).argmax(dim=1).cpu().numpy()
            counts = confusion_matrix(layers.cpu().numpy(), told, LAYERS + 1)
            found[f"{share:g}"][split] = macro_f1(counts)
    return found


def _tokens(read: Reader, brains: BrainSet, chosen: Int64, patch_px: int) -> tuple[Tensor, Tensor, Tensor]:
    """Some tokens of patches: features (m, e), layers (m,), and whose they are (m,); none of the nucleus."""
    grid, kept = patch_px // TOKEN_PX, 64
    rng = np.random.default_rng(2)
    features, layers, whose = [], [], []
    for at in range(0, len(chosen), CHUNK):
        some = brains.points[chosen[at : at + CHUNK]]
        draws = Draws.plain(len(some))
        grids = read(cut(brains.pixels, some, draws, patch_px))[1].flatten(2)
        cells = np.argsort(rng.random((len(some), grid * grid)), axis=1)[:, :kept]
        there = torch.from_numpy(cells).to(grids.device)
        features.append(
            grids.gather(2, there[:, None].expand(-1, grids.shape[1], -1)).movedim(1, 2).flatten(0, 1).float()
        )
        truth = brains.places.at(some.section, places_px(some.centre_px, draws, patch_px, grid, cells)).ravel()
        layers.append(brains.places.layer[truth].astype(np.int64))
        whose.append(np.repeat(np.arange(at, at + len(some)), cells.shape[1]))
    layer, patch = np.concatenate(layers), np.concatenate(whose)
    told = np.flatnonzero(layer <= LAYERS)
    device = features[0].device
    chosen_there = torch.from_numpy(told).to(device)
    return (
        torch.cat(features)[chosen_there],
        torch.from_numpy(layer[told]).to(device),
        torch.from_numpy(patch[told]).to(device),
    )
