"""Parameters that flows share. They are the form in the Prefect UI and the flags of the terminal."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from cytoarch.anatomy.depth import DepthSettings
from cytoarch.anatomy.midline import MidlineSettings
from cytoarch.anatomy.reconstruction import ReconstructionSettings
from cytoarch.anatomy.reconstruction.volume import VolumeSettings
from cytoarch.anatomy.surfaces import SurfaceSettings
from cytoarch.anatomy.tissue import TissueSettings
from cytoarch.brains import Brain, stated_brains
from cytoarch.discovery.clusters import ClusterSettings
from cytoarch.embeddings import EmbedSettings
from cytoarch.images.sections import IngestSettings
from cytoarch.learning.training import ContextSettings, DecoderSettings, HeadSettings, ProbeSettings
from cytoarch.parcellation.across import AcrossSettings
from cytoarch.parcellation.inference import ParcellateSettings
from cytoarch.parcellation.smoothing import SmoothSettings
from cytoarch.paths import ID_PATTERN
from cytoarch.settings import Settings
from cytoarch.steps.opened import shared_brain
from flows.places import DEFAULT_STORE


def split_names(value: object) -> object:
    """Names, also where several stand in one with commas between, as a terminal takes them.

    >>> split_names(["A,B", "C"]), split_names("A")
    (('A', 'B', 'C'), ('A',))
    """
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        return names
    return tuple(part for name in names for part in str(name).split(",") if part)


def refuse_repeated(names: Iterable[str], rule: str) -> None:
    """Raise ValueError with the names that are given more than once, and the rule that they break.

    >>> refuse_repeated(["A", "B", "A"], "a brain has one place in a study")
    Traceback (most recent call last):
    ValueError: A: a brain has one place in a study
    """
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise ValueError(f"{', '.join(repeated)}: {rule}")


class BrainSource(Settings):
    """Where a brain comes from, and the store it goes into. Paths are those of the machine that runs the flow."""

    manifest_path: Path = Field(description="CSV file that names the sections.", examples=["/data/B07/manifest.csv"])
    scans_path: Path | None = Field(
        title="Folder of scans",
        examples=["/data/B07/scans"],
        default=None,
        description="Folder that the paths in the manifest are relative to; blank: the manifest's own.",
    )
    label_table_path: Path | None = Field(
        title="Table of labels",
        examples=["/data/B07/labels.csv"],
        default=None,
        description="CSV file with columns id, name, colour, group; blank: labels.csv beside the manifest.",
    )
    brain_id: str | None = Field(
        title="Brain",
        examples=["B07"],
        default=None,
        pattern=ID_PATTERN,
        description="Which brain of the manifest; blank: all, one run each.",
    )
    store_path: Path = Field(
        title="Store",
        examples=["/data/store"],
        default=DEFAULT_STORE,
        description="Folder of the store; made if it is not there.",
    )

    @property
    def scans_folder(self) -> Path:
        """The folder that the manifest's paths are relative to."""
        return self.scans_path or self.manifest_path.parent

    def brains(self) -> tuple[Brain, ...]:
        """The brains asked for. Raises ManifestError, listing every fault, before anything is started.

        A brain that this run has open is as it was when it was opened; its manifest is not read again.
        """
        shared = None if self.brain_id is None else shared_brain(self.store_path, self.brain_id)
        if shared is not None:
            return (shared.brain,)
        return stated_brains(self.manifest_path, self.scans_path, self.label_table_path, self.brain_id or "")


class StoredBrain(Settings):
    """A brain that is in the store."""

    brain_id: str = Field(title="Brain", examples=["B07"], pattern=ID_PATTERN, description="Brain in the store.")
    store_path: Path = Field(
        title="Store",
        examples=["/data/store"],
        default=DEFAULT_STORE,
        description="Folder of the store, on the machine that runs the flow.",
    )


class LearnedBrains(Settings):
    """Which brains are learned from. Several are given one after the other or with commas between them."""

    name: str = Field(pattern=ID_PATTERN, description="Name of what is made: its folder below studies/.")
    brains: tuple[str, ...] = Field(min_length=1, max_length=1000, description="Brains that are learned from.")
    held_out: tuple[str, ...] = Field(
        default=(), max_length=1000, description="Brains that are not learned from; they are told of as a test."
    )
    store_path: Path = Field(default=DEFAULT_STORE, description="Folder of the store that holds the brains.")

    _split = field_validator("brains", "held_out", mode="before")(split_names)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        refuse_repeated([*self.brains, *self.held_out], "a brain is learned from or held out, and named once")
        return self


class MapSettings(Settings):
    """How a brain is mapped, stage by stage."""

    embed: EmbedSettings = Field(
        title="Encoder", default=EmbedSettings(), description="The encoder and how it sees the sections."
    )
    model: str = Field(
        title="Model of other brains",
        examples=["auto:layers"],
        default="",
        max_length=500,
        description="Map with this head instead of training one: models:/NAME@champion, models:/NAME/VERSION, a "
        "digest, or auto (the champion of the target that fits; auto:layers names the target). Encoder and pixel "
        "size are its own. Blank: train on the brain's labels, where it has any.",
    )
    head: Literal["probe", "decoder", "context"] = Field(
        title="Head to train",
        default="probe",
        description="probe (linear, token by token), decoder (layers fused, cells of 4 px) or context (convolutions "
        "over the tokens around).",
    )
    probe: ProbeSettings = Field(
        title="If the head is a probe", default=ProbeSettings(), description="How a probe is trained."
    )
    decoder: DecoderSettings = Field(
        title="If the head is a decoder", default=DecoderSettings(), description="How a decoder is trained."
    )
    context: ContextSettings = Field(
        title="If the head is context",
        default=ContextSettings(),
        description="How a head that sees the tokens around is trained.",
    )
    reconstruct: Literal["rigid", "none"] = Field(
        title="Put the sections together",
        default="rigid",
        description="Put the sections together to a brain (rigid), or leave that out (none).",
    )
    cortex: Literal["trace", "none"] = Field(
        title="Trace the cortex",
        default="none",
        description="Measure depth in the cortex, trace its middle and put points along it into a table (trace), or "
        "leave that out (none).",
    )
    parcellate: ParcellateSettings = Field(
        title="Drawing the maps",
        default=ParcellateSettings(),
        description="How tiles overlap and which level the maps are drawn on.",
    )
    smooth: SmoothSettings = Field(
        title="Smoothing the maps", default=SmoothSettings(), description="How strongly maps are smoothed."
    )
    across: AcrossSettings = Field(
        title="Smoothing from section to section",
        default=AcrossSettings(),
        description="How maps are smoothed along the cortex and across sections; the cortex is traced for it.",
    )
    cluster: ClusterSettings = Field(
        title="Clusters", default=ClusterSettings(), description="How many clusters, from how many tokens."
    )
    ingest: IngestSettings = Field(
        title="Scans", default=IngestSettings(), description="How scans are brought into the store."
    )
    tissue: TissueSettings = Field(title="Tissue", default=TissueSettings(), description="How tissue is found.")
    align: ReconstructionSettings = Field(
        title="How sections are aligned",
        default=ReconstructionSettings(),
        description="How sections are linked and placed.",
    )
    volume: VolumeSettings = Field(
        title="Volume", default=VolumeSettings(), description="How the volume of the brain is made."
    )
    depth: DepthSettings = Field(
        title="Depth in the cortex",
        default=DepthSettings(),
        description="How depth is measured; a head that is told of depth says which kind itself.",
    )
    midline: MidlineSettings = Field(
        title="Middle of the cortex", default=MidlineSettings(), description="Where points along the cortex are taken."
    )
    surface: SurfaceSettings = Field(
        title="Middle of the cortex as a surface",
        default=SurfaceSettings(),
        description="How it is made, where the lines of the middle are those of a surface.",
    )

    @model_validator(mode="after")
    def _sections_have_places(self) -> Self:
        if self.across.method != "none" and self.reconstruct == "none":
            raise ValueError(
                f"across.method is {self.across.method} and reconstruct is none: maps are smoothed from section to "
                "section where these are put together; set reconstruct to rigid, or across.method to none"
            )
        return self

    def is_traced(self, is_mapped: bool) -> bool:
        """Whether the cortex is traced: asked for, or needed to smooth across sections where the brain is mapped."""
        return self.cortex != "none" or (is_mapped and self.across.method != "none")

    @property
    def train(self) -> HeadSettings:
        """How the chosen head is trained."""
        chosen: HeadSettings = getattr(self, self.head)
        return chosen


class RunSettings(Settings):
    """How the work is spread; results do not depend on it."""

    workers: int = Field(
        title="Sections worked on at once", default=2, ge=1, le=256, description="Sections worked on at once."
    )
    runner: Literal["threads", "dask"] = Field(
        title="Where the work is done",
        default="threads",
        description="threads: in this process; dask: a Dask cluster of as many processes, or one that is running.",
    )
    scheduler: str = Field(
        title="Running Dask scheduler",
        examples=["tcp://10.0.0.5:8786"],
        default="",
        pattern=r"^$|^(tcp|tls|ucx)://\S+:\d+$",
        description="For dask: address of a scheduler whose workers see the store and this checkout under the same "
        "paths. Blank: a cluster of this run's own.",
    )

    @model_validator(mode="after")
    def _scheduler_is_used(self) -> Self:
        if self.scheduler and self.runner != "dask":
            raise ValueError(
                f"scheduler is {self.scheduler} and runner is {self.runner}, which does not use it; set runner to dask"
            )
        return self
