"""OME-Zarr stores as ome-zarr-py writes them, and what can be changed in them."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zarr
from known_scans import Array, read_whole, refusal_of
from ome_zarr.format import FormatV04, FormatV05
from zarr.storage import LocalStore

from cytoarch.images.ome_zarr import open_ome_zarr
from cytoarch.images.planes import Scan

with warnings.catch_warnings():  # the writer warns of a class of its own
    warnings.simplefilter("ignore", DeprecationWarning)
    from ome_zarr.writer import write_image

H, W = 150, 210
FORMATS = {"0.4": FormatV04(), "0.5": FormatV05()}
SIZES = {"t": 2, "c": 3, "z": 4, "y": H, "x": W}


def write(
    path: Path,
    pixels: Array,
    axes: str,
    version: str = "0.5",
    *,
    unit: str | None = "micrometer",
    scale: float = 0.5,
    chunk: int = 64,
    storage: Any = None,
    **metadata: Any,
) -> Path:
    """A store as ome-zarr-py writes it."""
    zarr_format = 2 if version == "0.4" else 3
    group = zarr.open_group(LocalStore(path), mode="w", zarr_format=zarr_format)
    kinds = {"t": "time", "c": "channel"}
    stated = [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes]
    write_image(
        pixels,
        group,
        axes=stated,
        fmt=FORMATS[version],
        axes_units={"y": unit, "x": unit} if unit else None,
        scale_factors=[2],
        scale={axis: scale if axis in "yx" else 1.0 for axis in axes},
        storage_options={"chunks": tuple(chunk if axis in "yx" else 1 for axis in axes), **(storage or {})},
        **metadata,
    )
    return path


def whole(path: Path, plane_index: int | None = None) -> tuple[Scan, Array]:
    """A plane of a store, and its pixels."""
    scan = open_ome_zarr(path, plane_index)
    return scan, read_whole(scan)


def refusal(path: Path, plane_index: int | None = None) -> str:
    """The text of the error with which a store is refused."""
    return refusal_of(path, lambda: whole(path, plane_index))


def metadata_of(path: Path, version: str) -> tuple[Path, Callable[[Any], Any]]:
    """The file with the attributes of a group, and how to reach them."""
    if version == "0.4":
        return path / ".zattrs", lambda content: content
    return path / "zarr.json", lambda content: content["attributes"]["ome"]


def metadata(path: Path, version: str) -> Any:
    """The attributes of a group."""
    file, reach = metadata_of(path, version)
    return reach(json.loads(file.read_text()))


def change(path: Path, version: str, edit: Callable[[Any], None]) -> Path:
    """Edit the attributes of a group."""
    file, reach = metadata_of(path, version)
    content = json.loads(file.read_text())
    edit(reach(content))
    file.write_text(json.dumps(content))
    return path


def edit_array(path: Path, version: str, edit: Callable[[Any], None]) -> Path:
    """Edit the metadata of the array of the full resolution."""
    file = level(path) / (".zarray" if version == "0.4" else "zarr.json")
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    return path


def level(path: Path) -> Path:
    """The folder of the full resolution."""
    version = "0.5" if (path / "zarr.json").exists() else "0.4"
    file, reach = metadata_of(path, version)
    return path / str(reach(json.loads(file.read_text()))["multiscales"][0]["datasets"][0]["path"])
