"""The first stage: images to codes on a small grid, and back (paper, section 3; released code).

Letters of tensor shapes: b images, C latent channels, h w sides of the latent, K codes.
"""

from pathlib import Path

from rissole.core import files, fingerprint
from rissole.first_stage import quantiser
from rissole.first_stage.settings import VQGANSettings
from rissole.harness.errors import InputError

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

HEADS, HEAD_WIDTH = 4, 64


class VQGAN(nn.Module):
    """A light strided encoder, a quantiser, and a decoder that mirrors the encoder.

    Each of `settings.widths` halves the side. Images are (b, 3, H, W) of range -1..1.
    """

    def __init__(self, settings: VQGANSettings):
        super().__init__()
        self.settings = settings
        self.quantiser = quantiser.build(settings.quantiser)
        channels = self.quantiser.codebook.shape[1]
        self.encoder = encoder(settings.widths, settings.attention, channels)
        self.decoder = decoder(settings.widths, settings.attention, channels)
        self.to(memory_format=torch.channels_last)  # decodes 1.7x as fast

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The reconstruction, its codes (b, h, w) and the quantiser's loss."""
        z, codes, loss = self.quantiser(self.encoder(x))
        return self.decode(z), codes, loss

    def encode(self, x: Tensor) -> Tensor:
        """The codes of images, int64 (b, h, w)."""
        return self.quantiser(self.encoder(x))[1]

    def codebook(self) -> Tensor:
        """The code vectors, float32 (K, C): `codebook()[codes]` are latents."""
        return self.quantiser.codebook

    def snap(self, z: Tensor) -> Tensor:
        """The codes (b, h, w) nearest to any latents (b, C, h, w), say drawn ones."""
        return self.quantiser.snap(z)

    def decode(self, z: Tensor) -> Tensor:
        """The images of quantised latents (b, C, h, w)."""
        return self.decoder(z)

    @property
    def last_layer(self) -> Tensor:
        """The weights of the decoder's last convolution, before the tanh."""
        return self.decoder[-2].weight


def encoder(widths: list[int], attention: str, channels: int) -> nn.Sequential:
    """From images (b, 3, H, W) to latents (b, channels, h, w) that are not yet quantised."""
    layers = []
    for width_in, width in zip([3, *widths], widths, strict=False):
        layers += [nn.Conv2d(width_in, width, 4, 2, 1), nn.LeakyReLU(0.2), Residual(width, width)]
    top = widths[-1]
    layers += [*_attention(top, attention), Residual(top, top), nn.Conv2d(top, channels, 3, 1, 1)]
    return nn.Sequential(*layers)


def decoder(widths: list[int], attention: str, channels: int) -> nn.Sequential:
    """From quantised latents (b, channels, h, w) to images (b, 3, H, W) of range -1..1."""
    top = widths[-1]
    layers = [nn.Conv2d(channels, top, 3, 1, 1), nn.SiLU(), Residual(top, top)]
    layers += _attention(top, attention)
    for width_in, width in zip([top, *widths[::-1]], widths[::-1], strict=False):
        layers += [Residual(width_in, width), nn.ConvTranspose2d(width, width, 4, 2, 1)]
        layers += [nn.LeakyReLU(0.2)]
    layers += [nn.Conv2d(widths[0], 3, 3, 1, 1), nn.Tanh()]
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """Two convolutions, each followed by its norm, beside a shortcut."""

    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.body = nn.Sequential(*_convolution(width_in, width), *_convolution(width, width))
        self.shortcut = nn.Identity() if width_in == width else nn.Conv2d(width_in, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """From (b, width_in, h, w) to (b, width, h, w)."""
        return self.body(x) + self.shortcut(x)


class Attention(nn.Module):
    """Attention of all positions to all others, without knowledge of position.

    The released networks use it bare, so that all detail must pass through it; `residual` adds the
    customary norm and skip.
    """

    def __init__(self, width: int, residual: bool):
        super().__init__()
        self.residual = residual
        self.norm = nn.GroupNorm(8, width) if residual else nn.Identity()
        self.qkv = nn.Conv2d(width, 3 * HEADS * HEAD_WIDTH, 1, bias=False)
        self.out = nn.Conv2d(HEADS * HEAD_WIDTH, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """From (b, width, h, w) to the same shape."""
        qkv = self.qkv(self.norm(x))
        q, k, v = rearrange(qkv, "b (three n c) h w -> three b n (h w) c", three=3, n=HEADS)
        y = F.scaled_dot_product_attention(q, k, v)
        y = self.out(rearrange(y, "b n (h w) c -> b (n c) h w", h=x.shape[2]))
        return x + y if self.residual else y


def count_parameters(model: VQGAN) -> dict[str, int]:
    """Parameters of encoder and decoder, and numbers in a learned codebook, as released."""
    counts = {
        name: sum(p.numel() for p in getattr(model, name).parameters())
        for name in ("encoder", "decoder")
    }
    learned = model.settings.quantiser.kind == "vq"
    counts["codebook"] = model.codebook().numel() if learned else 0
    return counts | {"all": sum(counts.values())}


def save(path: Path, model: VQGAN) -> None:
    """Write the weights, with the settings that `load` needs."""
    files.write_tensors(path, model.state_dict(), {"settings": model.settings.model_dump()})


def load(path: Path, digest: str | None = None) -> VQGAN:
    """A written model on the CPU, frozen, in evaluation mode.

    Args:
        path: of it.
        digest: of its file, where it must be the one that encoded the latents.

    Raises:
        InputError: the file is not a VQ-GAN's, or not that one's.
    """
    if digest is not None:
        fingerprint.check(
            path, files.digest(path), digest, "not the VQ-GAN that encoded data/latents"
        )
    tensors, about = files.read_tensors(path)
    try:
        model = VQGAN(VQGANSettings.model_validate(about["settings"]))
        model.load_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        detail = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a VQ-GAN of this version ({detail})") from None
    return model.eval().requires_grad_(False)


def _convolution(width_in: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(width_in, width, 3, 1, 1), nn.GroupNorm(8, width), nn.SiLU()]


def _attention(width: int, kind: str) -> list[nn.Module]:
    return [] if kind == "none" else [Attention(width, kind == "residual")]
