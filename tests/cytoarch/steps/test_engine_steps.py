"""Steps that the embedding engine computes: what is planned, what becomes of each section, patches and regions."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile

from cytoarch.embeddings import EmbedSettings
from cytoarch.embeddings.attention import AttentionSettings
from cytoarch.embeddings.engine import NO_SPEED
from cytoarch.embeddings.sampled import SampleSettings, open_points
from cytoarch.encoders.inference import device_name
from cytoarch.errors import ManifestError, ModelError, StoreError
from cytoarch.images.views import intensity_range
from cytoarch.interactive.regions import Blocks
from cytoarch.interactive.sight import Sight
from cytoarch.steps import attention, encoders
from cytoarch.steps import running as running_module
from cytoarch.steps.attention import AttentionStep
from cytoarch.steps.embeddings import EmbeddingsStep, Regions, check_space, overlooked, section_facts
from cytoarch.steps.encoders import encoder_for, own_gpu
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.points import PointsStep, PointTable, patch_size_px
from cytoarch.steps.running import Outcome, make, make_together, plan_engine
from cytoarch.steps.sections import SECTION
from cytoarch.steps.step import Place
from tests.cytoarch.steps.small_brain import IDS, SIZE_UM, TABLE, SmallBrain, Steps, scan_of

pytestmark = pytest.mark.xdist_group("steps")

TILE, CORE = 64, 640
"""Patches, and what is kept of a tile of the texture bank: each section is one."""
EMBED = EmbedSettings(encoder="texture", pixel_size_um=SIZE_UM, tile_px=TILE)
FEATURES = 26


@pytest.fixture
def opened(small: SmallBrain) -> Iterator[OpenBrain]:
    with small.opened() as brain:
        yield brain


def finer(brain: OpenBrain, **changed: Any) -> EmbeddingsStep:
    """Embeddings of small tiles, of which there are none in the store."""
    return EmbeddingsStep.of(EMBED.model_copy(update=changed), brain)


def spoil(brain: OpenBrain, section_id: str) -> None:
    """Damage the pixels of a section."""
    (file,) = (brain.catalogue.path(SECTION.product(section_id)) / "0" / "c").rglob("0/0/0")
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 255
    file.write_bytes(content)


# -- planning ----------------------------------------------------------------------------------------------------------


def test_a_plan_counts_tiles_and_bytes_of_what_is_not_there(opened: OpenBrain) -> None:
    step = finer(opened)
    plan = plan_engine(step, opened, opened.sections)
    assert (plan.tiles, plan.failed) == (len(IDS), {})
    assert plan.needed_bytes == len(IDS) * (CORE // 4) ** 2 * FEATURES * 2
    assert [(group.sections, group.is_current) for group in plan.groups] == [(IDS, False)]
    assert step.tokens_per_tile == (CORE // 4) ** 2
    assert make_together(step, opened, IDS[:2])[0] == [Outcome(one, "made") for one in IDS[:2]]
    after = plan_engine(step, opened, opened.sections)
    assert after.tiles == plan.tiles, "what is there keeps its place in the batches"
    assert after.needed_bytes == plan.needed_bytes * 4 // 6
    assert [group.is_current for group in after.groups] == [False]
    make_together(step, opened, IDS)
    done = plan_engine(step, opened, opened.sections)
    assert (done.tiles, done.needed_bytes) == (plan.tiles, 0)
    assert [(group.sections, group.is_current) for group in done.groups] == [(IDS, True)]


def test_groups_are_the_same_whatever_is_current(opened: OpenBrain, monkeypatch: pytest.MonkeyPatch) -> None:
    step = finer(opened, batch_size=1)
    before = plan_engine(step, opened, opened.sections)
    assert [group.sections for group in before.groups] == [IDS]
    monkeypatch.setattr("cytoarch.embeddings.engine.GROUP_BATCHES", 2)
    before = plan_engine(step, opened, opened.sections)
    assert [group.sections for group in before.groups] == [IDS[:2], IDS[2:4], IDS[4:]]
    make_together(step, opened, IDS[2:4])
    after = plan_engine(step, opened, opened.sections)
    assert [group.sections for group in after.groups] == [group.sections for group in before.groups]
    assert [group.is_current for group in after.groups] == [False, True, False]


def test_sections_that_cannot_be_computed_are_named_and_the_others_planned(opened: OpenBrain) -> None:
    step = finer(opened)
    (opened.catalogue.folder / "records" / "tissue" / "slide" / "s2.json").unlink()
    fresh = OpenBrain(opened.store, opened.store.catalogue("B1"), opened.name, opened.brain)
    plan = plan_engine(step, fresh, fresh.sections)
    assert plan.failed == {"s2": "brain B1: there is no tissue slide of section s2 in the store; find tissue first"}
    assert plan.groups[0].sections == tuple(one for one in IDS if one != "s2")
    assert plan.tiles == 5


# -- what becomes of sections ------------------------------------------------------------------------------------------


def test_every_section_of_a_group_has_its_outcome(opened: OpenBrain) -> None:
    step = finer(opened)
    make_together(step, opened, ["s4"])
    spoil(opened, "s1")
    opened.failed["s9"] = "it failed before"
    (opened.catalogue.folder / "records" / "tissue" / "slide" / "s3.json").unlink()
    brain = OpenBrain(opened.store, opened.store.catalogue("B1"), opened.name, opened.brain, opened.failed)
    heard: list[tuple[str, int, int]] = []
    outcomes, speed = make_together(
        step, brain, ("s0", "s1", "s3", "s4"), lambda one, done, total, _: heard.append((one, done, total))
    )
    assert [(one.section_id, one.status) for one in outcomes] == [
        ("s0", "made"),
        ("s1", "failed"),
        ("s3", "failed"),
        ("s4", "current"),
    ]
    reasons = {one.section_id: one.reason for one in outcomes if one.status == "failed"}
    assert "damaged" in reasons["s1"]
    assert reasons["s3"].endswith("there is no tissue slide of section s3 in the store; find tissue first")
    assert brain.failed == {"s9": "it failed before", **reasons}
    assert speed.tiles == 1
    assert ("s0", 1, 1) in heard
    record = brain.catalogue.require(step.product("s0"), "")
    assert (record.facts["tiles"], record.facts["device"]) == (1, device_name("cpu"))


def test_a_group_that_is_current_computes_nothing(opened: OpenBrain, monkeypatch: pytest.MonkeyPatch) -> None:
    step = finer(opened)
    make_together(step, opened, IDS[:2])
    monkeypatch.setattr(running_module, "run_engine", None)
    outcomes, speed = make_together(step, opened, IDS[:2])
    assert [one.status for one in outcomes] == ["current", "current"]
    assert speed == NO_SPEED


def test_one_section_made_by_itself_is_that_of_a_group(opened: OpenBrain) -> None:
    step = finer(opened)
    make_together(step, opened, IDS)
    together = opened.catalogue.require(step.product("s1"), "")
    (opened.catalogue.folder / "records" / "embeddings" / step.name / "s1.json").unlink()
    alone = OpenBrain(opened.store, opened.store.catalogue("B1"), opened.name, opened.brain)
    assert running_module.make_section([step], alone, alone.rows["s1"]) == Outcome("s1", "made")
    record = alone.catalogue.require(step.product("s1"), "")
    assert (record.digest, record.facts, record.fingerprint) == (
        together.digest,
        together.facts,
        together.fingerprint,
    )


# -- sections that the encoder would see in other channels -------------------------------------------------------------


def recoloured(small: SmallBrain, *section_ids: str) -> None:
    """Scan some sections in colour, and ingest them."""
    for one in section_ids:
        tifffile.imwrite(small.scans / f"{one}.tif", np.stack([scan_of(one)] * 3, -1), photometric="rgb", metadata=None)
    with small.opened() as brain:
        Steps(small, brain).each(*small.ingestion())


@pytest.mark.parametrize(
    ("colour", "said"),
    [
        (("s1",), r"1 section\(s\) would be seen in 3 channel\(s\), the others in 1: s1\. "),
        (IDS[:5], r"1 section\(s\) would be seen in 1 channel\(s\), the others in 3: s5\. "),
    ],
)
def test_sections_of_other_channels_than_the_others_are_named(
    small: SmallBrain, colour: tuple[str, ...], said: str
) -> None:
    recoloured(small, *colour)
    with small.opened() as brain:
        assert {one: facts["kind"] == "rgb" for one, facts in section_facts(brain).items()} == {
            one: one in colour for one in IDS
        }
        with pytest.raises(ModelError, match=said):
            finer(brain)
        step = finer(brain, channels=(0,))
        assert step.embed.channels == (0,)
        assert plan_engine(step, brain, brain.sections).failed == {}


def test_an_encoder_that_sees_one_of_several_channels_is_said_to(small: SmallBrain) -> None:
    for one in IDS:
        both = np.stack([scan_of(one), 255 - scan_of(one)])
        tifffile.imwrite(small.scans / f"{one}.tif", both, photometric="minisblack", metadata={"axes": "CYX"}, ome=True)
    with small.opened() as brain:
        Steps(small, brain).each(*small.ingestion())
        embed = EMBED.model_copy(update={"encoder": "texture+lite0:3", "tile_px": None})
        step = EmbeddingsStep.of(embed, brain)
        encoder = step.encoder.encoder
        said = overlooked(brain, embed, encoder)
        assert said is not None
        assert "6 section(s) have several channels" in said
        assert "texture+lite0:3 sees channel 0 of them only: choose the channel with --embed.channels" in said
        assert overlooked(brain, embed.model_copy(update={"channels": (1,)}), encoder) is None
        assert overlooked(brain, EMBED, encoder_for(EMBED)) is None
        plan = plan_engine(step, brain, brain.sections)
        assert plan.needed_bytes == plan.tiles * step.tokens_per_tile * sum(encoder.dims(1)) * 2
        card = Sight(brain, Blocks(small.folder / "store", "B1", embed), with_places=False).card(TABLE, "s0")
        assert card.dims == encoder.dims(1)


def test_what_does_not_fit_on_the_disk_is_refused(opened: OpenBrain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2_000_000_000))
    check_space(opened.store, 2_000_000_000, "embeddings")
    with pytest.raises(StoreError, match=rf"embeddings take up to 2\.1 GB, {opened.store.root} has 2\.0 GB free; "):
        check_space(opened.store, 2_100_000_000, "embeddings")


# -- encoders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"batch_size": 7}, {"channels": (0,)}, {"margin_px": 16}])
def test_work_that_needs_the_same_model_shares_it(change: dict[str, Any]) -> None:
    assert encoder_for(EMBED.model_copy(update=change)) is encoder_for(EMBED)


def test_a_model_whose_files_were_replaced_is_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[EmbedSettings] = []
    monkeypatch.setattr(encoders, "load_encoder", lambda settings: loaded.append(settings) or object())
    (tmp_path / "weights").write_bytes(b"one")
    settings = EmbedSettings(encoder=f"dinov3:{tmp_path}")
    first = encoder_for(settings)
    assert encoder_for(settings) is first
    (tmp_path / "weights").write_bytes(b"other")
    assert encoder_for(settings) is not first
    assert len(loaded) == 2


@pytest.mark.parametrize(("name", "count", "gpu"), [(0, 2, 0), (5, 4, 1), ("3", 2, 1), ("tcp://here", 4, 0)])
def test_every_worker_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, name: Any, count: int, gpu: int) -> None:
    assert own_gpu(count) == 0, "this is no worker"
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(name=name))
    assert own_gpu(count) == gpu


# -- patches around points ---------------------------------------------------------------------------------------------

PLACES = {"s0": [(40.2, 40.2), (50.2, 90.2)], "s3": [(50.2, 61.4)]}


def table(folder: Path, places: Mapping[str, list[tuple[float, float]]] = PLACES, name: str = "cells.csv") -> Path:
    rows = [f"{one},{y},{x},{one}-{y}" for one, many in places.items() for y, x in many]
    path = folder / name
    path.write_text("\n".join(["section_id,y_px,x_px,what", *rows]) + "\n")
    return path


def points_step(brain: OpenBrain, path: Path, **sample: Any) -> PointsStep:
    return PointsStep.of(EMBED, SampleSettings(**sample), PointTable.of(path), brain)


def sampled(step: PointsStep, brain: OpenBrain) -> Any:
    outcomes, _ = make_together(step, brain, list(PLACES))
    assert [one.status for one in outcomes] == ["made"] * 2, outcomes
    return open_points([brain.catalogue.path(step.product(one)) for one in PLACES])


def test_a_patch_is_the_square_around_its_point_as_the_encoder_sees_it(opened: OpenBrain, tmp_path: Path) -> None:
    step = points_step(opened, table(tmp_path))
    found = sampled(step, opened)
    squares = []
    for one, many in PLACES.items():
        low, high = intensity_range(SECTION.open(Place(opened, opened.rows[one])))[0]
        shown = np.clip((scan_of(one) - low) / (high - low), 0, 1)
        squares += [shown[round(y) - 31 : round(y) + 33, round(x) - 31 : round(x) + 33] for y, x in many]

    def embedded(patches: list[np.ndarray]) -> np.ndarray:
        return step.encoder.encoder.embed(np.array(patches, dtype=np.float32)[:, None])

    np.testing.assert_allclose(found.X, embedded(squares), atol=1e-5)
    assert np.abs(found.X - embedded([np.roll(one, 1) for one in squares])).max() > 1e-4, "else this could not tell"
    assert list(found.obs["what"].astype(str)) == ["s0-40.2", "s0-50.2", "s3-50.2"]


def test_points_are_counted_for_the_plan_and_kept_under_a_name_of_all_that_decides_them(
    opened: OpenBrain, tmp_path: Path
) -> None:
    path = table(tmp_path)
    plain, drawn, seeded = (points_step(opened, path, **one) for one in ({}, {"draws": 3}, {"draws": 3, "seed": 1}))
    sections = [opened.rows[one] for one in PLACES]
    for step, times in ((plain, 1), (drawn, 3)):
        plan = plan_engine(step, opened, sections)
        assert (plan.tiles, plan.needed_bytes) == (3 * times, 3 * times * FEATURES * 4 * 3)
        assert sampled(step, opened).n_obs == 3 * times
        done = plan_engine(step, opened, sections)
        assert (done.tiles, done.needed_bytes) == (3 * times, 0)
    assert len({plain.name, drawn.name, seeded.name}) == 3
    assert {one.name.split("-")[0] for one in (plain, drawn, seeded)} == {"cells"}
    named = points_step(opened, path, name="mine")
    assert named.name == plain.name.replace("cells", "mine", 1)
    odd = points_step(opened, table(tmp_path, name="-- my cells (2).csv"))
    assert odd.name == plain.name.replace("cells", "my-cells-2", 1)
    assert points_step(opened, path, seed=5).name == plain.name, "without draws a seed decides nothing"
    wider = PointsStep.of(EMBED.model_copy(update={"tile_px": 128}), SampleSettings(), PointTable.of(path), opened)
    assert wider.name != plain.name
    assert patch_size_px(EmbedSettings(encoder="texture"), plain.encoder.encoder) == 512


def test_attention_is_told_of_what_the_encoder_saw_of_points(
    opened: OpenBrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the background was filled for them, it is filled for the drawing."""
    path, looked = table(tmp_path, {"s0": [(16.0, 16.0)], "s3": [(16.0, 16.0)]}), []

    class Looking:
        attended = 1

        def attention_maps(self, tiles: Any) -> Any:
            looked.append(tiles)
            return np.zeros((len(tiles), 1, 2, 2), dtype=np.float32)

    monkeypatch.setattr(attention, "attentive", lambda _: Looking())
    told = {}
    for background in ("as-scanned", "filled"):
        embed = EMBED.model_copy(update={"background": background})
        step = PointsStep.of(embed, SampleSettings(), PointTable.of(path), opened)
        embedded = sampled(step, opened)
        drawn = AttentionStep.of(step.name, AttentionSettings(encoder="texture", patches=2), opened)
        make(drawn, opened)
        told[background] = np.concatenate(looked)
        seen = step.encoder.encoder.embed(told[background])
        np.testing.assert_allclose(seen, np.asarray(embedded.X), rtol=1e-4, atol=1e-5)
        looked.clear()
    assert (told["filled"] != told["as-scanned"]).any()


def test_points_of_one_section_that_changed_outdate_its_table_alone(opened: OpenBrain, tmp_path: Path) -> None:
    sampled(points_step(opened, table(tmp_path)), opened)
    step = points_step(opened, table(tmp_path, {**PLACES, "s3": [(51.0, 61.0)]}))
    plan = plan_engine(step, opened, [opened.rows[one] for one in PLACES])
    assert plan.needed_bytes == FEATURES * 4 * 3
    outcomes, _ = make_together(step, opened, list(PLACES))
    assert [one.status for one in outcomes] == ["current", "made"]


def test_a_table_that_changes_while_it_is_used_is_refused(opened: OpenBrain, tmp_path: Path) -> None:
    path = table(tmp_path)
    step = points_step(opened, path)
    table(tmp_path, {"s0": [(1.0, 1.0)]})
    with pytest.raises(ManifestError, match="changed while the run was going on; run again with the new table"):
        step.points.table(opened)
    with pytest.raises(ManifestError, match=r"cannot be read \(No such file or directory\); check the path"):
        PointTable.of(tmp_path / "none.csv")


# -- regions -----------------------------------------------------------------------------------------------------------


def region_table(folder: Path, *rows: str) -> Path:
    path = folder / "parts.csv"
    path.write_text("\n".join(["section_id,y_px,x_px,height_px,width_px", *rows]) + "\n")
    return path


def test_sections_without_a_region_are_not_computed(opened: OpenBrain, tmp_path: Path) -> None:
    regions = Regions.of(region_table(tmp_path, "s0,33,33,10,10", "s0,40,70,4,4", "s2,0,0,96,20"))
    step = EmbeddingsStep.of(EMBED, opened, regions)
    assert step.name != finer(opened).name
    plan = plan_engine(step, opened, opened.sections)
    assert (plan.tiles, plan.needed_bytes) == (2, 2 * (CORE // 4) ** 2 * FEATURES * 2)
    assert regions.table(opened).section_ids == {"s0", "s2"}
    assert [one.y_px for one in regions.open(Place(opened, opened.rows["s0"])).regions] == [33, 40]


def test_regions_of_one_section_that_changed_outdate_it_alone(opened: OpenBrain, tmp_path: Path) -> None:
    first = EmbeddingsStep.of(EMBED, opened, Regions.of(region_table(tmp_path, "s0,33,33,9,9", "s2,0,0,96,20")))
    make_together(first, opened, ("s0", "s2"))
    moved = EmbeddingsStep.of(EMBED, opened, Regions.of(region_table(tmp_path, "s0,33,33,9,9", "s2,0,0,60,20")))
    assert moved.name == first.name
    outcomes, _ = make_together(moved, opened, ("s0", "s2"))
    assert [one.status for one in outcomes] == ["current", "made"]


def test_a_region_beside_its_section_costs_it(opened: OpenBrain, tmp_path: Path) -> None:
    step = EmbeddingsStep.of(EMBED, opened, Regions.of(region_table(tmp_path, "s0,33,33,9,9", "s2,96,100,9,9")))
    plan = plan_engine(step, opened, [opened.rows[one] for one in ("s0", "s2")])
    assert list(plan.failed) == ["s2"]
    assert [group.sections for group in plan.groups] == [("s0",)]
