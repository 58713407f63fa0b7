"""What a person drew replaces what is found, from any file that can hold it, and is never made again by itself."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.brains import Brain, Section
from cytoarch.containment import Contained
from cytoarch.steps import sections
from cytoarch.steps.opened import open_brain
from cytoarch.steps.running import make_section
from cytoarch.steps.sections import ManifestFile, SectionStep
from cytoarch.steps.step import Place
from cytoarch.steps.tissue import TISSUE, DrawnTissueStep, TissueStep
from cytoarch.store.brain_store import BrainStore

H, W = 256, 320
SCAN_UM = 16.0
GREY, WHITE = 1, 2


@pytest.fixture(scope="module")
def children() -> Iterator[None]:
    own = Contained()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "containment", lambda: own)
        yield
    own.close()


@pytest.fixture
def scans(tmp_path: Path, children: None) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    y, x = np.ogrid[-1 : 1 : H * 1j, -1 : 1 : W * 1j]
    noise = np.random.default_rng(0).integers(0, 6, (H, W))
    tifffile.imwrite(folder / "a.tif", (220 - 110 * (y * y + x * x < 0.6) + noise).astype(np.uint8))
    return folder


def drawing() -> NDArray[np.uint8]:
    """Grey and white in places that no stain shows."""
    drawn = np.zeros((H, W), np.uint8)
    drawn[64:192, 32:160] = GREY
    drawn[96:160, 64:128] = WHITE
    return drawn


class Made:
    """A section with the tissue that the manifest names for it."""

    def __init__(self, scans: Path, tissue_path: str | None, **row: Any) -> None:
        stated = {"brain_id": "B", "section_id": "s", "section_number": 1, "path": "a.tif", "pixel_size_um": SCAN_UM}
        self.brain = Brain(brain_id="B", sections=(Section(**{**stated, **row}, tissue_path=tissue_path),))
        self.store = scans.parent / "store"
        steps = (
            SectionStep(ManifestFile(scans, "path")),
            DrawnTissueStep(ManifestFile(scans, "tissue_path")),
            TissueStep(),
        )
        with open_brain(self.store, self.brain) as opened:
            self.outcome = make_section(steps, opened, opened.rows["s"])

    @property
    def tissue(self) -> TissueMask:
        with open_brain(self.store, self.brain) as opened:
            return TISSUE.open(Place(opened, opened.rows["s"]))

    @property
    def origin(self) -> str:
        record = BrainStore(self.store).catalogue("B").record(TISSUE.product("s"))
        assert record is not None
        return str(record.facts["origin"])


def test_a_label_image_gives_the_classes_as_drawn(scans: Path) -> None:
    Image.fromarray(drawing()).save(scans / "drawn.png")
    made = Made(scans, "drawn.png")
    assert made.outcome.status == "made", made.outcome.reason
    assert made.origin == "person"
    np.testing.assert_array_equal(made.tissue.classes, drawing()[2::4, 2::4])


def test_a_mask_of_any_value_is_tissue_in_which_grey_and_white_are_found(scans: Path) -> None:
    tifffile.imwrite(scans / "mask.tif", (drawing() > 0).astype(np.uint8) * np.uint8(255))
    made = Made(scans, "mask.tif")
    assert made.outcome.status == "made", made.outcome.reason
    np.testing.assert_array_equal(made.tissue.mask, drawing()[2::4, 2::4] > 0)


def test_outlines_in_pixels_of_the_scan_are_what_they_enclose(scans: Path) -> None:
    outer = [[32, 64], [160, 64], [160, 192], [32, 192], [32, 64]]
    hole = [[64, 96], [128, 96], [128, 160], [64, 160], [64, 96]]
    white = {
        "type": "Feature",
        "properties": {"classification": {"name": "White matter"}},
        "geometry": {"type": "Polygon", "coordinates": [hole]},
    }
    grey = {"type": "Feature", "properties": None, "geometry": {"type": "MultiPolygon", "coordinates": [[outer, hole]]}}
    (scans / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [grey, white]}))
    made = Made(scans, "a.geojson")
    assert made.outcome.status == "made", made.outcome.reason
    np.testing.assert_array_equal(made.tissue.classes, drawing()[2::4, 2::4])
    (scans / "b.geojson").write_text(json.dumps(grey["geometry"]))
    with_hole = Made(scans, "b.geojson").tissue
    np.testing.assert_array_equal(with_hole.mask, drawing()[2::4, 2::4] == GREY)


def test_a_part_of_a_slide_takes_its_part_of_the_drawing(scans: Path) -> None:
    Image.fromarray(drawing()).save(scans / "drawn.png")
    made = Made(scans, "drawn.png", region_px=(32, 224, 16, 208))
    assert made.outcome.status == "made", made.outcome.reason
    np.testing.assert_array_equal(made.tissue.classes, drawing()[32:224, 16:208][2::4, 2::4])


def test_without_a_drawing_tissue_is_found_again(scans: Path) -> None:
    Image.fromarray(drawing()).save(scans / "drawn.png")
    drawn = Made(scans, "drawn.png")
    assert (drawn.outcome.status, drawn.origin) == ("made", "person")
    assert Made(scans, "drawn.png").outcome.status == "current"
    found = Made(scans, None)
    assert (found.outcome.status, found.origin) == ("made", "found")
    assert found.tissue.mask[32, 40]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.png", None, "no such file"),
        ("empty.png", np.zeros((H, W), np.uint8), "nothing is drawn"),
        ("small.png", np.ones((9, 9), np.uint8), "draw it on the scan"),
        ("many.png", np.arange(H * W, dtype=np.uint8).reshape(H, W), "a mask of 0 and one other value"),
        ("text.geojson", "hello", "is no GeoJSON"),
        ("line.geojson", '{"type": "LineString", "coordinates": [[0, 0], [1, 1]]}', "Polygon or MultiPolygon"),
        ("nan.geojson", '{"type": "Polygon", "coordinates": [[[0, 0], [NaN, 1], [1, 2]]]}', "infinity"),
        ("deep.geojson", "[" * 100_000, "is no GeoJSON"),
    ],
)
def test_what_is_no_drawing_costs_its_section_and_says_why(scans: Path, name: str, content: Any, said: str) -> None:
    if isinstance(content, str):
        (scans / name).write_text(content)
    elif content is not None:
        Image.fromarray(content).save(scans / name)
    outcome = Made(scans, name).outcome
    assert outcome.status == "failed"
    assert said in outcome.reason
