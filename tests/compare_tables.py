"""Compare two metrics/tables.json: exact where exactness is due, else within tolerances.

Another machine gives other last bits, from which short trainings drift apart, that of the first
stage too: farther than two seeds on one first stage do. Sizes and counts must not move at all.
Usage: compare_tables.py OLD NEW, where either is a file, or a revision of git, whose
metrics/tables.json is meant.
"""

import json
import math
import subprocess
import sys
from pathlib import Path

EXACT = (0.0, 0.0)
UNCOMPARED = ("train_images_per_second", "sampling_images_per_second")  # another machine's speed
# By measure, how far two equal runs may be apart: relative to the old value, and in any case.
TOLERANCES = {
    "parameters_live": EXACT,
    "gflop_per_image": EXACT,
    "images": EXACT,
    "recall": (0.0, 0.1),
    "precision": (0.0, 0.1),
    "coverage": (0.0, 0.1),
    "density": (0.0, 0.15),
    "copied": (0.0, 0.08),
    "own_query": (0.0, 0.08),
    "own_group": (0.0, 0.08),
    "latent_seam": (0.1, 0.0),
    "colour": (0.0, 0.1),
    "collages": (0.0, 0.5),  # detectors rank rows alike, but differ on where a collage begins
    "coherence": (0.0, 0.1),
}
DISTANCE = (0.15, 8.0)  # two seeds of a row differ by less
# By row and measure.
# True images, a share of which every test takes for copies: how many tests are in it differs.
ALONE = {(row, "copied"): (0.0, 0.2) for row in ("held_out", "reconstructed", "half_copies")}
ALONE |= {("neighbour_mean", "uncopied"): (0.25, 8.0)}  # of the few images that no test names
# Its weights are neither averaged nor anywhere near converged: a score of one moment among many.
FACTOR = {"released": 3.0}


def leaves(content: dict, path: tuple[str, ...] = ()):
    """Every number of a nested dictionary with its path."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def allowed(path: tuple[str, ...], old: float) -> float:
    """How far a number may be from what it was."""
    named = (TOLERANCES[part] for part in reversed(path) if part in TOLERANCES)
    relative, absolute = ALONE.get(path[-2:], next(named, DISTANCE))
    factor = next((FACTOR[part] for part in path if part in FACTOR), 1.0)
    return factor * max(absolute, relative * abs(old))


def differences(committed: dict, made: dict) -> list[str]:
    """What differs by more than it may, a line each."""
    old, new = dict(leaves(committed)), dict(leaves(made))
    lines = [
        f"{'.'.join(path)}: only in one of the two" for path in sorted(old.keys() ^ new.keys())
    ]
    for path in old.keys() & new.keys():
        if set(path) & set(UNCOMPARED):
            continue
        most = allowed(path, old[path])
        if not math.isfinite(new[path]) or abs(new[path] - old[path]) > most:
            lines.append(f"{'.'.join(path)}: {new[path]} made, {old[path]} committed (±{most:g})")
    return sorted(lines)


def read(name: str) -> dict:
    """The tables in a file, or those of a revision."""
    if Path(name).is_file():
        return json.loads(Path(name).read_text())
    words = ["git", "show", f"{name}:metrics/tables.json"]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    found = differences(*(read(name) for name in sys.argv[1:3]))
    sys.exit("\n".join(found) if found else None)
