"""What of an image the network sees at once: the blocks of a grid, or patches at random places."""

from dataclasses import dataclass

from rissole.denoiser.settings import Variant
from rissole.latent import blocks

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """All blocks of each image (paper, section 4.1); one block is the whole image.

    Attributes:
        row: of the table: blocks per side, rim, and whether the network is told coordinates.
    """

    row: Variant

    copies = 1  # of an image in a batch

    @property
    def blocks(self) -> int:
        """Blocks of an image."""
        return self.row.blocks**2

    @property
    def turns(self) -> list[list[int]]:
        """The blocks that are drawn together, turn by turn: all, unless one is told of others."""
        numbers = list(range(self.blocks))
        return [[number] for number in numbers] if self.row.previous else [numbers]

    def join(self, z_blocks: Tensor) -> Tensor:
        """Blocks (b, n, c, h, w) as the maps that they were cut from."""
        return blocks.join(z_blocks, self.row.blocks)

    def before(self, z_blocks: Tensor) -> Tensor:
        """The block before each of blocks (b, n, c, h, w); zero before the first."""
        return torch.cat([torch.zeros_like(z_blocks[:, :1]), z_blocks[:, :-1]], 1)

    def some(self, copies: slice) -> "Grid":
        """The same for some copies of the images."""
        return self

    def cut(self, z: Tensor) -> Tensor:
        """Blocks (b * n, c, h, w) of latents (b, c, H, W)."""
        return blocks.cut(z, self.row.blocks).flatten(0, 1)

    @property
    def looks_around(self) -> bool:
        """Whether a block is seen with anything else: what lies around it, or where it lies."""
        return bool(self.row.halo or self.row.coordinates)

    def cut_noisy(self, z_t: Tensor) -> Tensor:
        """Blocks of noisy latents as the stem sees them: with rim or coordinates."""
        if self.row.coordinates:
            z_t = with_coordinates(z_t)
        if not self.row.halo:
            return self.cut(z_t)
        return blocks.cut_with_halo(z_t, self.row.blocks, self.row.halo).flatten(0, 1)

    def spread(self, per_block: Tensor, z: Tensor) -> Tensor:
        """Numbers of blocks (b, n) as maps (b, 1, H, W) over latents z (b, c, H, W)."""
        maps = rearrange(per_block, "b (i j) -> b 1 i j", i=self.row.blocks)
        return F.interpolate(maps, size=z.shape[-2:], mode="nearest")


@dataclass(frozen=True)
class Patches:
    """Patches of one size, at a place of its own in each (Wang et al. 2023, arXiv 2304.12526).

    An image that is cut into `parts` per side gives so many patches, in copies of it.

    Attributes:
        row: of the table.
        parts: sides of a patch that make a side of the image.
        top, left: of each copy, as shares of where it can lie, float (b * parts).
    """

    row: Variant
    parts: int
    top: Tensor
    left: Tensor

    blocks = 1  # of a copy

    @property
    def copies(self) -> int:
        """Of an image in a batch."""
        return self.parts

    def some(self, copies: slice) -> "Patches":
        """The same for some copies of the images."""
        return Patches(self.row, self.parts, self.top[copies], self.left[copies])

    def cut(self, z: Tensor) -> Tensor:
        """The patch of each of latents (b, c, H, W): (b, c, h, w)."""
        b, _, height, width = z.shape
        h, w = height // self.parts, width // self.parts
        top, left = ((self.top * (height - h + 1)).long(), (self.left * (width - w + 1)).long())
        rows = top[:, None] + torch.arange(h, device=z.device)
        columns = left[:, None] + torch.arange(w, device=z.device)
        each = torch.arange(b, device=z.device)[:, None, None]
        return z.movedim(1, -1)[each, rows[:, :, None], columns[:, None]].movedim(-1, 1)

    def cut_noisy(self, z_t: Tensor) -> Tensor:
        """The patch of each of noisy latents as the stem sees it: with coordinates."""
        return self.cut(with_coordinates(z_t) if self.row.coordinates else z_t)

    def spread(self, per_block: Tensor, z: Tensor) -> Tensor:
        """Numbers of patches (b, 1) as maps (b, 1, 1, 1) over latents."""
        return per_block[:, :, None, None]


def drawn(row: Variant, images: int, device: torch.device) -> Grid | Patches:
    """What a row's network sees of a batch of images in a step of training.

    Where the row is trained on patches, their size and places are drawn from torch's global
    generator; one size serves the whole batch.
    """
    if not row.patches:
        return Grid(row)
    shares = torch.tensor([of.share for of in row.patches]).cumsum(0)
    parts = row.patches[min(int((torch.rand(()) > shares).sum()), len(shares) - 1)].parts
    if parts == 1:
        return Grid(row)
    places = torch.rand(2, images * parts, device=device)
    return Patches(row, parts, *places)


def with_coordinates(z_t: Tensor) -> Tensor:
    """Noisy latents (b, c, h, w) and where each pixel lies, x and y in -1..1: (b, c + 2, h, w)."""
    b, _, h, w = z_t.shape
    y, x = (torch.linspace(-1, 1, side, device=z_t.device) for side in (h, w))
    places = torch.stack([x.expand(h, w), y[:, None].expand(h, w)])
    return torch.cat([z_t, places.expand(b, -1, -1, -1).to(z_t.dtype)], 1)
