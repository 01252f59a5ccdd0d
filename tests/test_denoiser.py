"""The denoisers of all rows: equal in size, whole on disk, trainable at the paper's size."""

from pathlib import Path

import toy
from rissole.denoiser import denoiser, training
from rissole.denoiser.conditioning import Conditioning
from rissole.denoiser.denoiser import Denoiser
from rissole.denoiser.training import Images
from rissole.ground import config
from rissole.ground.errors import InputError
from rissole.latent.latents import Latents

import numpy as np
import pytest
import torch

SIZES = {  # preset: channels and side of a latent
    "quick": (3, 16),
    "folder": (4, 16),
    "celeba": (10, 16),
    "imagenet100": (32, 28),
}


def settings_of(preset, tmp_path):
    text = Path("params.yaml").read_text().replace("preset: quick", f"preset: {preset}", 1)
    (tmp_path / "params.yaml").write_text(text)
    return config.read(tmp_path / "params.yaml")


def build(settings, row, channels):
    variant = settings.variant(row)
    k = 0
    if variant.neighbours != "none":
        k = settings.retrieval(variant.context.removeprefix("neighbours/")).k
    return Denoiser(variant, settings.variant_ldm(row), channels, k, 1280)


@pytest.mark.parametrize("preset", SIZES)
def test_all_rows_have_the_same_number_of_parameters_within_five_percent(preset, tmp_path):
    settings = settings_of(preset, tmp_path)
    with torch.device("meta"):
        counts = {
            row: sum(p.numel() for p in build(settings, row, SIZES[preset][0]).parameters())
            for row in settings.variants
        }
    middle = (min(counts.values()) + max(counts.values())) / 2
    assert all(abs(count / middle - 1) < 0.05 for count in counts.values()), counts


def test_all_rows_train_on_the_same_budget(tmp_path):
    settings = settings_of("quick", tmp_path)
    budget = "steps batch learning_rate warm_up decay_from".split()  # noqa: SIM905
    spent = {
        row: [getattr(settings.variant_ldm(row), name) for name in budget]
        for row in settings.variants
    }
    assert all(of == spent["rissole"] for of in spent.values())


@pytest.mark.parametrize("preset", ["celeba", "imagenet100"])
def test_a_training_step_at_full_size(preset, tmp_path):
    settings = settings_of(preset, tmp_path)
    channels, side = SIZES[preset]
    torch.manual_seed(0)
    network = build(settings, "rissole", channels)
    codes = torch.randint(512, (21, side, side), dtype=torch.int32)
    codebook, ids = torch.randn(512, channels), np.arange(21)
    train = Latents(
        ids, ids, np.array([None] * 21), codes, codebook, codebook.mean(0), codebook.std(0)
    )
    images = Images(codes, torch.arange(1, 21).repeat(21, 1))
    ldm = settings.variant_ldm("rissole").model_copy(update={"batch": 1, "steps": 1})
    conditioning = Conditioning(settings.variant("rissole"), train, ldm.normalise)
    before = network.unet.last.weight.clone()
    learner = training.Learner(network)
    (done,) = training.train(learner, conditioning, ldm, 0, images, images)
    assert 0.3 < done["loss"] < 3  # a network that predicts nothing has a loss of about 1
    assert not torch.equal(network.unet.last.weight, before)


def test_a_denoiser_comes_back_from_its_file_as_it_was(tmp_path):
    row = toy.row("set", halo=2)
    network = Denoiser(row, toy.ldm(), 2, 3).eval()
    torch.nn.init.normal_(network.unet.last.weight)
    denoiser.save(tmp_path / "best.safetensors", network, step=3, latents="")
    again = denoiser.load(tmp_path / "best.safetensors", toy.latents())
    assert (again.row, again.ldm, again.sizes) == (network.row, network.ldm, network.sizes)
    conditioning = Conditioning(row, toy.latents(), normalise=True)
    z = conditioning.grid.cut_noisy(torch.randn(1, 2, 8, 8))
    told = conditioning.told(torch.tensor([[1, 2, 3]]), None, 1)
    drawn = [
        net(z, torch.arange(4), net.stem.context(told), None).detach() for net in (network, again)
    ]
    assert torch.equal(*drawn)


def test_another_file_is_not_taken_for_a_denoiser(tmp_path):
    from rissole.ground import files

    about = {"row": "rissole", "latents": ""}
    files.write_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, about)
    with pytest.raises(InputError, match=r"other\.safetensors: not a denoiser"):
        denoiser.load(tmp_path / "other.safetensors", toy.latents())


def test_a_denoiser_of_other_latents_is_refused(tmp_path):
    network = Denoiser(toy.row("set", halo=2), toy.ldm(), 2, 3)
    denoiser.save(tmp_path / "best.safetensors", network, step=3, latents="theirs")
    with pytest.raises(InputError, match=r"best\.safetensors: trained on other latents"):
        denoiser.load(tmp_path / "best.safetensors", toy.latents())
