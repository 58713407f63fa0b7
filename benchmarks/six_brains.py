"""Areas and layers of phantoms: learned from four brains, told in a transfer brain and in one kept back.

`python -m benchmarks.six_brains` (some twenty-five minutes of one core) writes the table into the README. Six
individuals with default nuisances, eight sections each at 25 um. Of the four that are learned from, every fifth section
and a block are held out (`seen`). Layers are told in all tissue, areas within cortex. Chance is what the same shares
of classes would score if they were dealt out blindly. Everything in the folder of `--work-path` is kept: a run that was
cut off goes on where it ended; scores only where they are of the same settings and as many sections.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import kept, write_block
from benchmarks.embedding import vit_b
from benchmarks.layers import prepared
from cytoarch.brains import Label, LabelClass, LabelTable, read_manifest
from cytoarch.embeddings import EmbedSettings
from cytoarch.embeddings.settings import ACROSS_BRAINS
from cytoarch.encoders.registry import load_encoder
from cytoarch.geometry import Grid
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.datasets import LabelledSection
from cytoarch.learning.evaluation import Score, score_head
from cytoarch.learning.heads import Head
from cytoarch.learning.penalties import DEFAULT_PENALTY, choose_penalty
from cytoarch.learning.probes import Probe, fit_probe
from cytoarch.learning.splits import split_sections
from cytoarch.learning.studies import Role, StudyBrain, joined, sizes
from cytoarch.learning.training import ContextSettings, HeadSettings, ProbeSettings, sample_tokens, train_head
from cytoarch.measures.neighbours import adjacent, errors_by_hops, hops, together, within_one
from cytoarch.measures.overlap import accuracy, class_scores, macro_f1, mean_of_defined
from cytoarch.phantoms.anatomy import AREA_COUNT
from cytoarch.phantoms.scribbles import Target, label_image
from cytoarch.phantoms.sections import PhantomSection, Window
from cytoarch.phantoms.writing import PhantomRequest, WrittenPhantom, label_rows, write_phantom
from cytoarch.sampling import OnDemand
from cytoarch.steps import EmbeddingsStep, open_brain
from cytoarch.steps.opened import OpenBrain, read_only
from cytoarch.steps.scales import ScaleStep
from cytoarch.steps.step import Place, Stored
from cytoarch.steps.tissue import TISSUE

README = Path(__file__).parent / "README.md"
BLOCK = "six brains: written by python -m benchmarks.six_brains"
SEEDS, SECTIONS, PIXEL_UM = (101, 102, 103, 104, 105, 106), 8, 25.0
TOKENS_PER_CLASS = 200
ROLES: tuple[Role, ...] = ("seen", "seen", "seen", "seen", "transfer", "unseen")
KINDS: tuple[Role, ...] = ("seen", "transfer", "unseen")
TARGETS: tuple[Target, ...] = ("layers", "areas")
FAR = 3
"""Borders off, from which errors are counted together."""


@dataclass(frozen=True)
class TrueLabels:
    """What a section truly shows, read as a label image is."""

    section: PhantomSection
    target: Target
    pixel_size_um: float

    @cached_property
    def _ids(self) -> NDArray[np.uint8]:
        height, width = self.section.size_px(self.pixel_size_um)
        ids = label_image(self.section, self.target, Window(0, 0, height, width), self.pixel_size_um)
        return np.where(ids > AREA_COUNT, 0, ids).astype(np.uint8) if self.target == "areas" else ids

    @property
    def grid(self) -> Grid:
        """Where its pixels lie."""
        return Grid(self._ids.shape, self.pixel_size_um, (0.0, 0.0))

    def pixels(self, y: slice = slice(None), x: slice = slice(None)) -> NDArray[Any]:
        """Ids (h, w) of a window; 0: nothing is labelled."""
        return self._ids[y, x]


class Method(NamedTuple):
    """How brains are seen, and what learns."""

    embed: EmbedSettings
    head: HeadSettings
    layers: slice | None = None
    """Which of the layers of a token are seen; None: all."""
    values: int | None = None
    """How many values of them, the first ones, are seen; None: all."""


def methods(work: Path) -> Mapping[str, Method]:
    """All that are compared, by name."""
    probe = ProbeSettings(tokens_per_class=TOKENS_PER_CLASS)
    joined_up = EmbedSettings(encoder=ACROSS_BRAINS)
    vit = work / "vitb"
    if not vit.is_dir():
        vit_b(vit)
    random_vit = EmbedSettings(encoder=f"dinov3:{vit.resolve()}", precision="bf16", blocks=(12,))
    return {
        "grey level alone": Method(joined_up, probe, slice(1), 1),
        "intensity profiles": Method(EmbedSettings(encoder="profile"), probe),
        "`texture`": Method(joined_up, probe, slice(1)),
        "`lite0:3,4`": Method(joined_up, probe, slice(1, None)),
        f"`{ACROSS_BRAINS}`": Method(joined_up, probe),
        f"`{ACROSS_BRAINS}`, context head": Method(joined_up, ContextSettings()),
        "DINOv3 ViT-B/16 of random weights": Method(random_vit, probe),
    }


@cache
def embedded(work: Path, seed: int, embed: EmbedSettings, sections: int) -> tuple[WrittenPhantom, OpenBrain, str]:
    """An individual, written, ingested and embedded as far as it is not yet; and the name of its embeddings."""
    name, of = f"P{seed}", work / f"sections-{sections}"
    folder, store = of / name, of / "store"
    if not (folder / "manifest.csv").is_file():
        write_phantom(folder, name, PhantomRequest(seed=seed, sections=sections, pixel_size_um=PIXEL_UM))
    (stated,) = read_manifest(folder / "manifest.csv", folder, folder / "labels.csv")
    with open_brain(store, stated) as brain:
        step = prepared(brain, folder, embed)
    return WrittenPhantom(folder), read_only(store, name), step.name


def brain_of(work: Path, seed: int, role: Role, embed: EmbedSettings, target: Target, sections: int) -> StudyBrain:
    """An individual with its true labels."""
    written, opened, name = embedded(work, seed, embed, sections)
    embeddings, scale = Stored(EmbeddingsStep, name), Stored(ScaleStep, name).open(Place(opened))
    ids = written.section_ids
    labels = [TrueLabels(written.section(one), target, written.pixel_size_um) for one in ids]

    def section(at: int) -> LabelledSection:
        place = Place(opened, opened.rows[ids[at]])
        found = embeddings.open(place).measured_in(scale)
        return LabelledSection(ids[at], found, labels[at], TISSUE.open(place))

    return StudyBrain(f"P{seed}", role, OnDemand(len(ids), section), split_sections(ids))


def classes_of(target: Target) -> tuple[LabelClass, ...]:
    """The classes that are told."""
    rows = label_rows(target)[: AREA_COUNT if target == "areas" else None]
    return LabelTable(labels=tuple(Label(id=int(str(one["id"])), name=str(one["name"])) for one in rows)).classes(
        by_group=False
    )


def card_of(method: Method, brains: Sequence[StudyBrain], target: Target) -> HeadCard:
    """What the head is."""
    first, encoder = brains[0].sections[0].embeddings, load_encoder(method.embed)
    return HeadCard(
        kind="context" if isinstance(method.head, ContextSettings) else "probe",
        target=target,
        classes=classes_of(target),
        dims=first.dims,
        cells_per_token=1,
        embedding=method.embed,
        encoder_digest=encoder.digest,
        token_px=encoder.tiles.token_px,
        pixel_size_um=PIXEL_UM,
        standardise="brain",
    )


def learned(method: Method, card: HeadCard, brains: Sequence[StudyBrain]) -> tuple[Head, float | None]:
    """A head of the training sections of the brains that are seen, and how strongly it was held."""
    parts = [one.chosen(one.split.train) for one in brains if one.role == "seen"]
    if method.layers is None:
        head, facts = train_head(card, method.head, joined(parts), groups=sizes(parts))
        return head, facts.get("regularisation")
    sample = sample_tokens(joined(parts), card.classes, TOKENS_PER_CLASS, 0)
    first = sum(card.dims[: method.layers.start or 0])
    dims = (method.values,) if method.values else card.dims[method.layers]
    seen = slice(first, first + sum(dims))
    tokens = sample.tokens[:, seen]
    chosen = choose_penalty(dims, tokens, sample.strata, sample.sections, sizes(parts))
    penalty = chosen.regularisation if chosen else DEFAULT_PENALTY
    probe, _ = fit_probe(card.model_copy(update={"dims": dims}), tokens, sample.strata, penalty)
    weight = np.zeros((len(card.classes), sum(card.dims)), dtype=np.float32)
    weight[:, seen] = probe.weight
    return Probe(card, weight, probe.bias), penalty


def scored(head: Head, brains: Sequence[StudyBrain]) -> Mapping[Role, Score]:
    """By kind of brain: the sections held out of those that are seen, the others whole."""
    found: dict[Role, list[Score]] = {}
    for one in brains:
        sections = one.chosen(one.split.held_out) if one.role == "seen" else one.sections
        found.setdefault(one.role, []).append(score_head(head, sections))
    return {role: Score.joined(scores) for role, scores in found.items()}


def figures(scores: Mapping[Role, Score], penalty: float | None) -> dict[str, Any]:
    """What is kept of the scores, as JSON values."""
    near = adjacent(together(one.touches for one in scores.values()))
    far = hops(near, len(scores["seen"].confusion))
    found: dict[str, Any] = {"penalty": penalty}
    for role, score in scores.items():
        errors = errors_by_hops(score.confusion, far)
        found[role] = {
            "macro_f1": macro_f1(score.confusion),
            "chance": blind(score.confusion),
            "top1": accuracy(score.confusion),
            "top3": score.top3,
            "within_one_hop": within_one(errors),
            "hops": [[one, cells] for one, cells in errors.items()],
        }
    return found


def blind(confusion: NDArray[np.int64]) -> float:
    """Macro-F1 that the same shares of classes have where they are dealt out blindly.

    >>> blind(np.array([[3, 1], [1, 3]]))
    0.5
    """
    present, told = confusion.sum(axis=1), confusion.sum(axis=0)
    return mean_of_defined(class_scores(np.outer(present, told)).f1)


def table(found: Mapping[Target, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """The rows, by target and method."""
    lines = []
    for target, by_method in found.items():
        lines += ["", f"**{target.capitalize()}**, macro-F1 (chance) and top-1 of kinds of brains:", ""]
        lines += ["| seen by | seen | transfer | unseen | top-1 | errors by borders off: 1, 2, 3 or more, % | |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for name, one in by_method.items():
            scores = " | ".join(f"{one[kind]['macro_f1']:.3f} ({one[kind]['chance']:.3f})" for kind in KINDS)
            top1 = ", ".join(f"{one[kind]['top1']:.2f}" for kind in KINDS)
            shares = "; ".join(histogram(one[kind]["hops"]) for kind in KINDS)
            penalty = "" if one["penalty"] is None else f"penalty {one['penalty']:.3g}"
            lines.append(f"| {name} | {scores} | {top1} | {shares} | {penalty} |")
    return lines[1:]


def histogram(errors: Sequence[Sequence[int | None]]) -> str:
    """Shares of errors that are one, two, and more borders off, in percent."""
    total = sum(cells or 0 for _, cells in errors)
    counts = dict.fromkeys(range(1, FAR + 1), 0)
    for far, cells in errors:
        counts[FAR if far is None else min(far, FAR)] += cells or 0
    return "/".join(f"{100 * cells / max(1, total):.0f}" for cells in counts.values())


def main(given: Sequence[str] | None = None) -> int:
    """Measure what is not kept yet, print and write the table; 1 if grey level alone tells areas."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-path", type=Path, default=Path("work/six-brains"))
    parser.add_argument("--sections", type=int, default=SECTIONS)
    parser.add_argument("--only", default="", help="Methods whose name holds this.")
    asked = parser.parse_args(given)
    folder = asked.work_path / "scores"
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[Target, dict[str, Mapping[str, Any]]] = {target: {} for target in TARGETS}
    for number, (name, method) in enumerate(methods(asked.work_path).items()):
        for target in TARGETS if asked.only in name else ():
            path = folder / f"{number}-{target}.json"
            wanted = {"sections": asked.sections, "method": repr(method)}
            scores = kept(path, wanted).get("scores")
            if scores is None:
                brains = [
                    brain_of(asked.work_path, seed, role, method.embed, target, asked.sections)
                    for seed, role in zip(SEEDS, ROLES, strict=True)
                ]
                head, penalty = learned(method, card_of(method, brains, target), brains)
                scores = json.loads(json.dumps(figures(scored(head, brains), penalty)))
                path.write_text(json.dumps({**wanted, "scores": scores}))
            found[target][name] = scores
            print(target, name, found[target][name], flush=True)
    lines = table(found)
    print("\n".join(lines))
    if asked.sections == SECTIONS and not asked.only:
        write_block(README, BLOCK, "\n".join(lines))
    greys = [found["areas"]["grey level alone"][kind] for kind in KINDS] if "grey level alone" in found["areas"] else []
    return int(any(one["macro_f1"] > 2 * one["chance"] for one in greys))


if __name__ == "__main__":
    sys.exit(main())
