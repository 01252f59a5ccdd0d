"""The training loop of the block denoiser: nothing but the U-Net step is in it (section 4.1.3)."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from rissole.core import memory, numerics, processes, threads
from rissole.core.descent import Descent, flatten, learning_rate
from rissole.denoiser import diffusion, views
from rissole.denoiser.conditioning import Conditioning
from rissole.denoiser.denoiser import Denoiser, Network
from rissole.denoiser.settings import LDM
from rissole.denoiser.views import Grid, Patches
from rissole.harness.errors import InputError
from rissole.latent.latents import take

import torch
import torch.nn.functional as F
from torch import Tensor

TERMS = ("loss", "validation")  # what a step of `train` measures
VALIDATED = 256  # val images that a validation loss is taken over
VERSION = 1  # of this loop: raise it where a change would continue a checkpoint differently


@dataclass(frozen=True)
class Images:
    """A split in memory: codes (n, h, w) and the rows of the neighbours, (n, k) or None."""

    codes: Tensor
    neighbours: Tensor | None

    def to(self, device: torch.device) -> "Images":
        """The same, neighbours on `device`, and codes if they fit (see `latents.take`)."""
        codes, neighbours = self.codes, self.neighbours
        if memory.fits(codes.numel() * codes.itemsize, device):
            codes = codes.to(device)
        return Images(codes, None if neighbours is None else neighbours.to(device))


@dataclass(frozen=True)
class Batch:
    """What a step learns from: everything that is drawn at random, for all of its images.

    Attributes:
        rows: of the images, as often as they are seen, int64 (b).
        timestep: of each block, int64 (b, n).
        noise: (b, c, H, W).
        view: what the network sees of them.
    """

    rows: Tensor
    timestep: Tensor
    noise: Tensor
    view: Grid | Patches

    def __len__(self) -> int:
        return len(self.rows)

    def some(self, copies: slice) -> "Batch":
        """That of some images only."""
        rows, timestep, noise = (of[copies] for of in (self.rows, self.timestep, self.noise))
        return Batch(rows, timestep, noise, self.view.some(copies))

    def split(self, parts: int) -> list["Batch"]:
        """Parts of nearly one size, of as many images as there are at most."""
        ends = [round(i * len(self) / parts) for i in range(parts + 1)]
        pairs = zip(ends, ends[1:], strict=False)
        return [self.some(slice(a, b)) for a, b in pairs if a < b]


def draw(conditioning: Conditioning, ldm: LDM, rows: Tensor, view: Grid | Patches) -> Batch:
    """Draw timesteps and noise from torch's global generator for images `rows`, int64 (b).

    Where several processes share a batch, all draw all of it and keep their share.
    """
    rows = rows.repeat_interleave(view.copies)
    b, n = len(rows), view.blocks
    drawn = {"block": (b, n), "image": (b, 1), "batch": (1, n)}[ldm.share_timestep]
    timestep = torch.randint(ldm.timesteps, drawn, device=rows.device).expand(b, n)
    batch = Batch(rows, timestep, conditioning.noise(b), view)
    return batch.some(slice(processes.rank(), None, processes.count()))


def block_loss(
    denoiser: Denoiser, conditioning: Conditioning, ldm: LDM, images: Images, batch: Batch
) -> Tensor:
    """The mean squared error over all blocks of a batch of images (equation 2, mean for sum).

    All blocks go through the U-Net as one batch.

    Args:
        denoiser: the network of one block.
        conditioning: gathers latents and what is told of their blocks.
        ldm: prediction type and schedule.
        images: the split that the batch is of.
        batch: images, timesteps and noise.
    """
    view, rows = batch.view, batch.rows
    z = conditioning.latents(take(images.codes, rows))  # b c H W
    signal = diffusion.signal(ldm.schedule, ldm.timesteps, rows.device)[batch.timestep]
    signal = view.spread(signal, z)  # b 1 H W
    z_t = diffusion.noised(z, batch.noise, signal)
    neighbours = None if images.neighbours is None else images.neighbours[rows]
    told = conditioning.told(neighbours, z, len(rows))
    with numerics.autocast(rows.device):
        context = denoiser.context(told)
        predicted = denoiser(
            view.cut_noisy(z_t), batch.timestep.flatten(), context, told.position
        )  # (b n) c h w
    target = view.cut(diffusion.target(ldm.prediction, z, batch.noise, signal))
    answers = predicted.float().unflatten(0, (-1, len(target)))  # Patch-DM gives two for each
    return F.mse_loss(answers, target.expand_as(answers))


class Learner:
    """A denoiser in training, its moving average, and its way down.

    Args:
        network: of one block, on its device.
    """

    def __init__(self, network: Denoiser):
        self.averaged = copy.deepcopy(network).eval().requires_grad_(False)
        self.network, self.descent = network, Descent(network, copies=threads.count())
        self.averages = flatten(self.averaged)
        self.step, self.best_step = 0, 0
        self.best, self.best_validation = self.averages.clone(), float("inf")

    def learn(self, loss_of: Callable[[Network, Batch], Tensor], batch: Batch, ldm: LDM) -> Tensor:
        """One step down the loss of a batch, a share of it in each thread; returns the loss.

        The decay of the moving average rises to `ldm.average` with the steps.
        """

        def backward(network: Network, share: Batch) -> Tensor:
            loss = loss_of(network, share) * (len(share) / len(batch))
            loss.backward()
            return loss.detach()

        losses = self.descent.backward(backward, batch.split(self.descent.copies))
        rate = learning_rate(self.step, ldm.steps, ldm.learning_rate, ldm.warm_up, ldm.decay_from)
        self.descent.step(rate, ldm.clip)
        decay = min(ldm.average, (1 + self.step) / (10 + self.step)) if self.step else 0.0
        self.averages.lerp_(self.descent.weights.data, 1 - decay)
        self.step += 1
        return torch.stack(losses).sum()

    def judge(self, validation: float) -> None:
        """Keep the averaged weights of this step if their validation loss is the lowest so far."""
        if validation < self.best_validation:
            self.best.copy_(self.averages)
            self.best_step, self.best_validation = self.step, validation

    def state(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """What it takes to go on from here: tensors and numbers."""
        tensors = self.descent.state() | {"averages": self.averages, "best": self.best}
        numbers = {name: getattr(self, name) for name in ("step", "best_step", "best_validation")}
        return tensors, numbers

    def load(self, tensors: dict[str, Tensor], numbers: dict[str, float]) -> None:
        """Go on from a `state`."""
        self.averages.copy_(tensors.pop("averages"))
        self.best.copy_(tensors.pop("best"))
        self.descent.load(tensors)
        for name, number in numbers.items():
            setattr(self, name, number)


def train(
    learner: Learner,
    conditioning: Conditioning,
    ldm: LDM,
    seed: int,
    train: Images,
    val: Images,
) -> Iterator[dict[str, Tensor | float]]:
    """Train from where the learner stands; yield each step's loss, and at some its validation.

    Order, noise, timesteps and dropout are functions of (seed, step). Several processes draw the
    whole batch alike and learn from a share of it each. The validation loss is that of the
    averaged weights, at fixed timesteps and noise, over at most 256 val images.

    Args:
        learner: trained in place.
        conditioning: gathers latents and what is told of their blocks.
        ldm: section `ldm`.
        seed: of the run.
        train: images to learn from.
        val: images to validate on.

    Raises:
        InputError: the batch cannot be shared out evenly.
    """
    if ldm.batch % processes.count():
        raise InputError(
            f"params.yaml: ldm.batch is {ldm.batch}: {processes.count()} processes cannot share it"
            " evenly; change either"
        )
    device = conditioning.device
    validated = {round(ldm.steps * (i + 1) / ldm.validations) for i in range(ldm.validations)}
    learner.descent.train()

    def loss_of(network: Network, share: Batch) -> Tensor:
        return block_loss(network, conditioning, ldm, train, share)

    for step in range(learner.step, ldm.steps):
        rows = _batch(step, len(train.codes), ldm.batch, seed, device)
        torch.manual_seed(numerics.seeded(seed, step))
        batch = draw(conditioning, ldm, rows, views.drawn(conditioning.row, len(rows), device))
        loss = learner.learn(loss_of, batch, ldm)
        terms = {"loss": processes.mean_(loss)}
        if step + 1 in validated:
            terms["validation"] = _validate(learner.averaged, conditioning, ldm, val, seed)
            learner.judge(terms["validation"])
        yield terms


def _batch(step: int, images: int, batch: int, seed: int, device: torch.device) -> Tensor:
    """Rows of a step: all images in a new order each epoch, epochs strung together."""
    parts, start, missing = [], step * batch, batch
    while missing:
        epoch, place = divmod(start, images)
        parts.append(_order(epoch, images, seed, device)[place : place + missing])
        start, missing = start + len(parts[-1]), missing - len(parts[-1])
    return torch.cat(parts)


@lru_cache(maxsize=2)
def _order(epoch: int, images: int, seed: int, device: torch.device) -> Tensor:
    """On the device, as a copy in each step would have the host wait for it."""
    generator = torch.Generator().manual_seed(numerics.seeded(seed, epoch, images))
    return torch.randperm(images, generator=generator).to(device)


@torch.no_grad()
def _validate(
    denoiser: Network, conditioning: Conditioning, ldm: LDM, val: Images, seed: int
) -> float:
    torch.manual_seed(numerics.seeded(seed))
    chosen = torch.from_numpy(numerics.evenly(len(val.codes), VALIDATED)).to(conditioning.device)
    batches = []
    for rows in chosen.split(ldm.batch):
        view = views.drawn(conditioning.row, len(rows), rows.device)
        batch = draw(conditioning, ldm, rows, view)
        if len(batch):
            batches.append(batch)

    def loss_of(batch: Batch) -> Tensor:
        seen = len(batch) / batch.view.copies
        return seen * block_loss(denoiser, conditioning, ldm, val, batch).double()

    total = torch.zeros((), dtype=torch.float64, device=chosen.device)
    total += sum(threads.in_parallel(loss_of, batches))
    return processes.sum_(total).item() / len(chosen)
