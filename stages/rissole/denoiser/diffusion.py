"""The diffusion process: noise schedule, noising, and what the network is to predict.

| here | Ho et al. 2020 (arXiv 2006.11239) |
|---|---|
| `signal` | alpha bar, the share of variance that is still signal |
| `z`, `noise`, `z_t` | x_0, epsilon, x_t |
"""

import math
from functools import cache

import torch
from torch import Tensor


def betas(schedule: str, timesteps: int) -> Tensor:
    """The variance added at each timestep, float64 (T,).

    `linear` runs from 1e-4 to 0.02 (Ho et al. 2020, section 4); `squaredcos_cap_v2` makes the
    signal a squared cosine, each step capped at 0.999 (Nichol and Dhariwal 2021, arXiv 2102.09672,
    equation 17).
    """
    if schedule == "linear":
        return torch.linspace(1e-4, 0.02, timesteps, dtype=torch.float64)
    time = torch.linspace(0, 1, timesteps + 1, dtype=torch.float64)
    signal = ((time + 0.008) / 1.008 * math.pi / 2).cos().square()
    return (1 - signal[1:] / signal[:-1]).clamp(max=0.999)


@cache
def signal(schedule: str, timesteps: int, device: torch.device | str = "cpu") -> Tensor:
    """The share of signal in the variance after each timestep, float32 (T,), falling from 1."""
    return (1 - betas(schedule, timesteps)).cumprod(0).float().to(device)


def noised(z: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """z_t from clean latents and noise; `signal` broadcasts against both."""
    return signal.sqrt() * z + (1 - signal).sqrt() * noise


def target(prediction: str, z: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """What the network is to predict: the noise, the latent, or a mixture of both.

    `v_prediction` is sqrt(signal) noise - sqrt(1 - signal) z (Salimans and Ho 2022, arXiv
    2202.00512, appendix D).
    """
    if prediction == "epsilon":
        return noise
    if prediction == "sample":
        return z
    return signal.sqrt() * noise - (1 - signal).sqrt() * z


def parts(prediction: str, predicted: Tensor, z_t: Tensor, signal: float) -> tuple[Tensor, Tensor]:
    """The clean latents and the noise that a prediction takes z_t for: `target` turned round.

    Args:
        prediction: as `target` names it.
        predicted: by the network, shaped like z_t.
        z_t: noisy latents.
        signal: share of it, one for all.
    """
    kept, lost = signal**0.5, (1 - signal) ** 0.5
    if prediction == "epsilon":
        return (z_t - lost * predicted) / kept, predicted
    if prediction == "sample":
        return predicted, (z_t - kept * predicted) / lost
    return kept * z_t - lost * predicted, kept * predicted + lost * z_t
