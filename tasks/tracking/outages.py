"""What happens when MLflow does not answer: it is told again, the log says so, and the next run catches up.

A map is worth hours, a row in MLflow seconds: nothing that MLflow does ends a run that has something to map.
"""

import logging
from collections.abc import Callable, Sequence
from enum import Enum
from time import sleep
from typing import NamedTuple, TypeVar

from cytoarch.errors import StoreError
from cytoarch.store.brain_store import BrainStore
from tasks.progress import hear
from tasks.tracking.database import tracking_uri
from tasks.tracking.experiments import experiments

WAITS_S = (2.0, 5.0, 15.0)
"""How long it is waited before MLflow is told again; a server that is restarted is back by then."""
LOOK_S = 3.0
"""A server that does not say within this time that it is there is told nothing; a request would wait far longer."""
STAGE = "MLflow"
PASSING = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED"}
"""MLflow's words for what may pass by itself; a connection that is refused is the first of them."""

T = TypeVar("T")


class Fault(Enum):
    """Why MLflow is not told, by what is to be done about it."""

    AWAY = "start it"
    HELD = "wait, free the disk, or mend the rights of its files"
    """Its database is whole, but locked, full, or not to be opened."""
    DAMAGED = "restore it from a backup, or move it away to begin anew"
    REFUSED = "it answers, so mend what it says"


class Outage(NamedTuple):
    """What keeps MLflow from being told."""

    reason: str
    fault: Fault

    @property
    def may_pass(self) -> bool:
        """Whether it may pass by itself."""
        return self.fault in (Fault.AWAY, Fault.HELD)


class TrackingLine:
    """The line from a run to MLflow. What is told over it is told again where MLflow does not answer, or left.

    Once MLflow was given up, each further thing is told once: it may be back, but the run waits no more.
    """

    def __init__(
        self,
        store: BrainStore,
        logger: "logging.Logger | logging.LoggerAdapter[logging.Logger]",
        waits_s: Sequence[float] = WAITS_S,
    ) -> None:
        self._store, self._logger, self._waits_s = store, logger, tuple(waits_s)
        self._left: dict[str, str] = {}
        self._given_up = False

    @property
    def left(self) -> str:
        """What MLflow does not know, and why; blank: it was told everything."""
        return "; ".join(f"{what} ({reason})" for what, reason in self._left.items())

    def try_once(self, what: str, call: Callable[[], T]) -> T | None:
        """What `call` gives, or None where MLflow does not answer now; it can be told later in this run."""
        try:
            found = _asked(self._store, call)
        except Exception as error:
            outage = _outage(error)
            if outage is None:
                raise
            self._left[what] = outage.reason
            uri = tracking_uri(self._store)
            self._logger.warning("MLflow at %s: %s; %s is left for now", uri, outage.reason, what)
            return None
        self._left.pop(what, None)
        return found

    def tell(self, what: str, call: Callable[[], T]) -> T | None:
        """What `call` gives, or None where it was left to the next run."""
        for wait_s in (*(() if self._given_up else self._waits_s), None):
            try:
                found = _asked(self._store, call)
            except Exception as error:
                outage = _outage(error)
                if outage is None:
                    raise
                if wait_s is None or not outage.may_pass:
                    self._given_up = self._given_up or outage.may_pass
                    self._leave(what, outage)
                    return None
                uri = tracking_uri(self._store)
                self._logger.warning("MLflow at %s: %s; %s is told again in %g s", uri, outage.reason, what, wait_s)
                hear(STAGE, 0, 1, f"does not answer; {what} is told again in {wait_s:g} s")
                sleep(wait_s)
            else:
                self._left.pop(what, None)
                return found
        raise AssertionError("the last wait is None")

    def _leave(self, what: str, outage: Outage) -> None:
        self._left[what] = outage.reason
        hear(STAGE, 1, 1, f"does not know {what}; the next run tells it")
        self._logger.warning(
            "MLflow at %s: %s; it does not know %s. What was made is in the store; %s and run again: nothing is made "
            "twice, and MLflow is told",
            tracking_uri(self._store),
            outage.reason,
            what,
            "start MLflow" if outage.fault is Fault.AWAY else outage.fault.value,
        )


def needed(store: BrainStore, what: str, call: Callable[[], T]) -> T:
    """What `call` asks MLflow, without which nothing can be done. Raises StoreError if it does not answer.

    Whether MLflow is asked at all is the call's to know: a model of the store is named by its digest.
    """
    try:
        return call()
    except Exception as error:
        outage = _outage(error)
        if outage is None or outage.fault is Fault.REFUSED:
            raise
        raise StoreError(
            f"MLflow at {tracking_uri(store)} does not answer ({outage.reason}), and {what} is looked up there; "
            f"{outage.fault.value} (a model of the store can also be named by its digest)"
        ) from None


def _asked(store: BrainStore, call: Callable[[], T]) -> T:
    """What `call` gives, once the server is known to be there. Raises MlflowException if it is not."""
    look(tracking_uri(store))
    return call()


def look(uri: str) -> None:
    """Ask a tracking server whether it is there, as MLflow's client would; what is no server always is.

    Raises MlflowException if it does not answer within LOOK_S, or something before it says that it is away.
    """
    if not uri.startswith(("http://", "https://")):
        return
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    asked = {"max_retries": 0, "timeout": LOOK_S, "raise_on_status": False}
    response = http_request(get_default_host_creds(uri), "/health", "GET", **asked)
    if response.status_code >= 500:
        raise MlflowException(f"it answers {response.status_code} {response.reason}".strip())


def _outage(error: Exception) -> Outage | None:
    """What keeps MLflow from being told; None: it is no fault of MLflow's.

    A refusal that stays is told with MLflow's word for it. A file that is missing here, or a full disk, is no outage.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import DatabaseError, DBAPIError, InternalError, OperationalError

    cause = error if isinstance(error, DBAPIError) else error.__cause__  # MLflow may say it in words of its own
    if isinstance(cause, OperationalError):
        return Outage(f"its database cannot be used now: {cause.orig}", Fault.HELD)
    if isinstance(cause, DatabaseError) and type(cause) in (DatabaseError, InternalError):  # others say what is wrong
        return Outage(f"its database cannot be used: {cause.orig}", Fault.DAMAGED)
    if isinstance(error, DBAPIError):
        return Outage(f"its database refuses: {error.orig}", Fault.REFUSED)
    if isinstance(error, MlflowException):
        code = str(error.error_code)
        if code in PASSING:
            return Outage(_told(error), Fault.AWAY)
        return Outage(f"{code}: {_told(error)}", Fault.REFUSED)
    if isinstance(error, StoreError):  # its files may not be written, or lie where nothing is written
        return Outage(str(error), Fault.REFUSED)
    is_away = isinstance(error, (ConnectionError, TimeoutError, RequestException))
    return Outage(_told(error), Fault.AWAY) if is_away else None


def _told(error: Exception) -> str:
    """The first line of an error without the depths of its connection pool."""
    text = str(error).partition("\n")[0] or type(error).__name__
    for word, said in (("Connection refused", "the connection is refused"), ("timed out", "it timed out")):
        if word in text:
            return said
    return text[:300]


def unreached(store: BrainStore) -> Outage | None:
    """Why MLflow cannot be told anything now; None: it answers and its tables are there."""
    try:
        _asked(store, lambda: experiments(store))
    except Exception as error:
        outage = _outage(error)
        if outage is None:
            raise
        return outage
    return None
