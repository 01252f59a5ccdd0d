"""Sampling: the steps of diffusers, and the same image at any batch size."""

import toy
from rissole.core import numerics
from rissole.denoiser import denoiser as denoisers
from rissole.denoiser import diffusion
from rissole.denoiser.conditioning import Conditioning
from rissole.drawing import samplers, sampling
from rissole.drawing.settings import Sample

import pytest
import torch


def sampler(ldm, rule="ddim", steps=10, limit=3.0):
    return samplers.build(ldm, Sample(images=10, sampler=rule, steps=steps, batch=2), limit)


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    monkeypatch.setattr(numerics, "autocast", lambda device: torch.autocast("cpu", enabled=False))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("kind", ["DDIM", "DDPM", "DPMSolverMultistep"])
def test_every_step_is_that_of_diffusers(kind, prediction, schedule):
    diffusers = pytest.importorskip("diffusers")
    name = {"DDIM": "ddim", "DDPM": "ddpm", "DPMSolverMultistep": "dpmsolver++"}[kind]
    ldm = toy.ldm(timesteps=1000, prediction=prediction, schedule=schedule)
    clamped = {} if name == "dpmsolver++" else {"clip_sample": True, "clip_sample_range": 3.0}
    theirs = getattr(diffusers, f"{kind}Scheduler")(
        trained_betas=diffusion.betas(schedule, 1000).numpy(),
        prediction_type=prediction,
        timestep_spacing="trailing",
        **clamped,
    )
    theirs.set_timesteps(8)
    noise = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(4))

    def predict(z_t, timestep):
        return 0.4 * z_t + 0.1 * (timestep / 1000)

    def generators():
        return [torch.Generator().manual_seed(i) for i in range(2)]

    *_, ours = samplers.denoise(predict, sampler(ldm, name, steps=8), noise, generators())
    z, drawing = noise, generators()
    for timestep in theirs.timesteps:
        z = theirs.step(predict(z, int(timestep)), timestep, z, generator=drawing).prev_sample
    torch.testing.assert_close(ours, z, rtol=1e-3, atol=1e-3)


def network(neighbours="stack", **changes):
    row, train = toy.row(neighbours, **changes), toy.latents()
    conditioning = Conditioning(row, train, normalise=True)
    torch.manual_seed(3)
    embedded = conditioning.embedded if neighbours == "tokens" else 0
    denoiser = denoisers.build(row, toy.ldm(), 2, 3, embedded).eval()
    torch.nn.init.normal_(denoiser.unet.last.weight, std=0.05)
    return denoiser, conditioning


def draw(denoiser, conditioning, images, rule="ddim", seed=0):
    near = None
    if conditioning.row.neighbours != "none":
        near = torch.randint(12, (20, 3), generator=torch.Generator().manual_seed(2))
        near = near[images.start : images.stop]
    ldm = toy.ldm()
    return sampling.sample_latents(
        denoiser, conditioning, sampler(ldm, rule, 4), near, images, seed
    )


@pytest.mark.parametrize("rule", ["ddim", "ddpm"])
@pytest.mark.parametrize(
    ("neighbours", "changes"),
    [
        ("stack", {}),
        ("stack", {"previous": True}),
        ("set", {"halo": 2}),
        ("tokens", {"blocks": 1}),
        ("none", {"blocks": 1, "network": "patch_dm", "collage": 1}),
        ("stack", {"blocks": 1, "network": "patch_dm", "collage": 2}),
    ],
)
def test_an_image_is_the_same_at_any_batch_size(neighbours, changes, rule):
    denoiser, conditioning = network(neighbours, **changes)
    together = draw(denoiser, conditioning, range(0, 4), rule)
    alone = draw(denoiser, conditioning, range(2, 3), rule)
    torch.testing.assert_close(alone[0], together[2], rtol=1e-3, atol=1e-3)


def test_images_and_seeds_differ():
    denoiser, conditioning = network()
    drawn = draw(denoiser, conditioning, range(0, 2))
    assert not torch.allclose(drawn[0], drawn[1], atol=0.1)
    assert not torch.allclose(drawn, draw(denoiser, conditioning, range(0, 2), seed=1), atol=0.1)


def test_who_watches_sees_where_each_step_ends():
    denoiser, conditioning = network("none")
    steps = []
    rule = sampler(toy.ldm(), "ddim", 4)
    watch = steps.append
    z = sampling.sample_latents(denoiser, conditioning, rule, None, range(2), 0, watch)
    assert len(steps) == 4 and torch.equal(steps[-1], z)
    apart = [(step - z).abs().mean().item() for step in steps]
    assert apart == sorted(apart, reverse=True)


def test_a_row_told_the_previous_block_is_told_the_finished_one():
    denoiser, conditioning = network("none", previous=True)
    told = []
    context = denoiser.stem.context
    denoiser.stem.context = lambda t: told.append(t.previous) or context(t)
    drawn = conditioning.grid.cut(draw(denoiser, conditioning, range(0, 1)))
    assert len(told) == 4
    assert not told[0].any()
    for block in range(1, 4):
        torch.testing.assert_close(told[block][0], drawn[block - 1])


def test_blocks_do_not_depend_on_each_other(monkeypatch):
    """The paper's claim: changing one block's noise leaves the others as they are."""
    denoiser, conditioning = network()
    drawn = draw(denoiser, conditioning, range(0, 1))
    seeded, changed = numerics.seeded, (0, 0, 3)
    monkeypatch.setattr(numerics, "seeded", lambda *words: seeded(*words) + (words == changed))
    other = draw(denoiser, conditioning, range(0, 1))
    same = (drawn == other).all(1).all(0)
    assert same[:4].all() and same[:, :4].all()
    assert not torch.allclose(drawn[..., 4:, 4:], other[..., 4:, 4:], atol=0.1)
