"""Descent on one vector is descent on all parameters."""

import copy

from rissole.core.descent import Descent, flatten

import pytest
import torch
from torch import nn


def network():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 4, 1), nn.Flatten())
    return layers.to(memory_format=torch.channels_last)


def loss(of, step):
    torch.manual_seed(step)
    return of(torch.randn(5, 3, 6, 6)).square().mean()


def learn(descent, step):
    descent.backward(lambda of, _: loss(of, step).backward(), [None])
    descent.step(0.01)


def test_copies_share_the_parameters_and_their_gradients_add_up():
    torch.manual_seed(0)
    x = torch.randn(6, 3, 6, 6)
    whole, cut = Descent(network()), Descent(network(), copies=2)
    whole.backward(lambda of, part: of(part).square().sum().backward(), [x])
    cut.backward(lambda of, part: of(part).square().sum().backward(), list(x.split(3)))
    torch.testing.assert_close(cut.weights.grad, whole.weights.grad, rtol=1e-4, atol=1e-4)
    first, second = cut._networks
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(a.data_ptr() == b.data_ptr() and a.grad is not b.grad for a, b in pairs)


@pytest.mark.parametrize("clip", [None, 0.01])
def test_its_steps_are_adam_s_over_all_parameters(clip):
    plain, ours = network(), network()
    adam, descent = (
        torch.optim.Adam(plain.parameters(), betas=(0.8, 0.95)),
        Descent(ours, (0.8, 0.95)),
    )
    for step in range(6):
        adam.param_groups[0]["lr"] = rate = 0.01 / (step + 1)
        adam.zero_grad()
        loss(plain, step).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(plain.parameters(), clip)
        adam.step()
        descent.backward(lambda of, _, step=step: loss(of, step).backward(), [None])
        descent.step(rate, clip)
    for expected, found in zip(plain.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_parameters_keep_values_shapes_and_order_in_memory():
    before, after = network(), network()
    vector = flatten(after)
    assert vector.numel() == sum(p.numel() for p in before.parameters())
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.equal(old, new) and old.stride() == new.stride()
        assert new.untyped_storage().data_ptr() == vector.untyped_storage().data_ptr()


def test_it_goes_on_from_its_state_bit_by_bit():
    one = Descent(network())
    for step in range(3):
        learn(one, step)
    state = copy.deepcopy(one.state())
    two = Descent(network())
    two.load(state)
    for step in range(3, 6):
        for descent in (one, two):
            learn(descent, step)
    assert torch.equal(one.weights, two.weights)
