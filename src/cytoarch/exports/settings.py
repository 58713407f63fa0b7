"""What is exported, and how."""

from typing import Literal, get_args

from pydantic import Field

from cytoarch.settings import Settings

Format = Literal["areas", "qupath", "ome-zarr", "nifti", "points", "neuroglancer"]
FORMATS: tuple[Format, ...] = get_args(Format)


class ExportSettings(Settings):
    """What is exported of a brain, and how."""

    formats: tuple[Format, ...] = Field(default=(), description="Formats to write; none named: all there is data for.")
    map_name: str = Field(
        default="", max_length=64, description="Parcellation to export; blank where there is only one."
    )
    clusters_name: str = Field(default="", max_length=64, description="Clusters to export; blank where there is one.")
    tolerance_um: float | None = Field(
        default=None, ge=0, le=10_000, description="How far an outline may move (um); blank: a cell of its map."
    )
    picture_um: float | None = Field(
        default=None,
        ge=0,
        le=10_000,
        description="Pixel size of scan and maps in OME-Zarr (um); blank: that of the map; 0: as scanned.",
    )
    voxel_um: float | None = Field(
        default=None, gt=0, le=10_000, description="Edge of a voxel in the plane (um); blank: a cell of the map."
    )
    naming: Literal["plain", "bids"] = Field(
        default="plain", description="bids: names and sidecars of a BIDS derivative (microscopy)."
    )
    served_at: str = Field(
        default="",
        max_length=500,
        pattern=r"^(https?://[^\s]+)?$",
        description="Address under which the folder of the brain's export will be served, for neuroglancer.",
    )
