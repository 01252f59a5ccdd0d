"""How long one waits for a run on idle cores, and beside two processes that never sleep.

`python tests/measure_waiting.py [TARGET ...]` clones the checkout twice, runs `dvc repro` in each,
first on idle cores, then beside as many busy processes of the same priority as there are cores, and
prints the seconds of each stage (of all its entries together), its share, and how many times as
long it took. Without a target it is the whole default run.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
BUSY = [sys.executable, "-c", "while True: pass"]


def run(folder: Path, targets: list[str]) -> dict[str, float]:
    """Seconds by stage, and in all, of `dvc repro` in a clone."""
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
    started = time.monotonic()
    subprocess.run(["dvc", "repro", *targets], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    found = {}
    for path in sorted((folder / "checkpoints/seconds").glob("*.json")):
        stage = path.name.partition(".py")[0]
        found[stage] = found.get(stage, 0.0) + json.loads(path.read_text())["seconds"]
    return found | {"in all": time.monotonic() - started}


def main(targets: list[str]) -> None:
    """Measure both, and print a line for each stage."""
    with TemporaryDirectory() as scratch:
        idle = run(Path(scratch, "idle"), targets)
        others = [subprocess.Popen(BUSY) for _ in range(os.cpu_count())]
        try:
            beside = run(Path(scratch, "beside"), targets)
        finally:
            for other in others:
                other.kill()
    print(f"{'stage':20s} {'idle (s)':>9s} {'share':>6s} {'beside others (s)':>18s} {'times':>6s}")
    for stage, seconds in idle.items():
        share, times = seconds / idle["in all"], beside[stage] / seconds
        print(f"{stage:20s} {seconds:9.0f} {share:6.0%} {beside[stage]:18.0f} {times:6.1f}")


if __name__ == "__main__":
    main(sys.argv[1:])
