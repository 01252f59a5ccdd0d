"""The first stage as a network: released sizes, consistent ways to and fro, a faithful file."""

from rissole.first_stage import vqgan
from rissole.first_stage.quantiser import look_up
from rissole.ground.schema import FSQ, VQ, VQGAN

import pytest
import torch

TRAINING = {
    "l1": 0.5, "l2": 1.0, "perceptual": "none", "perceptual_weight": 0.0, "perceptual_share": 0.5,
    "lpips_weights": None, "adversarial_weight": 0.0, "adversarial_cap": 0.05,
    "adversarial_start": 0.6, "discriminator_start": 0.35, "discriminator_layers": 2, "steps": 10,
    "batch": 4, "learning_rate": 0.001, "warm_up": 0, "decay_from": 0.6, "flips": True,
}  # fmt: skip


def vq(codes: int, channels: int) -> VQ:
    return VQ(kind="vq", codes=codes, channels=channels, decay=0.99, commitment=0.25, restart=0.01)


def settings(widths, attention, quantiser) -> VQGAN:
    return VQGAN(widths=widths, attention=attention, quantiser=quantiser, **TRAINING)


def small(quantiser=None, attention="none") -> vqgan.VQGAN:
    torch.manual_seed(0)
    quantiser = quantiser or FSQ(kind="fsq", levels=[8, 8, 8])
    return vqgan.VQGAN(settings([8, 16], attention, quantiser)).eval()


@pytest.mark.parametrize(
    "widths, quantiser, encoder, decoder, codebook, total",
    [
        ([16, 32], vq(1024, 10), 86_650, 101_459, 10_240, 198_349),
        ([32, 64, 128], vq(512, 32), 1_017_792, 1_253_859, 16_384, 2_288_035),
    ],
)
def test_the_released_networks_have_their_released_sizes(
    widths, quantiser, encoder, decoder, codebook, total
):
    counts = vqgan.count_parameters(vqgan.VQGAN(settings(widths, "bare", quantiser)))
    assert counts == {"encoder": encoder, "decoder": decoder, "codebook": codebook, "all": total}


def test_residual_attention_adds_its_norm_alone():
    bare, residual = (
        vqgan.count_parameters(small(attention=kind))["all"] for kind in ("bare", "residual")
    )
    assert residual - bare == 2 * 2 * 16  # scale and shift, in encoder and decoder


def test_fsq_has_no_parameters():
    assert vqgan.count_parameters(small())["codebook"] == 0


@pytest.mark.parametrize("attention", ["none", "bare", "residual"])
@pytest.mark.parametrize("quantiser", [FSQ(kind="fsq", levels=[8, 5, 5]), vq(32, 4)])
def test_codes_and_codebook_alone_rebuild_the_reconstruction(quantiser, attention):
    model, x = small(quantiser, attention), torch.rand(2, 3, 16, 16) * 2 - 1
    reconstruction, codes, _ = model(x)
    assert codes.dtype == torch.int64 and codes.shape == (2, 4, 4)
    assert reconstruction.shape == x.shape and reconstruction.abs().max() <= 1
    assert torch.equal(model.encode(x), codes)
    torch.testing.assert_close(model.decode(look_up(model.codebook(), codes)), reconstruction)


@pytest.mark.parametrize("quantiser", [FSQ(kind="fsq", levels=[8, 5, 5]), vq(32, 4)])
def test_a_latent_beside_a_code_vector_snaps_to_it(quantiser):
    model = small(quantiser)
    codes = torch.randint(len(model.codebook()), (2, 4, 4))
    z = look_up(model.codebook(), codes)
    assert torch.equal(model.snap(z + 1e-3 * torch.randn_like(z)), codes)


def test_a_bigger_image_gives_a_bigger_latent():
    assert small().encode(torch.zeros(1, 3, 24, 40)).shape == (1, 6, 10)


@pytest.mark.parametrize("quantiser", [FSQ(kind="fsq", levels=[8, 8, 8]), vq(32, 4)])
def test_a_saved_model_comes_back_the_same(tmp_path, quantiser):
    model, x = small(quantiser), torch.rand(2, 3, 16, 16) * 2 - 1
    vqgan.save(tmp_path / "vqgan.safetensors", model)
    loaded = vqgan.load(tmp_path / "vqgan.safetensors")
    assert loaded.settings == model.settings
    assert torch.equal(loaded(x)[0], model(x)[0])
    assert torch.equal(loaded.encode(x), model.encode(x))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
