"""train-decoder waits for a person, suspended on a real server, and goes on with what they drew."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.flow_runs import resume_flow_run

from cytoarch.errors import StoreError
from cytoarch.interactive.session import Session
from cytoarch.learning.training import DecoderSettings
from cytoarch.napari.waiting import Orchestrator
from cytoarch.steps import sections
from cytoarch.steps.opened import read_only
from cytoarch.steps.running import make_sections
from cytoarch.steps.training import training_of
from flows.parameters import StoredBrain
from flows.train_decoder import form_for, train_decoder
from flows.training import ScribbleChoice
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


@pytest.mark.parametrize("author", ["", "ada"])
def test_every_field_of_the_form_says_what_belongs_there(tmp_path: Path, author: str) -> None:
    form = form_for(StoredBrain(brain_id="B1", store_path=tmp_path), author).model_json_schema()
    assert {name: bool(one["description"]) for name, one in form["properties"].items()} == {
        "author": True, "version": True,
    }  # fmt: skip
    assert form["properties"]["author"].get("default", "") == author
    assert form.get("required", []) == ([] if author else ["author"])


def test_a_run_without_a_deployment_says_why_it_cannot_wait(tmp_path: Path, prefect_server: None) -> None:
    with pytest.raises(StoreError, match="only a run of a deployment can wait"):
        train_decoder(brain=StoredBrain(brain_id="B1", store_path=tmp_path), scribbles=ScribbleChoice(wait=True))
