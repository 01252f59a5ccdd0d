"""The training loop: what its loss is, that it learns, that it repeats."""

import copy

import toy
from rissole.core import descent, numerics, threads
from rissole.denoiser import diffusion, training, views
from rissole.denoiser.conditioning import Conditioning
from rissole.denoiser.denoiser import Denoiser
from rissole.denoiser.training import Images

import pytest
import torch


def build(row, ldm, k=3, images=12):
    train = toy.latents(images)
    neighbours = None
    if row.neighbours != "none":
        neighbours = torch.randint(images, (images, k), generator=torch.Generator().manual_seed(5))
    torch.manual_seed(0)
    network = Denoiser(row, ldm, 2, k, toy.EMBEDDED)
    return network, Conditioning(row, train, ldm.normalise), Images(train.codes, neighbours)


def run(row, ldm, seed=0):
    network, conditioning, images = build(row, ldm)
    learner = training.Learner(network)
    done = list(training.train(learner, conditioning, ldm, seed, images, images))
    return network, learner.averaged, done


class Exact(torch.nn.Module):
    """A denoiser that knows the clean blocks and predicts exactly what is asked of it."""

    def __init__(self, conditioning, ldm, z):
        super().__init__()
        self.stem = self
        self.ldm = ldm
        self.clean = conditioning.grid.cut(z)

    def context(self, told):
        return None

    def forward(self, z_t, timestep, context, position):
        signal = diffusion.signal(self.ldm.schedule, self.ldm.timesteps)[timestep]
        signal = signal[:, None, None, None]
        noise = (z_t - signal.sqrt() * self.clean) / (1 - signal).sqrt()
        return diffusion.target(self.ldm.prediction, self.clean, noise, signal)


@pytest.mark.parametrize("share", ["block", "image", "batch"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_predicting_the_truth_gives_zero_loss(prediction, share, monkeypatch):
    monkeypatch.setattr(numerics, "autocast", lambda device: torch.autocast("cpu", enabled=False))
    ldm = toy.ldm(prediction=prediction, share_timestep=share)
    _, conditioning, images = build(toy.row(), ldm)
    rows = torch.tensor([3, 1, 7])
    exact = Exact(conditioning, ldm, conditioning.latents(images.codes[rows]))
    batch = training.draw(conditioning, ldm, rows, conditioning.grid)
    loss = training.block_loss(exact, conditioning, ldm, images, batch)
    assert loss.item() < 1e-6


@pytest.mark.parametrize(("share", "distinct"), [("block", 12), ("image", 3), ("batch", 4)])
def test_timesteps_are_shared_as_widely_as_the_setting_says(share, distinct):
    ldm = toy.ldm(share_timestep=share, timesteps=100_000)
    _, conditioning, _ = build(toy.row(), ldm)
    torch.manual_seed(0)
    timestep = training.draw(conditioning, ldm, torch.arange(3), conditioning.grid).timestep
    assert timestep.shape == (3, 4)
    assert timestep.unique().numel() == distinct
    if share == "batch":
        assert (timestep == timestep[0]).all()


def test_training_lowers_the_loss():
    _, _, done = run(toy.row("stack"), toy.ldm(steps=40, prediction="sample", batch=8))
    early = sum(step["loss"] for step in done[:10])
    assert sum(step["loss"] for step in done[-10:]) < 0.8 * early


def test_every_image_is_seen_once_an_epoch():
    cpu = torch.device("cpu")
    rows = torch.cat([training._batch(step, 12, 4, 0, cpu) for step in range(6)])
    assert rows[:12].sort().values.tolist() == list(range(12))
    assert rows[12:].sort().values.tolist() == list(range(12))
    assert rows[:12].tolist() != rows[12:].tolist()


def test_the_moving_average_follows_its_formula():
    learner = training.Learner(torch.nn.Linear(1, 1, bias=False))
    ldm, expected = toy.ldm(average=0.5, steps=11, learning_rate=0.3), None
    one = training.Batch(torch.zeros(1), torch.zeros(1, 1), torch.zeros(1), views.Grid(toy.row()))
    for taken in range(11):
        learner.learn(lambda network, share: network(torch.ones(1, 1)).sum(), one, ldm)
        weight = learner.network.weight.item()
        decay = 0.0 if taken == 0 else min(0.5, (1 + taken) / (10 + taken))
        expected = weight if taken == 0 else decay * expected + (1 - decay) * weight
    assert learner.averaged.weight.item() == pytest.approx(expected, rel=1e-5)
    assert learner.averaged.weight.item() != pytest.approx(weight, abs=1e-3)


def test_validation_is_taken_as_often_as_asked_and_repeats():
    network, averaged, done = run(toy.row("stack"), toy.ldm(steps=7, validations=3))
    assert [i for i, step in enumerate(done, 1) if "validation" in step] == [2, 5, 7]
    _, conditioning, images = build(toy.row("stack"), toy.ldm())
    again = training._validate(copy.deepcopy(averaged), conditioning, toy.ldm(), images, seed=0)
    assert again == pytest.approx(done[-1]["validation"], rel=1e-5)


def test_the_learning_rate_rises_stays_and_falls_to_two_percent():
    rates = [descent.learning_rate(s, 100, 1.0, 10, 0.5) for s in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[10:50] == [1.0] * 40
    assert rates[75] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.02)


@pytest.fixture
def start():
    """Threads to train with, as many as the test asks for."""
    yield threads.start
    threads.start(1)


@pytest.mark.parametrize("count", [1, 2])
def test_the_same_seed_gives_the_same_weights_and_another_does_not(count, start):
    start(count)
    row, ldm = toy.row("stack"), toy.ldm(dropout=0.5)
    one, two, other = (run(row, ldm, seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_two_threads_learn_what_one_learns_up_to_rounding(start):
    found = []
    for count in (1, 2):
        start(count)
        found.append(run(toy.row("stack"), toy.ldm(steps=4, batch=5))[0].state_dict())
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)
