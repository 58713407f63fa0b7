"""Brains and points are embedded by their flows: what is made, what is made again, and what a fault costs."""

import csv
import shutil
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch

from cytoarch.embeddings import EmbedSettings, SectionEmbeddings
from cytoarch.embeddings.sampled import SampleSettings, open_points
from cytoarch.encoders import load_encoder
from cytoarch.encoders.cytonet import CytoNetConfig, build_cytonet
from cytoarch.errors import ManifestError, StoreError
from cytoarch.steps.sections import SECTION
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.products import Product
from flows.console import EXIT_OK, EXIT_SECTIONS_FAILED, EXIT_USAGE
from flows.embed_brain import embed_brain
from flows.embed_points import embed_points
from flows.ingest_brain import ingest_brain
from flows.parameters import BrainSource, RunSettings, StoredBrain
from flows.stages import Summary
from flows.terminal import run as command
from tasks.progress import listening
from tests.artifacts import every_artifact
from tests.tiny_transformer import tiny_transformer
from tests.verified import damaged

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("more flows")]

TILE_PX = 64


@pytest.fixture(scope="module")
def ingested(phantom: Path, tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Path:
    """A store that holds the phantom's sections and nothing made of them. Not to be changed."""
    root = tmp_path_factory.mktemp("ingested") / "store"
    ingest_brain(source=BrainSource(manifest_path=phantom, store_path=root))
    return root


@pytest.fixture
def store(ingested: Path, tmp_path: Path) -> BrainStore:
    """A copy of the ingested phantom."""
    shutil.copytree(ingested, tmp_path / "store")
    return BrainStore(tmp_path / "store")


@pytest.fixture(scope="module")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A randomly initialised DINOv3 in a folder."""
    return tiny_transformer(tmp_path_factory.mktemp("vit"), blocks=4)


@pytest.fixture(scope="module")
def truth(phantom: Path) -> Path:
    """The phantom's own table of points."""
    return phantom.parent / "truth" / "points.csv"


def stored(store: BrainStore) -> StoredBrain:
    return StoredBrain(brain_id="P01", store_path=store.root)


def dense(
    store: BrainStore,
    encoder: str,
    regions: Path | None = None,
    run: RunSettings | None = None,
    skip: tuple[str, ...] = (),
    **how,
) -> Summary:
    embed = EmbedSettings(**{"encoder": encoder, "tile_px": TILE_PX, "pixel_size_um": 80.0, **how})
    return embed_brain(brain=stored(store), embed=embed, regions_path=regions, skip=skip, run=run or RunSettings())


def sampled(store: BrainStore, table: Path, sample: SampleSettings | None = None, **how) -> Summary:
    embed = EmbedSettings(**{"encoder": "texture", "tile_px": TILE_PX, **how})
    return embed_points(brain=stored(store), points_path=table, embed=embed, sample=sample or SampleSettings())


def digests(store: BrainStore, step: str, name: str) -> dict[str, str]:
    """What is committed of a step under a name: section -> digest."""
    return {one.section: one.digest for one in store.catalogue("P01").records() if (one.step, one.name) == (step, name)}


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def written(folder: Path, rows: list[dict[str, str]], name: str = "points.csv") -> Path:
    path = folder / name
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def few(truth: Path, tmp_path: Path) -> list[dict[str, str]]:
    """Every fortieth point of the phantom."""
    return rows_of(truth)[::40]


@pytest.mark.long
def test_the_phantoms_own_points_arrive_with_areas_and_places_in_the_brain(
    store: BrainStore, truth: Path, tmp_path: Path
) -> None:
    rows = rows_of(truth)[::4]
    table_path = written(tmp_path, rows)
    summary = sampled(store, table_path)
    assert summary.failed == {}
    assert summary.made == len({row["section_id"] for row in rows}) == 5
    name = summary.notes["points"]
    folders = [
        store.catalogue("P01").path(Product("points", name, one)) for one in sorted(digests(store, "points", name))
    ]
    table = open_points(folders)
    assert table.n_obs == len(rows)
    assert table.obs_names.is_unique
    assert np.isfinite(table.X).all()
    assert list(table.obs["area"].astype(str)) == [row["area"] for row in rows]
    assert list(table.obs["area_id"]) == [int(row["area_id"]) for row in rows]
    brain = [[float(row[axis]) for axis in ("x_mm", "y_mm", "z_mm")] for row in rows]
    np.testing.assert_allclose(table.obsm["brain_mm"], brain)
    assert summary.notes["folder"] == str(folders[0].parent)
    assert "patches/s" in summary.notes["speed"]
    assert damaged(store, "P01") == []
    before = store.catalogue("P01").content_digest()
    again = sampled(store, table_path)
    assert (again.made, again.failed) == (0, {})
    assert store.catalogue("P01").content_digest() == before


def test_a_changed_table_costs_the_sections_that_changed(store: BrainStore, few, tmp_path: Path) -> None:
    name = sampled(store, written(tmp_path, few)).notes["points"]
    first = digests(store, "points", name)
    changed = [dict(row) for row in few]
    lost = changed[0]["section_id"]
    moved = next(row for row in reversed(changed) if row["section_id"] != lost)
    moved["y_px"] = str(float(moved["y_px"]) - 5)
    summary = sampled(store, written(tmp_path, [row for row in changed if row["section_id"] != lost]))
    assert summary.notes["points"] == name
    second = digests(store, "points", name)
    assert set(second) == set(first) - {lost}, "the table of a section that is no longer named goes"
    assert {one for one in second if second[one] != first[one]} == {moved["section_id"]}
    assert summary.made == 2, "one table is made, one is removed"
    assert not store.catalogue("P01").path(Product("points", name, lost)).exists()
    assert lost in summary.notes["removed"]
    assert sampled(store, written(tmp_path, few)).notes["points"] == name
    assert digests(store, "points", name) == first, "as it was, since the table is"


def test_draws_have_a_place_of_their_own(store: BrainStore, few, tmp_path: Path) -> None:
    table = written(tmp_path, few[:4])
    names = {
        sampled(store, table, sample).notes["points"]
        for sample in (SampleSettings(), SampleSettings(draws=2), SampleSettings(draws=2, seed=1))
    }
    assert len(names) == 3
    sizes = [
        sum(anndata.io.read_zarr(store.catalogue("P01").path(Product("points", name, one))).n_obs for one in found)
        for name in names
        for found in [digests(store, "points", name)]
    ]
    assert sorted(sizes) == [4, 8, 8]


def test_points_outside_cost_their_section(store: BrainStore, few, tmp_path: Path) -> None:
    bad = few[0] | {"x_px": "99999"}
    summary = sampled(store, written(tmp_path, [bad, *few[1:]]))
    assert set(summary.failed) == {bad["section_id"]}
    assert "1 points lie outside the section" in summary.failed[bad["section_id"]]
    assert set(digests(store, "points", summary.notes["points"])) == {row["section_id"] for row in few} - {
        bad["section_id"]
    }


def test_a_table_at_fault_starts_nothing(store: BrainStore, few, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"row 2: section_id 's9999'"):
        sampled(store, written(tmp_path, [few[0] | {"section_id": "s9999"}]))
    assert not [one for one in store.catalogue("P01").records() if one.step == "points"]


def test_regions_are_embedded_and_equal_those_of_whole_sections(
    store: BrainStore, tiny_vit: str, tmp_path: Path
) -> None:
    rows = [
        {"section_id": "s0010", "y_px": "100", "x_px": "100", "height_px": "60", "width_px": "60"},
        {"section_id": "s0030", "y_px": "120", "x_px": "80", "height_px": "10", "width_px": "100"},
        {"section_id": "s0030", "y_px": "200", "x_px": "200", "height_px": "10", "width_px": "10"},
    ]
    summary = dense(store, tiny_vit, written(tmp_path, rows, "regions.csv"))
    assert summary.failed == {}
    name = summary.notes["embeddings"]
    assert set(digests(store, "embeddings", name)) == {"s0010", "s0030"}
    assert "tokens/s" in summary.notes["speed"]
    whole = dense(store, tiny_vit).notes["embeddings"]
    assert whole != name
    assert len(digests(store, "embeddings", whole)) == 5
    for section_id in ("s0010", "s0030"):
        some, all_of_it = (
            SectionEmbeddings.open(store.catalogue("P01").path(Product("embeddings", one, section_id)))
            for one in (name, whole)
        )
        marked = some.computed()
        assert 0 < marked.sum() < all_of_it.computed().sum()
        one, other = (found.read(0, 0, *found.grid)[:, marked] for found in (some, all_of_it))
        np.testing.assert_allclose(one, other, atol=2e-3)
    assert dense(store, tiny_vit, written(tmp_path, rows, "regions.csv")).made == 0
    assert dense(store, tiny_vit).made == 0


def test_what_decides_the_values_makes_new_embeddings_and_what_does_not_makes_none(
    store: BrainStore, tiny_vit: str
) -> None:
    ingestion = {one.section: one.fingerprint for one in store.catalogue("P01").records() if one.step == "sections"}
    before = {path: path.stat().st_mtime_ns for path in (store.brain_path("P01") / "sections.ome.zarr").rglob("*")}
    settings = {"blocks": (2, 4), "skip": ("s0000", "s0010", "s0020", "s0030")}
    first = dense(store, tiny_vit, **settings).notes["embeddings"]
    kept = digests(store, "embeddings", first)
    summary = dense(store, tiny_vit, **settings, batch_size=5)
    assert (summary.made, summary.notes["embeddings"]) == (0, first)
    names = {first}
    changes = ({"precision": "bf16"}, {"norm": False}, {"blocks": (4,)}, {"pixel_size_um": 160.0}, {"margin_px": 16})
    for change in changes:
        summary = dense(store, tiny_vit, **{**settings, **change})
        assert (summary.made, summary.failed) == (3, {}), change
        names.add(summary.notes["embeddings"])
    assert len(names) == 1 + len(changes)
    assert digests(store, "embeddings", first) == kept, "the first embeddings are still there"
    assert {
        one.section: one.fingerprint for one in store.catalogue("P01").records() if one.step == "sections"
    } == ingestion
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_sections_to_skip_that_are_not_in_the_brain_are_named(store: BrainStore) -> None:
    with pytest.raises(StoreError, match=r"P01 has no sections s0099, s10 to skip; there are s0000, s0010"):
        dense(store, "texture", skip=("s0000", "s10", "s0099"))
    assert not [one for one in store.catalogue("P01").records() if one.step == "embeddings"]


@pytest.mark.parametrize("flow", ["embed-brain", "embed-points"])
def test_a_section_whose_pixels_cannot_be_read_fails_alone(store: BrainStore, few, tmp_path: Path, flow: str) -> None:
    (file,) = (store.catalogue("P01").path(SECTION.product("s0020")) / "0" / "c").rglob("0/0/0")
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 255
    file.write_bytes(content)
    summary = dense(store, "texture") if flow == "embed-brain" else sampled(store, written(tmp_path, few))
    assert set(summary.failed) == {"s0020"}
    assert "damaged" in summary.failed["s0020"]
    step = "embeddings" if flow == "embed-brain" else "points"
    assert set(digests(store, step, summary.notes[step])) == {"s0000", "s0010", "s0030", "s0040"}


def test_speed_reaches_the_terminal_and_prefect(store: BrainStore, tiny_vit: str) -> None:
    heard: list[tuple[str, float, int, str]] = []
    with listening(lambda stage, done, total, note="": heard.append((stage, done, total, note))):
        dense(store, tiny_vit)
    told = [note for stage, _, _, note in heard if stage == "embed"]
    assert "tokens/s" in told[-1]
    assert [(done, total) for stage, done, total, _ in heard if stage == "embed"][-1] == (5, 5)
    descriptions = [one.description or "" for one in every_artifact() if one.type == "progress"]
    assert any(one.startswith("embed: ") and "tokens/s" in one for one in descriptions)


# -- the terminal ------------------------------------------------------------------------------------------------------


def test_the_terminal_embeds_points_and_says_where_they_are(store: BrainStore, few, tmp_path: Path, capfd) -> None:
    table = written(tmp_path, few[:6])
    where = ["--brain-id", "P01", "--store-path", str(store.root), "--points-path", str(table)]
    assert command(["embed-points", *where]) == EXIT_OK
    shown = capfd.readouterr()
    assert "products made" in shown.out
    assert str(store.brain_path("P01") / "derived" / "points") in shown.out
    assert command(["embed-points", *where]) == EXIT_OK
    assert "nothing to do, all is current" in capfd.readouterr().out
    written(tmp_path, [few[0] | {"y_px": "-50"}, *few[1:6]])
    assert command(["embed-points", *where]) == EXIT_SECTIONS_FAILED
    assert f"failed {few[0]['section_id']}: 1 points lie outside" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--brain-id", "P01", "--points-path", "none.csv"], "none.csv: 1 fault"),
        (["--brain-id", "P99"], "holds no brain 'P99' (brains there: P01)"),
        (["--brain-id", "P01", "--sample.draws", "65"], "less than or equal to 64"),
        ([], "brain-id"),
    ],
)
def test_wrong_use_of_embed_points_is_one_clear_error(ingested: Path, capfd, arguments, said: str) -> None:
    assert command(["embed-points", "--store-path", str(ingested), *arguments]) == EXIT_USAGE
    shown = capfd.readouterr()
    assert said in shown.out + shown.err
    assert "Traceback" not in shown.out + shown.err


def test_the_terminal_converts_weights_and_says_how_to_use_them(tmp_path: Path, capfd) -> None:
    config = CytoNetConfig(
        model_type="cytonet_r50", tile_px=64, stem_width=8, hidden_sizes=(8, 8, 8, 16), depths=(1,) * 4
    )
    (tmp_path / "small.json").write_text(config.model_dump_json())
    torch.save(build_cytonet(config).state_dict() | {"fc.bias": torch.zeros(2)}, tmp_path / "all.pt")
    torch.save({"odd": torch.zeros(2)}, tmp_path / "odd.pt")
    target = tmp_path / "model"

    options = ["--config-path", str(tmp_path / "small.json")]

    def convert(source: str, table: str) -> tuple[int, str, str]:
        code = command(
            ["convert-weights", str(tmp_path / source), str(target), "--table", table, *options]

        )  # fmt: skip
        shown = capfd.readouterr()
        return code, shown.out, shown.err

    for source, table, said in (
        ("odd.pt", "cytonet", "odd"),
        ("all.pt", "nonsense", "cytonet"),
        ("none.pt", "cytonet", "none.pt"),
    ):
        code, _, err = convert(source, table)
        assert code == EXIT_USAGE
        assert said in err
        assert "Traceback" not in err
        assert not target.exists()
    torch.save(build_cytonet(config).state_dict(), tmp_path / "all.pt")
    code, out, _ = convert("all.pt", "cytonet")
    assert code == EXIT_OK
    assert f"folder    {target} (" in out
    assert f"encoder   cytonet:{target}" in out
    digest = out.partition("digest")[2].split()[0]
    assert load_encoder(EmbedSettings(encoder=f"cytonet:{target}")).layers
    assert len(digest) == 64
    code, _, err = convert("all.pt", "cytonet")
    assert code == EXIT_USAGE
    assert str(target) in err
