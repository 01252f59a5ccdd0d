"""The fast paths compute what the algorithm, as the paper writes it, computes."""

import contextlib

import toy
from committed import ROOT
from rissole.ground import config, runtime
from rissole.ground.errors import InputError
from rissole.retrieval import index, with_scann
from rissole.speed import data, memory, plan, rehearsal, resolution, steps, timing, worlds
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


def test_the_most_that_is_held_at_once_is_counted():
    def call():
        first = torch.ones(1_000_000)
        del first
        return torch.ones(250_000), torch.ones(500_000)

    assert memory.allocated(call) == pytest.approx(4, abs=0.1)


def test_a_block_takes_the_same_memory_whatever_the_size_of_the_image():
    of = memory.per_image(toy.ldm(), (16, 32))
    assert of["32"]["block_by_block"] == pytest.approx(of["16"]["block_by_block"], rel=0.01)
    assert of["32"]["whole"] == pytest.approx(4 * of["16"]["whole"], rel=0.1)
    assert of["32"]["blocks_together"] == pytest.approx(of["32"]["whole"], rel=0.1)


def test_blocks_in_turn_take_the_memory_of_one_and_together_that_of_the_whole(exact):
    of = resolution.costs(toy.ldm(), 3, 32, (1, 2, 4), 1)
    assert of["2"]["mb_in_turn"] == pytest.approx(of["1"]["mb_together"] / 4, rel=0.1)
    assert of["4"]["mb_in_turn"] == pytest.approx(of["1"]["mb_together"] / 16, rel=0.1)
    assert of["4"]["mb_together"] == pytest.approx(of["1"]["mb_together"], rel=0.1)


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


def test_a_stage_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "SCRIPTS", tmp_path)
    (tmp_path / "stage.py").write_text("raise SystemExit('no such row')\n")
    with pytest.raises(InputError, match="stage b failed: no such row"):
        rehearsal.call(tmp_path, "stage", "b")


def test_a_stage_that_something_ends_is_not_taken_for_done(tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "SCRIPTS", tmp_path)
    (tmp_path / "stage.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    (tmp_path / "peak").write_text("1")  # of the one before
    with pytest.raises(InputError, match="stage: was ended by SIGKILL, .* memory runs out"):
        rehearsal.call(tmp_path, "stage")


SPEED = {
    "preset": "quick",
    "retrieval": {"tree_1000000": {"queries_per_second": 2000.0}},
    "retrieval_width": 192,
    "paper_size": {"train_fraction_of_peak": 0.2},
    "peak_gflop_per_second": 1000.0,
    "split_images_per_second": 1000.0,
    "encode_images_per_second": 1000.0,
}


def planned(images, preset="imagenet100"):
    return plan.plan(images, config.read(ROOT / "params.yaml").under(preset), SPEED)


def test_a_plan_grows_as_its_parts_do():
    one, ten = planned(10**6), planned(10**7)
    for name in one:
        factor = 100 if name.startswith(("all neighbours", "chance")) else 10
        tolerance = 0.5 if name.startswith("machines") else 1e-5
        assert ten[name] == pytest.approx(factor * one[name], rel=tolerance), name


def test_a_plan_of_what_was_measured_takes_the_measured_time():
    """Of the preset itself: 64 pixels, no mirrors, codes of 16 x 16 in three channels."""
    of = planned(3_600_000, "quick")
    assert of["split (hours)"] == pytest.approx(1)
    assert of["encode (hours)"] == pytest.approx(1)
    assert of["codes on disk (GB)"] == pytest.approx(3.6 * 0.512)  # as measured, 512 bytes each
    assert of["all neighbours (hours)"] == pytest.approx(3.6 * 1e6 / 2000 / 3600 * 3.6)


def test_mirrors_double_what_follows_from_the_rows():
    one, mirrored = planned(10**6, "quick"), config.read(ROOT / "params.yaml")
    mirrored._params.presets["quick"]["latents"]["mirrors"] = True
    two = plan.plan(10**6, mirrored, SPEED)
    assert two["codes on disk (GB)"] == pytest.approx(2 * one["codes on disk (GB)"])
    assert two["all neighbours (hours)"] == pytest.approx(4 * one["all neighbours (hours)"])
    key = "pictures, uncompressed, on disk (GB)"
    assert two[key] == one[key]


def test_an_index_takes_the_disk_that_the_plan_says(tmp_path):
    """ScaNN keeps the floats beside its hashes, which are an eighth of them."""
    if not with_scann.installed():
        pytest.skip("ScaNN has no wheel here")
    settings = config.read(ROOT / "params.yaml").index.model_copy(update={"kind": "hashed"})
    vectors = np.concatenate(list(data.clustered(10_000)))
    index.build([vectors], vectors.shape, settings, tmp_path / "index", vectors[:5])
    found = sum(path.stat().st_size for path in (tmp_path / "index").rglob("*.*"))
    assert found == pytest.approx(vectors.nbytes * (1 + 1 / 8), rel=0.02)


def test_ids_collide_as_birthdays_do():
    chance = planned(2**32)["chance that two ids of 64 bits collide (%)"]
    assert chance == pytest.approx(39.35, abs=0.01)
