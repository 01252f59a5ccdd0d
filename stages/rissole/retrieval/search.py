"""Search among the train images: what an image is looked up by, and the index that finds it.

Ranked by cosine similarity, as in the released code: all vectors here have unit length, so that a
dot product is the cosine.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec

from rissole.ground import memory, runtime, schema
from rissole.latent import blocks as grid
from rissole.latent.latents import Latents

import numpy as np
import torch
import torch.nn.functional as F

CHUNK = 512  # queries searched at once
BLOCK = 16384  # database rows that exact search compares them with at once


class Vectors:
    """What images are looked up by, of length 1, made of their codes when it is asked for.

    The latents are raw, neither centred nor scaled per channel, as in the paper's released code.
    `vectors[rows]` is float32 (..., d), flattened in the order channel, row, column; `rows` is a
    slice or int64 (...).

    Args:
        latents: of one split, n of them.
        query: `first_block` (paper, section 4.1.2) or `latent` (its footnote 2).
        blocks: blocks per side.
    """

    def __init__(self, latents: Latents, query: schema.Query, blocks: int):
        self._latents, self._query, self._blocks = latents, query, blocks
        side = latents.codes.shape[-1] // (blocks if query == "first_block" else 1)
        self.shape = len(latents), latents.codebook.shape[1] * side * side

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            rows = np.arange(len(self))[rows]
        flat = torch.from_numpy(rows.reshape(-1))
        vectors = np.empty((len(flat), self.shape[1]), np.float32)
        for start in range(0, len(flat), 4096):
            z = self._latents.z(flat[start : start + 4096])
            part = grid.cut(z, self._blocks)[:, 0] if self._query == "first_block" else z
            vectors[start : start + len(z)] = F.normalize(part.flatten(1), dim=1).numpy()
        return vectors.reshape(*rows.shape, self.shape[1])


@dataclass(frozen=True)
class Exact:
    """Search that compares a query with every vector: the oracle, and quick enough for 20,000.

    Attributes:
        vectors: float32 (n, d), of length 1.
        device: that compares them; they are held there where they fit.
    """

    vectors: np.ndarray | Vectors
    device: torch.device = torch.device("cpu")

    @cached_property
    def _held(self) -> torch.Tensor | None:
        n, width = self.vectors.shape
        if not memory.fits(4 * n * width, self.device):
            return None
        if self.device.type == "cpu":
            return torch.from_numpy(self.vectors[:])
        held = torch.empty(n, width, device=self.device)
        for start in range(0, n, BLOCK):
            held[start : start + BLOCK] = torch.from_numpy(self.vectors[start : start + BLOCK])
        return held

    def search(self, queries: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The `n` most similar rows, best first; of equally similar ones the lowest row first.

        Args:
            queries: float32 (q, d), of length 1.
            n: how many.

        Returns:
            Rows int64 (q, n) and cosine similarities float32 (q, n); -1 and -inf where the
            search finds fewer than `n`.
        """
        chunks = torch.from_numpy(queries).to(self.device).split(CHUNK)
        best = [
            (
                torch.empty(len(chunk), 0, dtype=torch.float64, device=self.device),
                torch.empty(len(chunk), 0, dtype=torch.int64, device=self.device),
            )
            for chunk in chunks
        ]
        for start in range(0, len(self.vectors), BLOCK):
            block = self._block(start)
            numbers = torch.arange(start, start + len(block), device=self.device)
            for i, chunk in enumerate(chunks):
                keys = torch.cat([best[i][0], (chunk @ block.T).double() - numbers * TIE], 1)
                rows = torch.cat([best[i][1], numbers.expand(len(chunk), -1)], 1)
                keys, places = keys.topk(min(n, keys.shape[1]))
                best[i] = keys, rows.gather(1, places)
        keys, rows = (torch.cat(part).cpu() for part in zip(*best, strict=True))
        return _padded(rows.numpy(), (keys + rows * TIE).float().numpy(), n)

    def _block(self, start: int) -> torch.Tensor:
        if self._held is not None:
            return self._held[start : start + BLOCK]
        return torch.from_numpy(self.vectors[start : start + BLOCK]).to(self.device)


TIE = 1e-15  # per row off a similarity: below a float32's last bit, and enough to order ties


@dataclass(frozen=True)
class ScaNN:
    """Approximate search by ScaNN; `vectors` stay at hand for the queries that it fails.

    Attributes:
        vectors: of the database.
        parts: a searcher over each stretch of it, by the row that the stretch begins with.
        reorder: candidates of each that are scored exactly.
    """

    vectors: np.ndarray | Vectors
    parts: dict[int, object]
    reorder: int

    def search(self, queries: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """As `Exact.search`, with most of the same rows."""
        asked = (
            (start, _asked(part, queries, n, self.reorder)) for start, part in self.parts.items()
        )
        return best(asked, n)


@dataclass(frozen=True)
class Random:
    """No search at all: other rows for each query, whatever it is. A control."""

    vectors: np.ndarray | Vectors
    draw: np.random.Generator

    def search(self, queries: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """`n` rows int64 (q, n) for each query, and their cosine similarities float32 (q, n)."""
        n = min(n, len(self.vectors))
        rows = np.stack([self.draw.choice(len(self.vectors), n, replace=False) for _ in queries])
        return rows, np.einsum("qd,qnd->qn", queries, self.vectors[rows])


@dataclass(frozen=True)
class Part:
    """Exact search among some `rows` of the database only."""

    vectors: np.ndarray | Vectors
    rows: np.ndarray

    @cached_property
    def _exact(self) -> Exact:
        return Exact(self.vectors[self.rows])

    def search(self, queries: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """As `Exact.search`, with rows of the whole database."""
        rows, similarities = self._exact.search(queries, n)
        return np.where(rows < 0, -1, self.rows[rows]), similarities


@dataclass(frozen=True)
class HubCorrected:
    """Search that takes off what a database row has to its own neighbours.

    Ranked by 2 cos(q, t) - r(t), with r(t) the mean similarity of row t to its `k` nearest: rows
    that are near to everything no longer are everybody's neighbours (Conneau et al. 2018, section
    2.3, of whose two terms that of the query ranks nothing).
    """

    index: "Exact | ScaNN | Part"
    k: int
    reach: np.ndarray

    @property
    def vectors(self) -> np.ndarray | Vectors:
        """Those of the database."""
        return self.index.vectors

    def search(self, queries: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """As `Exact.search`, out of ten times as many candidates; the similarities are cosines."""
        rows, similarities = self.index.search(queries, min(10 * n, len(self.vectors)))
        order = np.argsort(-(2 * similarities - self.reach[rows]), axis=1, kind="stable")[:, :n]
        return np.take_along_axis(rows, order, 1), np.take_along_axis(similarities, order, 1)


Index = Exact | ScaNN | Random | Part | HubCorrected


def choose(index: Index, table: schema.Retrieval, seed: int) -> Index:
    """The search that a neighbour table asks for, on top of the index over all train images."""
    vectors = index.vectors
    if table.query == "random":
        return Random(vectors, np.random.default_rng(seed))
    if table.share < 1:
        index = Part(vectors, runtime.evenly(len(vectors), round(table.share * len(vectors))))
    if table.correct_hubs:
        chunks = (vectors[start : start + 8 * CHUNK] for start in range(0, len(vectors), 8 * CHUNK))
        near = np.concatenate([index.search(chunk, table.k + 1)[1] for chunk in chunks])
        index = HubCorrected(index, table.k, near[:, 1:].mean(1))  # the first is the row itself
    return index


def scann_installed() -> bool:
    """Whether there is a ScaNN on this machine; it has wheels for Linux only."""
    return find_spec("scann") is not None


def _asked(
    searcher: object, queries: np.ndarray, n: int, reorder: int
) -> tuple[np.ndarray, np.ndarray]:
    """What a searcher of ScaNN finds: rows of its own, -1 and -inf where it finds fewer than n."""
    rows, similarities = searcher.search_batched_parallel(
        queries, final_num_neighbors=n, pre_reorder_num_neighbors=max(n, reorder)
    )
    # ScaNN fills a short list with row 0 and NaN.
    found = ~np.isnan(similarities)
    rows = np.where(found, rows.astype(np.int64), -1)
    return _padded(rows, np.where(found, similarities, -np.inf), n)


def best(
    found: Iterable[tuple[int, tuple[np.ndarray, np.ndarray]]], n: int
) -> tuple[np.ndarray, np.ndarray]:
    """The n best of what was found in stretches, each with the row that it begins with."""
    found = list(found)
    rows = np.concatenate([np.where(r < 0, -1, r + start) for start, (r, _) in found], 1)
    similarities = np.concatenate([s for _, (_, s) in found], 1)
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :n]
    return np.take_along_axis(rows, order, 1), np.take_along_axis(similarities, order, 1)


def _padded(rows: np.ndarray, similarities: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    missing = ((0, 0), (0, n - rows.shape[1]))
    return (
        np.pad(rows, missing, constant_values=-1),
        np.pad(similarities, missing, constant_values=-np.inf),
    )
