"""A group or array that was read, and what is below it."""

from dataclasses import dataclass, field
from typing import Any

from cytoarch.images.conformance.metadata import ArrayMetadata

GROUP_KINDS = {
    "multiscales": "image",
    "image-label": "image",
    "labels": "labels",
    "series": "series",
    "bioformats2raw.layout": "collection",
}
"""What a group is, by the first of these keys that its `ome` attributes have."""


@dataclass
class Node:
    """A group or array that was read."""

    key: str
    kind: str
    """array, group (no NGFF), unreadable (a fault was told), unknown, or a value of `GROUP_KINDS`."""
    attributes: dict[str, Any] = field(default_factory=dict)
    children: "dict[str, Node]" = field(default_factory=dict)
    array: ArrayMetadata | None = None
    levels: int | None = None
    """How many levels an image has; None until its attributes have passed the schema."""

    @property
    def ome(self) -> dict[str, Any]:
        """The NGFF attributes; empty if there are none."""
        ome = self.attributes.get("ome")
        return ome if isinstance(ome, dict) else {}

    def find(self, path: str) -> "Node | None":
        """The node at a path below this one."""
        node: Node | None = self
        for name in path.split("/"):
            node = node.children.get(name) if node else None
        return node

    def without_content(self) -> "Node":
        """The node without what lies below it: its collection needs no more."""
        return Node(self.key, self.kind, self.attributes if self.kind == "series" else {})
