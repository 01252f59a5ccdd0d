"""Sensitivity: neighbours move what is told of them, and nothing else does."""

from dataclasses import replace

import toy
from rissole.core import numerics
from rissole.denoiser.conditioning import Conditioning
from rissole.denoiser.denoiser import Denoiser
from rissole.drawing import samplers, sampling, sensitivity
from rissole.drawing.settings import Sample

import numpy as np
import pytest
import torch

K = 4


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(numerics, "autocast", lambda device: torch.autocast("cpu", enabled=False))
    monkeypatch.setattr(sensitivity, "IMAGES", 12)
    monkeypatch.setattr(sensitivity, "STEPS", 5)


def network(neighbours):
    """A denoiser of random weights, its last layer among them."""
    torch.manual_seed(0)
    made = Denoiser(toy.row(neighbours, seed=1), toy.ldm(), 2, K, toy.EMBEDDED)
    torch.nn.init.normal_(made.unet.last.weight, std=0.3)
    return made.eval()


def neighbours(images=12, seed=0):
    draw = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([draw.choice(60, K, replace=False) for _ in range(images)]))


def measure(kind, told=None, database=None):
    told = neighbours() if told is None else told
    return sensitivity.measure(network(kind), database or toy.latents(60), told)


@pytest.mark.parametrize("kind", ["set", "tokens"])
def test_neighbours_as_a_set_may_be_permuted(kind):
    found = measure(kind)
    assert found["permuted"] < 1e-4
    assert min(found["swapped"], found["dropped"]) > 0.01


def test_stacked_neighbours_may_not_be_permuted():
    found = measure("stack")
    assert min(found.values()) > 0.1


def test_neighbours_that_all_images_share_cannot_be_swapped():
    found = measure("stack", neighbours(1).expand(12, K))
    assert found["swapped"] == 0
    assert min(found["permuted"], found["dropped"]) > 0.1


def test_neighbours_of_nothing_but_the_code_nearest_the_mean_cannot_be_dropped():
    database = toy.latents(60)
    table = (database.codebook - database.mean) / database.std
    codes = database.codes.clone()
    codes[9 : 9 + K] = min(range(len(table)), key=lambda code: table[code].square().sum().item())
    told = torch.arange(9, 9 + K).expand(12, K)
    assert measure("stack", told, replace(database, codes=codes))["dropped"] == 0
    assert measure("stack", told)["dropped"] > 0.1


def test_the_shift_is_that_of_images_drawn_one_by_one():
    made, database, told = network("stack"), toy.latents(60), neighbours(6)
    conditioning = Conditioning(made.row, database, made.ldm.normalise)
    sample = Sample(images=10, sampler="ddim", steps=5, batch=1)
    sampler = samplers.build(made.ldm, sample, conditioning.limit)

    def draw(image, rows):
        at = range(image, image + 1)
        return sampling.sample_latents(made, conditioning, sampler, rows[None], at, seed=1)

    own = [draw(image, told[image]) for image in range(6)]
    turned = [draw(image, told[image].flip(0)) for image in range(6)]
    swapped = [draw(image, told[image - 1]) for image in range(6)]
    apart = np.mean([(own[i] - own[j]).norm() for i in range(6) for j in range(i)])
    found = sensitivity.measure(made, database, told)
    for name, others in (("permuted", turned), ("swapped", swapped)):
        moved = np.mean([(a - b).norm() for a, b in zip(own, others, strict=True)])
        assert found[name] == pytest.approx(moved / apart, rel=1e-3)
