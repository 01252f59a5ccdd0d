"""States of a training, from which it goes on when it was ended before its time.

They lie outside the outputs, which DVC deletes before it starts a stage, and in the project's own
folder even where the stage runs in a copy of it. Their folder is named by what the training is made
of, so that no other training picks them up; a lock in it keeps a second process of the same
training away.
"""

import shutil
import sys
import time
from pathlib import Path

from rissole.ground import files, identity, interruption, lock, processes
from rissole.ground.errors import InputError

ABANDONED = 30 * 24 * 3600  # seconds after which nobody goes on from a state
KEPT = 2  # the newest; should it be broken, there is the one before


class Checkpoints:
    """The states of one training.

    Args:
        stage: its name, such as `train_ldm/rissole`.
        made_of: digest of all that the training follows from (`identity.of`).
        seconds: at least between two states.

    Raises:
        InputError: another process is at this training.
    """

    def __init__(self, stage: str, made_of: str, seconds: float):
        self._folder = identity.folder(stage) / made_of[:16]
        self._seconds, self._saved = seconds, time.monotonic()
        if processes.first():
            self._lock = lock.hold(self._folder / "lock", f"training {stage}")
        if processes.count() == 1:
            interruption.wait_for_state()
        else:
            interruption.wait_for_state_together(processes.first())

    def newest(self) -> tuple[dict, dict] | None:
        """The tensors of the newest state that can be read, on the CPU, and what is said of it.

        Several processes read the one that the first of them can.
        """
        chosen = processes.everyone(self._readable() if processes.first() else None)[0]
        return None if chosen is None else files.read_tensors(chosen)

    def due(self) -> bool:
        """Whether it is time for another state, or somebody wants this process to end."""
        return time.monotonic() - self._saved >= self._seconds or interruption.asked()

    def save(self, step: int, tensors: dict, about: dict) -> None:
        """Keep a state after `step`; of several processes, that of the first.

        Raises:
            KeyboardInterrupt: somebody wants this process to end.
        """
        path, interrupted = self._folder / f"{step:09}.safetensors", interruption.heed()
        if processes.first():
            files.write_tensors(path, tensors, about)
            for old in self._paths()[:-KEPT]:
                old.unlink()
        self._saved = time.monotonic()
        if interrupted:
            raise KeyboardInterrupt(f"what was learnt until step {step} is kept in {path}")

    def remove(self) -> None:
        """Forget all states: the training is done, and what it made is written.

        Those of other settings stay for a month, should somebody go back to them.
        """
        if processes.first():
            abandoned = time.time() - ABANDONED
            for lock_of in self._folder.parent.glob("*/lock"):
                if lock_of.parent.stat().st_mtime < abandoned:  # every save renews it
                    shutil.rmtree(lock_of.parent, ignore_errors=True)
            shutil.rmtree(self._folder, ignore_errors=True)
            lock.release(self._lock)

    def _readable(self) -> Path | None:
        for path in reversed(self._paths()):
            try:
                files.read_tensors(path)
            except InputError as error:
                print(f"{error}: it is left out", file=sys.stderr)
                path.unlink()  # or it would count as one of the newest for ever
                continue
            print(f"going on from {path}", file=sys.stderr)
            return path
        return None

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("*.safetensors"))
