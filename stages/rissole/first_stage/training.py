"""The training of the first stage: one loop, its data in memory, every draw from one seed."""

from collections.abc import Iterator

from rissole.dataset import images
from rissole.first_stage import losses
from rissole.first_stage.vqgan import VQGAN
from rissole.ground import processes, runtime, schema
from rissole.ground.descent import Descent, learning_rate
from rissole.ground.errors import InputError

import numpy as np
import torch
from torch import Tensor, nn

Terms = dict[str, Tensor]
BETAS = (0.9, 0.99)  # of Adam


def train(
    settings: schema.VQGAN, pixels: np.ndarray, seed: int, device: torch.device
) -> Iterator[tuple[VQGAN, Terms]]:
    """Train a first stage on images, uint8 (n, h, w, 3); yield it with its terms at each step.

    The discriminator, where there is one, first trains alone, so that what the decoder is told
    comes from one that has seen something. Several processes learn from a share of the batch each;
    the discriminator's batch norms alone know only their share.

    Raises:
        InputError: the batch cannot be shared out evenly.
    """
    torch.manual_seed(runtime.seeded(seed))
    model = VQGAN(settings).to(device).train()
    distance = losses.perceptual(settings)
    distance = None if distance is None else distance.to(device)
    descent = Descent(model, BETAS)
    discriminator = opponent = None
    if settings.adversarial_weight:
        discriminator = losses.discriminator(settings.discriminator_layers).to(device)
        opponent = Descent(discriminator, BETAS)
    if settings.batch % processes.count():
        raise InputError(
            f"params.yaml: vqgan.batch is {settings.batch}: {processes.count()} processes cannot"
            " share it evenly; change either"
        )
    batches = _batches(settings, pixels, seed)
    for step in range(settings.steps):
        x = images.to_float(processes.share(next(batches))).to(device)
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
        descent.step(loss, _rate(step, settings))
        if discriminator is not None and step >= settings.discriminator_start * settings.steps:
            terms["discriminator"] = losses.hinge(discriminator(x), discriminator(x_hat.detach()))
            opponent.step(terms["discriminator"], _rate(step, settings))
        yield model, {name: processes.mean_(term.detach()) for name, term in terms.items()}


def _forward(
    model: VQGAN, distance: nn.Module | None, x: Tensor, settings: schema.VQGAN
) -> tuple[Tensor, Terms]:
    """The reconstruction of `x`, the terms of its loss, and the loss without a discriminator's."""
    looked_at = max(1, round(settings.batch * settings.perceptual_share))  # of the whole batch
    mine = len(processes.share(range(looked_at)))
    with runtime.autocast(x.device):
        x_hat, _, commitment = model(x)
        x_hat = x_hat.float()
        terms = {
            "reconstruction": losses.reconstruction(x, x_hat, settings.l1, settings.l2),
            "commitment": commitment,
        }
        loss = terms["reconstruction"] + commitment
        if distance is not None:
            terms["perceptual"] = x_hat.new_zeros(())
            if mine:
                seen = distance(x[:mine], x_hat[:mine])
                terms["perceptual"] = seen * (mine * processes.count() / looked_at)
            loss = loss + settings.perceptual_weight * terms["perceptual"]
    return x_hat, {"loss": loss} | terms


def _rate(step: int, settings: schema.VQGAN) -> float:
    return learning_rate(
        step, settings.steps, settings.learning_rate, settings.warm_up, settings.decay_from
    )


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
