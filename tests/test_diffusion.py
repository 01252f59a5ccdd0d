"""The diffusion process against few-line oracles and against diffusers."""

import math

from rissole.denoiser import diffusion

import pytest
import torch


def test_linear_schedule_ends_where_the_released_code_ends():
    signal = diffusion.signal("linear", 1000)
    assert signal[-1].item() == pytest.approx(4.04e-5, rel=2e-3)


def test_linear_schedule_agrees_with_a_running_product():
    signal = 1.0
    for t in range(1000):
        signal *= 1 - (1e-4 + (0.02 - 1e-4) * t / 999)
        if t in (0, 10, 500, 999):
            assert diffusion.signal("linear", 1000)[t].item() == pytest.approx(signal, rel=1e-5)


def test_cosine_schedule_is_the_squared_cosine_until_the_cap():
    signal = diffusion.signal("squaredcos_cap_v2", 1000)
    for t in (0, 100, 500, 900):
        angle = ((t + 1) / 1000 + 0.008) / 1.008 * math.pi / 2
        start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
        assert signal[t].item() == pytest.approx(math.cos(angle) ** 2 / start, rel=1e-4)


@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
def test_schedules_agree_with_diffusers(schedule):
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(beta_schedule=schedule).alphas_cumprod
    torch.testing.assert_close(diffusion.signal(schedule, 1000), theirs, rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_target_gives_back_the_clean_latent(prediction):
    z, noise = torch.randn(2, 5, 3, 4, 4)
    signal = torch.rand(5, 1, 1, 1) * 0.98 + 0.01
    z_t = diffusion.noised(z, noise, signal)
    predicted = diffusion.target(prediction, z, noise, signal)
    a, s = signal.sqrt(), (1 - signal).sqrt()
    clean = {
        "epsilon": (z_t - s * predicted) / a,
        "v_prediction": a * z_t - s * predicted,
        "sample": predicted,
    }[prediction]
    torch.testing.assert_close(clean, z, rtol=1e-3, atol=1e-4)


def test_noised_latents_keep_unit_variance():
    z, noise = torch.randn(2, 100_000)
    for share in (0.01, 0.5, 0.99):
        z_t = diffusion.noised(z, noise, torch.tensor(share))
        assert z_t.std().item() == pytest.approx(1, abs=0.02)
