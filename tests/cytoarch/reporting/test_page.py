"""The report page: everything from outside escaped, everything shown referenced."""

from dataclasses import replace
from pathlib import Path

import html_elements
import pytest
from html_elements import Elements

from cytoarch.reporting.page import LegendEntry, Page, SectionEntry, render_page

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;"


def parsed(page: Page) -> Elements:
    return html_elements.parsed(render_page(page))


def page_of(text: str = "plain", picture: str = "pictures/s1-stain.png") -> Page:
    return Page(
        brain_id=text,
        subtitle=text,
        headline=[(text, text)],
        notices=[text],
        sections=[
            SectionEntry("s1", 1, "kept", text, {text: text}, {text: picture}),
            SectionEntry("s2", 2, "excluded", text),
            SectionEntry("s3", 3, "failed", text),
        ],
        legends={text: [LegendEntry(text, (1, 2, 3))]},
        scores=[{"name": text, "sections": 2, "macro_f1": "0.5", "top1": "0.6", "top3": "0.7"}],
        per_class=[{"name": text, "support": 5, "precision": "-", "recall": "-", "f1": "-"}],
        charts={text: "charts/confusion.png"},
        provenance=[(text, text)],
    )


def test_hostile_names_stay_text():
    elements = parsed(page_of(HOSTILE))
    assert not [tag for tag, _ in elements.found if tag == "script"]
    assert not [attributes for _, attributes in elements.found if any(name.startswith("on") for name in attributes)]
    plain = parsed(page_of())
    assert [tag for tag, _ in elements.found] == [tag for tag, _ in plain.found]
    assert HOSTILE in "".join(elements.text)
    assert HOSTILE.encode() not in render_page(page_of(HOSTILE))


def test_nothing_is_fetched_from_the_network_and_no_script_is_run():
    elements = parsed(page_of())
    addresses = [
        value for _, attributes in elements.found for name, value in attributes.items() if name in ("src", "href")
    ]
    assert addresses
    assert not [one for one in addresses if "//" in one or one.startswith("/")]
    assert "script" not in [tag for tag, _ in elements.found]
    assert b"@import" not in render_page(page_of())


def test_every_picture_and_chart_is_referenced_by_its_own_path(tmp_path: Path):
    page = page_of()
    paths = [path for section in page.sections for path in section.pictures.values()] + list(page.charts.values())
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    shown = [attributes["src"] for tag, attributes in parsed(page).found if tag == "img"]
    assert sorted(shown) == sorted(paths)
    assert all((tmp_path / path).is_file() for path in shown)


def test_pictures_have_a_text_for_those_who_cannot_see_them():
    assert all(attributes.get("alt") for tag, attributes in parsed(page_of()).found if tag == "img")


def test_every_section_is_listed_with_its_status_and_reason_and_linked_to_its_place():
    elements = parsed(page_of("because"))
    text = " ".join(elements.text)
    places = {attributes.get("id") for _, attributes in elements.found}
    links = [attributes["href"] for tag, attributes in elements.found if tag == "a"]
    assert links == ["#s1", "#s2", "#s3"]
    assert {link[1:] for link in links} <= places
    for word in ("kept", "excluded", "failed", "because"):
        assert word in text


def test_a_legend_shows_the_colour_of_its_entry():
    styles = [attributes["style"] for tag, attributes in parsed(page_of()).found if tag == "i"]
    assert styles == ["background: rgb(1, 2, 3)"]


def test_a_page_without_scores_or_sections_is_a_page():
    bare = replace(
        page_of(),
        subtitle="",
        headline=[],
        notices=[],
        sections=[],
        legends={},
        scores=[],
        per_class=[],
        charts={},
        provenance=[],
    )
    elements = parsed(bare)
    assert "img" not in [tag for tag, _ in elements.found]
    assert "h1" in [tag for tag, _ in elements.found]


def test_the_same_facts_give_the_same_page():
    assert render_page(page_of()) == render_page(page_of())


@pytest.mark.parametrize("name", ["Gehirn Ä ö ü", "脑", "σ² < 3 & more"])
def test_names_in_any_script_survive(name: str):
    assert name in "".join(parsed(page_of(name)).text)
