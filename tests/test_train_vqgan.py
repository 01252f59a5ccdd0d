"""Training the first stage, and the stage that does it."""

import csv
import json
from pathlib import Path

import toy
import train_vqgan
from rissole.core import files
from rissole.first_stage import training, vqgan
from rissole.first_stage.settings import FSQ

import numpy as np
import pyarrow as pa
import pytest
import torch

CPU = torch.device("cpu")


def pictures(n: int = 32, size: int = 16) -> np.ndarray:
    """Bright discs on dark grounds, uint8 (n, size, size, 3)."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    centre, colour = draw.uniform(4, size - 4, (n, 2)), draw.integers(0, 256, (n, 2, 3))
    inside = (y - centre[:, :1, None]) ** 2 + (x - centre[:, 1:, None]) ** 2 < 16
    return np.where(inside[..., None], colour[:, :1, None], colour[:, 1:, None]).astype(np.uint8)


def trained(seed: int = 0, **changes):
    """The model after its last step, and the terms of all steps."""
    learner = training.Learner(toy.vqgan(**changes), seed, CPU)
    return learner.model, list(training.train(learner, toy.vqgan(**changes), pictures(), seed, CPU))


def weights(model: vqgan.VQGAN) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in model.state_dict().values()])


@pytest.mark.parametrize("quantiser", [FSQ(kind="fsq", levels=[8, 8, 8]), toy.vq()])
def test_training_lowers_the_loss(quantiser):
    _, terms = trained(quantiser=quantiser, steps=100)
    first, last = (sum(t["loss"] for t in part) for part in (terms[:5], terms[-5:]))
    assert last < 0.8 * first


def test_equal_seeds_give_bit_equal_weights_and_others_do_not():
    once, again, other = (weights(trained(seed, steps=6)[0]) for seed in (0, 0, 1))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_the_perceptual_term_counts_with_its_weight():
    _, terms = trained(perceptual="efficientnet_lite0", steps=2)
    for step in terms:
        expected = step["reconstruction"] + step["commitment"] + 0.3 * step["perceptual"]
        torch.testing.assert_close(step["loss"], expected)


def test_the_discriminator_trains_alone_before_the_decoder_hears_of_it():
    _, terms = trained(adversarial_weight=0.1, steps=20)
    assert [i for i, step in enumerate(terms) if "discriminator" in step] == list(range(7, 20))
    assert [i for i, step in enumerate(terms) if "adversarial" in step] == list(range(12, 20))


def test_the_decoder_is_the_same_until_it_hears_of_the_discriminator():
    runs = (
        toy.vqgan(steps=4),
        toy.vqgan(steps=4, adversarial_weight=0.1, discriminator_start=0.0, adversarial_start=0.5),
    )
    learners = [training.Learner(run, 0, CPU) for run in runs]
    plain, rivalled = (
        [weights(learner.model) for _ in training.train(learner, run, pictures(), 0, CPU)]
        for learner, run in zip(learners, runs, strict=True)
    )
    same = [torch.equal(a, b) for a, b in zip(plain, rivalled, strict=True)]
    assert same == [True, True, False, False]


def test_every_image_is_seen_before_any_comes_again():
    tags = np.arange(24, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    batches = training._batches(toy.vqgan(), tags, 0, 0)
    for _ in range(3):
        seen = np.concatenate([next(batches)[:, 0, 0, 0] for _ in range(3)])
        assert sorted(seen) == list(range(24))


def test_about_half_of_a_batch_is_mirrored_and_none_without_flips():
    ramp = np.tile(np.arange(8, dtype=np.uint8)[:, None], (64, 8, 1, 3)).copy()
    flips, none = (
        next(training._batches(toy.vqgan(batch=64, flips=flips), ramp, 0, 0))[:, 0, 0, 0]
        for flips in (True, False)
    )
    assert 16 < (flips == 7).sum() < 48
    assert (none == 0).all()


def write_project(folder: Path) -> None:
    """params.yaml and data/split of 32 train and 8 val images, as the stages before make them."""
    params = {"preset": "tiny", "seed": 0, "threads": 1, "presets": {"tiny": {}}}
    params |= {"vqgan": toy.vqgan(steps=12).model_dump()}
    (folder / "params.yaml").write_text(json.dumps(params))
    for split, part in (("train", pictures()), ("val", pictures(40)[32:])):
        n, nothing = len(part), pa.nulls(len(part), pa.string())
        columns = {"id": pa.array(range(n), pa.int64()), "label": nothing, "group": nothing}
        columns |= {"source": nothing, "image": files.bytes_column(part)}
        table = pa.table(columns).replace_schema_metadata({"size": "16"})
        files.write_table(folder / f"data/split/{split}-00000.parquet", table)


def test_the_stage_writes_model_curve_and_picture(tmp_path, monkeypatch, capsys):
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    train_vqgan.main()
    model = vqgan.load(Path("data/vqgan/vqgan.safetensors"))
    expected, _ = trained(steps=12)
    assert torch.equal(weights(model), weights(expected))
    curve = list(csv.DictReader(Path("metrics/loss/vqgan.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in curve] == list(range(1, 13))
    assert Path("metrics/reconstructions.png").stat().st_size < 200_000
    assert capsys.readouterr().out.startswith("train_vqgan: 12 steps in")
