"""How terminals find the servers that `make serve` has brought up in this checkout."""

import json
import urllib.request
from pathlib import Path
from urllib.error import URLError

SERVING_PATH = Path(__file__).resolve().parent.parent / "work" / "serving.json"
"""Written by deployments/serve.py while it serves: the environment that points clients at its servers."""

_NAMES = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI")


def running_servers() -> dict[str, str]:
    """The environment that points at the servers of this checkout, or nothing where none is up.

    Only loopback addresses are believed.
    """
    try:
        stated = json.loads(SERVING_PATH.read_text())
        found = {name: str(stated[name]) for name in _NAMES}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    local = all(url.startswith("http://127.0.0.1:") for url in found.values())
    up = local and answers(f"{found['PREFECT_API_URL']}/health") and answers(f"{found['MLFLOW_TRACKING_URI']}/health")
    return found if up else {}


def answers(url: str) -> bool:
    """Whether a server answers at an http address."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - http on loopback, see the callers
            return bool(response.status == 200)
    except (URLError, OSError):
        return False
