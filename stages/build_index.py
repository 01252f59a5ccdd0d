"""Build the search indices over the train images, one for each thing they can be looked up by.

Reads data/latents and data/embeddings, a file at a time; writes data/index/<query> (the files of
ScaNN or FAISS, or a note that search is exact) and metrics/retrieval.json: how many of the 20
nearest neighbours of val images each index finds, and how fast.

Of more images than `index.part_mb` holds, an index has parts, and workers that know nothing of each
other can build them: `python stages/build_index.py --part 3/16` builds the third sixteenth of the
parts; a last call without it builds what is missing, makes them one and measures.

    dvc repro build_index
    python stages/build_index.py
    python stages/build_index.py --part 3/16
"""

from pathlib import Path
from typing import get_args

from rissole.core import config, files, fingerprint, numerics
from rissole.harness.run import run
from rissole.latent import latents
from rissole.retrieval import index, vectors
from rissole.retrieval.settings import Index, Query

import numpy as np

LATENTS, EMBEDDINGS = Path("data/latents"), Path("data/embeddings")
INDEX, METRICS = Path("data/index"), Path("metrics/retrieval.json")
PROBES = 1000  # val images that the recall is measured on


def main(part: str | None = None):
    """Build it.

    Args:
        part: which part of the work, such as 3/16; all of it where none is given.
    """
    settings = config.read()
    device = numerics.set_up(settings.threads)
    rows, metrics = latents.count(LATENTS, "train"), {}
    identified = files.digest(LATENTS / "manifest.json")
    for query in get_args(Query):

        def looked_up(split: str, most: int, query=query):
            return vectors.by_file(LATENTS, split, query, settings.blocks, EMBEDDINGS, most)

        probes = np.concatenate(list(looked_up("val", PROBES)))
        blocks, shape = looked_up("train", rows), (rows, probes.shape[1])
        follows = vectors.identity(identified, query, EMBEDDINGS)
        made_of = fingerprint.of(
            Path(__file__),
            vectors=follows,
            index=settings.section(Index).model_dump(),
            blocks=settings.blocks,
            machine=numerics.machine(device),
        )
        over = blocks, shape, settings.section(Index), INDEX / query
        if part is None:
            metrics[query] = index.build(*over, probes, made_of, device, follows)
        else:
            built = sum(1 for _ in index.build_parts(*over, made_of, part, device))
            print(f"build_index: {built} parts by {query} -> {INDEX / query}")
    if part is not None:
        return
    files.write_json(METRICS, metrics)
    found = ", ".join(
        f"{query} {of['kind']} (recall {of['recall_at_20']:.3f})" for query, of in metrics.items()
    )
    print(f"build_index: {rows:,} rows, {found} -> {INDEX}")


if __name__ == "__main__":
    run(main)
