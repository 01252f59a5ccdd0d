"""Latents of images: all blocks of all of them denoised together."""

from collections.abc import Callable

from rissole.core import numerics
from rissole.denoiser.conditioning import Conditioning, Told
from rissole.denoiser.denoiser import Denoiser
from rissole.drawing import samplers
from rissole.drawing.samplers import Sampler

import torch
from torch import Tensor


@torch.inference_mode()
def sample_latents(
    denoiser: Denoiser,
    conditioning: Conditioning,
    sampler: Sampler,
    neighbours: Tensor | None,
    images: range,
    seed: int,
    watch: Callable[[Tensor], None] = lambda z: None,
) -> Tensor:
    """Draw latents (b, c, H, W), normalised as the denoiser's were in training.

    All blocks are denoised together; only a row that is told of others goes turn by turn, each told
    what was finished before it. Noise is a function of (seed, image, block), drawn
    on the CPU, so that image i is the same at any batch size and on any device up to rounding.

    Args:
        denoiser: in evaluation mode.
        conditioning: of the row.
        sampler: what `samplers.build` made.
        neighbours: rows of each image's neighbours in the database, (b, k), where it retrieves.
        images: numbers of the images, b of them.
        seed: of the row.
        watch: called with the latents (b, c, H, W) as each step leaves them.
    """
    grid, n, b = conditioning.grid, conditioning.grid.blocks, len(images)
    device, (channels, height, width) = conditioning.device, conditioning.shape
    side = conditioning.row.blocks
    block = channels, height // side, width // side
    generators = [
        [torch.Generator().manual_seed(numerics.seeded(seed, i, j)) for j in range(n)]
        for i in images
    ]
    noise = [[torch.randn(block, generator=g) for g in gs] for gs in generators]
    z = torch.stack([torch.stack(of) for of in noise]).to(device)  # b n c h w
    for some in grid.turns:
        told = conditioning.told(neighbours, grid.join(z), b)
        told = _only(told, some, b, n)
        with numerics.autocast(device):
            context = denoiser.context(told)

        def predict(z_t: Tensor, timestep: int, told=told, context=context) -> Tensor:
            if grid.looks_around:
                z_t = grid.cut_noisy(grid.join(z_t.unflatten(0, (b, n))))
            steps = torch.full((len(z_t),), timestep, device=device)
            with numerics.autocast(device):
                return denoiser(z_t, steps, context, told.position).float()

        chosen = [gs[j] for gs in generators for j in some]
        for z_t in samplers.denoise(predict, sampler, z[:, some].flatten(0, 1), chosen):
            z = z.clone()  # who watches may keep the one before
            z[:, some] = z_t.unflatten(0, (b, len(some)))
            watch(grid.join(z))
    return grid.join(z)


def _only(told: Told, some: list[int], b: int, n: int) -> Told:
    """What is told of some of the n blocks of each of b images."""

    def pick(all_blocks: Tensor | None) -> Tensor | None:
        if all_blocks is None:
            return None
        return all_blocks.unflatten(0, (b, n))[:, some].flatten(0, 1)

    return Told(*map(pick, (told.neighbours, told.embeddings, told.previous, told.position)))
