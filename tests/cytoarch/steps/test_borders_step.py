"""Borders of a section, along the lines that its points lie on."""

import io
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr

from cytoarch.anatomy import columns as columns_module
from cytoarch.anatomy.depth import DepthSettings
from cytoarch.anatomy.depth_maps import DepthMap
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.brains import Label, LabelTable
from cytoarch.discovery.borders import embedding_borders
from cytoarch.errors import SectionError
from cytoarch.geometry import Grid
from cytoarch.images.layout import Pyramid
from cytoarch.images.pyramids import write_pyramid
from cytoarch.images.views import Level, StoredImage
from cytoarch.steps.borders import BORDERS_FILE, BorderSettings, BordersStep, areas_at, borders_along
from cytoarch.steps.profile_borders import ProfileBorderSettings, ProfileBordersStep
from cytoarch.store.staging import Staging


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


BLOCK_DEPTH = DepthSettings(sides="block")


class Kept:
    """A staging folder that keeps what is written."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def write(self, name: str, content: bytes) -> None:
        self.files[name] = content


def points_in(folder: Path, places_mm: np.ndarray | None = None, **columns: object) -> Path:
    """A table of points as `embed-points` leaves it."""
    count = 60
    along = np.arange(count) * 0.5
    obs = pd.DataFrame({"y_px": along, "x_px": 3.0, **columns}, index=[f"s1-{one}" for one in range(count)])
    x = np.where(np.arange(count) < 30, 0.0, 5.0)[:, None] + np.random.default_rng(0).normal(0, 0.5, (count, 3))
    table = anndata.AnnData(x.astype(np.float32), obs=obs)
    if places_mm is not None:
        table.obsm["section_mm"] = places_mm
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


LAYERED = LabelTable(labels=(Label(id=2, name="left"), Label(id=5, name="right")))


def label_image(folder: Path, pixels: np.ndarray, size_um: float) -> StoredImage:
    """Labels as the store holds them."""
    journal = Staging(folder).open()
    pyramid = Pyramid(pixels.shape, pixels.dtype, size_um, "mode", levels=1)
    write_pyramid(journal, pyramid, lambda y, x, h, w: pixels[y : y + h, x : x + w], name="labels")
    return StoredImage.open(journal.path)


def test_borders_of_embeddings_are_held_against_those_of_labels(tmp_path: Path) -> None:
    """Labels meet half-way along the line, where the embeddings change."""
    pixels = np.full((40, 310), 2, dtype=np.uint8)
    pixels[:, 150:], pixels[:, 300:] = 5, 0
    labels = label_image(tmp_path / "labels", pixels, 100.0)
    folder, along = tmp_path / "points", np.arange(60) * 0.5
    places = np.stack([np.full(60, 2.0), along], axis=1)  # mm from the corner of the section
    points_in(folder, places, line=0, along_mm=along)
    step, kept = BordersStep.of("points", BorderSettings(near_mm=1.0)), Kept()
    inputs = {step.points: folder, step.labels: labels, step.table: LAYERED}
    facts = step.write(inputs, kept)  # type: ignore[arg-type]
    assert facts["near_mm"] == 1.0
    assert {key: facts["against"][key] for key in ("known", "hit", "found", "false")} == {
        "known": 1, "hit": 1, "found": 1, "false": 0,
    }  # fmt: skip
    assert 0 < facts["against"]["hit_by_chance"] < 0.2
    found = pd.read_csv(io.BytesIO(kept.files[BORDERS_FILE]), keep_default_na=False)
    assert found["area"].tolist() == ["left"] * 30 + ["right"] * 30


def test_places_beyond_the_labels_have_no_area(tmp_path: Path) -> None:
    labels = label_image(tmp_path, np.array([[2, 5], [0, 9]], dtype=np.uint8), 10.0)
    places = np.array([[0.0, 0.0], [0.0, 10.0], [10.0, 0.0], [10.0, 10.0], [-20.0, 0.0], [0.0, 30.0]])
    assert areas_at(labels, LAYERED, places).tolist() == ["left", "right", "", "", "", ""]
    assert areas_at(labels, None, places).tolist() == [""] * 6
    assert areas_at(labels, LAYERED, np.empty((0, 2))).tolist() == []


def test_labels_are_read_some_rows_at_a_time_and_only_where_points_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.full((90, 3), 2, dtype=np.uint8)
    pixels[40:] = 5
    labels, read = label_image(tmp_path, pixels, 10.0), list[int]()
    whole = Level.pixels

    def watched(level: Level, y: slice, x: slice = slice(None)) -> np.ndarray:
        found = whole(level, y, x)
        read.append(len(found))
        return found

    monkeypatch.setattr(columns_module, "BAND_ROWS", 8)
    monkeypatch.setattr(Level, "pixels", watched)
    assert areas_at(labels, LAYERED, np.array([[395.0, 0.0], [0.0, 0.0], [404.0, 20.0]])).tolist() == [
        "right", "left", "right",
    ]  # fmt: skip
    assert max(read) <= 9
    assert sum(read) < 90


def test_profiles_find_the_border_between_two_ways_of_layering(tmp_path: Path) -> None:
    """A slab whose dark layer lies higher on the left than on the right, under noise."""
    rng, height, width, size_um = np.random.default_rng(0), 60, 400, 50.0
    classes = np.zeros((height, width), dtype=np.uint8)
    classes[10:50], classes[50:58] = 1, 2
    depth, reason = DepthMap.measure(classes, Grid.at_corner(classes.shape, size_um, (-25.0, -25.0)), BLOCK_DEPTH)
    assert not reason
    rows = (np.arange(height) - 10) / 40
    kinds = [1 - 0.6 * np.exp(-(((rows - at) / 0.12) ** 2)) for at in (0.35, 0.6)]
    stain = np.where(np.arange(width) < 220, kinds[0][:, None], kinds[1][:, None])
    pixels = np.where(classes > 0, 180 * stain + rng.normal(0, 8, stain.shape), 240).clip(0, 255).astype(np.uint8)
    journal = Staging(tmp_path / "scan").open()
    write_pyramid(
        journal, Pyramid(pixels.shape, pixels.dtype, size_um, "mean", levels=1),
        lambda y, x, h, w: pixels[y : y + h, x : x + w], name="scan",
    )  # fmt: skip
    labelled = np.where(classes == 1, np.where(np.arange(width) < 220, 2, 5)[None], 0).astype(np.uint8)
    labels = label_image(tmp_path / "labels", labelled, size_um)
    step, kept = ProfileBordersStep.of("laplace", ProfileBorderSettings(spacing_um=100.0)), Kept()
    given = {
        step.depth: depth, step.section: StoredImage.open(journal.path), step.labels: labels, step.table: LAYERED,
        step.tissue: TissueMask(classes > 0, depth.grid, classes), step.placed: {"region_px": None},
    }  # fmt: skip
    facts = step.write(Named(given), kept)  # type: ignore[arg-type]
    assert (facts["against"]["known"], facts["against"]["hit"]) == (1, 1)
    assert facts["against"]["false"] == 0
    found = pd.read_csv(io.BytesIO(kept.files[BORDERS_FILE]), keep_default_na=False)
    borders = found[found["border"].astype(str) == "True"]["x_px"]
    assert (borders - 219.5).abs().min() < 8
    assert len(found) > 180


class Named(dict):  # type: ignore[type-arg]
    """Inputs of a section."""

    name = "s1"


def test_points_that_lie_on_no_line_cost_the_section_and_say_what_is_needed(tmp_path: Path) -> None:
    step = BordersStep.of("points", BorderSettings())
    with pytest.raises(SectionError, match="no column line, along_mm; embed the points that trace-cortex writes"):
        step.write({step.points: points_in(tmp_path / "points")}, Kept())  # type: ignore[arg-type]
