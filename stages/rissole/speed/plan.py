"""What a database of any size takes on machines like the one that was measured: arithmetic only.

Rates are those of metrics/speed.json, taken to other sizes by what they grow with: pixels for
reading, FLOP for encoding and training, rows times rows for the search of a fixed share of a tree.
"""

import math
from collections.abc import Callable

from rissole.denoiser.unet import UNet
from rissole.first_stage.vqgan import VQGAN
from rissole.ground.config import Settings

import torch
from torch.utils.flop_counter import FlopCounterMode

INT64, INT32, FLOAT32, CODE = 8, 4, 4, 2  # bytes; a code on disk
HASH = 1 / 2  # bytes of a number in the hashes
HELD_CODES = 3 * INT32  # bytes of a code while duplicates are found: held, joined, told apart
SECONDS_PER_HOUR, HOURS_PER_DAY = 3600, 24


def plan(images: int, settings: Settings, speed: dict) -> dict[str, float]:
    """What so many images take, by name with its unit.

    Args:
        images: in the train split.
        settings: under the preset that tells size, codebook and network.
        speed: content of metrics/speed.json, taken in full.
    """
    measured, k = settings.under(speed["preset"]), settings.k
    rows = images * (1 + settings.latents.mirrors)
    side, channels = _latent(settings)
    width = channels * (side // settings.blocks) ** 2  # of a query by first block
    latent = channels * side * side * FLOAT32
    search = speed["retrieval"]["tree_1000000"]["queries_per_second"] * 1e6 / rows
    search *= speed["retrieval_width"] / width
    trained = speed["paper_size"]["train_fraction_of_peak"] * speed["peak_gflop_per_second"] * 1e9
    seconds = {
        "split": images
        * (settings.data.size / measured.data.size) ** 2
        / speed["split_images_per_second"],
        "encode": rows
        * encoder_flop(settings)
        / encoder_flop(measured)
        / speed["encode_images_per_second"],
        "all neighbours": rows / search,
        "an epoch": rows * 3 * settings.blocks**2 * unet_flop(settings) / trained,
    }
    once = seconds["split"] + seconds["encode"]
    return {
        "pictures, uncompressed, on disk (GB)": images * settings.data.size**2 * 3 / 1e9,
        "rows, with their mirrors (millions)": rows / 1e6,
        "codes on disk (GB)": rows * CODE * side * side / 1e9,
        f"neighbour tables of k = {k} on disk (GB)": rows * (INT64 + k * (INT64 + FLOAT32)) / 1e9,
        "index by first block, with its floats, disk and memory (GB)": rows
        * width
        * (FLOAT32 + HASH)
        / 1e9,
        "memory to find duplicates among codes (GB)": rows * HELD_CODES * side * side / 1e9,
        "memory of the reference and the audits, float latents (GB)": rows * latent / 1e9,
        "chance that two ids of 64 bits collide (%)": 100 * -math.expm1(-(images**2) / 2**65),
        **{f"{name} (hours)": of / SECONDS_PER_HOUR for name, of in seconds.items()},
        "machines that split and encode in a day": math.ceil(
            once / SECONDS_PER_HOUR / HOURS_PER_DAY
        ),
    }


def unet_flop(settings: Settings) -> int:
    """FLOP of a forward pass of the preset's U-Net over one block."""
    ldm, (side, channels) = settings.ldm, _latent(settings)
    block = side // settings.blocks

    def forward() -> None:
        u = torch.empty(1, ldm.widths[0] // 2, block, block)
        UNet(ldm, channels, 1)(u, [torch.empty(1, ldm.embedding)])

    return _flop(forward)


def encoder_flop(settings: Settings) -> int:
    """FLOP of encoding one picture of the preset."""
    size = settings.data.size
    return _flop(lambda: VQGAN(settings.vqgan).encoder(torch.empty(1, 3, size, size)))


def _latent(settings: Settings) -> tuple[int, int]:
    """Side and channels of the preset's latents."""
    quantiser = settings.vqgan.quantiser
    channels = len(quantiser.levels) if quantiser.kind == "fsq" else quantiser.channels
    return settings.data.size // 2 ** len(settings.vqgan.widths), channels


def _flop(forward: Callable[[], object]) -> int:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        forward()
    return counter.get_total_flops()
