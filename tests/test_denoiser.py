"""The denoisers of all rows: equal in size and budget, whole on disk."""

from pathlib import Path

import toy
from rissole.core import config, files
from rissole.denoiser import denoiser
from rissole.denoiser.conditioning import Conditioning
from rissole.denoiser.denoiser import Denoiser
from rissole.denoiser.settings import find_variant, variant_ldm
from rissole.harness.errors import InputError
from rissole.retrieval.settings import find_retrieval

import pytest
import torch

CHANNELS = {"quick": 3, "folder": 4, "celeba": 10, "imagenet100": 32}  # of a preset's latents


def settings_of(preset, tmp_path):
    text = Path("params.yaml").read_text().replace("preset: quick", f"preset: {preset}", 1)
    (tmp_path / "params.yaml").write_text(text)
    return config.read(tmp_path / "params.yaml")


def build(settings, row, channels):
    variant = find_variant(settings, row)
    k = 0
    if variant.neighbours != "none":
        k = find_retrieval(settings, variant.context.removeprefix("neighbours/")).k
    return Denoiser(variant, variant_ldm(settings, row), channels, k, 1280)


@pytest.mark.parametrize("preset", CHANNELS)
def test_all_rows_have_the_same_number_of_parameters_within_five_percent(preset, tmp_path):
    settings = settings_of(preset, tmp_path)
    with torch.device("meta"):
        counts = {
            row: sum(p.numel() for p in build(settings, row, CHANNELS[preset]).parameters())
            for row in settings.names("variants")
        }
    middle = (min(counts.values()) + max(counts.values())) / 2
    assert all(abs(count / middle - 1) < 0.05 for count in counts.values()), counts


def test_all_rows_train_on_the_same_budget(tmp_path):
    settings = settings_of("quick", tmp_path)
    budget = "steps batch learning_rate warm_up decay_from".split()  # noqa: SIM905
    spent = {
        row: [getattr(variant_ldm(settings, row), name) for name in budget]
        for row in settings.names("variants")
    }
    assert all(of == spent["rissole"] for of in spent.values())


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
    about = {"row": "rissole", "latents": ""}
    files.write_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, about)
    with pytest.raises(InputError, match=r"other\.safetensors: not a denoiser"):
        denoiser.load(tmp_path / "other.safetensors", toy.latents())


def test_a_denoiser_of_other_latents_is_refused(tmp_path):
    network = Denoiser(toy.row("set", halo=2), toy.ldm(), 2, 3)
    denoiser.save(tmp_path / "best.safetensors", network, step=3, latents="theirs")
    with pytest.raises(InputError, match=r"best\.safetensors: trained on other latents"):
        denoiser.load(tmp_path / "best.safetensors", toy.latents())
