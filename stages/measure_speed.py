"""Measure what the design gains over the paper's algorithm as it is written, on this machine.

Not a stage: `python stages/measure_speed.py quick` (under a minute on two cores) or `full`. Takes
the settings of params.yaml, and images and networks made for the purpose: nothing need have run.
Only the comparison of samplers takes its scores and speeds from metrics/ablations. Prints and
writes metrics/speed.json: medians over repeats that take turns, ratios within the run, and the
machine.
"""

from pathlib import Path

from rissole.ground import config, files, runtime
from rissole.ground.errors import InputError
from rissole.results import claims
from rissole.speed import measures, worlds
from rissole.speed.machine import describe

import torch

ABLATIONS = Path("metrics/ablations")
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
    found |= equal_quality(settings)
    found["retrieval"] = measures.retrieval(settings, SIZES[extent])
    found = files.rounded(found)
    files.write_json(Path("metrics/speed.json"), found)
    for name, value in found.items():
        print(f"{name:30s} {value}")


def equal_quality(settings: config.Settings) -> dict:
    """`sample_speedup_equal_quality`: a thousand ancestral steps over the shortest sampler as good.

    As good is a score, `uncopied`, that is not above that of the thousand steps by more than the
    spread over three draws of noise. The seconds are those of the drawing of the rows.
    """
    scores = files.read_json(ABLATIONS / "tables.json")
    steps = {
        name: files.read_json(files.measured("sampling", name))["steps"]
        for name in settings.ablations.tables["sampler"]
        if name.startswith("ablations/") and settings.row(name).sample
    }
    full = max(steps, key=steps.get)
    spread = claims.spread(scores, settings.redraws(scores), "uncopied")
    good = [name for name in steps if scores[name]["uncopied"] <= scores[full]["uncopied"] + spread]
    short = min(good, key=steps.get)
    speeds = [scores[name]["sampling_images_per_second"] for name in (short, full)]
    return {
        "sample_speedup_equal_quality": speeds[0] / speeds[1],
        "equal_quality": {name: scores[name]["uncopied"] for name in (short, full)},
    }


if __name__ == "__main__":
    runtime.run(main)
