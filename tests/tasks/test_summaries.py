"""What a run leaves on its page for people: nothing is cut off, and addresses can be followed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cytoarch.brains import Section
from tasks import summaries
from tasks.reports import REPORTS_STORE, REPORTS_URL
from tasks.summaries import publish_notes, publish_section_table

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


@pytest.mark.parametrize("is_served", [True, False])
def test_cells_hold_words_and_pictures_stand_beside_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_served: bool
) -> None:
    """Prefect's newer pages show what is in a cell as it is, the older ones take it for markdown."""
    monkeypatch.setenv(REPORTS_URL, "http://127.0.0.1:8230" if is_served else "")
    monkeypatch.setenv(REPORTS_STORE, str(tmp_path))
    left: dict[str, Any] = {}
    monkeypatch.setattr(summaries, "create_table_artifact", lambda rows, key, **_: left.update({key: rows}))
    monkeypatch.setattr(summaries, "create_markdown_artifact", lambda text, key, **_: left.update({key: text}))
    monkeypatch.setattr(summaries, "shown_figures", lambda _facts: {"pixel": "4 um"})
    section = Section(
        brain_id="B1", section_id="s_1", section_number=1, path="x", exclude=True, reason="![a](http://b)"
    )
    record = SimpleNamespace(facts={"doubts": ["torn_left", "<img src=http://b>"]})
    brain: Any = SimpleNamespace(
        brain=SimpleNamespace(brain_id="B1", sections=(section,)),
        brain_id="B1",
        failed={},
        store=SimpleNamespace(root=tmp_path),
        catalogue=SimpleNamespace(record=lambda _product: record),
    )
    publish_section_table(brain)
    (row,) = left["qc-b1"]
    assert not any("8230" in str(value) for value in row.values()), "no address, and no secret in it"
    assert (row["pixel"], row["reason"]) == ("4 um", r"!\[a\](http://b)")
    assert row["look at"] == r"torn_left; \<img src=http://b>"
    assert ("pictures-b1" in left) is is_served
    if is_served:
        assert left["pictures-b1"].startswith("[![s_1](http://127.0.0.1:8230/")
        assert "?small)](" in left["pictures-b1"]
