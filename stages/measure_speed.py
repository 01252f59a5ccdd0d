"""Measure what the design gains over the paper's algorithm as it is written, on this machine.

Not a stage. Takes the settings of params.yaml, and images and networks made for the purpose:
nothing need have run. Prints and writes metrics/speed.json, or metrics/speed_cuda.json on a CUDA
device: medians over repeats that take turns, ratios within the run, and the machine. The studies
of metrics/speed.md were made with earlier versions of it.

    python stages/measure_speed.py
"""

from pathlib import Path

from rissole.core import config, files, numerics
from rissole.core.config import Extent
from rissole.harness.run import run
from rissole.speed import steps, worlds
from rissole.speed.machine import describe

import torch

REPEATS = 20


def main() -> None:
    """Measure a step of training and of drawing, and what neighbours cost."""
    settings = config.read().fitted(Extent(8000, 64))  # images that nobody has seen
    device = numerics.set_up(settings.threads)
    world = worlds.make(settings, device)
    machine = describe(device) | {"threads": settings.threads, "torch": torch.__version__}
    found = {"machine": machine, "preset": settings.preset}
    found |= steps.training(world, REPEATS)
    found |= steps.sampling(world, REPEATS)
    found |= steps.neighbours_cost(world, REPEATS)
    found = files.rounded(found)
    path = Path("metrics", "speed_cuda.json" if device.type == "cuda" else "speed.json")
    files.write_json(path, found)
    for name, value in found.items():
        print(f"{name:30s} {value}")
    print(f"measure_speed: -> {path}")


if __name__ == "__main__":
    run(main)
