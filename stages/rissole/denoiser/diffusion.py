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

# EDM's, in units of its images; ours have unit variance, and there sigma is over SIGMA_DATA.
SIGMA_DATA, SIGMA_MIN, SIGMA_MAX, RHO = 0.5, 0.002, 80.0, 7
MEAN, SPREAD = -1.2 - math.log(SIGMA_DATA), 1.2  # of the logarithm of sigma, in training


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


def signals(schedule: str, timesteps: int) -> Tensor:
    """The share of signal in the variance after each timestep, float64 (T,), falling from 1.

    `lognormal` is the noise of EDM (Karras et al. 2022, arXiv 2206.00364, table 1): timesteps are
    the quantiles of its law, so that uniform ones are drawn from that.
    """
    if schedule == "lognormal":
        quantiles = (torch.arange(timesteps, dtype=torch.float64) + 0.5) / timesteps
        return 1 / (1 + (SPREAD * torch.special.ndtri(quantiles) + MEAN).exp().square())
    return (1 - betas(schedule, timesteps)).cumprod(0)


@cache
def signal(schedule: str, timesteps: int, device: torch.device | str = "cpu") -> Tensor:
    """`signals` as float32 (T,) on a device."""
    return signals(schedule, timesteps).float().to(device)


def spaced(schedule: str, timesteps: int, steps: int) -> tuple[list[float], list[float]]:
    """The timesteps that so many steps of drawing visit, falling, and the signal at each.

    Of `lognormal` EDM's own (algorithm 1 with rho = 7, from sigma 80 to 0.002), between the
    timesteps and beyond them; else spaced evenly from the end ("trailing").
    """
    if schedule != "lognormal":
        places = torch.arange(timesteps, 0, -timesteps / steps, dtype=torch.float64).round() - 1
        places = places.long()
        return places.tolist(), signals(schedule, timesteps)[places].tolist()
    first, last = SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    sigma = torch.linspace(first, last, steps, dtype=torch.float64) ** RHO / SIGMA_DATA
    places = torch.special.ndtr((sigma.log() - MEAN) / SPREAD) * timesteps - 0.5
    return places.tolist(), (1 / (1 + sigma.square())).tolist()


def noised(z: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """z_t from clean latents and noise; `signal` broadcasts against both."""
    return signal.sqrt() * z + (1 - signal).sqrt() * noise


def target(prediction: str, z: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """What the network is to predict: the noise, the latent, or a mixture of both.

    `v_prediction` is sqrt(signal) noise - sqrt(1 - signal) z (Salimans and Ho 2022, arXiv
    2202.00512, appendix D). Of latents of unit variance it is also what EDM's preconditioned
    network predicts, but for the sign, and its loss weighted as EDM weights it.
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
