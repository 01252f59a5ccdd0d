"""The U-Net: the released networks' sizes, its sides, its cost."""

from pathlib import Path

import toy
from rissole.core import config
from rissole.denoiser.denoiser import Denoiser
from rissole.denoiser.settings import find_variant, variant_ldm
from rissole.denoiser.unet import UNet

import pytest
import torch
import torch.nn.functional as F

RELEASED = {
    ("celeba_released", 10, 20, "rissole"): 49_227_786,
    ("celeba_released", 10, 10, "rissole"): 49_112_586,
    ("celeba_released", 10, 20, "rissole_prev"): 49_239_306,
    ("celeba_released", 10, 20, "rissole_pos"): 49_781_002,
    ("imagenet100_released", 32, 20, "rissole"): 76_682_528,
}


@pytest.mark.parametrize(("preset", "channels", "k", "row"), RELEASED)
def test_live_parameters_are_those_of_the_released_networks(preset, channels, k, row, tmp_path):
    text = Path("params.yaml").read_text().replace("preset: quick", f"preset: {preset}", 1)
    (tmp_path / "params.yaml").write_text(text)
    settings = config.read(tmp_path / "params.yaml")
    with torch.device("meta"):
        network = Denoiser(
            find_variant(settings, row), variant_ldm(settings, row), channels, k, 1280
        )
    expected = RELEASED[preset, channels, k, row]
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize(("side", "kernel"), [(8, 1), (14, 5), (9, 5), (7, 3), (9, 1), (4, 1)])
def test_sides_that_the_levels_do_not_halve_are_padded_evenly_and_cropped(side, kernel):
    unet = UNet(toy.ldm(final_kernel=kernel, widths=[16, 16, 32]), 3, 1).eval()
    torch.nn.init.normal_(unet.last.weight)
    u, embedded = torch.randn(2, 8, side, side), [torch.randn(2, 16)]
    missing = -side % 8
    before = missing // 2
    whole = unet(F.pad(u, (before, missing - before) * 2), embedded)
    inside = slice(before, before + side)
    torch.testing.assert_close(unet(u, embedded), whole[..., inside, inside])


def test_a_whole_latent_costs_what_its_four_blocks_cost():
    from torch.utils.flop_counter import FlopCounterMode

    unet = UNet(toy.ldm(), 2, 1)
    flop = []
    for b, side in ((4, 8), (1, 16)):
        with FlopCounterMode(display=False) as counter:
            unet(torch.randn(b, 8, side, side), [torch.randn(b, 16)])
        flop.append(counter.get_total_flops())
    assert flop[0] == pytest.approx(flop[1], rel=0.03)  # all but attention and embeddings
