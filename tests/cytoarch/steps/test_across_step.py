"""A map is smoothed from section to section over points of the cortex, and cells follow their points."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cytoarch.anatomy.midline import MidlineSettings
from cytoarch.anatomy.reconstruction import ReconstructionSettings
from cytoarch.errors import SectionError, StoreError
from cytoarch.parcellation.across import AcrossSettings
from cytoarch.parcellation.strength import STRENGTHS
from cytoarch.sampling import UnreadableSectionError
from cytoarch.steps.across import AcrossStep, cannot_smooth, notes_across, touching_classes, unseen_labels
from cytoarch.steps.depth import DepthStep
from cytoarch.steps.map_points import NodesStep
from cytoarch.steps.midline import MidlineStep
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.parcellations import ParcellationStep, is_smoothed_across
from cytoarch.steps.reconstruction import LinksStep, ReconstructionStep
from cytoarch.steps.report_findings import said_across
from cytoarch.steps.running import make
from cytoarch.steps.sections import LABELS
from cytoarch.steps.sources import Each, open_head
from cytoarch.steps.step import MissingInputError, Place, Stored, is_current
from tests.cytoarch.steps.small_brain import HELD_OUT, IDS, TRAIN, SmallBrain, Steps

pytestmark = pytest.mark.xdist_group("steps")

ALIGN = ReconstructionSettings(reach=1)
TRACED = MidlineSettings(line="skeleton", spacing_um=200.0, shortest_um=200.0, patch_um=200.0)


@pytest.fixture
def placed(small: SmallBrain) -> SmallBrain:
    """The small brain, its sections 0.1 mm apart."""
    sections = tuple(one.model_copy(update={"position_um": 100.0 * one.section_number}) for one in small.sections)
    return replace(small, sections=sections)


@pytest.fixture
def opened(placed: SmallBrain) -> Iterator[OpenBrain]:
    with placed.opened() as brain:
        yield brain


def shown(opened: OpenBrain, mapped: ParcellationStep) -> dict[str, np.ndarray]:
    """How sure the map of every section is."""
    maps = {one.section_id: mapped.stored.open(Place(opened, one)) for one in opened.sections}
    return {section_id: one.confidence.levels[0].pixels() for section_id, one in maps.items()}


def test_damaged_points_are_named_and_cost_their_section_only(tmp_path: Path) -> None:
    whole = io.BytesIO()
    np.savez(whole, places_um=np.zeros((4, 2)), ratios=np.ones((4, 2)))
    for text in (b"", b"no archive", whole.getvalue()[:-40], whole.getvalue().replace(b"ratios", b"others")):
        for name in ("nodes.npz", "s1.npz"):
            (tmp_path / name).write_bytes(text)
        with pytest.raises(SectionError, match=r"nodes\.npz is damaged .*run verify"):
            NodesStep.opened(tmp_path)
        with pytest.raises(SectionError, match=r"s1\.npz is damaged .*run verify"):
            AcrossStep.opened(tmp_path)["s1"]


def test_damaged_labels_cost_their_section_only(placed: SmallBrain, opened: OpenBrain) -> None:
    card = open_head(opened.store, Steps(placed, opened).model).card
    folder = opened.catalogue.path(LABELS.product("s2"))
    file = next(path for path in folder.rglob("c/0/0") if path.is_file())
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(UnreadableSectionError, match="section s2"):
        touching_classes(Each(LABELS).open(Place(opened)), card.classes)


def test_a_brain_without_a_middle_says_what_to_run(placed: SmallBrain, opened: OpenBrain) -> None:
    with pytest.raises(MissingInputError, match="Run trace-cortex"):
        NodesStep.of(Steps(placed, opened).parcellation[0].stored, opened, "")


def test_points_are_smoothed_and_maps_follow_them(placed: SmallBrain, opened: OpenBrain) -> None:
    steps = Steps(placed, opened)
    raw, alone = steps.parcellation
    depth = DepthStep()
    steps.each(depth, MidlineStep.of(depth, TRACED), LinksStep.of(ALIGN))
    make(ReconstructionStep(ALIGN), opened)
    nodes = NodesStep.of(raw.stored, opened, "")
    assert nodes.spacing_um == 200.0
    assert not cannot_smooth(opened, nodes.midline)
    steps.each(nodes)
    whole = AcrossStep.of(nodes, raw.head, AcrossSettings(method="poisson", strength=3.0))
    facts = make(whole, opened)[0].facts
    assert facts["sections"] == len(IDS)
    assert facts["points"] == sum(len(nodes.stored.open(Place(opened, one)).line) for one in opened.sections)
    assert facts["after"]["borders"] <= facts["before"]["borders"]
    followed = ParcellationStep.following(alone, whole)
    before = shown(opened, alone)
    assert not is_smoothed_across(opened, alone.name)
    steps.each(followed)
    after = shown(opened, followed)
    assert any((before[one] != after[one]).any() for one in IDS)
    changes, own = whole.stored.open(Place(opened)), nodes.stored.open(Place(opened, opened.rows["s1"]))
    assert set(changes) == set(IDS)
    np.testing.assert_array_equal(changes["s1"][0], own.places_um)
    assert changes["s1"][1].shape == (len(own.line), 2)
    assert is_current(followed, Place(opened, opened.rows["s1"]))
    assert not is_current(alone, Place(opened, opened.rows["s1"]))
    card = open_head(opened.store, steps.model).card
    assert is_smoothed_across(opened, followed.name)
    notes = notes_across(opened, whole.name, card)
    assert "points on 6 sections" in notes["across sections"]
    assert notes["strength across sections"] == "3"
    assert unseen_labels(opened, card) == ()  # it was fitted again on all of them
    assert unseen_labels(opened, card.model_copy(update={"learned_from": {"B1": TRAIN}})) == HELD_OUT
    assert unseen_labels(opened, card.model_copy(update={"learned_from": {"another": TRAIN}})) == ()
    assert facts["decided"] == "stated"
    names = [one.name for one in card.classes]
    none_seen = make(AcrossStep.of(nodes, raw.head, AcrossSettings(method="poisson")), opened)[0].facts
    assert none_seen["decided"] == "default"
    assert "the default: no labelled section was left" in said_across(none_seen, names).said
    assert "the default: no labelled" in notes_across(opened, whole.name, card)["strength across sections"]
    small = make(AcrossStep.of(nodes, raw.head, AcrossSettings(method="poisson", strength=0, smallest_mm2=2)), opened)
    assert small[0].facts["reassigned"]
    assert notes_across(opened, whole.name, card)["strength across sections"] == "0"
    asked = AcrossStep.of(nodes, raw.head, AcrossSettings(method="poisson"), HELD_OUT, 0.0)
    facts = make(asked, opened)[0].facts
    tried = dict(facts["choice"]["macro_f1"])
    assert list(tried) == list(STRENGTHS)
    assert facts["strength"] == facts["choice"]["weight"]
    assert tried[facts["strength"]] >= tried[0.0]
    assert asked.stored.open(Place(opened)).facts == facts
    said = said_across(facts, names)
    assert "chosen on labelled sections" in said.said
    assert said.counted[0][1:] == (facts["before"]["borders"], facts["after"]["borders"])


def test_a_brain_whose_sections_have_no_place_says_so(small: SmallBrain) -> None:
    with small.opened() as opened:
        steps = Steps(small, opened)
        depth = DepthStep()
        steps.each(depth, MidlineStep.of(depth, TRACED), LinksStep.of(ALIGN))
        make(ReconstructionStep(ALIGN), opened)
        nodes = NodesStep.of(steps.parcellation[0].stored, opened, "")
        assert "state position_um or thickness_um" in cannot_smooth(opened, nodes.midline)
        assert "no section has points" in cannot_smooth(opened, Stored(MidlineStep, "another"))
        steps.each(nodes)
        with pytest.raises(StoreError, match="state position_um or thickness_um"):
            make(AcrossStep.of(nodes, steps.parcellation[0].head, AcrossSettings(method="poisson")), opened)
