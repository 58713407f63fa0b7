"""Borders of a section, along the lines that its points lie on."""

import io
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr

from cytoarch.discovery.borders import embedding_borders
from cytoarch.errors import SectionError
from cytoarch.steps.borders import BORDERS_FILE, BorderSettings, BordersStep, borders_along


def test_borders_are_found_on_each_line_and_lines_are_cut_where_points_are_missing() -> None:
    rng = np.random.default_rng(0)
    along = np.arange(80) * 0.2
    one = pd.DataFrame({"line": 0, "along_mm": along, "y_px": along * 10, "x_px": 5.0, "border_at": 40})
    two = pd.DataFrame({"line": 1, "along_mm": along, "y_px": along * 10, "x_px": 90.0, "border_at": 55})
    two = two.drop(index=range(20, 26))  # 1.4 mm without tissue
    known = pd.concat([one, two], ignore_index=True)
    place = np.rint(known["along_mm"] / 0.2).to_numpy()
    area = (place >= known["border_at"]).to_numpy().astype(float) + 7 * known["line"].to_numpy()
    embeddings = area[:, None] * np.array([2.0, -1.0, 1.5, 1.0]) + rng.normal(0, 0.5, (len(known), 4))
    order = rng.permutation(len(known))
    shuffled = embeddings[order]
    found = borders_along(known.iloc[order], lambda rows: embedding_borders(shuffled[rows]))
    assert found["stretch"].nunique() == 3
    assert found.groupby("stretch").size().tolist() == [80, 20, 54]
    borders = found[found["border"]]
    assert borders["line"].tolist() == [0, 1]
    np.testing.assert_allclose(borders["along_mm"], [8.0, 11.0], atol=0.41)
    assert (found["along_mm"].groupby(found["stretch"]).diff().dropna() > 0).all()


def test_of_several_draws_the_first_counts() -> None:
    known = pd.DataFrame({"line": 0, "along_mm": [0.0, 0.0, 0.2, 0.2], "y_px": 0.0, "x_px": 0.0, "draw": [0, 1, 0, 1]})
    found = borders_along(known, lambda rows: embedding_borders(np.zeros((len(rows), 2))))
    assert found["along_mm"].tolist() == [0.0, 0.2]
    assert not found["border"].any()


class Kept:
    """A staging folder that keeps what is written."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def write(self, name: str, content: bytes) -> None:
        self.files[name] = content


def points_in(folder: Path, **columns: object) -> Path:
    """A table of points as `embed-points` leaves it."""
    count = 60
    along = np.arange(count) * 0.5
    obs = pd.DataFrame({"y_px": along, "x_px": 3.0, **columns}, index=[f"s1-{one}" for one in range(count)])
    x = np.where(np.arange(count) < 30, 0.0, 5.0)[:, None] + np.random.default_rng(0).normal(0, 0.5, (count, 3))
    table = anndata.AnnData(x.astype(np.float32), obs=obs)
    with anndata.settings.override(zarr_write_format=3, auto_shard_zarr_v3=False):
        anndata.io.write_elem(zarr.open_group(folder, mode="w", zarr_format=3), "/", table)
    return folder


def test_a_section_gets_a_table_of_its_points_and_facts(tmp_path: Path) -> None:
    step, kept = BordersStep.of("points", BorderSettings()), Kept()
    folder = points_in(tmp_path / "points", line=0, along_mm=np.arange(60) * 0.5)
    inputs = {step.points: folder, step.labels: None, step.table: None}
    facts = step.write(inputs, kept)  # type: ignore[arg-type]
    assert facts == {"points": 60, "borders": 1, "lines": 1}
    found = pd.read_csv(io.BytesIO(kept.files[BORDERS_FILE]))
    assert found.loc[found["border"], "along_mm"].tolist() == [15.0]
    assert found["signal"].isna().sum() == 17


def test_points_that_lie_on_no_line_cost_the_section_and_say_what_is_needed(tmp_path: Path) -> None:
    step = BordersStep.of("points", BorderSettings())
    with pytest.raises(SectionError, match="no column line, along_mm; embed the points that trace-cortex writes"):
        step.write({step.points: points_in(tmp_path / "points")}, Kept())  # type: ignore[arg-type]
