"""The chain on a phantom: everything is there, valid, tracked, and free when it is run again."""

import csv
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import ome_zarr_models
import pytest
import tifffile
import zarr
from distributed import LocalCluster
from mlflow import MlflowClient
from ome_zarr_models.v05.bioformats2raw import BioFormats2Raw
from ome_zarr_models.v05.image import Image as NgffImage
from ome_zarr_models.v05.image_label import ImageLabel
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.states import State

from cytoarch.brains import Brain
from cytoarch.discovery.clusters import ClusterSettings
from cytoarch.embeddings import EmbedSettings
from cytoarch.errors import CytoarchError, ManifestError, ModelError, StoreError
from cytoarch.images.conformance import conformance_faults
from cytoarch.images.views import StoredImage
from cytoarch.learning.training import DecoderSettings
from cytoarch.parcellation.inference import ParcellateSettings
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.collection import COLLECTION
from cytoarch.store.products import Product
from flows.cluster_brain import cluster_brain
from flows.embed_brain import embed_brain
from flows.ingest_brain import ingest_brain
from flows.map_brain import map_brain
from flows.parameters import BrainSource, MapSettings, RunSettings, StoredBrain
from flows.parcellate_brain import parcellate_brain
from flows.stages import Summary
from tasks.tracking import fetch_head, tracking_uri
from tests.artifacts import every_artifact
from tests.deployments.scripts import imported
from tests.flows.conftest import MappedBrain
from tests.verified import damaged

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flows")]

CACHED = MapSettings(parcellate=ParcellateSettings(source="cache"))


def files_in(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Every file with its inode, modification time and content."""
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_ino,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("lock", "lock-helpers", "mlflow.db")
    }


def client_of(mapped: MappedBrain) -> MlflowClient:
    return MlflowClient(tracking_uri=tracking_uri(mapped.store), registry_uri=tracking_uri(mapped.store))


def copied(phantom: Path, folder: Path) -> Path:
    shutil.copytree(phantom.parent, folder / "brain")
    return folder / "brain" / "manifest.csv"


def rewrite(manifest: Path, change: dict[str, dict[str, str]]) -> None:
    """Change cells of a manifest: section id -> column -> value."""
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = list(dict.fromkeys([*rows[0], *(name for cells in change.values() for name in cells)]))
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows([{**row, **change.get(row["section_id"], {})} for row in rows])


def test_every_section_is_mapped_and_every_product_has_its_record(mapped: MappedBrain) -> None:
    steps = {record.step for record in mapped.store.catalogue("P01").records()}
    assert steps == {
        "sections", "labels", "tissue", "embeddings", "colours", "training", "probabilities", "parcellations",
        "agreement", "scales", "familiarity",
        "clusters", "cluster-checks", "areas", "quality", "pictures", "report", "reconstruction", "alignment", "volume",
        "links", "known-tokens", "layout", "retrieval",
    }  # fmt: skip
    assert isinstance(mapped.summary, Summary)
    assert mapped.summary.failed == {}
    assert damaged(mapped.store, "P01") == []


def test_no_other_run_is_let_in_during_any_stage(mapped: MappedBrain) -> None:
    assert set(mapped.second_run) == {
        "ingest", "quality", "reconstruct", "draw links", "volume", "embed",
        "fit colours", "colours", "fit scale", "train", "parcellate", "fit clusters", "cluster", "check clusters",
        "draw", "report", "link", "draw tokens", "lay out tokens", "find neighbours",
    }  # fmt: skip
    for stage, told in mapped.second_run.items():
        assert f"brain P01 is being written by process {os.getpid()}" in told, stage


def test_no_file_belongs_to_two_records_and_none_to_no_record(mapped: MappedBrain) -> None:
    home = mapped.store.brain_path("P01")
    keys = [key for record in mapped.store.catalogue("P01").records() for key in record.files]
    assert len(keys) == len(set(keys))
    on_disk = {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}
    own = ("records", "scan-digests", "brain.json", "lock", "lock-helpers")
    loose = {key for key in on_disk - set(keys) if key.split("/")[0] not in own}
    assert loose == set(COLLECTION)


def test_every_image_passes_validation(mapped: MappedBrain) -> None:
    assert conformance_faults(mapped.store.brain_path("P01")) == []


def test_every_image_is_accepted_by_ome_zarr_models(mapped: MappedBrain) -> None:
    home = mapped.store.brain_path("P01")
    BioFormats2Raw.from_zarr(zarr.open_group(home / "sections.ome.zarr", mode="r"))
    images = labels = 0
    for path in sorted(home.rglob("zarr.json")):
        ome = json.loads(path.read_text()).get("attributes", {}).get("ome", {})
        if "multiscales" not in ome:
            continue
        group = zarr.open_group(path.parent, mode="r")
        assert ome_zarr_models.open_ome_zarr(group) is not None
        if "image-label" in ome:
            label = ImageLabel.from_zarr(group)
            image = NgffImage.from_zarr(zarr.open_group(path.parent.parent.parent, mode="r"))
            levels = [len(one.ome_attributes.multiscales[0].datasets) for one in (label, image)]
            assert levels[0] == levels[1], path
            labels += 1
        else:
            NgffImage.from_zarr(group)
            images += 1
    assert (images, labels) == (5 * 10 + 1, 5 * 5)


def test_pixels_and_physical_sizes_are_those_of_the_scans(mapped: MappedBrain) -> None:
    for section in mapped.brain.sections:
        scan = tifffile.imread(mapped.manifest_path.parent / section.path)
        image = StoredImage.open(mapped.store.catalogue("P01").path(Product("sections", "scan", section.section_id)))
        np.testing.assert_array_equal(np.asarray(image.levels[0].array)[0], scan)
        assert [level.pixel_size_um for level in image.levels] == [80.0, 160.0][: len(image.levels)]


def test_the_map_finds_the_phantoms_areas_far_above_chance(mapped: MappedBrain) -> None:
    record = next(one for one in mapped.store.catalogue("P01").records() if one.step == "training")
    assert record.facts["scores"]["held_out/macro_f1"] > 0.5  # five classes: chance is below 0.2


def test_running_again_writes_no_byte_and_adds_no_row(mapped: MappedBrain) -> None:
    before = files_in(mapped.store_path)
    experiment = client_of(mapped).get_experiment_by_name("cytoarch: areas of brains").experiment_id
    rows = len(client_of(mapped).search_runs([experiment]))
    summary = map_brain(source=BrainSource(manifest_path=mapped.manifest_path, store_path=mapped.store_path))
    assert summary.made == 0
    assert files_in(mapped.store_path) == before
    assert len(client_of(mapped).search_runs([experiment])) == rows


def test_mlflow_holds_one_parent_row_with_links_both_ways(mapped: MappedBrain) -> None:
    runs = mlflow.MlflowClient(tracking_uri(mapped.store)).search_runs(
        [client_of(mapped).get_experiment_by_name("cytoarch: areas of brains").experiment_id], "tags.kind = 'brain'"
    )
    assert len(runs) == 1
    tags, metrics = runs[0].data.tags, runs[0].data.metrics
    assert {"brain", "config_digest", "input_digest", "encoder_digest", "git_revision", "prefect.flow_run_id"} <= set(
        tags
    )
    assert {
        "held_out/macro_f1",
        "held_out/top1",
        "held_out/top3",
        "headline/macro_f1",
        "familiarity/outside95",
        "sections/mapped",
    } <= set(metrics)
    with get_client(sync_client=True) as prefect:
        assert prefect.read_flow_run(tags["prefect.flow_run_id"]).name == "map-P01"
    links = [one.data for one in every_artifact() if one.key == "mlflow-run-p01"]
    assert links
    assert runs[0].info.run_id in str(links[0])


def test_prefect_shows_a_table_a_summary_and_progress(mapped: MappedBrain) -> None:
    artifacts = every_artifact()
    kinds = {one.key: one.type for one in artifacts if one.key}
    assert kinds["qc-p01"] == "table"
    tables = [json.loads(str(one.data)) for one in artifacts if one.key == "qc-p01"]
    wanted = [one.section_id for one in mapped.brain.sections]
    assert any(
        [row["section"] for row in rows] == wanted
        and all(row["pixel"].endswith(" um") and "mm2" in row["tissue"] for row in rows)
        for rows in tables
    ), tables
    summaries = [str(one.data) for one in artifacts if one.key == "summary-p01"]
    assert any("![The map, section by section](data:image/jpeg;base64," in one for one in summaries)
    assert kinds["summary-p01"] == "markdown"
    progress = [one for one in artifacts if one.type == "progress"]
    with get_client(sync_client=True) as prefect:  # other tests have runs that break off
        runs = {one.flow_run_id for one in progress if one.flow_run_id}
        states = {run_id: prefect.read_flow_run(run_id).state for run_id in runs}
    broke_off = {run_id for run_id, state in states.items() if state is not None and state.is_failed()}
    told = [one for one in progress if one.flow_run_id not in broke_off]
    assert told
    assert all(float(str(one.data)) == 100.0 for one in told)


def test_the_champion_is_read_from_the_registry_without_running_anything(mapped: MappedBrain, tmp_path: Path) -> None:
    digest = fetch_head(mapped.store, "models:/areas-probe-P01@champion")
    record = next(one for one in mapped.store.catalogue("P01").records() if one.step == "training")
    assert digest == record.facts["model"]
    kept = {path.suffix for path in mapped.store.tracking_path.rglob("*") if path.is_file()}
    assert not kept & {".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib"}
    with pytest.raises(ModelError, match="cannot be had"):
        fetch_head(mapped.store, "models:/no-such-model@champion")


def test_the_report_shows_every_section_and_only_files_that_exist(mapped: MappedBrain) -> None:
    import re

    page = mapped.store.brain_path("P01") / "report" / "index.html"
    html = page.read_text()
    sources = re.findall(r'src="([^"]+)"', html)
    looks = [one for one in sources if one.endswith("thumbnail.png")]  # sections that stand out
    of_brain = [one for one in sources if "/layout/" in one or "/retrieval/" in one]
    assert len(of_brain) == 2
    at_a_glance = [one for one in sources if one.endswith(("/scan.webp", "/map.png"))]
    assert len(at_a_glance) == 2 * 5
    assert {Path(one).suffix for one in sources} <= imported("reports").SUFFIXES, "what is shown is served, too"
    assert len(sources) - len(looks) - len(of_brain) - len(at_a_glance) == 5 * 6 + 1
    assert all((page.parent / source).is_file() for source in sources)
    assert not re.search(r"https?://", html)
    for section in mapped.brain.sections:
        assert section.section_id in html
    assert "those of a phantom" in html
    assert "How large the areas are on the map" in html
    layers = re.findall(r'"(\.\./[^"]+\.(?:png|webp))"', (page.parent / "viewer.html").read_text())
    assert len(layers) == 5 * 7
    assert all((page.parent / one).is_file() for one in layers)
    record = next(one for one in mapped.store.catalogue("P01").records() if one.step == "sections")
    assert record.inputs["scan"] in html


def test_a_section_that_cannot_be_read_costs_that_section_only(
    phantom: Path, tmp_path: Path, prefect_server: None
) -> None:
    """Missing, truncated, no image, label image of another size, checksum of another file."""
    manifest = copied(phantom, tmp_path)
    scans = manifest.parent / "scans"
    (scans / "s0000.tif").unlink()
    whole = (scans / "s0010.tif").read_bytes()
    (scans / "s0010.tif").write_bytes(whole[: len(whole) // 2])
    (scans / "s0020.tif").write_text("not an image")
    Image.fromarray(np.zeros((10, 12), dtype=np.uint8)).save(manifest.parent / "labels" / "s0030.png")
    store_path = tmp_path / "store"
    source = BrainSource(manifest_path=manifest, store_path=store_path)
    state: State[Any] = map_brain(source=source, settings=CACHED, return_state=True)  # type: ignore[call-overload]  # Prefect adds return_state
    assert state.is_completed()
    assert state.name == "4 sections failed"
    summary = state.result()
    assert {one: reason.split(":")[0].split("/")[-1] for one, reason in summary.failed.items()} == {
        "s0000": "s0000.tif",
        "s0010": "s0010.tif",
        "s0020": "s0020.tif",
        "s0030": "s0030.png",
    }
    assert "10 x 12 pixels where the scan has" in summary.failed["s0030"]
    html = (BrainStore(store_path).brain_path("P01") / "report" / "index.html").read_text()
    assert html.count('class="failed"') >= 4
    shutil.copytree(phantom.parent, manifest.parent, dirs_exist_ok=True)
    healed = ingest_brain(source=source)
    assert (healed.made, healed.failed) == (5, {}), "once they are mended, only they are made, and the page of quality"


def test_a_manifest_at_fault_starts_nothing(phantom: Path, tmp_path: Path, prefect_server: None) -> None:
    manifest = copied(phantom, tmp_path)
    rewrite(
        manifest, {"s0010": {"section_number": "0"}, "s0020": {"pixel_size_um": "-3"}, "s0030": {"path": "../x.tif"}}
    )
    with pytest.raises(ManifestError) as caught:
        map_brain(source=BrainSource(manifest_path=manifest, store_path=tmp_path / "store"))
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["row 4", "row 5", "row 3"]
    assert not (tmp_path / "store").exists()


def test_an_encoder_that_cannot_be_had_is_found_before_any_section_is_read(
    phantom: Path, tmp_path: Path, prefect_server: None
) -> None:
    source = BrainSource(manifest_path=phantom, store_path=tmp_path / "store")
    with pytest.raises(ModelError, match="encoders are texture"):
        map_brain(source=source, settings=MapSettings(embed=EmbedSettings(encoder="dinov9")))
    assert not (tmp_path / "store").exists()


def test_one_section_in_colour_among_grey_ones_is_found_before_anything_is_computed(
    phantom: Path, tmp_path: Path, prefect_server: None
) -> None:
    manifest = copied(phantom, tmp_path)
    scan = manifest.parent / "scans" / "s0020.tif"
    grey = tifffile.imread(scan)
    tifffile.imwrite(scan, np.stack([grey] * 3, axis=-1), photometric="rgb")
    store = BrainStore(tmp_path / "store")
    brain = StoredBrain(brain_id="P01", store_path=store.root)
    source = BrainSource(manifest_path=manifest, store_path=store.root)
    for run in (lambda: map_brain(source=source), lambda: embed_brain(brain=brain)):
        with pytest.raises(ModelError, match=r"P01: 1 section\(s\) would be seen in 3 channel.*in 1: s0020"):
            run()
        assert {one.step for one in store.catalogue("P01").records()} == {"sections", "labels", "tissue", "quality"}
        assert not (store.brain_path("P01") / "derived" / "embeddings").exists()
        assert not list((store.brain_path("P01") / "staging").glob("embeddings*"))
    rewrite(manifest, {"s0020": {"exclude": "yes", "reason": "in colour"}})
    ingest_brain(source=source)
    assert embed_brain(brain=brain).failed == {}, "the way out that the error names"


def test_a_brain_without_labels_is_clustered_and_reported_and_what_is_excluded_is_left_out_with_its_reason(
    phantom: Path, tmp_path: Path, prefect_server: None
) -> None:
    manifest = copied(phantom, tmp_path)
    rewrite(manifest, {f"s{number:04d}": {"labels": "", "exclude": "", "reason": ""} for number in range(0, 50, 10)})
    rewrite(
        manifest,
        {"s0010": {"exclude": "yes", "reason": "torn in half", "flip": "horizontal"}, "s0020": {"rotation": "90"}},
    )
    store = BrainStore(tmp_path / "store")
    assert map_brain(source=BrainSource(manifest_path=manifest, store_path=store.root)).failed == {}
    records = list(store.catalogue("P01").records())
    steps = {record.step for record in records}
    assert "clusters" in steps
    assert not steps & {"training", "parcellations", "labels"}
    assert {record.section for record in records if record.step == "sections"} == {"s0000", "s0020", "s0030", "s0040"}
    page = (store.brain_path("P01") / "report" / "index.html").read_text()
    assert "No section has labels" in page
    assert "torn in half" in page


@pytest.mark.long
def test_two_brains_of_a_manifest_get_a_run_and_a_row_each(
    phantom: Path, tmp_path: Path, prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = copied(phantom, tmp_path)
    lines = manifest.read_text().splitlines()
    second = [line.replace("P01,", "P02,", 1) for line in lines[1:]]
    manifest.write_text("\n".join([*lines, *second]) + "\n")
    store = BrainStore(tmp_path / "store")
    summary = map_brain(source=BrainSource(manifest_path=manifest, store_path=store.root), settings=CACHED)
    assert summary.brain_id == "P01, P02"
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", tracking_uri(store))
    runs = mlflow.search_runs(experiment_names=["cytoarch: areas of brains"], filter_string="tags.kind = 'brain'")
    assert sorted(runs["tags.brain"]) == ["P01", "P02"]
    metrics = runs[[column for column in runs.columns if column.startswith("metrics.")]]
    assert not metrics.isna().any().any()


@pytest.mark.long
def test_scribbles_train_a_decoder(phantom: Path, tmp_path: Path, prefect_server: None) -> None:
    """Sparse strokes in two sections, a decoder, parcellation from the cache; the probe's champion stays its own."""
    manifest = copied(phantom, tmp_path)
    for path in sorted((manifest.parent / "labels").glob("*.png")):
        dense = np.array(Image.open(path))
        sparse = np.zeros_like(dense)
        sparse[::24, :] = dense[::24, :]
        Image.fromarray(sparse).save(path)
    store = BrainStore(tmp_path / "store")
    map_brain(
        source=BrainSource(manifest_path=manifest, store_path=store.root),
        settings=MapSettings(
            head="decoder",
            decoder=DecoderSettings(epochs=8, width=16, learning_rate=5e-3, least_steps=0),
            parcellate=ParcellateSettings(source="cache"),
        ),
    )
    record = next(one for one in store.catalogue("P01").records() if one.step == "training")
    losses = record.facts["fit"]["loss"]
    assert losses[-1] < losses[0]
    # the registered decoder maps the brain from its own flow, too
    summary = parcellate_brain(
        brain=StoredBrain(brain_id="P01", store_path=store.root),
        model="models:/areas-decoder-P01@champion",
        embedding=next(one.name for one in store.catalogue("P01").records() if one.step == "embeddings"),
        parcellate=ParcellateSettings(source="cache"),
    )
    assert summary.made == 0


def test_a_flow_on_a_brain_that_is_not_there_says_which_are(mapped: MappedBrain) -> None:
    with pytest.raises(StoreError, match=r"holds no brain 'B99' \(brains there: P01\)"):
        parcellate_brain(brain=StoredBrain(brain_id="B99", store_path=mapped.store_path))


@pytest.mark.long
def test_dask_processes_give_the_same_content(mapped: MappedBrain, tmp_path: Path) -> None:
    store = BrainStore(tmp_path / "store")
    source = BrainSource(manifest_path=mapped.manifest_path, store_path=store.root)
    map_brain(source=source, run=RunSettings(workers=2, runner="dask"))
    assert store.catalogue("P01").content_digest() == mapped.store.catalogue("P01").content_digest()


@pytest.mark.long
def test_a_scheduler_that_is_running_gives_the_same_content_and_goes_on_running(
    mapped: MappedBrain, tmp_path: Path
) -> None:
    store = BrainStore(tmp_path / "store")
    source = BrainSource(manifest_path=mapped.manifest_path, store_path=store.root)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        map_brain(source=source, run=RunSettings(runner="dask", scheduler=cluster.scheduler_address))
        assert len(cluster.scheduler_info["workers"]) == 2
    assert store.catalogue("P01").content_digest() == mapped.store.catalogue("P01").content_digest()


@pytest.mark.long
def test_one_bad_brain_does_not_cost_the_others(mapped: MappedBrain, tmp_path: Path) -> None:
    """The other one is mapped already, but for clusters that nobody has asked for before."""
    manifest = copied(mapped.manifest_path, tmp_path)
    lines = manifest.read_text().splitlines()
    bad = [line.replace("P01,", "A00,", 1).replace("scans/", "gone/") for line in lines[1:]]
    manifest.write_text("\n".join([lines[0], *bad, *lines[1:]]) + "\n")
    store = BrainStore(shutil.copytree(mapped.store_path, tmp_path / "store"))
    with pytest.raises(CytoarchError, match=r"(?s)A00: no section could be ingested.*brains that were done: P01"):
        map_brain(
            source=BrainSource(manifest_path=manifest, store_path=store.root),
            settings=MapSettings(cluster=ClusterSettings(clusters=5)),
        )
    assert [one for one in store.catalogue("P01").names("clusters") if one.startswith("k5")]


def test_a_disk_fault_in_one_brain_does_not_cost_the_others(
    phantom: Path, tmp_path: Path, prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = copied(phantom, tmp_path)
    lines = manifest.read_text().splitlines()
    first = [line.replace("P01,", "A00,", 1) for line in lines[1:]]
    manifest.write_text("\n".join([lines[0], *first, *lines[1:]]) + "\n")
    store, write_brain = BrainStore(tmp_path / "store"), BrainStore.write_brain

    def faulty(self: BrainStore, brain: Brain) -> None:
        if brain.brain_id == "A00":
            raise OSError(5, "Input/output error")
        write_brain(self, brain)

    monkeypatch.setattr(BrainStore, "write_brain", faulty)
    with pytest.raises(RuntimeError, match=r"(?s)A00: OSError.*Input/output error.*brains that were done: P01"):
        ingest_brain(source=BrainSource(manifest_path=manifest, store_path=store.root))
    assert len(store.catalogue("P01").section_ids("tissue", "slide")) == 5


def test_embeddings_of_an_older_scan_are_not_clustered(mapped: MappedBrain, tmp_path: Path) -> None:
    manifest = copied(mapped.manifest_path, tmp_path)
    source = BrainSource(manifest_path=manifest, store_path=shutil.copytree(mapped.store_path, tmp_path / "store"))
    shutil.copy(manifest.parent / "scans" / "s0010.tif", manifest.parent / "scans" / "s0000.tif")
    assert ingest_brain(source=source).made == 2, "the section and the page of quality"
    with pytest.raises(
        StoreError, match=r"the embeddings \S+ of section s0000 were made from an older section; embed again"
    ):
        cluster_brain(brain=StoredBrain(brain_id="P01", store_path=source.store_path))


@pytest.mark.long
def test_a_section_found_damaged_by_a_fit_is_left_out_and_the_run_goes_on(mapped: MappedBrain, tmp_path: Path) -> None:
    """A bit of its embeddings turned over since they were written; its record cannot know."""
    store = BrainStore(shutil.copytree(mapped.store_path, tmp_path / "store"))
    source = BrainSource(manifest_path=mapped.manifest_path, store_path=store.root)
    (name,) = store.catalogue("P01").names("embeddings")
    for shard in (store.catalogue("P01").path(Product("embeddings", name, "s0030"))).glob("*/0/c/**/0"):
        if shard.is_file():
            content = bytearray(shard.read_bytes())
            content[len(content) // 3] ^= 255
            shard.write_bytes(content)
    settings = MapSettings(cluster=ClusterSettings(clusters=5))
    state: State[Any] = map_brain(source=source, settings=settings, return_state=True)  # type: ignore[call-overload]  # Prefect adds return_state
    assert state.is_completed()
    assert state.name == "1 section failed"
    summary = state.result()
    assert set(summary.failed) == {"s0030"}
    assert "cannot be read" in summary.failed["s0030"]
    catalogue = store.catalogue("P01")
    (fit,) = [one for one in catalogue.names("clusters") if one.startswith("k5")]
    assert catalogue.section_ids("clusters", fit) == ["s0000", "s0010", "s0020", "s0040"]
    page = (catalogue.folder / "report" / "index.html").read_text()
    assert "s0030" in page
    assert 'class="failed"' in page
    again = map_brain(source=source, settings=settings)
    assert again.made == 0, "it is left out again, and nothing else has changed"
    assert set(again.failed) == {"s0030"}
    assert damaged(store, "P01")
    assert map_brain(source=source, settings=settings).failed == {}
    assert len(store.catalogue("P01").section_ids("clusters", fit)) == 5
