"""What a row of the table tells its denoiser: the only module that knows what a row means.

`Stem` is the network's side (paper, section 4.1.3): the noisy block and its corresponding
neighbour blocks pass through convolutions of their own, are added and normalised. `Conditioning`
is the data's side: it gathers, from codes, embeddings and neighbour ids in memory, what the stem is
told.
"""

from dataclasses import dataclass
from pathlib import Path

from rissole.denoiser import views
from rissole.denoiser.settings import LDM, Variant
from rissole.latent import embeddings, pixels
from rissole.latent.latents import Latents, take
from rissole.latent.pixels import Pixels

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


@dataclass(frozen=True)
class Told:
    """What is said of a batch of blocks, or None where the row does not say it.

    Attributes:
        neighbours: the corresponding blocks of the neighbours, (b, k, c, h, w).
        embeddings: an encoder's, of the neighbours as whole images, (b, k, d).
        previous: the clean block before each in reading order; zero for the first, (b, c, h, w).
        position: the number of each block in its latent, int64 (b).
    """

    neighbours: Tensor | None
    embeddings: Tensor | None
    previous: Tensor | None
    position: Tensor | None


@dataclass(frozen=True)
class Context:
    """What of it stays the same over all steps of sampling, computed once.

    Attributes:
        maps: what is added to the noisy block's map, (b, d, h, w), or None.
        tokens: what the U-Net attends to, (b, k, d), or None.
    """

    maps: Tensor | None
    tokens: Tensor | None


class Stem(nn.Module):
    """Noisy block and neighbour blocks, each through its own convolution, added and normalised.

    Args:
        row: how neighbours enter, and the width of the noisy rim.
        ldm: section `ldm`.
        channels: of a latent.
        k: neighbours.
        embedded: width of an embedding, where the row is told those of its neighbours.
    """

    def __init__(self, row: Variant, ldm: LDM, channels: int, k: int, embedded: int):
        super().__init__()
        width = ldm.widths[0] // 2
        # A rim of r pixels is what a kernel of 2 r + 1 sees; without one, 3 x 3 and zeros.
        kernel, padding = (2 * row.halo + 1, 0) if row.halo else (3, 1)
        seen = channels + (2 if row.coordinates else 0)
        self.noisy = nn.Conv2d(seen, width, kernel, padding=padding)
        self.token_width = ldm.heads * ldm.head_width if row.neighbours == "tokens" else 0
        stacked = (k if row.neighbours == "stack" else 0) + row.previous
        self.stack = nn.Conv2d(stacked * channels, width, 3, padding=1) if stacked else None
        self.set = _Pool(channels, width) if row.neighbours == "set" else None
        if self.token_width:
            self.token = nn.Linear(embedded, self.token_width)

    def context(self, told: Told) -> Context:
        """Embed what does not change while a block is denoised."""
        tokens = self.token(told.embeddings) if self.token_width else None
        if self.set is not None:
            return Context(self.set(told.neighbours), tokens)
        if self.stack is None:
            return Context(None, tokens)
        maps = [] if told.neighbours is None else [told.neighbours.flatten(1, 2)]
        maps += [] if told.previous is None else [told.previous]
        stacked = torch.cat(maps, 1).contiguous(memory_format=torch.channels_last)
        return Context(self.stack(stacked), tokens)

    def forward(self, z_t: Tensor, context: Context) -> Tensor:
        """Map noisy blocks (b, c, h, w), their rim included, to (b, d, h', w') without it."""
        u = self.noisy(z_t.contiguous(memory_format=torch.channels_last))
        u = u if context.maps is None else u + context.maps
        # The released code rebuilds this norm in each call: its scale and shift are never trained.
        return F.group_norm(u, 1)


class _Pool(nn.Module):
    def __init__(self, channels: int, width: int):
        super().__init__()
        self.each = nn.Conv2d(channels, width, 3, padding=1)
        self.mixed = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, neighbours: Tensor) -> Tensor:
        b = len(neighbours)
        each = F.silu(self.each(neighbours.flatten(0, 1)))
        return self.mixed(rearrange(each, "(b k) c h w -> b k c h w", b=b).mean(1))


def database(row: Variant, train: Latents, table: Path, split: Path) -> Latents | Pixels:
    """The train images as a row is told of them.

    Args:
        row: of the table.
        train: their latents.
        table: folder of its neighbour table, if it retrieves.
        split: folder of the pictures.
    """
    if row.neighbours == "tokens":
        train = embeddings.told(train, table)
    if row.space == "latent":
        return train
    levels = pixels.read(split, "train", train)
    return Pixels(levels, *pixels.moments(levels), train.embeddings)


def codes(row: Variant, split: str, of: Latents, pictures: Path) -> Tensor:
    """What a row denoises of a split: codes, or levels of pictures.

    Args:
        row: of the table.
        split: train | val.
        of: its latents.
        pictures: folder of those of all splits.
    """
    return of.codes if row.space == "latent" else pixels.read(pictures, split, of)


class Conditioning:
    """Gathers latents and what is told of their blocks, all in memory and by index.

    What is said here of latents goes for pictures where the row denoises these.

    Args:
        row: the row of the table, its number of blocks filled in.
        train: the train images, which are the retrieval database, as `database` gives them.
        normalise: whether latents have zero mean and unit variance per channel.

    Attributes:
        latents: turns codes (..., h, w) into latents (..., c, h, w).
        limit: the largest absolute value that a latent can take.
        database: the codes of the train images.
        shape: (c, h, w) of a latent.
        device: of all of it.
        grid: cuts latents into blocks.
    """

    def __init__(self, row: Variant, train: Latents | Pixels, normalise: bool):
        self.row, self.grid = row, views.Grid(row)
        self.latents, self.limit = train.decoder(normalise), train.limit(normalise)
        self.database, self.shape, self.device = train.codes, train.shape, train.mean.device
        self.mean, self.std = (train.mean, train.std) if normalise else (0, 1)
        self.embeddings = None if train.embeddings is None else _standard(train.embeddings)

    @property
    def embedded(self) -> int:
        """The width of the embeddings that it tells; 0 for none."""
        return 0 if self.embeddings is None else self.embeddings.shape[1]

    def noise(self, images: int) -> Tensor:
        """Noise for some images' latents, (b, c, H, W), in memory as these are."""
        c, h, w = self.shape
        return torch.randn(images, h, w, c, device=self.device).movedim(-1, 1)

    def raw(self, z: Tensor) -> Tensor:
        """Latents (..., c, h, w) as the first stage knows them."""
        return (z.movedim(-3, -1) * self.std + self.mean).movedim(-1, -3)

    def told(self, neighbours: Tensor | None, z: Tensor | None, images: int) -> Told:
        """What is said of all blocks of a batch of images, image by image, block by block.

        Args:
            neighbours: rows of the neighbours in the database, (b, k), where the row retrieves.
            z: clean latents, (b, c, H, W), where a block is told of the one before it.
            images: b.
        """
        told_neighbours = told_embeddings = previous = position = None
        if self.row.neighbours == "tokens":
            of_image = take(self.embeddings, neighbours)
            told_embeddings = of_image.repeat_interleave(self.grid.blocks, 0)
        elif self.row.neighbours != "none":
            near = self.latents(take(self.database, neighbours))
            each = self.grid.cut(near.flatten(0, 1))
            told_neighbours = rearrange(
                each, "(b k n) c h w -> (b n) k c h w", b=images, n=self.grid.blocks
            )
        if self.row.previous:
            z_blocks = self.grid.cut(z).unflatten(0, (images, -1))
            previous = self.grid.before(z_blocks).flatten(0, 1)
        if self.row.position:
            position = torch.arange(self.grid.blocks, device=self.device).repeat(images)
        return Told(told_neighbours, told_embeddings, previous, position)


def _standard(embeddings: Tensor) -> Tensor:
    """Embeddings with zero mean and unit variance in each dimension: most differ little else."""
    return (embeddings - embeddings.mean(0)) / embeddings.std(0).clamp_min(1e-6)
