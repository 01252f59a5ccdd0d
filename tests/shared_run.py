"""Run stages that processes can share, in the current folder, in single precision, without DVC.

`python shared_run.py WORD...` or under torchrun; a word is a stage with its row, such as
`train_ldm/rissole`, or `stop/50`: training saves a checkpoint after so many steps and ends.
"""

import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "stages")]
sys.modules |= dict.fromkeys(["dvc", "scann"])  # as on a bare machine: importing them fails
from rissole.core import numerics, processes  # noqa: E402
from rissole.harness.checkpoints import Checkpoints  # noqa: E402
from rissole.pretrained import compat  # noqa: E402

ALONE = ("split_data", "build_index", "retrieve_neighbours")


class Stopped(Exception):
    """A training was ended."""


def stop_after(step: int) -> None:
    """Let the next training save a checkpoint after `step` and end."""
    save = Checkpoints.save

    def save_and_stop(self, at, write):
        if at == step:
            save(self, at, write)
            raise Stopped

    Checkpoints.due = lambda self: True
    Checkpoints.save = save_and_stop


def run(stage: str, *words: str) -> None:
    """Run a stage as one process or as all."""
    main = import_module(stage).main
    if stage in ALONE:
        if processes.first():
            with processes.alone():
                main(*words)
        processes.wait()
    else:
        main(*words)
        processes.wait()


if __name__ == "__main__":
    compat.arm()
    numerics.autocast = lambda device: nullcontext()
    numerics.set_up(1)
    for argument in sys.argv[1:]:
        stage, *words = argument.split("/")
        if stage == "stop":
            stop_after(int(words[0]))
            continue
        try:
            run(stage, *words)
        except Stopped:
            print("stopped")
