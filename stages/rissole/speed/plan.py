"""What a database of any size takes on machines like the one that was measured: arithmetic only.

Rates are those of metrics/speed.json, taken to other sizes by what they grow with: pixels for
reading and encoding, FLOP for training, rows times rows for the search of a fixed share of a tree.
"""

import math

from rissole.denoiser.unet import UNet
from rissole.ground.config import Settings

import torch
from torch.utils.flop_counter import FlopCounterMode

MEASURED_SIDE = 64  # pixels per side, of which speed.json tells the rates
INT64, FLOAT32, CODE = 8, 4, 2  # bytes
SECONDS_PER_HOUR, HOURS_PER_DAY = 3600, 24


def plan(images: int, settings: Settings, speed: dict) -> dict[str, float]:
    """What so many images take, by name with its unit.

    Args:
        images: in the train split.
        settings: under the preset that tells size, codebook and network.
        speed: content of metrics/speed.json, taken in full.
    """
    pixels, k = settings.data.size**2, settings.k
    side = settings.data.size // 2 ** len(settings.vqgan.widths)
    block = side // settings.blocks
    channels = settings.vqgan.quantiser.channels
    width = channels * block * block  # of a query by first block
    codes = CODE * side * side
    shrunk = pixels / MEASURED_SIDE**2
    search = speed["retrieval"]["tree_1000000"]["queries_per_second"] * 1e6 / images
    search *= speed["retrieval_width"] / width
    flop = 3 * settings.blocks**2 * forward_flop(settings)
    trained = speed["paper_size"]["train_fraction_of_peak"] * speed["peak_gflop_per_second"] * 1e9
    hours = {
        "split": shrunk / speed["split_images_per_second"],
        "encode": shrunk / speed["encode_images_per_second"],
        "all neighbours": 1 / search,
        "an epoch": flop / trained,
    }
    return {
        "pictures, uncompressed, on disk (GB)": images * pixels * 3 / 1e9,
        "codes on disk (GB)": images * codes / 1e9,
        "the same as float latents (GB)": images * channels * side * side * FLOAT32 / 1e9,
        f"neighbour tables of k = {k} (GB)": images * (INT64 + k * (INT64 + FLOAT32)) / 1e9,
        "vectors by first block, floats (GB)": images * width * FLOAT32 / 1e9,
        "their hashes, half a byte for two numbers (GB)": images * width / 4 / 1e9,
        "memory to find duplicates among codes (GB)": images * (2 * codes + codes) / 1e9,
        "chance that two ids of 64 bits collide (%)": 100 * -math.expm1(-(images**2) / 2**65),
        **{f"{name} (hours)": images * of / SECONDS_PER_HOUR for name, of in hours.items()},
        "machines that do the split and the codes in a day": math.ceil(
            images * (hours["split"] + hours["encode"]) / SECONDS_PER_HOUR / HOURS_PER_DAY
        ),
    }


def forward_flop(settings: Settings) -> int:
    """FLOP of a forward pass of the preset's U-Net over one block."""
    ldm, channels = settings.ldm, settings.vqgan.quantiser.channels
    side = settings.data.size // 2 ** len(settings.vqgan.widths) // settings.blocks
    with torch.device("meta"):
        unet = UNet(ldm, channels, 1)
        u, embedded = torch.empty(1, ldm.widths[0] // 2, side, side), torch.empty(1, ldm.embedding)
    with FlopCounterMode(display=False) as counter:
        unet(u, [embedded])
    return counter.get_total_flops()
