"""Measure what drawing costs as images grow: the whole latent against blocks of it.

Not a stage: `python stages/measure_resolution.py` times calls of the preset's U-Net, untrained, on
latents of 16, 32 and 64 a side (pictures of 64, 128 and 256 pixels), whole and in 2 x 2, 4 x 4 and
8 x 8 blocks, and counts the memory that they take. Prints a table and writes it to
metrics/resolution.json, with the machine.

    python stages/measure_resolution.py
"""

from pathlib import Path

from rissole.first_stage.vqgan import VQGAN
from rissole.ground import config, files, runtime
from rissole.results import tables
from rissole.speed import resolution
from rissole.speed.machine import describe

import pandas as pd
import torch

SIDES, SPLITS, REPEATS = (16, 32, 64), (1, 2, 4, 8), 10


def main() -> None:
    """Measure on the CPU, on which memory can be counted call by call."""
    settings = config.read()
    runtime.set_up(settings.threads)
    channels = VQGAN(settings.vqgan).codebook().shape[1]
    halved = 2 ** len(settings.ldm.widths)  # smaller blocks would be padded
    shrunk = 2 ** len(settings.vqgan.widths)
    found = {
        str(side * shrunk): resolution.costs(
            settings.ldm,
            channels,
            side,
            [split for split in SPLITS if side // split >= halved],
            REPEATS,
        )
        for side in SIDES
    }
    machine = describe(torch.device("cpu")) | {
        "threads": settings.threads,
        "torch": torch.__version__,
    }
    path = Path("metrics/resolution.json")
    files.write_json(path, files.rounded({"machine": machine, "pixels": found}))
    lines = [
        {"pixels": side, "blocks": f"{split} x {split}"} | cost
        for side, of in found.items()
        for split, cost in of.items()
    ]
    print(tables.markdown(pd.DataFrame(lines).round(4).astype(str), left=2))
    print(f"measure_resolution: -> {path}")


if __name__ == "__main__":
    runtime.run(main)
