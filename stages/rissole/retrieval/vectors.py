"""What an image is looked up by: a vector of length 1, so that a dot product is the cosine."""

from collections.abc import Iterator
from pathlib import Path

from rissole.core import numerics
from rissole.latent import blocks as grid
from rissole.latent import embeddings, latents
from rissole.latent.latents import Latents
from rissole.retrieval.settings import Query

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

POOLED = 4  # side of the thumbnail of a latent that `pooled` looks at


class Vectors:
    """Query vectors of latents, made of the codes when they are asked for.

    The latents are raw, neither centred nor scaled per channel, as in the paper's released code.
    `vectors[rows]` is float32 (..., d), flattened in the order channel, row, column; `rows` is a
    slice or int64 (...).

    Args:
        latents: of one split, n of them.
        query: `first_block` (paper, section 4.1.2), `latent` (its footnote 2) or `pooled` (means
            over squares of the latent).
        blocks: blocks per side.
    """

    def __init__(self, latents: Latents, query: Query, blocks: int):
        self._latents, self._query, self._blocks = latents, query, blocks
        with torch.inference_mode():
            self.shape = len(latents), self._looked_at(latents.z(torch.zeros(1).long())).shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            rows = np.arange(len(self))[rows]
        flat = torch.from_numpy(rows.reshape(-1))
        vectors = np.empty((len(flat), self.shape[1]), np.float32)
        for start in range(0, len(flat), 4096):
            z = self._latents.z(flat[start : start + 4096])
            vectors[start : start + len(z)] = F.normalize(self._looked_at(z), dim=1).numpy()
        return vectors.reshape(*rows.shape, self.shape[1])

    def _looked_at(self, z: Tensor) -> Tensor:
        if self._query == "first_block":
            z = grid.cut(z, self._blocks)[:, 0]
        if self._query == "pooled":
            z = F.adaptive_avg_pool2d(z, POOLED)
        return z.flatten(1)


def of(
    images: Latents, split: str, query: Query, blocks: int, encoded: Path
) -> np.ndarray | Vectors:
    """Query vectors of all images of a split, by row.

    Args:
        images: of the split.
        split: train | val.
        query: what they are looked up by.
        blocks: blocks per side.
        encoded: folder of the embeddings.

    Raises:
        InputError: the embeddings are missing, or of other images.
    """
    if query == "embedding":
        return embeddings.read(encoded, split, images.ids)
    return Vectors(images, query, blocks)


def by_file(
    folder: Path, split: str, query: Query, blocks: int, encoded: Path, most: int
) -> Iterator[np.ndarray]:
    """Query vectors of at most `most` images, evenly spread over a split, a file at a time."""
    chosen, start = numerics.evenly(latents.count(folder, split), most), 0
    if query == "embedding":
        parts = (vectors for _, vectors in embeddings.read_parts(encoded, split))
    else:
        parts = (Vectors(part, query, blocks) for part in latents.read_parts(folder, split))
    for part in parts:
        here = chosen[(chosen >= start) & (chosen < start + len(part))] - start
        start += len(part)
        yield part[here]


def identity(latents: str, query: Query, encoded: Path) -> str:
    """What query vectors are made of: the identity of the latents, or also the encoder."""
    return f"{latents} {embeddings.encoder(encoded)}" if query == "embedding" else latents
