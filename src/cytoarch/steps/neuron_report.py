"""The page of a study of neurons."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from cytoarch.images.volumes import StoredVolume
from cytoarch.neurons.patches import Scale
from cytoarch.neurons.table import Use
from cytoarch.neurons.trees import Tree
from cytoarch.reporting.charts import loss_chart
from cytoarch.reporting.neurons import NeuronEntry, NeuronPage, drawn_errors, projections, render_neurons
from cytoarch.reporting.pictures import png
from cytoarch.steps.neuron_traces import FULL, NeuronMapStep, NeuronScoreStep, NeuronTraceStep
from cytoarch.steps.neuron_training import NeuronFit
from cytoarch.steps.neurons import KnownTreeStep, NeuronVolumeStep
from cytoarch.steps.sources import FactsOf, Maybe
from cytoarch.steps.step import Facts, Inputs, Place, Source, Step, Stored
from cytoarch.store.staging import Staging

PAGE_FILE = "index.html"


class Shown(NamedTuple):
    """What of a volume is on the page."""

    volume: StoredVolume
    facts: Facts
    probabilities: StoredVolume
    traced: Tree
    traced_facts: Facts
    known: Tree | None
    scores: Mapping[str, float] | None


@dataclass(frozen=True)
class ShownVolumes(Source[Mapping[str, Shown]]):
    """The volumes of a study and all that was made of them, by volume; `uses` are what they are there for."""

    uses: tuple[tuple[str, Use], ...]

    def _sources(self) -> dict[str, dict[str, Source[Any]]]:
        found: dict[str, dict[str, Source[Any]]] = {}
        for volume_id, _ in self.uses:
            volume, trace = Stored(NeuronVolumeStep, volume_id), Stored(NeuronTraceStep, volume_id)
            found[volume_id] = {
                "volume": volume,
                "facts": FactsOf(volume),
                "probabilities": Stored(NeuronMapStep, volume_id),
                "traced": trace,
                "traced_facts": FactsOf(trace),
                "known": Maybe(Stored(KnownTreeStep, volume_id)),
                "scores": Maybe(Stored(NeuronScoreStep, volume_id)),
            }
        return found

    def digests(self, place: Place) -> Mapping[str, str]:
        """Those of all of it."""
        return self._of_all(lambda source: source.digests(place))

    def addresses(self, place: Place) -> Mapping[str, str]:
        """Those of all of it."""
        return self._of_all(lambda source: source.addresses(place))

    def _of_all(self, told: Callable[[Source[Any]], Mapping[str, str]]) -> dict[str, str]:
        named = ((f"{one}/{name}", part) for one, parts in self._sources().items() for name, part in parts.items())
        return {name: text for name, source in named for text in told(source).values()}

    def open(self, place: Place) -> Mapping[str, Shown]:
        """Volumes read where they are asked for."""
        found = {
            one: Shown(**{name: source.open(place) for name, source in sources.items()})
            for one, sources in self._sources().items()
        }
        applied = {one for one, use in self.uses if use == "apply"}  # any scores are of other traces
        return {
            one: parts._replace(scores=None, known=None) if one in applied else parts for one, parts in found.items()
        }


@dataclass(frozen=True)
class NeuronReportStep(Step[Path]):
    """A page with projections of every volume, its trace, and where it differs from the known tree."""

    step: ClassVar[str] = "neuron-report"
    version: ClassVar[int] = 2
    scope: ClassVar = "study"
    view: ClassVar[bool] = True
    verb: ClassVar[str] = "draw the report"

    study: str
    volumes: ShownVolumes
    training: Stored[NeuronFit] | None
    """None: its network was trained elsewhere."""
    trained: FactsOf | None

    @classmethod
    def of(cls, study: str, uses: Mapping[str, Use], training: Stored[NeuronFit] | None) -> "NeuronReportStep":
        """That of a study's volumes, by what they are there for."""
        facts = None if training is None else FactsOf(training)
        return cls(study, ShownVolumes(tuple(uses.items())), training, facts)

    @property
    def name(self) -> str:
        """There is one."""
        return "page"

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Draw volume by volume."""
        shown = inputs[self.volumes]
        fit = None if self.training is None else inputs[self.training]
        uses = dict(self.volumes.uses)
        entries = []
        for number, (volume_id, parts) in enumerate(shown.items()):
            pictures = _draw(staging, volume_id, parts)
            entries.append(_entry(volume_id, uses[volume_id], parts, pictures))
            inputs.on_progress(number + 1, len(shown))
        chart = ""
        if fit is not None:
            chart = "loss.png"
            staging.write(chart, loss_chart(fit.losses))
        facts = inputs[self.trained] if self.trained is not None else None
        page = NeuronPage(self.study, _figures(entries, facts), _notices(shown, entries), entries, chart)
        staging.write(PAGE_FILE, render_neurons(page))
        return {}

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """The page."""
        return folder / PAGE_FILE


def _draw(staging: Staging, volume_id: str, parts: Shown) -> dict[str, str]:
    """The pictures of a volume, written; caption -> path."""
    scale = Scale(float(parts.facts["black"]), float(parts.facts["white"]))
    unit = float(min(parts.volume.grid.edges_um))
    seen = projections(parts.volume, scale)
    found = projections(parts.probabilities, Scale(0.0, float(FULL)))[0]
    errors = [drawn_errors(one, parts.traced, parts.known, unit) for one in seen]
    what = "traced" if parts.known is None else "traced and known"
    pictures = {
        "Brightest along z": ("volume", seen[0].picture),
        f"{what.capitalize()}, along z": ("errors-z", errors[0]),
        "Probability of a neuron, highest along z": ("probability", found.picture),
        f"{what.capitalize()}, along y": ("errors-y", errors[1]),
    }
    for name, picture in pictures.values():
        staging.write(f"{volume_id}/{name}.png", png(picture))
    return {caption: f"{volume_id}/{name}.png" for caption, (name, _) in pictures.items()}


def _entry(volume_id: str, use: Use, parts: Shown, pictures: Mapping[str, str]) -> NeuronEntry:
    grid = parts.volume.grid
    return NeuronEntry(
        volume_id, use, grid.edges_um, grid.shape, parts.traced_facts, dict(parts.scores or {}), pictures
    )


def neuron_metrics(entries: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Means over volumes of every figure that is defined, and how many traces or known trees are empty."""
    found: dict[str, float] = {}
    for name in ("esa", "dsa", "pds", "precision", "recall", "f1", "voxel_f1", "voxel_hd95_um"):
        values = [one[name] for one in entries.values() if name in one]
        if values:
            found[name] = round(float(np.mean(values)), 6)
    if entries:
        found["missing"] = float(sum(one["missing"] for one in entries.values()))
    return found


def _figures(entries: list[NeuronEntry], trained: Facts | None) -> list[tuple[str, str]]:
    unseen = {one.volume_id: one.scores for one in entries if one.use == "score" and one.scores}
    metrics = neuron_metrics(unseen)
    figures = [("volumes", str(len(entries)))]
    figures += [(f"{name.upper()}, volumes not learned from", f"{metrics[name]:.3f}")
                for name in ("esa", "dsa", "pds", "f1") if name in metrics]  # fmt: skip
    figures.append(("um of neurites traced", f"{sum(one.traced['length_um'] for one in entries):,.0f}"))
    if trained is not None:
        figures.append(("parameters", f"{trained['parameters'] / 1e6:.1f} million"))
    return figures


def _notices(shown: Mapping[str, Shown], entries: list[NeuronEntry]) -> list[str]:
    notices = []
    learned = [one.volume_id for one in entries if one.use == "learn"]
    if learned and not any(one.use == "score" for one in entries):
        notices.append("Every volume with a known tree was learned from: the scores say nothing about other volumes.")
    empty = [one for one, parts in shown.items() if parts.traced.is_empty]
    if empty:
        notices.append(f"Nothing was traced in {', '.join(empty)}: look at the probabilities, lower trace.threshold.")
    return notices
