"""The training of the first stage: one loop, and every draw from one seed."""

from collections.abc import Iterator
from itertools import islice

from rissole.core import numerics, processes, threads
from rissole.core.descent import Descent, learning_rate
from rissole.dataset import images
from rissole.first_stage import losses
from rissole.first_stage.settings import VQGANSettings
from rissole.first_stage.vqgan import VQGAN
from rissole.harness.errors import InputError

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
VERSION = 1  # of this loop: raise it where a change would continue a checkpoint differently


class Learner:
    """A first stage in training, with its discriminator where the settings want one.

    Args:
        settings: section `vqgan`.
        seed: of the run.
        device: to train on.
    """

    def __init__(self, settings: VQGANSettings, seed: int, device: torch.device):
        torch.manual_seed(numerics.seeded(seed))
        self.step = 0
        self.model = VQGAN(settings).to(device).train()
        # A codebook that is learned, and a discriminator's norms, look at a batch as a whole.
        whole = settings.quantiser.kind == "vq" or settings.adversarial_weight > 0
        copies = 1 if whole else threads.count()
        self.descents = {"model": Descent(self.model, BETAS, copies)}
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
    learner: Learner, settings: VQGANSettings, pixels: np.ndarray, seed: int, device: torch.device
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
    discriminator = learner.discriminator
    if settings.batch % processes.count():
        raise InputError(
            f"params.yaml: vqgan.batch is {settings.batch}: {processes.count()} processes cannot"
            " share it evenly; change either"
        )
    batches = _batches(settings, pixels, seed, learner.step)
    for step in range(learner.step, settings.steps):
        torch.manual_seed(numerics.seeded(seed, step))
        x = images.to_float(processes.share(next(batches)), device)
        adverse = discriminator is not None and step >= settings.adversarial_start * settings.steps

        def backward(model: VQGAN, share: range, x=x, adverse=adverse) -> tuple[Tensor, Terms]:
            x_hat, terms = _forward(model, distance, x[share.start :: share.step], share, settings)
            loss = terms["loss"]
            if adverse:
                terms["adversarial"] = -discriminator(x_hat).mean()
                loss = loss + terms["adversarial"] * losses.adaptive_weight(
                    loss,
                    terms["adversarial"],
                    model.last_layer,
                    settings.adversarial_weight,
                    settings.adversarial_cap,
                )
            loss.backward()
            return x_hat.detach(), {name: term.detach() for name, term in terms.items()}

        descent = learner.descents["model"]
        shares = [range(i, len(x), descent.copies) for i in range(min(len(x), descent.copies))]
        made, found = zip(*descent.backward(backward, shares), strict=True)
        terms = {name: torch.stack([of[name] for of in found]).sum() for name in found[0]}
        descent.step(_rate(step, settings))
        if discriminator is not None and step >= settings.discriminator_start * settings.steps:
            loss = losses.hinge(discriminator(x), discriminator(torch.cat(made)))
            learner.descents["discriminator"].backward(lambda _, loss: loss.backward(), [loss])
            learner.descents["discriminator"].step(_rate(step, settings))
            terms["discriminator"] = loss.detach()
        learner.step = step + 1
        yield {name: processes.mean_(term) for name, term in terms.items()}


def _forward(
    model: VQGAN,
    distance: nn.Module | None,
    x: Tensor,
    share: range,
    settings: VQGANSettings,
) -> tuple[Tensor, Terms]:
    """The reconstruction of `x`, and the share of x in the terms of the loss of its batch.

    Args:
        model: the first stage.
        distance: the perceptual one, which looks at the first images of a batch alone.
        x: (b, 3, H, W), the images number `share` of a batch.
        share: their numbers, up to that of all of this process's images.
        settings: section `vqgan`.
    """
    looked_at = max(1, round(settings.batch * settings.perceptual_share))  # in all processes
    mine = len(processes.share(range(looked_at)))  # at the front of this process's images
    seen, part = len(range(share.start, mine, share.step)), len(x) / share.stop
    with numerics.autocast(x.device):
        x_hat, _, commitment = model(x)
        x_hat = x_hat.float()
        reconstruction = losses.reconstruction(x, x_hat, settings.l1, settings.l2)
        terms = {"reconstruction": part * reconstruction, "commitment": part * commitment}
        loss = terms["reconstruction"] + terms["commitment"]
        if distance is not None:
            terms["perceptual"] = x_hat.new_zeros(())
            if seen:
                found = distance(x[:seen], x_hat[:seen])
                terms["perceptual"] = found * (seen * processes.count() / looked_at)
            loss = loss + settings.perceptual_weight * terms["perceptual"]
    return x_hat, {"loss": loss} | terms


def _rate(step: int, settings: VQGANSettings) -> float:
    return learning_rate(
        step, settings.steps, settings.learning_rate, settings.warm_up, settings.decay_from
    )


def _batches(
    settings: VQGANSettings, pixels: np.ndarray, seed: int, start: int
) -> Iterator[np.ndarray]:
    """Batches without end, from one on: every image once before any comes again, some mirrored."""
    for rows, mirrored in islice(_drawn(settings, len(pixels), seed), start, None):
        batch = pixels[rows]
        batch[mirrored] = batch[mirrored, :, ::-1]
        yield batch


def _drawn(
    settings: VQGANSettings, images: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each batch the images, int64 (b), and which of them are mirrored, bool (b)."""
    draw = np.random.default_rng(numerics.seeded(seed, 1))
    queue = np.empty(0, int)
    while True:
        while len(queue) < settings.batch:
            queue = np.append(queue, draw.permutation(images))
        rows, queue = queue[: settings.batch], queue[settings.batch :]
        chance = 0.5 if settings.flips else 0.0
        yield rows, draw.random(settings.batch) < chance
