"""The fast paths compute what the algorithm, as the paper writes it, computes."""

import contextlib

from committed import ROOT
from rissole.ground import config, runtime
from rissole.speed import steps, timing, worlds

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def world():
    torch.set_num_threads(1)
    return worlds.make(config.read(ROOT / "params.yaml"), torch.device("cpu"))


@pytest.fixture
def exact(monkeypatch):
    """Single precision throughout: bf16 differs in the third digit by the order of sums alone."""
    monkeypatch.setattr(runtime, "autocast", lambda device: contextlib.nullcontext())


def gradients(world, loss):
    world.denoiser.zero_grad()
    loss.backward()
    return {
        name: weight.grad.clone()
        for name, weight in world.denoiser.named_parameters()
        if weight.grad is not None
    }


def test_a_training_step_has_the_loss_and_gradients_of_the_plain_algorithm(world, exact):
    losses = [loss(world) for loss in (steps.our_loss, steps.reference_loss)]
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-5)
    ours, theirs = (gradients(world, loss) for loss in losses)
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        assert torch.allclose(gradient, theirs[name], atol=1e-5), name


def test_all_blocks_together_draw_what_one_after_the_other_draws(world, exact):
    world.denoiser.eval()
    ours, theirs = steps.our_latents(world), steps.reference_latents(world)
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert ours.std() > 0.1


def test_the_reference_searches_for_the_neighbours_that_are_in_our_table(world):
    from rissole.speed import reference

    chosen = worlds.rows(world)
    raw = world.conditioning.raw(world.database.z[chosen])
    found = reference.search(world.conditioning, world.database, raw, chosen, 20)
    table = world.images.neighbours[chosen]
    same = [len(set(a) & set(b)) for a, b in zip(found.tolist(), table.tolist(), strict=True)]
    assert np.mean(same) > 19.9


def test_calls_take_turns_and_the_median_counts(monkeypatch):
    said, ticks = [], iter([0, 0, 0, 1, 1, 4, 10, 11, 11, 18, 20, 25, 25, 27])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(ticks))
    calls = {"a": lambda: said.append("a"), "b": lambda: said.append("b")}
    assert timing.interleaved(calls, 3) == {"a": 1, "b": 3}
    assert said == ["a", "b"] * 4
