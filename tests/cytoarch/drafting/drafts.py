"""Folders of scans, and drafts of their manifests."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from cytoarch.brains import COLUMNS, Brain, read_manifest

PIXELS = np.zeros((8, 9), np.uint8)


def scans(folder: Path, *names: str, **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name.endswith(".tif"):
            tifffile.imwrite(folder / name, PIXELS, metadata=None, **options)
        else:
            Image.fromarray(PIXELS).save(folder / name)
    return folder


def scans_in(folder: Path, *names: str) -> Path:
    """Scans that are only looked for, as no image is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"no image")
    return folder


def completed(manifest: Path, root: Path) -> Brain:
    """The brain of a draft after a person took off every '?' and gave the brain its name and numbers."""
    rows = [
        {**row, "brain_id": "B1", "section_number": str(number), "labels": row["labels"].removeprefix("?")}
        for number, row in enumerate(drafted(manifest))
    ]
    path, table = manifest.with_name("completed.csv"), manifest.with_name("table.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    table.write_text("id,name\n1,A\n", encoding="utf-8")
    (brain,) = read_manifest(path, root, table)
    return brain


def drafted(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
