"""What a set of images scores: right where the answer is known, nothing to be had by copying."""

from rissole.core import numerics
from rissole.harness.errors import InputError
from rissole.judging import frechet, scores
from rissole.judging.scores import Features

import numpy as np
import pytest

LITE1 = "fd_effnet_lite1"
WIDTH = 80  # above the 64 dimensions of the projection
BAD = {"shifted": (0.7, 1.0), "blurred": (0.0, 0.4), "collapsed": (0.3, 0.05), "wide": (0.0, 2.0)}


def features(n, seed, mean=0.0, scale=1.0, width=WIDTH):
    """Normal features (n, width) with a falling spectrum as that of a network, float32."""
    draw = np.random.default_rng(seed)
    spread = 1 / np.sqrt(np.arange(1, width + 1))
    return ((draw.normal(size=(n, width)) * scale + mean) * spread).astype(np.float32)


def true_images(width=WIDTH, **changes):
    """Features of 300 train and 200 val images of one law; reconstructions are off by 0.5."""
    parts = {
        "train": features(300, 1, width=width),
        "val": features(200, 2, width=width),
        "reconstructed": features(200, 2, 0.5, width=width),
        "apart": np.ones(200, bool),
    }
    return Features(**(parts | changes))


def score(drawn, copied, true):
    return scores.score("efficientnet_lite1", drawn, copied, true)


def named(n, of):
    """The first `n` of `of` images are named copies."""
    return np.arange(of) < n


def test_a_set_of_the_law_of_true_images_is_at_its_floor():
    true = true_images()
    found = [score(features(100, seed), named(0, 100), true)[LITE1] for seed in range(3, 6)]
    floor = found[0]["floor"]
    assert floor > 0.3
    assert abs(np.mean([of["above_floor"] for of in found])) < 0.1 * floor
    assert abs(np.mean([of["pca64"] for of in found])) < 0.1 * floor


def test_the_floor_is_that_of_as_many_train_images_and_taken_off():
    true, drawn = true_images(), features(100, 3, 0.4)
    found = score(drawn, named(0, 100), true)[LITE1]
    floor = frechet.frechet(true.train[numerics.evenly(300, 100)], true.val)
    assert found["floor"] == pytest.approx(floor, rel=1e-5)
    expected = frechet.frechet(drawn, true.val) - floor
    assert found["above_floor"] == pytest.approx(expected, rel=1e-4)


def test_each_distance_is_that_to_the_set_it_is_named_for():
    true, drawn = true_images(train=features(300, 1, -0.5)), features(100, 3, 0.5)
    found = score(drawn, named(0, 100), true)[LITE1]
    for name in ("val", "train", "reconstructed"):
        expected = frechet.frechet(drawn, getattr(true, name))
        assert found[name] == pytest.approx(expected, rel=1e-5)
    assert found["reconstructed"] < found["val"] < found["train"]


def test_a_set_that_is_half_copies_and_half_bad_scores_as_its_bad_half():
    true, bad = true_images(), features(60, 3, 1.5)
    drawn = np.concatenate([true.train[:60], bad])
    found = score(drawn, named(60, 120), true)
    expected = frechet.frechet(bad, true.val) - found[LITE1]["floor"]
    assert found[LITE1]["uncopied"] == pytest.approx(expected, rel=1e-4)
    assert found[LITE1]["uncopied"] > 2 * found[LITE1]["above_floor"]
    assert found["effnet_lite1"]["uncopied_precision"] < 0.2 < found["effnet_lite1"]["precision"]


@pytest.mark.parametrize("bad", BAD)
def test_copies_in_the_place_of_bad_images_improve_the_distance_but_not_what_rows_are_ranked_by(
    bad,
):
    true, honest = true_images(), features(120, 3, *BAD[bad])
    found = []
    for copies in (0, 24, 60):
        drawn = np.concatenate([true.train[:copies], honest[copies:]])
        found.append(score(drawn, named(copies, 120), true)[LITE1])
    val, uncopied = ([of[name] for of in found] for name in ("val", "uncopied"))
    assert val[2] < val[1] - 0.1 < val[0] - 0.2
    assert min(uncopied[1:]) > 0.97 * uncopied[0]


@pytest.mark.parametrize("copies", [60, 240])
def test_copies_beside_bad_images_do_not_improve_what_rows_are_ranked_by_either(copies):
    true, honest = true_images(), features(60, 3, 0.8)
    alone = score(honest, named(0, 60), true)[LITE1]
    drawn = np.concatenate([true.train[:copies], honest])
    beside = score(drawn, named(copies, copies + 60), true)[LITE1]
    assert beside["val"] < 0.8 * alone["val"]
    assert beside["uncopied"] >= alone["uncopied"]


@pytest.mark.parametrize("copied", [None, named(81, 100)], ids=["accused", "nearly all copies"])
def test_what_cannot_be_vouched_for_has_no_score_to_be_ranked_by(copied):
    found = score(features(100, 3), copied, true_images())
    assert "uncopied" not in found[LITE1]
    assert not [name for name in found["effnet_lite1"] if name.startswith("uncopied")]
    assert found[LITE1].keys() >= {"val", "above_floor", "infinity"}


def test_precision_and_recall_of_the_uncopied_ask_only_val_images_apart_from_train():
    apart = np.arange(200) < 100
    val = np.concatenate([features(100, 2), features(100, 4, 30)])
    found = score(features(90, 3), named(0, 90), true_images(val=val, apart=apart))["effnet_lite1"]
    assert found["recall"] < 0.5 < found["uncopied_recall"]


def test_some_val_images_keep_their_reconstructions_and_what_is_apart():
    apart = np.arange(200) % 3 == 0
    some = true_images(apart=apart).some(np.array([4, 9, 150]))
    whole = true_images()
    assert np.array_equal(some.val, whole.val[[4, 9, 150]])
    assert np.array_equal(some.reconstructed, whole.reconstructed[[4, 9, 150]])
    assert some.apart.tolist() == [False, True, True]
    assert np.array_equal(some.train, whole.train)


def test_the_floor_of_the_reference_is_taken_at_the_number_of_drawn_images():
    true = true_images()
    of = scores.reference("efficientnet_lite1", true, features(50, 5, 0.5))[LITE1]
    expected = frechet.frechet(true.train[numerics.evenly(300, 50)], true.val)
    assert of["floor"] == pytest.approx(expected, rel=1e-5)
    assert of["floor_by_formula"] == pytest.approx(frechet.floor(true.val, 50), rel=1e-5)


def test_true_latents_score_what_the_first_stage_loses_and_no_more():
    perfect = features(100, 5, 0.5)
    of = scores.reference("efficientnet_lite2", true_images(), perfect)["fd_effnet_lite2"]
    assert of["floor"] < of["reconstructed"]
    assert of["perfect"] == pytest.approx(of["reconstructed"] + of["floor"], rel=0.2)
    assert of["perfect_reconstructed"] == pytest.approx(of["floor"], rel=0.2)


@pytest.mark.parametrize("value", [0, 0.3])
def test_a_judge_that_sees_no_difference_between_images_is_refused(value):
    true = true_images(val=np.full((200, WIDTH), value, np.float32))
    with pytest.raises(InputError, match="judge.size: at that size efficientnet_lite1 sees no"):
        scores.reference("efficientnet_lite1", true, features(50, 5))


@pytest.mark.parametrize("judge", ["efficientnet_lite1", "efficientnet_lite2"])
def test_without_inception_nothing_is_called_fid_or_kid(judge):
    true, drawn = true_images(), features(50, 3)
    keys = str(
        [scores.score(judge, drawn, named(0, 50), true), scores.reference(judge, true, drawn)]
    )
    assert "fid" not in keys
    assert "kid" not in keys


def test_with_inception_the_keys_are_fid_and_kid():
    scored = scores.score("inception", features(50, 3), named(0, 50), true_images())
    assert set(scored) == {"fid", "kid", "inception"}
    assert set(scored["kid"]) == {"val", "interval"}


def test_the_distance_of_the_first_judge_comes_first():
    true, drawn = true_images(), features(50, 3)
    scored = {"images": 50}
    for judge in ("efficientnet_lite2", "efficientnet_lite1", "inception"):
        scored |= scores.score(judge, drawn, None, true)
    assert scores.frechet_keys(scored) == ["fid", LITE1, "fd_effnet_lite2"]


def test_psnr_is_that_of_the_error_put_in():
    true = np.full((3, 8, 8, 3), 100, np.uint8)
    expected = 10 * np.log10(255**2 / 100)
    assert scores.psnr(true, true + 10) == pytest.approx(expected, abs=1e-3)
