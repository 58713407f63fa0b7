"""What `verify` finds in a store."""

from cytoarch.stores import BrainStore
from cytoarch.verification import verify_brain


def damaged(store: BrainStore, brain_id: str) -> list[str]:
    """Keys of the files that are not what was written, apart from the brain's own file, which few tests need."""
    return [fault.key for fault in verify_brain(store, brain_id).faults if fault.key != "brain.json"]
