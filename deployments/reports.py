"""Serves the reports of a store on loopback, below an address that is a secret: pages and pictures, nothing else."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # started as a script from the checkout

import uvicorn
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
"""The longest edge of a picture that is asked for with `?small`, as tables of sections show them."""
FOLDERS = {"report", "derived"}
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}


def application(store: BrainStore, token: str) -> Starlette:
    """The server of a store's reports."""

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
            small = await run_in_threadpool(lambda: thumbnail(path.read_bytes(), SMALL_PX))
            return Response(small, media_type="image/jpeg", headers=HEADERS)
        return FileResponse(path, headers=HEADERS)

    async def health(_request: Request) -> Response:
        return PlainTextResponse("well")

    async def nothing(_request: Request) -> Response:
        return PlainTextResponse("nothing here", status_code=404)

    inside = [Route("/", index), Route("/{brain}/{key:path}", file)]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)
    routes = [Route("/health", health), Mount(f"/{token}", routes=inside), Route("/{rest:path}", nothing)]
    return Starlette(routes=routes, middleware=[hosts])


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
    options = parser.parse_args()
    app = application(BrainStore(options.store), reports_token(options.store))
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", access_log=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
