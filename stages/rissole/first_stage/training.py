"""The training of the first stage: one loop, and every draw from one seed."""

from collections.abc import Iterator
from itertools import islice

from rissole.dataset import images
from rissole.first_stage import losses
from rissole.first_stage.vqgan import VQGAN
from rissole.ground import processes, runtime, schema
from rissole.ground.descent import Descent, learning_rate
from rissole.ground.errors import InputError

import numpy as np
import torch
from torch import Tensor, nn

TERMS = (  # what a step measures, the last two not at all
    "loss",
    "reconstruction",
    "commitment",
    "perceptual",
    "adversarial",
    "discriminator",
)
Terms = dict[str, Tensor]
BETAS = (0.9, 0.99)  # of Adam


class Learner:
    """A first stage in training, with its discriminator where the settings want one.

    Args:
        settings: section `vqgan`.
        seed: of the run.
        device: to train on.
    """

    def __init__(self, settings: schema.VQGAN, seed: int, device: torch.device):
        torch.manual_seed(runtime.seeded(seed))
        self.step = 0
        self.model = VQGAN(settings).to(device).train()
        self.descents = {"model": Descent(self.model, BETAS)}
        self.discriminator = None
        if settings.adversarial_weight:
            self.discriminator = losses.discriminator(settings.discriminator_layers).to(device)
            self.descents["discriminator"] = Descent(self.discriminator, BETAS)

    def state(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """What it takes to go on from here: tensors and numbers."""
        tensors = {
            f"{part}/{name}": tensor
            for part, descent in self.descents.items()
            for name, tensor in descent.state().items()
        }
        return tensors, {"step": self.step}

    def load(self, tensors: dict[str, Tensor], numbers: dict[str, float]) -> None:
        """Go on from a `state`."""
        parts = {part: {} for part in self.descents}
        for name, tensor in tensors.items():
            part, _, name = name.partition("/")
            parts[part][name] = tensor
        for part, descent in self.descents.items():
            descent.load(parts[part])
        self.step = numbers["step"]


def train(
    learner: Learner, settings: schema.VQGAN, pixels: np.ndarray, seed: int, device: torch.device
) -> Iterator[Terms]:
    """Train a first stage from where the learner stands; yield the terms of each step.

    The discriminator, where there is one, first trains alone, so that what the decoder is told
    comes from one that has seen something. Batches, and the codes that are placed anew, are
    functions of (seed, step). Several processes learn from a share of the batch each; the
    discriminator's batch norms alone know only their share.

    Args:
        learner: trained in place.
        settings: section `vqgan`.
        pixels: uint8 (n, h, w, 3).
        seed: of the run.
        device: that the learner is on.

    Raises:
        InputError: the batch cannot be shared out evenly.
    """
    distance = losses.perceptual(settings)
    distance = None if distance is None else distance.to(device)
    model, discriminator = learner.model, learner.discriminator
    if settings.batch % processes.count():
        raise InputError(
            f"params.yaml: vqgan.batch is {settings.batch}: {processes.count()} processes cannot"
            " share it evenly; change either"
        )
    batches = _batches(settings, pixels, seed, learner.step)
    for step in range(learner.step, settings.steps):
        torch.manual_seed(runtime.seeded(seed, step))
        x = images.to_float(processes.share(next(batches)), device)
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
        learner.descents["model"].step(loss, _rate(step, settings))
        if discriminator is not None and step >= settings.discriminator_start * settings.steps:
            terms["discriminator"] = losses.hinge(discriminator(x), discriminator(x_hat.detach()))
            learner.descents["discriminator"].step(terms["discriminator"], _rate(step, settings))
        learner.step = step + 1
        yield {name: processes.mean_(term.detach()) for name, term in terms.items()}


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


def _batches(
    settings: schema.VQGAN, pixels: np.ndarray, seed: int, start: int
) -> Iterator[np.ndarray]:
    """Batches without end, from one on: every image once before any comes again, some mirrored."""
    for rows, mirrored in islice(_drawn(settings, len(pixels), seed), start, None):
        batch = pixels[rows]
        batch[mirrored] = batch[mirrored, :, ::-1]
        yield batch


def _drawn(
    settings: schema.VQGAN, images: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each batch the images, int64 (b), and which of them are mirrored, bool (b)."""
    draw = np.random.default_rng(runtime.seeded(seed, 1))
    queue = np.empty(0, int)
    while True:
        while len(queue) < settings.batch:
            queue = np.append(queue, draw.permutation(images))
        rows, queue = queue[: settings.batch], queue[settings.batch :]
        chance = 0.5 if settings.flips else 0.0
        yield rows, draw.random(settings.batch) < chance
