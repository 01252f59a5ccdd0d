"""Distances between two sets of images, on the features that a judge gives them.

Lower is better. The Frechet distance of two samples of the same law is not zero but grows as they
shrink, so it is read beside the floor: true images against true images, as many.
"""

import numpy as np
import torch
from torch import Tensor

from rissole import compat, runtime
from rissole.errors import InputError

# What a judge's Frechet and kernel distances are called; only with Inception are they FID and KID.
KEYS = {
    "inception": ("fid", "kid"),
    "efficientnet_lite1": ("fd_effnet_lite1", "kd_effnet_lite1"),
    "efficientnet_lite2": ("fd_effnet_lite2", "kd_effnet_lite2"),
}
FRECHET = tuple(frechet for frechet, _ in KEYS.values())
REFERENCES = ("val", "train", "reconstructed")  # sets of images that a row is compared with
SUBSETS, LARGEST_SUBSET = 20, 1000


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """Frechet distance of two Gaussians fitted to features (Heusel et al. 2017, equation 6).

    Args:
        x: features of one set (n, d).
        y: features of the other (m, d).

    Raises:
        InputError: a set has fewer than two images, and so no covariance.
    """
    compat.arm()
    from torch_fidelity.metric_fid import (
        KEY_METRIC_FID,
        fid_features_to_statistics,
        fid_statistics_to_metric,
    )

    _check(x, y)
    x, y, outside = _in_the_span_of_the_smaller(
        *(torch.tensor(z, dtype=torch.double) for z in (x, y))
    )
    statistics = [fid_features_to_statistics(z) for z in (x, y)]
    return fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID] + outside


def _in_the_span_of_the_smaller(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:
    """The features with as many coordinates as the smaller set has images, if that is fewer.

    Across its own span the smaller set has no spread, and there the distance is that of the means
    plus the variance of the other, exactly. What is left is a small eigenvalue problem: 500 images
    are compared 5x as fast.

    Returns:
        The smaller set (n, r), the other (m, r), and the distance outside of these coordinates.
    """
    x, y = sorted((x, y), key=len)
    if len(x) >= x.shape[1]:
        return x, y, 0.0
    x, y = x - x.mean(0), y - x.mean(0)
    axes = torch.linalg.qr(x.T).Q
    outside = y - y @ axes @ axes.T
    return x @ axes, y @ axes, (outside.mean(0).square() + outside.var(0)).sum().item()


def kernel(x: np.ndarray, y: np.ndarray) -> float:
    """Kernel distance: unbiased squared discrepancy under a cubic kernel (Binkowski et al. 2018).

    Its floor is zero at any number of images, below which it falls as often as not. The mean over
    20 random subsets of at most 1,000 images, the same ones every time.

    Args:
        x: features of one set (n, d).
        y: features of the other (m, d).
    """
    compat.arm()
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    _check(x, y)
    return kid_features_to_metric(
        *(torch.tensor(z, dtype=torch.double) for z in (x, y)),
        kid_subsets=SUBSETS,
        kid_subset_size=min(len(x), len(y), LARGEST_SUBSET),
        rng_seed=0,
        verbose=False,
    )[KEY_METRIC_KID_MEAN]


def psnr(true: np.ndarray, made: np.ndarray) -> float:
    """Mean peak signal-to-noise ratio in decibels of images uint8 (n, h, w, 3).

    An equal pair counts as 1e-9 off.
    """
    error = [np.square(a.astype(np.float32) - b).mean() for a, b in zip(true, made, strict=True)]
    return _rounded(-10 * np.log10(np.maximum(np.array(error) / 255**2, 1e-9)).mean())


def score(judge: str, drawn: np.ndarray, true: dict[str, np.ndarray]) -> dict:
    """The distances of one set of drawn images from the REFERENCES under one judge.

    Args:
        judge: name of the judge.
        drawn: features of the drawn images (n, d).
        true: features (m, d) of each reference.

    Returns:
        The Frechet distances from each reference and the kernel distance from val, by KEYS.
    """
    frechet_key, kernel_key = KEYS[judge]
    return {
        frechet_key: {name: _rounded(frechet(drawn, x)) for name, x in true.items()},
        kernel_key: {"val": _rounded(kernel(drawn, true["val"]))},
    }


def reference(seen: dict[str, dict[str, np.ndarray]]) -> dict:
    """The distances that belong to no row.

    `floor` is that of true train images, as many as a row draws, from val: no honest row is
    expected below it. `reconstructed` is that of the first stage's reconstructions of val from
    val. `perfect` is that of the reconstructions of train images, as many as a row draws, from
    val, and `perfect_reconstructed` from the reconstructions of val: what a row scores whose
    latents are those of true images.

    Args:
        seen: features (n, d) by set of images (the REFERENCES, and `perfect`) and judge.

    Returns:
        The distances by KEYS, and the numbers of images.

    Raises:
        InputError: a judge sees no difference between any two val images.
    """
    numbers = {}
    drawn = len(next(iter(seen["perfect"].values())))
    for judge, (frechet_key, kernel_key) in KEYS.items():
        if judge not in seen["val"]:
            continue
        sets = {name: features[judge] for name, features in seen.items()}
        if not np.ptp(sets["val"], axis=0).any():
            raise InputError(
                f"params.yaml: judge.size: at that size {judge} sees no difference between any two"
                " val images, and all rows would score 0; raise it"
            )
        val, reconstructed, perfect = sets["val"], sets["reconstructed"], sets["perfect"]
        train = sets["train"][runtime.evenly(len(sets["train"]), drawn)]
        numbers[frechet_key] = {
            "floor": _rounded(frechet(train, val)),
            "reconstructed": _rounded(frechet(reconstructed, val)),
            "perfect": _rounded(frechet(perfect, val)),
            "perfect_reconstructed": _rounded(frechet(perfect, reconstructed)),
        }
        numbers[kernel_key] = {"floor": _rounded(kernel(train, val))}
    counts = {name: len(next(iter(seen[name].values()))) for name in ("train", "val")}
    return numbers | {"images": {"drawn": drawn} | counts}


def _rounded(distance: float) -> float:
    return float(f"{distance:.6g}")


def _check(x: np.ndarray, y: np.ndarray) -> None:
    if min(len(x), len(y)) < 2:
        raise InputError(
            f"a distance of {len(x)} images to {len(y)} is not defined: two on each side are the"
            " least; raise `sample.images` or `data.images`"
        )
