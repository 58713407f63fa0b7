"""What `verify` finds in a store."""

from cytoarch.store.brain_store import BrainStore
from cytoarch.store.verification import COLLECTION, verify_brain


def damaged(store: BrainStore, brain_id: str) -> list[str]:
    """Keys of the files that are not what was written; tests that wrote no brain.json or collection do without."""
    keys = [fault.key for fault in verify_brain(store, brain_id).faults]
    home = store.brain_path(brain_id)
    bare = "brain.json" in keys
    return [key for key in keys if key not in ("brain.json", *COLLECTION) or ((home / key).exists() and not bare)]
