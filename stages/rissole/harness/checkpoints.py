"""Where checkpoints lie, when one is due, and which are kept.

They lie outside the outputs, which DVC deletes before it starts a stage, and in the project's own
folder even where the stage runs in a copy of it. The folder is named by the training's fingerprint,
so that no other training picks them up; a lock in it keeps a second process of the same training
away.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rissole.harness import lock, signals

ABANDONED = 30 * 24 * 3600  # seconds after which nobody resumes from a checkpoint
KEPT = 2  # the newest; should it be broken, there is the one before


def folder(stage: str) -> Path:
    """Where a stage's checkpoints and notes lie: in the project, even if it runs in a copy."""
    return Path(os.environ.get("DVC_ROOT", "."), "checkpoints", stage)


class Checkpoints:
    """The checkpoints of one training.

    Args:
        stage: its name, such as `train_ldm/rissole`.
        fingerprint: digest of settings, inputs and version of the training.
        seconds: at least between two checkpoints.
        first: whether this process, of several, is the one that writes.
        alone: whether there is no other process.

    Raises:
        InputError: another process is at this training.
    """

    def __init__(self, stage: str, fingerprint: str, seconds: float, first: bool, alone: bool):
        self._folder, self._first = folder(stage) / fingerprint[:16], first
        self._seconds, self._saved = seconds, time.monotonic()
        if first:
            lock.hold(self._folder / "lock", f"training {stage}")
        if alone:
            signals.wait_for_checkpoint()
        else:
            signals.wait_for_checkpoint_together(first)

    def paths(self) -> list[Path]:
        """All there are, the newest first."""
        return sorted(self._folder.glob("*.safetensors"), reverse=True)

    def leave_out(self, path: Path, error: Exception) -> None:
        """Remove one that cannot be read, or it would count as one of the newest for ever."""
        print(f"{error}: it is left out", file=sys.stderr)
        path.unlink()

    def due(self) -> bool:
        """Whether it is time for another, or somebody wants this process to end."""
        return time.monotonic() - self._saved >= self._seconds or signals.asked()

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Keep what `write` writes after `step`; of several processes, that of the first.

        Raises:
            KeyboardInterrupt: somebody wants this process to end.
        """
        path, interrupted = self._folder / f"{step:09}.safetensors", signals.heed()
        if self._first:
            write(path)
            for old in self.paths()[KEPT:]:
                old.unlink()
        self._saved = time.monotonic()
        if interrupted:
            raise KeyboardInterrupt(f"what was learnt until step {step} is kept in {path}")

    def remove(self) -> None:
        """Forget all of them: the training is done, and what it made is written.

        Those of other settings stay for a month, should somebody go back to them.
        """
        if self._first:
            abandoned = time.time() - ABANDONED
            for lock_of in self._folder.parent.glob("*/lock"):
                if lock_of.parent.stat().st_mtime < abandoned:  # every save renews it
                    shutil.rmtree(lock_of.parent, ignore_errors=True)
            shutil.rmtree(self._folder, ignore_errors=True)
