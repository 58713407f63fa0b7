"""A real series: neighbouring sections of a mouse brain overlap better once they are aligned; no flip is invented."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import tifffile

from cytoarch.anatomy.reconstruction import Overview, ReconstructionSettings, Rigid, Stated, reconstruct
from cytoarch.anatomy.reconstruction.likeness import likeness
from cytoarch.anatomy.reconstruction.links import overlap
from cytoarch.anatomy.tissue import TissueSettings, find_tissue
from cytoarch.geometry import Grid

PIXEL_UM, BINNED = 20.0, 3
CELL_UM = PIXEL_UM * BINNED


def overview_of(path: Path) -> Overview:
    planes = tifffile.imread(path).astype(np.float32)
    height, width = (edge // BINNED for edge in planes.shape[1:])
    cut = planes[:, : height * BINNED, : width * BINNED]
    means = cut.reshape(len(planes), height, BINNED, width, BINNED).mean(axis=(2, 4))
    tissue = find_tissue(means, CELL_UM, TissueSettings())
    grid = Grid.at_corner((height, width), CELL_UM, (0.0, 0.0))
    return Overview(means.mean(axis=0), tissue.mask, grid, tissue.polarity, len(planes))


def test_neighbours_of_the_mouse_series_overlap_better_and_none_is_flipped(real_data: Path) -> None:
    paths = [real_data / "mouse_dapi_series" / "images" / f"Section-{number:02d}.tif" for number in range(12, 18)]
    overviews = {path.stem: overview_of(path) for path in paths}
    stated = [Stated(name, number) for number, name in enumerate(overviews)]
    brain = reconstruct("mouse", stated, overviews, ReconstructionSettings(reach=1))
    pictures = {name: likeness(name, one, CELL_UM) for name, one in overviews.items()}
    before, after = [], []
    for one, other in pairwise(overviews):
        here, there = pictures[one], pictures[other]
        assert here is not None
        assert there is not None
        before.append(overlap(here, there, Rigid.identity())[0])
        after.append(overlap(here, there, brain[one].rigid.then(brain[other].rigid.inverse()))[0])
    assert np.median(after) > np.median(before) + 0.005
    assert not brain.flagged
    assert not any(one.flipped for one in brain)
