"""Latents on disk and in memory."""

from dataclasses import replace
from pathlib import Path

import toy
from rissole.ground import memory
from rissole.ground.errors import InputError
from rissole.latent import latents
from rissole.latent.latents import Latents

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


def some(n=12, side=4, seed=0):
    draw = np.random.default_rng(seed)
    ids = draw.integers(-(2**63), 2**63 - 1, n)
    torch.manual_seed(seed)
    return Latents(
        ids=ids,
        originals=ids.copy(),
        groups=np.array(["one", None] * (n // 2), object),
        codes=torch.randint(0, 20, (n, side, side), dtype=torch.int32),
        codebook=torch.randn(20, 3),
        mean=torch.randn(3),
        std=torch.rand(3) + 0.5,
    )


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


def test_a_codebook_of_another_run_is_refused(tmp_path):
    for folder, seed in (("a", 0), ("b", 1)):
        toy.write_latents(tmp_path / folder, train=some(seed=seed))
    (tmp_path / "b/codebook.safetensors").replace(tmp_path / "a/codebook.safetensors")
    with pytest.raises(InputError, match="codebook.safetensors: not the file that manifest.json"):
        latents.read(tmp_path / "a", "train")


def test_a_part_of_another_run_is_refused(tmp_path):
    for folder, seed in (("a", 0), ("b", 1)):
        toy.write_latents(tmp_path / folder, train=some(seed=seed))
    (tmp_path / "b/train-00000.parquet").replace(tmp_path / "a/train-00000.parquet")
    with pytest.raises(InputError, match="train-00000.parquet: not the file that"):
        latents.read(tmp_path / "a", "train")


def test_a_lost_part_is_named(tmp_path):
    toy.write_latents(tmp_path, train=some())
    (tmp_path / "train-00000.parquet").unlink()
    with pytest.raises(InputError, match="train-00000.parquet does not exist"):
        latents.read(tmp_path, "train")


def test_latents_that_were_never_merged_are_refused(tmp_path):
    with pytest.raises(InputError, match="manifest.json does not exist"):
        latents.read(tmp_path, "train")


def test_codes_that_do_not_fit_in_memory_are_read_from_disk(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    wrote = some()
    toy.write_latents(tmp_path, train=wrote)
    monkeypatch.setattr(memory, "free", lambda: 100)
    read = latents.read(tmp_path, "train")
    assert "train codes" in capsys.readouterr().err
    assert torch.equal(latents.take(read.codes, torch.tensor([[7, 0]])), wrote.codes[[7, 0]][None])
    mapped = Path("/proc/self/maps").read_text()
    assert f"{tmp_path}/data/" in mapped
    assert not list(Path("data").iterdir())


def test_a_channel_that_never_changes_stays_finite():
    codebook = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    mean, std = latents.mean_and_std(torch.tensor([1, 3]), codebook)
    assert mean.tolist() == [2.5, 5.0]
    assert std.tolist() == [pytest.approx(0.75**0.5), 1.0]


def test_z_is_the_codebook_at_each_code():
    these = some()
    z = these.z(torch.tensor([[3, 0, 5], [1, 1, 11]]))
    assert z.shape == (2, 3, 3, 4, 4)
    for (i, j), row in np.ndenumerate([[3, 0, 5], [1, 1, 11]]):
        for y, x in np.ndindex(4, 4):
            assert torch.equal(z[i, j, :, y, x], these.codebook[these.codes[row, y, x].long()])


def test_the_normalised_codebook_is_the_raw_one_less_the_mean_over_the_deviation():
    these = some()
    assert torch.allclose(these.table(True) * these.std + these.mean, these.table(False), atol=1e-6)


def test_rows_finds_each_id():
    these = some()
    order = np.array([[4, 0], [11, 4]])
    assert these.rows(these.ids[order]).tolist() == order.tolist()


def test_an_unknown_id_is_named():
    with pytest.raises(InputError, match="image 12345 is not among the 12 latents"):
        some().rows(np.array([12345]))


def test_perplexity_counts_equally_frequent_codes():
    made = replace(some(), codes=torch.tensor([[[0, 1], [2, 3]], [[0, 1], [2, 3]]]))
    assert made.usage() == {"codes": 20, "codes_used": 4, "perplexity": 4.0}


def test_images_of_one_group_share_a_number_and_those_without_one_have_their_own():
    numbers = latents.number(np.array(["a", None, "b", "a", None], object)).tolist()
    assert numbers[0] == numbers[3]
    assert len(set(numbers)) == 4
