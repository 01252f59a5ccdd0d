"""How the first images of a row come out of noise: drawn again, watched on the way."""

from rissole.drawing.drawing import Drawing
from rissole.ground import runtime

import numpy as np
from torch import Tensor


def watch(drawer: Drawing, images: int, moments: int) -> tuple[list[int], np.ndarray]:
    """Draw the first batch of a row again, and show how its first images come about.

    All of the batch is drawn, as last bits depend on what is computed together.

    Args:
        drawer: of the row.
        images: how many of the batch are watched.
        moments: how many steps are shown at most.

    Returns:
        The steps shown, from the first, which is 1, to the last; and the watched images after these
        steps, uint8 (images, moments, h, w, 3). They end as the samples do, bit by bit on the same
        machine with as many threads, up to last bits elsewhere.
    """
    wanted, seen = _steps(drawer, moments), 0
    kept: list[Tensor] = []

    def keep(z: Tensor) -> None:
        nonlocal seen
        seen += 1
        if seen in wanted[:-1]:
            kept.append(z[:images].clone())  # not the whole batch

    pictures, _ = drawer.draw(drawer.batches()[0], keep)
    before = [drawer.pictures(z)[0] for z in kept]
    return wanted, np.stack([*before, pictures[:images]], 1)


def _steps(drawer: Drawing, moments: int) -> list[int]:
    """Steps evenly spread over those of all turns, where blocks wait for each other."""
    total = len(drawer.sampler.timesteps) * len(drawer.conditioning.grid.turns)
    return [*(int(step) + 1 for step in runtime.evenly(total - 1, moments - 1)), total]
