"""The lines of the docs do what they say."""

import re
from pathlib import Path

import pytest

from cytoarch.store.brain_store import BrainStore
from tests.many_sections import write_scans

DOCS = Path(__file__).resolve().parents[3] / "docs" / "steps.md"


def test_a_folder_is_ingested_embedded_and_clustered_without_prefect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scans(tmp_path / "scans", 3)
    manifest = tmp_path / "scans" / "manifest.csv"
    manifest.write_text(re.sub(r"labels/\w+\.png,phantom", ",", manifest.read_text()))
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)[0]
    exec(compile(code, str(DOCS), "exec"), {})  # noqa: S102 - our own docs
    catalogue = BrainStore(tmp_path / "work" / "store").catalogue("B1")
    assert catalogue.section_ids("clusters", catalogue.names("clusters")[0]) == ["s0000", "s0001", "s0002"]
