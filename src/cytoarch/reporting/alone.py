"""A report as it travels: one page with its pictures inside, and one picture that stands for the whole map."""

import base64
import html
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageDraw, ImageFont

PAGE_BYTES = 12_000_000
"""A page with its pictures inside is not longer than about this: browsers open it at once."""
MOST_SHOWN = 12
CELL_PX, COLUMNS, CAPTION_PX = 240, 4, 18
INK = (60, 60, 60)

T = TypeVar("T")

_IMAGE = re.compile(r'<img([^>]*?) src="([^":]+)"([^>]*)>')
_LOCAL_LINK = re.compile(r'<a href="(?!#|https?:)[^"]*"')


def one_page(index: Path, most_bytes: int = PAGE_BYTES) -> bytes:
    """A page of the store with the pictures it shows inside it, as far as there is room, so that it can be sent alone.

    The first pictures are taken first; one that finds no room, or lies outside the folder of its brain, is replaced by
    its caption. Links to other pages of the store lead nowhere elsewhere and are taken off.
    """
    home = index.parent.parent.resolve()
    left = most_bytes

    def inside(found: re.Match[str]) -> str:
        nonlocal left
        before, source, after = found.groups()
        path = (index.parent / html.unescape(source)).resolve()
        if home in path.parents and path.is_file() and path.stat().st_size * 4 / 3 <= left:
            encoded = base64.b64encode(path.read_bytes()).decode()
            left -= len(encoded)
            kind = path.suffix[1:].replace("jpg", "jpeg")
            return f'<img{before} src="data:image/{kind};base64,{encoded}"{after}>'
        return '<span class="faint">(shown in the report in the store)</span>'

    text = _IMAGE.sub(inside, index.read_text(encoding="utf-8"))
    return _LOCAL_LINK.sub('<a class="faint"', text).encode()


def map_sheet(pictures: Sequence[tuple[str, Path]]) -> bytes:
    """One PNG of the pictures of some sections, each with its name: all, or of many those that lie evenly apart."""
    chosen = spread(pictures, MOST_SHOWN)
    columns = min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    small = {name: _shrunk(path) for name, path in chosen}
    high = max(picture.height for picture in small.values())
    sheet = Image.new("RGB", (columns * CELL_PX, rows * (high + CAPTION_PX)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, (name, picture) in enumerate(small.items()):
        x, y = number % columns * CELL_PX, number // columns * (high + CAPTION_PX)
        sheet.paste(picture, (x + (CELL_PX - picture.width) // 2, y + (high - picture.height) // 2))
        draw.text((x + CELL_PX / 2, y + high + CAPTION_PX / 2), name, fill=INK, font=font, anchor="mm")
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()


def _shrunk(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((CELL_PX - 8, CELL_PX - 8))
    return small


def thumbnail(sheet: bytes, longest_px: int = 640) -> bytes:
    """A picture as a small JPEG, for pages that keep it in a database."""
    with Image.open(io.BytesIO(sheet)) as picture:
        small = picture.convert("RGB")
    small.thumbnail((longest_px, longest_px))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=82)
    return buffer.getvalue()


def spread(things: Sequence[T], most: int) -> list[T]:
    """All things, or of more than `most` so many that lie evenly apart, the first and the last among them.

    >>> spread("abcdefg", 4), spread("ab", 4)
    (['a', 'c', 'e', 'g'], ['a', 'b'])
    """
    if len(things) <= most:
        return list(things)
    return [things[round(place * (len(things) - 1) / (most - 1))] for place in range(most)]
