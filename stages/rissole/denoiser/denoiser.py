"""The denoiser of one block: stem, embeddings and U-Net."""

from pathlib import Path

from rissole.core import files, fingerprint
from rissole.denoiser.conditioning import Context, Stem, Told
from rissole.denoiser.ddpmpp import DDPMpp
from rissole.denoiser.patch_dm import PatchDM
from rissole.denoiser.settings import LDM, Variant
from rissole.denoiser.unet import Embedding, UNet
from rissole.harness.errors import InputError
from rissole.latent.latents import Latents

import torch
from torch import Tensor, nn


class Denoiser(nn.Module):
    """Predicts what `ldm.prediction` names from a noisy block and what is told of it.

    Args:
        row: the row of the table.
        ldm: section `ldm` as the row changes it.
        channels: of a latent.
        k: neighbours; 0 where the row retrieves nothing.
        embedded: width of an embedding, where the row is told those of its neighbours.
    """

    def __init__(self, row: Variant, ldm: LDM, channels: int, k: int, embedded: int = 0):
        super().__init__()
        self.row, self.ldm = row, ldm
        self.sizes = {"channels": channels, "k": k} | ({"embedded": embedded} if embedded else {})
        self.stem = Stem(row, ldm, channels, k, embedded)
        self.time = Embedding(ldm.embedding)
        self.position = Embedding(ldm.embedding) if row.position else None
        self.unet = UNet(ldm, channels, 1 + row.position, self.stem.token_width)
        self.to(memory_format=torch.channels_last)  # convolutions run faster

    def context(self, told: Told) -> Context:
        """Embed what does not change while a block is denoised."""
        return self.stem.context(told)

    def forward(
        self, z_t: Tensor, timestep: Tensor, context: Context, position: Tensor | None
    ) -> Tensor:
        """Predict for noisy blocks.

        Args:
            z_t: noisy blocks with the rim that the row asks for, (b, c, h, w).
            timestep: of each block, int64 (b).
            context: what was made of the neighbours, once (`context`).
            position: of each block, int64 (b), where the row says it.

        Returns:
            The prediction (b, c, h, w), without the rim.
        """
        embedded = [self.time(timestep)]
        if self.position is not None:
            embedded.append(self.position(position))
        return self.unet(self.stem(z_t, context), embedded, context.tokens)


Network = Denoiser | DDPMpp | PatchDM
NETWORKS = {"unet": Denoiser, "ddpmpp": DDPMpp, "patch_dm": PatchDM}


def build(row: Variant, ldm: LDM, channels: int, k: int, embedded: int = 0) -> Network:
    """The network that a row of the table asks for; arguments as of `Denoiser`."""
    return NETWORKS[row.network](row, ldm, channels, k, embedded)


def save(path: Path, denoiser: Network, **about: float | str) -> None:
    """Write a denoiser as safetensors, with the settings that rebuild it and `about`.

    To be loaded, it must say among that the identity of its `latents`.
    """
    row = denoiser.row.model_dump(exclude_defaults=True)  # a new key is off in old files
    settings = {"row": row, "ldm": denoiser.ldm.model_dump()}
    files.write_tensors(path, denoiser.state_dict(), settings | denoiser.sizes | about)


def load(path: Path, latents: Latents) -> Network:
    """Rebuild a denoiser from its file, in evaluation mode.

    Args:
        path: of it.
        latents: that it was trained on.

    Raises:
        InputError: the file is not a denoiser's, or it was trained on other latents.
    """
    tensors, about = files.read_tensors(path)
    trained = "trained on other latents than those of data/latents"
    fingerprint.check(path, about.get("latents"), latents.identity, trained)
    try:
        row, ldm = Variant.model_validate(about["row"]), LDM.model_validate(about["ldm"])
        denoiser = build(row, ldm, about["channels"], about["k"], about.get("embedded", 0))
        denoiser.load_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        detail = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a denoiser of this version ({detail})") from None
    return denoiser.eval()
