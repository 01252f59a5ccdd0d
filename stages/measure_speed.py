"""Measure what the design gains over the paper's algorithm as it is written, on this machine.

Not a stage: `python stages/measure_speed.py` (ten minutes on two cores), or with `--quick` (one),
on smaller databases and with fewer repeats. Takes the settings of params.yaml, and images and
networks made for the purpose: nothing need have run. Only the comparison of samplers
takes its scores and speeds from metrics/ablations. Prints and writes metrics/speed.json, or
metrics/speed_cuda.json on a CUDA device: medians over repeats that take turns, ratios within the
run, and the machine.

    python stages/measure_speed.py --quick
    python stages/measure_speed.py
"""

from pathlib import Path

from rissole.ground import config, files, runtime
from rissole.ground.derived import Extent
from rissole.results import claims
from rissole.speed import data, hardware, memory, steps, worlds
from rissole.speed.machine import describe

import torch

ABLATIONS = Path("metrics/ablations")


def main(quick: bool = False) -> None:
    """Measure everything.

    Args:
        quick: smaller databases, fewer repeats: a minute.
    """
    settings = config.read().fitted(Extent(8000, 64))  # images that nobody has seen
    device, repeats = runtime.set_up(settings.threads), 5 if quick else 20
    world = worlds.make(settings, device)
    machine = describe(device) | {"threads": settings.threads, "torch": torch.__version__}
    found = {"machine": machine, "preset": settings.preset, "extent": "quick" if quick else "full"}
    found |= steps.training(world, repeats)
    found |= steps.sampling(world, repeats)
    found |= steps.neighbours_cost(world, repeats)
    found |= equal_quality(settings)
    found |= hardware.best_product(device)
    best = found["peak_gflop_per_second"] * 1e9
    found |= hardware.network(world, repeats, best)
    found["remedies"] = hardware.remedies(world, repeats, compiled=not quick)
    if not quick:
        found["paper_size"] = hardware.paper_size(world, best)
    found |= data.database(world)
    found |= data.encoding(world, repeats)
    sizes = [10_000] if quick else [10_000, 100_000, 1_000_000]
    found |= data.retrieval(settings, sizes)
    found |= data.self_join(settings, 20_000 if quick else 100_000)
    found |= data.splitting(1500 if quick else 10_000, settings.data.size)
    found |= memory.growth(100, "train_ldm") if quick else memory.growth(6000, "sample_images")
    sides = (16, 32) if quick else (16, 32, 64, 128)
    found["memory_per_image_sampled_mb"] = memory.per_image(world.ldm, sides)
    found |= memory.start_up()
    found = files.rounded(found)
    path = Path("metrics", "speed_cuda.json" if device.type == "cuda" else "speed.json")
    files.write_json(path, found)
    for name, value in found.items():
        print(f"{name:30s} {value}")
    print(f"measure_speed: -> {path}")


def equal_quality(settings: config.Settings) -> dict:
    """`sample_speedup_equal_quality`: a thousand ancestral steps over the shortest sampler as good.

    As good is a score, `uncopied`, that is not above that of the thousand steps by more than the
    spread over three draws of noise. The seconds are those of the drawing of the rows.
    """
    scores = files.read_json(ABLATIONS / "tables.json")
    steps = {
        name: files.read_json(files.measured("sampling", name))["calls"]
        for name in settings.ablations.tables["sampler"]
        if name.startswith("ablations/") and settings.row(name).sample
    }
    full = max(steps, key=steps.get)
    spread = claims.spread(scores, settings.redraws(scores), "uncopied")
    good = [name for name in steps if scores[name]["uncopied"] <= scores[full]["uncopied"] + spread]
    short = min(good, key=lambda name: (steps[name], scores[name]["uncopied"]))
    speeds = [scores[name]["sampling_images_per_second"] for name in (short, full)]
    return {
        "sample_speedup_equal_quality": speeds[0] / speeds[1],
        "equal_quality": {name: scores[name]["uncopied"] for name in (short, full)},
    }


if __name__ == "__main__":
    runtime.run(main)
