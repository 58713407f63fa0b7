"""The page that shows how good the scans of a brain are."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task

from cytoarch.brains import Brain, Section
from cytoarch.contents import quality_page_product, quality_product
from cytoarch.reporting.quality import QUALITY_VERSION, QualityEntry, render_quality_page
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.products import Work
from cytoarch.store.staging import Staging
from tasks.ingest import QUALITY_FILE
from tasks.sections import POLICY

QUALITY_PAGE_FILE = "index.html"


@task(name="quality-page", task_run_name="quality of {brain.brain_id}", **POLICY)
def write_quality_page(store_path: Path, brain: Brain, failed: dict[str, str]) -> bool:
    """Bring the page of quality up to date; says whether anything changed."""
    store = BrainStore(store_path)
    records = {one.section_id: store.record(quality_product(brain.brain_id, one.section_id)) for one in brain.kept}
    inputs = {one: record.digest for one, record in records.items() if record is not None} | {"brain": brain.digest}
    facts = {one: record.facts for one, record in records.items() if record is not None and one not in failed}

    def write(staging: Staging) -> dict[str, Any]:
        folder = store.path(quality_page_product(brain.brain_id))
        entries = [_entry(store, folder, section, facts, failed) for section in brain.sections]
        staging.write(QUALITY_PAGE_FILE, render_quality_page(brain.brain_id, entries))
        return {}

    work = Work(QUALITY_VERSION, inputs, {"failed": failed})
    return store.ensure(quality_page_product(brain.brain_id), work, write)[1]


def _entry(
    store: BrainStore, page: Path, section: Section, facts: Mapping[str, Mapping[str, Any]], failed: Mapping[str, str]
) -> QualityEntry:
    one = section.section_id
    figures = facts.get(one, {})
    status = "excluded" if section.exclude else "failed" if one in failed or not figures else "kept"
    reason = section.reason if section.exclude else failed.get(one, "" if figures else "not ingested")
    picture = store.path(quality_product(section.brain_id, one)) / QUALITY_FILE
    shown = os.path.relpath(picture, page) if figures else ""
    return QualityEntry(one, section.section_number, status, reason, shown, figures)
