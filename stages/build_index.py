"""Build the search indices over the train images: by first block, and by whole latent.

Reads data/latents; writes data/index/<query> (ScaNN's files, or a note that search is exact) and
metrics/retrieval.json: how many of the 20 nearest neighbours of val images each index finds, and
how fast.
"""

from pathlib import Path
from time import perf_counter
from typing import get_args

import numpy as np

from rissole.ground import config, files, runtime, schema
from rissole.latent import latents
from rissole.retrieval import search

LATENTS, INDEX, METRICS = Path("data/latents"), Path("data/index"), Path("metrics/retrieval.json")
PROBES = 1000  # val images that the recall is measured on


def main():
    settings = config.read()
    runtime.set_up(settings.threads)
    train, val = (latents.read(LATENTS, split) for split in ("train", "val"))
    probes = runtime.evenly(len(val), PROBES)
    metrics = {}
    for query in get_args(schema.Query):
        vectors = search.query_vectors(train, np.arange(len(train)), query, settings.blocks)
        search.build(vectors, settings.index, INDEX / query)
        index = search.open(INDEX / query, vectors)
        queries = search.query_vectors(val, probes, query, settings.blocks)
        metrics[query] = files.read_json(INDEX / query / "index.json") | measure(index, queries)
    files.write_json(METRICS, metrics)
    found = ", ".join(
        f"{query} {of['kind']} (recall {of['recall_at_20']:.3f})" for query, of in metrics.items()
    )
    print(f"build_index: {len(train):,} rows, {found} -> {INDEX}")


def measure(index: search.Index, queries: np.ndarray) -> dict[str, float]:
    """Recall at 20 against exact search, and queries per second to two digits."""
    started = perf_counter()
    rows, _ = index.search(queries, 20)
    seconds = perf_counter() - started
    exact, _ = search.Exact(index.vectors).search(queries, 20)
    hits = (rows[:, :, None] == exact[:, None]) & (exact[:, None] >= 0)
    return {
        "recall_at_20": round(float(hits.sum() / (exact >= 0).sum()), 4),
        "queries_per_second": float(f"{len(queries) / seconds:.2g}"),
    }


if __name__ == "__main__":
    runtime.run(main)
