"""The pages show each section by its own pictures, and classes and clusters in the colours that stand beside them."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cytoarch.palette import distinct_colours
from cytoarch.steps.report import ReportStep
from cytoarch.steps.running import make
from cytoarch.steps.step import Place, Stored
from cytoarch.steps.tissue import QualityPageStep
from cytoarch.store.drafts import remove
from tests.cytoarch.reporting.html_elements import Elements, parsed
from tests.cytoarch.steps.small_brain import (
    CORTEX,
    IDS,
    MARK_PX,
    WHITE_MATTER,
    WIDTH,
    SmallBrain,
    Steps,
    labels_of,
    mark_of,
)

pytestmark = pytest.mark.xdist_group("steps")

Picture = NDArray[np.int64]
Shown = dict[str, dict[str, Path]]
"""section -> what its picture is said to be -> file"""


@pytest.fixture(scope="module")
def report(mapped: SmallBrain) -> Path:
    return page_of(mapped, ReportStep)


def page_of(mapped: SmallBrain, kind: Any) -> Path:
    """The first page that a step wrote."""
    with mapped.opened() as opened:
        (name,) = [one for one in opened.catalogue.names(kind.step) if one == "page"]
        page: Path = Stored(kind, name).open(Place(opened))
    return page


def shown_on(page: Path) -> Shown:
    """The pictures of every section, as a reader of the page gets them."""
    shown: Shown = {}
    section = ""
    for tag, attributes in parsed(page.read_bytes()).found:
        if tag == "div" and "section" in str(attributes.get("class")).split():
            section = str(attributes["id"])
        elif tag == "img" and section:
            shown.setdefault(section, {})[str(attributes["alt"])] = page.parent / str(attributes["src"])
    return shown


def pixels(path: Path) -> Picture:
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        return np.asarray(image.convert("RGB")).astype(np.int64)


def around(picture: Picture, y: float, x: float) -> Picture:
    """The mean colour of a few pixels."""
    near = picture[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3]
    return np.round(near.mean(axis=(0, 1))).astype(np.int64)


def sections_with_mark_of(section_id: str, shown: Shown, caption: str, place: Any) -> list[str]:
    """The sections whose picture is black where the mark of a section would be."""
    y, x = (corner + MARK_PX / 2 for corner in mark_of(section_id))
    found = {one: pixels(next(file for alt, file in files.items() if caption in alt)) for one, files in shown.items()}
    return [one for one, picture in found.items() if around(picture, *place(picture, y, x)).max() < 30]


def on_whole_picture(picture: Picture, y: float, x: float) -> tuple[float, float]:
    scale = picture.shape[1] / WIDTH
    return y * scale, x * scale


@pytest.mark.parametrize("section_id", IDS)
def test_the_report_shows_the_stain_of_each_section_beside_its_name(report: Path, section_id: str) -> None:
    shown = shown_on(report)
    assert list(shown) == list(IDS)
    assert sections_with_mark_of(section_id, shown, "scan, tissue outlined", on_whole_picture) == [section_id]


def test_the_pictures_of_a_section_stand_in_the_order_in_which_they_were_made(report: Path) -> None:
    """The scan first, then what is known, what the encoder saw, the map and how sure it is, clusters."""
    for files in shown_on(report).values():
        begins = [alt.split(",")[0].split(" of section")[0].split(":")[0].split(" (")[0] for alt in files]
        assert begins == ["scan", "labels", "embeddings", "parcellation", "confidence", "clusters"]


@pytest.mark.parametrize("section_id", IDS)
def test_the_page_of_quality_shows_the_stain_of_each_section_beside_its_name(
    mapped: SmallBrain, section_id: str
) -> None:
    """The stain fills the width of the first axes of the picture, which are 0.29 of its width and in its middle."""

    def place(picture: Picture, y: float, x: float) -> tuple[float, float]:
        height, width = picture.shape[:2]
        scale = 0.29 * width / WIDTH
        return height / 2 + (y - 48) * scale, 0.004 * width + x * scale

    shown = shown_on(page_of(mapped, QualityPageStep))
    assert list(shown) == list(IDS)
    assert sections_with_mark_of(section_id, shown, "stain with tissue outlined", place) == [section_id]


def test_every_picture_of_a_section_is_one_of_its_own(report: Path) -> None:
    shown = shown_on(report)
    assert {one: {file.parent.name for file in files.values()} for one, files in shown.items()} == {
        one: {one} for one in IDS
    }
    assert {len(set(files.values())) for files in shown.values()} == {6}


def test_of_many_sections_the_first_page_shows_each_by_its_own_thumbnail_and_leads_to_its_own_pictures(
    small: SmallBrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cytoarch.reporting.page.SECTIONS_A_PAGE", 4)
    with small.opened() as opened:
        steps = Steps(small, opened)
        step = ReportStep.of(steps.embeddings.name, steps.shown, steps.training.name)
        assert remove(opened.catalogue, step.product())
        assert make(step, opened)[1]
    page = page_of(small, ReportStep)
    thumbnails: Shown = {}
    leads_to = {}
    for tag, attributes in parsed(page.read_bytes()).found:
        if tag == "a" and str(attributes["href"]).startswith("sections-"):
            file, _, section = str(attributes["href"]).partition("#")
            leads_to[section] = file
        elif tag == "img" and leads_to and section not in thumbnails:
            thumbnails[section] = {"": page.parent / str(attributes["src"])}
    assert list(thumbnails) == list(IDS)
    for one in IDS:
        assert sections_with_mark_of(one, thumbnails, "", on_whole_picture) == [one]
        files = shown_on(page.parent / leads_to[one])[one].values()
        assert {file.parent.name for file in files} == {one}


# -- colours -----------------------------------------------------------------------------------------------------------

LEFT, RIGHT = (76, 30), (24, 100)
"""Places (y, x) in cortex and in white matter, away from every mark."""


def legend_of(page: Path) -> dict[str, str]:
    """What the legends say: name -> colour as CSS."""

    class Legend(Elements):
        colour = ""
        said: dict[str, str]

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            style = str(dict(attrs).get("style"))
            self.colour = style.removeprefix("background: ") if tag == "i" else self.colour

        def handle_data(self, data: str) -> None:
            if self.colour:
                self.said[data], self.colour = self.colour, ""

    legend = Legend()
    legend.said = {}
    legend.feed(page.read_text())
    return legend.said


@pytest.mark.parametrize("caption", ["labels (", "parcellation: areas"])
@pytest.mark.parametrize("section_id", ["s0", "s4"])
def test_classes_are_drawn_in_the_colours_of_the_label_table(report: Path, section_id: str, caption: str) -> None:
    (file,) = [file for alt, file in shown_on(report)[section_id].items() if caption in alt]
    picture = pixels(file)
    cortex, white_matter = (around(picture, *on_whole_picture(picture, *place)) for place in (LEFT, RIGHT))
    share = 0.6 * 255  # how much of a colour is laid over the grey of the stain
    assert cortex[0] - cortex[2] == pytest.approx(share, abs=2)
    assert white_matter[2] - white_matter[0] == pytest.approx(share, abs=2)


def test_the_legend_gives_every_class_and_cluster_the_colour_it_is_drawn_in(report: Path) -> None:
    clusters = {str(number): f"rgb{rgb}" for number, rgb in enumerate(distinct_colours(3), start=1)}
    assert legend_of(report) == {"cortex": "rgb(255, 0, 0)", "white matter": "rgb(0, 0, 255)"} | clusters


def label_entry(folder: Path) -> dict[int, tuple[str, list[int]]]:
    """What a stored label image says of its values: name and colour, as napari shows them."""
    entry = json.loads((folder / "zarr.json").read_text())["attributes"]["ome"]["image-label"]
    names = {one["label-value"]: one["name"] for one in entry["properties"]}
    colours = {one["label-value"]: one["rgba"][:3] for one in entry["colors"] if one["label-value"]}
    assert set(names) == set(colours)
    return {value: (names[value], colours[value]) for value in names}


def test_stored_maps_name_and_colour_their_values_as_the_label_table_does(mapped: SmallBrain) -> None:
    with mapped.opened() as opened:
        folder = opened.catalogue.path(Steps(mapped, opened).parcellation[1].product("s2"))
    assert label_entry(folder / "labels" / "areas") == {
        CORTEX: ("cortex", [255, 0, 0]),
        WHITE_MATTER: ("white matter", [0, 0, 255]),
    }


def test_clusters_have_one_name_and_colour_in_the_store_and_on_the_page(mapped: SmallBrain, report: Path) -> None:
    with mapped.opened() as opened:
        step = Steps(mapped, opened).clusters
        place = Place(opened, opened.rows["s2"])
        drawn = step.stored.open(place).levels[0].pixels()
        entry = label_entry(opened.catalogue.path(step.product("s2")) / "labels" / "clusters")
        facts = step.stored.record(place).facts
    colours = distinct_colours(3)
    assert entry == {one: (f"cluster {one}", list(colours[one - 1])) for one in (1, 2, 3)}
    (file,) = [file for alt, file in shown_on(report)["s2"].items() if "clusters" in alt]
    picture, px = pixels(file), WIDTH // drawn.shape[1]
    for value in np.unique(drawn):
        expected = colours[value - 1] if value else (255, 255, 255)
        y, x = np.argwhere(drawn == value)[0]
        found = picture[tuple(np.round(on_whole_picture(picture, (y + 0.5) * px, (x + 0.5) * px)).astype(int))]
        assert tuple(found) == expected
    # counted cluster by cluster, and class by class in the order of the table
    truth = labels_of()[px // 2 :: px, px // 2 :: px]
    counted = [[int(((drawn == one) & (truth == two)).sum()) for two in (CORTEX, WHITE_MATTER)] for one in (1, 2, 3)]
    assert facts["by_label"] == counted
    assert facts["sizes"] == [int((drawn == one).sum()) for one in (1, 2, 3)]
