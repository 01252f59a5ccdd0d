"""What drawing costs as images grow: the whole latent, or blocks of it, at once or in turn."""

from collections.abc import Callable, Sequence

from rissole.denoiser.unet import UNet
from rissole.ground import runtime
from rissole.ground.schema import LDM
from rissole.speed.memory import allocated
from rissole.speed.timing import interleaved

import torch
from torch.utils.flop_counter import FlopCounterMode

IMAGES = 8  # drawn at once


def costs(
    ldm: LDM, channels: int, side: int, splits: Sequence[int], repeats: int
) -> dict[str, dict[str, float]]:
    """Of one call of the U-Net, per image, by blocks per side; 1 is the whole latent.

    The stem, and the neighbours that it embeds once for all steps, are left out.

    Args:
        ldm: widths and depth of the U-Net, whose weights do not matter.
        channels: of a latent.
        side: of a latent.
        splits: blocks per side, each of which divides it.
        repeats: of each timing, which take turns.

    Returns:
        `parameters`, `gflop`; seconds, and MB that tensors held at most, with the blocks of all
        images as one batch (`together`) and with one block of each after the other (`in_turn`).
    """
    unet = UNet(ldm, channels, 1).eval().to(memory_format=torch.channels_last)
    calls = {split: _calls(unet, ldm, side, split) for split in splits}
    seconds = interleaved(
        {f"{split} {how}": call for split, of in calls.items() for how, call in of.items()}, repeats
    )
    found = {}
    for split, of in calls.items():
        with FlopCounterMode(display=False) as counter:
            of["together"]()
        found[str(split)] = {
            "parameters": sum(parameter.numel() for parameter in unet.parameters()),
            "gflop": counter.get_total_flops() / 1e9 / IMAGES,
            **{f"seconds_{how}": seconds[f"{split} {how}"] / IMAGES for how in of},
            **{f"mb_{how}": allocated(call) / IMAGES for how, call in of.items()},
        }
    return found


def _calls(unet: UNet, ldm: LDM, side: int, split: int) -> dict[str, Callable[[], object]]:
    def forward(blocks: int, turns: int) -> Callable[[], None]:
        u = torch.randn(blocks, ldm.widths[0] // 2, side // split, side // split)
        u = u.contiguous(memory_format=torch.channels_last)
        embedded = [torch.randn(blocks, ldm.embedding)]

        @torch.inference_mode()
        def call() -> None:
            for _ in range(turns):
                with runtime.autocast(u.device):
                    unet(u, embedded)

        return call

    return {"together": forward(IMAGES * split**2, 1), "in_turn": forward(IMAGES, split**2)}
