"""A training run: loss curves, wall time, checkpoints, resuming, divergence."""

import sys
import time
from collections.abc import Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Protocol

from rissole.core import files, processes
from rissole.harness.checkpoints import Checkpoints
from rissole.harness.errors import InputError

import torch
from torch import Tensor

CHECKED = 100  # steps between two looks at the losses, each of which waits for the device
SHOWN = 15  # seconds at least between two writings of the curves
WORSE = 10  # times the loss of the first steps: nothing that still learns climbs that high


class Learner(Protocol):
    """What is in training."""

    step: int

    def state(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """What it takes to go on from here: tensors and numbers, the step among them."""

    def load(self, tensors: dict[str, Tensor], numbers: dict[str, float]) -> None:
        """Go on from a `state`."""


class TrainingRun:
    """A training from where an earlier run of it stopped, or from the start, to its end.

    Args:
        learner: put where the earlier run stopped.
        checkpoints: of this training.
        terms: names of what the steps measure, the loss first; only that is measured at each.
        steps: of the whole training.
        curves: CSV of what the steps measured, to be looked at while it trains.
        mend: what to do should it diverge, such as "lower ldm.learning_rate".
    """

    def __init__(
        self,
        learner: Learner,
        checkpoints: Checkpoints,
        terms: Sequence[str],
        steps: int,
        curves: Path,
        mend: str,
    ):
        self._learner, self._checkpoints = learner, checkpoints
        self._curves, self._mend = curves, mend
        self._terms = list(terms)
        self._curve = torch.full((steps, len(terms)), nan)
        self._start, self._noted = time.perf_counter(), 0
        self._waiting: list[Mapping[str, Tensor | float]] = []
        self._shown = self._start
        newest = self._newest()
        if newest is not None:
            tensors, numbers = newest
            self._start -= numbers.pop("seconds")
            self._noted = numbers["step"]
            self._curve[: self._noted] = tensors.pop("curve")
            learner.load(tensors, numbers)

    def note(self, terms: Mapping[str, Tensor | float]) -> None:
        """Note what a step measured, save a checkpoint when due, and end when it diverges.

        Raises:
            InputError: a term is infinite or no number, or the loss far above that of the first
                steps; the checkpoints are of steps before.
            KeyboardInterrupt: somebody wants it to end, and a checkpoint is saved.
        """
        self._waiting.append(terms)
        step, due = self._learner.step, self._checkpoints.due()
        if due or step % CHECKED == 0 or step == len(self._curve):
            self._write_down()
            if time.perf_counter() - self._shown >= SHOWN:
                self._show()
        if due:
            self._save()

    def seconds(self) -> float:
        """How long the training took so far, in all its runs."""
        return time.perf_counter() - self._start

    def end(self) -> None:
        """Write the curves, and forget the checkpoints: what the training made is written."""
        self._show()
        self._checkpoints.remove()

    def _write_down(self) -> None:
        waiting, self._waiting = self._waiting, []
        start, self._noted = self._noted, self._noted + len(waiting)
        for column, name in enumerate(self._terms):
            rows = [row for row, terms in enumerate(waiting) if name in terms]
            if rows:  # all of them in one copy from the device
                values = torch.stack([torch.as_tensor(waiting[row][name]) for row in rows])
                self._curve[torch.tensor(rows) + start, column] = values.float().cpu()
                measured = zip(rows, values.tolist(), strict=True)
                for row, value in (of for of in measured if not isfinite(of[1])):
                    raise self._diverged(f"its {name} is {value} at step {start + row + 1}")
        if self._noted % CHECKED == 0:
            begun, now = (
                self._curve[end - CHECKED : end, 0].mean() for end in (CHECKED, self._noted)
            )
            if now > WORSE * begun:
                raise self._diverged(
                    f"its {self._terms[0]} is {now:.3g} at step {self._noted}, where it was"
                    f" {begun:.3g} in the first {CHECKED}"
                )

    def _show(self) -> None:
        self._shown = time.perf_counter()
        steps = [
            {name: value for name, value in zip(self._terms, row, strict=True) if value == value}
            for row in self._curve[: self._noted].tolist()
        ]
        files.write_curve(self._curves, steps)

    def _diverged(self, how: str) -> InputError:
        return InputError(
            f"params.yaml: {self._mend}: the training diverged, {how} of {len(self._curve)}"
        )

    def _save(self) -> None:
        tensors, numbers = self._learner.state()
        tensors = tensors | {"curve": self._curve[: self._noted]}
        numbers |= {"seconds": self.seconds()}
        self._checkpoints.save(
            self._learner.step, lambda path: files.write_tensors(path, tensors, numbers)
        )

    def _newest(self) -> tuple[dict[str, Tensor], dict[str, float]] | None:
        """The newest checkpoint that can be read; all processes read that of the first."""
        chosen = processes.everyone(self._readable() if processes.first() else None)[0]
        return None if chosen is None else files.read_tensors(chosen)

    def _readable(self) -> Path | None:
        for path in self._checkpoints.paths():
            try:
                files.read_tensors(path)
            except InputError as error:
                self._checkpoints.leave_out(path, error)
                continue
            print(f"going on from {path}", file=sys.stderr)
            return path
        return None
