"""From noise to clean latents by few or many steps: DDIM, ancestral (DDPM), DPM-Solver++, Heun.

Written out here because importing diffusers for its own takes longer than drawing 200 images of
the quick preset. The tests hold each to diffusers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from rissole.denoiser import diffusion
from rissole.denoiser.settings import LDM
from rissole.drawing.settings import Sample

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
        timesteps: falling, s of them, as `diffusion.spaced` spaces them.
        signal: the share of signal at each, and 1 after the last, s + 1 of them.
    """

    rule: str
    prediction: str
    limit: float
    timesteps: list[float]
    signal: list[float]

    @property
    def calls(self) -> int:
        """How often the network is asked; Heun's rule looks twice at all steps but the last."""
        steps = len(self.timesteps)
        return 2 * steps - 1 if self.rule == "heun" else steps


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
        then: what the network takes another z_t, after this step, to be made of.
    """

    signal: float
    after: float
    before: float | None
    z_t: Tensor
    clean: Tensor
    noise: Tensor
    earlier: Tensor | None
    fresh: Callable[[], Tensor]
    then: Callable[[Tensor], tuple[Tensor, Tensor]]


def build(ldm: LDM, sample: Sample, limit: float) -> Sampler:
    """The sampler that section `sample` asks for, on the schedule of training.

    Args:
        ldm: schedule and prediction type.
        sample: sampler and steps.
        limit: the largest absolute value of a clean latent.
    """
    timesteps, signal = diffusion.spaced(ldm.schedule, ldm.timesteps, sample.steps)
    return Sampler(sample.sampler, ldm.prediction, limit, timesteps, [*signal, 1.0])


def denoise(
    predict: Callable[[Tensor, float], Tensor],
    sampler: Sampler,
    z: Tensor,
    generators: list[torch.Generator],
) -> Iterator[Tensor]:
    """Go from noise to clean latents; yield where each step ends, the clean ones last.

    Args:
        predict: (z_t, timestep) -> the network's prediction, shaped like z_t.
        sampler: what `build` made.
        z: noise (b, ...).
        generators: b of them, on the CPU, for the rule that adds noise on the way.
    """

    def fresh() -> Tensor:
        return torch.stack([torch.randn(z.shape[1:], generator=g) for g in generators]).to(z.device)

    def made_of(z_t: Tensor, timestep: float, signal: float) -> tuple[Tensor, Tensor]:
        clean, noise = diffusion.parts(sampler.prediction, predict(z_t, timestep), z_t, signal)
        clamped = clean if sampler.rule == "dpmsolver++" else clean.clamp(-limit, limit)
        return clamped, noise

    limit, before, earlier = sampler.limit, None, None
    following = [*sampler.timesteps[1:], None]
    levels = zip(sampler.timesteps, following, sampler.signal, sampler.signal[1:], strict=False)
    for timestep, later, signal, after in levels:
        clean, noise = made_of(z, timestep, signal)
        then = partial(made_of, timestep=later, signal=after)
        z = RULES[sampler.rule](Step(signal, after, before, z, clean, noise, earlier, fresh, then))
        before, earlier = signal, clean
        yield z


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


def heun(step: Step) -> Tensor:
    """Second order by a second look (Karras et al. 2022, arXiv 2206.00364, algorithm 1)."""
    there = ddim(step)
    if step.after == 1:
        return there
    noise = (step.noise + step.then(there)[1]) / 2
    sigma, after = (((1 - signal) / signal) ** 0.5 for signal in (step.signal, step.after))
    return step.after**0.5 * (step.z_t / step.signal**0.5 + (after - sigma) * noise)


RULES = {"ddim": ddim, "ddpm": ddpm, "dpmsolver++": dpmsolver, "heun": heun}


def _half_log_snr(signal: float) -> float:
    return float(np.log(signal / (1 - signal)) / 2)
