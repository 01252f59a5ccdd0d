"""Patch Diffusion's network and noise against what was published of them."""

import toy
from rissole.denoiser import denoiser, diffusion
from rissole.denoiser.ddpmpp import DDPMpp
from rissole.denoiser.settings import Variant
from rissole.drawing import samplers
from rissole.drawing.settings import Sample

import pytest
import torch

ROW = Variant(context="latents", space="pixel", network="ddpmpp", coordinates=True, blocks=1)


def test_at_the_published_size_it_has_the_published_number_of_parameters():
    """Count of the authors' network for CelebA at 64 pixels (base 128, multipliers 1, 2, 2, 2)."""
    with torch.device("meta"):
        network = DDPMpp(ROW, toy.ldm(widths=[128, 256, 256, 256], depth=4), 3)
    assert sum(parameter.numel() for parameter in network.parameters()) == 61_806_723


@pytest.mark.parametrize("side", [16, 32, 64])
def test_it_takes_patches_of_any_size_and_every_parameter_is_live(side):
    torch.manual_seed(0)
    network = denoiser.build(ROW, toy.ldm(widths=[16, 16, 32, 32]), 3, 0)
    seen = torch.randn(2, 5, side, side)
    out = network(seen, torch.tensor([3, 700]), network.context(None), None)
    assert out.shape == (2, 3, side, side)
    out.square().sum().backward()
    assert [name for name, p in network.named_parameters() if not p.grad.any()] == []


def test_timesteps_are_the_quantiles_of_edm_s_noise():
    signal = diffusion.signals("lognormal", 1000)
    sigma = ((1 - signal) / signal).sqrt() * 0.5  # in units of EDM's images
    assert sigma[499:501].log().mean().item() == pytest.approx(-1.2, abs=1e-3)
    for quantile, normal in ((0.15865525, -1), (0.84134475, 1), (0.97724987, 2)):
        at = round(quantile * 1000 - 0.5)
        assert sigma[at].log().item() == pytest.approx(-1.2 + 1.2 * normal, abs=0.01)
    assert (signal.diff() < 0).all()


def test_heun_s_steps_are_those_of_edm():
    """Algorithm 1 of Karras et al. 2022 without churn, written out in its own variables."""
    ldm = toy.ldm(schedule="lognormal", prediction="v_prediction", timesteps=1000)
    sample = Sample(images=10, sampler="heun", steps=8, batch=2)
    data, steps = 0.5, 8

    def best(x, sigma):  # a denoiser in closed form: images of variance 0.2 around 0.1
        return (0.2 * x + sigma**2 * 0.1) / (0.2 + sigma**2)

    index = torch.arange(steps, dtype=torch.float64)
    sigma = (80 ** (1 / 7) + index / (steps - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    sigma = [*sigma.tolist(), 0.0]
    start = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    x = start * sigma[0]
    for now, after in zip(sigma, sigma[1:], strict=False):
        slope = (x - best(x, now)) / now
        there = x + (after - now) * slope
        if after:
            slope = (slope + (there - best(there, after)) / after) / 2
        x = x + (after - now) * slope

    built = samplers.build(ldm, sample, limit=1e9)
    levels = dict(zip(built.timesteps, built.signal, strict=False))

    def predict(z_t, timestep):
        signal = levels[timestep]
        now = ((1 - signal) / signal) ** 0.5
        clean = best(z_t / signal**0.5 * data, now * data) / data
        noise = (z_t - signal**0.5 * clean) / (1 - signal) ** 0.5
        return signal**0.5 * noise - (1 - signal) ** 0.5 * clean

    first = built.signal[0]
    *_, z = samplers.denoise(predict, built, start * (sigma[0] / data) * first**0.5, [])
    torch.testing.assert_close(z * data, x, rtol=1e-6, atol=1e-6)


def test_a_retrieving_row_is_refused():
    with pytest.raises(ValueError, match="told nothing but coordinates"):
        Variant(context="neighbours/main", neighbours="stack", network="ddpmpp")
