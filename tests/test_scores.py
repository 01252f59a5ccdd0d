"""Distances between sets of images: right where the answer is known, and honest about noise."""

import numpy as np
import pytest
import torch
import torch_fidelity

from rissole import runtime, scores
from rissole.errors import InputError


def normal(n, seed, mean=0.0, width=6):
    """Standard normal features (n, width) around `mean`, float32."""
    draw = np.random.default_rng(seed)
    return (draw.normal(size=(n, width)) + mean).astype(np.float32)


def test_two_gaussians_are_as_far_apart_as_their_means_squared():
    mean = np.array([1.0, -2.0, 0.5, 0.0, 0.0, 3.0])
    distance = scores.frechet(normal(40_000, 0), normal(40_000, 1, mean))
    assert distance == pytest.approx((mean**2).sum(), rel=0.01)


def test_wider_gaussians_are_as_far_apart_as_the_difference_of_their_deviations_squared():
    x, y = normal(40_000, 0), 3 * normal(40_000, 1)
    assert scores.frechet(x, y) == pytest.approx(6 * (3 - 1) ** 2, rel=0.02)


def test_a_set_is_at_distance_zero_from_itself():
    x = normal(300, 0, width=20)
    assert abs(scores.frechet(x, x)) < 1e-4


def test_the_distance_is_the_same_both_ways_and_after_a_rotation():
    x, y = normal(200, 0), normal(150, 1, 0.7) * [1, 2, 1, 0.5, 1, 1]
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))[0]
    assert scores.frechet(x, y) == pytest.approx(scores.frechet(y, x), rel=1e-6)
    assert scores.frechet(x, y) == pytest.approx(scores.frechet(x @ turn, y @ turn), rel=1e-6)


def test_with_fewer_images_than_features_it_agrees_with_singular_values():
    x, y = normal(30, 0, width=50), normal(40, 1, 0.2, width=50)
    centred = [(z - z.mean(0)).astype(np.float64) / np.sqrt(len(z) - 1) for z in (x, y)]
    spread = sum((z**2).sum() for z in centred)
    shared = np.linalg.norm(centred[0] @ centred[1].T, "nuc")
    expected = ((x.mean(0, float) - y.mean(0, float)) ** 2).sum() + spread - 2 * shared
    assert scores.frechet(x, y) == pytest.approx(expected, rel=1e-4)


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


def test_both_distances_are_those_of_torch_fidelity_run_from_end_to_end():
    torch_fidelity.register_feature_extractor("pooled", Pooled)
    draw = torch.Generator().manual_seed(0)
    one = torch.randint(0, 200, (60, 3, 8, 8), dtype=torch.uint8, generator=draw)
    two = torch.randint(50, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=draw)
    expected = torch_fidelity.calculate_metrics(
        input1=Pictures(one),
        input2=Pictures(two),
        feature_extractor="pooled",
        fid=True,
        kid=True,
        kid_subset_size=40,
        kid_subsets=scores.SUBSETS,
        rng_seed=0,
        cuda=False,
        save_cpu_ram=True,
        cache=False,
        verbose=False,
    )
    extractor = Pooled("pooled", ["12"])
    x, y = (extractor(z)[0].numpy() for z in (one, two))
    assert scores.frechet(x, y) == pytest.approx(expected["frechet_inception_distance"], rel=1e-3)
    assert scores.kernel(x, y) == pytest.approx(
        expected["kernel_inception_distance_mean"], rel=1e-3
    )


def test_a_collapsed_set_scores_worse_than_an_honest_one():
    true, honest = normal(400, 0), normal(200, 1)
    collapsed = np.repeat(normal(4, 2), 50, axis=0)
    constant = np.zeros((200, 6), np.float32)
    assert scores.frechet(honest, true) < scores.frechet(collapsed, true)
    assert scores.frechet(honest, true) < scores.frechet(constant, true)
    assert scores.kernel(honest, true) < scores.kernel(collapsed, true)


def test_fewer_images_of_the_same_law_raise_the_frechet_but_not_the_kernel_distance():
    true = normal(1000, 0, width=40)
    few, many = normal(100, 1, width=40), normal(1000, 2, width=40)
    assert scores.frechet(few, true) > 3 * scores.frechet(many, true)
    assert abs(scores.kernel(few, true)) < 0.05 * scores.kernel(few + 1, true)


def test_the_kernel_distance_of_the_same_law_is_not_clipped_at_zero():
    signs = {scores.kernel(normal(50, s), normal(50, s + 100)) > 0 for s in range(10)}
    assert signs == {True, False}


@pytest.mark.parametrize("distance", [scores.frechet, scores.kernel])
def test_a_single_image_is_refused(distance):
    with pytest.raises(InputError, match="two on each side"):
        distance(normal(1, 0), normal(5, 1))


def test_evenly_spread_rows_are_distinct_in_order_and_reach_over_the_whole():
    rows = runtime.evenly(10, 4)
    assert rows.tolist() == [0, 2, 5, 7]
    assert runtime.evenly(3, 8).tolist() == [0, 1, 2]
    assert runtime.evenly(0, 8).tolist() == []


def sets(judge):
    """Features of every set of images that `scores.reference` compares, under one judge."""
    shifted = {"val": 0, "train": 0, "reconstructed": 1, "perfect": 1}
    n = {"val": 120, "train": 120, "reconstructed": 120, "perfect": 50}
    return {
        name: {judge: normal(n[name], seed, mean)}
        for seed, (name, mean) in enumerate(shifted.items())
    }


def test_the_floor_is_taken_at_the_number_of_drawn_images():
    seen = sets("efficientnet_lite1")
    reference = scores.reference(seen)
    train, val = (seen[name]["efficientnet_lite1"] for name in ("train", "val"))
    expected = scores.frechet(train[runtime.evenly(120, 50)], val)
    assert reference["fd_effnet_lite1"]["floor"] == pytest.approx(expected, rel=1e-4)
    assert reference["images"] == {"drawn": 50, "train": 120, "val": 120}


def test_true_latents_score_what_the_first_stage_loses_and_no_more():
    of = scores.reference(sets("efficientnet_lite2"))["fd_effnet_lite2"]
    assert of["floor"] < 2 < of["reconstructed"]
    assert of["perfect"] == pytest.approx(of["reconstructed"] + of["floor"], rel=0.2)
    assert of["perfect_reconstructed"] < 2


def test_a_judge_that_sees_no_difference_between_images_is_refused():
    seen = sets("efficientnet_lite2")
    blind = {name: {"efficientnet_lite2": 0 * x["efficientnet_lite2"]} for name, x in seen.items()}
    with pytest.raises(InputError, match="judge.size"):
        scores.reference(blind)


@pytest.mark.parametrize("judge", ["efficientnet_lite1", "efficientnet_lite2"])
def test_without_inception_nothing_is_called_fid_or_kid(judge):
    true = {name: normal(30, 0) for name in scores.REFERENCES}
    keys = str([scores.score(judge, normal(20, 1), true), scores.reference(sets(judge))])
    assert "fid" not in keys
    assert "kid" not in keys


def test_with_inception_the_keys_are_fid_and_kid():
    true = {name: normal(30, 0) for name in scores.REFERENCES}
    scored = scores.score("inception", normal(20, 1), true)
    assert set(scored) == {"fid", "kid"}
    assert set(scored["fid"]) == {"val", "train", "reconstructed"}


def test_psnr_is_that_of_the_error_put_in():
    true = np.full((3, 8, 8, 3), 100, np.uint8)
    expected = 10 * np.log10(255**2 / 100)
    assert scores.psnr(true, true + 10) == pytest.approx(expected, abs=1e-3)
