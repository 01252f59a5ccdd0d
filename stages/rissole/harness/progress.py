"""One line of progress: share done, rate, time left."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(
    name: str, unit: str, total: int, scale: float = 1, done: int = 0
) -> Iterator[Callable[[], None]]:
    """Show a line while the body works, and yield what it calls after each item.

    A terminal's line is redrawn; a log gets a line every 15 s. Of several processes the first
    shows it.

    Args:
        name: what the line begins with.
        unit: what is counted.
        total: how many items there are.
        scale: units in an item (a step of 16 images counts 16 images).
        done: how many items were done before.
    """
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    with tqdm(
        desc=name,
        unit=unit,
        total=total,
        initial=done,
        unit_scale=scale if scale != 1 else False,
        mininterval=0.2 if terminal else 15,
        maxinterval=10 if terminal else 60,  # then a line is repeated
        delay=0 if terminal else 15,
        leave=False,
        file=sys.stderr if terminal else _Lines(),
        dynamic_ncols=terminal,
        disable=os.environ.get("RANK", "0") != "0",
    ) as bar:
        yield lambda: bar.update() and None


class _Lines:
    """A log for tqdm to write to: each redrawing on a line of its own, blank ones left out."""

    def write(self, text: str) -> None:
        text = text.strip("\r\n ")
        if text:
            print(text, file=sys.stderr, flush=True)

    def flush(self) -> None:
        pass
