"""Pictures in the place of latents: what a row denoises that leaves the first stage out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rissole.core import memory
from rissole.dataset import images
from rissole.latent.latents import Latents

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Pixels:
    """The pictures of the images of one split, row for row those of `Latents`.

    Attributes:
        codes: levels uint8 (n, 3, h, w), in the place of codes.
        mean, std: float32 (3,), of the train pictures per channel, in the range -1..1.
        embeddings: as of `Latents`.
    """

    codes: Tensor
    mean: Tensor
    std: Tensor
    embeddings: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels and sides of a picture."""
        return tuple(self.codes.shape[1:])

    def decoder(self, normalise: bool) -> Callable[[Tensor], Tensor]:
        """What turns levels (..., 3, h, w) into floats, of zero mean and unit variance if asked."""
        mean, std = (self.mean, self.std) if normalise else (0 * self.mean, 0 * self.std + 1)
        scale, shift = 1 / (127.5 * std), (-1 - mean) / std

        def decode(levels: Tensor) -> Tensor:
            return levels * scale[:, None, None] + shift[:, None, None]

        return decode

    def limit(self, normalise: bool) -> float:
        """The largest absolute value that a float can take."""
        ends = torch.tensor([0, 255], device=self.mean.device).expand(3, 1, 2)
        return self.decoder(normalise)(ends).abs().max().item()

    def with_grey(self) -> "Pixels":
        """With one more row: the mean colour everywhere, and the mean embedding."""
        level = ((self.mean + 1) * 127.5).round().to(self.codes)
        grey = level[:, None, None].expand(1, *self.shape)
        mean = self.embeddings
        if mean is not None:
            mean = torch.cat([mean, mean.mean(0, keepdim=True)])
        return replace(self, codes=torch.cat([self.codes, grey]), embeddings=mean)

    def to(self, device: torch.device) -> "Pixels":
        """The same with all tensors on `device`, the levels only where they fit."""
        codes = self.codes
        if memory.fits(codes.numel(), device):
            codes = codes.to(device)
        embeddings = None if self.embeddings is None else self.embeddings.to(device)
        mean, std = self.mean.to(device), self.std.to(device)
        return Pixels(codes, mean, std, embeddings)


def read(folder: Path, split: str, of: Latents) -> Tensor:
    """The pictures of a split as levels uint8 (n, 3, h, w), in the order of its latents.

    Mirrored rows come mirrored.

    Args:
        folder: of the split.
        split: train | val.
        of: its latents.
    """
    known = images.read_split(folder, split)
    order = np.argsort(known.ids)
    place = order[np.searchsorted(known.ids, of.originals, sorter=order)]
    shape = (len(of), 3, *known.images.shape[1:3])
    levels = memory.array(shape, np.uint8, f"{split} pictures")
    mirrored = of.ids != of.originals
    for row, (at, turned) in enumerate(zip(place.tolist(), mirrored.tolist(), strict=True)):
        picture = known.images[at]
        levels[row] = (picture[:, ::-1] if turned else picture).transpose(2, 0, 1)
    return torch.from_numpy(levels)


def moments(levels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation per channel, float32 (c,), of levels uint8 (n, c, h, w) taken as -1..1."""
    total = torch.zeros(2, levels.shape[1], dtype=torch.float64)
    for part in levels.split(1024):
        x = part.double() / 127.5 - 1
        total += torch.stack([x.mean((2, 3)).sum(0), x.square().mean((2, 3)).sum(0)])
    mean, square = total / len(levels)
    std = (square - mean.square()).clamp_min(0).sqrt()
    std[std == 0] = 1
    return mean.float(), std.float()
