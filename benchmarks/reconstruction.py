"""How well phantom brains are put together, what planted damage does, and what it costs.

`python -m benchmarks.reconstruction FOLDER brain SEED ...` measures the brains of some seeds (two minutes each),
`planted SEED [KIND ...]` plants bad sections of every kind, or of some, `cost [SEED]` measures time and memory, `table`
writes what FOLDER holds into the README. Rendered sections are kept in FOLDER.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.ndimage import gaussian_filter1d
from skimage.feature import SIFT

from benchmarks.cases import write_block
from cytoarch.anatomy.reconstruction import (
    Overview,
    Reconstruction,
    ReconstructionSettings,
    Rigid,
    Stated,
    direct,
    features,
    links,
    reconstruct,
)
from cytoarch.anatomy.reconstruction.links import linked_back
from cytoarch.anatomy.tissue import TissueSettings, find_tissue
from cytoarch.errors import SectionError
from cytoarch.geometry import Grid
from cytoarch.phantoms.rendering import render
from cytoarch.phantoms.sections import (
    PhantomSection,
    PhantomSettings,
    Stain,
    Window,
    cut,
    make_phantom,
    section_count,
)

README = Path(__file__).parent / "README.md"
BLOCK = "reconstruction: written by python -m benchmarks.reconstruction"
SECTIONS, CELL_UM = 60, 64.0
ENDS = 0.06
"""Share of the brain at either end that shows hardly any cortex."""
STRETCH = range(20, 36)
"""Sections of the sixty that bad ones are planted into."""
SLOW_SECTIONS = 4.0
"""Standard deviation of the window that tells drift from error, in sections."""
STAINS: tuple[Stain, ...] = get_args(Stain)

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Subject:
    """A phantom brain: what was rendered, and what is true."""

    sections: tuple[PhantomSection, ...]
    overviews: Mapping[str, Overview]

    @property
    def stated(self) -> list[Stated]:
        """What a manifest would say that knows of no flip."""
        thickness = self.sections[0].phantom.settings.thickness_um
        return [
            Stated(name, one.number, z_um=one.number * thickness)
            for name, one in zip(self.names, self.sections, strict=True)
            if name in self.overviews
        ]

    @property
    def names(self) -> tuple[str, ...]:
        """By section."""
        return tuple(f"s{one.number:04d}" for one in self.sections)


def subject(folder: Path, seed: int, stain: Stain, stretch: range = range(SECTIONS)) -> Subject:
    """The brain of a seed with default nuisances, 60 sections from end to end but for those that were lost.

    A `stretch` holds some of the sixty.
    """
    phantom = make_phantom(PhantomSettings(seed=seed, stain=stain))
    whole = section_count(phantom)
    room = whole - 2 * int(ENDS * whole)
    step = room // SECTIONS
    first = int(ENDS * whole) + (room - step * (SECTIONS - 1)) // 2
    cuts = [cut(phantom, first + step * index) for index in stretch]
    kept = tuple(one for one in cuts if not one.mounting.missing)
    part = "" if len(stretch) == SECTIONS else f"-{stretch.start}-{stretch.stop}"
    path = folder / f"{seed}-{stain}{part}.npz"
    if path.exists():
        with np.load(path) as stored:
            pixels = dict(stored)
    else:
        pixels = {f"s{one.number:04d}": render(one, Window(0, 0, *one.size_px(CELL_UM)), CELL_UM) for one in kept}
        np.savez_compressed(path, **pixels)
    found = {name: overview_of(one) for name, one in pixels.items()}
    return Subject(kept, {name: one for name, one in found.items() if one is not None})


def overview_of(pixels: NDArray[Any]) -> Overview | None:
    """A scan at overview size with its tissue; None where none can be found, as in a run."""
    planes = np.moveaxis(pixels.reshape(*pixels.shape[:2], -1), -1, 0).astype(np.float32)
    try:
        tissue = find_tissue(planes, CELL_UM, TissueSettings())
    except SectionError:
        return None
    grid = Grid.at_corner((pixels.shape[0], pixels.shape[1]), CELL_UM, (0.0, 0.0))
    return Overview(planes.mean(axis=0), tissue.mask, grid, tissue.polarity, len(planes))


# -- how far from the truth


def places(brain: Reconstruction, known: Subject, left_out: Sequence[str] = ()) -> dict[str, tuple[Float64, Float64]]:
    """Places in the tissue of linked sections, (n, 2) um, as reconstructed and as they truly are.

    What is true is shrunk by the mean shrinkage of all sections, which no series of sections can tell.
    """
    found = {}
    shrunk = 1 - known.sections[0].phantom.settings.nuisances.shrinkage
    for name, section in zip(known.names, known.sections, strict=True):
        if name in left_out or name not in brain.sections or not brain[name].linked:
            continue
        overview = known.overviews[name]
        slide_um = overview.grid.um(np.argwhere(overview.mask)[::97])
        plane_mm = (slide_um / 1000) @ section.to_plane[:, :2].T + section.to_plane[:, 2]
        found[name] = brain[name].plane(slide_um), plane_mm * 1000 * shrunk
    return found


def in_one_frame(pairs: Mapping[str, tuple[Float64, Float64]], z: Mapping[str, float]) -> list[Float64]:
    """Reconstructed places brought to the true frame by one rigid map of the brain and the shear of an oblique cut."""
    ours, true = (np.concatenate([pair[k] for pair in pairs.values()]) for k in (0, 1))
    along = np.concatenate([np.full(len(pair[0]), z[name]) for name, pair in pairs.items()])
    along = (along - along.mean()) / np.ptp(along)
    shear = np.zeros(2)
    for _ in range(5):
        rigid = Rigid.fitted(ours, true - along[:, None] * shear)
        shear = (along[:, None] * (true - rigid(ours))).sum(axis=0) / (along**2).sum()
    ends = np.cumsum([len(pair[0]) for pair in pairs.values()])[:-1]
    return np.split(rigid(ours) + along[:, None] * shear, ends)


def errors(brain: Reconstruction, known: Subject, left_out: Sequence[str] = ()) -> dict[str, float]:
    """Distances of places from where they belong (um): as they are, without the slow drift, and the least possible."""
    pairs = places(brain, known, left_out)
    moved = in_one_frame(pairs, {name: float(brain[name].section_number) for name in pairs})
    true = [pair[1] for pair in pairs.values()]
    exact = [Rigid.fitted(ours, where) for ours, where in zip(moved, true, strict=True)]
    middle = np.concatenate(true).mean(axis=0)
    turns = gaussian_filter1d([one.angle_deg for one in exact], SLOW_SECTIONS, mode="nearest")
    shifts = gaussian_filter1d([one(middle) - middle for one in exact], SLOW_SECTIONS, axis=0, mode="nearest")
    undrifted = [
        Rigid(False, float(turn), (0.0, 0.0)).about(
            (float(middle[0]), float(middle[1])), (float(middle[0] + dy), float(middle[1] + dx))
        )(ours)
        for ours, turn, (dy, dx) in zip(moved, turns, shifts, strict=True)
    ]
    best = [one(ours) for one, ours in zip(exact, moved, strict=True)]
    figures: dict[str, float] = {}
    for name, found in (("all", moved), ("chain", undrifted), ("least", best)):
        apart = np.concatenate([np.linalg.norm(a - b, axis=1) for a, b in zip(found, true, strict=True)])
        figures |= {f"{name}_median_um": float(np.median(apart)), f"{name}_p95_um": float(np.percentile(apart, 95))}
    drift = [float(np.hypot(*(np.median(a - b, axis=0)))) for a, b in zip(moved, undrifted, strict=True)]
    return {**figures, "drift_median_um": float(np.median(drift)), "drift_most_um": max(drift)}


def measured(folder: Path, seed: int, stain: Stain) -> dict[str, Any]:
    """One brain: flips found and invented, sections without links, errors, time."""
    known = subject(folder, seed, stain)
    start = time.process_time()
    brain = reconstruct("P", known.stated, known.overviews)
    seconds = time.process_time() - start
    mirrored = {name for name, one in zip(known.names, known.sections, strict=True) if one.mounting.mirrored}
    found = {one.section_id for one in brain if one.flipped}
    return {
        "seed": seed,
        "stain": stain,
        "sections": len(brain),
        "linked": sum(one.linked for one in brain),
        "mirrored": len(mirrored),
        "found": len(found & mirrored),
        "invented": len(found - mirrored),
        "out_of_order": sum("fits better" in text for flags in brain.flagged.values() for text in flags),
        "seconds": seconds,
        **errors(brain, known),
    }


# -- planted damage


def planted(folder: Path, seed: int, kinds: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Bad sections planted one kind at a time into a stretch of a brain; how far the others get from the truth."""
    stretch = subject(folder, seed, "silver", STRETCH)
    rows = []
    for kind in kinds or PLANTED:
        victims, overviews = PLANTED[kind](stretch)
        brain = reconstruct("P", [one for one in stretch.stated if one.section_id in overviews], overviews)
        pairs = errors(brain, replace(stretch, overviews=overviews), left_out=victims)
        mirrored = {name for name, one in zip(stretch.names, stretch.sections, strict=True) if one.mounting.mirrored}
        flags = {name: list(texts) for name, texts in brain.flagged.items()}
        lost = [name for name in stretch.names if name not in overviews]
        rows.append(
            {
                "kind": kind,
                "victims": victims,
                "reasons": {one: "no tissue was found in it" if one in lost else flags.get(one, []) for one in victims},
                "others": {one: texts for one, texts in flags.items() if one not in {*victims, *mirrored}},
                **pairs,
            }
        )
    return rows


Change = Callable[[Subject], tuple[list[str], dict[str, Overview]]]


def _noise(known: Subject) -> tuple[list[str], dict[str, Overview]]:
    name = known.names[9]
    shape = known.overviews[name].grid.shape
    noise = overview_of(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))
    return [name], {one: each for one, each in known.overviews.items() if one != name} | (
        {} if noise is None else {name: noise}
    )


def _empty(known: Subject) -> tuple[list[str], dict[str, Overview]]:
    name = known.names[9]
    shape = known.overviews[name].grid.shape
    slide = np.clip(235 + np.random.default_rng(0).normal(0, 1.5, shape), 0, 255).astype(np.uint8)
    empty = overview_of(slide)
    return [name], {one: each for one, each in known.overviews.items() if one != name} | (
        {} if empty is None else {name: empty}
    )


def _other_stain(known: Subject) -> tuple[list[str], dict[str, Overview]]:
    name, section = known.names[9], known.sections[9]
    settings = section.phantom.settings.model_copy(update={"stain": "dapi"})
    same = cut(make_phantom(settings), section.number)
    seen = overview_of(render(same, Window(0, 0, *same.size_px(CELL_UM)), CELL_UM))
    return [name], {one: each for one, each in known.overviews.items() if one != name} | (
        {} if seen is None else {name: seen}
    )


def _upside_down(known: Subject) -> tuple[list[str], dict[str, Overview]]:
    name = known.names[9]
    one = known.overviews[name]
    turned = replace(one, grey=one.grey[::-1, ::-1], mask=one.mask[::-1, ::-1])
    return [name], {**known.overviews, name: turned}


def _swapped(known: Subject) -> tuple[list[str], dict[str, Overview]]:
    one, other = known.names[6], known.names[12]
    return [one, other], {**known.overviews, one: known.overviews[other], other: known.overviews[one]}


def _neighbours_swapped(known: Subject) -> tuple[list[str], dict[str, Overview]]:
    one, other = known.names[9], known.names[10]
    return [one, other], {**known.overviews, one: known.overviews[other], other: known.overviews[one]}


def _all_at_once(known: Subject) -> tuple[list[str], dict[str, Overview]]:
    """Noise, an empty slide, another stain, one upside down and two neighbours swapped, in one stretch."""
    victims: list[str] = []
    overviews = dict(known.overviews)
    for first, change in ((-7, _noise), (-5, _empty), (-2, _other_stain), (1, _upside_down), (4, _neighbours_swapped)):
        held = known.sections[first:] + known.sections[:first]  # changes take the tenth
        moved = replace(known, sections=held, overviews=overviews)
        names, overviews = change(moved)
        victims += names
    return victims, overviews


PLANTED: Mapping[str, Change] = {
    "nothing": lambda known: ([], dict(known.overviews)),
    "noise": _noise,
    "an empty slide": _empty,
    "another stain": _other_stain,
    "upside down": _upside_down,
    "two swapped, six apart": _swapped,
    "two neighbours swapped": _neighbours_swapped,
    "all of these at once": _all_at_once,
}


# -- what it costs


def cost(folder: Path, seed: int) -> dict[str, Any]:
    """Seconds that it takes to link a section, of which within calls of libraries, and the memory that is added."""
    known = subject(folder, seed, "silver", STRETCH)
    sections = [(one.section_id, known.overviews[one.section_id]) for one in known.stated]
    settings, inside = ReconstructionSettings(), Inside()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with ExitStack() as stack:
        for owner, name in LIBRARY:
            stack.enter_context(patch.object(owner, name, inside.timed(getattr(owner, name))))
        start = time.process_time()
        for at, section in enumerate(sections):
            linked_back(section, sections[max(0, at - settings.reach) : at], CELL_UM, settings)
        seconds = time.process_time() - start
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    picture = int(np.prod(sections[0][1].grid.shape)) * 4
    return {
        "ours_s": seconds / len(sections),
        "library_s": inside.seconds / len(sections),
        "added_bytes": added,
        "picture_bytes": picture,
    }


class Inside:
    """Seconds spent in calls of libraries; one within another counts once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._within = False

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, whose time is added."""

        def timed(*arguments: Any, **named: Any) -> Any:
            if self._within:
                return call(*arguments, **named)
            self._within, start = True, time.process_time()
            try:
                return call(*arguments, **named)
            finally:
                self.seconds += time.process_time() - start
                self._within = False

        return timed


LIBRARY: tuple[tuple[Any, str], ...] = (
    *((SIFT, "detect_and_extract"), (features, "match_descriptors"), (features, "ransac")),
    *((ndimage, "affine_transform"), (ndimage, "gaussian_filter"), (ndimage, "binary_fill_holes")),
    *((ndimage, "binary_dilation"), (ndimage, "binary_erosion"), (direct, "rfft2"), (direct, "irfft2")),
    *((links, "cKDTree"), (np, "gradient"), (np, "einsum"), (np, "median"), (np, "corrcoef"), (np.linalg, "lstsq")),
)
"""What linking calls: scikit-image, scipy, and what of numpy takes long."""


def table(folder: Path) -> str:
    """What was measured, as tables."""
    brains = [json.loads(path.read_text()) for path in sorted(folder.glob("brain-*.json"))]
    columns = [
        *("seed, stain", "sections (linked)", "mirrored: found, invented", "as it is", "without slow drift"),
        *("least possible", "drift: median, most", "CPU s"),
    ]
    lines = ["Distances from the truth in um: median / 95th percentile.", ""]
    lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for one in sorted(brains, key=lambda row: row["seed"]):
        pairs = [f"{one[f'{name}_median_um']:.0f} / {one[f'{name}_p95_um']:.0f}" for name in ("all", "chain", "least")]
        lines.append(
            f"| {one['seed']}, {one['stain']} | {one['sections']} ({one['linked']}) "
            f"| {one['mirrored']}: {one['found']}, {one['invented']} | {' | '.join(pairs)} "
            f"| {one['drift_median_um']:.0f}, {one['drift_most_um']:.0f} | {one['seconds']:.0f} |"
        )
    for path in sorted(folder.glob("planted-*.json")):
        lines += ["", f"Seed {path.stem.removeprefix('planted-')}, {len(STRETCH)} sections:"]
        lines += ["", "| planted | the others, without slow drift | what is said of it |", "|---|---|---|"]
        for row in json.loads(path.read_text()):
            said = "; ".join(f"{one}: {_listed(why)}" for one, why in row["reasons"].items())
            lines.append(f"| {row['kind']} | {row['chain_median_um']:.0f} / {row['chain_p95_um']:.0f} | {said} |")
    for path in folder.glob("cost.json"):
        one = json.loads(path.read_text())
        said = (
            f"Linking a section to the three before it takes {one['ours_s']:.2f} s of one core, "
            f"{one['library_s']:.2f} s of them in scikit-image, scipy and numpy themselves: "
            f"{one['library_s'] / one['ours_s']:.2f}. Memory grew by {one['added_bytes'] / 1e6:.0f} MB; a picture of "
            f"64 um has {one['picture_bytes'] / 1e6:.1f} MB."
        )
        lines += ["", said]
    return "\n".join(lines)


def _listed(why: str | Sequence[str]) -> str:
    return why if isinstance(why, str) else ", ".join(why)


def main(arguments: Sequence[str]) -> int:
    """Measure what is asked for."""
    folder, what, *rest = Path(arguments[0]), *arguments[1:]
    folder.mkdir(parents=True, exist_ok=True)
    if what == "brain":
        for seed in map(int, rest):
            row = measured(folder, seed, STAINS[seed % len(STAINS)])
            print(row, flush=True)
            (folder / f"brain-{seed}.json").write_text(json.dumps(row))
    elif what == "planted":
        rows = planted(folder, int(rest[0]), rest[1:])
        print(json.dumps(rows, indent=1))
        (folder / f"planted-{rest[0]}.json").write_text(json.dumps(rows))
    elif what == "cost":
        row = cost(folder, int(rest[0]) if rest else 0)
        print(row)
        (folder / "cost.json").write_text(json.dumps(row))
    elif what == "table":
        body = table(folder)
        print(body)
        write_block(README, BLOCK, body)
    else:
        print(__doc__)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
