"""A person at work without a window: what is drawn is learned from, seen, kept, found again and handed over."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cytoarch.annotations.exchange import Drawer
from cytoarch.annotations.scribbles import RUBBER, Annotation, Scribble
from cytoarch.brains import Label, LabelTable
from cytoarch.embeddings import EmbedSettings
from cytoarch.errors import BrainBusyError, StoreError, TrainingError
from cytoarch.interactive import regions
from cytoarch.interactive.classes import ClassSource
from cytoarch.interactive.holding import Held
from cytoarch.interactive.lessons import SessionSettings
from cytoarch.interactive.regions import Block, Patchwork, nearest_first
from cytoarch.interactive.session import Session
from cytoarch.interactive.views import Seen, Told, View
from cytoarch.learning.heads import head_files
from cytoarch.learning.sketch import SketchFit
from cytoarch.learning.training import DecoderSettings
from cytoarch.parcellation.inference import ParcellateSettings
from cytoarch.parcellation.smoothing import SmoothSettings
from cytoarch.steps.annotations import Scribbled, save_annotation, version_ids
from cytoarch.steps.opened import open_brain, read_only
from cytoarch.steps.parcellations import parcellation_steps
from cytoarch.steps.running import due, make
from cytoarch.steps.sources import open_head
from cytoarch.steps.step import MissingInputError, Place
from cytoarch.steps.training import TrainingStep, training_of
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.verification import Fault, verify_brain
from tests.cytoarch.steps.small_brain import CORTEX, HEIGHT, TABLE, WHITE_MATTER, WIDTH, SmallBrain

VIEW = View("s0", 0, 0, HEIGHT, WIDTH)
FAST = SessionSettings(fit=SketchFit(first_steps=100, steps=30))
DECODER = DecoderSettings(width=8, epochs=3, least_steps=0)


@pytest.fixture
def session(small: SmallBrain) -> Iterator[Session]:
    with Session.opened(small.folder / "store", "B1", "ada", settings=FAST) as opened:
        yield opened


def draw_both(session: Session, section: str = "s0") -> None:
    """A stroke in either half of a section."""
    session.stroke(section, CORTEX, np.array([[20.0, 30.0], [80.0, 30.0]]), 6.0)
    session.stroke(section, WHITE_MATTER, np.array([[20.0, 100.0], [80.0, 100.0]]), 6.0)


def whole(session: Session, view: View = VIEW) -> np.ndarray:
    """What the session sees of a section, put together."""
    grid = session.blocks.layout(view.section_id).tokens
    u = session.head.card.cells_per_token
    found = np.zeros((grid.shape[0] * u, grid.shape[1] * u), dtype=np.uint16)
    for seen in session.predict(view):
        y, x = seen.at
        found[y : y + seen.labels.shape[0], x : x + seen.labels.shape[1]] = seen.labels
    return found


def test_two_strokes_tell_two_halves_apart(session: Session) -> None:
    assert [one.name for one in session.drawing.labels] == ["cortex", "white matter"], "the brain's own classes"
    session.embed(VIEW)
    draw_both(session)
    assert session.train() < 0.5
    found = whole(session)
    left, right = found[:, : found.shape[1] * 3 // 8], found[:, found.shape[1] * 5 // 8 :]
    assert (left[left > 0] == CORTEX).mean() > 0.9
    assert (right[right > 0] == WHITE_MATTER).mean() > 0.9
    spot = session.least_sure([VIEW])
    assert spot is not None
    assert 0 <= spot.y_px < HEIGHT
    assert 0 <= spot.x_px < WIDTH


def test_the_same_strokes_and_trainings_give_the_same_weights(small: SmallBrain) -> None:
    files = []
    for author in ("ada", "bob"):
        with Session.opened(small.folder / "store", "B1", author, settings=FAST) as session:
            session.embed(VIEW)
            draw_both(session)
            session.train()
            session.stroke("s0", CORTEX, np.array([[50.0, 40.0]]), 4.0)
            session.train()
            files.append(head_files(session.head))
            session.reset()
            assert session.head is None
    assert files[0] == files[1]


def test_a_person_is_told_what_lies_beside_the_tissue_and_is_left_out(session: Session) -> None:
    draw_both(session)
    *_, told = session.update(VIEW)
    assert session.beside_tissue == 0
    assert told.text.startswith("trained on 2 strokes, loss ")
    layout = session.blocks.layout("s0")
    layout.tissue.mask[:, : layout.tissue.mask.shape[1] // 4] = False  # the stroke at the left lies beside it
    session.stroke("s0", CORTEX, np.array([[20.0, 50.0], [80.0, 50.0]]), 6.0)
    *_, told = session.update(VIEW)
    assert 0.2 < session.beside_tissue < 0.5
    assert "of what is drawn lies beside the tissue" in told.text


def test_what_was_asked_for_longest_ago_is_forgotten_first() -> None:
    held, made = Held[str, bytes](10, len), list[str]()

    def get(key: str, size: int) -> bytes:
        return held.get(key, lambda: (made.append(key), b"x" * size)[1])

    for key in ("a", "b", "a", "c"):
        get(key, 4)
    assert ("a" in held, "b" in held, "c" in held) == (True, False, True)
    assert get("large", 50) == b"x" * 50
    assert "large" in held, "what is in use is held, however large it is"
    assert "c" not in held
    held.keep("large", b"")
    for key in ("d", "e"):
        get(key, 5)
    assert made == ["a", "b", "c", "large", "d", "e"]
    assert "large" in held


def test_nothing_is_learned_before_two_classes_are_drawn_where_embeddings_are(session: Session) -> None:
    with pytest.raises(TrainingError, match="has not learned anything yet"):
        list(session.predict(VIEW))
    session.embed(VIEW)
    session.stroke("s0", CORTEX, np.array([[20.0, 30.0], [80.0, 30.0]]), 6.0)
    with pytest.raises(TrainingError, match=r"scribbles of 1 class\(es\).*\(cortex\)"):
        session.train()
    assert session.drawing.rounds == 0
    with pytest.raises(StoreError, match="lies beside section"):
        session.window(View("s0", 5000, 0, 10, 10))


def test_work_is_there_again_after_the_window_closed(small: SmallBrain) -> None:
    with Session.opened(small.folder / "store", "B1", "ada", settings=FAST) as session:
        label = session.add_class("layer IV")
        assert label.id == 1
        assert label.colour == "#e69f00"
        session.stroke("s1", label.id, np.array([[5.0, 5.0], [9.0, 9.0]]), 2.0)
        drawn = session.drawing.scribbles.copy()
    with Session.opened(small.folder / "store", "B1", "ada", settings=FAST) as again:
        assert again.drawing.scribbles == drawn
        again.change_class(label.id, name="L4", colour="#000000")
        again.take_classes(LabelTable(labels=(Label(id=1, name="L5"), Label(id=3, name="L4"))))
        assert [(one.id, one.name) for one in again.drawing.labels][-2:] == [(1, "L4"), (2, "L5")]
        with pytest.raises(StoreError, match=r"classes \[1\] have scribbles"):
            again.remove_class(label.id)


def test_versions_are_kept_and_the_next_window_begins_with_the_last(small: SmallBrain) -> None:
    with Session.opened(small.folder / "store", "B1", "ada", settings=FAST) as session:
        draw_both(session)
        first = session.save()
        assert (first, session.save(), session.drawing.saved) == ("v0001", "v0001", "v0001")
        session.stroke("s2", CORTEX, np.array([[20.0, 30.0]]), 6.0)
        assert session.drawing.saved == ""
        assert session.save() == "v0002"
        drawn = tuple(session.drawing.scribbles)
    (
        small.folder / "store" / "brains" / "B1" / "drawings" / "ada.jsonl"
    ).unlink()  # another machine: only the store is there
    brain = read_only(small.folder / "store", "B1")
    assert version_ids(brain.catalogue, "ada") == ["v0001", "v0002"]
    assert Scribbled.of(brain, "ada").open(Place(brain)).scribbles == drawn
    assert Scribbled.of(brain, "ada", "v0001").open(Place(brain)).scribbles == drawn[:2]
    with Session.opened(small.folder / "store", "B1", "ada", settings=FAST) as again:
        assert tuple(again.drawing.scribbles) == drawn
    with pytest.raises(MissingInputError, match=r"'bob' has no annotations.*ada"):
        Scribbled.of(brain, "bob")
    with pytest.raises(MissingInputError, match=r"no version 'v0009'; there are v0001, v0002"):
        Scribbled.of(brain, "ada", "v0009")


def test_saved_scribbles_are_whole_and_damage_is_named_but_never_healed(small: SmallBrain) -> None:
    with Session.opened(small.folder / "store", "B1", "ada", settings=FAST) as session:
        draw_both(session)
        session.save()
    store = read_only(small.folder / "store", "B1").store
    assert human_faults(store) == []
    path = small.folder / "store" / "brains" / "B1" / "annotations" / "ada" / "v0001" / "s0.geojson"
    path.write_text(path.read_text().replace("30.0", "31.0"))
    before = path.read_bytes()
    faults = human_faults(store)
    assert [one.key for one in faults] == ["annotations/ada/v0001/s0.geojson"]
    assert "never made again" in faults[0].remedy
    assert path.read_bytes() == before


def human_faults(store: BrainStore) -> list[Fault]:
    return [one for one in verify_brain(store, "B1").faults if one.key.startswith("annotations")]


def test_a_busy_brain_costs_no_stroke(session: Session, small: SmallBrain) -> None:
    held = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(small.folder / "store")],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )
    assert held.stdout is not None
    assert held.stdout.readline() == "held\n"
    draw_both(session)
    with pytest.raises(BrainBusyError):
        session.save()
    assert len(session.drawing.scribbles) == 2
    held.communicate("\n")
    assert session.save() == "v0001"


HOLD = """
import sys
from pathlib import Path
from cytoarch.store.brain_store import BrainStore
with BrainStore(Path(sys.argv[1])).lock("B1"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_blocks_are_computed_once_and_found_by_the_next_session(small: SmallBrain, monkeypatch: Any) -> None:
    embed = small_embed()
    with Session.opened(small.folder / "store", "B1", "ada", embed, FAST) as session:
        assert session.missing(VIEW)
        steps: list[tuple[int, int]] = []
        assert session.embed(VIEW, lambda done, total: steps.append((done, total)))
        assert steps[-1][0] == steps[-1][1] == len(steps) - 1
        found = session.blocks.read(session.blocks.layout("s0").blocks("s0", session.window(VIEW))[0])
        assert found is not None
        assert found.any()
    with Session.opened(small.folder / "store", "B1", "ada", embed, FAST) as again:
        assert again.missing(VIEW) == []
        monkeypatch.setattr(type(again.blocks), "compute", lambda *_: pytest.fail("computed twice"))
        assert again.embed(VIEW)


def test_a_block_is_part_of_the_embeddings_of_its_section(small: SmallBrain) -> None:
    with Session.opened(small.folder / "store", "B1", "ada", small_embed(), FAST) as session:
        session.embed(VIEW)
        blocks = session.blocks.layout("s0").blocks("s0", session.window(VIEW))
        apart = {block: session.blocks.read(block).copy() for block in blocks}
    with Session.opened(small.folder / "store", "B1", "ada", small_embed(), FAST) as session:  # holds none of them
        with open_brain(small.folder / "store", "B1") as brain:
            session.blocks.compute_section("s0", brain)
        for block in blocks:
            np.testing.assert_array_equal(session.blocks.read(block), apart[block])
        assert len(blocks) > 1
        patchwork = Patchwork(session.blocks.layout("s0"), apart)
        values, there = patchwork.read(-2, 1, 9, 5)
        assert not there[:2].any()
        assert there[2:].all()
        assert (values[:, :2] == 0).all()


def small_embed() -> Any:
    """Embeddings that the brain does not have yet, of several tiles a section."""
    from cytoarch.embeddings import EmbedSettings

    return EmbedSettings(pixel_size_um=1.5, tile_px=1024)


def test_embedding_can_be_cancelled_between_blocks(small: SmallBrain) -> None:
    with Session.opened(small.folder / "store", "B1", "ada", small_embed(), FAST) as session:
        assert not session.embed(VIEW, is_cancelled=lambda: True)
        assert session.missing(VIEW)


def test_what_is_handed_over_is_the_decoder_of_train_decoder(small: SmallBrain) -> None:
    with Session.opened(small.folder / "store", "B1", "ada", settings=FAST) as session:
        draw_both(session, "s0")
        draw_both(session, "s3")
        digest, name = session.hand_over(DECODER)
    with open_brain(small.folder / "store", "B1") as brain:
        record, trained = training_of(brain, name)
        assert record.facts["learned"] == ["s0", "s3"]
        embeddings = session.blocks.step.stored
        scribbled = Scribbled.of(brain, "ada")
        same = TrainingStep.on_scribbles(brain, embeddings, "decoder", DECODER, scribbled)
        assert not make(same, brain)[1], "the scheduled run finds it current"
        # the same scribbles by somebody else, at another time, give the same decoder
        mine = scribbled.open(Place(brain))
        moved = tuple(
            one.model_copy(update={"author": "bob", "time": "2030-01-01T00:00:00Z"}) for one in mine.scribbles
        )
        save_annotation(brain, Annotation(brain_id="B1", author="bob", table=mine.table, scribbles=moved))
        other = TrainingStep.on_scribbles(brain, embeddings, "decoder", DECODER, Scribbled.of(brain, "bob"))
        assert make(other, brain)[0].facts["model"] == record.facts["model"] == digest
        assert trained.metrics == training_of(brain, other.name)[1].metrics
        # another stroke gives another one
        stroke = Drawer("s0", "bob", "2030-01-01T00:00:00Z").line(CORTEX, np.array([[60.0, 20.0]]), 5.0)
        more = Annotation(brain_id="B1", author="bob", table=mine.table, scribbles=(*moved, stroke))
        save_annotation(brain, more)
        third = TrainingStep.on_scribbles(brain, embeddings, "decoder", DECODER, Scribbled.of(brain, "bob"))
        assert make(third, brain)[0].facts["model"] != digest


def test_annotations_of_another_brain_or_of_nothing_are_refused(small: SmallBrain) -> None:
    with open_brain(small.folder / "store", "B1") as brain:
        with pytest.raises(StoreError, match="are of brain B2"):
            save_annotation(brain, Annotation(brain_id="B2", author="ada", table=TABLE, scribbles=()))
        with pytest.raises(StoreError, match="nothing is drawn"):
            save_annotation(brain, Annotation(brain_id="B1", author="ada", table=TABLE, scribbles=()))


def test_squares_cover_a_window_once_beginning_at_its_centre() -> None:
    window = (3, 5, 17, 22)
    seen = np.zeros((40, 40), dtype=int)
    squares = list(nearest_first(window, 6, (11, 16)))
    for y, x, height, width in squares:
        seen[y : y + height, x : x + width] += 1
    assert (seen[3:20, 5:27] == 1).all()
    assert seen.sum() == 17 * 22
    y, x, height, width = squares[0]
    assert y <= 11 <= y + height
    assert x <= 16 <= x + width


def test_a_stroke_that_was_taken_back_and_replaced_is_not_learned_from(session: Session) -> None:
    draw_both(session)
    before = session.labels("s0").pixels()
    session.drawing.undo()
    session.stroke("s0", WHITE_MATTER, np.array([[20.0, 60.0], [80.0, 60.0]]), 6.0)
    after = session.labels("s0").pixels()
    assert (before != after).any()
    assert not after[20:80, 98:102].any()


def test_what_was_imported_since_is_there_when_the_window_opens_again(small: SmallBrain) -> None:
    store = small.folder / "store"
    with Session.opened(store, "B1", "ada", settings=FAST) as first:
        draw_both(first)
        first.save()
        drawn = first.drawing.annotation("B1")
    more = Drawer("s1", "ada", "2026-01-01T00:00:00Z", 2).line(CORTEX, np.array([[20.0, 30.0], [80.0, 30.0]]), 6.0)
    with open_brain(store, "B1") as brain:
        save_annotation(brain, drawn.model_copy(update={"scribbles": (*drawn.scribbles, more)}))
    with Session.opened(store, "B1", "ada", settings=FAST) as again:
        assert [one.section_id for one in again.drawing.scribbles] == ["s0", "s0", "s1"]
        assert again.drawing.saved == "v0002"


def import_beside(store: Path, version: str, section_id: str, classes: tuple[Label, ...] = ()) -> Scribble:
    """A version by ada as import-annotations makes one: another, and a stroke in the last class."""
    with open_brain(store, "B1") as brain:
        drawn = Scribbled.of(brain, "ada", version).open(Place(brain))
        table = LabelTable(labels=(*drawn.table.labels, *classes))
        drawer = Drawer(section_id, "ada", "2026-01-01T00:00:00Z", 2)
        more = drawer.line(table.labels[-1].id, np.array([[20.0, 30.0], [80.0, 30.0]]), 6.0)
        save_annotation(brain, drawn.model_copy(update={"table": table, "scribbles": (*drawn.scribbles, more)}))
    return more


def test_imports_are_kept_though_strokes_were_drawn_and_undone_since_the_last_version(small: SmallBrain) -> None:
    store = small.folder / "store"
    with Session.opened(store, "B1", "ada", settings=FAST) as first:
        draw_both(first)
        first.stroke("s3", CORTEX, np.array([[50.0, 30.0]]), 6.0)
        assert first.save() == "v0001"
        first.drawing.undo()
        own = first.add_class("layer IV")
        first.stroke("s2", own.id, np.array([[50.0, 30.0]]), 6.0)
    import_beside(store, "v0001", "s1", (Label(id=own.id, name="layer V"),))
    with Session.opened(store, "B1", "ada", settings=FAST) as again:
        assert [one.section_id for one in again.drawing.scribbles] == ["s0", "s0", "s2", "s1"], "undone stays undone"
        names = {one.id: one.name for one in again.drawing.labels}
        assert [names[one.label] for one in again.drawing.scribbles[2:]] == ["layer IV", "layer V"]
        assert again.drawing.saved == ""
        assert again.save() == "v0003"
    saved = Scribbled.of(read_only(store, "B1"), "ada").open(Place(read_only(store, "B1")))
    assert [one.section_id for one in saved.scribbles] == ["s0", "s0", "s2", "s1"]


def test_a_version_imported_while_the_window_is_open_is_in_the_next_one(session: Session, small: SmallBrain) -> None:
    draw_both(session)
    session.save()
    session.stroke("s2", CORTEX, np.array([[50.0, 30.0]]), 6.0)
    more = import_beside(small.folder / "store", "v0001", "s1")
    assert session.save() == "v0003"
    assert session.drawing.scribbles[-1] == more
    assert session.save() == session.drawing.saved == "v0003"


def test_what_was_imported_before_anything_was_saved_is_taken_up(small: SmallBrain) -> None:
    store = small.folder / "store"
    with Session.opened(store, "B1", "ada", settings=FAST) as first:
        draw_both(first)
        drawn = first.drawing.annotation("B1")
    with open_brain(store, "B1") as brain:
        other = drawn.scribbles[0].model_copy(update={"section_id": "s4"})
        save_annotation(brain, drawn.model_copy(update={"scribbles": (other,)}))
    with Session.opened(store, "B1", "ada", settings=FAST) as again:
        assert [one.section_id for one in again.drawing.scribbles] == ["s0", "s0", "s4"]


def test_blocks_in_view_are_no_way_of_embedding_a_brain(small: SmallBrain) -> None:
    store = small.folder / "store"
    before = read_only(store, "B1").catalogue.names("embeddings")
    with Session.opened(store, "B1", "ada", EmbedSettings(pixel_size_um=32.0), FAST) as coarse:
        assert coarse.missing(VIEW)
        coarse.embed(VIEW)
        assert not coarse.missing(VIEW)
    after = read_only(store, "B1").catalogue
    assert after.names("embeddings") == before
    assert after.names("blocks")


def test_a_key_press_shows_what_is_embedded_first_and_the_rest_as_it_is(small: SmallBrain) -> None:
    with Session.opened(small.folder / "store", "B1", "ada", small_embed(), FAST) as session:
        draw_both(session)
        told = list(session.update(VIEW))
        assert not session.missing(VIEW)
        texts = [one.text for one in told if isinstance(one, Told)]
        assert texts[0] == "looking at what you drew on"
        assert "learning from your strokes" in texts
        assert texts[-1].startswith("trained on 2 strokes")
        assert any(isinstance(one, Seen) for one in told)
        again = [one.text for one in session.update(VIEW) if isinstance(one, Told)]
        assert len(again) == 2, "all is there: nothing is looked at again"


def test_looking_ahead_and_a_key_press_at_once_compute_each_block_once(
    small: SmallBrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []
    made = regions.make_section

    def counted(steps: Any, *rest: Any) -> Any:
        computed.append(steps[0].regions.path.stem)
        return made(steps, *rest)

    monkeypatch.setattr(regions, "make_section", counted)
    with Session.opened(small.folder / "store", "B1", "ada", small_embed(), FAST) as session:
        draw_both(session)
        beside = threading.Thread(target=lambda: list(session.look_ahead(VIEW)))
        beside.start()
        list(session.update(VIEW))
        beside.join()
    assert len(computed) == len(set(computed)) > 1


def test_saving_waits_for_the_block_that_is_looked_at_ahead(small: SmallBrain, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    made = regions.make_section

    def held(*given: Any) -> Any:
        begun.set()
        go_on.wait(30)
        return made(*given)

    monkeypatch.setattr(regions, "make_section", held)
    with Session.opened(small.folder / "store", "B1", "ada", small_embed(), FAST) as session:
        draw_both(session)
        beside = threading.Thread(target=lambda: next(islice(session.look_ahead(VIEW), 1, None)))
        beside.start()
        assert begun.wait(30)
        threading.Timer(0.2, go_on.set).start()
        assert session.save() == "v0001"
        beside.join()


def test_what_was_asked_for_is_done_though_the_window_closed_meanwhile(small: SmallBrain) -> None:
    with Session.opened(small.folder / "store", "B1", "ada", settings=FAST) as left:
        draw_both(left)
    digest, _ = left.hand_over(DECODER)
    assert open_head(read_only(small.folder / "store", "B1").store, digest).card.classes
    with Session.opened(small.folder / "store", "B1", "ada", settings=FAST) as again:
        assert (again.drawing.saved, len(again.drawing.scribbles)) == ("v0001", 2), "the version is found"


def test_only_what_is_learned_from_is_embedded(small: SmallBrain, monkeypatch: pytest.MonkeyPatch) -> None:
    one_square = SessionSettings(fit=FAST.fit, most_squares=1)
    with Session.opened(small.folder / "store", "B1", "ada", settings=one_square) as session:
        session.stroke("s1", CORTEX, np.array([[50.0, 30.0]]), 6.0)
        draw_both(session)
        session.stroke("s2", CORTEX, np.array([[50.0, 30.0]]), 6.0)
        session.stroke("s2", RUBBER, np.array([[50.0, 30.0]]), 20.0)
        monkeypatch.setattr(session.blocks, "is_there", lambda _: False)
        asked = asked_of(session, monkeypatch)
    assert {one.section_id for one in asked} == {"s0"}, "s1 is beyond the most squares, s2 was rubbed out"


def asked_of(session: Session, monkeypatch: pytest.MonkeyPatch) -> list[Block]:
    """The blocks that a training asks for before it begins."""
    asked: list[Block] = []
    monkeypatch.setattr(session.blocks, "compute", asked.append)
    for told in session.update(VIEW):
        if isinstance(told, Told) and told.text == "learning from your strokes":
            break
    return asked


def test_classes_are_taken_from_brains_and_drawings_of_the_store(session: Session, small: SmallBrain) -> None:
    draw_both(session)
    session.add_class("layer IV")
    session.save()
    found = {one.name: one for one in ClassSource.there(small.folder / "store")}
    assert list(found) == ["of brain B1", "of ada on brain B1"]
    assert found["of brain B1"].table(session.store_path) == TABLE
    names = [one.name for one in found["of ada on brain B1"].table(session.store_path).labels]
    assert names == ["cortex", "white matter", "layer IV"]


def test_the_brain_is_mapped_here_as_the_scheduled_run_would(session: Session, small: SmallBrain) -> None:
    with pytest.raises(TrainingError, match="Train for the brain first"):
        session.model  # noqa: B018
    draw_both(session, "s0")
    draw_both(session, "s3")
    digest, _ = session.hand_over(DECODER)
    told = list(session.map_brain())
    assert told[-1].text.startswith("Mapped 6 sections as areas-decoder-")
    with open_brain(small.folder / "store", "B1") as brain:
        card = open_head(brain.store, digest).card
        embeddings = session.blocks.step.stored
        steps = parcellation_steps(card, digest, embeddings, ParcellateSettings(), SmoothSettings(), {})
        assert due(steps, brain, brain.sections) == [], "parcellate-brain finds every map current"
