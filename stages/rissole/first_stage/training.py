"""The training of the first stage: one loop, its data in memory, every draw from one seed."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from rissole.dataset import images
from rissole.first_stage import losses
from rissole.first_stage.vqgan import VQGAN
from rissole.ground import runtime, schema

Terms = dict[str, Tensor]


def train(
    settings: schema.VQGAN, pixels: np.ndarray, seed: int, device: torch.device
) -> Iterator[tuple[VQGAN, Terms]]:
    """Train a first stage on images, uint8 (n, h, w, 3); yield it with its terms at each step.

    The discriminator, where there is one, first trains alone, so that what the decoder is told
    comes from one that has seen something.
    """
    torch.manual_seed(runtime.seeded(seed))
    model = VQGAN(settings).to(device).train()
    distance = losses.perceptual(settings)
    distance = None if distance is None else distance.to(device)
    optimiser = _adam(model)
    discriminator = discriminator_optimiser = None
    if settings.adversarial_weight:
        discriminator = losses.discriminator(settings.discriminator_layers).to(device)
        discriminator_optimiser = _adam(discriminator)
    batches = _batches(settings, pixels, seed)
    for step in range(settings.steps):
        x = images.to_float(next(batches)).to(device)
        x_hat, terms = _forward(model, distance, x, settings)
        loss = terms["loss"]
        if discriminator is not None and step >= settings.adversarial_start * settings.steps:
            terms["adversarial"] = -discriminator(x_hat).mean()
            loss = loss + terms["adversarial"] * losses.adaptive_weight(
                loss,
                terms["adversarial"],
                model.last_layer,
                settings.adversarial_weight,
                settings.adversarial_cap,
            )
        _descend(optimiser, loss, step, settings)
        if discriminator is not None and step >= settings.discriminator_start * settings.steps:
            terms["discriminator"] = losses.hinge(discriminator(x), discriminator(x_hat.detach()))
            _descend(discriminator_optimiser, terms["discriminator"], step, settings)
        yield model, {name: term.detach() for name, term in terms.items()}


def _forward(
    model: VQGAN, distance: nn.Module | None, x: Tensor, settings: schema.VQGAN
) -> tuple[Tensor, Terms]:
    """The reconstruction of `x`, the terms of its loss, and the loss without a discriminator's."""
    looked_at = max(1, round(len(x) * settings.perceptual_share))
    with runtime.autocast(x.device):
        x_hat, _, commitment = model(x)
        x_hat = x_hat.float()
        terms = {
            "reconstruction": losses.reconstruction(x, x_hat, settings.l1, settings.l2),
            "commitment": commitment,
        }
        loss = terms["reconstruction"] + commitment
        if distance is not None:
            terms["perceptual"] = distance(x[:looked_at], x_hat[:looked_at])
            loss = loss + settings.perceptual_weight * terms["perceptual"]
    return x_hat, {"loss": loss} | terms


def _adam(network: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), betas=(0.9, 0.99), fused=True)


def _descend(optimiser: torch.optim.Adam, loss: Tensor, step: int, settings: schema.VQGAN) -> None:
    for group in optimiser.param_groups:
        group["lr"] = runtime.learning_rate(
            step, settings.steps, settings.learning_rate, settings.warm_up, settings.decay_from
        )
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _batches(settings: schema.VQGAN, pixels: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Batches without end: every image once before any comes again, each mirrored by chance."""
    draw = np.random.default_rng(runtime.seeded(seed, 1))
    queue = np.empty(0, int)
    while True:
        while len(queue) < settings.batch:
            queue = np.append(queue, draw.permutation(len(pixels)))
        batch, queue = pixels[queue[: settings.batch]], queue[settings.batch :]
        if settings.flips:
            mirrored = draw.random(settings.batch) < 0.5
            batch[mirrored] = batch[mirrored, :, ::-1]
        yield batch
