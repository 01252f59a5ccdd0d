"""A latent as a grid of blocks."""

from rissole.latent import blocks as grid

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

torch.set_num_threads(1)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2))
def test_join_undoes_cut(blocks, h, w, leading):
    z = torch.randn(*[2] * leading, 3, blocks * h, blocks * w)
    assert torch.equal(grid.join(grid.cut(z, blocks), blocks), z)


def test_blocks_come_in_reading_order():
    z = torch.arange(36).reshape(1, 1, 6, 6)
    z_blocks = grid.cut(z, 3)
    assert z_blocks.shape == (1, 9, 1, 2, 2)
    assert z_blocks[0, 1, 0].tolist() == [[2, 3], [8, 9]]
    assert z_blocks[0, 3, 0].tolist() == [[12, 13], [18, 19]]


def test_a_grid_that_does_not_divide_the_latent_is_an_error():
    with pytest.raises(Exception, match="divide"):
        grid.cut(torch.zeros(1, 1, 5, 5), 2)


@pytest.mark.parametrize("blocks", [1, 2, 4])
@pytest.mark.parametrize("halo", [0, 1, 2])
def test_a_block_with_its_halo_is_the_padded_latents_window(blocks, halo):
    z = torch.randn(2, 3, 8, 8)
    padded, side = F.pad(z, (halo,) * 4), 8 // blocks
    found = grid.cut_with_halo(z, blocks, halo)
    for n in range(blocks * blocks):
        y, x = (side * place for place in divmod(n, blocks))
        window = padded[:, :, y : y + side + 2 * halo, x : x + side + 2 * halo]
        assert torch.equal(found[:, n], window)
