"""What a denoiser draws while it trains: a grid of samples at each validation, to be looked at.

No stage depends on this module, as nothing that it makes is an output, and no number comes from it.
"""

import math
from pathlib import Path

from rissole.core import processes
from rissole.dataset import images
from rissole.denoiser.conditioning import Conditioning
from rissole.denoiser.denoiser import Network
from rissole.drawing.drawing import Drawing
from rissole.drawing.settings import Sample
from rissole.first_stage import vqgan
from rissole.latent.latents import Latents

from torch import Tensor

IMAGES, STEPS = 16, 10


def write(
    path: Path,
    network: Network,
    conditioning: Conditioning,
    database: Latents,
    neighbours: Tensor | None,
    model: Path,
) -> None:
    """Draw a few images by a few steps of DDIM, always from the same noise.

    Args:
        path: of the PNG.
        network: in evaluation mode.
        conditioning: what it is told.
        database: the train latents.
        neighbours: rows of the neighbours of some images, (n, k), where the variant retrieves.
        model: file of the first stage; where there is none, nothing is drawn.
    """
    if not model.exists():
        return
    steps = math.gcd(STEPS, network.ldm.timesteps)
    drawer = Drawing(
        sample=Sample(images=IMAGES, sampler="ddim", steps=steps, batch=IMAGES),
        seed=0,
        checkpoint="",
        network=network,
        told=database,
        conditioning=conditioning,
        first_stage=vqgan.load(model, database.first_stage).to(conditioning.device),
        database=database,
        queries=None,
        neighbours=neighbours,
    )
    with processes.alone():
        count = IMAGES if neighbours is None else min(IMAGES, len(neighbours))
        ((_, (pictures, _)),) = processes.in_turn([range(count)], drawer.draw)
        images.write_grid(path, pictures, columns=8)
