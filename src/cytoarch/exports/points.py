"""The table of sampled points as scanpy and squidpy take it: what maps say at a point, their colours, and places."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cytoarch.exports.legends import Legend

if TYPE_CHECKING:
    import anndata

SPATIAL = "spatial"
"""Where scanpy and squidpy look for places on a section: x to the right, y downwards."""


def describe_points(
    table: "anndata.AnnData", values: Mapping[str, NDArray[Any]], legends: Mapping[str, Legend]
) -> None:
    """Add to a table of points what maps say of them, and where they lie as scanpy's plots take it.

    `values` (n,) are label values by the kind of map. Each becomes a column of categories in the order of the legend,
    blank where the map says nothing, with its colours in `uns["KIND_colors"]`. A column of the table that is called
    like a map keeps its name, and the map's is `KIND_map`. `obsm["spatial"]` is x, y (um) in the section.
    """
    import pandas as pd

    for kind, own in values.items():
        column = f"{kind}_map" if kind in table.obs else kind
        seen = set(np.unique(own).tolist())
        rows = [row for row in legends[kind] if row.value in seen]
        place = {row.value: at for at, row in enumerate(rows)}
        codes = [place.get(value, -1) for value in own.tolist()]
        table.obs[column] = pd.Categorical.from_codes(codes, pd.Index([row.name for row in rows]))
        table.uns[f"{column}_colors"] = [row.hex for row in rows]
    table.obsm[SPATIAL] = np.ascontiguousarray(table.obsm["section_mm"][:, ::-1]) * 1000
