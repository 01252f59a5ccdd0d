"""Look up the neighbours of every image once, as the entry `retrievals.<name>` says.

Reads data/latents, data/embeddings and data/index; writes data/neighbours/<name>: `train.parquet`
and `val.parquet` with the neighbours of all images, and `queries.parquet`, train images in random
order with theirs, from which images are sampled. Neighbours are always train images. A table by
embedding comes with those of the train images, `embeddings.parquet`, to be told as they are.

    dvc repro retrieve_neighbours@main
    python stages/retrieve_neighbours.py main
"""

from pathlib import Path

from rissole.core import config, files, numerics
from rissole.harness.run import run
from rissole.latent import embeddings, latents
from rissole.retrieval import index, neighbours, search, vectors
from rissole.retrieval.settings import find_retrieval

import numpy as np
import pyarrow as pa

LATENTS, EMBEDDINGS = Path("data/latents"), Path("data/embeddings")
INDEX, NEIGHBOURS = Path("data/index"), Path("data/neighbours")
METRICS = Path("metrics")


def main(name: str):
    """Retrieve one table.

    Args:
        name: a table of `retrievals`; of the ablations with `ablations/` before it.
    """
    settings = config.read()
    device = numerics.set_up(settings.threads)
    table = find_retrieval(settings, name)
    train, val = (latents.read(LATENTS, split) for split in ("train", "val"))
    query = "latent" if table.query == "random" else table.query
    database = vectors.of(train, "train", query, settings.blocks, EMBEDDINGS)
    follows = vectors.identity(train.identity, query, EMBEDDINGS)
    opened = index.open(INDEX / query, database, device, follows)
    chosen = search.choose(opened, table, settings.seed)
    folder = NEIGHBOURS / name
    about = {"query": table.query, "latents": train.identity}

    found = neighbours.find(chosen, train, train, database, table.k, table.exclude)
    write(folder / "train.parquet", about, train.ids, *found)
    used = train.rows(found[0])
    measured = neighbours.hubs(used, len(train)) | {"cosine": round(float(found[1].mean()), 4)}
    if set(train.groups) != {None}:
        measured["own_group"] = neighbours.own_group(used, latents.number(train.groups))
    files.write_json(files.measured(METRICS, "neighbours", name), measured)
    queries = np.flatnonzero(train.ids == train.originals)
    queries = np.random.default_rng(settings.seed).permutation(queries)[: settings.queries]
    write(folder / "queries.parquet", about, train.ids[queries], *(x[queries] for x in found))

    looked_up = vectors.of(val, "val", query, settings.blocks, EMBEDDINGS)
    found = neighbours.find(chosen, train, val, looked_up, table.k, table.exclude)
    write(folder / "val.parquet", about, val.ids, *found)
    told = folder / "embeddings.parquet"
    told.unlink(missing_ok=True)
    if query == "embedding":
        embeddings.write(told, train.ids, database, latents=train.identity)
    print(
        f"retrieve_neighbours: {table.k} neighbours by {table.query} for {len(train):,} train and"
        f" {len(val):,} val images, {len(queries):,} sampling queries -> {folder}"
    )


def write(
    path: Path,
    about: dict[str, str],
    ids: np.ndarray,
    neighbours: np.ndarray,
    similarities: np.ndarray,
) -> None:
    """Write ids (n,), neighbour ids (n, k), similarities (n, k), and what they were found by."""
    columns = {
        "id": pa.array(ids),
        "neighbours": files.lists_column(neighbours),
        "similarities": files.lists_column(similarities),
    }
    files.write_table(path, pa.table(columns, metadata=about))


if __name__ == "__main__":
    run(main)
