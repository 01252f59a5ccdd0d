"""Nearest neighbours: those that all distances, taken one by one, give; and copies at exactly 0."""

from rissole.auditing import distances
from rissole.auditing.distances import nearest

import numpy as np
import pytest
import torch


def normal(n, seed, width=6, mean=0.0):
    """Standard normal points (n, width) around `mean`, float32."""
    draw = np.random.default_rng(seed)
    return torch.from_numpy((draw.normal(size=(n, width)) + mean).astype(np.float32))


def one_by_one(queries, points):
    """All distances (q, m), each by itself in float64."""
    a, b = queries.double().numpy(), points.double().numpy()
    return np.array([[np.sqrt(((x - y) ** 2).sum()) for y in b] for x in a])


@pytest.mark.parametrize("width", [2, 300])
@pytest.mark.parametrize("n", [1, 5])
def test_the_nearest_are_those_of_all_distances_taken_one_by_one(width, n):
    queries, points = normal(20, 0, width), normal(70, 1, width)
    every = one_by_one(queries, points)
    rows, found = nearest(queries, points, n)
    assert rows.tolist() == every.argsort(1)[:, :n].tolist()
    np.testing.assert_allclose(found, np.sort(every, 1)[:, :n], rtol=1e-12)


@pytest.mark.parametrize("mean", [1000])
def test_exact_copies_are_at_distance_exactly_0(mean):
    points = normal(200, 0, 300, mean)
    of = torch.from_numpy(np.random.default_rng(1).permutation(200))
    rows, found = nearest(points[of], points)
    assert torch.equal(rows[:, 0], of)
    assert (found == 0).all()


def test_almost_copies_are_not_taken_for_copies():
    points = normal(50, 0, 300, 1000)
    almost = points.clone()
    almost[:, 7] += 2.0**-10
    assert (nearest(almost, points)[1] == 2.0**-10).all()


@pytest.mark.parametrize("n", [8])
def test_what_float32_cannot_rank_is_ranked_right(n):
    base = normal(40, 0, 300)
    steps = torch.tensor([5, 2, 7, 1, 4, 0, 6, 3]) * 2.0**-12
    points = torch.cat([base[0] + torch.eye(300)[:8] * steps[:, None], base[1:]])
    assert nearest(base[:1], points, n)[0].tolist() == [[5, 3, 1, 7, 4, 0, 6, 2][:n]]


@pytest.mark.parametrize("spare", [0, 8])
def test_the_own_point_is_left_out_and_takes_no_place(monkeypatch, spare):
    points = normal(60, 0)
    every = one_by_one(points, points)
    np.fill_diagonal(every, np.inf)
    monkeypatch.setattr(distances, "SPARE", spare)
    rows, found = nearest(points, points, 3, own=torch.arange(60))
    assert rows.tolist() == every.argsort(1)[:, :3].tolist()
    np.testing.assert_allclose(found, np.sort(every, 1)[:, :3], rtol=1e-12)


def test_the_own_point_is_left_out_of_few_too():
    points = normal(4, 0)
    rows, found = nearest(points, points, 3, own=torch.arange(4))
    assert [sorted(of) for of in rows.tolist()] == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert found.isfinite().all()


def test_a_twin_of_the_own_point_is_found():
    points = torch.cat([normal(30, 0, 300, 1000)] * 2)
    rows, found = nearest(points, points, own=torch.arange(60))
    assert rows[:, 0].tolist() == [(row + 30) % 60 for row in range(60)]
    assert (found == 0).all()


@pytest.mark.parametrize("pairs", [1, 1000])
def test_in_pieces_the_same_is_found(monkeypatch, pairs):
    queries, points = normal(70, 0, 30), normal(90, 1, 30)
    queries[:20] = points[:20]
    own = torch.arange(70)
    whole = nearest(queries, points, 4), nearest(queries, points, 4, own)
    monkeypatch.setattr(distances, "PAIRS", pairs)
    parts = nearest(queries, points, 4), nearest(queries, points, 4, own)
    for (rows, found), (expected, exact) in zip(parts, whole, strict=True):
        assert torch.equal(rows, expected)
        assert torch.equal(found, exact)
