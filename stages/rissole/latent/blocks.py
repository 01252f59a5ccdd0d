"""A latent as a grid of blocks: cut and joined, alone or with a rim of what lies around them."""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def cut(z: Tensor, blocks: int) -> Tensor:
    """Cut latents into equal blocks, in reading order (paper, section 4.1).

    Args:
        z: latents (..., c, H, W).
        blocks: blocks per side; divides H and W.

    Returns:
        The blocks (..., n, c, h, w) with n = blocks * blocks.
    """
    return rearrange(z, "... c (i h) (j w) -> ... (i j) c h w", i=blocks, j=blocks)


def join(z_blocks: Tensor, blocks: int) -> Tensor:
    """Put blocks (..., n, c, h, w) together again: latents (..., c, H, W)."""
    return rearrange(z_blocks, "... (i j) c h w -> ... c (i h) (j w)", i=blocks, j=blocks)


def cut_with_halo(z: Tensor, blocks: int, halo: int) -> Tensor:
    """Cut latents into blocks, each with a rim of its surroundings, zero outside the latent.

    Args:
        z: latents (b, c, H, W).
        blocks: blocks per side; divides H and W.
        halo: width of the rim.

    Returns:
        The blocks (b, n, c, h + 2 halo, w + 2 halo), in reading order.
    """
    h, w = z.shape[-2] // blocks, z.shape[-1] // blocks
    windows = F.pad(z, (halo,) * 4).unfold(2, h + 2 * halo, h).unfold(3, w + 2 * halo, w)
    return rearrange(windows, "b c i j h w -> b (i j) c h w")
