"""How terminals find servers: those that `make serve` has brought up in this checkout, else a temporary one."""

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cytoarch.errors import StoreError
from tasks.reports import REPORTS_STORE, REPORTS_URL

if TYPE_CHECKING:
    from prefect.server.api.server import SubprocessASGIServer

SERVING_PATH = Path(__file__).resolve().parent.parent / "work" / "serving.json"
"""Written by deployments/serve.py while it serves: the environment that points clients at its servers."""
START_LIMIT = "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
LOOK_EVERY_S, SAY_EVERY_S = 0.5, 10.0
MOST_PORTS = 5

_PROXIES = tuple(name for proxy in ("http", "https", "all") for name in (f"{proxy}_proxy", f"{proxy}_proxy".upper()))
_NAMES = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI")
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Whatever HTTP_PROXY says: a proxy cannot reach this machine's loopback."""


def running_servers() -> dict[str, str]:
    """The environment that points at the servers of this checkout, or nothing where none is up.

    Only loopback addresses are believed.
    """
    try:
        stated = json.loads(SERVING_PATH.read_text())
        found = {name: str(stated[name]) for name in _NAMES}
        found |= {name: str(stated[name]) for name in (REPORTS_URL, REPORTS_STORE) if name in stated}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    local = all(found[name].startswith("http://127.0.0.1:") for name in found if name != REPORTS_STORE)
    up = local and answers(f"{found['PREFECT_API_URL']}/health") and answers(f"{found['MLFLOW_TRACKING_URI']}/health")
    return found if up else {}


def answers(url: str) -> bool:
    """Whether a server answers at an http address on loopback."""
    try:
        with _OPENER.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:  # URLError is one
        return False


def direct_loopback(environment: Mapping[str, str]) -> dict[str, str]:
    """NO_PROXY and no_proxy as they must be for local traffic to stay local; both, since libraries read either.

    >>> direct_loopback({"NO_PROXY": ".hospital.org"})
    {'NO_PROXY': '.hospital.org,127.0.0.1,localhost,::1', 'no_proxy': '.hospital.org,127.0.0.1,localhost,::1'}
    """
    stated = environment.get("no_proxy") or environment.get("NO_PROXY") or ""  # in this order, as urllib does
    hosts = [host.strip() for host in stated.split(",") if host.strip()]
    if "*" not in hosts:  # then nothing is proxied, which urllib knows by a star alone
        hosts += [host for host in LOOPBACK if host not in hosts]
    value = ",".join(hosts)
    return {"NO_PROXY": value, "no_proxy": value}


def unusable_proxies(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The variables that name a proxy with which Prefect cannot even speak to this machine's loopback.

    Its library builds every proxy it is told of before it looks which addresses go past them, and breaks at kinds that
    it does not know: desktops write `socks://` for all traffic. SOCKS 5 needs the package socksio.

    >>> unusable_proxies({"HTTP_PROXY": "proxy.hospital.org:3128", "ALL_PROXY": "socks://proxy.hospital.org:1080"})
    ('ALL_PROXY',)
    """
    usable = {"http", "https", *(("socks5", "socks5h") if find_spec("socksio") else ())}
    named = {name: environment.get(name, "") for name in _PROXIES}
    return tuple(name for name, url in named.items() if "://" in url and url.partition("://")[0] not in usable)


@contextmanager
def unwatched() -> Iterator[None]:
    """Runs send no heartbeats, for servers on which nobody listens to them: each ends up to a second earlier.

    Prefect ends a run's heartbeats by a thread that looks once a second whether it is to stop.
    """
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings(updates={PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def has_own_server() -> bool:
    """Whether runs of this process are told to a temporary server of Prefect's, since no other is named."""
    from prefect.client.base import ServerType, determine_server_type

    return determine_server_type() is ServerType.EPHEMERAL


def start_prefect(say: Callable[[str], None]) -> None:
    """Have Prefect's temporary server up, where no other is named; tells `say` while it takes long.

    Raises StoreError if it ends by itself or does not come up in the time that Prefect is given.
    """
    if not has_own_server():
        return
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()  # the one that clients of this process use
    errors: list[Exception] = []

    def start() -> None:
        try:
            server.start()
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits
            errors.append(error)

    starting = threading.Thread(target=start, daemon=True)
    starting.start()
    fault = _wait(server, starting, say) or (_first_line(errors[0]) if errors else "")
    if fault:
        server.stop()
        raise StoreError(
            f"Prefect's temporary server did not start: {fault}; run again when the machine is less busy, give it more "
            f"time ({START_LIMIT}=SECONDS), or run `make serve` and keep it running"
        )


def _wait(server: "SubprocessASGIServer", starting: threading.Thread, say: Callable[[str], None]) -> str:
    """Wait while a server starts, and say so; returns what stops it from ever coming up, or nothing."""
    from prefect.settings import get_current_settings

    limit_s = get_current_settings().server.ephemeral.startup_timeout_seconds
    ports, began_s, said_s = set(), time.monotonic(), 0.0
    while starting.is_alive():
        starting.join(LOOK_EVERY_S)
        waited_s = time.monotonic() - began_s
        ports.add(server.port)
        process = server.server_process
        if not starting.is_alive():
            break
        if process is not None and process.poll() not in (None, 3):
            return f"it ended with exit code {process.returncode}"
        if len(ports) > MOST_PORTS:  # Prefect takes exit code 3 for a port that is taken and tries others, for ever
            return f"it ended at once on {MOST_PORTS} ports; its database in the folder PREFECT_HOME may be damaged"
        if waited_s > limit_s:
            return f"it did not answer within {limit_s} s"
        if waited_s - said_s >= SAY_EVERY_S:
            said_s = waited_s
            say(f"waiting for Prefect's temporary server ({waited_s:.0f} s); its first start takes longest")
    return ""


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
