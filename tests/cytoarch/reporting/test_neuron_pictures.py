"""Projections of volumes: a place in um is drawn where its voxel is."""

import numpy as np
import pytest

from cytoarch.images.volumes import StoredVolume, VoxelGrid
from cytoarch.neurons.patches import Scale
from cytoarch.neurons.trees import Triple
from cytoarch.reporting.neurons import projections


@pytest.mark.parametrize("edges", [(1.0, 1.0, 1.0), (3.0, 0.5, 0.5)])
def test_a_place_lies_in_the_middle_of_its_voxel(edges: Triple) -> None:
    pixels = np.zeros((8, 20, 30), dtype=np.uint8)
    voxel = np.array([5, 13, 4])
    pixels[tuple(voxel)] = 200
    for seen in projections(StoredVolume(pixels, VoxelGrid(pixels.shape, edges)), Scale(0.0, 200.0)):
        light = seen.picture[..., 0].astype(np.float64)
        rows, columns = np.indices(light.shape)
        middle = [float((light * along).sum() / light.sum()) for along in (columns, rows)]
        (place,) = seen.places((voxel * np.array(edges))[None])
        assert place.tolist() == pytest.approx(middle, abs=1.0)
