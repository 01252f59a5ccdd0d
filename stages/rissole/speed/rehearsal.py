"""Stages run as they are in a folder of their own, timed, and their peaks of memory taken."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from rissole.ground.errors import InputError

STAGES = Path(__file__).parents[2]


@dataclass(frozen=True)
class Cost:
    """What a run of a stage took.

    Attributes:
        seconds: from start to end.
        mb: the most memory that the process held.
    """

    seconds: float
    mb: float


# What a parent learns of its child's peak includes its own, so the child says it.
SAY_PEAK = """
import atexit, pathlib, runpy, sys
def say():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    pathlib.Path("peak").write_text(next(l.split()[1] for l in lines if l.startswith("VmHWM")))
atexit.register(say)
sys.argv = sys.argv[1:]
sys.path[0] = str(pathlib.Path(sys.argv[0]).parent)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def call(folder: Path, stage: str, words: list[str]) -> Cost:
    """Run a stage in a folder.

    Raises:
        InputError: it fails, with the last line of what it said.
    """
    clock = perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", SAY_PEAK, str(STAGES / f"{stage}.py"), *words],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    seconds = perf_counter() - clock
    if done.returncode:
        raise InputError(f"{stage} failed: {' '.join(done.stderr.strip().splitlines()[-1:])}")
    return Cost(seconds, int((folder / "peak").read_text()) * 1024 / 1e6)
