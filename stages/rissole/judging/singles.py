"""Scores of single images, and what goes with them."""

from rissole.core import numerics

import numpy as np
import torch

NEAREST = 5  # true images that a drawn one's distance is the mean to
SHUFFLES = 1000


def distances(drawn: np.ndarray, true: np.ndarray) -> np.ndarray:
    """How far each drawn image is from the true ones nearest to it, (n,), of features (n, d)."""
    apart = torch.cdist(torch.tensor(drawn), torch.tensor(true))
    return apart.topk(min(NEAREST, len(true)), largest=False).values.mean(1).numpy()


def correlation(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The rank correlation of two measures (n,) of the same images.

    Returns:
        `rho` (Spearman, ties in their order), and `chance`, what 95 % of shuffled pairs stay below
        in size.
    """
    assert np.isfinite(x).all() and np.isfinite(y).all()
    x, y = (np.argsort(np.argsort(values)).astype(float) for values in (x, y))
    x, y = ((values - values.mean()) / values.std() for values in (x, y))
    draw = np.random.default_rng(numerics.seeded(len(x)))
    shuffled = [abs((x * draw.permutation(y)).mean()) for _ in range(SHUFFLES)]
    rho, chance = (x * y).mean(), np.quantile(shuffled, 0.95)
    return {"rho": round(float(rho), 4), "chance": round(float(chance), 4)}
