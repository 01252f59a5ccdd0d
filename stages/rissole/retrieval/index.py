"""The index over the train images on disk: in parts, built by any number of workers, and measured.

Chosen by size where the settings leave it open: exact search, hashing (anisotropic, then exact
scores for the best `reorder`), or hashing in the leaves of a tree. Exact search also takes over
where ScaNN cannot be installed, and on CUDA, where it is quicker up to a million rows. A library
that searches is a module with `build`, `save`, `load` and `asking`.
"""

import math
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import perf_counter

from rissole.core import files, fingerprint, processes
from rissole.harness.errors import InputError
from rissole.retrieval import search, with_faiss, with_scann
from rissole.retrieval.settings import Index
from rissole.retrieval.vectors import Vectors

import numpy as np
import torch

CPU = torch.device("cpu")
CUDA_EXACT_BELOW = 1_000_000  # rows: all pairs of so many are a minute at 20 TFLOP/s and width 640
K = 20  # neighbours that the recall counts
LIBRARIES = {
    "hashed": with_scann,
    "tree": with_scann,
    "faiss_flat": with_faiss,
    "faiss_ivf": with_faiss,
    "faiss_hnsw": with_faiss,
}


def build(
    blocks: Iterable[np.ndarray],
    shape: tuple[int, int],
    settings: Index,
    folder: Path,
    probes: np.ndarray,
    made_of: str | None = None,
    device: torch.device = CPU,
    latents: str = "",
) -> dict[str, object]:
    """Build the index over vectors of length 1 into `folder`, named for its query, and measure it.

    Args:
        blocks: the vectors, float32 (m, d) at a time.
        shape: (n, d) of all of them.
        settings: section `index`.
        folder: is filled; parts that are there and made of the same are not made again.
        probes: queries float32 (q, d).
        made_of: digest of what the vectors follow from, or None to make everything anew.
        device: that exact search would run on.
        latents: identity of those that the vectors are of.

    Returns:
        What the index is, the share of the 20 nearest to the probes that it finds, and how many
        probes it finds them for in a second, to two digits.
    """
    kind, starts, _ = plan(shape, settings, device)
    near = truth = (np.empty((len(probes), 0), np.int64), np.empty((len(probes), 0), np.float32))
    seconds = 0.0
    for start, vectors, part in build_parts(blocks, shape, settings, folder, made_of, None, device):
        clock = perf_counter()
        found = part.search(probes, K)
        seconds += perf_counter() - clock
        exact = found if kind == "exact" else search.Exact(vectors).search(probes, K)
        near, truth = (
            search.best([(0, before), (start, now)], K)
            for before, now in ((near, found), (truth, exact))
        )
    about = {"kind": kind, "query": folder.name, "rows": shape[0], "width": shape[1]}
    if kind != "exact":
        about |= {"reorder": settings.reorder, "parts": starts}
    for path in folder.glob("*/"):
        if kind == "exact" or path.name not in map(_name, starts):
            shutil.rmtree(path)
    digests = [fingerprint.digest(folder / _name(start)) for start in about.get("parts", [])]
    files.write_record(folder / "index.json", about | {"latents": latents, "digests": digests})
    return about | {
        "recall_at_20": round(search.recall(near[0], truth[0]), 4),
        "queries_per_second": float(f"{len(probes) / seconds:.2g}"),
    }


def build_parts(
    blocks: Iterable[np.ndarray],
    shape: tuple[int, int],
    settings: Index,
    folder: Path,
    made_of: str | None,
    part: str | None,
    device: torch.device = CPU,
) -> Iterator[tuple[int, np.ndarray, search.Index]]:
    """Build the parts of an index one after the other; arguments as of `build`.

    No more vectors are held than `settings.part_mb` allows. `part`, such as `3/16`, leaves the
    other parts to other workers.

    Yields:
        The row that a part begins with, its vectors, and the search among them.
    """
    kind, starts, most = plan(shape, settings, device)
    mine = starts if part is None else processes.part(starts, part)
    for start, vectors in _stretches(blocks, *shape, most):
        if start in mine and kind == "exact":
            yield start, vectors, search.Exact(vectors, device)
        elif start in mine:
            searcher = _build_part(vectors, kind, settings, folder / _name(start), made_of)
            ask = LIBRARIES[kind].asking(searcher, settings.reorder)
            yield start, vectors, search.Approximate(vectors, {0: ask})


def plan(
    shape: tuple[int, int], settings: Index, device: torch.device
) -> tuple[str, list[int], int]:
    """The kind of an index over (n, d) vectors, the rows that its parts begin with, rows of each.

    Raises:
        InputError: the kind that the settings name needs a library that is not there.
    """
    rows, width = shape
    few = CUDA_EXACT_BELOW if device.type == "cuda" else settings.exact_below
    if settings.kind != "auto":
        kind = settings.kind
    elif rows < few or not with_scann.installed():
        kind = "exact"
    else:
        kind = "hashed" if rows < settings.tree_above else "tree"
    if kind in LIBRARIES:
        LIBRARIES[kind].require(kind)
    parts = math.ceil(rows * 4 * width / (settings.part_mb * 1e6))
    most = math.ceil(rows / parts)
    return kind, list(range(0, rows, most)), most


def open(
    folder: Path,
    vectors: np.ndarray | Vectors,
    device: torch.device = CPU,
    latents: str = "",
) -> search.Index:
    """Open an index for search.

    Args:
        folder: what `build` filled.
        vectors: what it was built over.
        device: that exact search runs on.
        latents: identity of those that the vectors are of.

    Raises:
        InputError: the index is missing, broken or was built over other vectors, or the library
            that built it is missing.
    """
    about = files.read_record(folder / "index.json")
    other = "built over other latents or embeddings than those of data/"
    fingerprint.check(folder / "index.json", about.get("latents"), latents, other)
    if (about["rows"], about["width"]) != tuple(vectors.shape):
        raise InputError(
            f"{folder}: built over {about['rows']:,} vectors of width {about['width']}, not"
            f" {len(vectors):,} of width {vectors.shape[1]}; run `dvc repro build_index`"
        )
    if about["kind"] == "exact":
        return search.Exact(vectors, device)
    parts = {}
    for start, digest in zip(about["parts"], about["digests"], strict=True):
        path = folder / _name(start)
        fingerprint.check(
            path, fingerprint.digest(path), digest, "not the part that index.json names"
        )
        library = LIBRARIES[about["kind"]]
        parts[start] = library.asking(library.load(path, about["kind"]), about["reorder"])
    return search.Approximate(vectors, parts)


def _build_part(vectors: np.ndarray, kind: str, settings: Index, target: Path, made_of: str | None):
    stage = f"build_index/{target.parent.name}"
    if made_of is not None and fingerprint.is_noted(stage, target, made_of):
        return LIBRARIES[kind].load(target, kind)
    searcher = LIBRARIES[kind].build(vectors, settings, kind)
    scratch = target.with_name(f".{target.name}.partial")
    for folder in (target, scratch):
        shutil.rmtree(folder, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        LIBRARIES[kind].save(searcher, scratch)
        scratch.replace(target)
    except RuntimeError:  # of which the libraries do not say why
        if shutil.disk_usage(scratch).free > 1e5:
            raise
        raise files.no_room(target, vectors.nbytes) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if made_of is not None:
        fingerprint.note(stage, target, made_of)
    return searcher


def _name(start: int) -> str:
    return f"{start:012}"


def _stretches(
    blocks: Iterable[np.ndarray], rows: int, width: int, most: int
) -> Iterator[tuple[int, np.ndarray]]:
    """The vectors in stretches of `most`, each with the number of its first."""
    start, filled, buffer = 0, 0, np.empty((most, width), np.float32)
    for block in blocks:
        while len(block):
            taken = block[: most - filled]
            buffer[filled : filled + len(taken)] = taken
            filled, block = filled + len(taken), block[len(taken) :]
            if filled == most or start + filled == rows:
                yield start, buffer[:filled]
                start, filled = start + filled, 0
