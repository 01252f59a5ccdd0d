"""Quantisers: nearest codes, gradients on the right side, a codebook that stays alive."""

import itertools

from rissole.first_stage.quantiser import FSQ, VectorQuantiser, look_up

import pytest
import torch
import torch.nn.functional as F


def vq(codes=16, channels=3, decay=0.9, commitment=0.25, restart=0.0) -> VectorQuantiser:
    torch.manual_seed(0)
    return VectorQuantiser(codes, channels, decay, commitment, restart)


@pytest.mark.parametrize("quantiser", [FSQ([8, 5, 2]), FSQ([8, 8, 8]), vq()])
def test_snap_finds_the_nearest_of_all_codes(quantiser):
    z = 0.9 * torch.randn(2, 3, 6, 5)
    distances = (z.movedim(1, -1).unsqueeze(-2) - quantiser.codebook).square().sum(-1)
    assert torch.equal(quantiser.snap(z), distances.argmin(-1))


@pytest.mark.parametrize("levels", [[8, 8, 8], [7, 5, 5], [2, 3, 4, 5]])
def test_fsq_holds_each_combination_of_levels_once(levels):
    own = [[(i - n // 2) / (n // 2) for i in range(n)] for n in levels]
    combinations = torch.tensor(sorted(itertools.product(*own)))
    torch.testing.assert_close(FSQ(levels).codebook, combinations)


def test_fsq_reaches_every_level_from_a_finite_encoder_output():
    z = torch.linspace(-4, 4, 2000).view(1, 1, 1, -1)
    for levels in (8, 5, 2):
        _, codes, _ = FSQ([levels])(z)
        assert codes.unique().tolist() == list(range(levels))


def test_the_gradient_of_vq_passes_straight_through():
    quantiser, z = vq(commitment=0.0).eval(), torch.randn(2, 3, 4, 4, requires_grad=True)
    weights = torch.randn(2, 3, 4, 4)
    (quantiser(z)[0] * weights).sum().backward()
    assert torch.equal(z.grad, weights)


def test_the_gradient_of_fsq_is_that_of_its_bound_without_the_rounding():
    quantiser, z = FSQ([8, 5, 3]), torch.randn(2, 3, 4, 4, requires_grad=True)
    weights = torch.randn(2, 3, 4, 4)
    (through,) = torch.autograd.grad((quantiser(z)[0] * weights).sum(), z)
    (smooth,) = torch.autograd.grad((quantiser._bounded(z) * weights).sum(), z)
    torch.testing.assert_close(through, smooth)


def test_commitment_pulls_the_encoder_and_leaves_the_codebook():
    quantiser, z = vq(commitment=0.25).eval(), torch.randn(2, 3, 4, 4, requires_grad=True)
    quantiser.codebook.requires_grad_()
    z_q, codes, loss = quantiser(z)
    gradient, untouched = torch.autograd.grad(loss, [z, quantiser.codebook], allow_unused=True)
    nearest = look_up(quantiser.codebook, codes)
    torch.testing.assert_close(gradient, 0.25 * 2 * (z - nearest) / z.numel())
    assert untouched is None or not untouched.any()


def test_the_first_batch_makes_the_codes():
    quantiser, z = vq(codes=8), torch.randn(1, 3, 4, 4)
    quantiser(z)
    vectors = z.movedim(1, -1).reshape(-1, 3)
    start = torch.cdist(quantiser.codebook, vectors).argmin(1)
    assert len(start.unique()) == 8


def test_a_first_batch_with_fewer_vectors_than_codes_will_do():
    quantiser = vq(codes=64)
    _, codes, loss = quantiser(torch.randn(1, 3, 2, 2))
    assert torch.isfinite(loss) and torch.isfinite(quantiser.codebook).all()
    assert loss < 1e-12


def test_codes_move_to_the_moving_average_of_their_vectors():
    quantiser = vq(codes=4, channels=2, decay=0.9)
    first, second = torch.randn(2, 1, 2, 8, 8)
    quantiser(first)
    before, counts, sums = (of.clone() for of in quantiser.buffers())
    quantiser(second)
    vectors = second.movedim(1, -1).reshape(-1, 2)
    own = F.one_hot(torch.cdist(vectors, before).argmin(1), 4).float()
    counts = 0.9 * counts + 0.1 * own.sum(0)
    sums = 0.9 * sums + 0.1 * own.T @ vectors
    torch.testing.assert_close(quantiser.codebook, sums / counts[:, None])


def test_a_code_out_of_use_starts_anew_among_the_vectors():
    quantiser = vq(codes=4, channels=2, decay=0.5, restart=0.1)
    z = torch.randn(1, 2, 8, 8)
    quantiser(z)
    quantiser.codebook[0] = quantiser.sums[0] = 100.0
    for _ in range(8):
        quantiser(z)
    assert quantiser.codebook.abs().max() < 10
    assert len(quantiser(z)[1].unique()) == 4


@pytest.mark.parametrize("quantiser", [FSQ([8, 8, 8]), vq()])
def test_evaluation_changes_nothing_and_repeats(quantiser):
    quantiser.eval()
    before = {name: value.clone() for name, value in quantiser.state_dict().items()}
    z = torch.randn(2, 3, 4, 4)
    assert torch.equal(quantiser(z)[1], quantiser(z)[1])
    assert all(torch.equal(value, before[name]) for name, value in quantiser.state_dict().items())


@pytest.mark.parametrize("quantiser", [FSQ([8, 8, 8]), vq()])
def test_codes_are_those_of_float32_under_autocast(quantiser):
    quantiser.eval()
    z = torch.randn(4, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        z_q, codes, _ = quantiser(z)
    assert torch.equal(codes, quantiser(z)[1])
    assert z_q.dtype == torch.float32
    assert F.mse_loss(z_q, look_up(quantiser.codebook, codes)) < 1e-12
