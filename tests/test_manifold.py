"""Precision, recall, density and coverage: right by other means, and steady under copies."""

from math import comb

from rissole.harness.errors import InputError
from rissole.judging import manifold

import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric


def normal(n, seed, mean=0.0, width=8):
    """Standard normal features (n, width) around `mean`, float32."""
    draw = np.random.default_rng(seed)
    return (draw.normal(size=(n, width)) + mean).astype(np.float32)


def both(drawn, true):
    return manifold.precision_recall(drawn, true) | manifold.density_coverage(drawn, true)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_are_those_of_torch_fidelity(seed, k):
    drawn, true = 0.8 * normal(90, seed, 0.4), normal(140, seed + 100)
    expected = prc_features_to_metric(
        *(torch.tensor(x, dtype=torch.double) for x in (drawn, true)),
        prc_neighborhood=k,
        prc_batch_size=1000,
        save_cpu_ram=False,
        verbose=False,
    )
    found = manifold.precision_recall(drawn, true, k)
    assert 0.1 < found["recall"] < found["precision"] < 1
    assert found == pytest.approx({key: expected[key] for key in found}, abs=1e-6)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("k", [1, 5])
def test_density_and_coverage_are_those_of_their_definition(seed, k):
    drawn, true = normal(50, seed, 0.3).astype(float), normal(80, seed + 100).astype(float)
    radii = [np.sort([np.linalg.norm(r - s) for s in true])[k] for r in true]
    inside = np.array(
        [
            [np.linalg.norm(g - r) <= radius for r, radius in zip(true, radii, strict=True)]
            for g in drawn
        ]
    )
    found = manifold.density_coverage(drawn, true, k)
    assert 0 < found["coverage"] < 1
    assert found["density"] == pytest.approx(inside.sum() / (k * len(drawn)))
    assert found["coverage"] == pytest.approx(inside.any(axis=0).mean())


def test_a_collapsed_set_is_precise_and_recalls_nothing():
    true, collapsed = normal(300, 0), 0.05 * normal(200, 1)
    found = both(collapsed, true)
    assert found["precision"] > 0.99
    assert found["recall"] < 0.01
    assert found["coverage"] < found["density"]


def test_of_two_modes_the_one_that_is_never_drawn_is_not_covered():
    true = np.concatenate([normal(150, 0), normal(50, 1, 100)])
    found = both(normal(400, 2), true)
    assert found["coverage"] == pytest.approx(0.75, abs=0.02)
    assert found["recall"] == pytest.approx(0.75, abs=0.1)


def test_two_sets_of_one_law_have_density_1_and_the_expected_coverage():
    found = [manifold.density_coverage(normal(200, s), normal(400, s + 100)) for s in range(8)]
    expected = manifold.expected_coverage(true=400, drawn=200)
    assert 0.8 < expected < 0.9
    assert np.mean([x["coverage"] for x in found]) == pytest.approx(expected, abs=0.02)
    assert np.mean([x["density"] for x in found]) == pytest.approx(1, abs=0.05)


def test_the_expected_coverage_is_the_chance_that_not_all_nearest_are_true():
    all_true = comb(29, 4) / comb(29 + 12, 4)
    assert manifold.expected_coverage(true=30, drawn=12, k=4) == pytest.approx(1 - all_true)


@pytest.mark.parametrize("mean", [1000])
def test_copies_of_all_true_images_lie_in_the_balls_of_their_k_neighbours_and_their_own(mean):
    true = normal(200, 0, mean, width=300)
    found = both(np.random.default_rng(1).permutation(true), true)
    assert found == pytest.approx({"precision": 1, "recall": 1, "density": 6 / 5, "coverage": 1})


def test_a_ball_that_is_a_point_holds_copies_and_nothing_else():
    true = np.repeat(normal(20, 0, width=300), 6, axis=0)
    drawn = np.concatenate([true[:60], true[:60] + np.float32(1e-4)])
    found = both(drawn, true)
    assert found["precision"] == 0.5
    assert found["density"] == pytest.approx(0.5 * 6 / 5)
    assert found["coverage"] == 0.5


@pytest.mark.parametrize("value", [0, 0.1])
def test_equal_constant_features_are_precise_and_covered(value):
    found = both(np.full((10, 30), value, np.float32), np.full((20, 30), value, np.float32))
    assert found == {"precision": 1, "recall": 1, "density": 20 / 5, "coverage": 1}


@pytest.mark.parametrize(("scale", "offset"), [(2.0**-40, 0), (2.0**40, 0), (1, 1e6)])
def test_neither_scale_nor_a_common_offset_matters(scale, offset):
    drawn, true = (x.astype(float) for x in (normal(70, 0, 0.3), normal(90, 1)))
    found = both(drawn * scale + offset, true * scale + offset)
    assert found == pytest.approx(both(drawn, true), abs=1e-12)


def test_in_pieces_the_same_is_found(monkeypatch):
    drawn, true = normal(70, 0, 0.3, width=300), normal(90, 1, width=300)
    drawn[:20] = true[:20]
    whole = both(drawn, true)
    for pairs in (1, 1000):
        monkeypatch.setattr(manifold, "PAIRS", pairs)
        assert both(drawn, true) == whole


@pytest.mark.parametrize(("drawn", "true"), [(5, 40), (40, 5)])
def test_too_few_images_on_either_side_are_refused_with_what_to_raise(drawn, true):
    refused = rf"{drawn} drawn images among {true} .* 6 images on each side; .*`sample.images`"
    with pytest.raises(InputError, match=refused):
        manifold.density_coverage(normal(drawn, 0), normal(true, 1))
    with pytest.raises(InputError, match=refused):
        manifold.precision_recall(normal(drawn, 0), normal(true, 1), k=5)
    with pytest.raises(InputError, match=refused):
        manifold.expected_coverage(true, drawn)
