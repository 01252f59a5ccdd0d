"""Build the search indices over the train images: by first block, and by whole latent.

Reads data/latents, a file at a time; writes data/index/<query> (ScaNN's files, or a note that
search is exact) and metrics/retrieval.json: how many of the 20 nearest neighbours of val images
each index finds, and how fast.

Of more images than `index.part_mb` holds, an index has parts, and workers that know nothing of each
other can build them: `python stages/build_index.py --part 3/16` builds the third sixteenth of the
parts; a last call without it builds what is missing, makes them one and measures.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from rissole.ground import config, files, identity, runtime, schema
from rissole.latent import latents
from rissole.retrieval import index, search

import numpy as np

LATENTS, INDEX, METRICS = Path("data/latents"), Path("data/index"), Path("metrics/retrieval.json")
PROBES = 1000  # val images that the recall is measured on


def main(part: str | None = None):
    settings = config.read()
    device = runtime.set_up(settings.threads)
    rows, metrics = latents.count(LATENTS, "train"), {}
    identified = files.digest(LATENTS / "manifest.json")
    for query in get_args(schema.Query):
        probes = np.concatenate(list(vectors("val", query, settings.blocks, PROBES)))
        blocks, shape = vectors("train", query, settings.blocks, rows), (rows, probes.shape[1])
        made_of = identity.of(
            LATENTS / "manifest.json",
            Path(__file__),
            index=settings.index.model_dump(),
            machine=runtime.machine(device),
        )
        over = blocks, shape, settings.index, INDEX / query
        if part is None:
            metrics[query] = index.build(*over, probes, made_of, device, identified)
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


def vectors(split: str, query: str, blocks: int, most: int) -> Iterator[np.ndarray]:
    """Query vectors of at most `most` images, evenly spread over a split, a file at a time."""
    chosen, start = runtime.evenly(latents.count(LATENTS, split), most), 0
    for part in latents.read_parts(LATENTS, split):
        here = chosen[(chosen >= start) & (chosen < start + len(part))] - start
        start += len(part)
        yield search.Vectors(part, query, blocks)[here]


if __name__ == "__main__":
    runtime.run(main)
