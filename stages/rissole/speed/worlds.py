"""What is measured: images, networks and latents of the sizes that the settings give."""

from dataclasses import dataclass

from rissole.core.config import Settings
from rissole.dataset.settings import Data
from rissole.denoiser.conditioning import Conditioning
from rissole.denoiser.denoiser import Denoiser
from rissole.denoiser.settings import LDM, find_variant, variant_ldm
from rissole.denoiser.training import Images
from rissole.drawing.settings import Sample
from rissole.first_stage.settings import VQGANSettings
from rissole.first_stage.vqgan import VQGAN
from rissole.latent import latents
from rissole.retrieval import neighbours, search
from rissole.retrieval.vectors import Vectors
from rissole.speed.reference import Database

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGES = 2000


@dataclass(frozen=True)
class World:
    """Everything that training and sampling need, ours and the reference's.

    Attributes:
        denoiser: of the row `rissole`.
        conditioning: what it is told.
        ldm, sample: the settings.
        first_stage: untrained.
        images: codes and neighbour rows in memory, as ours wants them.
        database: pictures, floats and query vectors, as the reference wants them.
    """

    denoiser: Denoiser
    conditioning: Conditioning
    ldm: LDM
    sample: Sample
    first_stage: VQGAN
    images: Images
    database: Database


def make(settings: Settings, device: torch.device) -> World:
    """A world of random pictures, for the preset's networks without training."""
    torch.manual_seed(0)
    size = settings.section(Data).size
    first_stage = VQGAN(settings.section(VQGANSettings)).eval().requires_grad_(False).to(device)
    pictures = torch.rand(IMAGES, 3, size, size).mul(2).sub(1).to(device)
    codes = torch.cat([first_stage.encode(part) for part in pictures.split(100)]).int()
    codebook = first_stage.codebook().detach()
    z, ids = F.embedding(codes, codebook), np.arange(IMAGES)
    train = latents.Latents(
        ids=ids,
        originals=ids,
        groups=np.full(IMAGES, None, object),
        codes=codes,
        codebook=codebook,
        mean=z.mean((0, 1, 2)),
        std=z.std((0, 1, 2)).clamp_min(1e-6),
    )
    host = train.to(torch.device("cpu"))
    vectors = Vectors(host, "first_block", settings.blocks)[:]
    index = search.Exact(vectors)
    found, _ = neighbours.find(index, host, host, vectors, settings.k, "self")
    variant, ldm = find_variant(settings, "rissole"), variant_ldm(settings, "rissole")
    denoiser = Denoiser(variant, ldm, codebook.shape[1], settings.k).to(device)
    nn.init.normal_(denoiser.unet.last.weight, std=0.02)  # it starts at zero, and would hide faults
    conditioning = Conditioning(variant, train, ldm.normalise)
    return World(
        denoiser=denoiser,
        conditioning=conditioning,
        ldm=ldm,
        sample=settings.section(Sample),
        first_stage=first_stage,
        images=Images(codes, torch.from_numpy(found).to(device)),
        database=Database(
            pictures,
            train.look_up(train.table(ldm.normalise)),
            torch.from_numpy(vectors).to(device),
        ),
    )


def rows(world: World) -> Tensor:
    """The rows of a batch."""
    return torch.arange(world.ldm.batch, device=world.images.codes.device)
