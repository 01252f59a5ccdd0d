"""The U-Net that denoises a block, after the released code's `UNetLight`, live parts only.

Corrected against it: the middle attention has a norm and a skip (unless `bare`), the last
convolution starts at zero, and sides that the levels do not halve evenly are padded and cropped.
"""

import math

from rissole.core.threads import Dropout
from rissole.denoiser.settings import LDM

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class UNet(nn.Module):
    """A U-Net without norm or activation at either end.

    Args:
        ldm: widths of the levels, residual blocks in each, and the rest of section `ldm`.
        channels: of the output; the input has half of the first level's width.
        embeddings: how many embedding vectors each residual block is told (time; position).
        token_width: width of the tokens that the lower levels attend to; 0 for none.
    """

    def __init__(self, ldm: LDM, channels: int, embeddings: int, token_width: int = 0):
        super().__init__()
        widths, first, last = ldm.widths, ldm.widths[0], ldm.widths[-1]
        self.step = 2 ** len(widths)
        self.first = nn.Conv2d(first // 2, first, 3, padding=1)
        self.down, self.halving = nn.ModuleList(), nn.ModuleList()
        self.doubling, self.up = nn.ModuleList(), nn.ModuleList()
        for above, width, below in zip([first, *widths], widths, [*widths[1:], last], strict=False):
            attended = 0 if len(self.down) == 0 else token_width
            self.down.append(_Level(above, width, ldm, embeddings, attended))
            self.halving.append(nn.Conv2d(width, width, 3, 2, 1))
            self.doubling.append(nn.ConvTranspose2d(below, below, 4, 2, 1))
            self.up.append(_Level(below + width, width, ldm, embeddings, attended))
        self.middle_in = _Residual(last, last, ldm, embeddings)
        self.attention = _SelfAttention(last, ldm)
        self.crossed = _CrossAttention(last, token_width, ldm) if token_width else None
        self.middle_out = _Residual(last, last, ldm, embeddings)
        self.last = nn.Conv2d(first, channels, ldm.final_kernel)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, u: Tensor, embedded: list[Tensor], tokens: Tensor | None = None) -> Tensor:
        """Map u (b, widths[0] // 2, h, w) to (b, channels, h, w).

        Args:
            u: what the stem makes of the noisy block.
            embedded: the embedding vectors, each (b, d).
            tokens: (b, k, d) where the network attends to tokens.
        """
        h, w = u.shape[-2:]
        top, left = (-h % self.step) // 2, (-w % self.step) // 2
        bottom, right = -h % self.step - top, -w % self.step - left
        u, skips = self.encode(F.pad(u, (left, right, top, bottom)), embedded, tokens)
        u = self.decode(u, skips, embedded, tokens)
        rim = self.last.kernel_size[0] // 2
        return self.last(F.pad(u, (rim - left, rim - right, rim - top, rim - bottom)))

    def encode(
        self, u: Tensor, embedded: list[Tensor], tokens: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The way down: what its last level leaves, halved, and the maps of all levels.

        Arguments as of `forward`, but u has sides h and w that the levels halve evenly.

        Returns:
            A map (b, widths[-1], h / 2^levels, w / 2^levels), and that of each level before its
            halving, the first (b, widths[0], h, w).
        """
        u = self.first(u)
        maps = []
        for level, halve in zip(self.down, self.halving, strict=True):
            u = level(u, embedded, tokens)
            maps.append(u)
            u = halve(u)
        return u, maps

    def decode(
        self, u: Tensor, maps: list[Tensor], embedded: list[Tensor], tokens: Tensor | None = None
    ) -> Tensor:
        """The middle and the way up, to a map (b, widths[0], h, w); arguments as `encode` gives."""
        u = self.attention(self.middle_in(u, embedded))
        if self.crossed is not None:
            u = self.crossed(u, tokens)
        u = self.middle_out(u, embedded)
        levels = zip(reversed(self.doubling), reversed(self.up), reversed(maps), strict=True)
        for double, level, skip in levels:
            u = level(torch.cat([double(u), skip], 1), embedded, tokens)
        return u


class Embedding(nn.Module):
    """Timesteps or positions as vectors: sinusoids of 64 dimensions, then two linear layers.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.5, base 10,000.
    """

    def __init__(self, width: int):
        super().__init__()
        frequencies = torch.exp(-math.log(10000) * torch.arange(32) / 32)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, numbers: Tensor) -> Tensor:
        """Map integers (b) to vectors (b, d)."""
        angles = numbers[:, None] * self.frequencies
        return self.layers(torch.cat([angles.sin(), angles.cos()], 1))


class _GroupNorm(nn.GroupNorm):
    """The same where the channels lie last, but 4x as fast: torch's own is slow at that order."""

    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u.contiguous()).contiguous(memory_format=torch.channels_last)


class _Residual(nn.Module):
    def __init__(self, before: int, width: int, ldm: LDM, embeddings: int):
        super().__init__()

        def half(before: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(before, width, 3, padding=1),
                _GroupNorm(8, width),
                Dropout(ldm.dropout),
                nn.SiLU(),
            )

        self.one, self.two = half(before), half(width)
        self.shifts = nn.ModuleList(nn.Linear(ldm.embedding, width) for _ in range(embeddings))
        self.skip = nn.Conv2d(before, width, 1) if before != width else nn.Identity()

    def forward(self, u: Tensor, embedded: list[Tensor]) -> Tensor:
        shift = sum(linear(e) for linear, e in zip(self.shifts, embedded, strict=True))
        return self.two(self.one(u) + shift[:, :, None, None]) + self.skip(u)


class _Level(nn.Module):
    def __init__(self, before: int, width: int, ldm: LDM, embeddings: int, token_width: int):
        super().__init__()
        befores = [before] + [width] * (ldm.depth - 1)
        self.residuals = nn.ModuleList(_Residual(b, width, ldm, embeddings) for b in befores)
        self.crossed = _CrossAttention(width, token_width, ldm) if token_width else None
        self.norm = nn.GroupNorm(1, width)

    def forward(self, u: Tensor, embedded: list[Tensor], tokens: Tensor | None) -> Tensor:
        for residual in self.residuals:
            u = residual(u, embedded)
        if self.crossed is not None:
            u = self.crossed(u, tokens)
        return self.norm(u)


class _SelfAttention(nn.Module):
    def __init__(self, width: int, ldm: LDM):
        super().__init__()
        inner = ldm.heads * ldm.head_width
        self.heads, self.bare = ldm.heads, ldm.attention == "bare"
        self.norm = nn.Identity() if self.bare else nn.GroupNorm(1, width)
        self.qkv = nn.Conv2d(width, 3 * inner, 1, bias=False)
        self.out = nn.Conv2d(inner, width, 1)

    def forward(self, u: Tensor) -> Tensor:
        qkv = rearrange(self.qkv(self.norm(u)), "b (m n d) h w -> m b n (h w) d", m=3, n=self.heads)
        mixed = F.scaled_dot_product_attention(*qkv)
        mixed = rearrange(mixed, "b n (h w) d -> b (n d) h w", h=u.shape[-2])
        return self.out(mixed) if self.bare else u + self.out(mixed)


class _CrossAttention(nn.Module):
    def __init__(self, width: int, token_width: int, ldm: LDM):
        super().__init__()
        inner = ldm.heads * ldm.head_width
        self.heads = ldm.heads
        self.norm = nn.GroupNorm(1, width)
        self.q = nn.Conv2d(width, inner, 1, bias=False)
        self.kv = nn.Linear(token_width, 2 * inner, bias=False)
        self.out = nn.Conv2d(inner, width, 1)

    def forward(self, u: Tensor, tokens: Tensor) -> Tensor:
        q = rearrange(self.q(self.norm(u)), "b (n d) h w -> b n (h w) d", n=self.heads)
        k, v = rearrange(self.kv(tokens), "b k (m n d) -> m b n k d", m=2, n=self.heads)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return u + self.out(rearrange(mixed, "b n (h w) d -> b (n d) h w", h=u.shape[-2]))
