"""The real window: a brain is opened in it and its sections are shown, whatever they hold; reading is beside it."""

import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from napari.utils.notifications import notification_manager

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.annotations.autosave import Drawing
from cytoarch.images.views import StoredImage
from cytoarch.napari.layers import upright
from cytoarch.napari.opening import Opening
from cytoarch.napari.sections import SectionList
from cytoarch.napari.widget import DrawWidget
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.catalogue import Catalogue
from tests.cytoarch.napari.windows import FAST, halves, settle
from tests.cytoarch.steps.small_brain import HEIGHT, WIDTH, SmallBrain

pytestmark = [
    pytest.mark.xdist_group("napari"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # napari's and Qt's own
]


def test_what_grows_with_a_brain_is_read_beside_the_window(
    window: DrawWidget, small: SmallBrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[threading.Thread]] = {}

    def watched(owner: type, name: str) -> None:
        call = getattr(owner, name)

        def told(*args: Any) -> Any:
            threads.setdefault(f"{owner.__name__}.{name}", set()).add(threading.current_thread())
            return call(*args)

        monkeypatch.setattr(owner, name, told)

    for owner, name in ((StoredImage, "open"), (TissueMask, "open"), (BrainStore, "read_brain"), (Catalogue, "_read")):
        watched(owner, name)
    window.open(Opening(small.folder / "store", "B1", "ada", "texture"), FAST)
    settle(window)
    window.panel.sections.setCurrentRow(2)
    settle(window)
    assert window.section_id == "s2"
    window._list_sources()
    settle(window)
    assert len(threads) == 4
    assert [name for name, seen in threads.items() if threading.main_thread() in seen] == []


def test_only_sections_in_view_have_pictures_and_few_are_held(viewer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cytoarch.napari.sections.MOST_PICTURES", 30)
    sections, asked = SectionList(), list[list[str]]()
    sections.wanted.connect(asked.append)
    sections.resize(200, 400)
    sections.show()
    sections.fill([f"s{number:04d}" for number in range(3000)])
    for row in (0, 1500, 2999):
        sections.scrollToItem(sections.item(row))
        sections._ask()
        assert f"s{row:04d}" in asked[-1]
        for one in asked[-1]:
            sections.picture(one, np.zeros((8, 12, 3), dtype=np.uint8))
    assert sum(map(len, asked)) <= 30
    sections._ask()
    assert len(asked) == 3, "those in view have theirs"
    sections.close()


def test_a_damaged_section_costs_itself_only(window: DrawWidget, small: SmallBrain) -> None:
    shutil.rmtree(small.folder / "store" / "brains" / "B1" / "sections.ome.zarr" / "s3")
    window.open(Opening(small.folder / "store", "B1", "ada", "texture"), FAST)
    settle(window)
    window.panel.sections.setCurrentRow(3)
    settle(window)
    assert "s3" in window.panel.status.text()
    assert (window.section_id, window.panel.sections.chosen) == ("s0", "s0")
    assert window.panel.sections.item(3).toolTip()


def damage(folder: Path) -> None:
    """Every chunk of an image is cut short; what its metadata tell stays whole."""
    for chunk in (one for one in folder.rglob("*") if one.is_file() and one.name != "zarr.json"):
        chunk.write_bytes(chunk.read_bytes()[:8])


def test_nothing_is_drawn_on_a_section_whose_successor_turns_out_to_be_damaged(
    window: DrawWidget, small: SmallBrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[BaseException] = []
    monkeypatch.setattr(notification_manager, "receive_error", lambda _kind, error, _trace: told.append(error))
    halves(window)
    window.train()
    settle(window)
    damage(small.folder / "store" / "brains" / "B1" / "sections.ome.zarr" / "s3")
    window.panel.sections.setCurrentRow(3)
    settle(window)
    assert "section s3 cannot be shown" in window.panel.status.text()
    assert "section s3 cannot be shown" in window.panel.sections.item(3).toolTip()
    assert (window.layers, window.section_id, list(window.viewer.layers)) == (None, "", [])
    place = SimpleNamespace(type="mouse_press", button=1, position=(300.0, 300.0))
    assert list(window._drag(window.viewer, place)) == []
    for button in (window.panel.next, window.panel.mapping, window.panel.training, window.panel.resetting):
        button.click()
        settle(window)
    assert told == []
    assert len(window.session.drawing.scribbles) == 2
    window.panel.sections.setCurrentRow(1)
    settle(window)
    assert window.section_id == "s1"
    halves(window)
    assert {one.section_id for one in window.session.drawing.scribbles} == {"s0", "s1"}


def test_a_stroke_that_another_section_interrupts_is_kept_where_it_began(window: DrawWidget) -> None:
    def to(y: float, x: float) -> tuple[float, ...]:
        return tuple(window.layers.to_world((y, x)))

    event = SimpleNamespace(type="mouse_press", button=1, position=to(20, 30))
    stroke = window._drag(window.viewer, event)
    next(stroke)
    event.type, event.position = "mouse_move", to(50, 30)
    next(stroke)
    window.panel.sections.setCurrentRow(1)
    settle(window)
    assert window.section_id == "s1"
    event.position = to(80, 30)
    assert list(stroke) == []
    (kept,) = window.session.drawing.scribbles
    assert kept.section_id == "s0"
    np.testing.assert_allclose(kept.paths_px[0], [(20, 30), (50, 30)], atol=1e-6)
    assert "is kept on section s0" in window.panel.status.text()
    assert len(window.layers.scribbles.data) == 0


def test_large_maps_are_drawn_thinned(window: DrawWidget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cytoarch.napari.layers.THINNED_PX", 16)
    window.show_section("s1")
    settle(window)
    layers = window.layers
    assert layers.map.multiscale
    assert layers.map.data[-1].base is layers.found, "views: what is painted is painted once"
    assert window.view.height_px >= HEIGHT - 1
    halves(window)
    window.train()
    settle(window)
    assert (np.asarray(layers.map.data[1]) == layers.found[::2, ::2]).all()
    assert layers.found.any()


@pytest.mark.parametrize(("flip", "rotation"), [("none", 0.0), ("horizontal", 90.0), ("vertical", 33.0)])
def test_display_is_turned_and_drawing_comes_back_to_pixels(window: DrawWidget, flip: Any, rotation: float) -> None:
    layers = window.layers
    layers.affine = upright(
        layers.section.model_copy(update={"flip": flip, "rotation": rotation}), layers.layout.image.grid
    )
    for place in ((0.0, 0.0), (12.5, 77.25), (96.0, 128.0)):
        np.testing.assert_allclose(layers.to_section_px(layers.to_world(place)), place, atol=1e-6)
    middle = layers.to_world((HEIGHT / 2, WIDTH / 2))
    layers.affine = np.eye(3)
    np.testing.assert_allclose(layers.to_world((HEIGHT / 2, WIDTH / 2)), middle, atol=1e-6)


def test_the_form_says_what_is_missing(viewer: Any, small: SmallBrain) -> None:
    widget = DrawWidget(viewer)
    form = widget.form
    assert not form.button.isEnabled()
    assert "a store that holds a brain" in form.button.toolTip()
    form.store.setText(str(small.folder / "store"))
    assert "your name" in form.button.toolTip()
    form.author.setText("ada")
    assert form.button.isEnabled()
    form.button.click()
    settle(widget)
    assert widget.session is not None
    widget.close_session()


def test_a_brain_that_cannot_be_opened_is_said_on_the_first_page(viewer: Any, small: SmallBrain) -> None:
    widget = DrawWidget(viewer)
    store = small.folder / "store"
    with Drawing.opened(store / "brains" / "B1" / "drawings" / "ada.jsonl"):
        widget.open(Opening(store, "B1", "ada", "texture"))
        assert not widget.form.button.isEnabled(), "it is being opened"
        settle(widget)
    assert widget.session is None
    assert "in another window" in widget.form.status.text()
    assert (widget.form.author.text(), widget.form.button.isEnabled()) == ("ada", True)
    widget.form.button.click()
    settle(widget)
    assert (widget.session is not None, widget.form.status.text()) == (True, "")
    widget.close_session()
