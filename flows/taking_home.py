"""Commands that take a brain's maps to other programs."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cytoarch.errors import StoreError
from cytoarch.exports.ngff import COLLECTION
from cytoarch.exports.settings import ExportSettings, Format
from flows.commands import run_flow
from flows.console import stderr_console
from flows.export_brain import export_brain
from flows.parameters import StoredBrain
from flows.places import DEFAULT_EXPORTS, DEFAULT_STORE
from flows.viewing import Viewing, open_viewing, serve


def export(
    brain: str,
    *,
    out: Path = DEFAULT_EXPORTS,
    formats: Annotated[tuple[Format, ...], Parameter(consume_multiple=True)] = (),
    map_name: str = "",
    clusters_name: str = "",
    tolerance_um: float | None = None,
    picture_um: float | None = None,
    voxel_um: float | None = None,
    naming: Literal["plain", "bids"] = "plain",
    served_at: str = "",
    store_path: Path = DEFAULT_STORE,
) -> int:
    """Write a brain's maps, labels, tables and points for other programs.

    Parameters
    ----------
    brain
        Brain in the store.
    out
        Folder to write into; the brain gets one of its own in it.
    formats
        Formats to write: areas (CSV), qupath (GeoJSON), ome-zarr, nifti, points (AnnData), neuroglancer; none
        named: all there is data for.
    map_name
        Parcellation to export; blank where there is only one.
    clusters_name
        Clusters to export; blank where there is one.
    tolerance_um
        How far an outline may move; default: a cell of its map.
    picture_um
        Pixel size of scan and maps in OME-Zarr; default: that of the map; 0: as scanned.
    voxel_um
        Edge of a voxel in the plane; default: a cell of the map.
    naming
        bids: names and sidecars of a BIDS derivative.
    served_at
        Address under which the brain's folder will be served, for neuroglancer.
    store_path
        Folder of the store.

    """
    settings = ExportSettings(
        formats=formats,
        map_name=map_name,
        clusters_name=clusters_name,
        tolerance_um=tolerance_um,
        picture_um=picture_um,
        voxel_um=voxel_um,
        naming=naming,
        served_at=served_at,
    )
    source = StoredBrain(brain_id=brain, store_path=store_path)
    parameters = {"brain": source, "folder": out, "export": settings}
    return run_flow(export_brain, stderr_console(), parameters)


def view(
    brain: str,
    *,
    section: str = "",
    napari: bool = False,
    out: Path = DEFAULT_EXPORTS,
    map_name: str = "",
    clusters_name: str = "",
    port: int = 0,
    store_path: Path = DEFAULT_STORE,
) -> int:
    """Serve a brain on this machine and print the link that shows it in neuroglancer; ends with Ctrl-C.

    Parameters
    ----------
    brain
        Brain in the store.
    section
        Section to show first; blank: the middle one.
    napari
        Print the command that opens the exported section in napari instead; all sections where none is named.
    out
        Folder of the exports, for napari.
    map_name
        Parcellation to show; blank where there is only one.
    clusters_name
        Clusters to show; blank where there are only one kind of them.
    port
        Port on 127.0.0.1; 0: any that is free.
    store_path
        Folder of the store.

    """
    if napari:
        return _napari(brain, section, out)
    settings = ExportSettings(map_name=map_name, clusters_name=clusters_name)
    return _view(open_viewing(store_path, brain, settings, port), section)


def _view(viewing: Viewing, section: str) -> int:
    known = viewing.section_ids
    shown = section or known[len(known) // 2]
    print(f"section   {shown}")
    print(f"link      {viewing.link(shown)}")
    print(f"others    {viewing.base_url}/  ({len(known)} sections)")
    print("end       Ctrl-C")
    if viewing.client.said:
        print(f"note: {viewing.client.said}", file=sys.stderr)
    serve(viewing)
    return 0


def _napari(brain: str, section: str, out: Path) -> int:
    """Print the command that opens an exported section, or all of them, in napari."""
    collection = out / brain / "ome-zarr" / COLLECTION
    shown = collection / section if section else collection
    if not (shown / "zarr.json").is_file():
        command = shlex.join(["python", "-m", "flows", "export", brain, "--formats", "ome-zarr", "--out", str(out)])
        raise StoreError(f"{shown}: is not there; write it with `{command}`")
    print(shlex.join(["napari", "--plugin", "napari-ome-zarr", str(shown)]))
    return 0
