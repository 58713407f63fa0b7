"""What child processes do with untrusted files: read one, fill a staging folder. They import this and no more."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cytoarch.brains import LabelTable, stated_section
from cytoarch.images.sections import write_labels, write_section
from cytoarch.images.stacks import write_stack
from cytoarch.progress import Progress
from cytoarch.store.staging import Staging


def section_work(arguments: Mapping[str, Any], on_progress: Progress) -> dict[str, Any]:
    """Contained work: a scan and a staging folder named as JSON; writes the section, returns facts for its record."""
    staging = Staging(Path(arguments["staging"])).join()
    section = stated_section(arguments["name"], arguments["section"])
    return write_section(staging, Path(arguments["file"]), section, on_progress, arguments["threads"])


def labels_work(arguments: Mapping[str, Any], on_progress: Progress) -> dict[str, Any]:
    """Contained work: a label image and a staging folder named as JSON; writes the labels, returns facts."""
    table = LabelTable.model_validate(arguments["table"])
    staging = Staging(Path(arguments["staging"])).join()
    height, width = arguments["shape"]
    size_um = arguments["pixel_size_um"]
    return write_labels(
        staging,
        Path(arguments["file"]),
        stated_section(arguments["name"], arguments["section"]),
        table,
        (height, width),
        size_um,
        on_progress,
    )


def volume_work(arguments: Mapping[str, Any], on_progress: Progress) -> dict[str, Any]:
    """Contained work: a volume and a staging folder named as JSON; writes the volume, returns facts for its record."""
    staging = Staging(Path(arguments["staging"])).join()
    stated = arguments["voxel_um"]
    edges = None if stated is None else (float(stated[0]), float(stated[1]), float(stated[2]))
    return write_stack(staging, Path(arguments["file"]), edges, arguments["channel"], arguments["name"], on_progress)
