"""How good neighbours are: of one kind, alike among themselves, and not everybody's."""

from rissole.latent import likeness as likeness_of
from rissole.retrieval.neighbours import hubs

import numpy as np
import torch

CHUNK = 512  # images at once


def precision(
    neighbours: np.ndarray, images: np.ndarray, labels: np.ndarray, pictures: np.ndarray
) -> dict[str, float]:
    """The share of the nearest 1, 5 and all k neighbours that have the label of their image.

    Args:
        neighbours: rows int64 (q, k), best first.
        images: rows of the images that they belong to, int64 (q,).
        labels: of all rows, int64 (n,), equal for one label.
        pictures: of all rows, int64 (n,), equal for rows of one picture, which are no neighbours.

    Returns:
        The shares, and `chance`, that of possible neighbours drawn at random.
    """
    same = labels[neighbours] == labels[images][:, None]
    ranks = sorted({1, 5, same.shape[1]})
    shares = {f"at_{k}": float(same[:, :k].mean()) for k in ranks if k <= same.shape[1]}
    sizes, kin = np.bincount(labels), np.bincount(pictures)[pictures[images]]
    return shares | {"chance": float(((sizes[labels[images]] - kin) / (len(labels) - kin)).mean())}


def likeness(
    neighbours: np.ndarray, images: np.ndarray, vectors: np.ndarray
) -> tuple[float, list[float]]:
    """How alike the neighbours are among themselves, and to their image.

    Args:
        neighbours: rows int64 (q, k), best first.
        images: rows of the images that they belong to, int64 (q,).
        vectors: of all rows, float32 (n, d).

    Returns:
        The mean cosine of two neighbours of an image, and that of an image and its neighbour of
        each rank, k numbers.
    """
    among, by_rank = 0.0, torch.zeros(neighbours.shape[1])
    for start in range(0, len(images), CHUNK):
        part = slice(start, start + CHUNK)
        near = torch.from_numpy(vectors[neighbours[part]])
        own = torch.from_numpy(vectors[images[part]])
        among += likeness_of.agreement(near).sum().item()
        by_rank += likeness_of.similarity(own, near).sum(0)
    return among / len(images), (by_rank / len(images)).tolist()


def hubness(neighbours: np.ndarray, rows: int) -> dict[str, float]:
    """How unevenly neighbours (q, k) use a database of so many rows.

    Returns:
        As `neighbours.hubs`, and the `skew` of how often rows are used (Radovanovic et al. 2010):
        0 where all are used about alike.
    """
    uses = np.bincount(neighbours.ravel(), minlength=rows).astype(float)
    off = uses - uses.mean()
    skew = (off**3).mean() / max((off**2).mean() ** 1.5, 1e-12)
    return hubs(neighbours, rows) | {"skew": float(skew)}
