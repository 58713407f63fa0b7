"""train-decoder waits for a person, suspended on a real server, and goes on with what they drew."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from uuid import UUID

import numpy as np
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.flow_runs import resume_flow_run
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

from cytoarch.errors import StoreError
from cytoarch.interactive.session import Session
from cytoarch.learning.training import DecoderSettings
from cytoarch.napari.waiting import Orchestrator
from cytoarch.steps import sections
from cytoarch.steps.opened import read_only
from cytoarch.steps.running import make_sections
from cytoarch.steps.training import training_of
from flows.parameters import StoredBrain
from flows.parcellate_brain import parcellate_brain
from flows.train_decoder import train_decoder
from flows.training import ScribbleChoice
from flows.viewing import free_port
from tests.browser.driving import Page, awaited
from tests.cytoarch.steps.small_brain import CORTEX, DEFAULTS, WHITE_MATTER, InProcess, SmallBrain, Steps, write_files

pytestmark = [pytest.mark.xdist_group("more flows"), pytest.mark.slow]

DECODER = {"width": 8, "epochs": 2, "least_steps": 0}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallBrain:
    """A tiny brain, embedded."""
    monkeypatch.setattr(sections, "containment", InProcess)
    brain = SmallBrain(tmp_path / "small")
    write_files(brain.scans)
    with brain.opened() as opened:
        assert not [one for one in make_sections(brain.ingestion(), opened) if one.status == "failed"]
        make_sections([Steps(brain, opened).embeddings], opened)
    return brain


@pytest.fixture
def deployment(client: SyncPrefectClient) -> Iterator[UUID]:
    deployed = train_decoder.to_deployment(name="train-decoder").apply()
    assert isinstance(deployed, UUID)
    yield deployed
    client.delete_deployment(deployed)


def execute(run: FlowRun, client: SyncPrefectClient) -> None:
    """What a worker does: the run in a process of its own, until it ends or is suspended."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "flow-run", "execute", str(run.id)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PREFECT_API_URL": str(client.api_url)},
    )
    assert "Traceback" not in done.stderr, done.stderr


def draw(small: SmallBrain, author: str) -> tuple[str, str]:
    """Draw and save; the digest of the decoder that the window would hand over, and the version."""
    with Session.opened(small.folder / "store", "B1", author) as session:
        for section in ("s0", "s3"):
            session.stroke(section, CORTEX, np.array([[20.0, 30.0], [80.0, 30.0]]), 6.0)
            session.stroke(section, WHITE_MATTER, np.array([[20.0, 100.0], [80.0, 100.0]]), 6.0)
        return session.author, session.save()


@pytest.mark.long
def test_a_suspended_run_goes_on_when_it_is_resumed_from_the_api(
    small: SmallBrain, client: SyncPrefectClient, deployment: UUID
) -> None:
    store = small.folder / "store"
    parameters: dict[str, Any] = {
        "brain": {"brain_id": "B1", "store_path": str(store)},
        "decoder": DECODER,
        "scribbles": {"wait": True},
    }
    run = client.create_flow_run_from_deployment(deployment, parameters=parameters)
    execute(run, client)
    waiting = client.read_flow_run(run.id).state
    assert (waiting.type, waiting.name) == (StateType.PAUSED, "Suspended")
    assert read_only(store, "B1").store.check_free("B1") is None, "nothing is held while it waits"

    resume_flow_run(run.id, run_input={"author": "nobody", "version": "latest"})
    execute(run, client)
    assert client.read_flow_run(run.id).state.name == "Suspended", "an answer that names nothing is asked for again"

    author, version = draw(small, "ada")
    # what the button of the window does, over plain HTTP
    orchestrator = Orchestrator(str(client.api_url).rstrip("/"))
    assert orchestrator.waiting("B2") == []
    (found,) = orchestrator.waiting("B1")
    assert found.run_id == str(run.id)
    orchestrator.resume(found, author, version)
    with pytest.raises(StoreError, match="was not resumed"):
        orchestrator.resume(found, author, version)
    execute(run, client)
    ended = client.read_flow_run(run.id).state
    assert ended.is_completed(), ended.message
    brain = read_only(store, "B1")
    (name,) = [one for one in brain.catalogue.names("training") if "-by-ada-" in one]
    by_flow = training_of(brain, name)[0].facts["model"]
    with Session.opened(store, "B1", "ada", DEFAULTS.embed) as session:
        digest, _ = session.hand_over(DecoderSettings(**DECODER))
    assert digest == by_flow, "window and deployment: the same bits"


def test_a_run_without_a_deployment_says_why_it_cannot_wait(tmp_path: Path, prefect_server: None) -> None:
    with pytest.raises(StoreError, match="only a run of a deployment can wait"):
        train_decoder(brain=StoredBrain(brain_id="B1", store_path=tmp_path), scribbles=ScribbleChoice(wait=True))


@pytest.fixture
def pages(client: SyncPrefectClient, tmp_path: Path) -> Iterator[str]:
    """The address of the server's pages, which the server of tests does not serve: another one on its database."""
    port = free_port(0)
    env = {
        **os.environ,
        "PREFECT_HOME": str(tmp_path / "home"),
        "PREFECT_API_DATABASE_CONNECTION_URL": str(PREFECT_API_DATABASE_CONNECTION_URL.value()),
        "PREFECT_UI_STATIC_DIRECTORY": str(tmp_path / "pages"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    env.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--no-services"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        awaited(lambda: urlopen(f"{address}/api/health").close(), OSError)  # noqa: S310 - http on loopback
        yield address
    finally:
        server.terminate()
        server.wait()


@pytest.mark.browser
@pytest.mark.long
def test_a_suspended_run_is_resumed_from_the_page_of_the_server(
    small: SmallBrain, client: SyncPrefectClient, deployment: UUID, pages: str, tmp_path: Path
) -> None:
    parameters: dict[str, Any] = {
        "brain": {"brain_id": "B1", "store_path": str(small.folder / "store")},
        "decoder": DECODER,
        "scribbles": {"wait": True},
    }
    run = client.create_flow_run_from_deployment(deployment, parameters=parameters)
    execute(run, client)
    draw(small, "ada")
    dialog = "document.querySelector('[role=dialog]')"
    with Page.opened(tmp_path / "profile") as page:
        page.go(f"{pages}/runs/flow-run/{run.id}")
        page.click("Resume")
        page.wait_for(f"{dialog}?.innerText.includes('waits for your scribbles')")
        asked = page.value(f"{dialog}.innerText")
        page.picture(Path(os.environ.get("CYTOARCH_PICTURES", tmp_path)) / "resume.png")
        for said in ("Author", "Version", "Who drew"):
            assert said in asked
        page.fill(f"{dialog}.querySelector('input')", "ada")
        page.click("Submit", dialog)
        page.wait_for(f"!{dialog}")
    state = client.read_flow_run(run.id).state
    assert (state.type, state.name) == (StateType.SCHEDULED, "Resuming")
    execute(run, client)
    ended = client.read_flow_run(run.id).state
    assert ended.is_completed(), ended.message
    brain = read_only(small.folder / "store", "B1")
    assert [one for one in brain.catalogue.names("training") if "-by-ada-" in one]


@pytest.fixture
def window(screen: None) -> Iterator[Any]:
    """A real window, with the plugin docked."""
    napari = pytest.importorskip("napari")
    from cytoarch.napari.widget import DrawWidget

    viewer = napari.Viewer(show=True)
    widget = DrawWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Draw and map")
    yield widget
    widget.close_session()
    viewer.close()


def settle(widget: Any, seconds: float = 300.0) -> None:
    """Until nothing is going on in the window any more."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while widget.working.deed is not None or widget.working.reading:
        QApplication.processEvents()
        time.sleep(0.02)
        assert time.monotonic() < end, widget.panel.status.text()
    QApplication.processEvents()


@pytest.mark.long
@pytest.mark.filterwarnings("default")  # napari's and Qt's own
def test_the_window_has_the_server_map_the_brain_with_what_was_drawn(
    small: SmallBrain, client: SyncPrefectClient, window: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cytoarch.napari.opening import Opening

    store = small.folder / "store"
    monkeypatch.setenv("PREFECT_API_URL", str(client.api_url).rstrip("/"))
    deployed = parcellate_brain.to_deployment(name="parcellate-brain").apply()
    draw(small, "ada")
    window.open(Opening(store, "B1", "ada", "texture"))
    settle(window)
    window.hand_over(DecoderSettings(**DECODER))
    settle(window)
    assert "Trained areas-decoder-by-ada" in window.panel.status.text()
    window.panel.whole.click()
    settle(window)
    assert "The server maps brain B1" in window.panel.status.text()
    window.viewer.window.screenshot(str(Path(os.environ.get("CYTOARCH_PICTURES", tmp_path)) / "map-brain.png"))
    (run,) = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployed]))
    )
    execute(run, client)
    client.delete_deployment(deployed)
    ended = client.read_flow_run(run.id).state
    assert ended.is_completed(), ended.message
    window.panel.sections.setCurrentRow(1)
    settle(window)
    shown = next(layer for layer in window.viewer.layers if layer.name.startswith("parcellation"))
    shown.visible = True
    window.viewer.window.screenshot(str(Path(os.environ.get("CYTOARCH_PICTURES", tmp_path)) / "mapped.png"))
    assert np.asarray(shown.data[0] if shown.multiscale else shown.data).any()
