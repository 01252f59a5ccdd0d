"""Quantisers: from any latent to the nearest of finitely many code vectors, with gradients.

Both have a `codebook` (K, C), `forward` for training and encoding, and `snap` for latents that
come from elsewhere. They compute in float32, whatever precision surrounds them.
"""

import math

from rissole.core import processes
from rissole.first_stage.settings import FSQ, VQ

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def build(settings: FSQ | VQ) -> nn.Module:
    """The quantiser that the settings describe."""
    if settings.kind == "fsq":
        return FSQ(settings.levels)
    return VectorQuantiser(**settings.model_dump(exclude={"kind"}))


class VectorQuantiser(nn.Module):
    """A learned codebook (van den Oord et al. 2017), kept alive on small batches.

    The codes start as vectors of the first batch, follow the moving average of the vectors they
    are nearest to, and are placed anew where they have fallen out of use.

    Args:
        codes: K, the number of codes.
        channels: C, the width of a code vector.
        decay: of the moving averages, per batch.
        commitment: weight of the squared distance that pulls the encoder to the codes.
        restart: a code is out of use when its batches count fewer vectors than this share of an
            even distribution's; 0 never restarts.
    """

    def __init__(self, codes: int, channels: int, decay: float, commitment: float, restart: float):
        super().__init__()
        self.decay, self.commitment, self.restart = decay, commitment, restart
        self.register_buffer("codebook", torch.randn(codes, channels))
        self.register_buffer("counts", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, channels))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise encoder outputs `z` (b, C, h, w); while training, move the codebook too.

        Returns:
            The code vectors (b, C, h, w), through which gradients pass as if they were `z`, the
            codes int64 (b, h, w), and the commitment loss.
        """
        z = z.float()
        if self.training and not self.counts.any():
            self._start(z.detach())
        codes = self.snap(z.detach())
        z_q = look_up(self.codebook, codes)
        if self.training:
            self._update(z.detach(), codes.flatten())
        return z + (z_q - z).detach(), codes, self.commitment * F.mse_loss(z, z_q.detach())

    def snap(self, z: Tensor) -> Tensor:
        """The codes (b, h, w) nearest to latents (b, C, h, w), by Euclidean distance."""
        with torch.autocast(z.device.type, enabled=False):
            vectors = rearrange(z.float(), "b c h w -> b h w c")
            scores = vectors @ self.codebook.T - self.codebook.square().sum(1) / 2
        return scores.argmax(-1)

    def _start(self, z: Tensor) -> None:
        vectors = _vectors(processes.joined(z))
        even = len(vectors) / len(self.codebook)
        self.codebook.copy_(_draw(vectors, len(self.codebook)))
        self.counts.fill_(even)
        self.sums.copy_(self.codebook * even)

    def _update(self, z: Tensor, codes: Tensor) -> None:
        counts = processes.sum_(torch.bincount(codes, minlength=len(self.codebook)).float())
        sums = torch.zeros_like(self.sums).index_add_(0, codes, _vectors(z))
        sums = processes.sum_(sums)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        used = counts > 0
        self.codebook[used] = self.sums[used] / self.counts[used, None]
        even = len(codes) * processes.count() / len(self.codebook)
        dead = self.counts < self.restart * even
        if dead.any():
            self.codebook[dead] = _draw(_vectors(processes.joined(z)), int(dead.sum()))
            self.counts[dead] = even
            self.sums[dead] = self.codebook[dead] * even


class FSQ(nn.Module):
    """Finite scalar quantisation (Mentzer et al. 2023, arXiv 2309.15505): a fixed grid of codes.

    Each channel is bounded and rounded to one of its levels; a channel of 8 levels takes the
    values -1, -0.75 ... 0.75 (an even number of levels has no middle), one of 5 takes -1 ... 1.

    Args:
        levels: number of levels of each channel.
    """

    def __init__(self, levels: list[int]):
        super().__init__()
        self.levels = levels
        grid = torch.cartesian_prod(*(torch.arange(n) for n in levels)).view(-1, len(levels))
        self._constant("middle", [n // 2 for n in levels])
        self._constant("last", [n - 1 for n in levels])
        self._constant("place", [math.prod(levels[i + 1 :]) for i in range(len(levels))])
        self.register_buffer("codebook", grid / self.middle.flatten() - 1, persistent=False)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise encoder outputs `z` (b, C, h, w).

        Returns:
            The code vectors (b, C, h, w), through which gradients pass as if they were the bounded
            `z`, the codes int64 (b, h, w), and 0: there is no codebook to commit to.
        """
        z = self._bounded(z.float())
        codes = self.snap(z.detach())
        z_q = look_up(self.codebook, codes)
        return z + (z_q - z).detach(), codes, z.new_zeros(())

    def snap(self, z: Tensor) -> Tensor:
        """The codes (b, h, w) nearest to latents (b, C, h, w), channel by channel."""
        steps = ((z.float() + 1) * self.middle).round().clamp(min=0)
        return (torch.minimum(steps, self.last) * self.place).sum(1).long()

    def _bounded(self, z: Tensor) -> Tensor:
        # A margin of 0.1 % keeps the outermost levels within reach of a finite z.
        reach = self.last / 2 * 1.001
        offset = self.middle - self.last / 2
        return (torch.tanh(z + torch.atanh(offset / reach)) * reach - offset) / self.middle

    def _constant(self, name: str, values: list[int]) -> None:
        self.register_buffer(name, torch.tensor(values).float().view(-1, 1, 1), persistent=False)


def look_up(codebook: Tensor, codes: Tensor) -> Tensor:
    """Latents (b, C, h, w) of codes (b, h, w) from a codebook (K, C)."""
    return rearrange(F.embedding(codes, codebook), "b h w c -> b c h w")


def _vectors(z: Tensor) -> Tensor:
    return rearrange(z, "b c h w -> (b h w) c")


def _draw(vectors: Tensor, number: int) -> Tensor:
    """Vectors drawn at random, with replacement only where there are too few."""
    if number <= len(vectors):
        chosen = torch.randperm(len(vectors), device=vectors.device)[:number]
    else:
        chosen = torch.randint(len(vectors), (number,), device=vectors.device)
    return vectors[chosen]
