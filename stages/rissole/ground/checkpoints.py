"""States of a training, from which it goes on when it was ended before its time.

They lie outside the outputs, which DVC deletes before it starts a stage, and in the project's own
folder even where the stage runs in a copy of it. Their folder is named by what the training is made
of, so that no other training picks them up.
"""

import shutil
import sys
import time
from pathlib import Path

from rissole.ground import files, identity, processes
from rissole.ground.errors import InputError

KEPT = 2  # the newest; should it be broken, there is the one before


class Checkpoints:
    """The states of one training.

    Args:
        stage: its name, such as `train_ldm/rissole`.
        made_of: digest of all that the training follows from (`identity.of`).
        seconds: at least between two states.
    """

    def __init__(self, stage: str, made_of: str, seconds: float):
        self._folder = identity.folder(stage) / made_of[:16]
        self._seconds, self._saved = seconds, time.monotonic()

    def newest(self) -> tuple[dict, dict] | None:
        """The tensors of the newest state that can be read, on the CPU, and what is said of it.

        Several processes read the one that the first of them can.
        """
        chosen = processes.everyone(self._readable() if processes.first() else None)[0]
        return None if chosen is None else files.read_tensors(chosen)

    def due(self) -> bool:
        """Whether it is time for another state."""
        return time.monotonic() - self._saved >= self._seconds

    def save(self, step: int, tensors: dict, about: dict) -> None:
        """Keep a state after `step`; of several processes, that of the first."""
        if processes.first():
            files.write_tensors(self._folder / f"{step:09}.safetensors", tensors, about)
            for path in self._paths()[:-KEPT]:
                path.unlink()
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Forget all states: the training is done, and what it made is written."""
        if processes.first():
            shutil.rmtree(self._folder, ignore_errors=True)

    def _readable(self) -> Path | None:
        for path in reversed(self._paths()):
            try:
                files.read_tensors(path)
            except InputError as error:
                print(f"{error}; the checkpoint before it is used", file=sys.stderr)
                continue
            print(f"going on from {path}", file=sys.stderr)
            return path
        return None

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("*.safetensors"))
