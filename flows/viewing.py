"""A brain shown in neuroglancer: its folder served on loopback, behind a token, to neuroglancer's pages only.

The pages are served by neuroglancer's own package, where it is installed: they open at no other address.
"""

import importlib.util
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from cytoarch.errors import SectionError, StoreError
from cytoarch.exports.neuroglancer import PUBLIC_CLIENT, section_state, segment_names, state_link
from cytoarch.exports.settings import ExportSettings
from cytoarch.steps.clusters import ClustersStep
from cytoarch.steps.opened import OpenBrain, read_only
from cytoarch.steps.parcellations import ParcellationStep
from cytoarch.steps.sections import SECTION
from cytoarch.steps.sources import sections_with
from cytoarch.steps.step import Place
from cytoarch.steps.taken import Taken

HOST = "127.0.0.1"
SERVED = ("sections.ome.zarr", *(f"derived/{one.step}" for one in (ParcellationStep, ClustersStep)))
"""The folders of a brain that are served: scans, labels, maps and clusters, which is all that is shown."""
PRIVATE_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}


class Client(NamedTuple):
    """Pages of neuroglancer."""

    url: str
    held: object = None
    """Served as long as this is held; None: by somebody else."""
    said: str = ""
    """What a person is to know of it."""


PUBLIC = Client(PUBLIC_CLIENT)


@dataclass(frozen=True)
class Viewing:
    """A brain that is served, and where."""

    brain: OpenBrain
    settings: ExportSettings
    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    client: Client = PUBLIC
    """Neuroglancer's pages: on this machine, or its public site, which shows what is served here."""

    @property
    def base_url(self) -> str:
        """The address that everything is below."""
        return f"http://{HOST}:{self.port}/{self.token}"

    @property
    def section_ids(self) -> list[str]:
        """The sections that can be shown. Raises StoreError if there are none."""
        found = [one.section_id for one in sections_with(self.brain, SECTION)]
        if not found:
            raise StoreError(f"{self.brain.name}: no section is in the store; run ingest-brain first")
        return found

    def state(self, section_id: str) -> dict[str, Any]:
        """What neuroglancer shows of a section. Raises StoreError, listing the sections, if it is not there."""
        known = self.section_ids
        if section_id not in known:
            listed = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
            raise StoreError(
                f"{self.brain.name}: section {section_id!r} has no pixels in the store; there are {listed}"
            )
        taken, section = Taken.of(self.brain, self.settings), self.brain.rows[section_id]
        home = self.brain.catalogue.folder
        maps = {one.kind: one for one in taken.maps(section)}
        layers = {
            kind: (self._url(one.labels.folder.relative_to(home)), one.legend, f"{self.base_url}/names/{kind}")
            for kind, one in maps.items()
        }
        image = SECTION.open(Place(self.brain, section))
        return section_state(section_id, image, self._url(image.folder.relative_to(home)), layers)

    def link(self, section_id: str) -> str:
        """The link that shows a section."""
        return state_link(self.client.url, self.state(section_id))

    def _url(self, path: Path) -> str:
        return f"{self.base_url}/brain/{path.as_posix()}"

    def application(self) -> Starlette:
        """The server: files of images, and the names of labels."""
        routes: list[Any] = [
            Mount(f"/brain/{name}", StaticFiles(directory=self.brain.catalogue.folder / name, check_dir=False))
            for name in SERVED
        ]
        routes += [
            Route("/", self._index),
            Route("/names/{kind}/info", self._names),
            Route("/section/{section_id}", self._section),
        ]
        cors = Middleware(
            CORSMiddleware,
            allow_origins=[PUBLIC_CLIENT],
            allow_origin_regex=r"http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?",
            allow_methods=["GET", "HEAD"],
            allow_headers=["Range"],
            expose_headers=["Content-Range", "Content-Length", "Accept-Ranges", "ETag"],
            allow_private_network=True,
        )
        hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)
        mount = Mount(f"/{self.token}", routes=routes)
        return Starlette(routes=[mount, Route("/{rest:path}", _nothing)], middleware=[hosts, cors])

    async def _index(self, _request: Request) -> Response:
        rows = "".join(f'<li><a href="section/{one}">{one}</a></li>' for one in self.section_ids)  # ids are letters
        page = f"<!doctype html><title>{self.brain.brain_id}</title><h1>{self.brain.brain_id}</h1><ul>{rows}</ul>"
        return HTMLResponse(page, headers=PRIVATE_HEADERS)

    async def _names(self, request: Request) -> Response:
        legends = Taken.of(self.brain, self.settings).legends
        kind = request.path_params["kind"]
        if kind not in legends:
            return PlainTextResponse("no such map", status_code=404)
        return JSONResponse(segment_names(legends[kind]), headers=PRIVATE_HEADERS)

    async def _section(self, request: Request) -> Response:
        try:
            return RedirectResponse(self.link(request.path_params["section_id"]), headers=PRIVATE_HEADERS)
        except (SectionError, StoreError) as error:
            return PlainTextResponse(str(error), status_code=404)


async def _nothing(_request: Request) -> Response:
    return PlainTextResponse("nothing here", status_code=404)


def installed_client() -> Client | None:
    """Neuroglancer's pages, from now on served on loopback behind a token by its package; None: it is not installed.

    Those of its public site, which says so, where the package is installed and does not work.
    """
    if importlib.util.find_spec("neuroglancer") is None:
        return None
    try:
        import neuroglancer
    except ImportError as error:
        return PUBLIC._replace(said=f"the installed neuroglancer does not work ({error}): its public site is used")

    neuroglancer.set_server_bind_address(HOST)
    viewer = neuroglancer.UnsynchronizedViewer(token=secrets.token_urlsafe(24))
    return Client(f"{neuroglancer.server.get_server_url()}/v/{viewer.token}", viewer)


def free_port(wanted: int) -> int:
    """The port that is wanted, or any that is free where it is 0. Raises StoreError if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError as error:
            raise StoreError(f"port {wanted} of {HOST} cannot be used ({error.strerror}); name another, or 0") from None
        return int(probe.getsockname()[1])


def open_viewing(store_path: Path, brain_id: str, settings: ExportSettings, port: int) -> Viewing:
    """A brain ready to be served. Raises StoreError if it is not in the store, or the port is taken."""
    brain = read_only(store_path, brain_id)
    client = installed_client() or PUBLIC  # first: its server takes a free port too
    return Viewing(brain, settings, free_port(port), client=client)


def serve(viewing: Viewing) -> None:
    """Serve until interrupted, and neuroglancer's pages no longer than that."""
    import uvicorn

    try:
        uvicorn.run(viewing.application(), host=HOST, port=viewing.port, log_level="warning", access_log=False)
    finally:
        if viewing.client.held is not None:
            import neuroglancer

            neuroglancer.stop()
