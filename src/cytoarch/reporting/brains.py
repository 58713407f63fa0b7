"""The page of brains that were compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cytoarch.reporting.confusions import Matrix
from cytoarch.reporting.findings import Findings
from cytoarch.reporting.rendered import templates


@dataclass(frozen=True)
class BrainsPage:
    """Everything the page shows."""

    brains: Sequence[str]
    pairs: Sequence[Mapping[str, Any]]
    """Rows: one, other, correlation (or None), pairs."""
    findings: Findings
    """What the tokens of all brains follow together."""
    alike: Sequence[Matrix]
    """How alike areas are, a matrix for each brain that has few enough of them."""


def render_brains(page: BrainsPage) -> bytes:
    """The page; every text from outside is escaped."""
    environment = templates()
    return environment.get_template("brains.html.jinja").render(page=page).encode()
