"""Search among the train images: what an image is looked up by, and the index that finds it.

Ranked by cosine similarity, as in the released code: all vectors here have unit length, so that a
dot product is the cosine.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from rissole.ground import files, runtime, schema
from rissole.ground.errors import InputError
from rissole.latent import blocks as grid
from rissole.latent.latents import Latents

CHUNK = 512  # queries searched at once
BLOCK = 16384  # database rows that exact search compares them with at once


def query_vectors(
    latents: Latents, rows: np.ndarray, query: schema.Query, blocks: int
) -> np.ndarray:
    """What an image is looked up by: its first block, or its whole latent, of length 1.

    The latents are raw, neither centred nor scaled per channel, as in the paper's released code.

    Args:
        latents: of one split.
        rows: of the images, int64 (n,).
        query: `first_block` (paper, section 4.1.2) or `latent` (its footnote 2).
        blocks: blocks per side.

    Returns:
        float32 (n, d), flattened in the order channel, row, column.
    """
    side = latents.codes.shape[-1] // (blocks if query == "first_block" else 1)
    vectors = np.empty((len(rows), latents.codebook.shape[1] * side * side), np.float32)
    for start in range(0, len(rows), 4096):
        z = latents.z(torch.from_numpy(rows[start : start + 4096]))
        part = grid.cut(z, blocks)[:, 0] if query == "first_block" else z
        vectors[start : start + len(z)] = F.normalize(part.flatten(1), dim=1).numpy()
    return vectors


@dataclass(frozen=True)
class Exact:
    """Search that compares a query with every vector: the oracle, and quick enough for 20,000."""

    vectors: np.ndarray

    def search(self, queries: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The `n` most similar rows, best first; of equally similar ones the lowest row first.

        Args:
            queries: float32 (q, d), of length 1.
            n: how many.

        Returns:
            Rows int64 (q, n) and cosine similarities float32 (q, n); -1 and -inf where the
            search finds fewer than `n`.
        """
        found = [self._search(chunk, n) for chunk in torch.from_numpy(queries).split(CHUNK)]
        rows, keys = (torch.cat(part) for part in zip(*found, strict=True))
        return _padded(rows.numpy(), (keys + rows * TIE).float().numpy(), n)

    def _search(self, queries: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys = torch.empty(len(queries), 0, dtype=torch.float64)
        rows = torch.empty(len(queries), 0, dtype=torch.int64)
        for start in range(0, len(self.vectors), BLOCK):
            block = torch.from_numpy(self.vectors[start : start + BLOCK])
            numbers = torch.arange(start, start + len(block))
            keys = torch.cat([keys, (queries @ block.T).double() - numbers * TIE], 1)
            rows = torch.cat([rows, numbers.expand(len(queries), -1)], 1)
            keys, places = keys.topk(min(n, keys.shape[1]))
            rows = rows.gather(1, places)
        return rows, keys


TIE = 1e-15  # per row off a similarity: below a float32's last bit, and enough to order ties


@dataclass(frozen=True)
class ScaNN:
    """Approximate search by ScaNN; `vectors` stay at hand for the queries that it fails."""

    vectors: np.ndarray
    searcher: object
    reorder: int

    def search(self, queries: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """As `Exact.search`, with most of the same rows."""
        rows, similarities = self.searcher.search_batched_parallel(
            queries, final_num_neighbors=n, pre_reorder_num_neighbors=max(n, self.reorder)
        )
        # ScaNN fills a short list with row 0 and NaN.
        found = ~np.isnan(similarities)
        rows = np.where(found, rows.astype(np.int64), -1)
        return _padded(rows, np.where(found, similarities, -np.inf), n)


@dataclass(frozen=True)
class Random:
    """No search at all: other rows for each query, whatever it is. A control."""

    vectors: np.ndarray
    seed: int

    def search(self, queries: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """`n` rows int64 (q, n) for each query, and their cosine similarities float32 (q, n)."""
        draw = np.random.default_rng((self.seed, len(queries)))
        n = min(n, len(self.vectors))
        rows = np.stack([draw.choice(len(self.vectors), n, replace=False) for _ in queries])
        return rows, np.einsum("qd,qnd->qn", queries, self.vectors[rows])


@dataclass(frozen=True)
class Part:
    """Exact search among some `rows` of the database only."""

    vectors: np.ndarray
    rows: np.ndarray

    def search(self, queries: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """As `Exact.search`, with rows of the whole database."""
        rows, similarities = Exact(self.vectors[self.rows]).search(queries, n)
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
    def vectors(self) -> np.ndarray:
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
        return Random(vectors, seed)
    if table.share < 1:
        index = Part(vectors, runtime.evenly(len(vectors), round(table.share * len(vectors))))
    if table.correct_hubs:
        _, similarities = index.search(vectors, table.k + 1)  # the first is the row itself
        index = HubCorrected(index, table.k, similarities[:, 1:].mean(1))
    return index


def scann_installed() -> bool:
    """Whether there is a ScaNN on this machine; it has wheels for Linux only."""
    return find_spec("scann") is not None


def build(vectors: np.ndarray, settings: schema.Index, folder: Path) -> None:
    """Build the index over `vectors` (n, d), of length 1, into `folder`, named for its query.

    Chosen by size where the settings leave it open: exact search, hashing (anisotropic, then exact
    scores for the best `reorder`), or hashing in the leaves of a tree. Exact search also takes
    over where ScaNN cannot be installed.
    """
    kind = _kind(settings, len(vectors))
    folder.mkdir(parents=True, exist_ok=True)
    about = {"kind": kind, "query": folder.name, "rows": len(vectors), "width": vectors.shape[1]}
    if kind != "exact":
        # Without relative_path the files would name this folder and break on a move.
        _searcher(vectors, kind, settings).serialize(str(folder), relative_path=True)
        about["reorder"] = settings.reorder
    files.write_json(folder / "index.json", about)


def open(folder: Path, vectors: np.ndarray) -> Index:
    """Open an index for search.

    Args:
        folder: what `build` filled.
        vectors: what it was built over.

    Raises:
        InputError: the index is missing or was built over other vectors, or ScaNN is.
    """
    about = files.read_json(folder / "index.json")
    if (about["rows"], about["width"]) != vectors.shape:
        raise InputError(
            f"{folder}: built over {about['rows']:,} vectors of width {about['width']}, not"
            f" {len(vectors):,} of width {vectors.shape[1]}; run `dvc repro build_index`"
        )
    if about["kind"] == "exact":
        return Exact(vectors)
    searcher = _scann(about["kind"]).load_searcher(str(folder))
    searcher.set_num_threads(torch.get_num_threads())
    return ScaNN(vectors, searcher, about["reorder"])


def _padded(rows: np.ndarray, similarities: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    missing = ((0, 0), (0, n - rows.shape[1]))
    return (
        np.pad(rows, missing, constant_values=-1),
        np.pad(similarities, missing, constant_values=-np.inf),
    )


def _kind(settings: schema.Index, rows: int) -> str:
    if settings.kind != "auto":
        return settings.kind
    if rows < settings.exact_below or not scann_installed():
        return "exact"
    return "hashed" if rows < settings.tree_above else "tree"


def _scann(kind: str):
    if not scann_installed():
        raise InputError(
            f"params.yaml: index.kind is '{kind}': ScaNN, which it needs, is not installed here;"
            " with 'auto', `dvc repro build_index` takes exact search"
        )
    from scann import scann_ops_pybind

    return scann_ops_pybind


def _searcher(vectors: np.ndarray, kind: str, settings: schema.Index):
    builder = _scann(kind).builder(vectors, 20, "dot_product")
    builder = builder.set_n_training_threads(torch.get_num_threads())
    if kind == "tree":
        leaves = min(len(vectors), settings.leaves or round(len(vectors) ** 0.5))
        builder = builder.tree(
            num_leaves=leaves,
            num_leaves_to_search=max(1, round(settings.searched * leaves)),
            training_sample_size=250_000,  # released
            random_init=False,  # the default draws other leaves at every build
        )
    return (
        builder.score_ah(2, anisotropic_quantization_threshold=0.2)
        .reorder(settings.reorder)
        .build()
    )
