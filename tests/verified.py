"""What `verify` finds in a store."""

from cytoarch.stores import BrainStore
from cytoarch.verification import COLLECTION, verify_brain


def damaged(store: BrainStore, brain_id: str) -> list[str]:
    """Keys of the files that are not what was written; a test that wrote no brain.json does without it."""
    keys = [fault.key for fault in verify_brain(store, brain_id).faults]
    return [key for key in keys if key not in ("brain.json", *COLLECTION)] if keys[:1] == ["brain.json"] else keys
