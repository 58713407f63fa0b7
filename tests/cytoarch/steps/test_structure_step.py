"""Points of sections gathered with their columns: what counts as a layer, what is left out, what comes along."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr

from cytoarch.brains import Label, LabelTable
from cytoarch.learning.structure import Measured
from cytoarch.steps.columns import Columns
from cytoarch.steps.structure import EMBEDDING, PROFILE, gathered_points, packed, unpacked

COUNT, SAMPLES = 12, 20
TABLE = LabelTable(labels=tuple(Label(id=one, name=f"L{one}") for one in (1, 2, 3, 7)))


def points_in(folder: Path, section: int) -> Path:
    """Two draws of each point of a section, with a column of its own."""
    rows = 2 * COUNT
    rng = np.random.default_rng(section)
    point = np.repeat(np.arange(COUNT), 2)
    obs = pd.DataFrame(
        {"section_id": f"s{section}", "point": point, "draw": np.tile([0, 1], COUNT), "y_px": 1.0, "myelin": point / 2},
        index=[f"s{section}-{one}" for one in range(rows)],
    )
    table = anndata.AnnData(rng.normal(size=(rows, 3)).astype(np.float32), obs=obs)
    table.obsm["brain_mm"] = rng.normal(size=(rows, 3))
    with anndata.settings.override(zarr_write_format=3, auto_shard_zarr_v3=False):
        anndata.io.write_elem(zarr.open_group(folder, mode="w", zarr_format=3), "/", table)
    return folder


def columns(section: int, layers: tuple[int, ...]) -> Columns:
    """Columns of which the first breaks off; the last layer that is named lies beyond the cortex."""
    rng = np.random.default_rng([7, section])
    layer_mm = rng.uniform(0.4, 0.6, (COUNT, len(layers)))
    thickness = layer_mm.sum(axis=1)
    profile = rng.uniform(0, 9, (COUNT, SAMPLES))
    profile[0], thickness[0], layer_mm[0] = np.nan, np.nan, np.nan
    depth = np.append(np.linspace(0.1, 0.8, len(layers) - 1), 0.99)
    return Columns(
        thickness_mm=thickness,
        curvature_per_mm=rng.normal(size=COUNT),
        profile=profile,
        layers=np.array(layers),
        layer_depth=depth,
        layer_mm=layer_mm,
        cells_per_mm2=np.full((COUNT, len(layers)), np.nan),
    )


def gathered(folder: Path, layers: dict[str, tuple[int, ...]]) -> tuple[Measured, int, str]:
    names = list(layers)
    points = {name: points_in(folder / name, at) for at, name in enumerate(names)}
    return gathered_points(points, {name: columns(at, layers[name]) for at, name in enumerate(names)}, TABLE)


def test_layers_places_and_own_columns_are_measures_and_broken_columns_are_left_out(tmp_path: Path) -> None:
    points, left_out, said = gathered(tmp_path, {"s0": (1, 2, 3, 7), "s1": (1, 2, 3, 7)})
    assert left_out == 2
    assert len(points.section) == 2 * (COUNT - 1)
    assert set(points.measures) == {
        "thickness_mm", "curvature_per_mm", "x_mm", "y_mm", "z_mm", "beside_mm", "myelin",
        "thickness_mm of L1", "thickness_mm of L2", "thickness_mm of L3",
    }  # fmt: skip
    assert said == "labels are layers: half of the columns cross 3 of them or more"
    np.testing.assert_array_equal(points.measures["myelin"][: COUNT - 1], np.arange(1, COUNT) / 2)
    np.testing.assert_allclose(points.features[PROFILE].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(points.features[PROFILE].std(axis=0), 1)
    first_draws = anndata.io.read_zarr(tmp_path / "s0").X[2::2]
    np.testing.assert_array_equal(points.features[EMBEDDING][: COUNT - 1], first_draws)


def test_a_layer_that_one_section_lacks_has_no_thickness_there(tmp_path: Path) -> None:
    points, _, _ = gathered(tmp_path, {"s0": (1, 2, 3, 7), "s1": (1, 2, 3, 7), "s2": (1, 3, 7)})
    lacking = points.section == 2
    assert (points.measures["thickness_mm of L2"][lacking] == 0).all()
    assert (points.measures["thickness_mm of L2"][~lacking] > 0).all()


def test_labels_that_are_crossed_one_at_a_time_are_no_layers(tmp_path: Path) -> None:
    points, _, said = gathered(tmp_path, {"s0": (1, 7), "s1": (1, 7)})
    assert said == "labels are no layers: half of the columns cross 1 of them at most"
    assert not any(" of " in name for name in points.measures)


def test_points_are_kept_as_they_are(tmp_path: Path) -> None:
    points = Measured({"e": np.ones((3, 2))}, {"a/b of c": np.array([1.0, np.nan, 3.0])}, np.array([0, 0, 1]))
    (tmp_path / "points.npz").write_bytes(packed(points))
    found = unpacked(tmp_path / "points.npz")
    np.testing.assert_array_equal(found.measures["a/b of c"], points.measures["a/b of c"])
    assert found.features["e"].shape == (3, 2)
    assert found.section.tolist() == [0, 0, 1]
    assert packed(points) == packed(found)


@pytest.mark.parametrize("layers", [(1, 2, 3, 7)])
def test_a_section_of_other_sections_does_not_matter_to_the_order(tmp_path: Path, layers: tuple[int, ...]) -> None:
    points, _, _ = gathered(tmp_path, {"s0": layers, "s1": layers})
    assert points.section.tolist() == [0] * (COUNT - 1) + [1] * (COUNT - 1)
