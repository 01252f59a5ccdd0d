"""Several processes for one stage: who started them, and whether that can work.

torchrun starts them; `RISSOLE_PROCESSES=4 dvc repro` lets every stage that can be shared start
itself so (`run.run`).
"""

import os
import sys
from pathlib import Path

from rissole.harness.errors import InputError

WANTED = "RISSOLE_PROCESSES"
# What other launchers tell a process about how many there are.
STRANGERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
ACCELERATE = "ACCELERATE_MIXED_PRECISION"  # set by whatever `accelerate launch` starts


def count() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def first() -> bool:
    """Whether this process is the one that speaks."""
    return int(os.environ.get("RANK", 0)) == 0


def check(shared: bool) -> None:
    """Refuse a launch that would do the same work twice, or do alone what many were meant to.

    Args:
        shared: whether the stage can be shared out.

    Raises:
        InputError: with the command to use instead.
    """
    script = Path(sys.argv[0]).name
    instead = f"start it by `torchrun --nproc-per-node N stages/{script}`, or set {WANTED}=N"
    if "WORLD_SIZE" not in os.environ:
        for name in STRANGERS:
            if int(os.environ.get(name) or 1) > 1:
                raise InputError(
                    f"{name} is {os.environ[name]}, but these processes do not know of each other"
                    f" and would all do the same work: {instead}"
                )
        if ACCELERATE in os.environ:
            raise InputError(
                f"`accelerate launch` started a single process, whatever it was asked for:"
                f" {instead}"
            )
    elif count() > 1 and not shared:
        raise InputError("this stage cannot be shared out: start it as one process")


def start_wanted() -> None:
    """Become torchrun where the environment wants several processes and this is the only one.

    Raises:
        InputError: what it wants is not a number of processes.
    """
    wanted = os.environ.get(WANTED, "1")
    if not wanted.isdigit() or int(wanted) < 1:
        raise InputError(f"{WANTED} is '{wanted}': must be a whole number from 1 on")
    if int(wanted) > 1 and "WORLD_SIZE" not in os.environ:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", wanted]
        os.execv(sys.executable, [sys.executable, *launcher, *sys.argv])
