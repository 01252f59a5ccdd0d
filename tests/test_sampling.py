"""Sampling: exact where the denoiser is exact, and the same image at any batch size."""

import toy
from rissole.denoiser import denoiser as denoisers
from rissole.denoiser import diffusion
from rissole.denoiser.conditioning import Conditioning
from rissole.drawing import samplers, sampling
from rissole.ground import runtime
from rissole.ground.schema import Sample

import pytest
import torch


def sampler(ldm, rule="ddim", steps=10, limit=3.0):
    return samplers.build(ldm, Sample(images=10, sampler=rule, steps=steps, batch=2), limit)


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    monkeypatch.setattr(runtime, "autocast", lambda device: torch.autocast("cpu", enabled=False))


def ideal(z_train, ldm):
    """The best denoiser there is for a finite train set, in closed form (a softmax over it)."""
    signal = diffusion.signal(ldm.schedule, ldm.timesteps).double()

    def predict(z_t, timestep):
        a = signal[timestep].clamp(max=1 - 1e-12)
        distance = (z_t.double()[:, None] - a.sqrt() * z_train.double()).flatten(2).square().sum(2)
        weight = (-distance / (2 * (1 - a))).softmax(1)
        clean = torch.einsum("bn,n...->b...", weight, z_train.double())
        noise = (z_t - a.sqrt() * clean) / (1 - a).sqrt()
        return diffusion.target(ldm.prediction, clean, noise, a).float()

    return predict


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("rule", ["ddim", "ddpm", "dpmsolver++"])
@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
def test_an_ideal_denoiser_samples_a_training_latent(prediction, rule, schedule):
    ldm = toy.ldm(prediction=prediction, timesteps=1000, schedule=schedule)
    z_train = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(1)).clamp(-3, 3)
    generators = [torch.Generator().manual_seed(i) for i in range(8)]
    noise = torch.stack([torch.randn(2, 4, 4, generator=g) for g in generators])
    *_, z = samplers.denoise(ideal(z_train, ldm), sampler(ldm, rule, steps=100), noise, generators)
    nearest = (z[:, None] - z_train).flatten(2).norm(dim=2).min(1)
    assert nearest.values.max() < 0.25  # of about 5.7, the length of a latent
    assert nearest.indices.unique().numel() > 1


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
    embedded = conditioning.embedded if neighbours in ("tokens", "both") else 0
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
        ("stack", {"overview": True}),
        ("stack", {"cascade": True}),
        ("none", {"blocks": 1}),
        ("both", {}),
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


def test_blocks_do_not_depend_on_each_other():
    """The paper's claim: changing one block's noise leaves the others as they are."""
    denoiser, conditioning = network()
    drawn = draw(denoiser, conditioning, range(0, 1))
    seeded, changed = runtime.seeded, (0, 0, 3)
    try:
        runtime.seeded = lambda *words: seeded(*words) + (words == changed)
        other = draw(denoiser, conditioning, range(0, 1))
    finally:
        runtime.seeded = seeded
    assert torch.equal(drawn[..., :4, :], other[..., :4, :])
    assert torch.equal(drawn[..., 4:, :4], other[..., 4:, :4])
    assert not torch.allclose(drawn[..., 4:, 4:], other[..., 4:, 4:], atol=0.1)


def test_a_cascade_tells_its_blocks_the_small_latent_that_it_drew_before_them():
    denoiser, conditioning = network("stack", cascade=True)
    told, context = [], denoiser.stem.context
    denoiser.stem.context = lambda t: told.append(t.previous) or context(t)
    steps = []
    near = torch.zeros(2, 3, dtype=torch.long)
    rule = sampler(toy.ldm(), "ddim", 4)
    z = sampling.sample_latents(denoiser, conditioning, rule, near, range(2), 0, steps.append)
    first, then = told
    assert not first.any() and then.shape == (8, 2, 4, 4)
    assert then[0].any() and all(torch.equal(then[block], then[0]) for block in range(1, 4))
    assert not torch.allclose(then[4], then[0])
    assert len(steps) == 8 and torch.equal(steps[-1], z) and z.shape == (2, 2, 8, 8)
    assert torch.equal(steps[0], steps[3]) and not torch.equal(steps[3], steps[4])


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
