"""The Frechet distance where it is known, its floor, its limit and its first few dimensions."""

from rissole.harness.errors import InputError
from rissole.judging.frechet import LEAST, at_infinity, fit_projection, floor, frechet

import numpy as np
import pytest
import torch
import torch_fidelity


def normal(n, seed, mean=0.0, width=6):
    """Standard normal features (n, width) around `mean`, float32."""
    draw = np.random.default_rng(seed)
    return (draw.normal(size=(n, width)) + mean).astype(np.float32)


def test_two_gaussians_are_as_far_apart_as_their_means_squared():
    mean = np.array([1.0, -2.0, 0.5, 0.0, 0.0, 3.0])
    distance = frechet(normal(40_000, 0), normal(40_000, 1, mean))
    assert distance == pytest.approx((mean**2).sum(), rel=0.01)


def test_wider_gaussians_are_as_far_apart_as_the_difference_of_their_deviations_squared():
    x, y = normal(40_000, 0), 3 * normal(40_000, 1)
    assert frechet(x, y) == pytest.approx(6 * (3 - 1) ** 2, rel=0.02)


def test_a_large_common_offset_costs_no_digits():
    x, y = (normal(60, seed).astype(np.float64) for seed in range(2))
    assert frechet(x + 1000, y + 1000) == pytest.approx(frechet(x, y), rel=1e-6)


def test_with_fewer_images_than_features_it_agrees_with_singular_values():
    x, y = normal(30, 0, width=50), normal(40, 1, 0.2, width=50)
    centred = [(z - z.mean(0)).astype(np.float64) / np.sqrt(len(z) - 1) for z in (x, y)]
    spread = sum((z**2).sum() for z in centred)
    shared = np.linalg.norm(centred[0] @ centred[1].T, "nuc")
    expected = ((x.mean(0, float) - y.mean(0, float)) ** 2).sum() + spread - 2 * shared
    assert frechet(x, y) == pytest.approx(expected, rel=1e-4)


def test_constant_features_are_as_far_as_their_mean_and_the_other_s_spread():
    x, y = np.full((30, 50), 2.0), normal(40, 0, width=50).astype(np.float64)
    expected = ((y.mean(0) - 2) ** 2).sum() + y.var(0, ddof=1).sum()
    assert frechet(x, y) == pytest.approx(expected, rel=1e-6)


class Pictures(list, torch.utils.data.Dataset):
    """Pictures uint8 (3, h, w), as torch-fidelity takes them."""


class Pooled(torch_fidelity.FeatureExtractorBase):
    """Features: the picture shrunk to 2 x 2 pixels."""

    def __init__(self, name, features_list, **_):
        super().__init__(name, features_list)

    def forward(self, x):
        return (torch.nn.functional.adaptive_avg_pool2d(x.float(), 2).flatten(1),)

    @staticmethod
    def get_provided_features_list():
        return ("12",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "12"

    @staticmethod
    def can_be_compiled():
        return False


def test_it_is_that_of_torch_fidelity_run_from_end_to_end():
    torch_fidelity.register_feature_extractor("pooled", Pooled)
    draw = torch.Generator().manual_seed(0)
    one = torch.randint(0, 200, (60, 3, 8, 8), dtype=torch.uint8, generator=draw)
    two = torch.randint(50, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=draw)
    expected = torch_fidelity.calculate_metrics(
        input1=Pictures(one),
        input2=Pictures(two),
        feature_extractor="pooled",
        fid=True,
        cuda=False,
        save_cpu_ram=True,
        cache=False,
        verbose=False,
    )
    extractor = Pooled("pooled", ["12"])
    x, y = (extractor(z)[0].numpy() for z in (one, two))
    assert frechet(x, y) == pytest.approx(expected["frechet_inception_distance"], rel=1e-3)


def test_a_collapsed_set_is_farther_than_an_honest_one():
    true, honest = normal(400, 0), normal(200, 1)
    collapsed = np.repeat(normal(4, 2), 50, axis=0)
    constant = np.zeros((200, 6), np.float32)
    assert frechet(honest, true) < frechet(collapsed, true)
    assert frechet(honest, true) < frechet(constant, true)


@pytest.mark.parametrize(
    ("drawn", "true", "power"), [(1000, 1000, 0), (1000, 3000, 0.5), (300, 1000, 0.25)]
)
def test_the_floor_is_what_equal_gaussians_score(drawn, true, power):
    deviations = np.arange(1, 65) ** -power
    pairs = [
        [normal(n, (seed, n, side), width=64) * deviations for side, n in enumerate((drawn, true))]
        for seed in range(8)
    ]
    measured = np.mean([frechet(x, y) for x, y in pairs])
    assert np.mean([floor(y, drawn) for _, y in pairs]) == pytest.approx(measured, rel=0.05)


def test_the_floor_of_one_feature_is_three_halves_of_its_variance_over_the_images():
    x = normal(50, 0, width=1).astype(np.float64)
    assert floor(x, 20) == pytest.approx(1.5 * x.var(ddof=1) * (1 / 50 + 1 / 20))


def test_with_fewer_images_than_features_the_floor_is_that_of_the_covariance():
    x = normal(20, 0, width=30)
    widths = np.linalg.eigvalsh(np.cov(x.T))[-19:]
    pairs = sum(
        a * b / (a + b) for i, a in enumerate(widths) for j, b in enumerate(widths) if i - j
    )
    expected = (1 / 20 + 1 / 7) * (1.5 * widths.sum() + 0.5 * pairs)
    assert floor(x, 7) == pytest.approx(expected, rel=1e-6)


def equal(seed, n=400, width=20):
    """Drawn and true features of one law."""
    return normal(n, (seed, 0), width=width), normal(n, (seed, 1), width=width)


def test_at_infinity_equal_laws_are_nearer_to_zero():
    for seed in range(5):
        drawn, true = equal(seed)
        assert abs(at_infinity(drawn, true)) < 0.75 * frechet(drawn, true)


def test_at_infinity_the_true_images_share_of_the_floor_stays():
    pairs = [equal(seed, 1000) for seed in range(10)]
    left = np.mean([at_infinity(drawn, true) for drawn, true in pairs])
    assert left == pytest.approx(np.mean([floor(true, 10**9) for _, true in pairs]), rel=0.25)


def test_at_infinity_with_fewer_images_than_features_the_subsets_are_compared_exactly():
    drawn, true = equal(0, 30, 50)
    draw, sizes = np.random.default_rng(0), np.linspace(3, 30, 15).astype(int)
    distances = [frechet(drawn[draw.choice(30, size, replace=False)], true) for size in sizes]
    expected = np.polynomial.Polynomial.fit(1 / sizes, distances, 1)(0)
    assert at_infinity(drawn, true) == pytest.approx(expected, rel=1e-6)


def test_a_projection_keeps_the_widest_axes_of_what_it_was_fitted_to():
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))[0]
    train = normal(2000, 0, 5) * [1, 9, 0.1, 3, 0.1, 0.1] @ turn
    seen = fit_projection(train, 3)(train)
    assert seen.mean(0) == pytest.approx(np.zeros(3), abs=1e-9)
    assert seen.std(0) == pytest.approx([9, 3, 1], rel=0.05)
    assert np.corrcoef(seen.T) == pytest.approx(np.eye(3), abs=1e-9)


@pytest.mark.parametrize("measure", [frechet, lambda x, y: floor(x, len(y))])
def test_a_single_image_is_refused_on_either_side(measure):
    for sizes in ((1, 5), (5, 1)):
        with pytest.raises(InputError, match="two on each side.*raise `sample.images`"):
            measure(*(normal(n, 0) for n in sizes))


def test_too_few_images_to_extrapolate_from_are_refused():
    with pytest.raises(InputError, match="from 9 drawn images.*raise `sample.images`"):
        at_infinity(normal(9, 0), normal(50, 1))
    assert np.isfinite(at_infinity(normal(LEAST, 0), normal(50, 1)))


@pytest.mark.parametrize(("n", "width", "axes"), [(64, 80, 63), (200, 20, 20)])
def test_more_axes_than_there_are_are_refused(n, width, axes):
    with pytest.raises(InputError, match=f"{axes} principal axes, not {axes + 1}; raise"):
        fit_projection(normal(n, 0, width=width), axes + 1)
    assert fit_projection(normal(n, 0, width=width), axes).axes.shape == (width, axes)
