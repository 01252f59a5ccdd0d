"""Stages run as they are in a folder of their own, timed, and their peaks of memory taken."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from rissole.harness import launch
from rissole.harness.errors import InputError

SCRIPTS = Path(__file__).parents[2]


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


def call(folder: Path, stage: str, *words: str) -> Cost:
    """Run a stage in a folder, as one process.

    Raises:
        InputError: it fails, with the last line of what it said; or something ended it.
    """
    peak, clock = folder / "peak", perf_counter()
    peak.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", SAY_PEAK, str(SCRIPTS / f"{stage}.py"), *words],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != launch.WANTED},
        capture_output=True,
        text=True,
    )
    seconds, called = perf_counter() - clock, " ".join([stage, *words])
    if done.returncode < 0:
        ended = signal.Signals(-done.returncode).name
        why = ", as Linux does where memory runs out" if ended == "SIGKILL" else ""
        raise InputError(f"{called}: was ended by {ended}{why}")
    if done.returncode:
        raise InputError(f"{called} failed: {' '.join(done.stderr.strip().splitlines()[-1:])}")
    return Cost(seconds, int(peak.read_text()) * 1024 / 1e6)
