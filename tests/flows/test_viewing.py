"""A brain is served to whoever has the token, from this machine, to neuroglancer's pages; nothing but what is shown."""

import colorsys
import importlib.util
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import uvicorn
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter
from starlette.testclient import TestClient

from cytoarch.exports.settings import ExportSettings
from cytoarch.steps.opened import read_only
from cytoarch.steps.taken import Taken
from cytoarch.tiling import evenly
from flows.viewing import HOST, PUBLIC, Client, Viewing, free_port, installed_client, serve
from tests.browser.tab import opened_tab
from tests.flows.conftest import MappedBrain

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flows")]
PANEL = """(() => {
  const panel = document.querySelector(".neuroglancer-rendered-data-panel").getBoundingClientRect();
  return [panel.left, panel.top, panel.width, panel.height];
})()"""
VIVID = 60
"""Between the channels of a colour whose hue is seen through the map."""
ELSEWHERE = "http://elsewhere.org"


@pytest.fixture(scope="module")
def viewing(mapped: MappedBrain) -> Viewing:
    return Viewing(read_only(mapped.store_path, "P01"), ExportSettings(), port=8765)


@pytest.fixture(scope="module")
def client(viewing: Viewing) -> Iterator[TestClient]:
    with TestClient(viewing.application(), base_url=f"http://{HOST}:8765", follow_redirects=False) as one:
        yield one


def test_without_the_token_there_is_nothing(viewing: Viewing, client: TestClient) -> None:
    assert client.get(f"/{viewing.token}/").status_code == 200
    for address in ("/", "/brain/sections.ome.zarr/zarr.json", f"/{viewing.token[:-1]}/", f"/{viewing.token}x/"):
        assert client.get(address).status_code == 404


def test_every_image_of_a_state_is_served_by_part(viewing: Viewing, client: TestClient) -> None:
    shown = client.get(f"/{viewing.token}/section/s0000")
    assert shown.status_code == 307
    state = json.loads(unquote(shown.headers["location"].partition("#!")[2]))
    addresses = [json.dumps(layer["source"]).partition("http://")[2].partition("/")[2] for layer in state["layers"]]
    assert len(addresses) >= 3, "the scan, labels or the map, clusters"
    for address in addresses:
        path = "/" + address.partition("|")[0].partition('"')[0].rstrip("/")
        whole = client.get(f"{path}/zarr.json")
        assert whole.status_code == 200, path
        part = client.get(f"{path}/zarr.json", headers={"Range": "bytes=0-3"})
        assert (part.status_code, part.content) == (206, whole.content[:4])


def test_what_is_not_shown_is_not_served(viewing: Viewing, client: TestClient) -> None:
    kept = viewing.brain.catalogue.folder
    for address in ("derived/embeddings", "derived/tissue/slide/s0000/zarr.json", "records", "brain.json", "derived"):
        assert (kept / address).exists(), address
        assert client.get(f"/{viewing.token}/brain/{address}").status_code == 404
    for way in ("..", "%2e%2e", "..%2f.."):
        assert client.get(f"/{viewing.token}/brain/sections.ome.zarr/{way}/brain.json").status_code == 404


def test_pages_of_other_sites_and_other_hosts_are_refused(viewing: Viewing, client: TestClient) -> None:
    address = f"/{viewing.token}/brain/sections.ome.zarr/zarr.json"
    allowed = client.get(address, headers={"Origin": "http://localhost:3000"})
    assert allowed.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "access-control-allow-origin" not in client.get(address, headers={"Origin": ELSEWHERE}).headers
    assert client.get(address, headers={"Host": "elsewhere.org"}).status_code == 400


def test_a_section_that_is_not_there_is_answered_with_those_that_are(viewing: Viewing, client: TestClient) -> None:
    answer = client.get(f"/{viewing.token}/section/s99")
    assert answer.status_code == 404
    assert "there are s0000, s0010" in answer.text


# -- as it is seen -----------------------------------------------------------------------------------------------------


@contextmanager
def served(viewing: Viewing) -> Iterator[None]:
    server = uvicorn.Server(
        uvicorn.Config(viewing.application(), host=HOST, port=viewing.port, log_level="error", ws="none")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(30)


def hue(colour: NDArray[Any]) -> float:
    """Of a colour (3,), in turns: grey that lies under a colour does not change its hue."""
    red, green, blue = (float(one) / 255 for one in colour)
    return colorsys.rgb_to_hsv(red, green, blue)[0]


@pytest.fixture
def pages() -> Iterator[Client]:
    """Neuroglancer's pages, served by its package."""
    found = installed_client()
    if found is None:
        pytest.skip("neuroglancer is not installed")
    yield found
    import neuroglancer

    neuroglancer.stop()


def test_a_broken_neuroglancer_is_said_and_its_public_pages_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setitem(sys.modules, "neuroglancer", None)  # importing it is an ImportError
    found = installed_client()
    assert found is not None
    assert (found.url, found.held) == (PUBLIC.url, None)
    assert "does not work" in found.said


def test_neuroglancers_own_server_ends_with_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn, "run", interrupted)
    monkeypatch.setitem(sys.modules, "neuroglancer", SimpleNamespace(stop=lambda: ended.append("stopped")))
    brain: Any = SimpleNamespace(catalogue=SimpleNamespace(folder=Path()))
    for client, times in ((PUBLIC, 0), (Client("http://here", object()), 1)):
        with pytest.raises(KeyboardInterrupt):
            serve(Viewing(brain, ExportSettings(), 8765, client=client))
        assert len(ended) == times


@pytest.mark.browser
def test_neuroglancer_shows_the_map_over_the_scan_where_it_lies_in_its_colours(
    mapped: MappedBrain, pages: Client, tmp_path: Path
) -> None:
    viewing = Viewing(read_only(mapped.store_path, "P01"), ExportSettings(), free_port(0), client=pages)
    section = viewing.brain.rows["s0020"]
    taken = Taken.of(viewing.brain, ExportSettings())
    drawn = next(one for one in taken.maps(section) if one.kind == taken.map_kind)
    with served(viewing), opened_tab(tmp_path / "profile", 1500, 1100) as tab:
        tab.open(viewing.link("s0020"))
        tab.until("typeof viewer === 'object' && viewer.isReady()")
        left, top, width, height = tab.ask(PANEL)
        picture = tab.photographed()
        assert not [one for one in tab.errors if "favicon" not in one]
    level, state = drawn.labels.levels[0], viewing.state("s0020")
    px_um, (x_middle, y_middle) = state["crossSectionScale"], state["position"]
    vivid = {row.value: row.colour for row in drawn.legend if max(row.colour) - min(row.colour) > VIVID}
    ids = level.pixels()
    seen = []
    for row, column in well_inside(ids, list(vivid)):
        y_um, x_um = level.grid.um(np.array([[row, column]]))[0]
        y, x = top + height / 2 + (y_um - y_middle) / px_um, left + width / 2 + (x_um - x_middle) / px_um
        found, wanted = hue(picture[round(y), round(x)]), hue(np.array(vivid[int(ids[row, column])]))
        seen.append(abs((found - wanted + 0.5) % 1 - 0.5) < 0.03)
    assert len(seen) > 20
    assert np.mean(seen) > 0.95


def well_inside(ids: NDArray[Any], values: list[int]) -> NDArray[np.int64]:
    """Cells (n, 2) of a label map that have one of some labels, as all their neighbours have."""
    same = np.isin(ids, values) & (minimum_filter(ids, 3) == maximum_filter(ids, 3))
    cells = np.argwhere(same)
    return cells[evenly(len(cells), 200)]
