"""The first stage as a network: released sizes, consistent ways to and fro, a faithful file."""

import toy
from rissole.first_stage import vqgan
from rissole.first_stage.quantiser import look_up
from rissole.first_stage.settings import FSQ

import pytest
import torch


def small(quantiser=None, attention="none") -> vqgan.VQGAN:
    torch.manual_seed(0)
    quantiser = quantiser or FSQ(kind="fsq", levels=[8, 8, 8])
    return vqgan.VQGAN(toy.vqgan(widths=[8, 16], attention=attention, quantiser=quantiser)).eval()


@pytest.mark.parametrize(
    "widths, quantiser, encoder, decoder, codebook, total",
    [
        ([16, 32], toy.vq(1024, 10), 86_650, 101_459, 10_240, 198_349),
        ([32, 64, 128], toy.vq(512, 32), 1_017_792, 1_253_859, 16_384, 2_288_035),
    ],
)
def test_the_released_networks_have_their_released_sizes(
    widths, quantiser, encoder, decoder, codebook, total
):
    counts = vqgan.count_parameters(
        vqgan.VQGAN(toy.vqgan(widths=widths, attention="bare", quantiser=quantiser))
    )
    assert counts == {"encoder": encoder, "decoder": decoder, "codebook": codebook, "all": total}


@pytest.mark.parametrize("attention", ["none", "bare", "residual"])
@pytest.mark.parametrize("quantiser", [FSQ(kind="fsq", levels=[8, 5, 5]), toy.vq(32, 4)])
def test_codes_and_codebook_alone_rebuild_the_reconstruction(quantiser, attention):
    model, x = small(quantiser, attention), torch.rand(2, 3, 16, 16) * 2 - 1
    reconstruction, codes, _ = model(x)
    assert codes.dtype == torch.int64 and codes.shape == (2, 4, 4)
    assert reconstruction.shape == x.shape and reconstruction.abs().max() <= 1
    assert torch.equal(model.encode(x), codes)
    torch.testing.assert_close(model.decode(look_up(model.codebook(), codes)), reconstruction)


@pytest.mark.parametrize("quantiser", [FSQ(kind="fsq", levels=[8, 8, 8]), toy.vq(32, 4)])
def test_a_saved_model_comes_back_the_same(tmp_path, quantiser):
    model, x = small(quantiser), torch.rand(2, 3, 16, 16) * 2 - 1
    vqgan.save(tmp_path / "vqgan.safetensors", model)
    loaded = vqgan.load(tmp_path / "vqgan.safetensors")
    assert loaded.settings == model.settings
    assert torch.equal(loaded(x)[0], model(x)[0])
    assert torch.equal(loaded.encode(x), model.encode(x))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
