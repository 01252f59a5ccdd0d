"""DDPM++ as Patch Diffusion uses it: a U-Net for pictures, its levels and blocks those of EDM.

Sources: Song et al. 2021 (arXiv 2011.13456), appendix H; Karras et al. 2022 (arXiv 2206.00364),
appendix F; Wang et al. 2023 (arXiv 2304.12526) for the two more channels that tell each pixel where
it lies. With widths 128, 256, 256, 256 and four blocks a level it has 61,806,723 parameters.
"""

import math

from rissole.core.threads import Dropout
from rissole.denoiser.conditioning import Context, Told
from rissole.denoiser.settings import LDM, Variant

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

ATTENDED = 2  # level with self-attention: where a picture of 64 pixels has 16
HALF = 0.5**0.5  # after each sum of two, which keeps the variance


class DDPMpp(nn.Module):
    """Predicts what `ldm.prediction` names, for whole pictures or patches of them.

    Args:
        row: of the table; it retrieves nothing.
        ldm: widths of the levels, `depth` blocks in each on the way down and one more on the way
            up, dropout.
        channels: of a picture.
        k, embedded: as of the denoiser of blocks, and here without use.
    """

    def __init__(self, row: Variant, ldm: LDM, channels: int, k: int = 0, embedded: int = 0):
        super().__init__()
        self.row, self.ldm, self.sizes = row, ldm, {"channels": channels, "k": k}
        widths, told = ldm.widths, 4 * ldm.widths[0]
        self.time = _Time(widths[0], told)
        seen = channels + (2 if row.coordinates else 0)
        self.first = _weighted(nn.Conv2d(seen, widths[0], 3, padding=1))

        def block(before: int, width: int, level: int, **how) -> _Block:
            attended = how.pop("attended", level == ATTENDED)
            return _Block(before, width, told, ldm.dropout, attended, **how)

        self.down, skips, before = nn.ModuleList(), [widths[0]], widths[0]
        for level, width in enumerate(widths):
            if level:
                self.down.append(block(before, before, level, attended=False, resample="down"))
                skips.append(before)
            for _ in range(ldm.depth):
                self.down.append(block(before, width, level))
                skips.append(before := width)
        last = len(widths) - 1
        self.middle = nn.ModuleList(
            block(before, before, last, attended=attended) for attended in (True, False)
        )
        self.up = nn.ModuleList()
        for level, width in reversed([*enumerate(widths)]):
            if level < last:
                self.up.append(block(before, before, level, attended=False, resample="up"))
            for number in range(ldm.depth + 1):
                attended = number == ldm.depth and level == ATTENDED
                joined = before + skips.pop()
                self.up.append(block(joined, width, level, attended=attended, joins=True))
                before = width
        self.norm = _norm(before)
        self.last = _weighted(nn.Conv2d(before, channels, 3, padding=1), 1e-5)
        self.to(memory_format=torch.channels_last)

    def context(self, told: Told) -> Context:
        """Nothing is told."""
        return Context(None, None)

    def forward(
        self, z_t: Tensor, timestep: Tensor, context: Context, position: Tensor | None
    ) -> Tensor:
        """Predict (b, c, h, w) for noisy pictures (b, c [+ 2], h, w); timestep is (b)."""
        told = self.time(timestep)
        u = self.first(z_t.contiguous(memory_format=torch.channels_last))
        skips = [u]
        for block in self.down:
            skips.append(u := block(u, told))
        for block in self.middle:
            u = block(u, told)
        for block in self.up:
            u = block(torch.cat([u, skips.pop()], 1) if block.joins else u, told)
        return self.last(F.silu(self.norm(u)))


class _Time(nn.Module):
    def __init__(self, width: int, told: int):
        super().__init__()
        exponents = torch.arange(width // 2) / (width // 2 - 1)
        frequencies = torch.exp(-math.log(10000) * exponents)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.one, self.two = _weighted(nn.Linear(width, told)), _weighted(nn.Linear(told, told))

    def forward(self, timestep: Tensor) -> Tensor:
        angles = timestep[:, None] * self.frequencies
        embedded = torch.cat([angles.sin(), angles.cos()], 1)
        return F.silu(self.two(F.silu(self.one(embedded))))


class _Block(nn.Module):
    """Two convolutions with norms before them, the time between them; then attention."""

    def __init__(
        self,
        before: int,
        width: int,
        told: int,
        dropout: float,
        attended: bool,
        resample: str | None = None,
        joins: bool = False,
    ):
        super().__init__()
        self.resample, self.joins = resample, joins
        self.norm_one, self.norm_two = _norm(before), _norm(width)
        self.one = _weighted(nn.Conv2d(before, width, 3, padding=1))
        self.told = _weighted(nn.Linear(told, width))
        self.dropout = Dropout(dropout)
        self.two = _weighted(nn.Conv2d(width, width, 3, padding=1), 1e-5)
        projects = resample is not None or before != width
        self.skip = _weighted(nn.Conv2d(before, width, 1)) if projects else nn.Identity()
        self.attention = _Attention(width) if attended else None

    def forward(self, u: Tensor, told: Tensor) -> Tensor:
        v = self.one(self._resampled(F.silu(self.norm_one(u))))
        v = v + self.told(told)[:, :, None, None]
        v = self.two(self.dropout(F.silu(self.norm_two(v))))
        u = (v + self.skip(self._resampled(u))) * HALF
        return u if self.attention is None else (u + self.attention(u)) * HALF

    def _resampled(self, u: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(u, 2)
        return F.interpolate(u, scale_factor=2) if self.resample == "up" else u


class _Attention(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = _norm(width)
        self.qkv = _weighted(nn.Conv2d(width, 3 * width, 1), 0.2**0.5)
        self.out = _weighted(nn.Conv2d(width, width, 1), 1e-5)

    def forward(self, u: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(self.norm(u)), "b (m d) h w -> m b (h w) d", m=3)
        mixed = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return self.out(rearrange(mixed, "b (h w) d -> b d h w", h=u.shape[-2]))


def _norm(width: int) -> nn.GroupNorm:
    groups = next(n for n in range(min(32, width // 4), 0, -1) if width % n == 0)
    return nn.GroupNorm(groups, width, eps=1e-6)


def _weighted(layer: nn.Module, scale: float = 1.0) -> nn.Module:
    """The layer with weights drawn as EDM draws them (Glorot, uniform), times `scale`; no bias."""
    nn.init.xavier_uniform_(layer.weight)
    layer.weight.data.mul_(scale)
    nn.init.zeros_(layer.bias)
    return layer
