"""The errors a user can meet. Each says where, what was found, what is needed and what to do."""

from collections.abc import Sequence


class CytoarchError(Exception):
    """Base of every error raised on purpose; its text is meant for the user."""


class ManifestError(CytoarchError):
    """The manifest or label table cannot be used; carries every fault found, with its row."""

    def __init__(self, where: str, faults: Sequence[str]) -> None:
        self.where = where
        self.faults = tuple(faults)
        count = f"{len(self.faults)} fault" + ("s" if len(self.faults) != 1 else "")
        super().__init__("\n  ".join([f"{where}: {count}, nothing was started", *self.faults]))


class SectionError(CytoarchError):
    """One section cannot be processed. It costs that section only; the other sections go on."""


class ScanError(SectionError):
    """A scan or label image is missing, unreadable, or not what the manifest says it is."""


class StoreError(CytoarchError):
    """The store does not hold what a step needs, or what it holds does not verify."""


class BrainBusyError(CytoarchError):
    """Another live run holds this brain's lock."""


class ModelError(CytoarchError):
    """An encoder or head cannot be loaded, or does not fit the data it is asked to work on."""


class TrainingError(CytoarchError):
    """There is not enough labelled data to train from."""
