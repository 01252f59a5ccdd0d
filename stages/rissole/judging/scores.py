"""What a set of drawn images scores under one judge: distances, and what they are read by.

Lower is better. The Frechet distance of two samples of the same law is not zero but grows as they
shrink, so it is read above its floor: true train images, as many. And copies score at that floor,
so rows are ranked by the distance of what no copy test has named.
"""

from dataclasses import dataclass

from rissole.core import numerics
from rissole.harness.errors import InputError
from rissole.judging import frechet, manifold
from rissole.judging.kernel import kernel

import numpy as np

# What a judge's Frechet and kernel distances are called; only with Inception are they FID and KID.
KEYS = {
    "inception": ("fid", "kid"),
    "efficientnet_lite1": ("fd_effnet_lite1", "kd_effnet_lite1"),
    "efficientnet_lite2": ("fd_effnet_lite2", "kd_effnet_lite2"),
}
SHORT = {name: name.replace("efficientnet", "effnet") for name in KEYS}
DIMENSIONS = 64  # of the projection in which a few hundred images are enough
LEAST_LEFT, LEAST = 0.2, 10  # share and number of images that must be no copies to be scored


@dataclass(frozen=True)
class Features:
    """Features of true images under one judge, float32 (n, d).

    Attributes:
        train: as many as a row draws, or as there are of val.
        val: held-out images.
        reconstructed: the VQ-GAN's reconstructions of them.
        apart: which of val share no group with a train image, bool (n).
    """

    train: np.ndarray
    val: np.ndarray
    reconstructed: np.ndarray
    apart: np.ndarray

    def some(self, val: np.ndarray) -> "Features":
        """With only some rows of val and of its reconstructions."""
        parts = (of[val] for of in (self.val, self.reconstructed, self.apart))
        return Features(self.train, *parts)


def frechet_keys(numbers: dict) -> list[str]:
    """The keys of the judges' Frechet distances in `numbers`, that of the first judge first."""
    return [key for key, _ in KEYS.values() if key in numbers]


def psnr(true: np.ndarray, made: np.ndarray) -> float:
    """Mean peak signal-to-noise ratio in decibels of images uint8 (n, h, w, 3).

    An equal pair counts as 1e-9 off.
    """
    error = [np.square(a.astype(np.float32) - b).mean() for a, b in zip(true, made, strict=True)]
    return _rounded(-10 * np.log10(np.maximum(np.array(error) / 255**2, 1e-9)).mean())


def score(judge: str, drawn: np.ndarray, copied: np.ndarray | None, true: Features) -> dict:
    """The scores of one set of drawn images under one judge.

    Args:
        judge: name of the judge.
        drawn: features of the drawn images (n, d).
        copied: which of them a copy test names, bool (n); None where nobody can be vouched
            for, as a test accuses the set as a whole, or too few tests could tell.
        true: features of true images.

    Returns:
        Under the judge's Frechet key: the distance from `val`, `train` and `reconstructed`; the
        measured `floor` of that from val, and how far it is `above_floor`; extrapolated to
        `infinity`; in 64 dimensions, above its floor there (`pca64`); and `uncopied`: from val, of
        the images that no copy test names, above the floor of all the drawn (that of fewer is
        higher, and would reward copies), missing where these are fewer than a fifth or nobody is
        vouched for. Under its kernel key: the distance from `val` and the half-width of its
        `interval`. Under its short name: precision, recall, density and coverage, and precision and
        recall of the uncopied against val images `apart`.
    """
    frechet_key, kernel_key = KEYS[judge]
    n, low = len(drawn), _projection(true)
    floor, distance = _floor(true, n), frechet.frechet(drawn, true.val)
    kept = np.zeros(n, bool) if copied is None else ~copied
    distances = {
        "val": distance,
        "train": frechet.frechet(drawn, true.train),
        "reconstructed": frechet.frechet(drawn, true.reconstructed),
        "floor": floor,
        "above_floor": distance - floor,
        "infinity": frechet.at_infinity(drawn, true.val),
    }
    if low is not None:
        distances["pca64"] = frechet.frechet(low(drawn), low(true.val)) - frechet.frechet(
            low(_as_many(true, n)), low(true.val)
        )
    found = manifold.precision_recall(drawn, true.val) | manifold.density_coverage(drawn, true.val)
    if kept.mean() >= LEAST_LEFT and min(kept.sum(), true.apart.sum()) >= LEAST:
        distances["uncopied"] = frechet.frechet(drawn[kept], true.val) - floor
        uncopied = manifold.precision_recall(drawn[kept], true.val[true.apart])
        found |= {f"uncopied_{name}": value for name, value in uncopied.items()}
    mean, interval = kernel(drawn, true.val)
    return {
        frechet_key: {name: _rounded(value) for name, value in distances.items()},
        kernel_key: {"val": _rounded(mean), "interval": _rounded(interval)},
        SHORT[judge]: {name: round(value, 4) for name, value in found.items()},
    }


def reference(judge: str, true: Features, perfect: np.ndarray) -> dict:
    """The distances under one judge that belong to no row.

    Args:
        judge: name of the judge.
        true: features of true images.
        perfect: those of the reconstructions of train images, as many as a row draws (n, d).

    Returns:
        Under the judge's Frechet key: the `floor`, that is of n true train images from val, and
        `floor_by_formula`; the distance of the `reconstructed` val images from val; and that of
        the `perfect` from val and, `perfect_reconstructed`, from the reconstructions of val: what
        a row scores whose latents are those of true images. Under its kernel key: the floor. Under
        its short name: precision, recall, density and coverage of the perfect.

    Raises:
        InputError: the judge sees no difference between any two val images.
    """
    if not np.ptp(true.val, axis=0).any():
        raise InputError(
            f"params.yaml: judge.size: at that size {judge} sees no difference between any two"
            " val images, and all rows would score 0; raise it"
        )
    frechet_key, kernel_key = KEYS[judge]
    n = len(perfect)
    distances = {
        "floor": _floor(true, n),
        "floor_by_formula": frechet.floor(true.val, n),
        "reconstructed": frechet.frechet(true.reconstructed, true.val),
        "perfect": frechet.frechet(perfect, true.val),
        "perfect_reconstructed": frechet.frechet(perfect, true.reconstructed),
    }
    found = manifold.precision_recall(perfect, true.val)
    found |= manifold.density_coverage(perfect, true.val)
    return {
        frechet_key: {name: _rounded(value) for name, value in distances.items()},
        kernel_key: {"floor": _rounded(kernel(_as_many(true, n), true.val)[0])},
        SHORT[judge]: {name: round(value, 4) for name, value in found.items()},
    }


def _as_many(true: Features, n: int) -> np.ndarray:
    return true.train[numerics.evenly(len(true.train), n)]


def _floor(true: Features, n: int) -> float:
    return frechet.frechet(_as_many(true, n), true.val)


def _projection(true: Features) -> frechet.Projection | None:
    """None where there are too few train images for so many axes."""
    if min(len(true.train) - 1, true.train.shape[1]) < DIMENSIONS:
        return None
    return frechet.fit_projection(true.train, DIMENSIONS)


def _rounded(distance: float) -> float:
    return float(f"{distance:.6g}")
