"""A brain is served to whoever has the token, from this machine, to neuroglancer's pages; nothing but what is shown."""

import json
from collections.abc import Iterator
from urllib.parse import unquote

import pytest
from starlette.testclient import TestClient

from cytoarch.exports.settings import ExportSettings
from cytoarch.steps.opened import read_only
from flows.viewing import HOST, Viewing
from tests.flows.conftest import MappedBrain

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flows")]
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
    for address in ("derived/embeddings", "derived/tissue/otsu/s0000/zarr.json", "records", "brain.json", "derived"):
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
