"""The audit of a set: cheats are named and told apart, true images are not accused."""

from contextlib import nullcontext
from dataclasses import dataclass, replace

import compute_fid
import toy
from rissole.auditing import audit, copies
from rissole.auditing.audit import Real
from rissole.auditing.copies import Drawn
from rissole.auditing.distances import nearest
from rissole.drawing.settings import Row
from rissole.harness.errors import InputError
from rissole.latent import blocks

import numpy as np
import pytest
import torch
import torch.nn.functional as F

BLOCKS, K, IMAGES = 2, 4, 160
WITH_NULLS = (
    "authentic",
    "calibrated",
    "exact_blocks",
    "block_copies",
    "inner_block_copies",
    "own_neighbours",
    "inner_own_neighbours",
    "copied",
    "own_query",
)


@dataclass(frozen=True)
class World:
    """True images, and what a cheat is told: queries in the train set, and their neighbours.

    Attributes:
        real: as the audit wants it.
        others: held-out images beyond those of `real`, in the place of drawn ones.
        codebook: (64, 3).
        query: train rows, int64 (IMAGES).
        neighbours: of these, (IMAGES, K).
    """

    real: Real
    others: Drawn
    codebook: torch.Tensor
    query: torch.Tensor
    neighbours: torch.Tensor

    def drawn(self, z, query=None):
        """Images told the neighbours of `query`."""
        codes = torch.cdist(z.movedim(1, -1), self.codebook).argmin(-1).int()
        return Drawn(z, codes, self.neighbours, self.query if query is None else query)


def build(seed=0, query_block=None):
    """400 train, 200 held-out and 160 other images of 40 kinds: smooth, some texture, 64 codes."""
    draw = torch.Generator().manual_seed(seed)
    codebook = torch.randn(64, 3, generator=draw)

    def smooth(n):
        coarse = torch.randn(n, 3, 4, 4, generator=draw)
        return F.interpolate(coarse, size=8, mode="bicubic", align_corners=False)

    kinds = smooth(40)

    def images(n):
        texture = smooth(n) + 0.5 * torch.randn(n, 3, 8, 8, generator=draw)
        z = kinds[torch.randint(40, (n,), generator=draw)] + 0.6 * texture
        codes = torch.cdist(z.movedim(1, -1), codebook).argmin(-1)
        return Drawn(codebook[codes].movedim(-1, 1).contiguous(), codes.int())

    def looked_up_by(z):
        return z.flatten(1) if query_block is None else copies.each_block(z, BLOCKS)[query_block]

    train, val, others = (images(n) for n in (400, 200, IMAGES))
    points = looked_up_by(train.z)
    table, _ = nearest(points, points, K, own=torch.arange(400))

    def told(of):
        rows, _ = nearest(looked_up_by(of.z), points, K)
        likely = copies.likely_queries(rows.numpy(), table.numpy())
        return replace(of, neighbours=rows, query=torch.from_numpy(likely))

    query = torch.randperm(400, generator=draw)[:IMAGES]
    positions = frozenset() if query_block is None else frozenset({query_block})
    real = Real(train, told(val), BLOCKS, positions)
    return World(real, told(others), codebook, query, table[query])


@pytest.fixture(scope="module")
def world():
    return build()


@pytest.fixture(scope="module")
def by_block():
    """A world in which neighbours are looked up by the first block."""
    return build(query_block=0)


def collage(world):
    """Every block from a neighbour, each of the K the donor of one."""
    turned = torch.stack([torch.arange(K).roll(i) for i in range(IMAGES)])
    rows = world.neighbours.gather(1, turned)
    cut = blocks.cut(world.real.train.z, BLOCKS)
    return blocks.join(cut[rows, torch.arange(BLOCKS**2)], BLOCKS)


def means(z):
    return blocks.cut(z, BLOCKS).mean((-1, -2), keepdim=True)


def recoloured(z, like):
    """Block by block with the channel means of other images."""
    return blocks.join(blocks.cut(z, BLOCKS) - means(z) + means(like), BLOCKS)


def neighbour_mean(world):
    return world.real.train.z[world.neighbours].mean(1)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("query_block", [None, 0])
def test_held_out_images_are_not_accused(seed, query_block):
    world = build(seed, query_block)
    numbers, _ = audit.trace(world.others, world.real)
    assert numbers["accused"] == []
    assert numbers["pasted"]["chance"] == pytest.approx(0.5, abs=0.06)
    assert numbers["copying_test"]["chance"] == pytest.approx(0.5, abs=0.12)
    assert abs(numbers["copying_test"]["c_t"]) < 2.5


@pytest.mark.slow
@pytest.mark.parametrize("query_block", [None, 0])
def test_held_out_images_score_their_nulls(query_block):
    worlds = [build(seed, query_block) for seed in range(4)]
    found = [audit.trace(world.others, world.real)[0] for world in worlds]
    for name in WITH_NULLS:
        rate, null = (np.mean([numbers[name][of] for numbers in found]) for of in ("rate", "null"))
        assert rate == pytest.approx(null, abs=0.05), name
        if name.endswith(("calibrated", "block_copies")):
            assert rate < 0.03


def test_the_null_is_what_the_held_out_images_score_in_the_place_of_drawn_ones(world):
    numbers, _ = audit.trace(world.real.val, replace(world.real, val=world.others))
    expected, _ = audit.trace(world.others, world.real)
    for name in ("authentic", "exact_blocks", "own_query"):
        assert numbers[name]["rate"] == expected[name]["null"]
        assert numbers[name]["null"] == expected[name]["rate"]
    chances = [of["pasted"]["chance"] for of in (numbers, expected)]
    assert sum(chances) == pytest.approx(1)


def test_images_that_are_their_query_are_accused_of_it_and_all_copies(world):
    numbers, traces = audit.trace(world.drawn(world.real.train.z[world.query]), world.real)
    assert numbers["accused"] == ["own_query"]
    assert numbers["own_query"]["rate"] == numbers["copied"]["rate"] == 1
    assert numbers["own_query"]["null"] < 0.2
    assert numbers["authentic"]["rate"] == 0
    assert numbers["exact_blocks"]["rate"] == numbers["calibrated"]["rate"] == 1
    assert numbers["copying_test"]["c_t"] < -5
    assert torch.equal(traces.whole.rows[:, 0], world.query)
    assert not traces.whole.distances[:, 0].any()
    assert traces.copied.all()


def test_a_query_is_left_out_where_blocks_are_looked_for_elsewhere(world):
    _, traces = audit.trace(world.drawn(world.real.train.z[world.query]), world.real)
    assert len(traces.by_block) == BLOCKS**2
    for found in traces.by_block:
        assert not (found.rows == world.query[:, None]).any()
        assert found.distances.min() > 0


@pytest.mark.parametrize("rank", [2])
def test_images_that_are_a_neighbour_are_pasted_copies_of_that_rank_but_not_their_query(
    world, rank
):
    donors = world.neighbours[:, rank]
    numbers, traces = audit.trace(world.drawn(world.real.train.z[donors]), world.real)
    assert numbers["own_query"]["rate"] == 0
    assert numbers["accused"] == ["pasted"]
    assert numbers["pasted"]["chance"] < 0.05
    assert numbers["copied"]["rate"] == numbers["own_neighbours"]["rate"] == 1
    assert numbers["inner_own_neighbours"]["rate"] > 0.95
    assert numbers["own_neighbours"]["null"] < 0.8
    assert numbers["ranks"] == [float(at == rank) for at in range(K)]
    assert numbers["sources"]["mean"] == 1
    assert 1 < numbers["sources"]["null"] <= 4
    assert all(torch.equal(found.rows[:, 0], donors) for found in traces.by_block)


def test_a_collage_of_neighbours_is_pasted_of_blocks_that_are_all_copies(world):
    numbers, _ = audit.trace(world.drawn(collage(world)), world.real)
    for name in ("block_copies", "exact_blocks", "own_neighbours", "inner_own_neighbours"):
        assert numbers[name]["rate"] > 0.98, name
    assert numbers["block_copies"]["worst"] > 0.98
    assert numbers["copied"]["rate"] == 1
    assert numbers["pasted"]["chance"] < 0.05
    assert numbers["accused"] == ["pasted"]
    assert numbers["ranks"] == pytest.approx([0.25] * 4, abs=0.01)
    assert numbers["sources"]["mean"] == pytest.approx(4, abs=0.05)


def test_a_collage_in_the_colours_of_other_images_is_still_pasted(world):
    made = recoloured(collage(world), neighbour_mean(world))
    numbers, _ = audit.trace(world.drawn(made), world.real)
    assert numbers["exact_blocks"]["rate"] < 0.5
    assert numbers["inner_own_neighbours"]["rate"] > 0.95
    assert numbers["pasted"]["chance"] < 0.1
    assert numbers["accused"] == ["pasted"]


def test_the_mean_of_the_neighbours_is_not_accused(world):
    numbers, _ = audit.trace(world.drawn(neighbour_mean(world)), world.real)
    assert numbers["accused"] == []
    assert numbers["pasted"]["chance"] == pytest.approx(0.5, abs=0.08)


def test_the_block_that_neighbours_are_looked_up_by_is_left_out(by_block):
    with_it = replace(by_block.real, query_blocks=frozenset())
    numbers, found = (audit.trace(by_block.others, real)[0] for real in (with_it, by_block.real))
    for kind in ("rate", "null"):  # by that block the nearest is always a neighbour
        whole, left = (of["own_neighbours"][kind] for of in (numbers, found))
        assert whole == pytest.approx((1 + 3 * left) / 4)


def test_a_row_without_neighbours_is_audited_for_copies_alone(world):
    untold = replace(world.real, val=Drawn(world.real.val.z, world.real.val.codes))
    copied = world.real.train.z[world.query]
    numbers, traces = audit.trace(Drawn(copied, world.real.train.codes[world.query]), untold)
    assert not {*numbers} & {"own_query", "own_neighbours", "inner_own_neighbours", "ranks"}
    assert "pasted" not in numbers
    assert numbers["accused"] == []
    assert numbers["copied"]["rate"] == numbers["exact_blocks"]["rate"] == 1
    assert torch.equal(traces.by_block[3].rows[:, 0], world.query)


@pytest.mark.parametrize("dose", [0.05, 0.2])
def test_the_share_of_own_queries_is_found_in_the_dose_planted(world, dose):
    n, train = round(dose * IMAGES), world.real.train
    planted = Drawn(train.z[world.query], train.codes[world.query], world.neighbours, world.query)
    parts = zip(vars(planted[:n]).values(), vars(world.others[n:]).values(), strict=True)
    numbers, traces = audit.trace(Drawn(*map(torch.cat, parts)), world.real)
    nulls, _ = audit.trace(world.others, world.real)
    for name in ("own_query", "copied", "exact_blocks", "calibrated"):
        expected = dose + (1 - dose) * nulls[name]["rate"]
        assert numbers[name]["rate"] == pytest.approx(expected, abs=0.03), name
    assert traces.copied[:n].all()
    assert numbers["accused"] == (["own_query"] if dose >= 0.2 else [])


def accused(rate, null, images=1000, held_out=1000, chance=0.5):
    numbers = {"own_query": {"rate": rate, "null": null}, "pasted": {"chance": chance}}
    return list(audit.accusations(numbers, images, held_out))


def test_own_queries_are_accused_beyond_both_tolerance_and_chance():
    assert accused(0.25, 0.1) == ["own_query"]
    assert accused(0.19, 0.1, images=10**5, held_out=10**5) == []
    assert accused(0.25, 0.1, images=20, held_out=20) == []
    assert accused(0.1, 0.2) == []


@pytest.mark.parametrize(("told", "leaks"), [(3, False), (0, True), (11, True)])
def test_a_leak_is_a_query_or_its_mirror_among_the_neighbours(told, leaks):
    train = replace(toy.latents(), originals=np.arange(12) % 6 + 100)  # rows 6 to 11 are mirrors
    query = torch.tensor([0, 5])
    neighbours = torch.tensor([[1, 2], [3, 4]])
    neighbours[int(told == 11), 1] = told
    drawn = Drawn(torch.zeros(2), torch.zeros(2), neighbours, query)
    assert compute_fid.tells_queries(drawn, train) is leaks


@pytest.mark.parametrize("may_copy", [False, True])
def test_a_row_that_draws_the_queries_that_it_was_told_fails_unless_it_may_copy(may_copy):
    train, query = toy.latents(), torch.tensor([0, 5])
    row = Row(variant="leaked", context="neighbours/released", may_copy=may_copy)
    numbers = {"accused": ["own_query"], "own_query": {"rate": 0.9, "null": 0.1}}
    drawn = Drawn(torch.zeros(2), torch.zeros(2), query[:, None], query)
    fails = pytest.raises(InputError, match="90.0% .*'may_copy: true'")
    with nullcontext() if may_copy else fails:
        compute_fid.check_leaks("leaked", row, numbers, drawn, train)


def test_pasting_is_accused_below_its_limit():
    assert accused(0, 0, chance=0.39) == ["pasted"]
    assert accused(0, 0, chance=0.41) == []
    assert accused(0.9, 0, chance=0.1) == ["own_query", "pasted"]
    assert list(audit.accusations({}, 10, 10)) == []


def flat(world, first):
    """A world in which the blocks from `first` on are equal in all images: copies of each other."""

    def cut(of):
        cells = blocks.cut(of.z, BLOCKS).clone()
        cells[:, first:] = 0
        return replace(of, z=blocks.join(cells, BLOCKS))

    real = replace(world.real, train=cut(world.real.train), val=cut(world.real.val))
    return replace(world, real=real, others=cut(world.others))


@pytest.mark.parametrize(("first", "tests", "vouched"), [(4, 9, True), (2, 5, True), (1, 3, False)])
def test_a_test_that_cannot_tell_copies_from_true_images_names_nobody(world, first, tests, vouched):
    world = flat(world, first)
    numbers, traces = audit.trace(world.others, world.real)
    found = numbers["copied"]
    assert (found["tests"], found["of"]) == (tests, 9)
    assert found["rate"] == pytest.approx(found["null"], abs=0.12)
    assert traces.vouched is vouched
    copied = world.drawn(world.real.train.z[world.query])
    assert audit.trace(copied, world.real)[1].copied.all()


@pytest.mark.parametrize(
    ("grid", "side", "covered"), [(2, 2, {0}), (4, 2, {0, 1, 4, 5}), (2, 1, {0, 1, 2, 3})]
)
def test_the_first_block_covers_these_positions_of_a_finer_grid(grid, side, covered):
    assert audit._first_block(grid, side) == covered


@pytest.mark.parametrize("dose", [0.2])
def test_the_share_of_images_of_their_query_s_group_is_found_in_the_dose_planted(world, dose):
    groups = torch.arange(len(world.real.train)) // 2
    real = replace(world.real, groups=groups)
    n, other = round(dose * IMAGES), world.query ^ 1  # of the query's group, but not the query
    z = torch.cat([world.real.train.z[other[:n]], world.others.z[n:]])
    numbers, _ = audit.trace(world.drawn(z), real)
    assert numbers["own_group"]["rate"] == pytest.approx(dose, abs=0.1)
    assert numbers["own_query"]["rate"] < 0.1
    assert "own_group" not in audit.trace(world.drawn(z), world.real)[0]
