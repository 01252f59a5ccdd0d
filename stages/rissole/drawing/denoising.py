"""How the first images of a row come out of noise: kept while they are drawn."""

from pathlib import Path

from rissole.core import files, numerics
from rissole.drawing.drawing import Drawing

import numpy as np
import pyarrow as pa
from torch import Tensor

IMAGES, MOMENTS = 16, 8  # of a row, and of the denoising of each


def watch(drawer: Drawing, batch: range) -> tuple[np.ndarray, np.ndarray, list[int], np.ndarray]:
    """Draw a batch, and keep how its first images look on the way.

    Returns:
        Pictures and codes as `Drawing.draw`; the steps that are shown, from the first, which is 1,
        to the last; and the first images after these steps, uint8 (images, moments, h, w, 3). They
        end as the pictures do.
    """
    wanted, seen = _steps(drawer), 0
    kept: list[Tensor] = []

    def keep(z: Tensor) -> None:
        nonlocal seen
        seen += 1
        if seen in wanted[:-1]:
            kept.append(z[:IMAGES].clone())  # not the whole batch

    pictures, codes = drawer.draw(batch, keep)
    before = [drawer.pictures(z)[0] for z in kept]
    return pictures, codes, wanted, np.stack([*before, pictures[:IMAGES]], 1)


def write(path: Path, steps: list[int], moments: np.ndarray) -> None:
    """Write the steps and moments (n, len(steps), h, w, 3) of `watch`, lossless."""
    about = {"size": str(moments.shape[-2]), "steps": " ".join(map(str, steps))}
    table = pa.table({"moments": files.bytes_column(moments)}, metadata=about)
    files.write_table(path, table)


def read(path: Path) -> tuple[list[int], np.ndarray]:
    """What `write` wrote. Raises InputError where it is missing or broken."""
    table = files.read_table(path)
    size = int(table.schema.metadata[b"size"])
    steps = [int(step) for step in table.schema.metadata[b"steps"].split()]
    shape = (len(steps), size, size, 3)
    return steps, files.bytes_array(table["moments"], np.uint8, shape)


def _steps(drawer: Drawing) -> list[int]:
    """Steps evenly spread over those of all turns, where blocks wait for each other."""
    total = len(drawer.sampler.timesteps) * len(drawer.conditioning.grid.turns)
    return [*(int(step) + 1 for step in numerics.evenly(total - 1, MOMENTS - 1)), total]
