"""What the report finds on the maps of the small brain, counted again from the store."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cytoarch.discovery.known import BORDER
from cytoarch.steps.cluster_checks import ClusterChecksStep
from cytoarch.steps.exports import AreasStep
from cytoarch.steps.layouts import LayoutStep
from cytoarch.steps.parcellations import ParcellationStep
from cytoarch.steps.pictures import PICTURES_NAME, PicturesStep
from cytoarch.steps.report_findings import _first_looks, _unsure_sections
from cytoarch.steps.retrieval import RetrievalStep
from cytoarch.steps.step import Place, Stored
from tests.cytoarch.steps.small_brain import IDS, SIZE_UM, SmallBrain, Steps
from tests.cytoarch.steps.test_report_content import brain_of

pytestmark = pytest.mark.xdist_group("steps")


def opened_image(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def test_sizes_of_areas_are_the_pixels_of_the_map(mapped: SmallBrain) -> None:
    with mapped.opened() as opened:
        (name,) = opened.catalogue.names(ParcellationStep.step)
        for section in opened.sections:
            place = Place(opened, section)
            drawn = Stored(ParcellationStep, name).open(place).labels.levels[0]
            facts = AreasStep.of(name).stored.record(place).facts
            values, counts = np.unique(drawn.pixels(), return_counts=True)
            expected = {str(v): int(n) for v, n in zip(values, counts, strict=True) if v}
            assert facts["cells"] == expected
        total = sum(facts["cells"].values()) * (facts["cell_um"] / 1000) ** 2
        assert total == pytest.approx(80 * 112 * (SIZE_UM / 1000) ** 2, rel=0.15)
        page = (opened.catalogue.folder / "report" / "index.html").read_text()
    assert "How large the areas are on the map" in page


def test_layers_of_the_viewer_lie_where_the_scan_does_and_show_only_tissue(mapped: SmallBrain) -> None:
    with mapped.opened() as opened:
        place = Place(opened, opened.sections[0])
        stored = Stored(PicturesStep, PICTURES_NAME)
        folder, layers = stored.open(place), stored.record(place).facts["layers"]
        assert set(layers) == {"scan", "labels", "pca", "map", "unsmoothed", "confidence", "clusters"}
        images = {kind: opened_image(folder / file) for kind, file in layers.items()}
        assert {one.shape[:2] for one in images.values()} == {images["scan"].shape[:2]}
        alpha = images["map"][..., 3]
        assert set(np.unique(alpha)) == {0, 255}
        assert (alpha > 0).mean() == pytest.approx(80 * 112 / (96 * 128), abs=0.12)
        viewer = (opened.catalogue.folder / "report" / "viewer.html").read_text()
    assert all(f'"id":"{one}"' in viewer for one in IDS)


def test_clusters_follow_the_planted_halves_and_the_checks_say_so(mapped: SmallBrain) -> None:
    with mapped.opened() as opened:
        steps = Steps(mapped, opened)
        stored = Stored(ClusterChecksStep, steps.cluster_fit.name)
        facts, whole = stored.record(Place(opened)).facts, stored.open(Place(opened))
    followed = facts["followed"]
    assert set(followed) == {"labels", "sections", BORDER}
    assert followed["labels"]["excess"] > followed["sections"]["excess"] + 0.3
    assert "similarity" not in facts
    alike = np.array(whole["similarity"]["values"])
    assert whole["similarity"]["areas"] == ["cortex", "white matter"]
    assert alike[0, 0] > alike[0, 1]
    json.dumps(facts)


def test_the_page_shows_the_layout_and_what_is_most_like_what(mapped: SmallBrain) -> None:
    with mapped.opened() as opened:
        steps = Steps(mapped, opened)
        near = Stored(RetrievalStep, steps.cluster_fit.name)
        shared = near.record(Place(opened)).facts["shared"]
        report = opened.catalogue.folder / "report" / "index.html"
        page = report.read_text()
        pictures = [near.open(Place(opened)), Stored(LayoutStep, steps.cluster_fit.name).open(Place(opened))]
        for one in pictures:
            assert f'src="{os.path.relpath(one, report.parent)}"' in page
    assert shared["labels"]["excess"] > 0.5
    assert abs(shared["sections"]["excess"]) < 0.3
    assert "nearest neighbours share" in page


def test_sections_that_stand_out_are_looked_at_first() -> None:
    brain = brain_of(*({} for _ in range(8)))
    drawn = {
        f"s{one}": {"remarks": "", "margins": {"pixels": [10], "sums": [2.0 if one == 3 else 6.0 + one / 10]}}
        for one in range(8)
    }
    drawn["s5"]["remarks"] = "bubbles"
    unsure = _unsure_sections(drawn)
    assert unsure[0].name == "s3"
    looks = _first_looks(brain, drawn, {"s7": "unreadable"}, unsure)
    assert list(looks) == ["s7", "s5", "s3"]
    assert looks["s3"].startswith("the map is less sure here: ahead by 0.20")
