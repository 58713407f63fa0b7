"""A first look at the command line, before what takes seconds to import: missing or held brains, manifests at fault."""

import csv
from collections.abc import Sequence
from pathlib import Path

from cytoarch.brains import stated_brains
from cytoarch.errors import BrainBusyError, ManifestError, StoreError
from cytoarch.paths import is_id
from cytoarch.store.brain_store import BrainStore
from flows.places import DEFAULT_STORE

WRITERS = ("-brain", "-points", "train-")
"""What the names of the commands that write a brain begin or end with."""
READERS_OF_MANIFESTS = ("map-brain", "ingest-brain")
READERS = ("trace-cortex", "find-borders", "export", "view", "draw", "verify", "status")
"""Commands that read a brain, which has to be there, beside those that write one that is."""


def misstated(arguments: Sequence[str]) -> str | None:
    """What is wrong with the manifest that a command names, all of it; None: nothing that could be seen here.

    A manifest is completed by hand and read again and again: its faults are told before anything is started.
    """
    named = _value(arguments, "--manifest-path")
    if arguments[:1] not in [[one] for one in READERS_OF_MANIFESTS] or named is None:
        return None
    scans, table = (_value(arguments, flag) for flag in ("--scans-path", "--label-table-path"))
    try:
        stated_brains(
            Path(named),
            Path(scans) if scans else None,
            Path(table) if table else None,
            _value(arguments, "--brain-id") or "",
        )
    except ManifestError as error:
        return str(error)
    return None


def absent(arguments: Sequence[str]) -> str | None:
    """That the store does not hold the brain which a command names, and which it holds; None: it does, or none is."""
    command = arguments[0] if arguments else ""
    if command in READERS_OF_MANIFESTS or not (command in READERS or _writes(command)):
        return None
    by_place = next((one for one in arguments[1:2] if not one.startswith("-")), None) if command in READERS else None
    brain_id = _value(arguments, "--brain-id") or _value(arguments, "--brain") or by_place
    if brain_id is None or not is_id(brain_id):
        return None
    try:
        BrainStore(Path(_value(arguments, "--store-path") or DEFAULT_STORE)).check_there(brain_id)
    except StoreError as error:
        return str(error)
    except OSError:
        return None
    return None


def busy(arguments: Sequence[str]) -> str | None:
    """Why a command would have to leave again, or None: another run holds the one brain that it names.

    Whatever is not clear here (several brains, a manifest at fault) is left to the command itself.
    """
    if not arguments or not _writes(arguments[0]):
        return None
    if arguments[1:] and not arguments[1].startswith("-"):  # settings by place
        return None
    store = BrainStore(Path(_value(arguments, "--store-path") or DEFAULT_STORE))
    brain_id = _value(arguments, "--brain-id")
    if brain_id is None and arguments[0] in READERS_OF_MANIFESTS:
        brain_id = _only_brain(_value(arguments, "--manifest-path") or "manifest.csv")
    if brain_id is None or not is_id(brain_id):
        return None
    try:
        store.check_free(brain_id)
    except BrainBusyError as error:
        return str(error)
    except OSError:
        return None
    return None


def _writes(command: str) -> bool:
    return command.startswith(WRITERS[-1]) or command.endswith(WRITERS[:-1])


def _value(arguments: Sequence[str], flag: str) -> str | None:
    for place, argument in enumerate(arguments):
        if argument == flag and place + 1 < len(arguments):
            return arguments[place + 1]
        if argument.startswith(f"{flag}="):
            return argument.removeprefix(f"{flag}=")
    return None


def _only_brain(manifest: str) -> str | None:
    try:
        with Path(manifest).open(newline="", encoding="utf-8-sig") as file:
            names = {row.get("brain_id") for row in csv.DictReader(file)}
    except (OSError, ValueError, csv.Error):
        return None
    return names.pop() if len(names) == 1 else None
