"""A spot at a known place of a section is found there in every product, whatever the sizes of their pixels are."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from known_sections import MeanEncoder, embedded, stored_section

from cytoarch.anatomy.tissue import TissueMask, TissueSettings, find_tissue, overview, write_tissue
from cytoarch.brains import LabelClass
from cytoarch.discovery.clusters import Clustering, write_clusters
from cytoarch.discovery.colours import ColourMap, write_colours
from cytoarch.embeddings import EmbedSettings, SectionEmbeddings
from cytoarch.images.layout import Pyramid
from cytoarch.images.pyramids import write_pyramid
from cytoarch.images.views import Level, StoredImage
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.probes import Probe
from cytoarch.learning.targets import targets_on_grid
from cytoarch.parcellation.inference import ParcellateSettings, write_probabilities
from cytoarch.parcellation.smoothing import write_parcellation
from cytoarch.parcellation.sparse import SparseProbabilities
from cytoarch.reporting.pictures import OUTLINE, colour_picture, label_values, outlined, picture_grid, stain_picture
from cytoarch.reporting.quality import sample_section
from cytoarch.store.staging import Staging

HEIGHT, WIDTH, PIXEL_UM = 901, 1203, 1.7
SPOT_UM, RADIUS_UM = np.array([684.1, 1094.3]), 340.0
"""Place from the centre of the first pixel, as NGFF counts, and size."""
WORKING_UM, TOKEN_UM, TISSUE_UM = 6.25, 25.0, 64.0
CLASSES = (LabelClass(name="ground", ids=(5,)), LabelClass(name="spot", ids=(7,)))


def spot() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.hypot(y * PIXEL_UM - SPOT_UM[0], x * PIXEL_UM - SPOT_UM[1]) < RADIUS_UM


def error(weights: np.ndarray, first_um: float, size_um: float) -> float:
    """How far the middle of what is bright in a plane (y, x) lies from the spot (um)."""
    places = np.argwhere(weights > 0) * size_um + first_um
    found = np.average(places, axis=0, weights=weights[weights > 0])
    return float(np.abs(found - SPOT_UM).max())


def planes(folder: Path) -> list[tuple[np.ndarray, float, float]]:
    """Every level of an image with its place and pixel size as its NGFF metadata state them, read without our code."""
    datasets = json.loads((folder / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]["datasets"]
    image = StoredImage.open(folder)
    found = []
    for dataset, level in zip(datasets, image.levels, strict=True):
        stated = {one["type"]: one[one["type"]] for one in dataset["coordinateTransformations"]}
        assert stated["scale"][-2] == stated["scale"][-1]
        assert stated["translation"][-2] == stated["translation"][-1]
        found.append((np.asarray(level.array), stated["translation"][-1], stated["scale"][-1]))
    return found


@dataclass(frozen=True)
class Made:
    """A section with a bright spot, and what is made of it."""

    folder: Path
    image: StoredImage
    tissue: TissueMask
    embeddings: SectionEmbeddings
    labels: Level


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("planted")
    image = stored_section(folder / "section", np.where(spot(), 250, 20).astype(np.uint8)[None], PIXEL_UM)
    grey, grid = overview(image, TISSUE_UM)
    tissue = Staging(folder / "tissue").open()
    write_tissue(tissue, grey, find_tissue(grey, grid.cell_um, TissueSettings(smallest_mm2=0.0)), grid)
    mask = TissueMask.open(tissue.path)
    embeddings, _ = embedded(folder / "embeddings", image, MeanEncoder(tile_px=32), WORKING_UM, tissue=mask)
    drawn = Staging(folder / "labels").open()
    values = np.where(spot(), 7, 0).astype(np.uint8)
    layout = Pyramid(values.shape, values.dtype, PIXEL_UM, "mode", levels=4)
    write_pyramid(drawn, layout, lambda y, x, h, w: values[y : y + h, x : x + w], name="labels")
    return Made(folder, image, mask, embeddings, StoredImage.open(drawn.path).levels[0])


def test_in_every_level_of_the_pyramid(made: Made) -> None:
    levels = planes(made.folder / "section" / "content")
    assert len(levels) == 4
    for pixels, first_um, size_um in levels:
        assert error(pixels[0].astype(float) - 20, first_um, size_um) < 0.1 * size_um


@pytest.mark.parametrize("size_um", [0.9, 1.7, 2.5, 6.25, 25.0, 64.0])
def test_in_a_view_of_any_pixel_size(made: Made, size_um: float) -> None:
    view = made.image.at(size_um)
    pixels = view.read(0, 0, view.height, view.width)[0]
    assert error(pixels - 20, -PIXEL_UM / 2 + size_um / 2, size_um) < max(0.1 * size_um, 0.2)


@pytest.mark.parametrize("size_um", [5.0, 25.0, 64.0, 90.0])
def test_in_the_overview_whether_it_is_interpolated_or_averaged(made: Made, size_um: float) -> None:
    finest = StoredImage(made.image.levels[:1], made.image.attributes)
    for image in (made.image, finest):
        grey, grid = overview(image, size_um)
        assert error(grey - 20, grid.origin_um[0], grid.cell_um) < 0.1 * size_um
        assert grid.origin_um == pytest.approx((size_um / 2 - PIXEL_UM / 2,) * 2)


def test_in_the_tissue_and_its_overview(made: Made) -> None:
    for name in (".", "labels/tissue"):
        for pixels, first_um, size_um in planes(made.folder / "tissue" / "content" / name):
            assert size_um == TISSUE_UM
            assert (
                error(pixels.astype(float) * (pixels > 128 if name == "." else 1), first_um, size_um) < 0.25 * size_um
            )


@pytest.mark.parametrize("cell_um", [1.7, 3.0, 25.0, 100.0])
def test_in_the_tissue_on_another_grid(made: Made, cell_um: float) -> None:
    mask = made.tissue.on_grid(made.image.grid.covered_by(cell_um))
    assert error(mask.astype(float), -PIXEL_UM / 2 + cell_um / 2, cell_um) < 0.25 * TISSUE_UM


def test_in_the_tokens_and_the_marks_of_those_computed(made: Made) -> None:
    for name in ("plain", "scaled"):
        ((pixels, first_um, size_um),) = planes(made.folder / "embeddings" / "content" / name)
        assert size_um == TOKEN_UM
        assert error(pixels[0].astype(float), first_um, size_um) < 0.1 * size_um
    ((marks, first_um, size_um),) = planes(made.folder / "embeddings" / "content" / "computed")
    places = np.argwhere(marks) * size_um + first_um
    assert (places.min(axis=0) < SPOT_UM - RADIUS_UM + 32).all()
    assert (places.max(axis=0) > SPOT_UM + RADIUS_UM - 32).all()
    assert 0 < marks.sum() < marks.size


@pytest.mark.parametrize("cell_um", [0.9, 1.7, 6.25, 25.0, 64.0])
def test_in_the_targets(made: Made, cell_um: float) -> None:
    targets = targets_on_grid(made.labels, CLASSES, made.image.grid.covered_by(cell_um))
    assert error((targets == 1).astype(float), -PIXEL_UM / 2 + cell_um / 2, cell_um) < max(0.25 * cell_um, 0.5)


def test_in_the_targets_of_tokens(made: Made) -> None:
    targets = targets_on_grid(made.labels, CLASSES, made.embeddings.layers[0].grid)
    assert targets.shape == made.embeddings.grid
    assert error((targets == 1).astype(float), -PIXEL_UM / 2 + TOKEN_UM / 2, TOKEN_UM) < 0.25 * TOKEN_UM


def head() -> Probe:
    """Tells what is bright from what is dark."""
    card = HeadCard(
        kind="probe",
        target="areas",
        classes=CLASSES,
        dims=(1, 1),
        cells_per_token=1,
        embedding=EmbedSettings(),
        encoder_digest="00" * 32,
        token_px=4,
        pixel_size_um=WORKING_UM,
    )
    return Probe(card, np.array([[0, 0], [20, 0]], dtype=np.float32), np.array([0, -10], dtype=np.float32))


@pytest.mark.parametrize("cached", [False, True])
def test_in_the_probabilities_and_in_label_maps_of_every_level(made: Made, tmp_path: Path, cached: bool) -> None:
    journal = Staging(tmp_path / "probabilities").open()
    source = made.embeddings if cached else None
    encoder = MeanEncoder(tile_px=32, halo_px=None)
    write_probabilities(journal, made.image, made.tissue, head(), encoder, source, ParcellateSettings(), batch_size=4)
    probabilities = SparseProbabilities.open(journal.path)
    for name in ("classes", "shares"):
        ((pixels, first_um, size_um),) = planes(journal.path / name)
        assert size_um == TOKEN_UM
    spot_share = probabilities.dense(0, 0, *pixels.shape[1:])[2]
    assert error(spot_share.astype(float), first_um, size_um) < 0.25 * size_um
    for level in range(4):
        drawn = Staging(tmp_path / f"map-{level}").open()
        write_parcellation(drawn, made.image, probabilities, CLASSES, 0.15, level, name="areas")
        labels, sure = planes(drawn.path / "labels" / "areas"), planes(drawn.path)
        for pixels, first_um, size_um in labels:
            assert error((pixels == 7).astype(float), first_um, size_um) < 0.25 * max(TOKEN_UM, size_um)
        for (values, *place), (confidence, *other) in zip(labels, sure, strict=True):
            assert (confidence.shape[1:], other) == (values.shape, place)
        np.testing.assert_array_equal(sure[0][0][0] == 255, labels[0][0] > 0)


def test_in_clusters_and_colours(made: Made, tmp_path: Path) -> None:
    clustering = Clustering(
        np.zeros(2, np.float32), np.ones(2, np.float32), np.array([[0, 0], [1, 2]], dtype=np.float32)
    )
    journal = Staging(tmp_path / "clusters").open()
    write_clusters(journal, made.embeddings, made.tissue, clustering)
    for pixels, first_um, size_um in planes(journal.path / "labels" / "clusters"):
        assert error((pixels == 2).astype(float), first_um, size_um) < 0.25 * size_um
    samples = made.embeddings.read(0, 0, *made.embeddings.grid).reshape(2, -1).T.astype(np.float16)
    journal = Staging(tmp_path / "colours").open()
    write_colours(journal, made.embeddings, made.tissue, ColourMap.fit([samples]))
    for pixels, first_um, size_um in planes(journal.path):
        assert error((pixels[0] > 128).astype(float), first_um, size_um) < 0.25 * size_um
    shown = colour_picture(StoredImage.open(journal.path), picture_grid(made.image, 500))
    size_um = WIDTH * PIXEL_UM / 500
    assert error((shown[..., 0] > 128).astype(float), -PIXEL_UM / 2 + size_um / 2, size_um) < 0.25 * TOKEN_UM


@pytest.mark.parametrize("longest_px", [37, 560, 2000])
def test_in_pictures(made: Made, longest_px: int) -> None:
    grid = picture_grid(made.image, longest_px)
    size_um = WIDTH * PIXEL_UM / longest_px
    first_um = -PIXEL_UM / 2 + size_um / 2
    assert grid.cell_um == pytest.approx(size_um)
    stain = stain_picture(made.image, longest_px)
    assert stain.shape[:2] == grid.shape
    assert error(stain[..., 0].astype(float), first_um, size_um) < max(0.1 * size_um, 0.2)
    values = label_values(StoredImage.open(made.folder / "labels" / "content"), grid)
    assert error((values == 7).astype(float), first_um, size_um) < 0.3 * max(size_um, 1.7)
    border = (outlined(np.zeros_like(stain), made.tissue, grid) == OUTLINE).all(axis=-1)
    middle = (np.argwhere(border).min(axis=0) + np.argwhere(border).max(axis=0)) / 2 * size_um + first_um
    assert np.abs(middle - SPOT_UM).max() < 0.5 * TISSUE_UM


def test_in_the_windows_that_quality_looks_at(made: Made) -> None:
    samples = sample_section(made.image, made.tissue)
    y0, x0, y1, x1 = samples.box_um  # from the corner of the section
    middle = np.array([y0 + y1, x0 + x1]) / 2 - PIXEL_UM / 2
    assert np.abs(middle - SPOT_UM).max() < 0.5 * TISSUE_UM
    in_tissue = samples.tissue_counts[0]
    assert in_tissue[250] > 0.8 * in_tissue.sum()
