"""Measure what the design gains over the paper's algorithm as it is written, on this machine.

Not a stage: `python stages/measure_speed.py quick` (under a minute on two cores) or `full`. Takes
the settings of params.yaml, and images and networks made for the purpose: nothing need have run.
Prints and writes metrics/speed.json: medians over repeats that take turns, ratios within the run,
and the machine.
"""

from pathlib import Path

import torch

from rissole.ground import config, files, runtime
from rissole.ground.errors import InputError
from rissole.speed import measures, worlds
from rissole.speed.machine import describe

REPEATS = {"quick": 5, "full": 20}
SIZES = {"quick": [10_000], "full": [10_000, 100_000]}  # rows of the databases that are searched


def main(extent: str) -> None:
    """Measure everything."""
    if extent not in REPEATS:
        raise InputError(f"'{extent}': must be quick or full")
    settings = config.read()
    device, repeats = runtime.set_up(settings.threads), REPEATS[extent]
    world = worlds.make(settings, device)
    machine = describe() | {"threads": settings.threads, "torch": torch.__version__}
    found = {"machine": machine, "preset": settings.preset, "extent": extent}
    found |= measures.training(world, repeats)
    found |= measures.sampling(world, repeats)
    found |= measures.neighbours_cost(world, repeats)
    found |= measures.network(world, repeats)
    found |= measures.database(world)
    found |= measures.encoding(world, repeats)
    found["retrieval"] = measures.retrieval(settings, SIZES[extent])
    found = files.rounded(found)
    files.write_json(Path("metrics/speed.json"), found)
    for name, value in found.items():
        print(f"{name:30s} {value}")


if __name__ == "__main__":
    runtime.run(main)
