"""What encoders made of weights share: precision, normalisation by channel, the grid of tokens, layers to read."""

import numpy as np
import pytest
import torch

from cytoarch.encoders.inference import arithmetic, channels_first, chosen_layers, four_even, normalised
from cytoarch.errors import ModelError


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_a_precision_is_the_type_products_are_computed_in(precision, dtype: torch.dtype):
    matrix = torch.eye(4)
    with arithmetic("cpu", precision):
        assert (matrix @ matrix).dtype == dtype
    assert (matrix @ matrix).dtype == torch.float32


def test_each_channel_has_its_own_mean_and_deviation():
    tiles = np.random.default_rng(0).random((2, 3, 8, 8), dtype=np.float32)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    found = normalised(tiles, mean, std, multiple_px=8, device="cpu").numpy()
    for channel in range(3):
        np.testing.assert_allclose(found[:, channel], (tiles[:, channel] - mean[channel]) / std[channel], rtol=1e-6)


def test_a_single_channel_is_normalised_as_each_of_three():
    tiles = np.random.default_rng(1).random((1, 1, 8, 8), dtype=np.float32)
    found = normalised(tiles, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0), multiple_px=8, device="cpu")
    expected = normalised(np.repeat(tiles, 3, axis=1), (0.1, 0.2, 0.3), (0.5, 0.25, 2.0), multiple_px=8, device="cpu")
    torch.testing.assert_close(found, expected)


def test_tokens_lie_row_by_row():
    tokens = torch.arange(2 * 9 * 5, dtype=torch.float32).view(2, 9, 5)
    grid = channels_first(tokens)
    assert grid.shape == (2, 5, 3, 3)
    assert grid.flags.c_contiguous
    for row in range(3):
        for column in range(3):
            np.testing.assert_array_equal(grid[:, :, row, column], tokens[:, 3 * row + column].numpy())


@pytest.mark.parametrize(("count", "blocks"), [(12, (3, 6, 9, 12)), (40, (10, 20, 30, 40)), (3, (1, 2, 3)), (1, (1,))])
def test_four_blocks_are_evenly_spaced_and_end_with_the_deepest(count: int, blocks: tuple[int, ...]):
    assert four_even(count) == blocks


def test_layers_are_sorted_and_those_of_the_default_where_none_is_asked_for():
    assert chosen_layers("m", (4, 1), 4, (2,)) == (1, 4)
    assert chosen_layers("m", (), 4, (2,)) == (2,)
    for asked in ((0,), (5,), (1, 1)):
        with pytest.raises(ModelError, match="blocks 1 to 4"):
            chosen_layers("m", asked, 4, (2,))
