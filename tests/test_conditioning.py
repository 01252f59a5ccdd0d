"""What a row tells its denoiser: the corresponding blocks of the right images, and nothing else."""

import toy
from rissole.core import files
from rissole.denoiser.conditioning import Conditioning, Stem
from rissole.denoiser.denoiser import Denoiser
from rissole.harness.errors import InputError
from rissole.latent import blocks
from rissole.latent.latents import read_neighbours

import numpy as np
import pyarrow as pa
import pytest
import torch


def told_of(row, images=3, k=4, seed=0):
    train = toy.latents()
    conditioning = Conditioning(row, train, normalise=True)
    neighbours = torch.randint(12, (images, k), generator=torch.Generator().manual_seed(seed))
    z = conditioning.latents(train.codes[:images])
    return conditioning, neighbours, z, conditioning.told(neighbours, z, images)


def test_a_block_is_told_the_same_block_of_each_neighbour_in_rank_order():
    conditioning, neighbours, _, told = told_of(toy.row("stack"))
    train = toy.latents()
    for image in range(3):
        for block in range(4):
            for rank in range(4):
                z = conditioning.latents(train.codes[neighbours[image, rank]])
                expected = blocks.cut(z, 2)[block]
                assert torch.equal(told.neighbours[image * 4 + block, rank], expected)


def test_normalised_latents_have_zero_mean_and_unit_variance():
    train = toy.latents(images=50)
    z = Conditioning(toy.row(), train, normalise=True).latents(train.codes)
    assert z.mean((0, 2, 3)).abs().max() < 1e-5
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(2), atol=1e-3, rtol=0)


def test_tokens_are_the_embeddings_of_the_neighbours_as_wholes_for_each_block():
    conditioning, neighbours, _, told = told_of(toy.row("tokens"))
    embeddings = toy.latents().embeddings
    standard = (embeddings - embeddings.mean(0)) / embeddings.std(0)
    assert told.neighbours is None and told.embeddings.shape == (12, 4, toy.EMBEDDED)
    for image in range(3):
        for block in range(4):
            torch.testing.assert_close(
                told.embeddings[image * 4 + block], standard[neighbours[image]]
            )


def test_the_previous_block_is_the_one_before_in_reading_order_and_zero_for_the_first():
    _, _, z, told = told_of(toy.row("stack", previous=True))
    z_blocks = blocks.cut(z, 2)
    previous = told.previous.unflatten(0, (3, 4))
    assert not previous[:, 0].any()
    assert torch.equal(previous[:, 1:], z_blocks[:, :-1])


def test_positions_count_the_blocks_of_each_image():
    _, _, _, told = told_of(toy.row(position=True))
    assert told.position.tolist() == [0, 1, 2, 3] * 3


def test_a_row_without_neighbours_position_or_previous_is_told_nothing():
    _, _, _, told = told_of(toy.row())
    assert set(vars(told).values()) == {None}


def test_a_set_takes_another_number_of_neighbours_than_it_was_built_for():
    row = toy.row("set")
    stem = Stem(row, toy.ldm(), 2, 4, 0)
    assert stem.context(told_of(row, k=9)[3]).maps.shape == (12, 8, 4, 4)


@pytest.mark.parametrize(
    ("changes", "neighbours"),
    [
        ({}, "none"),
        ({"position": True}, "none"),
        ({"previous": True}, "none"),
        ({}, "stack"),
        ({"previous": True}, "stack"),
        ({"halo": 2}, "set"),
        ({"blocks": 1}, "tokens"),
    ],
)
def test_every_parameter_of_every_kind_of_row_is_live(changes, neighbours):
    row = toy.row(neighbours, **changes)
    conditioning, _, z, told = told_of(row)
    network = Denoiser(row, toy.ldm(), 2, 4, conditioning.embedded)
    torch.nn.init.normal_(network.unet.last.weight)
    b = 3 * conditioning.grid.blocks
    context = network.context(told)
    out = network(conditioning.grid.cut_noisy(z), torch.arange(b), context, told.position)
    assert out.shape == conditioning.grid.cut(z).shape
    out.square().sum().backward()
    assert [name for name, p in network.named_parameters() if not p.grad.any()] == []


def test_a_halo_lets_a_block_see_two_pixels_of_its_neighbours_and_no_further():
    row = toy.row("none", halo=2)
    conditioning = Conditioning(row, toy.latents(), normalise=True)
    stem = Stem(row, toy.ldm(), 2, 0, 0)
    z = torch.randn(1, 2, 8, 8)
    quiet = conditioning.told(None, None, 1)

    def first_block(z):
        return stem(conditioning.grid.cut_noisy(z), stem.context(quiet))[0]

    near, far = z.clone(), z.clone()
    near[..., 0, 5] += 1
    far[..., 0, 6] += 1
    assert not torch.allclose(first_block(near), first_block(z), atol=1e-4)
    assert torch.equal(first_block(far), first_block(z))


def test_neighbour_tables_are_read_as_rows_of_the_database(tmp_path):
    train = toy.latents()
    ids = np.array([[103, 100], [111, 105]])
    table = pa.table({"id": [7, 8], "neighbours": files.lists_column(ids)})
    files.write_table(tmp_path / "val.parquet", table)
    own, rows = read_neighbours(tmp_path / "val.parquet", train)
    assert own.tolist() == [7, 8]
    assert rows.tolist() == [[3, 0], [11, 5]]


def test_a_neighbour_table_of_other_latents_is_refused(tmp_path):
    columns = {"id": [7], "neighbours": files.lists_column(np.array([[103]]))}
    files.write_table(tmp_path / "val.parquet", pa.table(columns, metadata={"latents": "theirs"}))
    with pytest.raises(InputError, match=r"val\.parquet: made of other latents .* `dvc repro`"):
        read_neighbours(tmp_path / "val.parquet", toy.latents())
