"""Features on disk: as they were seen, and never mixed with those of other pictures or weights."""

from rissole.core import files
from rissole.harness.errors import InputError
from rissole.judging import features
from rissole.judging.judges import Judge

import numpy as np
import pyarrow as pa
import pytest
import torch


class Means(torch.nn.Module):
    """Channel means of a picture, times a weight."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))

    def forward(self, x):
        return x.float().mean((2, 3)) * self.weight


def panel(key="resize-64 0123 torch 2"):
    """Two judges, neither of them a network worth the name."""
    one, two = Judge("one", Means(1.0), 4, key), Judge("two", Means(0.1), 4, "another")
    return {"one": one, "two": two}


def pictures(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)


def keys(look):
    return {name: judge.key for name, judge in look.items()}


@pytest.fixture
def reference(tmp_path):
    """A folder with features of true images, and who saw them."""
    look = panel()
    apart = pa.array([True, False, True, True, False])
    features.write(tmp_path / "train.parquet", pictures(6, 1), look, "ours")
    features.write(tmp_path / "val.parquet", pictures(5, 2), look, "ours", {"apart": apart})
    features.write(tmp_path / "reconstructed.parquet", pictures(5, 3), look, "ours")
    return tmp_path, look


def test_features_come_back_as_they_were_seen_with_the_keys_of_who_saw_them(tmp_path):
    x, look = pictures(9), panel()
    written = features.write(tmp_path / "x.parquet", x, look, "ours")
    seen = features.read(tmp_path / "x.parquet")
    expected = x.reshape(9, -1, 3).mean(1)
    np.testing.assert_allclose(seen.by_judge["one"], expected, rtol=1e-5)
    np.testing.assert_allclose(seen.by_judge["two"], 0.1 * expected, rtol=1e-5)
    for name in look:
        assert np.array_equal(seen.by_judge[name], written[name])
        assert seen.by_judge[name].dtype == np.float32
    assert list(seen.by_judge) == ["one", "two"]
    assert seen.judges == keys(look)
    assert seen.latents == "ours"


def test_what_was_given_beside_the_features_is_beside_them(tmp_path):
    path = tmp_path / "x.parquet"
    features.write(path, pictures(3), panel(), "ours", {"id": pa.array([7, 5, 6])})
    assert files.read_table(path)["id"].to_pylist() == [7, 5, 6]
    assert features.read(path).by_judge.keys() == {"one", "two"}


def test_the_reference_is_each_judge_s_view_of_each_set(reference):
    folder, look = reference
    true = features.read_reference(folder, keys(look), "ours")
    assert list(true) == ["one", "two"]
    for judge, scale in (("one", 1), ("two", 0.1)):
        for seed, name in enumerate(("train", "val", "reconstructed"), 1):
            x = pictures(6 if name == "train" else 5, seed)
            expected = scale * x.reshape(len(x), -1, 3).mean(1)
            np.testing.assert_allclose(getattr(true[judge], name), expected, rtol=1e-5)
        assert true[judge].apart.tolist() == [True, False, True, True, False]


@pytest.mark.parametrize("name", ["train", "val", "reconstructed"])
def test_a_single_set_that_other_weights_saw_is_named(reference, name):
    folder, look = reference
    apart = pa.array([True] * 5)
    other = panel("resize-96 0123 torch 2")
    features.write(folder / f"{name}.parquet", pictures(5), other, "ours", {"apart": apart})
    with pytest.raises(InputError, match=rf"{name}\.parquet: .*resize-96.*resize-64"):
        features.read_reference(folder, keys(look), "ours")


def test_a_judge_that_did_not_see_the_true_images_is_refused(reference):
    folder, look = reference
    with pytest.raises(InputError, match=r"train\.parquet"):
        features.read_reference(folder, {"one": look["one"].key}, "ours")


def test_a_reference_of_other_images_is_refused(reference):
    folder, look = reference
    with pytest.raises(InputError, match=r"train\.parquet: .* other latents .*dvc repro"):
        features.read_reference(folder, keys(look), "theirs")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"train\.parquet does not exist"):
        features.read_reference(tmp_path, keys(panel()), "ours")
