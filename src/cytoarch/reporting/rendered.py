"""Pages from templates, and figures as PNG files: the same bytes for the same content."""

import io
from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, FunctionLoader, StrictUndefined

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def templates() -> Environment:
    """The templates of all pages, by file name below this package; every text that they are given is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.loader = FunctionLoader(lambda name: (files("cytoarch.reporting") / name).read_text(encoding="utf-8"))
    environment.filters["singular"] = lambda noun: noun.removesuffix("s")
    return environment


def figure_png(figure: "Figure") -> bytes:
    """A figure as a PNG file that does not name the program."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
