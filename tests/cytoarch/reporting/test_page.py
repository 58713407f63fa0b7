"""The report page: everything from outside escaped, everything shown referenced."""

import json
import re
from dataclasses import replace
from pathlib import Path

import html_elements
import pytest
from html_elements import Elements

from cytoarch.reporting.confusions import Confused, Matrix
from cytoarch.reporting.findings import (
    AcrossSaid,
    AreaSize,
    Border,
    Doubt,
    Findings,
    Follows,
    Strength,
    bars,
)
from cytoarch.reporting.page import SECTIONS_A_PAGE, LegendEntry, Page, SectionEntry, legend_groups, render_pages

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;"


def index(page: Page) -> bytes:
    """The only page of a brain of few sections."""
    pages = render_pages(page)
    assert list(pages) == ["index.html"]
    return pages["index.html"]


def parsed(page: Page) -> Elements:
    return html_elements.parsed(index(page))


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
    assert HOSTILE.encode() not in index(page_of(HOSTILE))


@pytest.mark.parametrize(
    ("kinds", "shown"),
    [(("map", "clusters"), "map"), (("clusters", "pca"), "clusters"), (("pca",), "pca")],
    ids=str,
)
def test_the_brain_is_seen_at_a_glance_without_its_ends_and_without_what_failed(kinds: tuple[str, ...], shown: str):
    def drawn(number: int) -> SectionEntry:
        layers = {kind: f"s{number}/{kind}.png" for kind in ("scan", *kinds)}
        return SectionEntry(f"s{number}", number, "kept", layers=layers)

    sections = [*map(drawn, range(20)), SectionEntry("s20", 20, "failed", "broken")]
    page = replace(page_of(), sections=sections, legends={name: [LegendEntry(name, (1, 2, 3))] for name in "AB"})
    first = html_elements.parsed(render_pages(page)["index.html"])
    links = [str(each.get("href")) for tag, each in first.found if tag == "a"]
    links = [one for one in links if one.startswith("viewer.html#")]
    assert links == [f"viewer.html#s{number}" for number in (1, 4, 8, 11, 15, 18)]
    over = [str(each["src"]) for tag, each in first.found if tag == "img" and each.get("class") == "over"]
    assert over == [f"{link.partition('#')[2]}/{shown}.png" for link in links]


def test_nothing_is_fetched_from_the_network_and_no_script_is_run():
    elements = parsed(page_of())
    addresses = [
        value for _, attributes in elements.found for name, value in attributes.items() if name in ("src", "href")
    ]
    assert addresses
    assert not [one for one in addresses if "//" in one or one.startswith("/")]
    assert "script" not in [tag for tag, _ in elements.found]
    assert b"@import" not in index(page_of())


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
    assert links == ["#sections", "#s1", "#s2", "#s3"]
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
    assert index(page_of()) == index(page_of())


@pytest.mark.parametrize("name", ["Gehirn Ä ö ü", "脑", "σ² < 3 & more"])
def test_names_in_any_script_survive(name: str):
    assert name in "".join(parsed(page_of(name)).text)


# -- brains of many sections -------------------------------------------------------------------------------------------


def many(count: int, text: str = "plain") -> Page:
    sections = [
        SectionEntry(f"s{one}", one, "kept", text, {}, {text: f"p/{one}.png"}, f"t/{one}.png") for one in range(count)
    ]
    return replace(page_of(text), sections=[*sections, SectionEntry("lost", count, "failed", text)])


def links(content: bytes) -> list[str]:
    return [attributes["href"] for tag, attributes in html_elements.parsed(content).found if tag == "a"]


def pictures_in(content: bytes) -> list[str]:
    return [attributes["src"] for tag, attributes in html_elements.parsed(content).found if tag == "img"]


def test_every_section_has_a_thumbnail_that_leads_to_its_pictures():
    count = 2 * SECTIONS_A_PAGE + 3
    pages = render_pages(many(count))
    assert list(pages) == ["index.html", *(f"sections-{number:03d}.html" for number in (1, 2, 3))]
    assert pictures_in(pages["index.html"]) == ["charts/confusion.png", *(f"t/{one}.png" for one in range(count))]
    assert [one for name in list(pages)[1:] for one in pictures_in(pages[name])] == [
        f"p/{one}.png" for one in range(count)
    ]
    places = {
        f"{name}#{attributes['id']}"
        for name, content in pages.items()
        for _, attributes in html_elements.parsed(content).found
        if "id" in attributes
    }
    wanted = [*(f"s{one}" for one in range(count)), "lost"]
    found = [one for one in links(pages["index.html"]) if not one.startswith("#")]
    assert [one.split("#")[1] for one in found] == wanted * 2, "among the thumbnails, and in the table of all sections"
    assert set(found) <= places


def test_pages_of_sections_lead_to_each_other_and_back():
    pages = render_pages(many(2 * SECTIONS_A_PAGE + 3))
    turns = [sorted(set(links(pages[f"sections-{number:03d}.html"]))) for number in (1, 2, 3)]
    assert turns == [
        ["index.html", "sections-002.html"],
        ["index.html", "sections-001.html", "sections-003.html"],
        ["index.html", "sections-002.html"],
    ]


def test_a_page_more_begins_with_one_section_more_than_fit():
    assert len(render_pages(many(SECTIONS_A_PAGE - 1))) == 1
    assert len(render_pages(many(SECTIONS_A_PAGE))) == 3


def test_hostile_names_stay_text_on_every_page():
    for content in render_pages(many(SECTIONS_A_PAGE + 1, HOSTILE)).values():
        assert HOSTILE.encode() not in content
        assert b"<script" not in content


# -- the viewer --------------------------------------------------------------------------------------------------------


def with_layers(text: str = "plain") -> Page:
    page = page_of(text)
    sections = [replace(one, layers={"scan": "p/scan.webp", "map": "p/map.png"}) for one in page.sections[:1]]
    return replace(page, sections=[*sections, *page.sections[1:]])


def test_the_viewer_knows_every_section_and_only_the_layers_there_are():
    content = render_pages(with_layers())["viewer.html"]
    data = re.search(rb'<script type="application/json" id="data">(.*?)</script>', content, re.DOTALL)
    assert data
    sections = json.loads(data.group(1))
    assert [one["id"] for one in sections] == ["s1", "s2", "s3"]
    assert sections[0]["layers"] == {"scan": "p/scan.webp", "map": "p/map.png"}
    assert [one["status"] for one in sections] == ["kept", "excluded", "failed"]
    radios = [a["value"] for tag, a in html_elements.parsed(content).found if tag == "input" and a["type"] == "radio"]
    assert radios == ["map"]
    assert "viewer.html" in links(render_pages(with_layers())["index.html"])
    assert "viewer.html" not in render_pages(page_of())


def test_hostile_names_stay_text_in_the_viewer():
    hostile, plain = (render_pages(with_layers(text))["viewer.html"] for text in ("</script>" + HOSTILE, "plain"))
    assert [tag for tag, _ in html_elements.parsed(hostile).found] == [
        tag for tag, _ in html_elements.parsed(plain).found
    ]
    assert b"alert('x')</script>" not in hostile


GROUPS = ("visual", "auditory", "motor", "olfactory", "insular")


def test_a_long_legend_opens_by_group_and_shows_each_group_in_the_colours_of_its_members():
    entries = [LegendEntry(f"{group}, layer {one}", (9 * one, 0, 0), group) for one in range(9) for group in GROUPS]
    entries.append(LegendEntry("white matter", (5, 6, 7)))
    grouped = legend_groups(entries)
    assert [(name, len(own)) for name, own in grouped] == [*((one, 9) for one in GROUPS), ("white matter", 1)]
    assert [name for name, _ in legend_groups(entries[:20])] == [""]
    assert [name for name, _ in legend_groups([replace(one, group="") for one in entries])] == [""]
    for page in render_pages(replace(with_layers("x"), legends={"Areas": entries})).items():
        elements = html_elements.parsed(page[1])
        opening = sum(tag == "details" for tag, _ in elements.found)
        assert opening in (len(GROUPS), 2 * len(GROUPS)), page[0]  # at the top of the first page, too
        assert all(one.name in " ".join(elements.text) for one in entries)


# -- what was found ----------------------------------------------------------------------------------------------------


def test_what_was_found_is_on_the_page():
    findings = Findings(
        areas=[AreaSize("A1", "front", (1, 2, 3), 4, "12.50", "6.00", "6.50", "-")],
        has_sides=True,
        worst=[Confused("A1", "A2", 1234, 0.25)],
        matrices=[Matrix("groups", ["front"], ["front", "back"], [[0.75, 0.25]])],
        hops=bars({"1 border": 3, "2 borders": 1}),
        margins=bars({"0.0": 1}),
        borders=[Border("A1", "A9", 3.25, "2")],
        smoothing=[Strength(0.0, 0.5, False), Strength(0.05, 0.625, True)],
        across=AcrossSaid(
            "1,234 points", [("pieces of areas", 4321, 17)], [("A1", "A7", 5)], [Strength(2.0, 0.75, True)]
        ),
        unsure_sections=[Doubt("s1", 0.125)],
        unsure_areas=[Doubt("A2", 0.0625)],
        follows=[Follows("sections", 0.9, 0.01, 0.3, 0.857, 0.7)],
        stability=[(2, 0.99), (4, None)],
        first_looks={"s3": "torn"},
    )
    elements = parsed(replace(page_of(), findings=findings))
    text = " ".join(" ".join(elements.text).split())
    for said in (
        "12.50",
        "6.00",
        "1,234",
        "25.0 %",
        "75.0 %",
        "3.2",
        "0.6250",
        "0.05, chosen",
        "86 %",
        "0.990",
        "torn",
        "1,234 points.",
        "4,321 17",
        "A1 beside A7 (5)",
        "2.0, chosen 0.7500",
    ):
        assert said in text, said
    assert text.index("To be looked at first") < text.index("Kept and dropped")
