"""The controls: each cheat is what it is called, and a measure that misses one is told on."""

from rissole.auditing import controls
from rissole.auditing.controls import MUST_RAISE, Sources
from rissole.latent import blocks

import pytest
import torch

BLOCKS, K = 2, 4


@pytest.fixture(scope="module")
def sources():
    """Latents (., 3, 8, 8) of random numbers, so that every pixel tells where it is from."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randperm(200, generator=generator)[:60]
    offsets = torch.stack(
        [torch.randperm(199, generator=generator)[:K] + 1 for _ in range(len(query))]
    )
    return Sources(
        train=torch.randn(200, 3, 8, 8, generator=generator),
        val=torch.randn(50, 3, 8, 8, generator=generator),
        query=query,
        neighbours=(query[:, None] + offsets) % 200,
        blocks=BLOCKS,
        seed=0,
    )


@pytest.fixture(scope="module")
def made(sources):
    return dict(controls.latents(sources))


def donors(z, train):
    """The train row that each block (n, p) of latents was taken from, at its own position."""
    cut, whole = (blocks.cut(x, BLOCKS).flatten(2) for x in (z, train))
    same = (cut[:, None] == whole[None]).all(3)  # n m p
    assert (same.sum(1) == 1).all()
    return same.int().argmax(1)


def test_the_true_images_are_the_held_out_ones(made, sources):
    for name in controls.TRUE:
        assert torch.equal(made[name], sources.val)
        assert MUST_RAISE[name] == ()


def test_copies_are_the_train_images_behind_the_queries(made, sources):
    assert torch.equal(made["copies"], sources.train[sources.query])


def test_half_copies_are_half_copies_of_the_first_queries_and_half_true(made, sources):
    copied, true = made["half_copies"].chunk(2)
    assert torch.equal(copied, sources.train[sources.query[:30]])
    assert torch.equal(true, sources.val[:30])


def test_a_random_collage_has_blocks_of_as_many_images_each_in_its_own_position(made, sources):
    found = donors(made["random_collage"], sources.train)
    assert len(found) == len(sources.query)
    apart = [len(set(row)) for row in found.tolist()]
    assert sum(apart) / len(apart) > 3.9
    assert len(found.unique()) > 100


def test_a_neighbour_collage_takes_each_block_from_an_own_neighbour_at_its_position(made, sources):
    found = donors(made["neighbour_collage"], sources.train)
    used = found[:, :, None] == sources.neighbours[:, None]  # n p k
    assert used.any(2).all()
    shares = used.double().mean((0, 1))
    assert (shares > 0.5 / K).all()
    assert (shares < 2 / K).all()


def test_a_neighbour_mean_is_the_mean_of_the_own_neighbours(made, sources):
    expected = sum(sources.train[rows] for rows in sources.neighbours.T) / K
    torch.testing.assert_close(made["neighbour_mean"], expected)


def test_the_disguised_collage_is_the_collage_in_the_neighbours_colours_with_soft_borders(made):
    collage, mean = (blocks.cut(made[f"neighbour_{of}"], BLOCKS) for of in ("collage", "mean"))
    colours = (mean - collage).mean((-1, -2), keepdim=True).expand_as(collage)
    changed = made["disguised_collage"] - made["neighbour_collage"]
    expected = blocks.join(colours, BLOCKS)
    border = torch.zeros(8, 8, dtype=torch.bool)
    border[3:5] = border[:, 3:5] = True
    torch.testing.assert_close(changed[..., ~border], expected[..., ~border])
    assert (changed - expected)[..., border].abs().mean() > 0.1


@pytest.mark.parametrize("per_side", [2, 4])
def test_recoloured_blocks_have_the_means_of_the_others_and_keep_what_is_inside(per_side):
    z, like = torch.randn(5, 3, 8, 8), torch.randn(5, 3, 8, 8) + 2
    found = controls.recoloured(z, like, per_side)
    cut = [blocks.cut(x, per_side) for x in (found, z, like)]
    means = [x.mean((-1, -2), keepdim=True) for x in cut]
    torch.testing.assert_close(means[0], means[2])
    torch.testing.assert_close(cut[0] - means[0], cut[1] - means[1])


@pytest.mark.parametrize(("per_side", "touched"), [(2, [3, 4]), (4, [1, 2, 3, 4, 5, 6])])
def test_feathering_changes_the_two_pixels_along_each_border_and_no_others(per_side, touched):
    z = torch.randn(5, 3, 8, 8)
    changed = (controls.feathered(z, per_side) != z).all(1).all(0)
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[touched, :] = expected[:, touched] = True
    assert torch.equal(changed, expected)


def test_feathering_halves_a_step_at_a_border_and_leaves_a_slope_alone():
    across = torch.arange(8.0).expand(1, 1, 8, 8)
    torch.testing.assert_close(controls.feathered(across, 2), across)
    for step in (torch.arange(8) >= 4, (torch.arange(8) >= 4)[:, None]):
        z = step.float().expand(1, 1, 8, 8)
        found = controls.feathered(z, 2)
        line = found[0, 0, 0] if step.dim() == 1 else found[0, 0, :, 0]
        assert line.tolist() == [0, 0, 0, 0.25, 0.75, 1, 1, 1]


def right():
    """What is objected to where every measure does its work."""
    return {name: list(must) for name, must in MUST_RAISE.items()}


def test_where_every_cheat_is_flagged_and_nothing_true_is_there_are_no_mistakes():
    assert controls.mistakes(right()) == []


CHEATS = [(name, objection) for name, must in MUST_RAISE.items() for objection in must]


@pytest.mark.parametrize(("name", "objection"), CHEATS)
def test_a_missed_cheat_is_named_with_the_measure_that_missed_it(name, objection):
    raised = right()
    raised[name].remove(objection)
    (sentence,) = controls.mistakes(raised)
    assert sentence == f"{name} is a cheat that '{objection}' should have flagged"


@pytest.mark.parametrize("name", controls.TRUE)
def test_true_images_that_are_flagged_are_named_with_the_measure_that_is_wrong(name):
    raised = right()
    raised[name] = ["seams"]
    (sentence,) = controls.mistakes(raised)
    assert sentence == f"{name} are true images, flagged by 'seams'"


def test_no_objection_is_left_without_a_cheat_that_must_raise_it():
    assert {objection for _, objection in CHEATS} == {
        "own_query",
        "pasted",
        "copied",
        "collage",
        "colour",
        "seams",
        "recall",
    }
