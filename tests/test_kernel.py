"""The kernel distance: unbiased, and with an interval that means something."""

from rissole.harness.errors import InputError
from rissole.judging import kernel as module
from rissole.judging.kernel import discrepancy, kernel

import numpy as np
import pytest
from torch import from_numpy
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric


def normal(n, seed, mean=0.0, width=6):
    """Standard normal features (n, width) around `mean`, float32."""
    draw = np.random.default_rng(seed)
    return (draw.normal(size=(n, width)) + mean).astype(np.float32)


def test_one_block_is_as_discrepant_as_torch_fidelity_finds_it():
    x, y = normal(80, 0, 0.5), normal(80, 1) * 1.5
    expected = kid_features_to_metric(
        *(from_numpy(z.astype(np.float64)) for z in (x, y)),
        kid_subsets=1,
        kid_subset_size=80,
        rng_seed=0,
        verbose=False,
    )[KEY_METRIC_KID_MEAN]
    assert discrepancy(x, y) == pytest.approx(expected, rel=1e-6)


def test_two_laws_are_as_far_apart_as_their_moments():
    shift, draw = 0.5, np.random.default_rng(0)
    first, second, third = shift, shift**2, shift**3 + shift  # what it adds to those of (-1, 1)
    expected = 3 * first**2 + 3 * second**2 + third**2
    pairs = draw.uniform(-1, 1, (60, 2, 400, 1))
    distances = [kernel(x, y + shift)[0] for x, y in pairs]
    assert np.mean(distances) == pytest.approx(expected, rel=0.06)


def test_sets_of_unequal_size_are_compared_without_bias():
    distances = [kernel(normal(20, (s, 0)), normal(200, (s, 1)))[0] for s in range(200)]
    error = np.std(distances) / np.sqrt(len(distances))
    assert abs(np.mean(distances)) < 3 * error < 0.2 * kernel(normal(20, 0), normal(200, 1, 1))[0]


def test_the_interval_holds_zero_for_most_pairs_of_equal_laws():
    found = [kernel(normal(100, (s, 0)), normal(150, (s, 1))) for s in range(20)]
    assert 14 <= sum(abs(distance) < half for distance, half in found) < 20


def test_the_interval_holds_no_zero_for_laws_apart():
    found = [kernel(normal(100, (s, 0)), normal(150, (s, 1), 0.5)) for s in range(20)]
    assert all(distance > half for distance, half in found)


def test_the_interval_is_of_two_standard_errors_over_the_blocks(monkeypatch):
    found = iter([1.0, 2.0, 3.0, 4.0, 5.0])
    monkeypatch.setattr(module, "discrepancy", lambda x, y: next(found))
    assert kernel(normal(20, 0), normal(20, 1)) == pytest.approx((3, 1.96 * np.sqrt(2.5 / 5)))


def test_the_interval_shrinks_as_the_images_grow_in_number():
    few, many = (
        np.mean([kernel(normal(n, (s, 0)), normal(n, (s, 1), 0.5))[1] for s in range(20)])
        for n in (100, 900)
    )
    assert few / many == pytest.approx(3, rel=0.3)


@pytest.mark.parametrize(
    ("n", "m", "blocks", "cut"),
    [
        (500, 1037, None, [(100, 208), (100, 208), (100, 207), (100, 207), (100, 207)]),
        (7000, 7007, None, [(1000, 1000)] * 7),
        (500, 9000, None, [(100, 1000)] * 5),
        (500, 600, 2, [(250, 300)] * 2),
    ],
)
def test_both_sets_are_cut_into_blocks_of_a_thousand_or_into_five(monkeypatch, n, m, blocks, cut):
    seen = []
    monkeypatch.setattr(module, "discrepancy", lambda x, y: seen.append((len(x), len(y))) or 0)
    kernel(np.zeros((n, 1)), np.zeros((m, 1)), blocks)
    assert seen == cut


def test_every_image_is_in_one_block_and_none_beside_those_of_its_row(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "discrepancy", lambda x, y: seen.append((x, y)) or 0)
    rows = np.arange(100.0)[:, None]
    kernel(rows, rows)
    for side in zip(*seen, strict=True):
        assert sorted(np.concatenate(side)[:, 0]) == rows[:, 0].tolist()
        assert np.ptp(side[0]) > 50
    assert all(len(np.intersect1d(x, y)) < 12 for x, y in seen)


def test_equal_constant_features_are_at_distance_zero_for_sure():
    assert kernel(np.ones((20, 6)), np.ones((30, 6))) == (0, 0)


@pytest.mark.parametrize(("n", "m"), [(9, 50), (50, 9), (1, 50)])
def test_fewer_than_ten_images_are_refused(n, m):
    with pytest.raises(InputError, match="5 blocks take 10 on each side; give more images"):
        kernel(normal(n, 0), normal(m, 1))
