"""What a run leaves on its page for people: nothing is cut off, and addresses can be followed."""

from typing import Any

import pytest

from tasks import summaries
from tasks.summaries import publish_notes

SENTENCE = "In all, this brain looks like what the model learned from: 3 % of its tokens lie outside the range."
PAGE = "http://127.0.0.1:5000/#/experiments/1/runs/a_b?workflowType=machine_learning"


def test_sentences_are_paragraphs_and_addresses_are_links(monkeypatch: pytest.MonkeyPatch) -> None:
    left: dict[str, Any] = {}
    monkeypatch.setattr(summaries, "create_markdown_artifact", lambda text, key: left.update({key: text}))
    monkeypatch.setattr(summaries, "create_link_artifact", lambda link, key, **_: left.update({key: link}))
    notes = {"familiarity": SENTENCE, "MLflow run": PAGE, "model": "layers_probe version 1"}
    publish_notes("cortex", "One probe of A|B.", notes, [{"on": "A|B", "part": "fifth"}, {"on": "C", "part": "block"}])
    assert left["summary-cortex"].splitlines() == [
        "# cortex",
        "",
        r"One probe of A\|B\.",
        "",
        "| on | part |",
        "| --- | --- |",
        r"| A\|B | fifth |",
        "| C | block |",
        "",
        f"**familiarity**: {SENTENCE[:-1]}\\.",
        "",
        "| | |",
        "|---|---|",
        f"| MLflow run | [open](<{PAGE}>) |",
        r"| model | layers\_probe version 1 |",
    ]
    assert left["mlflow-run-cortex"] == PAGE
