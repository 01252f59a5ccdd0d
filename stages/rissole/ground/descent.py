"""Gradient descent on all parameters of a network as one vector.

One sum over processes, one norm, one step and one average for all parameters together: with small
networks, a call for each costs as much as a tenth of the training.
"""

from rissole.ground import processes

import torch
from torch import Tensor, nn


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
    """

    def __init__(self, network: nn.Module, betas: tuple[float, float] = (0.9, 0.999)):
        self.weights = nn.Parameter(flatten(network))
        self.weights.grad = torch.zeros_like(self.weights)
        self._buffers = {
            name: buffer
            for name, buffer in network.state_dict().items()
            if name not in dict(network.named_parameters())
        }
        self._parameters = list(network.parameters())
        views = _views(self.weights.grad, self._parameters)
        for parameter, view in zip(self._parameters, views, strict=True):
            parameter.grad = view
        self.optimiser = torch.optim.Adam([self.weights], betas=betas, fused=True)

    def step(self, loss: Tensor, rate: float, clip: float | None = None) -> None:
        """One step down the mean of the loss over all processes.

        Args:
            loss: of this process's share of the batch.
            rate: learning rate.
            clip: the largest norm of the gradient, or None.
        """
        self.weights.grad.zero_()
        loss.backward()
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
