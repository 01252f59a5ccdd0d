"""The paper's algorithm as it is written (section 4): what ours is measured against.

One block after the other; the images encoded, their neighbours searched and fetched as floats in
every step; the neighbours embedded anew in every step of sampling. The same numbers as ours, by the
same network, and nothing slower than the text asks for.
"""

from dataclasses import dataclass

from rissole.core import numerics
from rissole.denoiser import diffusion
from rissole.denoiser.conditioning import Conditioning, Told
from rissole.denoiser.denoiser import Denoiser
from rissole.denoiser.settings import LDM
from rissole.drawing import samplers
from rissole.first_stage.vqgan import VQGAN
from rissole.latent import blocks

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Database:
    """The train images as the text keeps them.

    Attributes:
        pictures: float (n, 3, H, W), of range -1..1.
        z: their latents, normalised, float (n, c, h, w).
        vectors: what they are looked up by, of length 1, float (n, d).
    """

    pictures: Tensor
    z: Tensor
    vectors: Tensor


def block_loss(
    denoiser: Denoiser,
    conditioning: Conditioning,
    ldm: LDM,
    first_stage: VQGAN,
    database: Database,
    rows: Tensor,
) -> Tensor:
    """As `denoiser.training.block_loss` with a timestep for each block, and the same draws."""
    with torch.no_grad():
        codes = first_stage.encode(database.pictures[rows])
    raw = F.embedding(codes, first_stage.codebook()).movedim(-1, 1)
    z = conditioning.latents(codes)
    neighbours = search(conditioning, database, raw, rows, denoiser.sizes["k"])
    b, n, device = len(rows), conditioning.grid.blocks, rows.device
    timestep = torch.randint(ldm.timesteps, (b, n), device=device)
    noise = conditioning.noise(b)
    signal = diffusion.signal(ldm.schedule, ldm.timesteps, device)
    losses = []
    for j in range(n):
        clean, drawn = (blocks.cut(of, conditioning.row.blocks)[:, j] for of in (z, noise))
        kept = signal[timestep[:, j]][:, None, None, None]
        z_t = diffusion.noised(clean, drawn, kept)
        told = corresponding(conditioning, database.z[neighbours], j)
        with numerics.autocast(device):
            predicted = denoiser(z_t, timestep[:, j], denoiser.context(told), None)
        target = diffusion.target(ldm.prediction, clean, drawn, kept)
        losses.append(F.mse_loss(predicted.float(), target))
    return torch.stack(losses).mean()


def search(
    conditioning: Conditioning, database: Database, raw: Tensor, rows: Tensor, k: int
) -> Tensor:
    """The k rows nearest to the first block of latents, their own row aside, (b, k)."""
    queries = F.normalize(blocks.cut(raw, conditioning.row.blocks)[:, 0].flatten(1), dim=1)
    similar = queries @ database.vectors.T
    similar[torch.arange(len(rows)), rows] = -torch.inf
    return similar.topk(k, dim=1).indices


def corresponding(conditioning: Conditioning, neighbours: Tensor, j: int) -> Told:
    """Block j of the neighbours (b, k, c, h, w)."""
    return Told(blocks.cut(neighbours, conditioning.row.blocks)[:, :, j], None, None, None)


@torch.inference_mode()
def sample_latents(
    denoiser: Denoiser,
    conditioning: Conditioning,
    sampler: samplers.Sampler,
    database: Database,
    neighbours: Tensor,
    images: range,
    seed: int,
) -> Tensor:
    """As `drawing.sampling.sample_latents`, with the same noise."""
    n, device = conditioning.grid.blocks, conditioning.device
    channels, side, _ = conditioning.shape
    side //= conditioning.row.blocks
    finished = []
    for j in range(n):
        generators = [torch.Generator().manual_seed(numerics.seeded(seed, i, j)) for i in images]
        noise = [torch.randn(channels, side, side, generator=g) for g in generators]

        def predict(z_t: Tensor, timestep: int, j=j) -> Tensor:
            told = corresponding(conditioning, database.z[neighbours], j)
            with numerics.autocast(device):
                context = denoiser.context(told)
                steps = torch.full((len(z_t),), timestep, device=device)
                return denoiser(z_t, steps, context, None).float()

        z = torch.stack(noise).to(device)
        *_, clean = samplers.denoise(predict, sampler, z, generators)
        finished.append(clean)
    return blocks.join(torch.stack(finished, 1), conditioning.row.blocks)
