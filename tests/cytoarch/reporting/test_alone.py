"""A report that is sent alone shows what it showed, as far as there is room, and nothing from elsewhere."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cytoarch.reporting.alone import CELL_PX, MOST_SHOWN, map_sheet, one_page, thumbnail
from cytoarch.reporting.comparison import ComparedRow, comparison_chart
from cytoarch.reporting.pictures import png, webp


def picture(path: Path, grey: int, shape: tuple[int, int] = (20, 40)) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(np.full((*shape, 3), grey, np.uint8)))
    return path.read_bytes()


@pytest.fixture
def index(tmp_path: Path) -> Path:
    path = tmp_path / "B1" / "report" / "index.html"
    path.parent.mkdir(parents=True)
    path.write_text(
        '<p>R</p><img src="a.png" alt="first"><img loading="lazy" src="../derived/p/s1/0.png" alt="">'
        '<a href="../derived/x.html">all</a><a href="#s1">s1</a><a href="https://x.org">x</a>'
        '<img src="../../other.png" alt="">'
    )
    return path


def test_pictures_are_inside_and_links_to_the_store_are_taken_off(index: Path, tmp_path: Path) -> None:
    first = picture(index.parent / "a.png", 10)
    second = picture(tmp_path / "B1/derived/p/s1/0.png", 20)
    picture(tmp_path / "other.png", 30)
    text = one_page(index).decode()
    for content in (first, second):
        assert f'src="data:image/png;base64,{base64.b64encode(content).decode()}"' in text
    assert text.count("data:image") == 2, "what lies outside the brain's folder is not shown"
    assert 'alt="first"' in text
    assert 'href="../' not in text
    assert '<a href="#s1">' in text
    assert '<a href="https://x.org">' in text


def test_a_jpeg_is_called_so_whatever_its_name_ends_with(index: Path) -> None:
    index.write_text('<img src="scan.jpg" alt="">')
    (index.parent / "scan.jpg").write_bytes(b"JPEG")
    assert 'src="data:image/jpeg;base64,' in one_page(index).decode()


def test_pictures_are_called_what_they_are(index: Path) -> None:
    index.write_text('<img src="scan.webp" alt="">')
    (index.parent / "scan.webp").write_bytes(webp(np.zeros((8, 8, 3), np.uint8)))
    assert 'src="data:image/webp;base64,' in one_page(index).decode()


def test_where_there_is_no_room_the_page_says_where_it_is_shown(index: Path, tmp_path: Path) -> None:
    first = picture(index.parent / "a.png", 10)
    picture(tmp_path / "B1/derived/p/s1/0.png", 20, (400, 400))
    text = one_page(index, most_bytes=2 * len(first)).decode()
    assert text.count("data:image") == 1
    assert text.count("shown in the report in the store") == 2


def test_a_sheet_shows_so_many_sections_evenly_and_in_order(tmp_path: Path) -> None:
    shown = [(f"s{n:02d}", tmp_path / f"{n}.png") for n in range(23)]
    for n, (_, path) in enumerate(shown):
        picture(path, 10 * n, (30, 60))
    with Image.open(io.BytesIO(map_sheet(shown))) as sheet:
        assert sheet.width == 4 * CELL_PX
        pixels = np.asarray(sheet)
    row, cell = sheet.height // 3, CELL_PX
    greys = [pixels[15 + y * row, cell // 2 + x * cell, 0].item() for y in range(3) for x in range(4)]
    assert greys == [10 * n for n in range(0, 23, 2)]
    assert MOST_SHOWN == 12
    one = map_sheet(shown[:1])
    with Image.open(io.BytesIO(one)) as alone, Image.open(io.BytesIO(thumbnail(one, 100))) as small:
        assert alone.width == CELL_PX
        assert (max(small.size), small.format) == (100, "JPEG")


def test_a_comparison_shows_every_brain_and_says_how_many_it_leaves_out() -> None:
    rows = [ComparedRow("B1", {"macro-F1": 0.5, "purity": 0.2}, {"L1": 0.9}), ComparedRow("B2", {"macro-F1": 0.7}, {})]
    sizes = []
    for many in (rows, rows[1:], [*rows] * 30):
        with Image.open(io.BytesIO(comparison_chart(many, "Brains"))) as chart:
            sizes.append(chart.size)
            assert np.asarray(chart.convert("L")).min() < 100
    assert sizes[1][0] < sizes[0][0], "no classes, no second panel"
    assert sizes[2][1] < 40 * 60, "no more than forty are drawn"
