"""Small made-up latents and settings that several test files build on."""

from pathlib import Path

from rissole.denoiser.settings import LDM, Variant
from rissole.first_stage.settings import FSQ, VQ, VQGANSettings
from rissole.latent import latents as latents_on_disk
from rissole.latent.latents import Latents

import numpy as np
import torch

EMBEDDED = 6  # width of the embeddings
CODEBOOK = torch.cartesian_prod(*[torch.tensor([-1.0, -0.3, 0.4, 1.1])] * 2)  # 16 codes, 2 channels


def ldm(**changes) -> LDM:
    """Section `ldm` of a network that trains in a second."""
    settings = {
        "widths": [16, 32], "depth": 1, "embedding": 16, "heads": 2, "head_width": 8,
        "attention": "residual", "dropout": 0.0, "final_kernel": 1, "normalise": True,
        "prediction": "v_prediction", "schedule": "squaredcos_cap_v2", "timesteps": 100,
        "share_timestep": "block", "average": 0.9, "steps": 6, "batch": 4, "learning_rate": 0.002,
        "warm_up": 2, "decay_from": 0.5, "clip": 1.0, "validations": 2,
    }  # fmt: skip
    return LDM(**(settings | changes))


def vq(codes: int = 64, channels: int = 4) -> VQ:
    """A learned codebook."""
    return VQ(kind="vq", codes=codes, channels=channels, decay=0.9, commitment=0.25, restart=0.01)


def vqgan(**changes) -> VQGANSettings:
    """Section `vqgan` of a first stage that learns in a second."""
    settings = {
        "widths": [16, 32], "attention": "none",
        "quantiser": FSQ(kind="fsq", levels=[8, 8, 8]), "l1": 0.5, "l2": 1.0,
        "perceptual": "none", "perceptual_weight": 0.3, "perceptual_share": 0.5,
        "lpips_weights": None, "adversarial_weight": 0.0, "adversarial_cap": 0.05,
        "adversarial_start": 0.6, "discriminator_start": 0.35, "discriminator_layers": 2,
        "steps": 40, "batch": 8, "learning_rate": 0.003, "warm_up": 2, "decay_from": 0.6,
        "flips": True,
    }  # fmt: skip
    return VQGANSettings(**(settings | changes))


def row(neighbours: str = "none", **changes) -> Variant:
    """A row of the table with 2 x 2 blocks."""
    context = "latents" if neighbours == "none" else "neighbours/main"
    return Variant(**({"context": context, "neighbours": neighbours, "blocks": 2} | changes))


def write_latents(folder: Path, first_stage: str = "", **splits: Latents) -> None:
    """Write splits as one file of codes each, with the manifest; `first_stage` is its digest."""
    for split, of in splits.items():
        path = folder / f"{split}-00000.parquet"
        latents_on_disk.write_part(path, of.ids, of.originals, of.groups, of.codes)
    names = {split: [f"{split}-00000"] for split in splits}
    latents_on_disk.merge(folder, names, next(iter(splits.values())).codebook, first_stage)


def latents(images: int = 12, side: int = 8, seed: int = 0) -> Latents:
    """Latents of random codes."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(len(CODEBOOK), (images, side, side), generator=generator)
    z = CODEBOOK[codes]
    ids = np.arange(images, dtype=np.int64) + 100
    return Latents(
        ids=ids,
        originals=ids.copy(),
        groups=np.array([None] * images, dtype=object),
        codes=codes.int(),
        codebook=CODEBOOK,
        mean=z.mean((0, 1, 2)),
        std=z.std((0, 1, 2)),
        embeddings=torch.randn(images, EMBEDDED, generator=generator),
    )
