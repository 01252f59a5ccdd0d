"""Patch-DM: patches that share their features with those beside them (feature collage).

Source: Ding et al. 2024 (arXiv 2308.01316), section 3. A latent is padded by half a patch and cut
into one patch more per side than it has; each is encoded alone. At the bottleneck and at every skip
the maps of all patches are laid side by side and cut anew, shifted by half a patch, so that what is
decoded lies across the borders of what was encoded, and tiles the latent. Different here: the U-Net
is ours; all patches are learnt from in each step, not one group of them; the rim is zero and not
noise; and in place of the learnt global code of each image, which a second network draws, there are
the neighbours, where a row retrieves.
"""

from dataclasses import replace

from rissole.denoiser.conditioning import Context, Stem, Told
from rissole.denoiser.settings import LDM, Variant
from rissole.denoiser.unet import Embedding, UNet
from rissole.latent import blocks

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchDM(nn.Module):
    """Predicts what `ldm.prediction` names for whole latents; arguments as of `Denoiser`."""

    def __init__(self, row: Variant, ldm: LDM, channels: int, k: int, embedded: int = 0):
        super().__init__()
        self.row, self.ldm, self.sizes = row, ldm, {"channels": channels, "k": k}
        self.stem = Stem(row, ldm, channels, k, embedded)
        self.time, self.place = Embedding(ldm.embedding), Embedding(ldm.embedding)
        self.unet = UNet(ldm, channels, embeddings=2)
        self.to(memory_format=torch.channels_last)

    def context(self, told: Told) -> Context:
        """Embed the neighbours' patches, which do not change while a latent is denoised."""
        if told.neighbours is None:
            return self.stem.context(told)
        near = told.neighbours  # b k c h w
        patches = self._padded_patches(near.flatten(0, 1)).unflatten(0, near.shape[:2])
        return self.stem.context(replace(told, neighbours=patches.transpose(1, 2).flatten(0, 1)))

    def forward(
        self, z_t: Tensor, timestep: Tensor, context: Context, position: Tensor | None
    ) -> Tensor:
        """Predict for noisy latents.

        Args:
            z_t: (b, c, h, w).
            timestep: of each, int64 (b).
            context: what was made of the neighbours, once (`context`).
            position: None; patches are told where they lie in any case.

        Returns:
            The prediction of the shifted patches, (b, c, h, w); in training, where the patches that
            were encoded are decoded, too, so that these learn directly, (2 b, c, h, w).
        """
        (b, _, h, w), patches = z_t.shape, self.row.collage
        u = self.stem(self._padded_patches(z_t).flatten(0, 1), context)
        embedded = self._embedded(timestep, patches + 1, 0)
        u, maps = self.unet.encode(u, embedded)
        shifted = self.unet.decode(
            self._shifted(u, b),
            [self._shifted(of, b) for of in maps],
            self._embedded(timestep, patches, 1),
        )
        predicted = [self._joined(shifted, b, patches)]
        if self.training:
            plain = self.unet.decode(u, maps, embedded)
            predicted.append(_crop(self._joined(plain, b, patches + 1), *plain.shape[-2:]))
        return torch.cat(predicted)[..., :h, :w]

    def _padded_patches(self, z: Tensor) -> Tensor:
        """Latents (b, c, h, w), with zeros around, as overhanging patches (b, n, c, h', w').

        Below and to the right there are as many more as it takes for half a patch to be halved
        evenly by all levels.
        """
        patches, whole = self.row.collage, 2 * self.row.collage * self.unet.step
        below, right = -z.shape[-2] % whole, -z.shape[-1] % whole
        h, w = (z.shape[-2] + below) // patches // 2, (z.shape[-1] + right) // patches // 2
        return blocks.cut(F.pad(z, (w, w + right, h, h + below)), patches + 1)

    def _shifted(self, u: Tensor, b: int) -> Tensor:
        """Maps of overhanging patches (b * (p + 1)^2, ...) as those between, (b * p^2, ...)."""
        patches = self.row.collage
        whole = blocks.join(u.unflatten(0, (b, -1)), patches + 1)
        cut = blocks.cut(_crop(whole, *u.shape[-2:]), patches).flatten(0, 1)
        return cut.contiguous(memory_format=torch.channels_last)

    def _joined(self, u: Tensor, b: int, patches: int) -> Tensor:
        rim = self.unet.last.kernel_size[0] // 2
        predicted = self.unet.last(F.pad(u, (rim,) * 4))
        return blocks.join(predicted.unflatten(0, (b, -1)), patches)

    def _embedded(self, timestep: Tensor, patches: int, first: int) -> list[Tensor]:
        """Time and place of each patch; places count half patches, `first` from the corner on."""
        side = first + 2 * torch.arange(patches, device=timestep.device)
        place = (side[:, None] * (2 * self.row.collage + 1) + side).flatten()
        time = self.time(timestep).repeat_interleave(len(place), 0)
        return [time, self.place(place).repeat(len(timestep), 1)]


def _crop(u: Tensor, h: int, w: int) -> Tensor:
    """Maps without half a patch, of sides h and w, on each side."""
    return u[..., h // 2 : -(h // 2), w // 2 : -(w // 2)]
