"""What an encoder sees beside the tissue."""

from pathlib import Path

import numpy as np
import pytest
from known_sections import MeanEncoder, stored_section

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.embeddings import EmbedSettings, SectionReader, embedding_name
from cytoarch.embeddings.background import AT_ONCE_PX, REACH_UM, Background
from cytoarch.geometry import Grid

SIZE_UM, MASK_UM = 4.0, 32.0
FILLED = EmbedSettings(background="filled")
PX = int(MASK_UM / SIZE_UM)
"""Pixels along a cell of the mask."""


def mask_of(cells: np.ndarray) -> TissueMask:
    return TissueMask(cells, Grid.at_corner(cells.shape, MASK_UM, (-SIZE_UM / 2, -SIZE_UM / 2)))


def readers(folder: Path, cells: np.ndarray, seed: int = 0) -> tuple[SectionReader, SectionReader]:
    """A noisy section of three channels read as scanned and filled; `cells` (y, x) are tissue or not."""
    pixels = np.random.default_rng(seed).integers(0, 200, (3, cells.shape[0] * PX, cells.shape[1] * PX), dtype=np.uint8)
    image = stored_section(
        folder, np.where(np.kron(cells, np.ones((PX, PX))) > 0, pixels, 250).astype(np.uint8), SIZE_UM
    )
    encoder, tissue = MeanEncoder(), mask_of(cells)
    scanned, filled = (
        SectionReader.open(image, encoder, settings, SIZE_UM, tissue) for settings in (EmbedSettings(), FILLED)
    )
    return scanned, filled


def test_tissue_is_mirrored_at_its_border_and_stays_as_it_is(tmp_path: Path):
    cells = np.zeros((6, 12), dtype=bool)
    cells[:, :7] = True
    scanned, filled = readers(tmp_path / "section", cells)
    before, after = (one.read(0, 0, 6 * PX, 12 * PX) for one in (scanned, filled))
    np.testing.assert_array_equal(after[..., : 7 * PX], before[..., : 7 * PX])
    for out in range(5):  # the cells beyond the border show those as far within
        seen, source = (slice((7 + out) * PX, (8 + out) * PX), slice((5 - out) * PX, (6 - out) * PX))
        np.testing.assert_array_equal(after[..., seen], before[..., source])
    assert after.max() < before.max()


def test_where_the_tissue_is_thinner_than_that_the_nearest_of_it_is_seen(tmp_path: Path):
    cells = np.zeros((5, 9), dtype=bool)
    cells[:, 4] = True
    scanned, filled = readers(tmp_path / "section", cells)
    before, after = (one.read(0, 0, 5 * PX, 9 * PX) for one in (scanned, filled))
    for column in range(9):
        np.testing.assert_array_equal(after[..., column * PX : (column + 1) * PX], before[..., 4 * PX : 5 * PX])


def test_a_pixel_does_not_depend_on_the_window_it_is_read_in(tmp_path: Path):
    cells = np.random.default_rng(3).random((8, 9)) > 0.6
    _, filled = readers(tmp_path / "section", cells)
    whole = filled.read(-20, -30, 8 * PX + 40, 9 * PX + 60)
    for y, x, height, width in [(-20, -30, 7, 90), (-3, 17, 40, 11), (30, 40, 54, 62), (11, 13, 1, 1)]:
        part = whole[:, y + 20 : y + 20 + height, x + 30 : x + 30 + width]
        np.testing.assert_array_equal(filled.read(y, x, height, width), part)


def test_far_out_all_has_the_mean_colour_of_the_tissue(tmp_path: Path):
    far = int(REACH_UM / MASK_UM) + 2
    cells = np.zeros((2, far + 4), dtype=bool)
    cells[:, :2] = True
    scanned, filled = readers(tmp_path / "section", cells)
    seen = filled.read(0, 0, 2 * PX, (far + 4) * PX)
    mean = scanned.read(0, 0, 2 * PX, 2 * PX).mean(axis=(1, 2))
    beyond = seen[..., (far + 2) * PX :]
    assert (np.ptp(beyond, axis=(1, 2)) == 0).all()
    np.testing.assert_allclose(beyond[:, 0, 0], mean, atol=0.1)


def test_what_is_read_for_a_large_window_is_bounded():
    edge = 3 * AT_ONCE_PX
    cells = np.random.default_rng(5).random((edge // PX, edge // PX)) > 0.9
    most = 0

    def read(_y: int, _x: int, height: int, width: int) -> np.ndarray:
        nonlocal most
        most = max(most, height, width)
        return np.zeros((1, height, width), dtype=np.float32)

    grid = Grid.at_corner((edge, edge), SIZE_UM, (-SIZE_UM / 2, -SIZE_UM / 2))
    background = Background.of(grid, mask_of(cells), read)
    assert background is not None
    filled = background.filled(np.ones((1, edge, edge), dtype=np.float32), read, 0, 0)
    assert (filled[0, ::PX, ::PX] == cells).all()
    assert 0 < most <= AT_ONCE_PX + 4 * REACH_UM / SIZE_UM < edge


@pytest.mark.parametrize("tissue", [False, True])
def test_nothing_is_filled_where_all_or_nothing_is_tissue(tmp_path: Path, tissue: bool):
    scanned, filled = readers(tmp_path / "section", np.full((3, 4), tissue))
    np.testing.assert_array_equal(filled.read(0, 0, 24, 32), scanned.read(0, 0, 24, 32))


def test_filled_embeddings_have_a_name_of_their_own_and_the_others_keep_theirs():
    encoder = MeanEncoder()
    plain, filled = (embedding_name(one, encoder, SIZE_UM) for one in (EmbedSettings(), FILLED))
    assert plain != filled
    assert plain == "texture-4um-" + plain[-8:]


def test_a_background_cannot_be_filled_without_a_mask(tmp_path: Path):
    image = stored_section(tmp_path / "section", np.zeros((1, 16, 16), dtype=np.uint8), SIZE_UM)
    with pytest.raises(TypeError, match="mask"):
        SectionReader.open(image, MeanEncoder(), FILLED, SIZE_UM)
