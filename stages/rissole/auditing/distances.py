"""Exact nearest neighbours by Euclidean distance, in pieces that fit into memory."""

import torch
from torch import Tensor

PAIRS = 2**25  # distances held at once: 128 MiB
SPARE = 8  # found in float32 beyond those asked for, to be ranked again in float64


def nearest(
    queries: Tensor, points: Tensor, n: int = 1, own: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The `n` nearest points of each query, nearest first.

    Found by |a|^2 + |b|^2 - 2ab in float32, which takes exact copies for near ones; so the found
    are measured and ranked again by direct subtraction in float64.

    Args:
        queries: float (q, d).
        points: float (m, d), m > n.
        n: how many.
        own: a point of each query that is not looked at, int64 (q).

    Returns:
        Rows of `points` int64 (q, n) and distances float64 (q, n).
    """
    centre = points.mean(0)  # large common offsets would cost digits
    centred = points - centre
    found = [
        _nearest(queries[part], points, centre, centred, n, None if own is None else own[part])
        for part in torch.arange(len(queries)).split(max(1, PAIRS // len(points)))
    ]
    rows, distances = zip(*found, strict=True)
    return torch.cat(rows), torch.cat(distances)


def _nearest(
    queries: Tensor, points: Tensor, centre: Tensor, centred: Tensor, n: int, own: Tensor | None
) -> tuple[Tensor, Tensor]:
    squared = torch.cdist(queries - centre, centred)
    if own is not None:
        squared[torch.arange(len(queries)), own] = torch.inf
    _, rows = squared.topk(min(n + SPARE, len(points)), largest=False)
    exact = torch.cat(
        [
            (some[:, None].double() - points[of].double()).norm(dim=2)
            for some, of in zip(queries.split(64), rows.split(64), strict=True)
        ]
    )
    if own is not None:
        exact[rows == own[:, None]] = torch.inf
    distances, order = exact.sort(dim=1, stable=True)
    return rows.gather(1, order)[:, :n], distances[:, :n]
