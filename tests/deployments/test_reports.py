"""Reports are served below their secret, to this machine, and nothing else of the store is."""

import io
import os
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image
from starlette.testclient import TestClient

from cytoarch.store.brain_store import BrainStore
from tasks.reports import REPORTS_STORE, REPORTS_URL, report_url, reports_token
from tests.deployments.scripts import imported


@pytest.fixture(scope="module")
def reports() -> ModuleType:
    return imported("reports")


@pytest.fixture
def store(tmp_path: Path) -> BrainStore:
    files = {
        "B1/report/index.html": b"<h1>B1</h1>",
        "B1/derived/pictures/map/s1/0.png": b"PNG",
        "B1/derived/pictures/map/s1/scan.webp": b"WEBP",
        "B1/derived/embeddings/x/s1/zarr.json": b"{}",
        "B1/sections.ome.zarr/s1/0.png": b"no",
        "B1/brain.json": b"{}",
        "B2/brain.json": b"{}",
    }
    for key, content in files.items():
        path = tmp_path / "store" / "brains" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "store/brains/B1/derived/link.png").symlink_to(tmp_path / "secret.png")
    return BrainStore(tmp_path / "store")


@pytest.fixture
def client(reports: ModuleType, store: BrainStore) -> TestClient:
    app = reports.application(store, reports_token(store.root))
    return TestClient(app, base_url="http://127.0.0.1:8230", raise_server_exceptions=True)


def test_pages_and_pictures_are_shown_below_the_secret_only(client: TestClient, store: BrainStore) -> None:
    token = reports_token(store.root)
    assert token == reports_token(store.root), "links of earlier days go on working"
    assert (store.root / ".reports-token").stat().st_mode & 0o077 == 0
    shown = client.get(f"/{token}/B1/report/index.html")
    assert (shown.status_code, shown.text) == (200, "<h1>B1</h1>")
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert client.get(f"/{token}/B1/derived/pictures/map/s1/0.png").content == b"PNG"
    assert client.get(f"/{token}/B1/derived/pictures/map/s1/scan.webp").content == b"WEBP"
    listed = client.get(f"/{token}/").text
    assert "B1/report/index.html" in listed
    assert "B2" not in listed
    assert client.get("/B1/report/index.html").status_code == 404
    assert client.get("/health").text == "well"


@pytest.mark.parametrize(
    "key",
    [
        "B1/brain.json",
        "B1/derived/embeddings/x/s1/zarr.json",
        "B1/sections.ome.zarr/s1/0.png",
        "B1/derived/link.png",
        "B1/report/../../../../secret.png",
        "B1/derived/%2e%2e/%2e%2e/%2e%2e/%2e%2e/secret.png",
        "../secret.png",
        "B9/report/index.html",
    ],
)
def test_nothing_else_is(client: TestClient, store: BrainStore, key: str) -> None:
    assert client.get(f"/{reports_token(store.root)}/{key}").status_code == 404


def test_a_picture_is_shown_small_where_that_is_asked_for(client: TestClient, store: BrainStore) -> None:
    path = store.brain_path("B1") / "derived" / "quality.png"
    Image.new("RGB", (1600, 800), "white").save(path)
    small = client.get(f"/{reports_token(store.root)}/B1/derived/quality.png?small")
    assert small.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(small.content)) as picture:
        assert picture.size == (160, 80)


def test_a_small_picture_is_made_once_and_a_damaged_one_is_none(
    client: TestClient, reports: ModuleType, store: BrainStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"/{reports_token(store.root)}/B1/derived/pictures/map/s1/0.png?small"
    assert client.get(address).status_code == 404, "it is no PNG"
    path = store.brain_path("B1") / "derived/pictures/map/s1/0.png"
    Image.effect_noise((64, 64), 50).save(path)
    whole = path.read_bytes()
    made: list[int] = []
    small = reports.thumbnail
    monkeypatch.setattr(reports, "thumbnail", lambda content, px: made.append(px) or small(content, px))
    assert client.get(address).content == client.get(address).content
    assert made == [160]
    path.write_bytes(whole[: len(whole) // 2])
    os.utime(path, ns=(1, 1))
    assert client.get(address).status_code == 404, "it is torn"


def test_pages_of_other_names_are_refused(reports: ModuleType, store: BrainStore) -> None:
    app = reports.application(store, "t")
    assert TestClient(app, base_url="http://lab.example").get("/health").status_code == 400
    app = reports.application(store, "t", reports.host_names("reports.lab.example:443, *.lab.org"))
    for name, status in (("reports.lab.example", 200), ("a.lab.org", 200), ("127.0.0.1", 200), ("lab.example", 400)):
        assert TestClient(app, base_url=f"https://{name}").get("/health").status_code == status
    with pytest.raises(ValueError, match="a star stands only"):
        reports.host_names("a.*")


def test_links_are_those_of_the_store_that_is_served(
    store: BrainStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(REPORTS_URL, raising=False)
    assert report_url(store.root, "B1") == ""
    monkeypatch.setenv(REPORTS_URL, "http://127.0.0.1:8230")
    monkeypatch.setenv(REPORTS_STORE, str(store.root))
    assert report_url(store.root, "B1") == f"http://127.0.0.1:8230/{reports_token(store.root)}/B1/report/index.html"
    assert report_url(tmp_path / "other", "B1") == ""
