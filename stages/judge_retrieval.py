"""Judge what is retrieved, which the paper announces: by each thing images are looked up by.

Takes train images as queries, never their own neighbours, and measures: how many neighbours have
the query's label (where the split has labels) or group, how similar they are rank by rank and among
themselves, and how evenly the database is used; all on one yardstick, the encoder's embeddings.
Reads split, latents, embeddings and index; writes metrics/retrieval_quality.json.

    dvc repro judge_retrieval
    python stages/judge_retrieval.py
"""

from pathlib import Path
from typing import get_args

from rissole.core import config, files, numerics
from rissole.dataset import images
from rissole.harness.errors import InputError
from rissole.harness.run import run
from rissole.latent import embeddings, latents
from rissole.retrieval import index, neighbours, quality, search, vectors
from rissole.retrieval.settings import Query

import numpy as np

LATENTS, EMBEDDINGS, INDEX = Path("data/latents"), Path("data/embeddings"), Path("data/index")
METRICS = Path("metrics/retrieval_quality.json")
QUERIES = 5000  # train images at most that are looked up
K = 20  # neighbours that are judged, or as many as every image has


def main():
    settings = config.read()
    device = numerics.set_up(settings.threads)
    train = latents.read(LATENTS, "train")
    yardstick = embeddings.read(EMBEDDINGS, "train", train.ids)
    split = images.read_split(Path("data/split"), "train", pictures=False)
    place = {number: row for row, number in enumerate(split.ids.tolist())}
    place = [place[number] for number in train.originals.tolist()]
    kinds = {
        "label": np.array(split.labels, object)[place],
        "group": np.array(split.groups, object)[place],
    }
    kinds = {kind: latents.number(of) for kind, of in kinds.items() if None not in of}
    chosen = numerics.evenly(len(train), QUERIES)
    pictures = neighbours.pictures(train)
    k = min(K, len(train) - int(np.bincount(pictures).max()))
    if k < 2:
        raise InputError(f"{LATENTS}: an image has {k} possible neighbours; give other images")
    found = {"rows": len(train), "queries": len(chosen), "k": k, "by": {}}
    for query in (*get_args(Query), "random"):
        near = look_up(train, chosen, query, k, settings, device)
        agreement, by_rank = quality.likeness(near, chosen, yardstick)
        found["by"][query] = {
            "precision": {
                of: quality.precision(near, chosen, labels, pictures)
                for of, labels in kinds.items()
            },
            "agreement": agreement,
            "by_rank": by_rank,
            **quality.hubness(near, len(train)),
        }
    files.write_json(METRICS, files.rounded(found))
    print(f"judge_retrieval: {len(chosen):,} queries by {', '.join(found['by'])} -> {METRICS}")


def look_up(
    train: latents.Latents,
    chosen: np.ndarray,
    query: str,
    k: int,
    settings: config.Settings,
    device,
) -> np.ndarray:
    """Rows of the k neighbours of some train images, int64 (q, k), themselves and kin left out."""
    by = "latent" if query == "random" else query
    database = vectors.of(train, "train", by, settings.blocks, EMBEDDINGS)
    follows = vectors.identity(train.identity, by, EMBEDDINGS)
    opened = index.open(INDEX / by, database, device, follows)
    if query == "random":
        opened = search.Random(database, np.random.default_rng(settings.seed))
    ids, _ = neighbours.find(opened, train, train.some(chosen), database[chosen], k, "self")
    return train.rows(ids)


if __name__ == "__main__":
    run(main)
