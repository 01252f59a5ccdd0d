"""The training loop of the block denoiser: nothing but the U-Net step is in it (section 4.1.3)."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from rissole.denoiser import diffusion, views
from rissole.denoiser.conditioning import Conditioning
from rissole.denoiser.denoiser import Denoiser
from rissole.denoiser.views import Grid, Patches
from rissole.ground import memory, processes, runtime
from rissole.ground.descent import Descent, flatten, learning_rate
from rissole.ground.errors import InputError
from rissole.ground.schema import LDM
from rissole.latent.latents import take

import torch
import torch.nn.functional as F
from torch import Tensor

TERMS = ("loss", "validation")  # what a step of `train` measures


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


def block_loss(
    denoiser: Denoiser,
    conditioning: Conditioning,
    ldm: LDM,
    images: Images,
    rows: Tensor,
    view: Grid | Patches,
) -> Tensor:
    """The mean squared error over all blocks of a batch of images (equation 2, mean for sum).

    All blocks go through the U-Net as one batch. Draws noise and timesteps from torch's global
    generator, for the whole batch; where several processes share it, the loss is that of a share.

    Args:
        denoiser: the network of one block.
        conditioning: gathers latents and what is told of their blocks.
        ldm: prediction type, schedule, and what shares a timestep.
        images: the split that `rows` (b) choose from.
        rows: of the images, int64 (b).
        view: what the network sees of them.
    """
    rows = rows.repeat_interleave(view.copies)
    b, n, device = len(rows), view.blocks, rows.device
    drawn = {"block": (b, n), "image": (b, 1), "batch": (1, n)}[ldm.share_timestep]
    timestep = torch.randint(ldm.timesteps, drawn, device=device).expand(b, n)
    noise = conditioning.noise(b)
    rows, timestep, noise = (processes.share(of) for of in (rows, timestep, noise))
    view = view.share()
    if denoiser.training and processes.count() > 1:  # masks of dropout are each process's own
        torch.manual_seed(runtime.seeded(torch.initial_seed(), processes.rank()))

    z = conditioning.grid.lay(conditioning.latents(take(images.codes, rows)))  # b c H W
    signal = diffusion.signal(ldm.schedule, ldm.timesteps, device)[timestep]
    signal = view.spread(signal, z)  # b 1 H W
    z_t = diffusion.noised(z, noise, signal)
    neighbours = None if images.neighbours is None else images.neighbours[rows]
    told = conditioning.told(neighbours, z, len(rows))
    with runtime.autocast(device):
        context = denoiser.context(told)
        predicted = denoiser(view.cut_noisy(z_t), timestep.flatten(), context, told.position)
    target = view.cut(diffusion.target(ldm.prediction, z, noise, signal))
    answers = predicted.float().unflatten(0, (-1, len(target)))  # Patch-DM gives two for each
    return F.mse_loss(answers, target.expand_as(answers))


class Learner:
    """A denoiser in training, its moving average, and its way down.

    Args:
        network: of one block, on its device.
    """

    def __init__(self, network: Denoiser):
        self.averaged = copy.deepcopy(network).eval().requires_grad_(False)
        self.network, self.descent = network, Descent(network)
        self.averages = flatten(self.averaged)
        self.step, self.best_step = 0, 0
        self.best, self.best_validation = self.averages.clone(), float("inf")

    def learn(self, loss: Tensor, ldm: LDM) -> None:
        """One step down a loss; the decay of the average rises to `ldm.average` as they add up."""
        rate = learning_rate(self.step, ldm.steps, ldm.learning_rate, ldm.warm_up, ldm.decay_from)
        self.descent.step(loss, rate, ldm.clip)
        decay = min(ldm.average, (1 + self.step) / (10 + self.step)) if self.step else 0.0
        self.averages.lerp_(self.descent.weights.data, 1 - decay)
        self.step += 1

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
    learner.network.train()
    for step in range(learner.step, ldm.steps):
        rows = _batch(step, len(train.codes), ldm.batch, seed, device)
        torch.manual_seed(runtime.seeded(seed, step))
        view = views.drawn(conditioning.row, len(rows), device)
        loss = block_loss(learner.network, conditioning, ldm, train, rows, view)
        learner.learn(loss, ldm)
        terms = {"loss": processes.mean_(loss.detach())}
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
    generator = torch.Generator().manual_seed(runtime.seeded(seed, epoch, images))
    return torch.randperm(images, generator=generator).to(device)


@torch.no_grad()
def _validate(
    denoiser: Denoiser, conditioning: Conditioning, ldm: LDM, val: Images, seed: int
) -> float:
    torch.manual_seed(runtime.seeded(seed))
    chosen = torch.from_numpy(runtime.evenly(len(val.codes), 256)).to(conditioning.device)
    total = torch.zeros((), dtype=torch.float64, device=chosen.device)
    for rows in chosen.split(ldm.batch):
        view = views.drawn(conditioning.row, len(rows), rows.device)
        mine = len(processes.share(rows.repeat_interleave(view.copies))) / view.copies
        if mine:
            total += mine * block_loss(denoiser, conditioning, ldm, val, rows, view)
    return processes.sum_(total).item() / len(chosen)
