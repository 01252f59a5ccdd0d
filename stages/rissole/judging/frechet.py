"""The Frechet distance of two sets of features, and what it says of sets as small as ours.

Two samples of the same law are not at distance zero: the distance grows as they shrink. `floor` is
what a perfect model would score, `at_infinity` what a row would score if it drew more, and
`fit_projection` leaves so few dimensions that a few hundred images fill them.
"""

from dataclasses import dataclass

from rissole.harness.errors import InputError
from rissole.pretrained import compat

import numpy as np
import torch

LEAST, LARGEST_START = 10, 5000  # images that `at_infinity` asks for, and begins with at most


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """Frechet distance of two Gaussians fitted to features (Heusel et al. 2017, equation 6).

    Args:
        x: features of one set, float32 or float64 (n, d).
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

    _check(len(x), len(y))
    x, y, outside = _in_its_span(*sorted((x, y), key=len))
    statistics = [fid_features_to_statistics(torch.from_numpy(z)) for z in (x, y)]
    return fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID] + outside


def _in_its_span(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The features with as many coordinates as x has images, if that is fewer.

    Across its own span x has no spread, nor has any subset of it, and there the distance is that of
    the means plus the variance of y, exactly. What is left is a small eigenvalue problem: 500
    images are compared 5x as fast.

    Returns:
        x (n, r) and y (m, r) in float64, and the distance outside of these coordinates.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    if len(x) >= x.shape[1]:
        return x, y, 0.0
    x, y = x - x.mean(0), y - x.mean(0)
    axes = np.linalg.qr(x.T).Q
    outside = y - y @ axes @ axes.T
    return x @ axes, y @ axes, (np.square(outside.mean(0)) + outside.var(0, ddof=1)).sum()


def floor(true: np.ndarray, drawn: int) -> float:
    """The Frechet distance that a perfect model is expected to score, from true images alone.

    With l the eigenvalues of the covariance of n true images, and m drawn ones, it is
    (1/n + 1/m) (3/2 sum l_i + 1/2 sum_{i != j} l_i l_j / (l_i + l_j)): exact to first order for
    Gaussian features and n not far below d. On a network's features with n well below d it was
    seen a third too low (25.5 against 38 measured; 500 and 1,037 images, d = 1280), as it is for
    Gaussians there, since n images show too short a spectrum. So tables subtract the measured
    floor; this one says before any training what is within reach.

    Args:
        true: features, float32 or float64 (n, d).
        drawn: the number m of images that the model draws.

    Raises:
        InputError: fewer than two images on a side.

    Source: the mean of the distance's second-order expansion in the errors of both means and
    covariances; the tests hold it against simulations.
    """
    _check(len(true), drawn)
    centred = true - true.mean(0, np.float64)
    spectrum = np.linalg.svd(centred, compute_uv=False) ** 2 / (len(true) - 1)
    spectrum = spectrum[spectrum > 0]
    pairs = np.outer(spectrum, spectrum) / np.add.outer(spectrum, spectrum)
    share = 1.5 * spectrum.sum() + 0.5 * (pairs.sum() - pairs.trace())
    return float((1 / len(true) + 1 / drawn) * share)


def at_infinity(drawn: np.ndarray, true: np.ndarray, seed: int = 0, sizes: int = 15) -> float:
    """The Frechet distance extrapolated to infinitely many drawn images.

    Random subsets of the drawn images, from a tenth of them (5,000 at most) up to all, are compared
    with all true images; a line is fitted to the distances over 1/size, and its intercept is the
    score. Only the drawn side is extrapolated: the true images' share of the floor stays. The
    choice of subsets alone moves it by a tenth of the distance or so.

    The line wants subsets well above d images. Below, little is taken off: of the 2.6 that 500 and
    1,037 Gaussian images of 1,280 features (eigenvalues 1/i) are apart, it leaves 2.5, where 10,000
    drawn images score 1.1. A projection brings d down.

    Args:
        drawn: features, float32 or float64 (n, d).
        true: features (m, d).
        seed: of the subsets.
        sizes: how many subsets, of evenly spaced sizes.

    Raises:
        InputError: fewer than ten drawn images, or fewer than two true ones.

    Source: Chong and Forsyth 2020 (arXiv 1911.07023), with pseudo-random subsets.
    """
    n = len(drawn)
    if n < LEAST:
        raise InputError(
            f"a Frechet distance cannot be extrapolated from {n} drawn images: {LEAST} are the"
            " least; raise `sample.images`"
        )
    _check(n, len(true))
    draw = np.random.default_rng(seed)
    counts = np.linspace(min(max(n // 10, 2), LARGEST_START), n, sizes).astype(int)
    drawn, true, outside = _in_its_span(drawn, true)
    distances = [frechet(drawn[draw.choice(n, count, replace=False)], true) for count in counts]
    return float(np.polyfit(1 / counts, distances, 1)[1] + outside)


@dataclass(frozen=True)
class Projection:
    """Features (n, d) to their first principal coordinates, float64 (n, r).

    Attributes:
        mean: of the features that it was fitted to, float64 (d).
        axes: orthonormal, that of the widest spread first, float64 (d, r).
    """

    mean: np.ndarray
    axes: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Project features, float32 or float64 (n, d)."""
        return (features - self.mean) @ self.axes


def fit_projection(train: np.ndarray, dimensions: int = 64) -> Projection:
    """The projection on the first principal axes of train features.

    Distances are comparable only under one and the same projection.

    Args:
        train: features, float32 or float64 (n, d).
        dimensions: how many axes.

    Raises:
        InputError: n images of d features have fewer axes than that.
    """
    axes = min(len(train) - 1, train.shape[1])
    if dimensions > axes:
        raise InputError(
            f"{len(train)} train images with {train.shape[1]} features have {axes} principal axes,"
            f" not {dimensions}; raise `data.images` or project on fewer"
        )
    _, directions = np.linalg.eigh(np.cov(train, rowvar=False))
    return Projection(train.mean(0, np.float64), directions[:, : -dimensions - 1 : -1])


def _check(n: int, m: int) -> None:
    if min(n, m) < 2:
        raise InputError(
            f"a distance of {n} images to {m} is not defined: two on each side are the least;"
            " raise `sample.images` or `data.images`"
        )
