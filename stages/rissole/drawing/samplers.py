"""From noise to clean latents by few or many steps: DDIM, ancestral (DDPM), DPM-Solver++.

Written out here because importing diffusers for its own takes longer than drawing 200 images of
the quick preset. The tests hold each to diffusers.
"""

from collections.abc import Callable
from dataclasses import dataclass

from rissole.denoiser import diffusion
from rissole.ground.schema import LDM, Sample

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampler:
    """A rule and the noise levels that it visits.

    Attributes:
        rule: one of `RULES`.
        prediction: what the network predicts, as `diffusion.target` names it.
        limit: predicted clean latents are clamped to -limit..limit (not by dpmsolver++); without
            it, few steps of noise prediction are at the mercy of a division by almost nothing.
        timesteps: falling, s of them, spaced from the end of the schedule ("trailing").
        signal: the share of signal at each, and 1 after the last, s + 1 of them.
    """

    rule: str
    prediction: str
    limit: float
    timesteps: list[int]
    signal: list[float]


@dataclass(frozen=True)
class Step:
    """What a rule may look at.

    Attributes:
        signal: before this step.
        after: the signal after it.
        before: the signal before the step before, or None at the first.
        z_t: where it starts.
        clean, noise: what the network takes it to be made of.
        earlier: `clean` of the step before, or None at the first.
        fresh: draws noise shaped like `z_t`.
    """

    signal: float
    after: float
    before: float | None
    z_t: Tensor
    clean: Tensor
    noise: Tensor
    earlier: Tensor | None
    fresh: Callable[[], Tensor]


def build(ldm: LDM, sample: Sample, limit: float) -> Sampler:
    """The sampler that section `sample` asks for, on the schedule of training.

    Args:
        ldm: schedule and prediction type.
        sample: sampler and steps.
        limit: the largest absolute value of a clean latent.
    """
    spaced = np.arange(ldm.timesteps, 0, -ldm.timesteps / sample.steps).round().astype(int) - 1
    signal = (1 - diffusion.betas(ldm.schedule, ldm.timesteps)).cumprod(0)[spaced].tolist()
    return Sampler(sample.sampler, ldm.prediction, limit, spaced.tolist(), [*signal, 1.0])


def denoise(
    predict: Callable[[Tensor, int], Tensor],
    sampler: Sampler,
    z: Tensor,
    generators: list[torch.Generator],
) -> Tensor:
    """Go from noise to clean latents.

    Args:
        predict: (z_t, timestep) -> the network's prediction, shaped like z_t.
        sampler: what `build` made.
        z: noise (b, ...).
        generators: b of them, on the CPU, for the rule that adds noise on the way.
    """

    def fresh() -> Tensor:
        return torch.stack([torch.randn(z.shape[1:], generator=g) for g in generators]).to(z.device)

    before = earlier = None
    levels = zip(sampler.timesteps, sampler.signal, sampler.signal[1:], strict=False)
    for timestep, signal, after in levels:
        parts = diffusion.parts(sampler.prediction, predict(z, timestep), z, signal)
        if sampler.rule != "dpmsolver++":
            parts = parts[0].clamp(-sampler.limit, sampler.limit), parts[1]
        z = RULES[sampler.rule](Step(signal, after, before, z, *parts, earlier, fresh))
        before, earlier = signal, parts[0]
    return z


def ddim(step: Step) -> Tensor:
    """Without noise of its own (Song et al. 2021, arXiv 2010.02502, equation 12, eta = 0)."""
    return step.after**0.5 * step.clean + (1 - step.after) ** 0.5 * step.noise


def ddpm(step: Step) -> Tensor:
    """Drawn from the posterior (Ho et al. 2020, arXiv 2006.11239, equations 6 and 7)."""
    beta = 1 - step.signal / step.after
    share = (1 - step.after) / (1 - step.signal)
    mean = step.after**0.5 * beta / (1 - step.signal) * step.clean
    mean = mean + (1 - beta) ** 0.5 * share * step.z_t
    return mean if step.after == 1 else mean + (share * beta) ** 0.5 * step.fresh()


def dpmsolver(step: Step) -> Tensor:
    """Second order by the step before (Lu et al. 2022, arXiv 2211.01095, algorithm 2)."""
    if step.after == 1:
        return step.clean
    clean, width = step.clean, _half_log_snr(step.after) - _half_log_snr(step.signal)
    if step.earlier is not None:
        ratio = (_half_log_snr(step.signal) - _half_log_snr(step.before)) / width
        clean = clean + (step.clean - step.earlier) / (2 * ratio)
    kept = ((1 - step.after) / (1 - step.signal)) ** 0.5
    return kept * step.z_t - step.after**0.5 * np.expm1(-width) * clean


RULES = {"ddim": ddim, "ddpm": ddpm, "dpmsolver++": dpmsolver}


def _half_log_snr(signal: float) -> float:
    return float(np.log(signal / (1 - signal)) / 2)
