"""Approximate search by ScaNN: hashing (anisotropic), alone or in the leaves of a tree."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from rissole.harness.errors import InputError
from rissole.retrieval.search import padded
from rissole.retrieval.settings import Index

import numpy as np
import torch


def installed() -> bool:
    """Whether there is a ScaNN on this machine; it has wheels for Linux only."""
    return find_spec("scann") is not None


def require(kind: str) -> None:
    """Raise InputError where the library is not there that a kind of index needs."""
    if not installed():
        raise InputError(
            f"params.yaml: index.kind is '{kind}': ScaNN, which it needs, is not installed here;"
            " with 'auto', `dvc repro build_index` takes exact search"
        )


def build(vectors: np.ndarray, settings: Index, kind: str):
    """A searcher over vectors float32 (n, d) of length 1; `kind` is hashed or tree."""
    builder = _library(kind).builder(vectors, 20, "dot_product")
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


def save(searcher, folder: Path) -> None:
    """Write a searcher's files; raises RuntimeError, which does not say why, where it fails."""
    # Without relative_path the files would name this folder and break on a move.
    searcher.serialize(str(folder), relative_path=True)


def load(folder: Path, kind: str):
    """A searcher from its files."""
    searcher = _library(kind).load_searcher(str(folder))
    searcher.set_num_threads(torch.get_num_threads())
    return searcher


def asking(searcher, reorder: int) -> Callable:
    """How a searcher is asked: (queries, n) -> rows and similarities, as of `Exact.search`."""

    def ask(queries: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        rows, similarities = searcher.search_batched_parallel(
            queries, final_num_neighbors=n, pre_reorder_num_neighbors=max(n, reorder)
        )
        # ScaNN fills a short list with row 0 and NaN.
        found = ~np.isnan(similarities)
        rows = np.where(found, rows.astype(np.int64), -1)
        return padded(rows, np.where(found, similarities, -np.inf), n)

    return ask


def _library(kind: str):
    require(kind)
    from scann import scann_ops_pybind

    return scann_ops_pybind
