"""The neighbours of images: who is found, and who may not be one."""

from rissole.core import files
from rissole.harness.errors import InputError
from rissole.harness.progress import progress
from rissole.latent import latents
from rissole.latent.latents import Latents
from rissole.retrieval import search
from rissole.retrieval.settings import Exclude
from rissole.retrieval.vectors import Vectors

import numpy as np
import pyarrow as pa

TOGETHER = 4096  # queries looked up at once
SPARE = 200  # candidates at most that are fetched beyond k, for those that are excluded


def find(
    index: search.Index,
    database: Latents,
    queries: Latents,
    vectors: np.ndarray | Vectors,
    k: int,
    exclude: Exclude,
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest database images of each query that may be its neighbours.

    Args:
        index: over the database.
        database: the train latents.
        queries: latents of the images looked up, of either split.
        vectors: their query vectors, float32 (q, d).
        k: neighbours per query.
        exclude: `none` keeps everything, so that a train image is its own first neighbour (as
            released); `self` drops the image itself, its mirror, and every row with the same
            codes as one of them, together with the mirrors of those; a val image is not in the
            database, but its duplicates by code are dropped alike. `group` also drops all images
            of the query's group.

    Returns:
        Ids int64 (q, k), best first, and cosine similarities float32 (q, k).

    Raises:
        InputError: a query has fewer than k possible neighbours.
    """
    kin = []
    if exclude != "none":
        kin.append(_pictures(database, queries))
    if exclude == "group":
        kin.append(latents.number(np.concatenate([database.groups, queries.groups])))
    kin = [np.split(labels, [len(database)]) for labels in kin]
    fetched = k + sum(np.bincount(ours, minlength=1 + theirs.max())[theirs] for ours, theirs in kin)
    fetched = np.broadcast_to(np.minimum(fetched, k + SPARE), len(queries))
    rows = np.empty((len(queries), k), np.int64)
    similarities = np.empty((len(queries), k), np.float32)
    exhaustive = _exhaustive(index)
    starts = range(0, len(queries), TOGETHER)
    with progress("neighbours", " images", len(starts), TOGETHER) as advance:
        for start in starts:
            part = slice(start, start + TOGETHER)
            numbers = np.arange(len(queries))[part]
            found = index.search(vectors[part], int(fetched[part].max()))
            found = _allowed(*found, numbers, kin)
            rows[part], similarities[part] = (values[:, :k] for values in found)
            for query in numbers[rows[part, -1] < 0]:
                found = exhaustive.search(vectors[np.array([query])], len(database))
                found = _allowed(*found, numbers[[query - start]], kin)
                left = int((found[0] >= 0).sum())
                if left < k:
                    raise InputError(
                        f"params.yaml: k is {k}: image {queries.ids[query]} has only {left}"
                        f" possible neighbours among {len(database):,} train rows (exclude:"
                        f" {exclude}); lower k, or give enough images for"
                        f" {len(database) + k - left:,} train rows"
                    )
                rows[query], similarities[query] = (values[0, :k] for values in found)
            advance()
    return database.ids[rows], similarities


def pictures(database: Latents) -> np.ndarray:
    """A number for each image, int64 (n,), equal for those that are no neighbours (`self`)."""
    return _pictures(database, database)[: len(database)]


def _exhaustive(index: search.Index) -> search.Index:
    return search.Exact(index.vectors) if isinstance(index, search.Approximate) else index


def hubs(neighbours: np.ndarray, database: int) -> dict[str, float]:
    """How unevenly the database is used: by the neighbours (q, k) of all images, rows of it.

    Returns:
        The share of rows that are nobody's neighbour, and of how many images the most popular row
        is one.
    """
    uses = np.bincount(neighbours.ravel(), minlength=database)
    return {"never_retrieved": round(float((uses == 0).mean()), 4), "largest_hub": int(uses.max())}


def own_group(neighbours: np.ndarray, groups: np.ndarray) -> float:
    """The share of neighbours that are of the group of the image they belong to.

    Args:
        neighbours: rows of the neighbours of every train image, (n, k).
        groups: of all train images, int64 (n,).
    """
    return round(float((groups[neighbours] == groups[:, None]).mean()), 4)


def _allowed(
    rows: np.ndarray, similarities: np.ndarray, queries: np.ndarray, kin: list
) -> tuple[np.ndarray, np.ndarray]:
    """Results (q, n) without a query's kin, the rest moved up; -1 and -inf where it ends."""
    dropped = rows < 0
    for ours, theirs in kin:
        dropped = dropped | (ours[rows] == theirs[queries][:, None])
    order = np.argsort(dropped, axis=1, kind="stable")
    return tuple(
        np.take_along_axis(np.where(dropped, nothing, values), order, 1)
        for values, nothing in ((rows, -1), (similarities, np.float32(-np.inf)))
    )


def _pictures(database: Latents, queries: Latents) -> np.ndarray:
    """A number per row, first of the database, then of the queries, equal for one picture.

    Rows show one picture if their codes are equal, or one mirrors the other, or both lead to it
    over a third.
    """
    codes = np.concatenate([part.codes.numpy() for part in (database, queries)])
    originals = np.concatenate([database.originals, queries.originals])
    ties = [
        _numbered(files.bytes_column(codes.astype(np.uint16))),
        _numbered(pa.array(originals)),
    ]
    pictures, before = np.arange(len(codes)), None
    while not np.array_equal(pictures, before):
        before = pictures
        for tie in ties:
            lowest = np.full(len(codes), len(codes))
            np.minimum.at(lowest, tie, pictures)
            pictures = lowest[tie]
    return pictures


def _numbered(column: pa.Array) -> np.ndarray:
    numbers = column.dictionary_encode(null_encoding="encode").indices
    return numbers.to_numpy().astype(np.int64)
