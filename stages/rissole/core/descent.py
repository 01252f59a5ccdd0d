"""Adam over a single flattened parameter vector, on gradients that several threads compute.

One sum over processes, one norm, one step and one average for all parameters together: with small
networks, a call for each costs as much as a tenth of the training.
"""

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

from rissole.core import numerics, processes, threads

import torch
from torch import Tensor, nn

Share = TypeVar("Share")
Result = TypeVar("Result")


def flatten(network: nn.Module) -> Tensor:
    """Lay out all parameters of a network in one vector, which they are views of from now on."""
    parameters = list(network.parameters())
    vector = torch.cat([torch.empty_like(p.data).flatten() for p in parameters])
    for parameter, view in zip(parameters, _views(vector, parameters), strict=True):
        parameter.data = view.copy_(parameter.data)
    return vector


class Descent:
    """Adam on a network, whose parameters and gradients become views of two vectors.

    Args:
        network: its parameters are laid out anew, on the device that they are on.
        betas: of Adam.
        copies: of the network with gradients of their own, one for each thread that works on a
            share of a batch; they share the parameters and the buffers.
    """

    def __init__(
        self, network: nn.Module, betas: tuple[float, float] = (0.9, 0.999), copies: int = 1
    ):
        self.weights = nn.Parameter(flatten(network))
        self._networks, self._gradients = [network], []
        for _ in range(1, copies):
            # What the copy finds here it takes as its own, instead of copying it.
            own = {id(p): nn.Parameter(p.data) for p in network.parameters()}
            own |= {id(buffer): buffer for buffer in network.buffers()}
            self._networks.append(copy.deepcopy(network, own))
        for of in self._networks:
            parameters, gradient = list(of.parameters()), torch.zeros_like(self.weights.data)
            self._gradients.append(gradient)
            for parameter, view in zip(parameters, _views(gradient, parameters), strict=True):
                parameter.grad = view
        self.weights.grad = self._gradients[0]
        self._buffers = {
            name: buffer
            for name, buffer in network.state_dict().items()
            if name not in dict(network.named_parameters())
        }
        self._parameters = list(network.parameters())
        self.optimiser = torch.optim.Adam([self.weights], betas=betas, fused=True)

    @property
    def copies(self) -> int:
        """Networks with gradients of their own, and so shares of a batch."""
        return len(self._networks)

    def backward(
        self, work: Callable[[nn.Module, Share], Result], shares: Sequence[Share]
    ) -> list[Result]:
        """Sum the gradients of all shares of a batch into those of the parameters.

        Args:
            work: takes a network and a share, and calls `backward` on the share's part of the loss.
            shares: one for each copy of the network.

        Returns:
            What `work` returned for each share.
        """
        base = torch.initial_seed()
        for gradient in self._gradients:
            gradient.zero_()

        def alone(number: int) -> Result:
            if self.copies > 1:  # masks of dropout are each share's own
                threads.seed(numerics.seeded(base, processes.rank(), number))
            elif processes.count() > 1:
                torch.manual_seed(numerics.seeded(base, processes.rank()))
            return work(self._networks[number], shares[number])

        found = list(threads.in_parallel(alone, range(len(shares))))
        for gradient in self._gradients[1:]:
            self._gradients[0].add_(gradient)
        return found

    def train(self) -> None:
        """Put all copies of the network into training mode."""
        for network in self._networks:
            network.train()

    def step(self, rate: float, clip: float | None = None) -> None:
        """One step down the mean gradient over all processes.

        Args:
            rate: learning rate.
            clip: the largest norm of the gradient, or None.
        """
        processes.mean_(self.weights.grad)
        if clip is not None:
            nn.utils.clip_grad_norm_([self.weights], clip)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()

    def live(self) -> int:
        """How many numbers of parameters ever had a gradient."""
        moments = _views(self.optimiser.state[self.weights]["exp_avg_sq"], self._parameters)
        return sum(moment.numel() for moment in moments if moment.any())

    def state(self) -> dict[str, Tensor]:
        """What it takes to go on from here, by name; the tensors are the live ones."""
        return {"weights": self.weights.data} | self.optimiser.state[self.weights] | self._buffers

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state`."""
        state = dict(state)
        self.weights.data.copy_(state.pop("weights"))
        for name, buffer in self._buffers.items():
            buffer.copy_(state.pop(name))
        self.optimiser.state[self.weights] = {
            name: tensor.to(self.weights.device) for name, tensor in state.items()
        }


def learning_rate(step: int, steps: int, peak: float, warm_up: int, decay_from: float) -> float:
    """A linear rise over `warm_up` steps, a plateau, and a linear fall to 2 % of the peak.

    Args:
        step: from 0.
        steps: of the whole training.
        peak: the plateau's rate.
        warm_up: steps.
        decay_from: share of the steps after which the rate falls.
    """
    rise = min(1.0, (step + 1) / (warm_up + 1))
    fall = (steps - step) / max(1.0, steps * (1 - decay_from))
    return peak * rise * max(0.02, min(1.0, fall))


def _views(vector: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """Parts of a vector with the shapes and strides of some parameters."""
    parts = vector.split([p.numel() for p in parameters])
    return [
        torch.as_strided(vector, p.shape, p.stride(), part.storage_offset())
        for p, part in zip(parameters, parts, strict=True)
    ]
