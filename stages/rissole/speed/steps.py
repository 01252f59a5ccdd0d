"""Steps of training and of drawing against the algorithm as it is written, and one another."""

from rissole.denoiser import training as ours
from rissole.denoiser.denoiser import Denoiser
from rissole.drawing import samplers
from rissole.drawing import sampling as drawing
from rissole.speed import reference
from rissole.speed.timing import interleaved
from rissole.speed.worlds import World, rows

import torch
from torch import Tensor

DRAWN, STEPS = 16, 5  # images, and steps of the sampler, that sampling is timed on


def training(world: World, repeats: int) -> dict[str, float]:
    """`train_speedup`: a step of the reference over one of ours, forward and backward."""
    seconds = interleaved(
        {
            "ours": lambda: learn(world.denoiser, our_loss(world)),
            "reference": lambda: learn(world.denoiser, reference_loss(world)),
        },
        repeats,
    )
    return {
        "train_speedup": seconds["reference"] / seconds["ours"],
        "train_images_per_second": world.ldm.batch / seconds["ours"],
    }


def our_loss(world: World) -> Tensor:
    """Of a fixed batch, noise and timesteps."""
    torch.manual_seed(0)
    batch = ours.draw(world.conditioning, world.ldm, rows(world), world.conditioning.grid)
    return ours.block_loss(world.denoiser, world.conditioning, world.ldm, world.images, batch)


def reference_loss(world: World) -> Tensor:
    """Of the same, by the algorithm as it is written."""
    torch.manual_seed(0)
    return reference.block_loss(
        world.denoiser,
        world.conditioning,
        world.ldm,
        world.first_stage,
        world.database,
        rows(world),
    )


def sampling(world: World, repeats: int) -> dict[str, float]:
    """`sample_speedup_equal_steps`: the reference's latents over ours, at as many steps."""
    world.denoiser.eval()
    seconds = interleaved(
        {"ours": lambda: our_latents(world), "reference": lambda: reference_latents(world)}, repeats
    )
    world.denoiser.train()
    return {
        "sample_speedup_equal_steps": seconds["reference"] / seconds["ours"],
        "sampled_image_steps_per_second": DRAWN * STEPS / seconds["ours"],
    }


def our_latents(world: World) -> Tensor:
    """Latents drawn in a few steps, all blocks together."""
    told = world.images.neighbours[:DRAWN]
    return drawing.sample_latents(
        world.denoiser, world.conditioning, _sampler(world), told, range(DRAWN), 0
    )


def reference_latents(world: World) -> Tensor:
    """The same, block after block."""
    told = world.images.neighbours[:DRAWN]
    return reference.sample_latents(
        world.denoiser,
        world.conditioning,
        _sampler(world),
        world.database,
        told,
        range(DRAWN),
        0,
    )


def neighbours_cost(world: World, repeats: int) -> dict[str, float]:
    """`train_step_k20_over_k4`: a training step with 20 neighbours over one with 4."""
    steps, codes = {}, world.images.codes
    for k in (4, 20):
        told = torch.randint(len(codes), (len(codes), k), device=codes.device)
        denoiser = Denoiser(world.denoiser.row, world.ldm, world.denoiser.sizes["channels"], k)
        denoiser.to(told.device)

        def step(denoiser=denoiser, told=told) -> None:
            images, conditioning = ours.Images(codes, told), world.conditioning
            batch = ours.draw(conditioning, world.ldm, rows(world), conditioning.grid)
            learn(denoiser, ours.block_loss(denoiser, conditioning, world.ldm, images, batch))

        steps[k] = step
    seconds = interleaved(steps, repeats)
    return {"train_step_k20_over_k4": seconds[20] / seconds[4]}


def learn(module: torch.nn.Module, loss: Tensor) -> None:
    """Forward and backward, without a step."""
    module.zero_grad()
    loss.backward()


def _sampler(world: World) -> samplers.Sampler:
    sample = world.sample.model_copy(update={"steps": STEPS})
    return samplers.build(world.ldm, sample, world.conditioning.limit)
