"""How much of a sample its neighbours decide: the same noise, told something else."""

import math

from rissole.denoiser.conditioning import Conditioning
from rissole.denoiser.denoiser import Denoiser
from rissole.drawing import samplers, sampling
from rissole.drawing.settings import Sample
from rissole.latent.latents import Latents
from rissole.latent.pixels import Pixels

import torch
from torch import Tensor

IMAGES, STEPS = 64, 20


def measure(network: Denoiser, database: Latents | Pixels, neighbours: Tensor) -> dict[str, float]:
    """How far samples move when their neighbours are swapped, permuted or dropped.

    Few images by a few DDIM steps, whatever the row's sampler.

    Args:
        network: the denoiser.
        database: the train images, as `conditioning.database` gives them.
        neighbours: rows of the neighbours of each image, (n, k).

    Returns:
        Mean distances, as shares of the mean distance of two samples: `swapped` with another
        image's neighbours, `permuted` told in reverse order, `dropped` told as many grey images
        (`with_grey`).
    """
    database = database.with_grey()
    conditioning = Conditioning(network.row, database, network.ldm.normalise)
    steps = math.gcd(STEPS, network.ldm.timesteps)
    sample = Sample(images=IMAGES, sampler="ddim", steps=steps, batch=IMAGES)
    sampler = samplers.build(network.ldm, sample, conditioning.limit)
    told = neighbours[:IMAGES]

    def draw(rows: Tensor) -> Tensor:
        images = range(len(rows))
        seed = network.row.seed
        z = sampling.sample_latents(network, conditioning, sampler, rows, images, seed)
        return z.flatten(1)

    own = draw(told)
    apart = torch.pdist(own).mean()
    others = {
        "swapped": told.roll(1, 0),
        "permuted": told.flip(1),
        "dropped": torch.full_like(told, len(database.codes) - 1),
    }
    return {
        name: ((draw(rows) - own).norm(dim=1).mean() / apart).item()
        for name, rows in others.items()
    }
