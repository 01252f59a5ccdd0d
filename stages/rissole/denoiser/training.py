"""The training loop of the block denoiser: nothing but the U-Net step is in it (section 4.1.3)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from rissole.denoiser import diffusion
from rissole.denoiser.conditioning import Conditioning
from rissole.denoiser.denoiser import Denoiser
from rissole.ground import runtime
from rissole.ground.schema import LDM


@dataclass(frozen=True)
class Images:
    """A split in memory: codes (n, h, w) and the rows of the neighbours, (n, k) or None."""

    codes: Tensor
    neighbours: Tensor | None


@dataclass(frozen=True)
class Progress:
    """One step of training: from 1; its loss; at some steps the validation loss, else None."""

    step: int
    loss: Tensor
    validation: float | None


def block_loss(
    denoiser: Denoiser, conditioning: Conditioning, ldm: LDM, images: Images, rows: Tensor
) -> Tensor:
    """The mean squared error over all blocks of a batch of images (equation 2, mean for sum).

    All blocks go through the U-Net as one batch. Draws noise and timesteps from torch's global
    generator.

    Args:
        denoiser: the network of one block.
        conditioning: gathers latents and what is told of their blocks.
        ldm: prediction type, schedule, and what shares a timestep.
        images: the split that `rows` (b) choose from.
        rows: of the images, int64 (b).
    """
    b, n, device = len(rows), conditioning.blocks, rows.device
    z = conditioning.latents(images.codes[rows])  # b c H W
    drawn = {"block": (b, n), "image": (b, 1), "batch": (1, n)}[ldm.share_timestep]
    timestep = torch.randint(ldm.timesteps, drawn, device=device).expand(b, n)
    signal = diffusion.signal(ldm.schedule, ldm.timesteps, device)[timestep]
    signal = conditioning.spread(signal, z)  # b 1 H W
    noise = torch.randn_like(z)
    z_t = diffusion.noised(z, noise, signal)
    neighbours = None if images.neighbours is None else images.neighbours[rows]
    told = conditioning.told(neighbours, z, b)
    with runtime.autocast(device):
        context = denoiser.stem.context(told)
        predicted = denoiser(
            conditioning.cut_noisy(z_t), timestep.flatten(), context, told.position
        )
    target = diffusion.target(ldm.prediction, z, noise, signal)
    return F.mse_loss(predicted.float(), conditioning.cut(target))


def train(
    denoiser: Denoiser,
    averaged: AveragedModel,
    conditioning: Conditioning,
    ldm: LDM,
    seed: int,
    train: Images,
    val: Images,
) -> Iterator[Progress]:
    """Train `denoiser` in place, and `averaged` with it; yield after each step.

    Order, noise, timesteps and dropout are functions of (seed, step). The validation loss is that
    of the averaged weights, at fixed timesteps and noise, over at most 256 val images.

    Args:
        denoiser: trained in place.
        averaged: its moving average (`averaging`).
        conditioning: gathers latents and what is told of their blocks.
        ldm: the settings of the row.
        seed: of the run.
        train: images to learn from.
        val: images to validate on.
    """
    optimiser = torch.optim.Adam(denoiser.parameters(), fused=True)
    device = train.codes.device
    validated = {round(ldm.steps * (i + 1) / ldm.validations) for i in range(ldm.validations)}
    for step in range(ldm.steps):
        rows = _batch(step, len(train.codes), ldm.batch, seed).to(device)
        for group in optimiser.param_groups:
            group["lr"] = runtime.learning_rate(
                step, ldm.steps, ldm.learning_rate, ldm.warm_up, ldm.decay_from
            )
        torch.manual_seed(runtime.seeded(seed, step))
        denoiser.train()
        loss = block_loss(denoiser, conditioning, ldm, train, rows)
        optimiser.zero_grad()
        loss.backward()
        if ldm.clip is not None:
            torch.nn.utils.clip_grad_norm_(denoiser.parameters(), ldm.clip)
        optimiser.step()
        averaged.update_parameters(denoiser)
        validation = None
        if step + 1 in validated:
            validation = _validate(averaged.module, conditioning, ldm, val, seed)
        yield Progress(step + 1, loss.detach(), validation)


def averaging(denoiser: Denoiser, decay: float) -> AveragedModel:
    """A moving average of the weights; its decay rises to `decay` as steps are taken."""

    steps = count(1)  # the tensor that torch counts with would have to come back from the device

    def mix(averages: list[Tensor], weights: list[Tensor], _: Tensor) -> None:
        taken = next(steps)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + taken) / (10 + taken)))

    return AveragedModel(denoiser, multi_avg_fn=mix)


def _batch(step: int, images: int, batch: int, seed: int) -> Tensor:
    """Rows of a step: all images in a new order each epoch, epochs strung together."""
    parts, start, missing = [], step * batch, batch
    while missing:
        epoch, place = divmod(start, images)
        parts.append(_order(epoch, images, seed)[place : place + missing])
        start, missing = start + len(parts[-1]), missing - len(parts[-1])
    return torch.cat(parts)


@lru_cache(maxsize=2)
def _order(epoch: int, images: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(runtime.seeded(seed, epoch, images))
    return torch.randperm(images, generator=generator)


@torch.no_grad()
def _validate(
    denoiser: Denoiser, conditioning: Conditioning, ldm: LDM, val: Images, seed: int
) -> float:
    denoiser.eval()
    torch.manual_seed(runtime.seeded(seed))
    losses, counts = [], []
    chosen = torch.from_numpy(runtime.evenly(len(val.codes), 256)).to(val.codes.device)
    for rows in chosen.split(ldm.batch):
        losses.append(block_loss(denoiser, conditioning, ldm, val, rows).item())
        counts.append(len(rows))
    return sum(x * n for x, n in zip(losses, counts, strict=True)) / sum(counts)
