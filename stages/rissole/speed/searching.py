"""What a kind of index costs and finds: seconds to build, bytes, queries a second, recall."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from rissole.ground import identity, schema
from rissole.retrieval import index, search
from rissole.speed.timing import quiet

import numpy as np

K = 20  # neighbours
TURNS = 3  # of asking all probes, the quickest of which counts


def measure(
    vectors: np.ndarray, probes: np.ndarray, settings: schema.Index, kind: str, twice: bool = False
) -> dict[str, float]:
    """Build an index and ask it.

    Args:
        vectors: float32 (n, d), of length 1.
        probes: queries, float32 (q, d), of length 1.
        settings: section `index`.
        kind: one of those of `index.kind`.
        twice: whether to build it again, and tell whether it comes out the `same` byte for byte.

    Returns:
        `recall_at_20`, `queries_per_second`, `build_seconds`, `parts`, and `bytes` on disk: 0 for
        exact search, which looks at the codes.
    """
    chosen = settings.model_copy(update={"kind": kind})
    with TemporaryDirectory() as folder, quiet():
        found = _measure(vectors, probes, chosen, Path(folder, "one"))
        if twice:
            _measure(vectors, probes[:1], chosen, Path(folder, "two"))
            one, two = (identity.digest(Path(folder, name)) for name in ("one", "two"))
            found["same"] = one == two
        return found


def _measure(
    vectors: np.ndarray, probes: np.ndarray, settings: schema.Index, folder: Path
) -> dict[str, float]:
    folder.mkdir()
    asked, built, answers, clock = 0.0, 0.0, [], time.perf_counter()
    for start, _, part in index.build_parts([vectors], vectors.shape, settings, folder, None, None):
        built += time.perf_counter() - clock
        turns = []
        for _ in range(TURNS):
            clock = time.perf_counter()
            answer = part.search(probes, K)
            turns.append(time.perf_counter() - clock)
        asked += min(turns)
        answers.append((start, answer))
        clock = time.perf_counter()
    rows, _ = search.best(answers, K)
    truth, _ = search.Exact(vectors).search(probes, K)
    return {
        "recall_at_20": search.recall(rows, truth),
        "queries_per_second": float(f"{len(probes) / asked:.2g}"),
        "build_seconds": float(f"{built:.2g}"),
        "parts": len(answers),
        "bytes": sum(path.stat().st_size for path in folder.rglob("*.*") if path.is_file()),
    }
