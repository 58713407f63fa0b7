"""Serves the reports of a store on loopback, below an address that is a secret: pages and pictures, nothing else."""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # started as a script from the checkout

import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from cytoarch.errors import StoreError
from cytoarch.paths import is_id
from cytoarch.reporting.alone import thumbnail
from cytoarch.store.brain_store import BrainStore
from tasks.reports import reports_token

HOST = "127.0.0.1"
"""Where it listens, and what it is to be called; in a container that publishes it on loopback it listens elsewhere."""
SUFFIXES = {".html", ".png", ".webp", ".jpg", ".css"}
SMALL_PX = 160
"""The longest edge of a picture that is asked for with `?small`, as pages of runs show them."""
MOST_KEPT = 2000
"""Small pictures that are kept, some kB each: a page of a run asks for up to 200 at every look."""
HOSTS = "CYTOARCH_REPORTS_HOSTS"
"""Variable with the names by which a proxy lets browsers in, with commas between them."""
FOLDERS = {"report", "derived"}
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}


def application(store: BrainStore, token: str, hosts: Sequence[str] = ()) -> Starlette:
    """The server of a store's reports, which answers to this machine's own names and to `hosts`."""

    async def index(_request: Request) -> Response:
        reports = [one for one in store.brain_ids() if (store.brain_path(one) / "report" / "index.html").is_file()]
        rows = "".join(f'<li><a href="{one}/report/index.html">{one}</a></li>' for one in reports)  # ids are letters
        page = f"<!doctype html><title>Reports</title><h1>Reports</h1><ul>{rows or 'none yet'}</ul>"
        return HTMLResponse(page, headers=HEADERS)

    async def file(request: Request) -> Response:
        brain, key = request.path_params["brain"], request.path_params["key"]
        path = _page_of(store, brain, key)
        if path is None:
            return await nothing(request)
        if path.suffix == ".png" and "small" in request.query_params:
            try:
                small = await run_in_threadpool(lambda: _small(path, path.stat().st_mtime_ns))
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # as Pillow calls what is damaged
                return await nothing(request)
            return Response(small, media_type="image/jpeg", headers=HEADERS)
        return FileResponse(path, headers=HEADERS)

    async def health(_request: Request) -> Response:
        return PlainTextResponse("well")

    async def nothing(_request: Request) -> Response:
        return PlainTextResponse("nothing here", status_code=404)

    inside = [Route("/", index), Route("/{brain}/{key:path}", file)]
    known = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost", *hosts], www_redirect=False)
    routes = [Route("/health", health), Mount(f"/{token}", routes=inside), Route("/{rest:path}", nothing)]
    return Starlette(routes=routes, middleware=[known])


@lru_cache(MOST_KEPT)
def _small(path: Path, _written_ns: int) -> bytes:
    """A picture made small, once for each time that it was written."""
    return thumbnail(path.read_bytes(), SMALL_PX)


def host_names(text: str) -> list[str]:
    """Names between commas, without their ports, as those of MLflow are given. Raises ValueError for a bad pattern.

    >>> host_names("reports.lab.example, localhost:*,*.lab.example")
    ['reports.lab.example', 'localhost', '*.lab.example']
    """
    names = [one.strip().partition(":")[0] for one in text.split(",") if one.strip()]
    if bad := [one for one in names if "*" in one.removeprefix("*.")]:
        raise ValueError(f"{', '.join(bad)}: a star stands only before a dot at the beginning, as in *.lab.example")
    return names


def _page_of(store: BrainStore, brain: str, key: str) -> Path | None:
    """A page or picture of a brain's report; None: there is none of that name, or it lies elsewhere."""
    if not is_id(brain) or key.partition("/")[0] not in FOLDERS:
        return None
    try:
        home = store.brain_path(brain).resolve()
    except StoreError:
        return None
    path = (home / key).resolve()
    inside = any(home / folder in path.parents for folder in FOLDERS)
    return path if inside and path.suffix in SUFFIXES and path.is_file() else None


def main() -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("work/store"), help="store whose reports are served")
    parser.add_argument("--host", default=HOST, help="address to listen at")
    parser.add_argument("--port", type=int, default=8230)
    parser.add_argument(
        "--allowed-hosts",
        default=os.environ.get(HOSTS, ""),
        help=f"names of a proxy by which browsers come in, with commas between them (default: those of {HOSTS})",
    )
    options = parser.parse_args()
    try:
        hosts = host_names(options.allowed_hosts)
    except ValueError as error:
        parser.error(f"--allowed-hosts: {error}")
    app = application(BrainStore(options.store), reports_token(options.store), hosts)
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", access_log=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
