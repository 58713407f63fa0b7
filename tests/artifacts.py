"""What runs left on the pages of a Prefect server that other tests use too."""

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import Artifact
from prefect.client.schemas.sorting import ArtifactSort

PAGE = 200
"""The most a server answers at once, whatever it holds."""


def every_artifact() -> list[Artifact]:
    """All artifacts of the server, page by page, the latest first."""
    found: list[Artifact] = []
    with get_client(sync_client=True) as prefect:
        while True:
            page = prefect.read_artifacts(limit=PAGE, offset=len(found), sort=ArtifactSort.CREATED_DESC)
            found += page
            if len(page) < PAGE:
                return found
