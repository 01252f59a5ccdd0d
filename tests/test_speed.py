"""The fast paths compute what the algorithm, as the paper writes it, computes."""

import contextlib

from committed import ROOT
from rissole.core import config, numerics
from rissole.harness.errors import InputError
from rissole.speed import rehearsal, steps, timing, worlds
from rissole.speed.stages import STAGES

import numpy as np
import pytest
import torch
import yaml


@pytest.fixture(scope="module")
def world():
    torch.set_num_threads(1)
    return worlds.make(config.read(ROOT / "params.yaml"), torch.device("cpu"))


@pytest.fixture
def exact(monkeypatch):
    """Single precision throughout: bf16 differs in the third digit by the order of sums alone."""
    monkeypatch.setattr(numerics, "autocast", lambda device: contextlib.nullcontext())


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


def test_each_stage_in_turn_finds_what_it_reads_made_by_one_before_it():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    made = {"${item.context}"}  # data/${item.context}: latents or neighbours, by the row
    for name in STAGES:
        stage = stages[name].get("do", stages[name])
        assert {dep.split("/")[1] for dep in stage["deps"] if dep.startswith("data/")} <= made
        made |= {out.split("/")[1] for out in stage["outs"] if isinstance(out, str)}


def test_the_peak_of_a_stage_is_its_own_and_not_its_parents(tmp_path, monkeypatch):
    ballast = np.ones(60_000_000)
    monkeypatch.setattr(rehearsal, "SCRIPTS", tmp_path)
    (tmp_path / "stage.py").write_text("import sys\nx = b'1' * int(sys.argv[1])\n")
    small, large = (rehearsal.call(tmp_path, "stage", of).mb for of in ("1", "100000000"))
    assert large - small == pytest.approx(100, abs=5)
    assert large < ballast.nbytes / 1e6


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("raise SystemExit('no such row')", "stage b failed: no such row"),
        ("import os\nos.kill(os.getpid(), 9)", "stage b: was ended by SIGKILL, .* memory runs out"),
    ],
)
def test_a_stage_that_fails_is_named(script, said, tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "SCRIPTS", tmp_path)
    (tmp_path / "stage.py").write_text(script)
    (tmp_path / "peak").write_text("1")  # of the one before
    with pytest.raises(InputError, match=said):
        rehearsal.call(tmp_path, "stage", "b")
