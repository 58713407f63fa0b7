"""What a chart shows, asked of matplotlib before it becomes a PNG file."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import confusion_matrix

from cytoarch.reporting.charts import MAX_NUMBERED, confusion_chart


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would have been made into files."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: figures.append(self))
    return figures


def named(confusion: np.ndarray) -> bytes:
    return confusion_chart(confusion, [f"class {number}" for number in range(len(confusion))], "held-out sections")


def chart_of(drawn: list[Figure], confusion: np.ndarray) -> Figure:
    named(confusion)
    return drawn[-1]


def counts(classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 50, (classes, classes))


def test_rows_are_known_classes_and_cells_are_shares_of_them(drawn: list[Figure]) -> None:
    rng = np.random.default_rng(0)
    known = rng.integers(0, 4, 300)
    found = np.where(rng.random(300) < 0.6, known, rng.integers(0, 4, 300))
    figure = chart_of(drawn, confusion_matrix(known, found))
    axes, bar = figure.axes
    expected = confusion_matrix(known, found, normalize="true")
    np.testing.assert_allclose(axes.images[0].get_array(), expected)
    assert axes.images[0].get_clim() == (0, 1)
    assert axes.images[0].get_cmap().name == "Blues"
    assert (axes.get_ylabel(), axes.get_xlabel(), axes.get_title()) == ("known", "predicted", "held-out sections")
    assert bar.get_ylabel() == "share of the known class"
    names = [f"class {number}" for number in range(4)]
    assert [one.get_text() for one in axes.get_xticklabels()] == names
    assert [one.get_text() for one in axes.get_yticklabels()] == names
    numbers = {one.get_position(): one for one in axes.texts}
    assert {place: one.get_text() for place, one in numbers.items()} == {
        (column, row): f"{expected[row, column]:.2f}" for row, column in np.ndindex(4, 4)
    }
    for (column, row), one in numbers.items():
        assert (one.get_ha(), one.get_va()) == ("center", "center")
        assert to_hex(one.get_color()) == ("#ffffff" if expected[row, column] > 0.55 else "#333333")


def test_a_class_that_is_not_there_has_an_empty_row_without_numbers(drawn: list[Figure]) -> None:
    confusion = np.array([[3, 1, 0], [0, 0, 0], [0, 0, 1]])
    figure = chart_of(drawn, confusion)
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0.75, 0.25, 0], [0, 0, 0], [0, 0, 1]])
    assert {one.get_position()[1] for one in axes.texts} == {0, 2}


@pytest.mark.parametrize(("classes", "numbers", "names"), [(MAX_NUMBERED, MAX_NUMBERED**2, 16), (17, 0, 17)])
def test_many_classes_have_no_numbers(drawn: list[Figure], classes: int, numbers: int, names: int) -> None:
    axes = chart_of(drawn, counts(classes) + 1).axes[0]
    assert len(axes.texts) == numbers
    assert len(axes.get_xticks()) == len(axes.get_yticks()) == names


def test_of_very_many_classes_every_so_many_are_named_and_the_chart_stays_of_bounded_size(drawn: list[Figure]) -> None:
    figure = chart_of(drawn, counts(130))
    axes = figure.axes[0]
    shown = [f"class {number}" for number in range(0, 130, 2)]
    for ticks, labels in ((axes.get_xticks(), axes.get_xticklabels()), (axes.get_yticks(), axes.get_yticklabels())):
        np.testing.assert_array_equal(ticks, range(0, 130, 2))
        assert [one.get_text() for one in labels] == shown
    assert {one.get_rotation() for one in axes.get_xticklabels()} == {90}
    few = chart_of(drawn, counts(2))
    sizes = [tuple(one.get_size_inches()) for one in (few, chart_of(drawn, counts(12)), figure)]
    assert sizes == [pytest.approx(one) for one in ((5.2, 4.2), (8.24, 7.24), (17, 16))]


def test_the_same_table_gives_the_same_file_without_dates() -> None:
    content = named(counts(3))
    assert named(counts(3)) == content
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        assert {name: value for name, value in image.info.items() if value and name != "dpi"} == {}
