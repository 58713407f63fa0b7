"""The picture of a surface: what it hides, how it is lit, and that large meshes are drawn coarser."""

import io

import numpy as np
import trimesh
from PIL import Image

from cytoarch.anatomy.surfaces import Mesh
from cytoarch.reporting.surface import coarser, surface_picture


def ball(subdivisions: int, radius_mm: float = 10.0) -> Mesh:
    made = trimesh.creation.icosphere(subdivisions, radius_mm)
    return Mesh.of(made.vertices, made.faces)


def test_a_ball_is_drawn_four_times_as_a_disc_that_darkens_towards_its_rim() -> None:
    image = np.asarray(Image.open(io.BytesIO(surface_picture(ball(4), "ball"))).convert("RGB")).astype(int)
    tinted = image[..., 0] - image[..., 2] > 15  # nothing else in the picture has a colour
    half_y, half_x = image.shape[0] // 2, image.shape[1] // 2
    shares = [
        tinted[y][:, x].mean()
        for y in (slice(half_y), slice(half_y, None))
        for x in (slice(half_x), slice(half_x, None))
    ]
    assert np.ptp(shares) < 0.02
    assert min(shares) > 0.2
    rows, columns = np.nonzero(tinted[:half_y, :half_x])
    middle = image[int(rows.mean()), int(columns.mean())]
    rim = image[int(rows.mean()), columns.min() + 2]
    assert middle.sum() > 1.8 * rim.sum()


def test_a_large_mesh_is_drawn_coarser_and_keeps_its_size() -> None:
    fine = ball(5)
    rough = coarser(fine, 2_000)
    assert 500 < len(rough.triangles) <= 2_000
    assert abs(rough.area_mm2 / fine.area_mm2 - 1) < 0.1
    assert coarser(rough, 2_000) is rough
