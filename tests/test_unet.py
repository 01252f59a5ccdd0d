"""The U-Net: the released networks' sizes, its shapes, its corrections."""

import copy
from pathlib import Path

import toy
from rissole.denoiser.denoiser import Denoiser
from rissole.denoiser.unet import UNet
from rissole.ground import config

import pytest
import torch

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
        network = Denoiser(settings.variant(row), settings.variant_ldm(row), channels, k, 1280)
    expected = RELEASED[preset, channels, k, row]
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize(("side", "kernel"), [(8, 1), (14, 5), (9, 5), (7, 3), (9, 1), (4, 1)])
def test_the_output_has_the_input_s_sides(side, kernel):
    unet = UNet(toy.ldm(final_kernel=kernel, widths=[16, 16, 32]), 3, 1)
    assert unet(torch.randn(2, 8, side, side), [torch.randn(2, 16)]).shape == (2, 3, side, side)


def test_padding_is_undone_where_it_was_done():
    """With sides that the levels do not halve, a point stays where it is."""
    unet = UNet(toy.ldm(final_kernel=5), 1, 1)
    for level in (*unet.down, *unet.up):
        level.norm = torch.nn.Identity()
    with torch.no_grad():
        unet.last.weight.zero_()
        unet.last.weight[:, 0, 2, 2] = 1
        unet.first.weight.zero_()
        unet.first.weight[0, 0, 1, 1] = 1
        unet.first.bias.zero_()
    u = torch.zeros(1, 8, 9, 9)
    u[0, 0, 2, 6] = 1
    unet.down = torch.nn.ModuleList([_Pass(), _Pass()])
    unet.up = torch.nn.ModuleList([_Skip(16), _Skip(32)])
    drawn = unet(u, [torch.zeros(1, 16)])[0, 0]
    assert drawn.argmax().item() == 2 * 9 + 6


class _Pass(torch.nn.Module):
    def forward(self, u, embedded, tokens):
        if u.shape[1] == 16 and u.shape[-1] == 6:
            return torch.cat([u, u], 1)
        return u


class _Skip(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, u, embedded, tokens):
        return u[:, -self.width :]


def test_every_parameter_gets_a_gradient():
    unet = UNet(toy.ldm(), 2, 2, token_width=16)
    torch.nn.init.normal_(unet.last.weight)
    drawn = unet(
        torch.randn(3, 8, 8, 8), [torch.randn(3, 16), torch.randn(3, 16)], torch.randn(3, 5, 16)
    )
    drawn.square().sum().backward()
    assert [name for name, p in unet.named_parameters() if not p.grad.any()] == []


def test_attention_to_tokens_does_not_see_their_order():
    unet = UNet(toy.ldm(), 2, 1, token_width=16).eval()
    torch.nn.init.normal_(unet.last.weight)
    u, e, tokens = torch.randn(2, 8, 8, 8), [torch.randn(2, 16)], torch.randn(2, 5, 16)
    turned = unet(u, e, tokens.flip(1))
    torch.testing.assert_close(unet(u, e, tokens), turned, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(turned, unet(u, e, tokens * 2), atol=1e-3)


def test_a_whole_latent_costs_what_its_four_blocks_cost():
    from torch.utils.flop_counter import FlopCounterMode

    unet = UNet(toy.ldm(), 2, 1)
    flop = []
    for b, side in ((4, 8), (1, 16)):
        with FlopCounterMode(display=False) as counter:
            unet(torch.randn(b, 8, side, side), [torch.randn(b, 16)])
        flop.append(counter.get_total_flops())
    assert flop[0] == pytest.approx(flop[1], rel=0.03)  # all but attention and embeddings


def test_channels_last_computes_what_the_default_order_computes():
    """Outputs and gradients, against torch's own group norm on channels-first memory."""
    torch.manual_seed(0)
    fast = UNet(toy.ldm(), 3, 1)
    torch.nn.init.normal_(fast.last.weight)
    plain = copy.deepcopy(fast)
    for module in plain.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.__class__ = torch.nn.GroupNorm
    fast.to(memory_format=torch.channels_last)
    u, embedded = torch.randn(5, 8, 8, 8), [torch.randn(5, 16)]
    outputs = [
        fast(u.contiguous(memory_format=torch.channels_last), embedded),
        plain(u, embedded),
    ]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)
    for output in outputs:
        output.square().mean().backward()
    for ours, expected in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-3, atol=1e-5)
