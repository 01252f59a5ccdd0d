"""Train images by their ids, mirrored ones among them; mosaics of their blocks."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rissole.core import files
from rissole.dataset import images
from rissole.harness.errors import InputError
from rissole.latent import blocks, latents

import numpy as np
import pyarrow as pa
import torch


@dataclass(frozen=True, eq=False)
class Original:
    """A train image.

    Attributes:
        name: of its file.
        pixels: uint8 (h, w, 3), mirrored where its row of the latents is.
    """

    name: str
    pixels: np.ndarray


def read(split: Path, encoded: Path, wanted: Iterable[int]) -> dict[int, Original]:
    """The train images of some ids, mirrored ones among them.

    Args:
        split: folder of the pictures.
        encoded: folder of the latents, which say what is a mirror of what.
        wanted: ids.

    Raises:
        InputError: an id is not among the latents or the pictures.
    """
    wanted = np.fromiter(wanted, np.int64)
    original_of = {}
    for part in latents.read_parts(encoded, "train"):
        here = np.isin(part.ids, wanted)
        original_of |= dict(
            zip(part.ids[here].tolist(), part.originals[here].tolist(), strict=True)
        )
    pictures = {}
    for path in images.shards(split, "train"):
        table = files.read_table(path, ["id", "source", "image"])
        here = np.flatnonzero(np.isin(table["id"].to_numpy(), [*original_of.values()]))
        side = int(table.schema.metadata[b"size"])
        some = table.take(pa.array(here))
        if len(some):
            pixels = files.bytes_array(some["image"], np.uint8, (side, side, 3))
            names = zip(some["source"].to_pylist(), pixels, strict=True)
            pictures |= dict(zip(some["id"].to_pylist(), names, strict=True))
    found = {}
    for number in wanted.tolist():
        original = original_of.get(number)
        if original not in pictures:
            raise InputError(
                f"{split}: has no train image {number}, which a sample was told of or is near to;"
                " run `dvc repro`"
            )
        name, pixels = pictures[original]
        mirrored = number != original
        found[number] = Original(
            f"{name}, mirrored" if mirrored else name, pixels[:, ::-1] if mirrored else pixels
        )
    return found


def mosaic(originals: list[Original]) -> np.ndarray:
    """One block of each of n images, in reading order, at its own place: uint8 (h, w, 3)."""
    side = round(len(originals) ** 0.5)
    cut = [
        blocks.cut(torch.tensor(of.pixels.copy()).movedim(-1, 0), side)[position]
        for position, of in enumerate(originals)
    ]
    return blocks.join(torch.stack(cut), side).movedim(0, -1).contiguous().numpy()
