import numpy as np
import pytest

from cytoarch.phantoms.nuisances import Nuisances
from cytoarch.phantoms.scribbles import LENGTH_MM, PEN_MM, Stroke, Target, draw_scribbles, label_image, scribble_image
from cytoarch.phantoms.sections import PhantomSection, PhantomSettings, Window, cut, make_phantom
from cytoarch.phantoms.truth import truth, truth_at

TARGETS: tuple[Target, ...] = ("areas", "layers")
NUMBERS = (300, 550, 800)
BUDGET = 40
PIXEL_UM = 40.0


@pytest.fixture(scope="module")
def sections() -> list[PhantomSection]:
    settings = PhantomSettings(seed=3, resolution=48, nuisances=Nuisances(tears=2, rotation=10))
    return [cut(make_phantom(settings), number) for number in NUMBERS]


@pytest.fixture(scope="module", params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    chosen: Target = request.param
    return chosen


@pytest.fixture(scope="module")
def strokes(sections: list[PhantomSection], target: Target) -> list[Stroke]:
    return draw_scribbles(sections, target, BUDGET)


def whole(section: PhantomSection, pixel_size_um: float = PIXEL_UM) -> Window:
    return Window(0, 0, *section.size_px(pixel_size_um))


@pytest.mark.parametrize("budget", [1, 27])
def test_a_budget_is_never_exceeded_and_is_used_up(sections: list[PhantomSection], target: Target, budget: int) -> None:
    assert len(draw_scribbles(sections, target, budget)) == budget


def test_a_larger_budget_keeps_the_strokes_of_a_smaller_one(
    sections: list[PhantomSection], target: Target, strokes: list[Stroke]
) -> None:
    for one, other in zip(draw_scribbles(sections, target, 20), strokes, strict=False):
        assert (one.number, one.label) == (other.number, other.label)
        np.testing.assert_array_equal(one.path_mm, other.path_mm)


def test_labels_take_turns(sections: list[PhantomSection], target: Target, strokes: list[Stroke]) -> None:
    counts = np.unique([stroke.label for stroke in strokes], return_counts=True)[1]
    assert counts.max() - counts.min() <= 1
    # only what is nowhere large enough is left out
    sizes = sum(np.bincount(label_image(one, target, whole(one), PIXEL_UM).ravel(), minlength=27) for one in sections)
    large = set((np.flatnonzero(sizes[1:] > 1000) + 1).tolist())
    assert large <= {stroke.label for stroke in strokes}


def test_strokes_lie_on_the_sections_given(sections: list[PhantomSection], target: Target) -> None:
    kept = sections[1:3]
    assert {stroke.number for stroke in draw_scribbles(kept, target, BUDGET)} <= {one.number for one in kept}


def test_strokes_run_within_their_label_and_are_as_long_as_they_should_be(
    sections: list[PhantomSection], target: Target, strokes: list[Stroke]
) -> None:
    by_number = {section.number: section for section in sections}
    inside = []
    for stroke in strokes:
        true = truth_at(by_number[stroke.number], stroke.path_mm)
        inside.append(((true.area if target == "areas" else true.layer) == stroke.label).mean())
        assert len(stroke.path_mm) >= 2
        assert np.linalg.norm(np.diff(stroke.path_mm, axis=0), axis=1).sum() < np.sqrt(2) * LENGTH_MM[1] + 0.1
    assert np.mean(inside) > 0.9
    assert min(inside) > 0


def test_every_marked_pixel_has_its_true_label(
    sections: list[PhantomSection], target: Target, strokes: list[Stroke]
) -> None:
    for section in sections:
        marked = scribble_image(section, strokes, target, whole(section), PIXEL_UM)
        true = truth(section, whole(section), PIXEL_UM)
        labels = true.area if target == "areas" else true.layer
        own = {stroke.label for stroke in strokes if stroke.number == section.number}
        assert marked.shape == section.size_px(PIXEL_UM)
        assert marked.dtype == np.uint8
        np.testing.assert_array_equal(marked[marked > 0], labels[marked > 0])
        assert set(np.unique(marked).tolist()) - {0} == own


def test_hardly_anything_is_marked(sections: list[PhantomSection], target: Target, strokes: list[Stroke]) -> None:
    for section in sections:
        marked = scribble_image(section, strokes, target, whole(section), PIXEL_UM) > 0
        tissue = label_image(section, target, whole(section), PIXEL_UM) > 0
        assert 0 < marked.mean() < 0.05
        assert marked.sum() / tissue.sum() < 0.1


def test_marks_are_as_wide_as_the_pen(sections: list[PhantomSection], target: Target, strokes: list[Stroke]) -> None:
    section = next(one for one in sections if one.number == strokes[0].number)
    y, x = strokes[0].path_mm.min(axis=0) - 0.3
    pixel_um = 10.0
    window = Window(int(y * 100), int(x * 100), *(np.ptp(strokes[0].path_mm, axis=0) * 100 + 60).astype(int).tolist())
    marked = scribble_image(section, strokes[:1], target, window, pixel_um) > 0
    places = (np.argwhere(marked) + 0.5 + [window.y, window.x]) * pixel_um / 1000
    dense = np.concatenate(
        [np.linspace(a, b, 20) for a, b in zip(strokes[0].path_mm[:-1], strokes[0].path_mm[1:], strict=True)]
    )
    distance = np.linalg.norm(places[:, None] - dense[None], axis=-1).min(axis=1)
    assert distance.max() <= PEN_MM / 2 + 0.002
    assert distance.max() > PEN_MM / 2 - 0.01


def test_windows_of_a_scribble_image_are_those_of_the_whole(
    sections: list[PhantomSection], target: Target, strokes: list[Stroke]
) -> None:
    for section in sections[:2]:
        complete = scribble_image(section, strokes, target, whole(section), PIXEL_UM)
        height, width = complete.shape
        for y in range(0, height, 97):
            for x in range(0, width, 131):
                window = Window(y, x, min(97, height - y), min(131, width - x))
                part = scribble_image(section, strokes, target, window, PIXEL_UM)
                np.testing.assert_array_equal(part, complete[y : y + 97, x : x + 131])


def test_a_section_without_strokes_is_blank(sections: list[PhantomSection], target: Target) -> None:
    assert not scribble_image(sections[0], [], target, whole(sections[0]), PIXEL_UM).any()
    assert draw_scribbles([], target, 10) == []


def test_a_seed_draws_the_same_strokes_again_and_another_seed_others() -> None:
    drawn = []
    for one in (0, 0, 5):
        section = cut(make_phantom(PhantomSettings(seed=one, resolution=48)), 500)
        drawn.append([(stroke.label, stroke.path_mm.tobytes()) for stroke in draw_scribbles([section], "areas", 15)])
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
