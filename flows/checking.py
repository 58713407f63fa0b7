"""Commands that look at what is in the store and change no pixel."""

from pathlib import Path

from cytoarch.errors import StoreError
from cytoarch.images.conformance import conformance_faults
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.verification import verify_brain
from flows.console import EXIT_OK, EXIT_SECTIONS_FAILED, bars, counted, say, stderr_console
from flows.places import DEFAULT_STORE


def verify(brain: str, *, store_path: Path = DEFAULT_STORE) -> int:
    """Read everything committed of a brain back and name what has changed; the next run heals it.

    Parameters
    ----------
    brain
        Brain in the store.
    store_path
        Folder of the store.

    """
    console = stderr_console()
    store = BrainStore(store_path)
    with store.lock_existing(brain), bars(console) as listener:
        found = verify_brain(
            store, brain, lambda done, total: listener("verify (MB)", done // 1_000_000, -(-total // 1_000_000))
        )
    for fault in found.faults:
        print(f"{fault.key}: {fault.found}; {fault.remedy}")
    for key in found.strays:
        say(console, "belongs to no record", key)
    state = counted(len(found.faults), "fault") if found.faults else "all as it was written"
    print(f"{brain}: {found.files:,} files, {found.nbytes / 1e9:.2f} GB: {state}")
    return EXIT_SECTIONS_FAILED if found.faults else EXIT_OK


def validate(target: str, *, store_path: Path = DEFAULT_STORE) -> int:
    """Check that images conform to OME-Zarr (NGFF 0.5) and to our own rules; pixels are not read.

    Parameters
    ----------
    target
        Brain in the store, or folder of an image, a collection or any folder of them.
    store_path
        Folder of the store.

    """
    store = BrainStore(store_path)
    folder = store.brain_path(target) if target in store.brain_ids() else Path(target)
    if not folder.is_dir():
        known = ", ".join(store.brain_ids()) or "none"
        raise StoreError(f"{target!r} is neither a brain in {store_path} (brains there: {known}) nor a folder")
    with bars(stderr_console()) as listener:
        faults = conformance_faults(folder, on_progress=lambda done, total: listener("validate (images)", done, total))
    for fault in faults:
        print(fault)
    print(f"{target}: {counted(len(faults), 'fault') if faults else 'conforms to NGFF 0.5'}")
    return EXIT_SECTIONS_FAILED if faults else EXIT_OK
