"""The orchestrator over its HTTP address: runs that wait for scribbles, maps of a brain; no library of it is needed."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.request import Request, urlopen

from cytoarch.errors import StoreError

TIMEOUT_S = 10.0
FLOW = "train-decoder"
MAPS = "parcellate-brain"


class Waiting(NamedTuple):
    """A run that is suspended until somebody has drawn."""

    run_id: str
    name: str


class Orchestrator(NamedTuple):
    """Where the orchestrator listens, and what it asks for as user:password."""

    api_url: str
    auth: str = ""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Orchestrator | None":
        """The one that PREFECT_API_URL names; None: there is none."""
        url = environment.get("PREFECT_API_URL", "")
        return cls(url.rstrip("/"), environment.get("PREFECT_API_AUTH_STRING", "")) if url else None

    def waiting(self, brain_id: str) -> list[Waiting]:
        """The runs that wait for scribbles on a brain, oldest first. Raises StoreError if it does not answer."""
        asked = {
            "flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}},
            "flows": {"name": {"any_": [FLOW]}},
            "sort": "START_TIME_ASC",
        }
        found = self._post("flow_runs/filter", asked)
        return [
            Waiting(str(one["id"]), str(one["name"]))
            for one in found
            if one.get("parameters", {}).get("brain", {}).get("brain_id") == brain_id
        ]

    def resume(self, run: Waiting, author: str, version: str) -> None:
        """Let a run go on with a version of what somebody drew. Raises StoreError if it is refused."""
        told = self._post(f"flow_runs/{run.run_id}/resume", {"run_input": {"author": author, "version": version}})
        if told.get("status") != "ACCEPT":
            reason = (told.get("details") or {}).get("reason", "no reason is given")
            raise StoreError(f"the run {run.name} was not resumed: {reason}; look at it in the orchestrator's page")

    def map_brain(self, store_path: Path, brain_id: str, model: str) -> str:
        """Begin a run that maps a brain with a model of the store; its name. Raises StoreError if it cannot begin."""
        found = self._post("deployments/filter", {"flows": {"name": {"any_": [MAPS]}}, "sort": "CREATED_DESC"})
        if not found:
            raise StoreError(
                f"the server has no deployment of {MAPS}; deploy it (prefect deploy --all), or unset PREFECT_API_URL "
                "to map the brain in this window"
            )
        brain = {"brain_id": brain_id, "store_path": str(store_path.absolute())}
        asked = {"parameters": {"brain": brain, "model": model}}
        return str(self._post(f"deployments/{found[0]['id']}/create_flow_run", asked)["name"])

    def _post(self, path: str, content: Any) -> Any:
        if not self.api_url.startswith(("http://", "https://")):
            raise StoreError(f"PREFECT_API_URL is {self.api_url!r}; an address beginning with http:// is needed")
        headers = {"Content-Type": "application/json"}
        if self.auth:
            headers["Authorization"] = "Basic " + base64.b64encode(self.auth.encode()).decode()
        request = Request(f"{self.api_url}/{path}", json.dumps(content).encode(), headers)  # noqa: S310 - http, as seen
        try:
            with urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
                return json.loads(answer.read())
        except (URLError, OSError, ValueError) as error:
            raise StoreError(f"{self.api_url} does not answer as it should ({error}); is the server running?") from None
