"""What a page of HTML holds."""

from html.parser import HTMLParser


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(content: bytes) -> Elements:
    """The elements of a page."""
    elements = Elements()
    elements.feed(content.decode("utf-8"))
    return elements
