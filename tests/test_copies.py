"""Copies: planted ones are found, in the dose planted, and true images give the null."""

from rissole.auditing import copies
from rissole.auditing.copies import Found
from rissole.auditing.distances import nearest
from rissole.latent import blocks

import numpy as np
import pytest
import torch


def normal(n, seed, width=6, mean=0.0):
    """Standard normal points (n, width) around `mean`, float32."""
    draw = np.random.default_rng(seed)
    return torch.from_numpy((draw.normal(size=(n, width)) + mean).astype(np.float32))


def integers(high, shape, seed):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, high, shape))


def tables(seed, val=40, train=150, k=5, among=150):
    """Neighbour tables of random rows, none twice in a line: of val images and of train rows."""
    draw = np.random.default_rng(seed)
    return [
        np.stack([draw.choice(among, k, replace=False) for _ in range(n)]) for n in (val, train)
    ]


def jaccard(a, b):
    return len({*a.tolist()} & {*b.tolist()}) / len({*a.tolist()} | {*b.tolist()})


@pytest.fixture(scope="module")
def train():
    return normal(500, 0, 30)


def test_the_calibrated_distance_is_that_of_its_definition(train):
    drawn = normal(9, 1, 30)
    every = torch.cdist(drawn.double(), train.double()).sort(1).values
    found = copies.search(drawn, train).calibrated()
    torch.testing.assert_close(found, every[:, 0] / (0.5 * every[:, :50].mean(1)))


def test_the_calibrated_distance_of_copies_is_0_and_of_noisy_copies_near_0(train):
    found = copies.search(torch.cat([train[:20], train[:20] + 0.05 * normal(20, 1, 30)]), train)
    assert not found.calibrated()[:20].any()
    assert found.calibrated()[20:].min() > 0
    assert found.calibrated()[20:].max() < 0.2
    assert copies.search(normal(20, 1, 30), train).calibrated().min() > 1


def test_blocks_come_by_position():
    z = normal(3, 0, 2 * 8 * 8).reshape(3, 2, 8, 8)
    found = copies.each_block(z, 2)
    assert torch.equal(found[1], z[:, :, :4, 4:].flatten(1))
    assert torch.equal(found[2], z[:, :, 4:, :4].flatten(1))


def test_inside_of_blocks_neither_colours_nor_borders_are_seen():
    z = normal(3, 0, 2 * 8 * 8).reshape(3, 2, 8, 8)
    cut = blocks.cut(z, 2) + torch.arange(8.0).reshape(1, 4, 2, 1, 1)
    cut[..., [0, -1], :] = cut[..., :, [0, -1]] = 9
    changed = blocks.join(cut, 2)
    for a, b in zip(*(copies.each_block(x, 2, inside=True) for x in (z, changed)), strict=True):
        assert a.shape == (3, 2 * 2 * 2)
        torch.testing.assert_close(a, b)
    moved = copies.each_block(z.flip(-1), 2, inside=True)
    assert (copies.each_block(z, 2, inside=True)[0] - moved[0]).abs().max() > 1


def test_low_distances_are_flagged_and_high_ones_are_not():
    val = torch.linspace(1, 2, 1000).double()
    drawn, _ = copies.flagged(torch.tensor([0, 0.5, 0.99, 1.05, 3]).double(), val)
    assert drawn.tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("seed", range(2))
def test_of_one_law_the_quantile_is_flagged_on_both_sides(seed):
    drawn, null = copies.flagged(normal(20_000, seed, 1)[:, 0], normal(20_000, seed + 9, 1)[:, 0])
    assert len(null) == 10_000
    rate, null_rate = (flags.double().mean().item() for flags in (drawn, null))
    assert rate == pytest.approx(copies.QUANTILE, abs=0.004)
    assert null_rate == pytest.approx(rate, abs=0.004)


def test_where_held_out_images_have_twins_exact_copies_are_flagged_and_the_null_says_how_many():
    val = torch.ones(400).double()
    val[:40] = 0
    drawn, null = copies.flagged(torch.tensor([0, 1e-9, 0.5]).double(), val)
    assert drawn.tolist() == [True, False, False]
    assert null.double().mean() == 0.1


@pytest.mark.parametrize("dose", [0, 0.2])
def test_the_share_that_is_flagged_is_the_share_of_copies(train, dose):
    planted = round(dose * 200)
    drawn = torch.cat([train[:planted], normal(200 - planted, 1, 30)])
    found = [copies.search(x, train).calibrated() for x in (drawn, normal(400, 2, 30))]
    flags, null = copies.flagged(*found)
    assert flags[:planted].all()
    assert flags.double().mean() == pytest.approx(dose, abs=0.025)
    assert null.double().mean() < 0.03


def test_authentic_is_the_share_that_its_definition_gives(train):
    drawn = torch.cat([normal(60, 1, 30), train[:60] + 0.6 * normal(60, 2, 30)])
    expected = []
    for x in drawn.double():
        apart = (train.double() - x).norm(dim=1)
        others = (train.double() - train[apart.argmin()]).norm(dim=1).sort().values
        expected.append((apart.min() > others[1]).item())
    assert 0.1 < np.mean(expected) < 0.9
    assert copies.authentic(copies.search(drawn, train), train) == np.mean(expected)


@pytest.mark.parametrize("gap", [0, 100])
def test_the_copying_test_is_that_of_its_definition(gap):
    train, val, drawn = (normal(n, seed, 2).double() for seed, n in enumerate((300, 180, 170)))
    for points in (train, val, drawn):
        points += gap * (torch.arange(len(points)) % 3)[:, None]
    centres = copies._means(train, 3)
    of = [torch.cdist(points, centres).argmin(1) for points in (train, val, drawn)]
    z, area = 0.0, 0.0
    for cell in range(3):
        t, v, g = (x[at == cell] for x, at in zip((train, val, drawn), of, strict=True))
        assert min(len(v), len(g)) > 20
        v, g = ([(t - x).norm(dim=1).min().item() for x in points] for points in (v, g))
        n, m, u = len(v), len(g), sum(a > b for a in g for b in v)
        z += n / 180 * (u - (n * m / 2 - 0.5)) / (n * m * (n + m + 1) / 12) ** 0.5
        area += n / 180 * u / (n * m)
    assert abs(z) > 0.1
    assert copies.copying_test(drawn, val, train) == pytest.approx((z, area))


def test_a_cell_with_too_few_drawn_images_is_left_out():
    train, val, drawn = (normal(300, seed, 4) for seed in range(3))
    for points in (train, val, drawn):
        points += 100 * (torch.arange(300) % 3)[:, None]
    drawn, few = drawn[torch.arange(300) % 3 > 0], drawn[::3][:20]
    without, found = (copies.copying_test(x, val, train) for x in (drawn, torch.cat([drawn, few])))
    assert found == pytest.approx(without)
    assert copies.copying_test(torch.cat([drawn, few, few]), val, train) != pytest.approx(without)


def test_of_wide_latents_the_64_axes_that_train_images_spread_most_along_are_tested():
    train, val, drawn = (normal(n, n, 100) for n in (300, 200, 150))
    train[:, 64:] = 0
    drawn[:, 64:] *= 9
    turn = torch.linalg.qr(normal(100, 0, 100))[0]
    found = copies.copying_test(*(x @ turn for x in (drawn, val, train)))
    expected = copies.copying_test(*(x[:, :64] for x in (drawn, val, train)))
    assert found == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("width", [5, 100])
@pytest.mark.parametrize("seed", range(2))
def test_equal_laws_pass_the_copying_test(seed, width):
    train, val, drawn = (normal(n, seed + at, width) for n, at in ((800, 0), (400, 10), (400, 20)))
    c_t, chance = copies.copying_test(drawn, val, train)
    assert abs(c_t) < 2.5
    assert chance == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("width", [5, 100])
@pytest.mark.parametrize("seed", range(2))
def test_copies_are_far_below_and_underfit_images_far_above(seed, width):
    train, val, drawn = (normal(n, seed + at, width) for n, at in ((800, 0), (400, 10), (400, 20)))
    c_t, chance = copies.copying_test(train[:400] + 0.1 * drawn, val, train)
    assert c_t < -10
    assert chance < 0.1
    c_t, chance = copies.copying_test(2 * drawn, val, train)
    assert c_t > 8
    assert chance > 0.8


def test_too_few_drawn_images_are_not_tested():
    assert copies.copying_test(normal(20, 0), normal(200, 1), normal(300, 2)) == (0, 0.5)


@pytest.mark.parametrize("high", [4, 10**6])
def test_the_chance_to_be_farther_is_that_of_all_pairs_ties_counting_half(high):
    drawn, val = (integers(high, n, n).double() for n in (30, 50))
    wins = [(g > v) + (g == v) / 2 for g in drawn.tolist() for v in val.tolist()]
    assert copies.farther(drawn, val) == pytest.approx(np.mean(wins))


def test_the_own_query_is_asked_for_at_the_first_rank_only():
    found = Found(torch.tensor([[3, 5], [5, 3], [1, 2]]), torch.zeros(3, 2))
    assert copies.own_query(found, torch.tensor([3, 3, 3])).tolist() == [True, False, False]


@pytest.mark.parametrize("seed", range(2))
def test_a_likely_query_shares_as_many_neighbours_as_any_row(seed):
    val, train = tables(seed, among=30)
    for of, row in zip(val, copies.likely_queries(val, train), strict=True):
        assert jaccard(of, train[row]) == max(jaccard(of, other) for other in train)


def test_the_rank_used_is_the_place_of_the_nearest_row_among_the_neighbours():
    found = Found(torch.tensor([[4, 9], [9, 4], [7, 8], [8, 7]]), torch.zeros(4, 2))
    neighbours = torch.tensor([[4, 9, 8], [4, 9, 8], [4, 9, 8], [4, 9, 8]])
    assert copies.ranks_used(found, neighbours).tolist() == [0, 1, -1, 2]


def test_nearness_is_that_of_its_definition():
    train, points, of = normal(60, 0), normal(300, 1), integers(60, (300, 4), 2)
    apart = [[(x - train[row]).norm() for row in rows] for x, rows in zip(points, of, strict=True)]
    expected = np.min(apart, 1) / np.mean(apart, 1)
    np.testing.assert_allclose(copies.nearness(points, train, of), expected, rtol=1e-5)


def test_nearness_is_0_for_a_copy_of_any_neighbour_and_1_where_all_are_equally_far():
    train = torch.cat([torch.eye(6), 3 + normal(4, 0)])
    points = torch.cat([train[[2, 5, 7]], torch.zeros(1, 6)])
    of = torch.tensor([[2, 8, 9], [8, 5, 9], [8, 9, 7], [0, 3, 4]])
    assert copies.nearness(points, train, of).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("scale", [0.5])
def test_nearness_hardly_moves_when_all_is_blurred_towards_the_mean_though_distances_do(scale):
    train, val, drawn = normal(800, 0, 12), normal(400, 1, 12), scale * normal(400, 2, 12)
    near = [
        copies.nearness(x, train, integers(800, (400, 4), seed))
        for seed, x in enumerate((drawn, val))
    ]
    assert copies.farther(nearest(drawn, train)[1][:, 0], nearest(val, train)[1][:, 0]) < 0.25
    assert copies.farther(*near) == pytest.approx(0.5, abs=0.1)


def test_an_exact_block_is_one_that_a_train_image_has_at_its_position():
    train = integers(4, (9, 4, 4), 0)
    drawn = torch.full((2, 4, 4), 9)
    drawn[0, :2, 2:] = train[5, :2, 2:]
    drawn[0, 2:, 2:] = train[3, 2:, 2:]
    drawn[1, :2, :2] = train[5, 2:, :2]  # elsewhere
    found = copies.exact_blocks(drawn, train, 2)
    assert found.tolist() == [[False, True, False, True], [False] * 4]


def test_a_rate_is_above_its_null_by_more_than_chance_or_not_at_all():
    assert copies.above(0.05, 0.01, images=1000, held_out=1000)
    assert not copies.above(0.05, 0.01, images=20, held_out=1000)
    assert not copies.above(0.05, 0.01, images=1000, held_out=20)
    assert not copies.above(0.01, 0.05, images=10**6, held_out=10**6)


def test_a_null_of_0_or_1_is_no_certainty():
    assert not copies.above(0.01, 0, images=100, held_out=100)
    assert copies.above(0.1, 0, images=100, held_out=100)
    assert not copies.above(1, 1, images=100, held_out=100)


def test_a_test_that_flags_many_held_out_images_can_name_nobody():
    assert copies.telling(torch.arange(1000) < 70)  # chance may do that at a twentieth
    assert not copies.telling(torch.arange(1000) < 71)
    assert copies.telling(torch.arange(20) < 3)
    assert not copies.telling(torch.arange(20) < 4)


def test_the_own_group_is_that_of_the_query():
    groups = torch.tensor([7, 7, 8, 9])
    found = Found(torch.tensor([[1, 0], [2, 3], [3, 0]]), torch.zeros(3, 2))
    own = copies.own_group(found, torch.tensor([0, 2, 1]), groups)
    assert own.tolist() == [True, True, False]
