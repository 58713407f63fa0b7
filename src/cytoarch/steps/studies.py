"""Studies: one model of several brains, kept with its scores by brain and kind of brain."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.brains import Brain, LabelTable
from cytoarch.digests import canonical_json, files_digest
from cytoarch.embeddings import EmbedSettings, Scale, SectionEmbeddings, check_same_dims
from cytoarch.errors import ModelError, TrainingError
from cytoarch.images.views import StoredImage
from cytoarch.learning.cards import CARD_FILE, WEIGHTS_FILE, HeadCard, Standardise
from cytoarch.learning.datasets import LabelledSection, token_sources
from cytoarch.learning.domain import domain_of
from cytoarch.learning.heads import head_files
from cytoarch.learning.label_tables import merged_table
from cytoarch.learning.splits import split_sections
from cytoarch.learning.studies import (
    HEADLINES,
    SUMMED,
    Role,
    StudyBrain,
    StudyRow,
    by_seed,
    deviation,
    headline_rows,
    joined,
    mean,
    run_study,
    summed,
)
from cytoarch.learning.training import HeadSettings, Kind, cells_per_token
from cytoarch.sampling import OnDemand
from cytoarch.steps.scales import scale_of
from cytoarch.steps.sections import LABELS, PixelsDigest
from cytoarch.steps.sources import Each, FactsOf, OfBrain, Sections, Statements
from cytoarch.steps.step import Facts, Inputs, Place, Source, Step, Stored
from cytoarch.steps.tissue import TISSUE
from cytoarch.steps.training import METRICS_FILE, target_name
from cytoarch.store.staging import Staging

SCORES_FILE = "scores.csv"
HOPS_FILE = "hops.csv"
NEAR = 1 / 3
"""Sections nearer to each other than this share of the median distance are neighbours that no split separates."""


class LabelledBrain(NamedTuple):
    """What is learned from of one brain."""

    stated: Brain
    embeddings: Sections[SectionEmbeddings]
    embedded: Sections[Facts]
    labels: Sections[StoredImage]
    tissue: Sections[TissueMask]
    pixels: Sections[str]
    scale: Scale | None


@dataclass(frozen=True)
class LabelledSource(Source[LabelledBrain]):
    """The labelled and embedded sections of a brain."""

    embeddings: Stored[SectionEmbeddings]
    standardise: Standardise

    @property
    def _parts(self) -> dict[str, Source[Any]]:
        labelled = (self.embeddings, LABELS)
        parts: dict[str, Source[Any]] = {
            "stated": Statements(),
            "embeddings": Each(self.embeddings, labelled),
            "embedded": Each(FactsOf(self.embeddings), labelled),
            "labels": Each(LABELS, labelled),
            "tissue": Each(TISSUE, labelled),
            "pixels": Each(PixelsDigest(), labelled),
        }
        scale = scale_of(self.standardise, self.embeddings)
        return parts if scale is None else {**parts, "scale": scale}

    def digests(self, place: Place) -> Mapping[str, str]:
        """Those of all its parts."""
        return {
            f"{name}/{part}" if part else name: digest
            for name, source in self._parts.items()
            for part, digest in source.digests(place).items()
        }

    def open(self, place: Place) -> LabelledBrain:
        """The sections, opened as they are asked for."""
        return LabelledBrain(**{"scale": None, **{name: one.open(place) for name, one in self._parts.items()}})


class Member(NamedTuple):
    """A brain of a study, and what it is there for."""

    role: Role
    source: OfBrain[LabelledBrain]


@dataclass(frozen=True)
class Members(Source[Mapping[str, LabelledBrain]]):
    """The brains of a study."""

    brains: tuple[Member, ...]

    def digests(self, place: Place) -> Mapping[str, str]:
        """Those of every brain, and what it is there for."""
        found: dict[str, str] = {f"{one.source.brain_id}/role": one.role for one in self.brains}
        for one in self.brains:
            found |= {f"{one.source.brain_id}/{part}": value for part, value in one.source.digests(place).items()}
        return found

    def open(self, place: Place) -> Mapping[str, LabelledBrain]:
        """What is learned from of each."""
        return {one.source.brain_id: one.source.open(place) for one in self.brains}


class StudyResult(NamedTuple):
    """A study, read back."""

    scores: Sequence[Mapping[str, Any]]
    """Of every model, brain, part and seed: these, and the figures and classes of the score."""
    head: Mapping[str, bytes]
    """The files of the head."""


@dataclass(frozen=True)
class StudyStep(Step[StudyResult]):
    """One model of several brains, with the scores of models that had not seen what they were scored on."""

    step: ClassVar[str] = "training"
    version: ClassVar[int] = 5
    scope: ClassVar = "study"
    verb: ClassVar[str] = "study"

    kind: Kind
    train: HeadSettings
    seeds: tuple[int, ...]
    embedding: str
    members: Members

    @classmethod
    def of(
        cls,
        roles: Mapping[str, Role],
        embeddings: Stored[SectionEmbeddings],
        kind: Kind,
        train: HeadSettings,
        seeds: tuple[int, ...],
    ) -> "StudyStep":
        """The study of one kind of head on one way of embedding, by brain -> what it is there for."""
        if train.depth != "none":
            raise TrainingError(f"a study learns without depth, {train.depth!r} is asked for; leave the depth out")
        source = LabelledSource(embeddings, train.standardise)
        members = tuple(Member(role, OfBrain(brain_id, source)) for brain_id, role in roles.items())
        return cls(kind, train, seeds, embeddings.name, Members(members))

    @property
    def name(self) -> str:
        """What is learned, by what, from what."""
        return f"{target_name(self.train)}-{self.kind}-{self.embedding}"[:64]

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Fit and score; raises TrainingError if a brain has nothing to learn from or tables do not fit each other."""
        opened = inputs[self.members]
        roles = {one.source.brain_id: one.role for one in self.members.brains}
        card = self._card(opened, [one for one, role in roles.items() if role == "seen"])
        brains = [study_brain(one, roles[one], parts, self.train.by_group) for one, parts in opened.items()]
        head, fit, rows = run_study(card, self.train, brains, self.seeds, inputs.on_progress)
        seen = joined([one.sections for one in brains if one.role == "seen"])
        domain = domain_of(token_sources(seen, card.classes), len(card.classes), self.train.seed)
        files = head_files(head, domain)
        for name, content in files.items():
            staging.write(name, content)
        part, hardest = headline_rows(rows)
        staging.write(METRICS_FILE, canonical_json(_metrics(rows, card)).encode())
        staging.write(SCORES_FILE, scores_table(rows, roles).encode())
        staging.write(HOPS_FILE, hops_table(rows, roles).encode())
        return {
            "model": files_digest(files),
            "fit": fit,
            "headline": part,
            "scores": _headline(hardest, rows),
            "roles": roles,
            "sections": {one: list(parts.embeddings) for one, parts in opened.items()},
        }

    def _card(self, opened: Mapping[str, LabelledBrain], seen: Sequence[str]) -> HeadCard:
        tables: dict[str, LabelTable] = {}
        kinds: dict[tuple[Any, ...], str] = {}
        for brain_id, parts in opened.items():
            if parts.stated.label_table is None or not parts.embeddings:
                raise TrainingError(f"brain {brain_id} has no embedded section with labels; a study needs some of each")
            tables[brain_id] = parts.stated.label_table
            facts = next(iter(parts.embedded.values()))
            dims = check_same_dims((one, parts.embeddings[one]) for one in parts.embeddings)
            kinds.setdefault((dims, facts["encoder_digest"], facts["token_px"], facts["pixel_size_um"]), brain_id)
        if len(kinds) > 1:
            listed = "; ".join(f"{brain}: {list(kind)}" for kind, brain in kinds.items())
            raise ModelError(f"the brains are embedded differently ({listed}); embed all at one --embed.pixel-size-um")
        (dims, encoder_digest, token_px, pixel_size_um), first = next(iter(kinds.items()))
        table = merged_table({one: tables[one] for one in seen})
        learned = {one: tuple(opened[one].embeddings) for one in seen}
        return HeadCard(
            kind=self.kind,
            target=target_name(self.train),
            classes=table.classes(self.train.by_group),
            dims=dims,
            cells_per_token=cells_per_token(self.kind, int(token_px)),
            embedding=EmbedSettings.model_validate(next(iter(opened[first].embedded.values()))["embedding"]),
            encoder_digest=encoder_digest,
            token_px=int(token_px),
            pixel_size_um=float(pixel_size_um),
            learned_from=learned,
            standardise=self.train.standardise,
            scores_of="Scored by fits that had not seen the brains or sections they were scored on, over "
            f"{len(self.seeds)} seed(s); then fitted again on all labelled sections of {', '.join(seen)}.",
        )

    @classmethod
    def opened(cls, folder: Path) -> StudyResult:
        """Scores and head."""
        scores = json.loads((folder / METRICS_FILE).read_text())
        return StudyResult(scores, {name: (folder / name).read_bytes() for name in (CARD_FILE, WEIGHTS_FILE)})


def study_brain(brain_id: str, role: Role, parts: LabelledBrain, by_group: bool) -> StudyBrain:
    """A brain as a study sees it: its labelled sections, opened as they are asked for, and how they are split."""
    ids = tuple(parts.embeddings)

    def section(at: int) -> LabelledSection:
        one = ids[at]
        return LabelledSection(
            one,
            parts.embeddings[one].measured_in(parts.scale),
            parts.labels[one].levels[0],
            parts.tissue[one],
            parts.stated.label_table,
            by_group,
        )

    together = neighbours(parts.stated, ids, parts.pixels)
    return StudyBrain(brain_id, role, OnDemand(len(ids), section), split_sections(ids, together))


def neighbours(brain: Brain, section_ids: Sequence[str], contents: Mapping[str, str]) -> dict[str, str]:
    """What no split separates, as a key by section: equal scans, and sections that lie next to each other.

    Next to each other are those whose stated positions differ by less than a third of the median distance.
    """
    positions = {one.section_id: one.position_um for one in brain.sections}
    keys = {one: one for one in section_ids}
    shown_by: dict[str, str] = {}
    stated = [positions[one] for one in section_ids]
    known = [one for one in stated if one is not None]
    typical = float(np.median(np.abs(np.diff(known)))) if len(known) == len(stated) > 1 else 0.0
    before: str | None = None
    for one in section_ids:
        at, last = positions[one], positions[before] if before else None
        near = before is not None and at is not None and last is not None and abs(at - last) < NEAR * typical
        for other in (before if near else None, shown_by.setdefault(contents[one], one)):
            if other is not None and keys[other] != keys[one]:
                joins = keys[other]
                keys = {name: joins if key == keys[one] else key for name, key in keys.items()}
        before = one
    return keys


_COLUMNS = tuple(name for one in SUMMED for name in (one, f"{one}_sd"))


def scores_table(rows: Sequence[StudyRow], roles: Mapping[str, Role]) -> str:
    """All scores as CSV: model, brain, kind, part, sections, seeds, mean and deviation over seeds of every figure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "brain", "kind", "part", "sections", "seeds", *_COLUMNS])
    for one in summed(rows):
        figures = [f"{one.figures[name]:.4f}" for name in _COLUMNS]
        writer.writerow([one.model, one.brain_id, roles[one.brain_id], one.part, one.sections, one.seeds, *figures])
    return text.getvalue()


def hops_table(rows: Sequence[StudyRow], roles: Mapping[str, Role]) -> str:
    """Wrong cells of all seeds by how many borders they are off, as CSV; blank hops: there is no way at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "brain", "kind", "part", "hops", "cells", "share"])
    for one in summed(rows):
        total = sum(one.hops.values())
        for far, cells in one.hops.items():
            hops = "" if far is None else far
            writer.writerow(
                [one.model, one.brain_id, roles[one.brain_id], one.part, hops, cells, f"{cells / total:.4f}"]
            )
    return text.getvalue()


def _metrics(rows: Sequence[StudyRow], card: HeadCard) -> list[dict[str, Any]]:
    return [
        {"model": row.model, "brain": row.brain_id, "part": row.part, "seed": row.seed}
        | row.score.as_facts(card.classes)
        for row in rows
    ]


def _headline(hardest: Sequence[StudyRow], rows: Sequence[StudyRow]) -> dict[str, float]:
    """Mean and deviation over seeds of the hardest scores, and the mean of every kind of part."""
    seeds = by_seed(hardest)
    found: dict[str, float] = {}
    for name in HEADLINES:
        values = [one[name] for one in seeds.values()]
        if np.isfinite(values).any():
            found[f"headline/{name}"], found[f"headline/{name}_sd"] = mean(values), deviation(values)
    for one in summed(rows):
        for name in ("macro_f1", "within_one_hop"):
            if np.isfinite(one.figures[name]):
                found[f"{one.model}/{one.brain_id}/{one.part}/{name}".replace(" ", "-")] = one.figures[name]
    return {name: round(value, 6) for name, value in found.items()}
