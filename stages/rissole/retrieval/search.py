"""Search among the train images: exact, approximate, random, among some.

Ranked by cosine similarity, as in the released code: all vectors here have unit length, so that a
dot product is the cosine.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from rissole.core import memory, numerics
from rissole.retrieval.settings import Retrieval
from rissole.retrieval.vectors import Vectors

import numpy as np
import torch

CHUNK = 512  # queries searched at once
BLOCK = 16384  # database rows that exact search compares them with at once


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
                torch.empty(len(chunk), 0, device=self.device),
                torch.empty(len(chunk), 0, dtype=torch.int64, device=self.device),
            )
            for chunk in chunks
        ]
        for start in range(0, len(self.vectors), BLOCK):
            block = self._block(start)
            for i, chunk in enumerate(chunks):
                found, rows = _top(chunk @ block.T, min(n, len(block)))
                near, among = best[i]
                near, among = torch.cat([near, found], 1), torch.cat([among, rows + start], 1)
                best[i] = tuple(of[:, :n] for of in _stable(near, among))
        similarities, rows = (torch.cat(part).cpu() for part in zip(*best, strict=True))
        return padded(rows.numpy(), similarities.numpy(), n)

    def _block(self, start: int) -> torch.Tensor:
        if self._held is not None:
            return self._held[start : start + BLOCK]
        return torch.from_numpy(self.vectors[start : start + BLOCK]).to(self.device)


def _top(similarities: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The n largest similarities of each query, and where; of equal ones the first."""
    top, places = similarities.topk(min(n + 1, similarities.shape[1]))
    tied = (top[:, n - 1] == top[:, -1]).nonzero()[:, 0] if top.shape[1] > n else []
    if len(tied):  # topk has taken any of those that tie for the last place
        order = similarities[tied].argsort(dim=1, descending=True, stable=True)[:, : n + 1]
        top[tied], places[tied] = similarities[tied].gather(1, order), order
    return top[:, :n], places[:, :n]


def _stable(similarities: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Similarities and rows (q, n), largest first and of equal ones the lowest row."""
    order = rows.argsort(dim=1)
    similarities, rows = similarities.gather(1, order), rows.gather(1, order)
    order = similarities.argsort(dim=1, descending=True, stable=True)
    return similarities.gather(1, order), rows.gather(1, order)


@dataclass(frozen=True)
class Approximate:
    """Approximate search by a library; `vectors` stay at hand for the queries that it fails.

    Attributes:
        vectors: of the database.
        parts: for each stretch of it, by the row that the stretch begins with, what searches it:
            (queries, n) -> rows of the stretch and similarities, as of `Exact.search`.
    """

    vectors: np.ndarray | Vectors
    parts: dict[int, Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]]

    def search(self, queries: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """As `Exact.search`, with most of the same rows."""
        return best(((start, part(queries, n)) for start, part in self.parts.items()), n)


@dataclass(frozen=True)
class Random:
    """No search at all: other rows for each query, whatever it is. A control."""

    vectors: np.ndarray | Vectors
    draw: np.random.Generator

    def search(self, queries: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """`n` rows int64 (q, n) for each query, and their cosine similarities float32 (q, n)."""
        n = min(n, len(self.vectors))
        rows = np.stack([self.draw.choice(len(self.vectors), n, replace=False) for _ in queries])
        parts = (
            (queries[i : i + 64], self.vectors[rows[i : i + 64]]) for i in range(0, len(rows), 64)
        )
        return rows, np.concatenate([np.einsum("qd,qnd->qn", *part) for part in parts])


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


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    """The share of the true nearest rows (q, n) that are among those found (q, m); -1 is none."""
    hits = (found[:, :, None] == truth[:, None]) & (truth[:, None] >= 0)
    return float(hits.sum() / max(1, (truth >= 0).sum()))


Index = Exact | Approximate | Random | Part


def choose(index: Index, table: Retrieval, seed: int) -> Index:
    """The search that a neighbour table asks for, on top of the index over all train images."""
    vectors = index.vectors
    if table.query == "random":
        return Random(vectors, np.random.default_rng(seed))
    if table.share < 1:
        index = Part(vectors, numerics.evenly(len(vectors), round(table.share * len(vectors))))
    return index


def best(
    found: Iterable[tuple[int, tuple[np.ndarray, np.ndarray]]], n: int
) -> tuple[np.ndarray, np.ndarray]:
    """The n best of what was found in stretches, each with the row that it begins with."""
    found = list(found)
    rows = np.concatenate([np.where(r < 0, -1, r + start) for start, (r, _) in found], 1)
    similarities = np.concatenate([s for _, (_, s) in found], 1)
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :n]
    return np.take_along_axis(rows, order, 1), np.take_along_axis(similarities, order, 1)


def padded(rows: np.ndarray, similarities: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and similarities (q, at most n) as (q, n): -1 and -inf where nothing was found."""
    missing = ((0, 0), (0, n - rows.shape[1]))
    return (
        np.pad(rows, missing, constant_values=-1),
        np.pad(similarities, missing, constant_values=-np.inf),
    )
