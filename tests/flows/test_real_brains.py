"""Real sections from a drafted and completed manifest to a report: no score is promised, only that the way is open."""

import csv
from pathlib import Path

import numpy as np
import pytest

from cytoarch.drafting import draft_manifest
from cytoarch.learning.training import ProbeSettings
from cytoarch.parcellation.inference import ParcellateSettings
from cytoarch.store.brain_store import BrainStore
from flows.ingest_brain import ingest_brain
from flows.map_brain import map_brain
from flows.parameters import BrainSource, MapSettings

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.xdist_group("more flows")]


def completed(draft: Path, keep: int, **cells: str) -> None:
    """Complete a draft as a person would: confirm numbers, fill in cells; keep the first rows that have a number."""
    with draft.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["section_number"]][:keep]
    for row in rows:
        row.update(section_number=row["section_number"].lstrip("?"), **cells)
    with draft.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def table(path: Path, ids: np.ndarray) -> Path:
    path.write_text("id,name\n" + "".join(f"{one},structure {one}\n" for one in ids if one))
    return path


@pytest.mark.long
def test_stained_human_sections_become_a_layer_map(real_data: Path, tmp_path: Path, prefect_server: None) -> None:
    folder = real_data / "human_dlpfc_layers"
    manifest = tmp_path / "manifest.csv"
    root, _ = draft_manifest(folder / "images", manifest, folder / "labels", "H01")
    completed(manifest, keep=4, pixel_size_um="16.2", stain="he", species="human", labels_origin="expert")
    store = BrainStore(tmp_path / "store")
    summary = map_brain(
        source=BrainSource(
            manifest_path=manifest,
            scans_path=root,
            label_table_path=table(tmp_path / "labels.csv", np.arange(1, 8)),
            store_path=store.root,
        ),
        settings=MapSettings(probe=ProbeSettings(target="layers"), parcellate=ParcellateSettings(source="cache")),
    )
    assert summary.failed == {}
    tissue = [record.facts for record in store.catalogue("H01").records() if record.step == "tissue"]
    # the marks printed around the section are none of it
    assert all(facts["polarity"] == "dark" and 0.35 < facts["fraction"] < 0.6 for facts in tissue)
    record = next(one for one in store.catalogue("H01").records() if one.step == "training")
    assert record.facts["scores"]["held_out/macro_f1"] > 1 / 7


@pytest.mark.long
def test_a_fluorescent_mouse_series_is_ingested_with_its_own_pixel_sizes(
    real_data: Path, tmp_path: Path, prefect_server: None
) -> None:
    folder = real_data / "mouse_dapi_series"
    manifest = tmp_path / "manifest.csv"
    root, _ = draft_manifest(folder / "images", manifest, folder / "labels_auto", "M01")
    completed(manifest, keep=20, stain="dapi", labels_origin="automatic")
    store = BrainStore(tmp_path / "store")
    summary = ingest_brain(
        source=BrainSource(
            manifest_path=manifest,
            scans_path=root,
            label_table_path=table(tmp_path / "labels.csv", np.arange(1, 555)),
            store_path=store.root,
        )
    )
    assert summary.failed == {}
    records = [record for record in store.catalogue("M01").records() if record.step == "sections"]
    assert len(records) == 20
    assert all(r.facts["pixel_size_um"] == 20 and r.facts["shape"] == [2, 459, 655] for r in records)
    tissue = [record.facts for record in store.catalogue("M01").records() if record.step == "tissue"]
    assert all(facts["polarity"] == "bright" for facts in tissue)
    # the scanner's padding is no tissue: its area is that of the (automatic) labels, as far as these go
    labelled = [record.facts["labelled_px"] for record in store.catalogue("M01").records() if record.step == "labels"]
    ratios = [facts["area_mm2"] / (count * 0.02**2) for facts, count in zip(tissue, labelled, strict=True)]
    assert 0.85 < np.median(ratios) < 1.15
    assert all(0.6 < ratio < 1.4 for ratio in ratios)
