"""Kill `dvc repro` at random moments until it has been killed often enough; then let it end.

`python tests/kill_loop.py --kills 20 --mean 40`, in a clone whose results stand in
dvc.lock and whose stages have yet to run. Each time the whole process group is killed. At the end
every output must be what dvc.lock said before, byte for byte; only the files that hold seconds and
rates are not compared.
"""

import os
import random
import re
import signal
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import yaml

TIMED = "metrics/(ldm/|sampling/|retrieval.json|tables[.]|report.html)"


def main() -> None:
    """Kill, and compare."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--mean", type=float, default=40.0, help="seconds from start to kill")
    words = parser.parse_args()
    lock = Path("dvc.lock")
    expected = outputs(lock)
    lock.unlink()
    draw, kills = random.Random(0), 0
    while kills < words.kills:
        seconds = draw.uniform(0, 2 * words.mean)
        code, said = repro(seconds)
        if code is None:
            kills += 1
            stages = re.findall(r"Running stage '([^']+)'", said) or ["no stage yet"]
            print(f"kill {kills:3d} after {seconds:5.1f} s at {stages[-1]}", flush=True)
        elif code == 0:
            print("it ended before all kills were spent: begin anew", flush=True)
            check(expected, outputs(lock))
            subprocess.run(["rm", "-rf", "data", "dvc.lock", ".dvc/cache"], check=True)
        else:
            sys.exit(f"after {kills} kills `dvc repro` failed:\n{said}")
    code, said = repro(None)
    if code:
        sys.exit(f"after {kills} kills `dvc repro` failed:\n{said}")
    check(expected, outputs(lock))
    left = [path for path in Path().glob("*/**/.*.partial") if ".dvc" not in path.parts]
    print(f"{kills} kills, {len(expected)} outputs equal byte for byte, {len(left)} scratch files")


def repro(seconds: float | None) -> tuple[int | None, str]:
    """Run `dvc repro`; None and what it said where it was killed after so many seconds."""
    started = subprocess.Popen(
        ["dvc", "repro"],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said, _ = started.communicate(timeout=seconds)
        return started.returncode, said
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        return None, started.communicate()[0]


def outputs(lock: Path) -> dict[str, str]:
    """The digest of every output that holds no times."""
    stages = yaml.safe_load(lock.read_text())["stages"].values()
    outs = {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}
    return {path: digest for path, digest in outs.items() if not re.match(TIMED, path)}


def check(expected: dict[str, str], found: dict[str, str]) -> None:
    """Exit unless all outputs are the same."""
    others = sorted(path for path in expected if expected[path] != found.get(path))
    if others or expected.keys() != found.keys():
        sys.exit(f"not what an undisturbed run makes: {', '.join(others) or 'other outputs'}")


if __name__ == "__main__":
    main()
