"""The lease of a brain where several hosts share a store: granted by the Prefect server that they have in common.

A lock by `flock` keeps processes of one host apart. Where CYTOARCH_SHARED_STORE says that other hosts write into the
store, too, a run also holds a lease: a strict concurrency limit of one, named after store and brain. It is renewed as
long as the run lives, given back at its end, and runs out within LEASE_S where its host dies. A run that cannot renew
it is ended.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path

from prefect.client.base import ServerType, determine_server_type
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

from cytoarch.errors import BrainBusyError, StoreError
from tasks.reports import made_once

SHARED = "CYTOARCH_SHARED_STORE"
"""Variable that says that other hosts write into the store, too: `true`."""
LEASE_S = 300.0
WAIT_S = 5.0
"""A lease that another run has is not waited for longer."""
_FILE = ".store-id"

_leased: ContextVar[frozenset[str]] = ContextVar("leased", default=frozenset())
"""What this run holds: a flow that calls another does not lock itself out."""


@contextmanager
def brain_lease(store_path: Path, brain_id: str) -> Iterator[None]:
    """Hold a brain's lease while at work, where the store is shared.

    Raises BrainBusyError if a run on another host has it, and StoreError where there is no server that could grant it.
    """
    if os.environ.get(SHARED, "").lower() not in ("true", "1", "yes"):
        yield
        return
    if determine_server_type() is ServerType.EPHEMERAL:
        raise StoreError(
            f"{store_path} is shared by several hosts ({SHARED}), and no Prefect server grants the lease of brain "
            f"{brain_id}: set PREFECT_API_URL to the server that they have in common"
        )
    name = lease_name(store_path, brain_id)
    if name in _leased.get():
        yield
        return
    _make_limit(name)
    with _acquired(name, brain_id):
        token = _leased.set(_leased.get() | {name})
        try:
            yield
        finally:
            _leased.reset(token)


@contextmanager
def _acquired(name: str, brain_id: str) -> Iterator[None]:
    with ExitStack() as slot:
        try:
            slot.enter_context(concurrency(name, timeout_seconds=WAIT_S, lease_duration=LEASE_S, strict=True))
        except TimeoutError:
            raise BrainBusyError(
                f"brain {brain_id} is being written by a run that holds its lease {name} on the Prefect server, on "
                "this host or another; wait for it or stop it, then run again (the lease of a host that died runs out "
                f"within {LEASE_S / 60:.0f} minutes)"
            ) from None
        yield


def lease_name(store_path: Path, brain_id: str) -> str:
    """The name of a brain's lease: the same on every host, wherever the store is mounted there."""
    path = store_path / _FILE
    store_path.mkdir(parents=True, exist_ok=True)
    return f"brain-{made_once(path, secrets.token_hex(8), 0o644)}-{brain_id}"


def _make_limit(name: str) -> None:
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            client.upsert_global_concurrency_limit_by_name(name, 1)
