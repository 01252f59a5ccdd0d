"""Search by FAISS, where it is installed: flat (exact), inverted lists (IVF), a graph (HNSW).

A graph is built by one thread, as several would link other rows at every build.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from rissole.harness.errors import InputError
from rissole.retrieval.search import padded
from rissole.retrieval.settings import Index

import numpy as np
import torch

LINKS, EFFORT = 32, 200  # of a node of the graph, and candidates looked at to choose them


def installed() -> bool:
    """Whether there is a FAISS on this machine; it is no requirement."""
    return find_spec("faiss") is not None


def require(kind: str) -> None:
    """Raise InputError where the library is not there that a kind of index needs."""
    if not installed():
        raise InputError(
            f"params.yaml: index.kind is '{kind}': FAISS, which it needs, is not installed here;"
            " `pip install faiss-cpu`, or take 'auto'"
        )


def build(vectors: np.ndarray, settings: Index, kind: str):
    """An index over vectors float32 (n, d) of length 1; `kind` is faiss_flat, _ivf or _hnsw."""
    faiss = _library(kind)
    n, width = vectors.shape
    faiss.omp_set_num_threads(1 if kind == "faiss_hnsw" else torch.get_num_threads())
    if kind == "faiss_hnsw":
        index = faiss.IndexHNSWFlat(width, LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = EFFORT
    elif kind == "faiss_ivf":
        leaves = min(n, settings.leaves or round(n**0.5))
        coarse = faiss.IndexFlatIP(width)
        index = faiss.IndexIVFFlat(coarse, width, leaves, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = max(1, round(settings.searched * leaves))
        index.cp.min_points_per_centroid = 1  # else it warns where the leaves are few rows each
        index.train(vectors)
    else:
        index = faiss.IndexFlatIP(width)
    index.add(vectors)
    return index


def save(index, folder: Path) -> None:
    """Write an index; raises RuntimeError where it fails."""
    _library("faiss").write_index(index, str(folder / "index.faiss"))


def load(folder: Path, kind: str):
    """An index from its file."""
    return _library(kind).read_index(str(folder / "index.faiss"))


def asking(index, reorder: int) -> Callable:
    """How an index is asked: (queries, n) -> rows and similarities, as of `Exact.search`."""

    def ask(queries: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        faiss = _library("faiss")
        faiss.omp_set_num_threads(torch.get_num_threads())
        if hasattr(index, "hnsw"):
            index.hnsw.efSearch = max(n, reorder)
        similarities, rows = index.search(queries, min(n, index.ntotal))
        return padded(rows, np.where(rows < 0, -np.inf, similarities).astype(np.float32), n)

    return ask


def _library(kind: str):
    require(kind)
    import faiss

    return faiss
