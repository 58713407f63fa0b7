"""The table of volumes: which files, how large their voxels are, and which have a known tree."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cytoarch.errors import ManifestError
from cytoarch.neurons.trees import Triple
from cytoarch.paths import ID_PATTERN
from cytoarch.tables import csv_rows, gathered, row_faults

Use = Literal["learn", "score", "apply"]


class VolumeRow(BaseModel):
    """A volume, as the table states it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    volume_id: str = Field(pattern=ID_PATTERN)
    path: str = Field(min_length=1, max_length=4096)
    use: Use = "apply"
    """learn: its tree is learned from; score: it is compared with; apply: it has none."""
    swc: str | None = None
    swc_unit: Literal["um", "voxel"] = "um"
    channel: int = Field(default=0, ge=0, le=1000)
    voxel_z_um: float | None = Field(default=None, gt=0, le=1000, allow_inf_nan=False)
    voxel_y_um: float | None = Field(default=None, gt=0, le=1000, allow_inf_nan=False)
    voxel_x_um: float | None = Field(default=None, gt=0, le=1000, allow_inf_nan=False)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        sizes = [self.voxel_z_um, self.voxel_y_um, self.voxel_x_um]
        if any(one is None for one in sizes) and any(one is not None for one in sizes):
            raise ValueError("voxel_z_um, voxel_y_um and voxel_x_um are stated together, or none of them")
        if self.use != "apply" and self.swc is None:
            raise ValueError(f"use is {self.use}, which needs the known tree: name its file in column swc")
        return self

    @property
    def voxel_um(self) -> Triple | None:
        """Edges (z, y, x), where they are stated."""
        if self.voxel_z_um is None or self.voxel_y_um is None or self.voxel_x_um is None:
            return None
        return self.voxel_z_um, self.voxel_y_um, self.voxel_x_um


COLUMNS = tuple(VolumeRow.model_fields)


def read_volumes(path: Path) -> tuple[VolumeRow, ...]:
    """The volumes of a table. Raises ManifestError, listing every fault with its row."""
    rows, faults = csv_rows(path, COLUMNS, ("volume_id", "path"))
    volumes: list[VolumeRow] = []
    for number, row in rows:
        try:
            volumes.append(VolumeRow.model_validate(row))
        except ValidationError as error:
            faults += row_faults(number, error)
    ids = [one.volume_id for one in volumes]
    faults += [f"volume_id {one!r} comes {ids.count(one)} times" for one in dict.fromkeys(ids) if ids.count(one) > 1]
    if not faults and not volumes:
        faults.append("names no volume")
    if faults:
        raise ManifestError(str(path), gathered(faults))
    return tuple(volumes)
