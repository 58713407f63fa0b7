"""Steps whose products the embedding engine computes for several sections together."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cytoarch.embeddings.engine import run_engine
from cytoarch.embeddings.jobs import Float32, Job
from cytoarch.encoders.inference import device_name
from cytoarch.errors import SectionError
from cytoarch.steps.sources import EncoderSource
from cytoarch.steps.step import Facts, Inputs, Step
from cytoarch.store.staging import Staging

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class EngineStep(Step[T_co]):
    """A step that gives the engine a job per section; `write` computes a single one."""

    encoder: EncoderSource

    @abstractmethod
    def cost(self, inputs: Inputs) -> tuple[int, int]:
        """How many tiles a section takes, and at most how many bytes on disk; no pixel is read."""

    def tiles_of(self, facts: Facts) -> int:
        """How many tiles a committed section took, read from the facts in its record."""
        return int(facts["tiles"])

    @abstractmethod
    def job(self, inputs: Inputs, staging: Staging | None, finish: Callable[[Facts], Any]) -> Job:
        """The job of a section, which calls `finish` with facts. Without staging it only keeps its places."""

    @abstractmethod
    def compute(self, tiles: Float32) -> Sequence[Float32]:
        """What the model gives for tiles (b, c, T, T) float32 in [0, 1]: arrays (b, ...)."""

    @property
    def batch_size(self) -> int:
        """Tiles computed at once."""
        return self.encoder.settings.batch_size

    @property
    def beside(self) -> bool:
        """Whether reading and writing go on while the model computes."""
        return self.encoder.settings.beside

    @property
    def said(self) -> Mapping[str, Any]:
        """The device, which does not decide the values but may interest."""
        return {"device": device_name(self.encoder.settings.device)}

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Compute one section by itself."""
        facts: dict[str, Any] = {}
        failed, _ = run_engine(
            [self.job(inputs, staging, facts.update)], self.compute, self.batch_size, beside=self.beside
        )
        if failed:
            raise SectionError(next(iter(failed.values())))
        return {**facts, **self.said}
