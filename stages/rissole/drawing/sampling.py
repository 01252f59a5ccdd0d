"""From noise to latents: all blocks of all images together, with a scheduler from diffusers."""

from collections.abc import Callable

import torch
from torch import Tensor

from rissole.denoiser import diffusion
from rissole.denoiser.conditioning import Conditioning, Told
from rissole.denoiser.denoiser import Denoiser
from rissole.ground import runtime
from rissole.ground.schema import LDM, Sample
from rissole.latent import blocks


def scheduler(ldm: LDM, sample: Sample, limit: float):
    """The sampler's scheduler from diffusers, on the schedule that the denoiser was trained with.

    Args:
        ldm: schedule and prediction type.
        sample: sampler and steps.
        limit: predicted clean latents are clamped to -limit..limit (not by dpmsolver++); without
            it, few steps of noise prediction are at the mercy of a division by almost nothing.
    """
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

    common = {
        "num_train_timesteps": ldm.timesteps,
        "trained_betas": diffusion.betas(ldm.schedule, ldm.timesteps).numpy(),
        "prediction_type": ldm.prediction,
        "timestep_spacing": "trailing",
    }
    clamped = {"clip_sample": True, "clip_sample_range": limit}
    if sample.sampler == "dpmsolver++":
        chosen = DPMSolverMultistepScheduler(**common)
    elif sample.sampler == "ddim":
        chosen = DDIMScheduler(**common, **clamped)
    else:
        chosen = DDPMScheduler(**common, **clamped)
    chosen.set_timesteps(sample.steps)
    return chosen


def denoise(
    predict: Callable[[Tensor, Tensor], Tensor],
    scheduler,
    z: Tensor,
    generators: list[torch.Generator],
) -> Tensor:
    """Run a scheduler from noise to clean latents.

    Args:
        predict: (z_t, timestep) -> what the schedule's prediction type names, shaped like z_t.
        scheduler: from diffusers, its timesteps set.
        z: noise (b, ...).
        generators: b of them, for samplers that add noise on the way.
    """
    scheduler.set_timesteps(len(scheduler.timesteps))
    for timestep in scheduler.timesteps:
        z = scheduler.step(predict(z, timestep), timestep, z, generator=generators).prev_sample
    return z


@torch.inference_mode()
def sample_latents(
    denoiser: Denoiser,
    conditioning: Conditioning,
    scheduler,
    neighbours: Tensor | None,
    images: range,
    seed: int,
) -> Tensor:
    """Draw latents (b, c, H, W), normalised as the denoiser's were in training.

    All blocks are denoised together; only a row that is told the previous block goes block by
    block, each told the finished one before it. Noise is a function of (seed, image, block), drawn
    on the CPU, so that image i is the same at any batch size and on any device up to rounding.

    Args:
        denoiser: in evaluation mode.
        conditioning: of the row.
        scheduler: from diffusers (`scheduler`).
        neighbours: rows of each image's neighbours in the database, (b, k), where it retrieves.
        images: numbers of the images, b of them.
        seed: of the row.
    """
    row, n, b = conditioning.row, conditioning.blocks, len(images)
    device, channels = conditioning.table.device, conditioning.table.shape[1]
    side = conditioning.database.shape[-1] // row.blocks
    generators = [
        [torch.Generator().manual_seed(runtime.seeded(seed, i, j)) for j in range(n)]
        for i in images
    ]
    noise = [[torch.randn(channels, side, side, generator=g) for g in gs] for gs in generators]
    z = torch.stack([torch.stack(of) for of in noise]).to(device)  # b n c h w
    for some in [[j] for j in range(n)] if row.previous else [list(range(n))]:
        told = conditioning.told(neighbours, blocks.join(z, row.blocks), b)
        told = _only(told, some, b, n)
        with runtime.autocast(device):
            context = denoiser.stem.context(told)

        def predict(z_t: Tensor, timestep: Tensor, told=told, context=context) -> Tensor:
            if row.halo:
                whole = blocks.join(z_t.unflatten(0, (b, n)), row.blocks)
                z_t = conditioning.cut_noisy(whole)
            steps = timestep.to(device).expand(len(z_t))
            with runtime.autocast(device):
                return denoiser(z_t, steps, context, told.position).float()

        chosen = [gs[j] for gs in generators for j in some]
        clean = denoise(predict, scheduler, z[:, some].flatten(0, 1), chosen)
        z[:, some] = clean.unflatten(0, (b, len(some)))
    return blocks.join(z, row.blocks)


def _only(told: Told, some: list[int], b: int, n: int) -> Told:
    """What is told of some of the n blocks of each of b images."""

    def pick(all_blocks: Tensor | None) -> Tensor | None:
        if all_blocks is None:
            return None
        return all_blocks.unflatten(0, (b, n))[:, some].flatten(0, 1)

    return Told(pick(told.neighbours), pick(told.previous), pick(told.position))
