"""Compare two metrics/tables.json: exact where exactness is due, else within tolerances.

Another machine gives other last bits, from which short trainings drift apart about as far as two
seeds do; sizes and counts must not move at all. Usage: compare_tables.py COMMITTED MADE
"""

import json
import math
import sys
from pathlib import Path

EXACT = ("parameters_live", "gflop_per_image_step", "images")
UNCOMPARED = ("train_seconds", "claim")  # another machine's speed; a difference of two scores
RELATIVE, ABSOLUTE = 0.15, 8.0  # of a distance; two seeds of a row differ by less
# Its weights are neither averaged nor anywhere near converged: a score of one moment among many.
RELATIVE_OF = {"released": 0.4}


def leaves(content: dict, path: tuple[str, ...] = ()):
    """Every number of a nested dictionary with its path."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def differences(committed: dict, made: dict) -> list[str]:
    """What differs by more than it may, a line each."""
    old, new = dict(leaves(committed)), dict(leaves(made))
    lines = [
        f"{'.'.join(path)}: only in one of the two" for path in sorted(old.keys() ^ new.keys())
    ]
    for path in old.keys() & new.keys():
        if set(path) & set(UNCOMPARED):
            continue
        relative = next((RELATIVE_OF[part] for part in path if part in RELATIVE_OF), RELATIVE)
        allowed = 0 if set(path) & set(EXACT) else max(ABSOLUTE, relative * abs(old[path]))
        if not math.isfinite(new[path]) or abs(new[path] - old[path]) > allowed:
            lines.append(
                f"{'.'.join(path)}: {new[path]} made, {old[path]} committed (±{allowed:g})"
            )
    return sorted(lines)


if __name__ == "__main__":
    found = differences(*(json.loads(Path(path).read_text()) for path in sys.argv[1:3]))
    sys.exit("\n".join(found) if found else None)
