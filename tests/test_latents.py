"""Latents on disk and in memory."""

from dataclasses import replace
from pathlib import Path

import toy
from rissole.core import memory
from rissole.harness.errors import InputError
from rissole.latent import latents

import numpy as np
import pytest
import torch


def some(n=12, seed=0):
    """Latents whose ids are large and in no order, half of them of one group."""
    ids = np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, n)
    groups = np.array(["one", None] * (n // 2), object)
    return replace(toy.latents(n, 4, seed), ids=ids, originals=ids.copy(), groups=groups)


def test_what_is_written_is_read_back(tmp_path):
    wrote = {"train": some(), "val": some(seed=1)}
    toy.write_latents(tmp_path, **wrote)
    for split, of in wrote.items():
        read = latents.read(tmp_path, split)
        for name in ("ids", "originals", "groups"):
            assert getattr(read, name).tolist() == getattr(of, name).tolist()
        assert torch.equal(read.codes, of.codes)
        assert torch.equal(read.codebook, wrote["train"].codebook)


def test_the_largest_code_survives_two_bytes(tmp_path):
    codes = torch.full((12, 4, 4), 65535, dtype=torch.int32)
    wrote = replace(some(), codes=codes, codebook=torch.randn(65536, 3))
    toy.write_latents(tmp_path, train=wrote)
    assert (latents.read(tmp_path, "train").codes == 65535).all()


def test_equal_latents_make_equal_files(tmp_path):
    for folder in ("a", "b"):
        toy.write_latents(tmp_path / folder, train=some())
    for name in ("train-00000.parquet", "codebook.safetensors", "manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("name", ["codebook.safetensors", "train-00000.parquet"])
def test_a_file_of_another_run_is_refused(name, tmp_path):
    toy.write_latents(tmp_path / "a", train=some())
    toy.write_latents(tmp_path / "b", train=replace(some(seed=1), codebook=toy.CODEBOOK + 1))
    (tmp_path / "b" / name).replace(tmp_path / "a" / name)
    with pytest.raises(InputError, match=f"{name}: not the file that manifest.json names"):
        latents.read(tmp_path / "a", "train")


@pytest.mark.parametrize("name", ["manifest.json", "train-00000.parquet"])
def test_a_lost_file_is_named(name, tmp_path):
    toy.write_latents(tmp_path, train=some())
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"{name} does not exist"):
        latents.read(tmp_path, "train")


def test_codes_that_do_not_fit_in_memory_are_read_from_disk(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    wrote = some()
    toy.write_latents(tmp_path, train=wrote)
    before = set(tmp_path.iterdir())
    monkeypatch.setattr(memory, "free", lambda: 100)
    read = latents.read(tmp_path, "train")
    assert "train codes" in capsys.readouterr().err
    assert torch.equal(latents.take(read.codes, torch.tensor([[7, 0]])), wrote.codes[[7, 0]][None])
    mapped = Path("/proc/self/maps").read_text().splitlines()
    assert any(f"{tmp_path}/" in line and line.endswith("(deleted)") for line in mapped)
    assert set(tmp_path.iterdir()) == before


def test_a_channel_that_never_changes_stays_finite():
    codebook = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    mean, std = latents.mean_and_std(torch.tensor([1, 3]), codebook)
    assert mean.tolist() == [2.5, 5.0]
    assert std.tolist() == [pytest.approx(0.75**0.5), 1.0]


def test_z_is_the_codebook_at_each_code():
    these = some()
    z = these.z(torch.tensor([[3, 0, 5], [1, 1, 11]]))
    assert z.shape == (2, 3, 2, 4, 4)
    for (i, j), row in np.ndenumerate([[3, 0, 5], [1, 1, 11]]):
        for y, x in np.ndindex(4, 4):
            assert torch.equal(z[i, j, :, y, x], these.codebook[these.codes[row, y, x].long()])


def test_the_normalised_codebook_is_the_raw_one_less_the_mean_over_the_deviation():
    these = some()
    assert torch.allclose(these.table(True) * these.std + these.mean, these.table(False), atol=1e-6)


def test_ids_are_found_in_any_order_and_an_unknown_one_is_named():
    these, order = some(), np.array([[4, 0], [11, 4]])
    assert these.rows(these.ids[order]).tolist() == order.tolist()
    with pytest.raises(InputError, match="image 12345 is not among the 12 latents"):
        these.rows(np.array([12345]))


def test_perplexity_counts_equally_frequent_codes():
    made = replace(some(), codes=torch.tensor([[[0, 1], [2, 3]], [[0, 1], [2, 3]]]))
    assert made.usage() == {"codes": 16, "codes_used": 4, "perplexity": 4.0}


def test_images_of_one_group_share_a_number_and_those_without_one_have_their_own():
    numbers = latents.number(np.array(["a", None, "b", "a", None], object)).tolist()
    assert numbers[0] == numbers[3]
    assert len(set(numbers)) == 4
