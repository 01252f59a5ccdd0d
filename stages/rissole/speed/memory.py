"""Peaks of memory: of the stages as the data grows, and of drawing as the images do."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from rissole.denoiser.unet import UNet
from rissole.ground.schema import LDM
from rissole.speed import rehearsal
from rissole.speed.rehearsal import SCRIPTS
from rissole.speed.stages import STAGES
from rissole.speed.timing import quiet

import numpy as np
import torch
import yaml
from PIL import Image
from torch.profiler import ProfilerActivity, profile

FACTOR = 10
FILES = 6  # that the smaller number of images makes: by then allocators hold what they will
BLOCK = 8  # side of a block of latents
IMAGES = 8  # drawn at once

WORDS = {"retrievals": ["main"], "variants": ["rissole"], "rows": ["rissole"]}  # that are tried


def growth(images: int, last: str) -> dict[str, object]:
    """What ten times the images do to the peaks of the stages, run as they are.

    Args:
        images: the smaller number. Files of the split and parts of the index hold a sixth of it,
            so that both numbers are whole files.
        last: the stage to end with.

    Returns:
        `peak_memory_growth` by stage, as peak over peak less 1, and the smaller peaks in MB.
    """
    with ThreadPoolExecutor(2) as both:  # peaks do not mind company
        small, large = both.map(
            lambda number: _run(number, images // FILES, last), (images, FACTOR * images)
        )
    return {
        "peak_memory_growth": {name: large[name] / small[name] - 1 for name in small},
        "peak_memory_mb": small,
        "peak_memory_images": [images, FACTOR * images],
    }


def _run(images: int, held: int, last: str) -> dict[str, float]:
    """MB at the peak of each stage over so many made-up images."""
    stages = list(STAGES)[: list(STAGES).index(last) + 1]
    with TemporaryDirectory() as folder:
        folder = Path(folder)
        draw(folder / "images", images)
        (folder / "params.yaml").write_text(yaml.safe_dump(_settings(images, held)))
        return {
            stage: rehearsal.call(folder, stage, *WORDS.get(STAGES[stage].each, [])).mb
            for stage in stages
        }


def draw(folder: Path, images: int) -> None:
    """Make a folder of pictures: coloured gradients with a little noise, all unlike each other."""
    folder.mkdir()
    chance = np.random.default_rng(0)
    slope = np.linspace(0, 1, 64)[:, None, None]
    for number in range(images):
        corners = chance.integers(0, 255, (2, 3))
        picture = corners[0] + (corners[1] - corners[0]) * slope + chance.normal(0, 4, (64, 64, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(
            folder / f"{number}.png", compress_level=1
        )


def _settings(images: int, held: int) -> dict:
    """params.yaml of the project with this number of images, and hardly any training."""
    settings = yaml.safe_load((SCRIPTS.parent / "params.yaml").read_text())
    settings["preset"], quick = "quick", settings["presets"]["quick"]
    quick["data"] = {"source": "folder", "root": "images", "shard": held, "images": None}
    quick["vqgan"]["steps"] = quick["ldm"]["steps"] = quick["sample"]["steps"] = 2
    quick["ldm"]["validations"] = 1
    quick["sample"] |= {"images": images * 3 // 4, "batch": 50}
    latent = 16 * 16 * 3 * 4  # bytes of the whole-latent query at 64 pixels
    kind = "hashed" if held >= 1000 else "exact"  # too few rows to train hashes on
    quick["index"] = {"kind": kind, "part_mb": max(1, round(held * latent / 1e6))}
    return settings


def start_up() -> dict[str, float]:
    """Seconds until the slowest script has answered `--help`."""
    seconds = []
    for script in sorted(SCRIPTS.glob("*.py")):
        clock = perf_counter()
        subprocess.run([sys.executable, script, "--help"], check=True, capture_output=True)
        seconds.append(perf_counter() - clock)
    return {"help_seconds": max(seconds)}


def per_image(ldm: LDM, sides: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """MB that a forward pass takes per image, by the side of its latent.

    Drawn whole; drawn in blocks of 8 x 8, all together as they can be where there is room; and one
    block after the other, which is what blocks save: as they do not depend on each other, the
    memory of one is enough for an image of any size.
    """
    unet = UNet(ldm, 3, 1).eval().to(memory_format=torch.channels_last)

    def forward(images: int, side: int) -> Callable[[], object]:
        u = torch.randn(images, ldm.widths[0] // 2, side, side)
        u = u.contiguous(memory_format=torch.channels_last)
        embedded = [torch.randn(images, ldm.embedding)]
        return lambda: unet(u, embedded)

    found = {}
    for side in sides:
        found[str(side)] = {
            "whole": allocated(forward(IMAGES, side)) / IMAGES,
            "blocks_together": allocated(forward(IMAGES * (side // BLOCK) ** 2, BLOCK)) / IMAGES,
            "block_by_block": allocated(forward(IMAGES, BLOCK)) / IMAGES,
        }
    return found


@torch.inference_mode()
def allocated(call: Callable[[], object]) -> float:
    """The most MB that tensors held at once during a call, what it began with not counted."""
    call()
    with quiet(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        call()
    events = [of for of in seen.profiler.kineto_results.events() if of.name() == "[memory]"]
    events.sort(key=lambda of: of.start_ns())
    held = np.cumsum([of.nbytes() for of in events])
    return float(held.max() / 1e6)
