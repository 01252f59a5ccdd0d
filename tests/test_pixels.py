"""Pictures in the place of latents: the right ones, in the right order, and back again."""

from pathlib import Path

import test_encode_latents as encoding
from rissole.dataset import images
from rissole.denoiser import conditioning
from rissole.denoiser.settings import Variant
from rissole.latent import latents, pixels

import numpy as np
import pytest
import torch

torch.set_num_threads(1)
pictures = encoding.pixels  # a folder with a split of 130 train and 20 val images
ROW = Variant(context="neighbours/main", space="pixel", neighbours="stack", blocks=2)


@pytest.fixture
def train(pictures):
    encoding.write_model()
    return next(iter(encoding.encode(mirrors=True)))


def test_the_levels_are_the_pictures_of_the_latents_rows_and_mirrors_are_mirrored(pictures, train):
    levels = pixels.read(Path("data/split"), "train", train).numpy()
    assert levels.shape == (260, 3, 16, 16) and levels.dtype == np.uint8
    for row, (own, original) in enumerate(zip(train.ids, train.originals, strict=True)):
        picture = pictures[original - 100]
        picture = picture if own == original else picture[:, ::-1]
        assert np.array_equal(levels[row].transpose(1, 2, 0), picture)


def test_normalised_pictures_have_zero_mean_and_unit_variance(train):
    of = conditioning.database(ROW, train, Path("data/neighbours/main"), Path("data/split"))
    x = conditioning.Conditioning(ROW, of, normalise=True).latents(of.codes)
    assert x.shape == (260, 3, 16, 16)
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)


@pytest.mark.parametrize("normalise", [True, False])
def test_raw_pictures_are_the_pictures_and_none_is_beyond_the_limit(pictures, train, normalise):
    of = conditioning.database(ROW, train, Path("data/neighbours/main"), Path("data/split"))
    told = conditioning.Conditioning(ROW, of, normalise)
    x = told.latents(of.codes[train.ids == train.originals])
    assert np.array_equal(images.to_uint8(told.raw(x)), pictures[:130])
    assert x.abs().max() <= told.limit * (1 + 1e-6)
    levels = torch.tensor([0, 255], dtype=torch.uint8).expand(3, 1, 2)
    assert told.limit == pytest.approx(told.latents(levels).abs().max().item())


def test_a_block_is_told_the_pixels_of_the_same_block_of_each_neighbour(train):
    of = conditioning.database(ROW, train, Path("data/neighbours/main"), Path("data/split"))
    told = conditioning.Conditioning(ROW, of, normalise=False)
    near = told.told(torch.tensor([[5, 200]]), None, 1).neighbours
    assert near.shape == (4, 2, 3, 8, 8)
    x = of.codes[200].float() / 127.5 - 1
    torch.testing.assert_close(near[3, 1], x[:, 8:, 8:])


def test_the_grey_picture_has_the_mean_colour(train):
    of = conditioning.database(ROW, train, Path("data/neighbours/main"), Path("data/split"))
    grey = conditioning.Conditioning(ROW, of.with_grey(), normalise=True)
    x = grey.latents(grey.database[-1:])
    assert len(grey.database) == 261 and x.abs().max() < 0.01


def test_a_row_on_latents_sees_latents(train):
    row = Variant(context="latents", blocks=2)
    assert conditioning.database(row, train, Path("data/latents"), Path("data/split")) is train
    assert torch.equal(conditioning.codes(row, "train", train, Path("data/split")), train.codes)
    assert latents.take(train.codes, torch.tensor([3])).shape == (1, 4, 4)
