"""What is said of neighbours: precision, likeness, hubs; and what goes with an image's score."""

from rissole.judging import singles
from rissole.latent import likeness
from rissole.retrieval import quality

import numpy as np
import pytest
import torch


def test_precision_counts_the_neighbours_of_the_image_s_label():
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    neighbours = np.array([[1, 3, 2, 4, 5], [4, 5, 6, 0, 1]])
    found = quality.precision(neighbours, np.array([0, 3]), labels, np.arange(7))
    assert found["at_1"] == 1
    assert found["at_5"] == pytest.approx((2 + 3) / 10)
    assert found["chance"] == pytest.approx((2 / 6 + 3 / 6) / 2)


def test_chance_counts_no_mirror_among_those_that_could_be_found():
    groups, pictures = np.array([0, 1, 0, 1]), np.array([0, 1, 0, 1])  # two pictures, mirrored
    found = quality.precision(np.array([[1, 3]]), np.array([0]), groups, pictures)
    assert found == {"at_1": 0, "at_2": 0, "chance": 0}


def test_agreement_is_the_mean_cosine_over_all_pairs():
    near = torch.randn(6, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    flat = torch.nn.functional.normalize(near.flatten(2), dim=2)
    pairs = [(i, j) for i in range(4) for j in range(i)]
    expected = torch.stack([(flat[:, i] * flat[:, j]).sum(1) for i, j in pairs]).mean(0)
    torch.testing.assert_close(likeness.agreement(near), expected)


def test_likeness_is_one_among_copies_and_nought_at_right_angles():
    vectors = np.eye(6, dtype=np.float32)[[0, 0, 0, 3, 4, 5]]
    assert quality.likeness(np.array([[1, 2]]), np.array([0]), vectors) == (1, [1, 1])
    assert quality.likeness(np.array([[4, 5]]), np.array([3]), vectors) == (0, [0, 0])


def test_one_hub_skews_the_uses_and_even_use_does_not():
    even = np.stack([np.arange(1, 5), np.arange(5, 9)]) % 8
    assert quality.hubness(even, 8)["skew"] == 0
    hub = np.zeros((30, 1), np.int64)
    found = quality.hubness(hub, 100)
    assert found["largest_hub"] == 30 and found["never_retrieved"] == 0.99
    assert found["skew"] == pytest.approx(98 / 99**0.5)  # of a share p = 1 / 100 of ones


def test_measures_that_go_together_correlate_and_strangers_do_not():
    draw = np.random.default_rng(0)
    x = draw.normal(size=400)
    assert singles.correlation(x, np.exp(x))["rho"] == pytest.approx(1)
    assert singles.correlation(x, -(x**3))["rho"] == pytest.approx(-1)
    strangers = singles.correlation(x, draw.normal(size=400))
    assert abs(strangers["rho"]) < 0.1
    assert strangers["chance"] == pytest.approx(1.96 / 400**0.5, rel=0.1)


def test_an_image_is_as_far_as_the_mean_of_its_five_nearest():
    true = np.arange(10, dtype=np.float32)[:, None]
    assert singles.distances(np.array([[0.0]], np.float32), true) == pytest.approx([2])
    assert singles.distances(np.array([[4.0]], np.float32), true) == pytest.approx([6 / 5])
