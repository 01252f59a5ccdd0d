"""The diffusion process against few-line oracles and against diffusers."""

from rissole.denoiser import diffusion

import pytest
import torch


def test_linear_schedule_ends_where_the_released_code_ends():
    signal = diffusion.signal("linear", 1000)
    assert signal[-1].item() == pytest.approx(4.04e-5, rel=2e-3)


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
