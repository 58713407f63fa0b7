"""What all settings share: frozen, nothing unknown; in forms, titles that people read in the order they are stated."""

import re
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.fields import ComputedFieldInfo, FieldInfo

UNITS = {
    "um": "um",
    "mm": "mm",
    "mm2": "mm2",
    "px": "px",
    "s": "s",
    "h": "h",
    "gb": "GB",
    "deg": "degrees",
    "bytes": "bytes",
}
"""Last words of names that are units -> how the unit is written."""


def spoken(name: str) -> str:
    """The title of a field: its name as words, its unit in brackets.

    >>> spoken("pixel_size_um"), spoken("tokens_per_class"), spoken("memory_gb"), spoken("manifest_path")
    ('Pixel size (um)', 'Tokens per class', 'Memory (GB)', 'Manifest')
    """
    words = name.removesuffix("_path").split("_")
    unit = UNITS.get(words[-1]) if len(words) > 1 else None
    text = " ".join(words[:-1] if unit else words).capitalize()
    return f"{text} ({unit})" if unit else text


def _title(name: str, _field: FieldInfo | ComputedFieldInfo) -> str:
    return spoken(name)


def _placed(schema: dict[str, Any]) -> None:
    """Keep the order in which fields are stated, required ones first, and end descriptions with an example."""
    required = set(schema.get("required", ()))
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    order = sorted(properties, key=lambda name: name not in required)
    for place, name in enumerate(order):
        content = properties[name]
        content["position"] = place
        examples = content.get("examples")
        if examples and not re.search(r" Example: ", content.get("description", "")):
            content["description"] = f"{content.get('description', '')} Example: {examples[0]}".strip()


class Settings(BaseModel):
    """Base of all settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", field_title_generator=_title, json_schema_extra=_placed)
